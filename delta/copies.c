/*
 * delta/copies.c
 *     Delta rule for INTERSECT ALL and EXCEPT ALL: rows with a number of copies.
 *
 * set_operation.c gives one row per value with its counts on both sides, l and r; the value has min(l, r) or max(l - r, 0) copies.  In the
 * new state generate_series() makes them.  A delta has weights for that: a row of counts that comes or goes with weight w brings its
 * value with weight w times its copies, and -old +new of a value with a million copies, of which one came, is two rows.
 *
 * Right because making copies is linear: it looks at one row of counts at a time.
 */
#include "postgres.h"

#include "block.h"
#include "lib/stringinfo.h"
#include "rowset.h"
#include "tree_build.h"
#include "utils/builtins.h"

typedef struct CopiesBuild
{
	DeltaProgram *program;
	const char *copies;			/* over the columns l and r */
	List	   *columns;		/* of String: of the counts, l and r at the end */
	List	   *names;			/* of String: of the result */
} CopiesBuild;

static char *
print_copies(ProgramStep *step, uint64 nonempty)
{
	CopiesBuild *build = step->build;
	ProgramRowset *input = list_nth(build->program->rowsets, step->inputs[0]);
	StringInfoData sql;
	ListCell   *lc;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	foreach(lc, build->names)
		appendStringInfo(&sql, "%s AS %s, ",
						 quote_identifier(strVal(list_nth(build->columns, foreach_current_index(lc)))),
						 quote_identifier(strVal(lfirst(lc))));
	appendStringInfo(&sql, "(%s * " ROWSET_WEIGHT_COLUMN ")::integer AS " ROWSET_WEIGHT_COLUMN "\nFROM %s\nWHERE %s > 0",
					 build->copies, quote_identifier(input->name), build->copies);
	return sql.data;
}

Compiled *
compile_copies(Compiler *compiler, Query *level)
{
	SetOperationStmt *operation = castNode(SetOperationStmt, level->setOperations);
	List	   *names = target_column_names(level->targetList);
	Compiled   *counts = compile_level(compiler, set_operation_counts(level, operation));
	Compiled   *compiled;
	CopiesBuild *build;
	ProgramStep *step;

	if (counts == NULL)
		return NULL;
	compiled = palloc0(sizeof(Compiled));
	compiled->rowset = -1;
	compiled->states = counts->states;
	compiled->new_query = set_operation_copies(counts->new_query, operation);
	rename_targets(compiled->new_query->targetList, names);
	if (counts->rowset < 0)
		return compiled;

	build = palloc0(sizeof(CopiesBuild));
	build->program = compiler->program;
	build->copies = operation->op == SETOP_EXCEPT ? "(l - r)" : "LEAST(l, r)";
	build->columns = target_column_names(counts->new_query->targetList);
	build->names = names;
	step = program_add_step(compiler, STEP_QUERY, operation->op == SETOP_EXCEPT ? "except all" : "intersect all", "linear");
	step_add_input(step, counts->rowset);
	step->build = build;
	step->print = print_copies;
	step->output = compiled->rowset =
		program_add_rowset(compiler, program_new_rowset_name(compiler, "rows"), InvalidOid);
	return compiled;
}
