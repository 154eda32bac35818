/*
 * delta/barrier.c
 *     Waits until a stream table contains what had been committed: refresh_stream_table, wait_fresh, verify.
 *
 * What is waited for.  An LSN cannot tell what a snapshot saw (docs/explanation/tick.md, section 1), so the barrier compares
 * snapshots.  C is a new snapshot taken in the call.  The frontier F of the stream table covers C when every transaction
 * visible in C is visible in F:
 *
 *     F.xmax >= C.xmax, and no transaction that F lists as running is visible in C
 *
 * (our own transaction apart: it is visible to itself and to nobody else).  A tick moves F only for stream tables whose
 * sources changed, so F need not move at all.  Therefore
 *
 *  - refresh_stream_table and verify write a message, on which the applier runs a tick with this stream table in any case;
 *  - wait_fresh waits for what the schedule brings anyhow, and when that time is over (nothing changed, it seems) writes the same
 *    message, once: the tick finds nothing to do and moves the frontier.
 *
 * Nothing is written while waiting; one small query is repeated, with a new snapshot each time, because the caller may be in a
 * REPEATABLE READ transaction.
 *
 * An IMMEDIATE stream table is up to date without anybody: there is nothing to wait for, and it is verified on the spot.
 *
 *     ASKED -> (applier gone for longer than APPLIER_GRACE_MS | failed | paused) -> error
 *           -> covered -> done
 */
#include "postgres.h"

#include "access/xlog_internal.h"
#include "commands/dbcommands.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"

#include "applier_presence.h"
#include "barrier.h"
#include "barrier_steps.h"
#include "compat.h"
#include "immediate_graph.h"
#include "wal_message.h"

#define POLL_DELAY_MS_MIN 1
#define POLL_DELAY_MS_MAX 50
#define APPLIER_GRACE_MS 3000 /* an applier that restarts is back within this time */

/*
 * $1 the stream table, $2 the wanted snapshot, $3 our transaction id or NULL, $4 when the wait began, $5 the nonce or NULL.
 * A transaction of ours that changed the catalog rows could wait for ever, because nobody else sees what it changed.
 */
static const char *const look_sql =
	"SELECT CASE WHEN pgtrickle.is_gated(d.pgt_id) THEN 'GATED' ELSE d.status END,"
	"  pg_snapshot_xmax(f.snapshot) >= pg_snapshot_xmax($2) AND NOT EXISTS ("
	"    SELECT FROM pg_snapshot_xip(f.snapshot) running"
	"    WHERE pg_visible_in_snapshot(running, $2) AND running IS DISTINCT FROM $3),"
	"  f.own_xid, f.last_error_at >= $4, f.last_error_sqlstate, f.last_error_message,"
	"  p.slot_name, p.ack_lsn, d.created_xid = $3, d.xmin, f.xmin,"
	"  pgtrickle.waits_in_spool(d.pgt_id), pgtrickle.standing_upstream(d.pgt_id),"
	"  (SELECT jsonb_build_object('row_count', v.row_count, 'difference_count', v.difference_count,"
	"     'snapshot', v.snapshot::text, 'differences', v.differences)::text"
	"   FROM pgtrickle.pgt_verifications v WHERE v.nonce = $5 AND v.pgt_id = $1)"
	" FROM pgtrickle.pgt_definitions d"
	" JOIN pgtrickle.pgt_frontiers f USING (pgt_id)"
	" CROSS JOIN pgtrickle.pgt_progress p"
	" WHERE d.pgt_id = $1";

enum
{
	LOOK_STATUS = 1,
	LOOK_COVERS,
	LOOK_OWN_XID,
	LOOK_FAILED_SINCE,
	LOOK_ERROR_SQLSTATE,
	LOOK_ERROR_MESSAGE,
	LOOK_SLOT_NAME,
	LOOK_ACK_LSN,
	LOOK_CREATED_BY_US,
	LOOK_DEFINITION_XMIN,
	LOOK_FRONTIER_XMIN,
	LOOK_WAITS_IN_SPOOL,
	LOOK_STANDING_UPSTREAM,
	LOOK_ANSWER
};

/* The column's value, or 0 when it is NULL. */
static Datum
look_datum(int column)
{
	bool  isnull;
	Datum value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? (Datum) 0 : value;
}

static char *
look_text(Barrier *barrier, int column)
{
	char *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column);

	return value == NULL ? NULL : MemoryContextStrdup(barrier->context, value);
}

/* Runs a query with a snapshot newer than all that the caller may hold. */
void
barrier_execute_latest(SPIPlanPtr plan, Datum *arguments, const char *nulls)
{
	int rc = SPI_execute_snapshot(plan, arguments, nulls, GetLatestSnapshot(), InvalidSnapshot,
								  true, false, 1);

	if (rc != SPI_OK_SELECT)
		elog(ERROR, "could not look at the catalog of stream tables: %s",
			 SPI_result_code_string(rc));
}

/* Reads the present state of the stream table into barrier->state. */
void
barrier_look(Barrier *barrier)
{
	BarrierState	 *state = &barrier->state;
	FullTransactionId own_xid = GetTopFullTransactionIdIfAny();
	Datum			  arguments[] = {Int64GetDatum(barrier->table.pgt_id), barrier->wanted_snapshot,
									 UInt64GetDatum(U64FromFullTransactionId(own_xid)),
									 TimestampTzGetDatum(barrier->started_at),
						 barrier->nonce == NULL ? (Datum) 0 : CStringGetTextDatum(barrier->nonce)};
	char			  nulls[] = {' ', ' ', FullTransactionIdIsValid(own_xid) ? ' ' : 'n', ' ',
					 barrier->nonce == NULL ? 'n' : ' '};

	MemoryContextReset(barrier->context);
	memset(state, 0, sizeof(*state));
	barrier_execute_latest(barrier->plan, arguments, nulls);
	if (SPI_processed > 0)
	{
		state->exists = true;
		state->status = look_text(barrier, LOOK_STATUS);
		state->covers = DatumGetBool(look_datum(LOOK_COVERS));
		state->waits_in_spool = DatumGetBool(look_datum(LOOK_WAITS_IN_SPOOL));
		/* an xid8 is passed by value wherever bigint is; NULL gives no pointer to follow */
		char *own_xid_text = look_text(barrier, LOOK_OWN_XID);

		state->own_xid = own_xid_text == NULL ? 0 : strtou64(own_xid_text, NULL, 10);
		state->failed_since = DatumGetBool(look_datum(LOOK_FAILED_SINCE));
		state->error_sqlstate = look_text(barrier, LOOK_ERROR_SQLSTATE);
		state->error_message = look_text(barrier, LOOK_ERROR_MESSAGE);
		state->slot_name = look_text(barrier, LOOK_SLOT_NAME);
		state->standing_upstream = look_text(barrier, LOOK_STANDING_UPSTREAM);

		char *ack_text = look_text(barrier, LOOK_ACK_LSN);

		state->ack_lsn =
			ack_text == NULL
				? InvalidXLogRecPtr
				: DatumGetLSN(DirectFunctionCall1(pg_lsn_in, CStringGetDatum(ack_text)));
		state->created_by_us = DatumGetBool(look_datum(LOOK_CREATED_BY_US));
		state->changed_by_us = TransactionIdIsCurrentTransactionId(
								   DatumGetTransactionId(look_datum(LOOK_DEFINITION_XMIN))) ||
							   TransactionIdIsCurrentTransactionId(
								   DatumGetTransactionId(look_datum(LOOK_FRONTIER_XMIN)));
		state->answer = look_text(barrier, LOOK_ANSWER);
	}
	SPI_freetuptable(SPI_tuptable);
}

/*
 * Where the generated WAL ends.  The insert position itself lies behind the header of the next page when the last record has
 * filled its page: nobody can flush up to there, or acknowledge it, before that page is begun.
 */
static XLogRecPtr
wal_end_lsn(void)
{
	XLogRecPtr insert_lsn = GetXLogInsertRecPtr();

	if (XLogSegmentOffset(insert_lsn, wal_segment_size) == SizeOfXLogLongPHD)
		return insert_lsn - SizeOfXLogLongPHD;
	if (insert_lsn % XLOG_BLCKSZ == SizeOfXLogShortPHD)
		return insert_lsn - SizeOfXLogShortPHD;
	return insert_lsn;
}

/* Takes the wanted snapshot, and the position of the WAL after it. */
void
barrier_take_snapshot(Barrier *barrier)
{
	SPIPlanPtr plan = SPI_prepare("SELECT pg_current_snapshot()", 0, NULL);
	bool	   isnull;

	barrier_execute_latest(plan, NULL, NULL);
	barrier->wanted_snapshot = SPI_datumTransfer(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull), false, -1);
	barrier->insert_lsn = RecoveryInProgress() ? InvalidXLogRecPtr : wal_end_lsn();
	SPI_freetuptable(SPI_tuptable);
	SPI_freeplan(plan);
}

static void
barrier_prepare(Barrier *barrier)
{
	Oid argtypes[] = {INT8OID, PG_SNAPSHOTOID, XID8OID, TIMESTAMPTZOID, TEXTOID};

	barrier->plan = SPI_prepare(look_sql, lengthof(argtypes), argtypes);
	if (barrier->plan == NULL)
		elog(ERROR, "could not prepare a look at the catalog: %s",
			 SPI_result_code_string(SPI_result));
}

/* Enters the privileged section. */
void
barrier_begin_for(Barrier *barrier, StreamTableName table, int64 timeout_ms)
{
	memset(barrier, 0, sizeof(*barrier));
	barrier->table = table;
	barrier->started_at = GetCurrentTimestamp();
	barrier->applier_seen_at = barrier->started_at;
	barrier->give_up_at =
		timeout_ms < 0 ? DT_NOEND : barrier->started_at + timeout_ms * INT64CONST(1000);
	barrier->context =
		AllocSetContextCreate(CurrentMemoryContext, "look of a barrier", ALLOCSET_SMALL_SIZES);
	privileged_begin(&barrier->section);
	barrier_prepare(barrier);
	barrier_take_snapshot(barrier);
	barrier_look(barrier);
	barrier->own_xid_before = barrier->state.own_xid;
}

/* Resolves the name with the caller's rights first. */
void
barrier_begin(Barrier *barrier, const char *name, StreamTableRight right, int64 timeout_ms)
{
	barrier_begin_for(barrier, stream_table_resolve(name, right), timeout_ms);
}

void
barrier_end(Barrier *barrier)
{
	privileged_end(&barrier->section);
	MemoryContextDelete(barrier->context);
}

/* Then nobody has to be waited for: writers have maintained it. */
bool
barrier_is_immediate(Barrier *barrier)
{
	return immediate_table(barrier->table.pgt_id) != NULL;
}

void
barrier_refuse_during_recovery(const char *what, const char *hint)
{
	if (RecoveryInProgress())
		ereport(ERROR, (errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
						errmsg("cannot %s during recovery", what), errhint("%s", hint)));
}

/* Errors for states in which no tick will ever come. */
void
barrier_check_state(Barrier *barrier)
{
	BarrierState *state = &barrier->state;
	const char	 *name = barrier->table.qualified;

	if (!state->exists)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("stream table \"%s\" was dropped", name)));
	if (strcmp(state->status, "PAUSED") == 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("stream table \"%s\" is paused", name),
						errhint("Resume it with pgtrickle.resume_stream_table(%s).",
								quote_literal_cstr(name))));
	if (strcmp(state->status, "GATED") == 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the gate of a source of stream table \"%s\" is closed", name),
			 errhint(
				 "pgtrickle.source_gates() lists the gates, pgtrickle.ungate_source() opens one.")));
	if (strcmp(state->status, "SUSPENDED") == 0 || strcmp(state->status, "ERROR") == 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("stream table \"%s\" is suspended", name),
						state->error_message != NULL
							? errdetail("The last refresh failed: %s", state->error_message)
							: 0,
						errhint("Remove the cause, then call pgtrickle.resume_stream_table(%s).",
								quote_literal_cstr(name))));
	if (state->standing_upstream != NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("stream table \"%s\" cannot be up to date", name),
						errdetail("It reads stream table \"%s\", which is paused or suspended.",
								  state->standing_upstream),
						errhint("Resume that one with pgtrickle.resume_stream_table(%s).",
								quote_literal_cstr(state->standing_upstream))));
	if (state->slot_name == NULL && !barrier_is_immediate(barrier))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no applier has been started for database \"%s\"",
						get_database_name(MyDatabaseId)),
				 errhint("Set it up with \"pgtrickle setup\", then start \"pgtrickle run\".")));
}

void
barrier_check_failure(Barrier *barrier)
{
	BarrierState *state = &barrier->state;
	int			  sqlstate = ERRCODE_INTERNAL_ERROR;

	if (!state->failed_since)
		return;
	if (state->error_sqlstate != NULL && strlen(state->error_sqlstate) == 5)
		sqlstate = MAKE_SQLSTATE(state->error_sqlstate[0], state->error_sqlstate[1],
								 state->error_sqlstate[2], state->error_sqlstate[3],
								 state->error_sqlstate[4]);
	ereport(
		ERROR,
		(errcode(sqlstate),
		 errmsg("could not refresh stream table \"%s\"", barrier->table.qualified),
		 errdetail("%s", state->error_message != NULL ? state->error_message
													  : "The reason is not known."),
		 errhint(
			 "The applier tries again by itself; pgtrickle.diagnose_errors() shows the last failures.")));
}

/* True while the applier is there, or was a moment ago. */
static bool
barrier_applier_is_there(Barrier *barrier)
{
	TimestampTz now = GetCurrentTimestamp();

	if (applier_is_connected(barrier->state.slot_name))
		barrier->applier_seen_at = now;
	return now < TimestampTzPlusMilliseconds(barrier->applier_seen_at, APPLIER_GRACE_MS);
}

void
barrier_check_applier(Barrier *barrier)
{
	if (barrier_applier_is_there(barrier))
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		 errmsg("no applier is connected to replication slot \"%s\"", barrier->state.slot_name),
		 errdetail(
			 "Stream table \"%s\" is refreshed by the program pgtrickle, which does not seem to run.",
			 barrier->table.qualified),
		 errhint("Start it with \"pgtrickle run --dbname=%s\", and see \"pgtrickle doctor\".",
				 get_database_name(MyDatabaseId))));
}

int64
barrier_waited_ms(Barrier *barrier)
{
	return (GetCurrentTimestamp() - barrier->started_at) / 1000;
}

/* Sleeps, longer the longer the wait has been; returns false when it is time to give up. */
bool
barrier_sleep(Barrier *barrier)
{
	int64 delay_ms = Min(Max(barrier_waited_ms(barrier) / 8, POLL_DELAY_MS_MIN), POLL_DELAY_MS_MAX);
	int64 left_ms = (barrier->give_up_at - GetCurrentTimestamp()) / 1000;

	if (left_ms <= 0 && barrier->give_up_at != DT_NOEND)
		return false;
	if (barrier->give_up_at != DT_NOEND)
		delay_ms = Max(Min(delay_ms, left_ms), POLL_DELAY_MS_MIN);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, (long) delay_ms,
					 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	return true;
}

char *
barrier_new_nonce(void)
{
	static uint32 counter = 0;

	return psprintf("%d-%llx-%u", MyProcPid, (unsigned long long) GetCurrentTimestamp(), ++counter);
}

/* Asks the applier for a tick with this stream table, whatever its schedule and whether anything changed. */
void
barrier_ask(Barrier *barrier, const char *verb, const char *nonce)
{
	(void) wal_message_emit(psprintf("%s %lld %s", verb, (long long) barrier->table.pgt_id, nonce),
							false, true);
}

void
barrier_raise_timeout(Barrier *barrier, const char *what)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_QUERY_CANCELED),
		 errmsg("timed out while waiting for stream table \"%s\" to be %s",
				barrier->table.qualified, what),
		 errdetail("The limit is pgtrickle.refresh_timeout = %s.",
				   GetConfigOptionByName("pgtrickle.refresh_timeout", NULL, false)),
		 errhint(
			 "See \"pgtrickle status\" for what the applier is doing; a lock on a source, also one that this transaction holds, delays it.")));
}

/* What cannot work because only this transaction sees it. */
void
barrier_refuse_own_change(Barrier *barrier)
{
	if (barrier->state.changed_by_us)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("stream table \"%s\" was %s by the current transaction",
							   barrier->table.qualified,
							   barrier->state.created_by_us ? "created" : "changed"),
						errhint("The applier sees it when the transaction has been committed.")));
}
