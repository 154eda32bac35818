/*
 * delta/tick.c
 *     The server's half of a tick: what the applier calls between BEGIN and COMMIT.
 *
 * docs/explanation/tick.md is the contract.  tick_plan says which stream tables take part, in topological order; tick_stage brings
 * their change sets; tick_execute runs the programs, writes frontiers, progress and history.  State between these calls lives
 * as long as the transaction.  Any error rolls the whole tick back: rows and frontiers move together or not at all.
 *
 *     (none) --tick_plan--> PLANNED --tick_stage*--> PLANNED --tick_execute--> (none)         nothing survives a crash or an error
 */
#include "postgres.h"

#include "access/xact.h"
#include "copy_positions.h"
#include "fmgr.h"
#include "spool.h"
#include "tick_state.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(pgtrickle_tick_stage);
PG_FUNCTION_INFO_V1(pgtrickle_tick_failed_id);

Tick *current_tick = NULL;
int64 tick_failed_id = 0;
static bool xact_callback_registered = false;

static void
forget_tick(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		current_tick = NULL;
}

void
tick_begin(void)
{
	MemoryContext context;

	if (!xact_callback_registered)
	{
		RegisterXactCallback(forget_tick, NULL);
		xact_callback_registered = true;
	}
	if (current_tick != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a tick was already planned in this transaction")));
	context = AllocSetContextCreate(TopTransactionContext, "tick", ALLOCSET_DEFAULT_SIZES);
	current_tick = MemoryContextAllocZero(context, sizeof(Tick));
	current_tick->context = context;
	current_tick->started_at = GetCurrentTimestamp();
	tick_failed_id = 0;
}

TickEntry *
tick_entry(int64 pgt_id)
{
	ListCell   *lc;

	foreach(lc, current_tick->entries)
	{
		TickEntry  *entry = lfirst(lc);

		if (entry->pgt_id == pgt_id)
			return entry;
	}
	return NULL;
}

void
tick_require(void)
{
	if (current_tick == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no tick was planned in this transaction")));
}

Datum
pgtrickle_tick_stage(PG_FUNCTION_ARGS)
{
	bytea	   *data = PG_GETARG_BYTEA_PP(1);
	MemoryContext oldcontext;

	tick_require();
	oldcontext = MemoryContextSwitchTo(current_tick->context);
	if (remote_move_of_set(PG_GETARG_INT32(0)) != NULL)
		copy_tick_stage(current_tick->copies, PG_GETARG_INT32(0), VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data));
	else if (current_tick->spools)
		current_tick->spool_parts = spool_store(current_tick->spool_parts, PG_GETARG_INT32(0), VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data));
	else
		stage_append(current_tick->stage, PG_GETARG_INT32(0), VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data));
	MemoryContextSwitchTo(oldcontext);
	PG_RETURN_VOID();
}

Datum
pgtrickle_tick_failed_id(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(tick_failed_id);
}
