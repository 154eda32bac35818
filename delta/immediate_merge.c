/*
 * delta/immediate_merge.c
 *     Knows whether the query that the executor runs is a MERGE.
 *
 * A MERGE that moves rows of a partitioned table to other partitions shows them to statement-level triggers neither as updated nor as deleted: the
 * executor treats the move as a DELETE and an INSERT, and fires the triggers of the actions that MERGE has (ExecCrossPartitionUpdate,
 * fireASTriggers).  So their transition tables are not to be believed, and the stream tables are computed anew.  Triggers are not told which
 * command fires them.  Hence a hook around each run of the executor that notes its command.
 *
 * The library may be loaded by the trigger itself, in the middle of a query that the hook has not seen.  Then the client's own command
 * tells, if it is one that writes; else it may be a MERGE in some function.
 */
#include "postgres.h"

#include "executor/executor.h"
#include "immediate_merge.h"
#include "nodes/plannodes.h"
#include "tcop/pquery.h"

/* The innermost query that is running. */
typedef struct RunningQuery
{
	CmdType		command;
	struct RunningQuery *outer;
} RunningQuery;

static RunningQuery *running = NULL;
static ExecutorRun_hook_type previous_hook = NULL;

static void
run_noted(QueryDesc *query, ScanDirection direction, uint64 count
#if PG_VERSION_NUM < 180000
		  ,bool execute_once
#endif
)
{
	RunningQuery noted = {query->operation, running};

	running = &noted;
	PG_TRY();
	{
#if PG_VERSION_NUM < 180000
		if (previous_hook != NULL)
			previous_hook(query, direction, count, execute_once);
		else
			standard_ExecutorRun(query, direction, count, execute_once);
#else
		if (previous_hook != NULL)
			previous_hook(query, direction, count);
		else
			standard_ExecutorRun(query, direction, count);
#endif
	}
	PG_FINALLY();
	{
		running = noted.outer;
	}
	PG_END_TRY();
}

void
immediate_merge_init(void)
{
	previous_hook = ExecutorRun_hook;
	ExecutorRun_hook = run_noted;
}

bool
immediate_may_be_merge(void)
{
	ListCell   *lc;

	if (running != NULL)
		return running->command == CMD_MERGE;
	if (ActivePortal == NULL)
		return true;
	foreach(lc, ActivePortal->stmts)
	{
		CmdType		command = lfirst_node(PlannedStmt, lc)->commandType;

		if (command != CMD_INSERT && command != CMD_UPDATE && command != CMD_DELETE)
			return true;
	}
	return false;
}
