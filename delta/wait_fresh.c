/*
 * delta/wait_fresh.c
 *     wait_fresh: waits for what the schedule brings, and asks for a tick when that time is over without a sign of it.
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"

#include "applier_presence.h"
#include "barrier_steps.h"

#define SCHEDULE_GRACE_MS 5 /* a tick takes a few ms */
PG_FUNCTION_INFO_V1(pgtrickle_wait_fresh);

/* How long the schedule may take to bring a change into the stream table, in ms; -1: no telling. */
static int64
barrier_schedule_ms(Barrier *barrier)
{
	Oid		   argtypes[] = {INT8OID};
	Datum	   arguments[] = {Int64GetDatum(barrier->table.pgt_id)};
	SPIPlanPtr plan = SPI_prepare(
		"SELECT schedule_ms FROM pgtrickle.pgt_schedules WHERE pgt_id = $1", 1, argtypes);
	int64 schedule_ms = -1;

	barrier_execute_latest(plan, arguments, NULL);
	if (SPI_processed > 0)
	{
		bool  isnull;
		Datum value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);

		if (!isnull)
			schedule_ms = DatumGetInt64(value);
	}
	SPI_freetuptable(SPI_tuptable);
	SPI_freeplan(plan);
	return schedule_ms;
}

/*
 * Everything visible in the wanted snapshot is in: the frontier covers it, or the applier says, by what it has persisted or
 * by its last feedback, that no stream table needs anything below an LSN that lies above all those commits, and nothing is in the spool.
 */
static bool
barrier_is_fresh(Barrier *barrier)
{
	BarrierState *state = &barrier->state;

	if (state->covers)
		return true;
	if (barrier->insert_lsn == InvalidXLogRecPtr)
		return false;
	if (state->ack_lsn >= barrier->insert_lsn)
		return !state->waits_in_spool;
	if (applier_consumed_lsn(state->slot_name) < barrier->insert_lsn)
		return false;
	/* it may have got there by the spool, since we looked */
	barrier_look(barrier);
	return state->covers || !state->waits_in_spool;
}

/* Waits; false when the time is over. */
static bool
barrier_wait_fresh(Barrier *barrier)
{
	bool  asked = false;
	int64 ask_after_ms = SCHEDULE_GRACE_MS;
	bool  schedule_known = false;

	while (!barrier_is_fresh(barrier))
	{
		barrier_check_state(barrier);
		if (!asked && ask_after_ms >= 0 && barrier_waited_ms(barrier) >= ask_after_ms)
		{
			if (!schedule_known)
			{
				int64 schedule_ms = barrier_schedule_ms(barrier);

				schedule_known = true;
				ask_after_ms = schedule_ms < 0 ? -1 : schedule_ms + SCHEDULE_GRACE_MS;
				continue;
			}
			barrier_ask(barrier, "refresh", barrier_new_nonce());
			asked = true;
		}
		if (!barrier_sleep(barrier))
		{
			if (!applier_is_connected(barrier->state.slot_name))
				ereport(WARNING, (errmsg("no applier is connected to replication slot \"%s\"",
										 barrier->state.slot_name),
								  errhint("Start it with \"pgtrickle run --dbname=%s\".",
										  get_database_name(MyDatabaseId))));
			return false;
		}
		barrier_look(barrier);
	}
	return true;
}

static int64
interval_ms(Interval *interval)
{
	int64 result = interval->time / 1000 +
				   (interval->day + INT64CONST(30) * interval->month) * INT64CONST(86400000);

	if (result < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("timeout must not be negative")));
	/* ten years are as good as for ever, and cannot overflow */
	return Min(result, INT64CONST(10) * 366 * 86400000);
}

/* On a standby only what the applier persisted tells how far a stream table is. */
static bool
barrier_wait_on_standby(Barrier *barrier, XLogRecPtr source_lsn)
{
	while (barrier->state.exists &&
		   (barrier->state.ack_lsn < source_lsn || barrier->state.waits_in_spool))
	{
		if (!barrier_sleep(barrier))
			return false;
		barrier_look(barrier);
	}
	return barrier->state.exists;
}

/* Waits until the WAL has reached a position, and wants what is visible then. */
static bool
barrier_wait_for_lsn(Barrier *barrier, XLogRecPtr source_lsn)
{
	while (barrier->insert_lsn < source_lsn)
	{
		if (!barrier_sleep(barrier))
			return false;
		barrier_take_snapshot(barrier);
	}
	barrier_look(barrier);
	return true;
}

static bool
barrier_wait(Barrier *barrier, XLogRecPtr source_lsn)
{
	if (RecoveryInProgress())
		return barrier_wait_on_standby(barrier, source_lsn);
	if (barrier->state.created_by_us)
		return true; /* its first fill has just seen everything */
	if (barrier_is_immediate(barrier))
	{
		barrier_check_state(barrier);
		return true;
	}
	barrier_refuse_own_change(barrier);
	if (!barrier_wait_for_lsn(barrier, source_lsn))
		return false;
	XLogFlush(barrier->insert_lsn); /* walsenders send only what is flushed */
	return barrier_wait_fresh(barrier);
}

/*
 * pgtrickle.wait_fresh(name text, timeout interval, source_lsn pg_lsn) returns boolean
 *
 * True as soon as everything is in that was committed before the call, or before that position of the WAL; false when that has not
 * happened in time.
 */
Datum
pgtrickle_wait_fresh(PG_FUNCTION_ARGS)
{
	Barrier	   barrier;
	XLogRecPtr source_lsn = PG_ARGISNULL(2) ? InvalidXLogRecPtr : PG_GETARG_LSN(2);
	bool	   fresh;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	if (PG_ARGISNULL(2))
		barrier_refuse_during_recovery("wait for a stream table without an LSN",
									   "Give a position of the primary's WAL as source_lsn.");
	barrier_begin(&barrier, text_to_cstring(PG_GETARG_TEXT_PP(0)), STREAM_TABLE_SEE,
				  interval_ms(PG_GETARG_INTERVAL_P(1)));
	fresh = barrier_wait(&barrier, source_lsn);
	barrier_end(&barrier);
	PG_RETURN_BOOL(fresh);
}
