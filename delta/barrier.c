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

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "replication/slot.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "barrier.h"
#include "compat.h"
#include "immediate_graph.h"
#include "privileged.h"
#include "settings.h"
#include "stream_table.h"
#include "verify.h"
#include "wal_message.h"

#define POLL_DELAY_MS_MIN 1
#define POLL_DELAY_MS_MAX 50
#define APPLIER_GRACE_MS 3000 /* an applier that restarts is back within this time */
#define SCHEDULE_GRACE_MS 5 /* a tick takes a few ms */

PG_FUNCTION_INFO_V1(pgtrickle_refresh_stream_table);
PG_FUNCTION_INFO_V1(pgtrickle_wait_fresh);
PG_FUNCTION_INFO_V1(pgtrickle_verify_answer);
PG_FUNCTION_INFO_V1(pgtrickle_consumed_lsn);

/* What the repeated query tells; texts live in the memory context of the wait. */
typedef struct BarrierState
{
	bool	   exists;
	char	  *status;
	bool	   covers; /* the frontier covers the wanted snapshot */
	char	  *standing_upstream; /* a stopped one that it reads; NULL: none */
	bool	   waits_in_spool; /* the applier has let go of changes that are not in the rows */
	uint64	   own_xid; /* of the tick that moved the frontier last, 0: none */
	bool	   failed_since; /* a refresh has failed since the wait began */
	char	  *error_sqlstate;
	char	  *error_message;
	char	  *slot_name; /* NULL: no applier has ever been here */
	XLogRecPtr ack_lsn; /* persisted by the applier, 0: nothing */
	bool	   created_by_us; /* this transaction made the stream table */
	bool	   changed_by_us; /* this transaction changed its definition or state */
	char	  *answer; /* of verify, as JSON; NULL: not there yet */
} BarrierState;

typedef struct Barrier
{
	PrivilegedSection section;
	StreamTableName	  table;
	MemoryContext	  context; /* reset at each look */
	SPIPlanPtr		  plan;
	Datum			  wanted_snapshot; /* a pg_snapshot */
	char			 *nonce; /* of verify, else NULL */
	uint64			  own_xid_before;
	XLogRecPtr		  insert_lsn; /* above the commit record of all that the wanted snapshot sees */
	TimestampTz		  started_at;
	TimestampTz		  applier_seen_at;
	TimestampTz		  give_up_at; /* TIMESTAMP_INFINITY: never */
	BarrierState	  state;
} Barrier;

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
static void
execute_with_latest_snapshot(SPIPlanPtr plan, Datum *arguments, const char *nulls)
{
	int rc = SPI_execute_snapshot(plan, arguments, nulls, GetLatestSnapshot(), InvalidSnapshot,
								  true, false, 1);

	if (rc != SPI_OK_SELECT)
		elog(ERROR, "could not look at the catalog of stream tables: %s",
			 SPI_result_code_string(rc));
}

/* Reads the present state of the stream table into barrier->state. */
static void
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
	execute_with_latest_snapshot(barrier->plan, arguments, nulls);
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
static void
barrier_take_snapshot(Barrier *barrier)
{
	SPIPlanPtr plan = SPI_prepare("SELECT pg_current_snapshot()", 0, NULL);
	bool	   isnull;

	execute_with_latest_snapshot(plan, NULL, NULL);
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
static void
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
static void
barrier_begin(Barrier *barrier, const char *name, StreamTableRight right, int64 timeout_ms)
{
	barrier_begin_for(barrier, stream_table_resolve(name, right), timeout_ms);
}

static void
barrier_end(Barrier *barrier)
{
	privileged_end(&barrier->section);
	MemoryContextDelete(barrier->context);
}

/* Then nobody has to be waited for: writers have maintained it. */
static bool
is_immediate(Barrier *barrier)
{
	return immediate_table(barrier->table.pgt_id) != NULL;
}

static void
refuse_during_recovery(const char *what, const char *hint)
{
	if (RecoveryInProgress())
		ereport(ERROR, (errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
						errmsg("cannot %s during recovery", what), errhint("%s", hint)));
}

/* Errors for states in which no tick will ever come. */
static void
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
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("the gate of a source of stream table \"%s\" is closed", name),
						errhint("pgtrickle.source_gates() lists the gates, pgtrickle.ungate_source() opens one.")));
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
						errdetail("It reads stream table \"%s\", which is paused or suspended.", state->standing_upstream),
						errhint("Resume that one with pgtrickle.resume_stream_table(%s).",
								quote_literal_cstr(state->standing_upstream))));
	if (state->slot_name == NULL && !is_immediate(barrier))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no applier has been started for database \"%s\"",
						get_database_name(MyDatabaseId)),
				 errhint("Set it up with \"pgtrickle setup\", then start \"pgtrickle run\".")));
}

static void
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

/*
 * The process that serves the applier's slot, 0 if there is none.  Reads shared memory, so this may be asked often.
 */
static pid_t
walsender_of_slot(const char *slot_name)
{
	pid_t			 pid = 0;
	ReplicationSlot *slot;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	slot = SearchNamedReplicationSlot(slot_name, false);
	if (slot != NULL)
	{
		SpinLockAcquire(&slot->mutex);
		pid = slot->active_pid;
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(ReplicationSlotControlLock);
	return pid;
}

static bool
applier_is_connected(const char *slot_name)
{
	return walsender_of_slot(slot_name) != 0;
}

/*
 * The position that the applier reports as applied: no stream table needs anything that was committed below.  It is never ahead of
 * what has been committed, but need not be persisted.  Invalid when no applier is connected.
 */
static XLogRecPtr
applier_consumed_lsn(const char *slot_name)
{
	pid_t	   pid = slot_name == NULL ? 0 : walsender_of_slot(slot_name);
	XLogRecPtr consumed_lsn = InvalidXLogRecPtr;

	for (int i = 0; pid != 0 && i < max_wal_senders; i++)
	{
		WalSnd *walsender = &WalSndCtl->walsnds[i];

		SpinLockAcquire(&walsender->mutex);
		if (walsender->pid == pid)
			consumed_lsn = walsender->apply;
		SpinLockRelease(&walsender->mutex);
	}
	return consumed_lsn;
}

/* pgtrickle.consumed_lsn(slot_name text) returns pg_lsn: null when no applier is connected. */
Datum
pgtrickle_consumed_lsn(PG_FUNCTION_ARGS)
{
	XLogRecPtr consumed_lsn = applier_consumed_lsn(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	if (consumed_lsn == InvalidXLogRecPtr)
		PG_RETURN_NULL();
	PG_RETURN_LSN(consumed_lsn);
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

static void
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

static int64
barrier_waited_ms(Barrier *barrier)
{
	return (GetCurrentTimestamp() - barrier->started_at) / 1000;
}

/* Sleeps, longer the longer the wait has been; returns false when it is time to give up. */
static bool
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

static char *
new_nonce(void)
{
	static uint32 counter = 0;

	return psprintf("%d-%llx-%u", MyProcPid, (unsigned long long) GetCurrentTimestamp(), ++counter);
}

/* Asks the applier for a tick with this stream table, whatever its schedule and whether anything changed. */
static void
barrier_ask(Barrier *barrier, const char *verb, const char *nonce)
{
	(void) wal_message_emit(psprintf("%s %lld %s", verb, (long long) barrier->table.pgt_id, nonce),
							false, true);
}

static void
raise_timeout(Barrier *barrier, const char *what)
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
static void
refuse_own_change(Barrier *barrier)
{
	if (barrier->state.changed_by_us)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("stream table \"%s\" was %s by the current transaction",
							   barrier->table.qualified,
							   barrier->state.created_by_us ? "created" : "changed"),
						errhint("The applier sees it when the transaction has been committed.")));
}

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

	refuse_during_recovery("refresh a stream table",
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
	if (is_immediate(&barrier))
	{
		barrier_check_state(&barrier);
		barrier_end(&barrier);
		PG_RETURN_VOID();
	}
	refuse_own_change(&barrier);
	if (FullTransactionIdIsValid(GetTopFullTransactionIdIfAny()))
		ereport(
			NOTICE,
			(errmsg("stream table \"%s\" will not contain the changes of the current transaction",
					barrier.table.qualified),
			 errdetail("They can be read from the WAL only when it has been committed.")));

	barrier_check_state(&barrier);
	barrier_ask(&barrier, "refresh", new_nonce());
	while (!barrier.state.covers || barrier.state.own_xid == barrier.own_xid_before)
	{
		barrier_check_applier(&barrier);
		if (!barrier_sleep(&barrier))
			raise_timeout(&barrier, "refreshed");
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

	if (!state->exists || (strcmp(state->status, "ACTIVE") != 0 && strcmp(state->status, "INITIALIZING") != 0))
		return psprintf("Its status is %s.", state->exists ? state->status : "not known any more");
	if (state->changed_by_us)
		return "It was changed by the current transaction, which the applier cannot see.";
	if (state->slot_name == NULL || !applier_is_connected(state->slot_name))
		return "No applier is connected.";
	if (state->failed_since)
		return psprintf("The applier could not refresh it: %s", state->error_message ? state->error_message : "the reason is not known.");
	return NULL;
}

const char *
barrier_bring_up_to_date(int64 pgt_id, Oid relid)
{
	Barrier		  barrier;
	MemoryContext caller_context = CurrentMemoryContext;
	StreamTableName table = {pgt_id, relid, quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid))};
	const char	 *obstacle;

	barrier_begin_for(&barrier, table, refresh_timeout_ms());
	obstacle = barrier_obstacle(&barrier);
	if (obstacle == NULL)
		barrier_ask(&barrier, "refresh", new_nonce());
	while (obstacle == NULL && (!barrier.state.covers || barrier.state.own_xid == barrier.own_xid_before))
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
							 quote_literal_cstr(barrier->nonce)), false, 0) != SPI_OK_DELETE)
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
	char		 *nonce = new_nonce();

	refuse_during_recovery("verify a stream table", "Call it on the primary.");
	barrier_begin(&barrier, text_to_cstring(PG_GETARG_TEXT_PP(0)), STREAM_TABLE_SEE,
				  refresh_timeout_ms());
	barrier.nonce = nonce;
	if (is_immediate(&barrier))
	{
		barrier_check_state(&barrier);
		verify_here(&barrier);
	}
	else
	{
		refuse_own_change(&barrier);
		barrier_check_state(&barrier);
		barrier_ask(&barrier, "verify", nonce);
	}
	while (barrier.state.answer == NULL)
	{
		barrier_check_applier(&barrier);
		if (!barrier_sleep(&barrier))
			raise_timeout(&barrier, "verified");
		barrier_look(&barrier);
		barrier_check_state(&barrier);
		if (barrier.state.answer == NULL)
			barrier_check_failure(&barrier);
	}

	char *answer = MemoryContextStrdup(caller_context, barrier.state.answer);

	barrier_end(&barrier);
	PG_RETURN_DATUM(DirectFunctionCall1(jsonb_in, CStringGetDatum(answer)));
}

/* How long the schedule may take to bring a change into the stream table, in ms; -1: no telling. */
static int64
barrier_schedule_ms(Barrier *barrier)
{
	Oid		   argtypes[] = {INT8OID};
	Datum	   arguments[] = {Int64GetDatum(barrier->table.pgt_id)};
	SPIPlanPtr plan = SPI_prepare(
		"SELECT schedule_ms FROM pgtrickle.pgt_schedules WHERE pgt_id = $1", 1, argtypes);
	int64 schedule_ms = -1;

	execute_with_latest_snapshot(plan, arguments, NULL);
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
			barrier_ask(barrier, "refresh", new_nonce());
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
	while (barrier->state.exists && (barrier->state.ack_lsn < source_lsn || barrier->state.waits_in_spool))
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
	if (is_immediate(barrier))
	{
		barrier_check_state(barrier);
		return true;
	}
	refuse_own_change(barrier);
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
		refuse_during_recovery("wait for a stream table without an LSN",
							   "Give a position of the primary's WAL as source_lsn.");
	barrier_begin(&barrier, text_to_cstring(PG_GETARG_TEXT_PP(0)), STREAM_TABLE_SEE,
				  interval_ms(PG_GETARG_INTERVAL_P(1)));
	fresh = barrier_wait(&barrier, source_lsn);
	barrier_end(&barrier);
	PG_RETURN_BOOL(fresh);
}
