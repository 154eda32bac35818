/*
 * delta/union.c
 *     Delta rule for UNION ALL, and the way of UNION to distinct.c.
 *
 * UNION ALL is linear: its delta is that of each branch, one after the other.  UNION is DISTINCT over UNION ALL; any UNION or UNION ALL
 * below a UNION may be taken as UNION ALL, since duplicates vanish on top.  set_operation.c has made subqueries of all other operations.
 */
#include "postgres.h"

#include "block.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "rowset.h"
#include "utils/builtins.h"

#define BRANCHES_MAX 62			/* inputs of a step */

typedef struct UnionBuild
{
	DeltaProgram *program;
	List	   *rowsets;		/* of int: the changing branches' deltas, in step-input order */
	List	   *branch_names;	/* of List of String: their columns */
	List	   *names;			/* of String: the result's columns */
	List	   *types;
	List	   *typmods;
} UnionBuild;

static char *
print_union_all(ProgramStep *step, uint64 nonempty)
{
	UnionBuild *build = step->build;
	StringInfoData sql;

	initStringInfo(&sql);
	for (int i = 0; i < step->ninputs; i++)
	{
		List	   *columns = list_nth(build->branch_names, i);
		ProgramRowset *rowset = list_nth(build->program->rowsets, step->inputs[i]);

		if ((nonempty & (UINT64CONST(1) << i)) == 0)
			continue;
		appendStringInfoString(&sql, sql.len > 0 ? "\nUNION ALL\nSELECT " : "SELECT ");
		for (int column = 0; column < list_length(columns); column++)
			appendStringInfo(&sql, "%s::%s AS %s, ", quote_identifier(strVal(list_nth(columns, column))),
							 format_type_extended(list_nth_oid(build->types, column),
												  list_nth_int(build->typmods, column),
												  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY),
							 quote_identifier(strVal(list_nth(build->names, column))));
		appendStringInfo(&sql, ROWSET_WEIGHT_COLUMN " FROM %s", quote_identifier(rowset->name));
	}
	return sql.data;
}

/* Collects the branches, and makes UNION ALL of every operation. */
static void
collect_branches(Node *node, bool below_distinct, List **branches)
{
	if (IsA(node, RangeTblRef))
	{
		*branches = lappend_int(*branches, ((RangeTblRef *) node)->rtindex);
		return;
	}

	SetOperationStmt *operation = castNode(SetOperationStmt, node);

	if (operation->op != SETOP_UNION || (!operation->all && !below_distinct))
		elog(ERROR, "set operation has not been rewritten");
	operation->all = true;
	operation->groupClauses = NIL;
	collect_branches(operation->larg, below_distinct, branches);
	collect_branches(operation->rarg, below_distinct, branches);
}

static bool
compile_branches(Compiler *compiler, Query *query, List *branches, UnionBuild *build, Compiled *compiled)
{
	bool		complete = true;
	ListCell   *lc;

	foreach(lc, branches)
	{
		RangeTblEntry *rte = rt_fetch(lfirst_int(lc), query->rtable);
		Compiled   *branch;
		List	   *names;

		/* stays as it is: compiling takes queries to pieces, and what never changes is printed only */
		if (!reads_tables((Node *) rte->subquery))
		{
			rename_targets(rte->subquery->targetList, target_column_names(rte->subquery->targetList));
			continue;
		}
		branch = compile_level(compiler, rte->subquery);
		if (branch == NULL)
		{
			complete = false;
			continue;
		}
		names = target_column_names(branch->new_query->targetList);
		rename_targets(branch->new_query->targetList, names);
		rte->subquery = branch->new_query;
		compiled->states = list_union_ptr(compiled->states, branch->states);
		if (branch->rowset < 0)
			continue;
		build->rowsets = lappend_int(build->rowsets, branch->rowset);
		build->branch_names = lappend(build->branch_names, names);
	}
	return complete;
}

Compiled *
compile_union_all(Compiler *compiler, Query *query)
{
	SetOperationStmt *top = castNode(SetOperationStmt, query->setOperations);
	bool		distinct = top->op == SETOP_UNION && !top->all;
	UnionBuild *build = palloc0(sizeof(UnionBuild));
	Compiled   *compiled = palloc0(sizeof(Compiled));
	List	   *branches = NIL;
	ListCell   *lc;

	collect_branches((Node *) top, distinct, &branches);
	if (list_length(branches) > BRANCHES_MAX)
		return compile_cannot(compiler, "a UNION of more than %d queries has no delta rule", BRANCHES_MAX);
	if (!compile_branches(compiler, query, branches, build, compiled))
		return NULL;

	build->program = compiler->program;
	query->cteList = NIL;
	build->names = target_column_names(query->targetList);
	rename_targets(query->targetList, build->names);
	build->types = top->colTypes;
	build->typmods = top->colTypmods;
	compiled->new_query = query;
	compiled->rowset = -1;
	if (build->rowsets != NIL)
	{
		ProgramStep *step = program_add_step(compiler, STEP_QUERY, "union all", "linear");

		foreach(lc, build->rowsets)
			step_add_input(step, lfirst_int(lc));
		step->build = build;
		step->has_fine_locks = true;
		step->print = print_union_all;
		step->output = compiled->rowset =
			program_add_rowset(compiler, program_new_rowset_name(compiler, "rows"), InvalidOid);
	}
	return distinct ? compile_distinct(compiler, compiled) : compiled;
}
