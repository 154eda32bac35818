/*
 * delta/direct_step.c
 *     Steps that are nothing but a projection or filter of one rowset, run without the executor.
 *
 * For a handful of rows, direct_join.c does this with what it keeps of a plan; here are more rows, and expressions that cannot be kept.
 *
 * Above each grouping node is such a step: the state's rows that have changed, as columns of the stream table.  For the one or two rows of a short
 * transaction, starting and ending the executor takes ten times as long as computing them.  So where the plan is one scan of the rowset, its
 * condition and its target list are evaluated here, as the scan node would do.  What is to be evaluated comes from the plan as the server has
 * it, whose validity, locks and replanning are its business as before; nothing is kept from one run to the next.
 */
#include "direct_step.h"

#include "access/tupdesc.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/plannodes.h"
#include "utils/plancache.h"
#include "utils/resowner.h"

#define DIRECT_ROWS_MAX 1000	/* beyond, the executor's start does not count, and it may compile expressions */

/* The scan, if the plan is nothing else. */
static NamedTuplestoreScan *
only_scan(CachedPlan *plan, Rowset *input)
{
	PlannedStmt *statement = linitial_node(PlannedStmt, plan->stmt_list);
	NamedTuplestoreScan *scan = (NamedTuplestoreScan *) statement->planTree;

	if (list_length(plan->stmt_list) != 1 || statement->commandType != CMD_SELECT || !IsA(scan, NamedTuplestoreScan) ||
		statement->subplans != NIL || scan->scan.plan.initPlan != NIL || strcmp(scan->enrname, input->name) != 0)
		return NULL;
	return scan;
}

static void
project_rows(NamedTuplestoreScan *scan, Rowset *input, Rowset *output)
{
	Plan	   *plan = &scan->scan.plan;
	ExprContext *context = CreateStandaloneExprContext();
	TupleTableSlot *row = rowset_make_slot(input);
	TupleTableSlot *result = MakeSingleTupleTableSlot(output->tupdesc, &TTSOpsVirtual);
	ExprState  *condition = ExecInitQual(plan->qual, NULL);
	ProjectionInfo *projection = ExecBuildProjectionInfo(plan->targetlist, context, result, NULL, input->tupdesc);

	context->ecxt_scantuple = row;
	rowset_rewind(input);
	while (rowset_next(input, row))
	{
		CHECK_FOR_INTERRUPTS();
		ResetExprContext(context);
		if (ExecQual(condition, context))
			rowset_put_slot(output, ExecProject(projection));
	}
	ExecDropSingleTupleTableSlot(row);
	ExecDropSingleTupleTableSlot(result);
	FreeExprContext(context, true);
}

bool
direct_step_run(SPIPlanPtr plan, Rowset *input, Rowset *output)
{
	CachedPlan *cached;
	NamedTuplestoreScan *scan;

	if (input->row_count > DIRECT_ROWS_MAX)
		return false;
	cached = SPI_plan_get_cached_plan(plan);
	if (cached == NULL)
		return false;
	scan = only_scan(cached, input);
	if (scan != NULL)
		project_rows(scan, input, output);
	ReleaseCachedPlan(cached, CurrentResourceOwner);
	return scan != NULL;
}
