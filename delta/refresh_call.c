/*
 * delta/refresh_call.c
 *     Calls that have the applier run a tick, and wait for it: refresh_stream_table, verify, and whoever needs a stream table up to date.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "applier_presence.h"
#include "barrier.h"
#include "barrier_steps.h"
#include "immediate_graph.h"
#include "settings.h"
#include "verify.h"

PG_FUNCTION_INFO_V1(pgtrickle_refresh_stream_table);
PG_FUNCTION_INFO_V1(pgtrickle_verify_answer);

static int64
refresh_timeout_ms(void)
{
	return pgtrickle_refresh_timeout_ms > 0 ? pgtrickle_refresh_timeout_ms : -1;
}

/*
 * pgtrickle.refresh_stream_table(name text) returns void
 *
 * When it returns, everything committed before the call is in.  A tick has taken place since, also when nothing had changed.
 */
Datum
pgtrickle_refresh_stream_table(PG_FUNCTION_ARGS)
{
	Barrier barrier;

	barrier_refuse_during_recovery("refresh a stream table",
								   "Call it on the primary; the standby follows by replication.");
	barrier_begin(&barrier, text_to_cstring(PG_GETARG_TEXT_PP(0)), STREAM_TABLE_CHANGE,
				  refresh_timeout_ms());

	if (barrier.state.created_by_us)
	{
		ereport(
			NOTICE,
			(errmsg(
				"stream table \"%s\" was created by the current transaction and is not refreshed again",
				barrier.table.qualified)));
		barrier_end(&barrier);
		PG_RETURN_VOID();
	}
	if (barrier_is_immediate(&barrier))
	{
		barrier_check_state(&barrier);
		barrier_end(&barrier);
		PG_RETURN_VOID();
	}
	barrier_refuse_own_change(&barrier);
	if (FullTransactionIdIsValid(GetTopFullTransactionIdIfAny()))
		ereport(
			NOTICE,
			(errmsg("stream table \"%s\" will not contain the changes of the current transaction",
					barrier.table.qualified),
			 errdetail("They can be read from the WAL only when it has been committed.")));

	barrier_check_state(&barrier);
	barrier_ask(&barrier, "refresh", barrier_new_nonce());
	while (!barrier.state.covers || barrier.state.own_xid == barrier.own_xid_before)
	{
		barrier_check_applier(&barrier);
		if (!barrier_sleep(&barrier))
			barrier_raise_timeout(&barrier, "refreshed");
		barrier_look(&barrier);
		barrier_check_state(&barrier);
		barrier_check_failure(&barrier);
	}
	barrier_end(&barrier);
	PG_RETURN_VOID();
}

/* Why no tick with this stream table will come, as far as that is known; NULL: it may. */
static const char *
barrier_obstacle(Barrier *barrier)
{
	BarrierState *state = &barrier->state;

	if (!state->exists ||
		(strcmp(state->status, "ACTIVE") != 0 && strcmp(state->status, "INITIALIZING") != 0))
		return psprintf("Its status is %s.", state->exists ? state->status : "not known any more");
	if (state->changed_by_us)
		return "It was changed by the current transaction, which the applier cannot see.";
	if (state->slot_name == NULL || !applier_is_connected(state->slot_name))
		return "No applier is connected.";
	if (state->failed_since)
		return psprintf("The applier could not refresh it: %s",
						state->error_message ? state->error_message : "the reason is not known.");
	return NULL;
}

const char *
barrier_bring_up_to_date(int64 pgt_id, Oid relid)
{
	Barrier			barrier;
	MemoryContext	caller_context = CurrentMemoryContext;
	StreamTableName table = {
		pgt_id, relid,
		quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
								   get_rel_name(relid))};
	const char *obstacle;

	barrier_begin_for(&barrier, table, refresh_timeout_ms());
	obstacle = barrier_obstacle(&barrier);
	if (obstacle == NULL)
		barrier_ask(&barrier, "refresh", barrier_new_nonce());
	while (obstacle == NULL &&
		   (!barrier.state.covers || barrier.state.own_xid == barrier.own_xid_before))
	{
		if (!barrier_sleep(&barrier))
			obstacle = "The applier has not refreshed it within pgtrickle.refresh_timeout.";
		else
		{
			barrier_look(&barrier);
			obstacle = barrier_obstacle(&barrier);
		}
	}
	if (obstacle != NULL)
		obstacle = MemoryContextStrdup(caller_context, obstacle);
	barrier_end(&barrier);
	return obstacle;
}

/* Here and now, at the last snapshot.  What is stored is for ourselves. */
static void
verify_here(Barrier *barrier)
{
	PushCopiedSnapshot(GetLatestSnapshot());
	UpdateActiveSnapshotCommandId();
	verify_store(immediate_load(barrier->table.pgt_id), barrier->nonce);
	PopActiveSnapshot();
	CommandCounterIncrement();
	barrier_look(barrier);
	if (SPI_execute(psprintf("DELETE FROM pgtrickle.pgt_verifications WHERE nonce = %s",
							 quote_literal_cstr(barrier->nonce)),
					false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not remove a verification");
}

/*
 * pgtrickle.verify_answer(name text) returns jsonb
 *
 * The answer of a verification inside a tick: row_count, difference_count, snapshot, differences.
 */
Datum
pgtrickle_verify_answer(PG_FUNCTION_ARGS)
{
	Barrier		  barrier;
	MemoryContext caller_context = CurrentMemoryContext;
	char		 *nonce = barrier_new_nonce();

	barrier_refuse_during_recovery("verify a stream table", "Call it on the primary.");
	barrier_begin(&barrier, text_to_cstring(PG_GETARG_TEXT_PP(0)), STREAM_TABLE_SEE,
				  refresh_timeout_ms());
	barrier.nonce = nonce;
	if (barrier_is_immediate(&barrier))
	{
		barrier_check_state(&barrier);
		verify_here(&barrier);
	}
	else
	{
		barrier_refuse_own_change(&barrier);
		barrier_check_state(&barrier);
		barrier_ask(&barrier, "verify", nonce);
	}
	while (barrier.state.answer == NULL)
	{
		barrier_check_applier(&barrier);
		if (!barrier_sleep(&barrier))
			barrier_raise_timeout(&barrier, "verified");
		barrier_look(&barrier);
		barrier_check_state(&barrier);
		if (barrier.state.answer == NULL)
			barrier_check_failure(&barrier);
	}

	char *answer = MemoryContextStrdup(caller_context, barrier.state.answer);

	barrier_end(&barrier);
	PG_RETURN_DATUM(DirectFunctionCall1(jsonb_in, CStringGetDatum(answer)));
}
