/*
 * delta/distinct.c
 *     Delta rule for DISTINCT, and so for UNION: grouping by all columns.
 *
 * The state counts how often each row occurs in the input.  A row is visible while its count is above zero; the group delta is the sum of
 * weights per row, and the merge tells which rows came and which went.
 */
#include "postgres.h"

#include "block.h"
#include "catalog/pg_type_d.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "query.h"
#include "rowset.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/typcache.h"

#define DISTINCT_COLUMNS_MAX 32 /* columns of an index */

typedef struct DistinctBuild
{
	ProgramState *state;
	DeltaProgram *program;
	List	   *names;			/* of String: the input's columns */
} DistinctBuild;

static void
append_grouped(StringInfo sql, DistinctBuild *build, const char *count, const char *from, bool with_weight)
{
	ListCell   *lc;
	int			i = 0;

	appendStringInfoString(sql, "SELECT ");
	foreach(lc, build->names)
		appendStringInfo(sql, "t.%s AS k%d, ", quote_identifier(strVal(lfirst(lc))), ++i);
	appendStringInfo(sql, "%s AS rows%s\nFROM %s t\nGROUP BY ", count,
					 with_weight ? ", 1 AS " ROWSET_WEIGHT_COLUMN : "", from);
	i = 0;
	foreach(lc, build->names)
		appendStringInfo(sql, "%s%d", i > 0 ? ", " : "", i + 1), i++;
}

static char *
print_group_delta(ProgramStep *step, uint64 nonempty)
{
	DistinctBuild *build = step->build;
	ProgramRowset *input = list_nth(build->program->rowsets, step->inputs[0]);
	StringInfoData sql;

	initStringInfo(&sql);
	append_grouped(&sql, build, "sum(t." ROWSET_WEIGHT_COLUMN ")", quote_identifier(input->name), true);
	return sql.data;
}

static bool
can_group(Compiler *compiler, List *targets)
{
	ListCell   *lc;

	if (list_length(targets) > DISTINCT_COLUMNS_MAX)
		return compile_cannot(compiler, "DISTINCT over more than %d columns has no delta rule",
							  DISTINCT_COLUMNS_MAX) != NULL;
	foreach(lc, targets)
	{
		Oid			type = exprType((Node *) lfirst_node(TargetEntry, lc)->expr);

		if (!OidIsValid(lookup_type_cache(type, TYPECACHE_LT_OPR)->lt_opr))
			return compile_cannot(compiler, "DISTINCT over type %s, which has no order, has no delta rule",
								  format_type_be(type)) != NULL;
	}
	return true;
}

static void
add_columns(DistinctBuild *build, List *targets, List **outputs)
{
	ListCell   *lc;
	StateColumn *rows;
	int			i = 0;

	foreach(lc, targets)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);
		StateColumn *column = palloc0(sizeof(StateColumn));
		Var		   *var;

		column->name = column->delta_name = psprintf("k%d", ++i);
		column->type = exprType((Node *) target->expr);
		column->typmod = exprTypmod((Node *) target->expr);
		column->collation = exprCollation((Node *) target->expr);
		build->state->columns = lappend(build->state->columns, column);
		var = makeVar(1, i, column->type, column->typmod, column->collation, 0);
		*outputs = lappend(*outputs, makeTargetEntry((Expr *) var, i, pstrdup(target->resname), false));
	}
	rows = palloc0(sizeof(StateColumn));
	rows->name = rows->delta_name = pstrdup("rows");
	rows->type = INT8OID;
	rows->typmod = -1;
	rows->merge_function = F_INT8PL;
	build->state->columns = lappend(build->state->columns, rows);
	build->state->nkeys = i;
}

static char *
fill_sql(DistinctBuild *build, Query *input)
{
	StringInfoData sql;

	initStringInfo(&sql);
	append_grouped(&sql, build, "count(*)", psprintf("(%s)", query_print(input)), false);
	return sql.data;
}

Compiled *
compile_distinct(Compiler *compiler, Compiled *input)
{
	List	   *targets = input->new_query->targetList;
	DistinctBuild *build = palloc0(sizeof(DistinctBuild));
	List	   *outputs = NIL;
	ProgramStep *delta;
	ProgramStep *merge;
	Compiled   *compiled;

	if (input->rowset < 0)
		return compile_cannot(compiler, "DISTINCT over rows that never change has no delta rule");
	if (!can_group(compiler, targets))
		return NULL;

	build->program = compiler->program;
	build->names = target_column_names(targets);
	build->state = palloc0(sizeof(ProgramState));
	build->state->number = list_length(compiler->program->states) + 1;
	build->state->name = psprintf("__pgt_state_%d", build->state->number);
	build->state->merges = true;
	build->state->reads = input->states;
	add_columns(build, targets, &outputs);
	build->state->fill_sql = fill_sql(build, input->new_query);
	compiler->program->states = lappend(compiler->program->states, build->state);

	delta = program_add_step(compiler, STEP_QUERY, "distinct", "algebraic");
	delta->build = build;
	delta->has_fine_locks = true;
	delta->print = print_group_delta;
	step_add_input(delta, input->rowset);
	delta->output = program_add_rowset(compiler, program_new_rowset_name(compiler, "group_delta"), InvalidOid);

	merge = program_add_step(compiler, STEP_MERGE, "distinct", "algebraic");
	merge->state = build->state;
	merge->has_fine_locks = true;
	step_add_input(merge, delta->output);
	merge->output = program_add_rowset(compiler, program_new_rowset_name(compiler, "groups"), InvalidOid);

	compiled = project_state(compiler, build->state, "distinct output", list_make1_int(merge->output), outputs, NIL);
	for (int i = 1; i <= list_length(outputs); i++)
		compiled->key = lappend_int(compiled->key, i);
	compiled->key_is_unique = true;
	return compiled;
}
