/*
 * delta/immediate_switch.c
 *     Stream tables become IMMEDIATE, cease to be, stop and go on.
 *
 * From the moment on when writers maintain a stream table it has to be up to date, and nobody may be writing its sources at that moment.  Its query may take
 * long, though.  So it is brought up to date first, while writers go on:
 *
 *     on schedule --prepare: refreshed by the applier, to a frontier F-->           --lock sources--> changes since F  --> triggers --> IMMEDIATE
 *     paused, or nobody there to refresh it --its query is run, at a snapshot S0--> --lock sources--> changes since S0 --> triggers --> IMMEDIATE
 *     new                                   --its first fill, at a snapshot S0-->   --lock sources--> changes since S0 --> triggers --> IMMEDIATE
 *
 * What has changed since F or S0 is read from the versions of the sources' rows (row_versions.c) and goes through the delta program.
 *
 * Ceasing to be IMMEDIATE needs no refresh: with nobody writing, the stream table equals its query at the snapshot of the moment, which
 * becomes its frontier, as that of a first fill does (docs/adr/0003-filled-marker-instead-of-lsn.md).
 *
 * All of it is one transaction: a rollback leaves nothing.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "barrier.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "immediate_capture.h"
#include "immediate_graph.h"
#include "immediate_install.h"
#include "immediate_locks.h"
#include "immediate_run.h"
#include "immediate_switch.h"
#include "lock_attempts.h"
#include "miscadmin.h"
#include "replica_identity.h"
#include "row_versions.h"
#include "sources.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "stream_table.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "wal_message.h"

PG_FUNCTION_INFO_V1(pgtrickle_immediate_prepare);
PG_FUNCTION_INFO_V1(pgtrickle_immediate_lock);
PG_FUNCTION_INFO_V1(pgtrickle_immediate_catch_up);
PG_FUNCTION_INFO_V1(pgtrickle_immediate_leave);
PG_FUNCTION_INFO_V1(pgtrickle_immediate_wait);

/* ---- which tables ---- */

/* A table with all its partitions; in place of an IMMEDIATE stream table, what it reads. */
static List *
tables_behind(List *tables, Oid relid)
{
	ListCell   *lc;

	foreach(lc, immediate_tables())
	{
		ImmediateTable *upstream = lfirst(lc);
		List	   *sources = upstream->relid == relid ? list_copy(upstream->source_relids) : NIL;
		ListCell   *source_cell;

		if (upstream->relid != relid)
			continue;
		foreach(source_cell, sources)
			tables = tables_behind(tables, lfirst_oid(source_cell));
		return tables;
	}
	return list_concat_unique_oid(tables, find_all_inheritors(relid, AccessShareLock, NULL));
}

static List *
tables_behind_program(DeltaProgram *program)
{
	List	   *tables = NIL;
	ListCell   *lc;

	foreach(lc, program->sources)
		tables = tables_behind(tables, ((ProgramSource *) lfirst(lc))->relid);
	return tables;
}

/* What the query itself reads, partitions included, in the order of OIDs. */
static List *
tables_read(DeltaProgram *program)
{
	List	   *tables = NIL;
	ListCell   *lc;

	foreach(lc, program->sources)
		tables = list_concat_unique_oid(tables, find_all_inheritors(((ProgramSource *) lfirst(lc))->relid, AccessShareLock, NULL));
	list_sort(tables, list_oid_cmp);
	return tables;
}

/* ---- locks ---- */

typedef struct WantedLocks
{
	List	   *tables;			/* oid list: no writers */
	List	   *alone;			/* oid list: nobody else at all */
	List	   *upstream;		/* oid list of IMMEDIATE stream tables: nobody brings them up to date */
	Oid			stream_table;	/* and no tick; may be invalid */
} WantedLocks;

/*
 * In the order of OIDs, as everybody who locks several sources.  Those of the stream tables that are read come after, as with writers.  Whoever brings one of
 * those up to date, or gives it a schedule, has its lock in a mode that conflicts: it knows of all that read it, and we know what it is.
 */
static void
take_locks(void *arg)
{
	WantedLocks *wanted = arg;
	ListCell   *lc;

	foreach(lc, wanted->tables)
		LockRelationOid(lfirst_oid(lc), list_member_oid(wanted->alone, lfirst_oid(lc)) ? AccessExclusiveLock : ShareRowExclusiveLock);
	foreach(lc, wanted->upstream)
		immediate_lock_table(lfirst_oid(lc), false);
	if (OidIsValid(wanted->stream_table))
		LockRelationOid(wanted->stream_table, ShareRowExclusiveLock);
}

static void
lock_wanted(WantedLocks *wanted)
{
	list_sort(wanted->tables, list_oid_cmp);
	lock_in_attempts(take_locks, wanted);
}

static List *
immediate_upstream(DeltaProgram *program)
{
	List	   *upstream = NIL;
	ListCell   *lc;

	foreach(lc, immediate_tables())
	{
		Oid			relid = ((ImmediateTable *) lfirst(lc))->relid;
		ListCell   *source_cell;

		foreach(source_cell, program->sources)
		{
			if (((ProgramSource *) lfirst(source_cell))->relid == relid)
				upstream = lappend_oid(upstream, relid);
		}
	}
	return upstream;
}

static void
lock_sources_and(DeltaProgram *program, Oid stream_table)
{
	WantedLocks wanted = {0};

	wanted.tables = tables_behind_program(program);
	wanted.upstream = immediate_upstream(program);
	wanted.stream_table = stream_table;
	lock_wanted(&wanted);
}

void
immediate_lock_sources(DeltaProgram *program)
{
	lock_sources_and(program, InvalidOid);
}

/* Sources first, as writers have it. */
void
immediate_lock_stream_table(int64 pgt_id)
{
	ImmediateTable *table = immediate_table(pgt_id);
	Oid			relid = table != NULL ? table->relid : InvalidOid;
	WantedLocks wanted = {0};

	if (table == NULL)
		return;
	wanted.tables = tables_behind(NIL, relid);
	lock_wanted(&wanted);
	immediate_lock_table(relid, true);
}

/* Does this transaction have this lock, or (or_stronger) one that keeps at least as many others away? */
static bool
have_lock(Oid relid, LOCKMODE mode, bool or_stronger)
{
	Relation	relation = table_open(relid, AccessShareLock);
	bool		have = CheckRelationLockedByMe(relation, mode, or_stronger);

	table_close(relation, NoLock);
	return have;
}

static bool
writers_are_away(List *tables)
{
	ListCell   *lc;

	foreach(lc, tables)
	{
		if (!have_lock(lfirst_oid(lc), ShareRowExclusiveLock, true))
			return false;
	}
	return true;
}

/* Then the applier cannot know all that the stream table must have. */
static bool
have_written(List *tables)
{
	ListCell   *lc;

	if (!TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return false;
	foreach(lc, tables)
	{
		if (have_lock(lfirst_oid(lc), RowExclusiveLock, false) || have_lock(lfirst_oid(lc), AccessExclusiveLock, false))
			return true;
	}
	return false;
}

/* ---- brought up to date by the applier ---- */

/* The position since which the rows of a stream table's sources tell what has changed; of the last call of immediate_prepare(). */
static struct
{
	int64		pgt_id;
	List	   *tables;			/* oid list: what its query reads */
	XLogRecPtr	begin;
	char	   *fingerprint;	/* of its program */
}			prepared;

static LoadedTable *
load_to_switch(int64 pgt_id)
{
	LoadedTable *table = immediate_load(pgt_id);

	if (table == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("stream table " INT64_FORMAT " does not exist", pgt_id)));
	immediate_check(table->program, table->qualified_name, table->owner);
	return table;
}

/* NULL: it has been brought up to date; else why not. */
static const char *
prepare(LoadedTable *table)
{
	List	   *tables = tables_read(table->program);
	MemoryContext oldcontext;

	if (!table->wants_delta)
		return "It has been refreshed in full, without what a refresh by delta needs to know.";
	if (have_written(list_concat_unique_oid(list_copy(tables), tables_behind_program(table->program))))
		return "This transaction has written to its sources.";
	if (!row_versions_can_tell(tables))
		return "A source is not stored in the ordinary way.";
	prepared.begin = row_versions_begin(tables);
	oldcontext = MemoryContextSwitchTo(TopTransactionContext);
	prepared.tables = list_copy(tables);
	prepared.fingerprint = program_fingerprint(table->program);
	MemoryContextSwitchTo(oldcontext);
	return barrier_bring_up_to_date(table->pgt_id, table->relid);
}

/*
 * pgtrickle.immediate_prepare(pgt_id bigint) returns boolean
 *
 * For a stream table that is to become IMMEDIATE: has the applier refresh it, so that little is left to be done when writers have to wait.  False when that
 * does not work; then its query will be run.
 */
Datum
pgtrickle_immediate_prepare(PG_FUNCTION_ARGS)
{
	LoadedTable *table;
	const char *obstacle;
	char	   *name;

	prepared.pgt_id = 0;
	if (IsolationUsesXactSnapshot())
		PG_RETURN_BOOL(false);
	SPI_connect();
	table = load_to_switch(PG_GETARG_INT64(0));
	name = pstrdup(table->qualified_name);
	obstacle = prepare(table);
	if (obstacle == NULL)
		prepared.pgt_id = PG_GETARG_INT64(0);
	else
		ereport(NOTICE,
				(errmsg("stream table \"%s\" is brought up to date by running its query", name),
				 errdetail_internal("%s", obstacle)));
	SPI_finish();
	PG_RETURN_BOOL(obstacle == NULL);
}

/*
 * pgtrickle.immediate_lock(pgt_id bigint) returns void
 *
 * After immediate_prepare(): keeps writers away from the sources, and the applier from the stream table.
 */
Datum
pgtrickle_immediate_lock(PG_FUNCTION_ARGS)
{
	LoadedTable *table;

	SPI_connect();
	table = load_to_switch(PG_GETARG_INT64(0));
	lock_sources_and(table->program, table->relid);
	SPI_finish();
	PG_RETURN_VOID();
}

/* ---- what has changed since ---- */

typedef struct CatchUp
{
	int64		pgt_id;
	List	   *tables;			/* oid list: what the query reads, as it was at the beginning */
	XLogRecPtr	begin;
	Snapshot	before;			/* that of the applier or of the first fill; NULL: that of the query */
	char	   *fingerprint;	/* of the program that the rows are right for */
} CatchUp;

static PendingDelta *
source_delta(ProgramSource *source)
{
	Relation	relation = table_open(source->relid, AccessShareLock);
	PendingDelta *delta = palloc0(sizeof(PendingDelta));

	delta->source_relid = source->relid;
	delta->used_attnos = bms_copy(source->used_attnos);
	delta->rowset = rowset_create(psprintf("__pgt_delta_%u", source->relid), rowset_tupdesc_for(RelationGetDescr(relation)));
	table_close(relation, NoLock);
	return delta;
}

static void
compare_source(CatchUp *catch_up, PendingDelta *delta, Snapshot before)
{
	ListCell   *lc;

	foreach(lc, find_all_inheritors(delta->source_relid, AccessShareLock, NULL))
	{
		Relation	relation = table_open(lfirst_oid(lc), AccessShareLock);

		if (RELKIND_HAS_STORAGE(relation->rd_rel->relkind))
			immediate_capture_versions(delta, relation, catch_up->begin, before, GetActiveSnapshot());
		table_close(relation, NoLock);
	}
}

/* Everything may have changed. */
static List *
unknown_changes(DeltaProgram *program)
{
	PendingDelta *delta = palloc0(sizeof(PendingDelta));

	delta->source_relid = ((ProgramSource *) linitial(program->sources))->relid;
	delta->is_unknown = true;
	return list_make1(delta);
}

/* An ImmediateChanges. */
static List *
changes_since(void *arg, Snapshot before)
{
	CatchUp    *catch_up = arg;
	LoadedTable *table = immediate_load(catch_up->pgt_id);
	List	   *deltas = NIL;
	ListCell   *lc;

	lock_sources_and(table->program, table->relid);
	immediate_renew_snapshot();
	/* what else has been changed while its query was run: partitions, a function, a view */
	table = load_to_switch(catch_up->pgt_id);
	if (!table_states_fit(table))
		table = table_rebuild_states(table);
	immediate_sync_triggers();
	table = immediate_load(catch_up->pgt_id);
	if (strcmp(program_fingerprint(table->program), catch_up->fingerprint) != 0 ||
		!equal(tables_read(table->program), catch_up->tables))
		return unknown_changes(table->program);
	foreach(lc, table->program->sources)
		deltas = lappend(deltas, source_delta(lfirst(lc)));
	foreach(lc, deltas)
		compare_source(catch_up, lfirst(lc), before != NULL ? before : catch_up->before);
	return deltas;
}

/* Its rows are right for the frontier, and writers are away; false: the rows that were there then may be gone. */
static bool
catch_up_from_frontier(CatchUp *catch_up, const char *frontier, const char *own_xid)
{
	catch_up->tables = prepared.tables;
	catch_up->begin = prepared.begin;
	catch_up->fingerprint = prepared.fingerprint;
	catch_up->before = row_versions_snapshot(frontier, strtou64(own_xid, NULL, 10));
	if (catch_up->before == NULL)
		return false;
	immediate_refill(catch_up->pgt_id, false, changes_since, catch_up);
	UnregisterSnapshot(catch_up->before);
	return true;
}

/* By its query, run while writers go on if that is of use. */
static void
catch_up_by_query(CatchUp *catch_up)
{
	LoadedTable *table = immediate_load(catch_up->pgt_id);
	bool		at_once = IsolationUsesXactSnapshot() || !row_versions_can_tell(catch_up->tables) ||
		writers_are_away(tables_behind_program(table->program));

	if (at_once)
		lock_sources_and(table->program, table->relid);
	else
		catch_up->begin = row_versions_begin(catch_up->tables);
	LockRelationOid(table->relid, ShareRowExclusiveLock);
	immediate_renew_snapshot();
	table = load_to_switch(catch_up->pgt_id);
	if (!table_states_fit(table))
		table = table_rebuild_states(table);
	if (at_once)
		immediate_sync_triggers();
	catch_up->fingerprint = program_fingerprint(table->program);
	catch_up->tables = tables_read(table->program);
	immediate_refill(catch_up->pgt_id, true, at_once ? NULL : changes_since, catch_up);
}

/*
 * pgtrickle.immediate_catch_up(pgt_id bigint, frontier text, own_xid text) returns void
 *
 * For a stream table whose definition has just become IMMEDIATE and active: brings it up to date, keeps writers away from its sources, and makes the
 * triggers.  The frontier, if given, is that to which immediate_prepare() has brought it; all is locked then.  A tick that is at work on it is waited for;
 * one with an older snapshot will fail, since the caller has changed the stream table's row in pgt_frontiers.
 */
Datum
pgtrickle_immediate_catch_up(PG_FUNCTION_ARGS)
{
	CatchUp		catch_up = {0};
	LoadedTable *table;

	catch_up.pgt_id = PG_GETARG_INT64(0);
	CommandCounterIncrement();
	SPI_connect();
	PushCopiedSnapshot(GetTransactionSnapshot());
	UpdateActiveSnapshotCommandId();
	table = load_to_switch(catch_up.pgt_id);
	catch_up.tables = tables_read(table->program);
	if (PG_ARGISNULL(1) || PG_ARGISNULL(2) || prepared.pgt_id != catch_up.pgt_id ||
		!catch_up_from_frontier(&catch_up, text_to_cstring(PG_GETARG_TEXT_PP(1)), text_to_cstring(PG_GETARG_TEXT_PP(2))))
		catch_up_by_query(&catch_up);
	prepared.pgt_id = 0;
	PopActiveSnapshot();
	SPI_finish();
	PG_RETURN_VOID();
}

/* ---- made IMMEDIATE ---- */

struct ImmediateCreation
{
	bool		at_once;		/* writers are away from the beginning */
	CatchUp		catch_up;
};

ImmediateCreation *
immediate_creation_begin(DeltaProgram *program)
{
	ImmediateCreation *creation = palloc0(sizeof(ImmediateCreation));
	CatchUp    *catch_up = &creation->catch_up;

	catch_up->tables = tables_read(program);
	catch_up->fingerprint = program_fingerprint(program);
	creation->at_once = !row_versions_can_tell(catch_up->tables) || writers_are_away(tables_behind_program(program));
	if (creation->at_once)
		immediate_lock_sources(program);
	else
		catch_up->begin = row_versions_begin(catch_up->tables);
	return creation;
}

void
immediate_creation_end(ImmediateCreation *creation, int64 pgt_id, Snapshot filled)
{
	creation->catch_up.pgt_id = pgt_id;
	creation->catch_up.before = filled;
	if (creation->at_once)
	{
		(void) load_to_switch(pgt_id);
		immediate_sync_triggers();
	}
	else
		immediate_refill(pgt_id, false, changes_since, &creation->catch_up);
}

/* ---- stopping ---- */

/*
 * pgtrickle.immediate_wait(pgt_id bigint) returns void
 *
 * Waits for the transactions that have maintained a stream table and are not over, and has others wait that want to.
 */
Datum
pgtrickle_immediate_wait(PG_FUNCTION_ARGS)
{
	ImmediateTable *table;

	SPI_connect();
	table = immediate_table(PG_GETARG_INT64(0));
	if (table != NULL)
		immediate_lock_table(table->relid, true);
	SPI_finish();
	PG_RETURN_VOID();
}

/* ---- leaving ---- */

static const char *const frontier_sql =
	"UPDATE pgtrickle.pgt_frontiers SET snapshot = $2::pg_snapshot, lsn = $3, own_xid = NULL, query_now = pg_catalog.now(),"
	" data_timestamp = pg_catalog.clock_timestamp(), last_refresh_at = pg_catalog.clock_timestamp(), needs_refill = false, refill_reason = NULL,"
	" spool_snapshot = NULL, spooled_since = NULL, spool_reason = NULL, consecutive_errors = 0, retry_at = NULL WHERE pgt_id = $1";

static const char *const filled_sql =
	"UPDATE pgtrickle.pgt_definitions SET filled_xid = pg_catalog.pg_current_xact_id() WHERE pgt_id = $1";

/* The order is that of a first fill: the message, then the snapshot. */
static void
record_frontier(int64 pgt_id)
{
	Oid			types[] = {INT8OID, TEXTOID, PG_LSNOID};
	Datum		values[3];

	(void) wal_message_emit(psprintf("filled " INT64_FORMAT, pgt_id), true, false);
	PushActiveSnapshot(GetLatestSnapshot());
	values[0] = Int64GetDatum(pgt_id);
	values[1] = CStringGetTextDatum(DatumGetCString(DirectFunctionCall1(pg_snapshot_out, DirectFunctionCall1(pg_current_snapshot, (Datum) 0))));
	values[2] = LSNGetDatum(GetXLogInsertRecPtr());
	PopActiveSnapshot();
	if (SPI_execute_with_args(frontier_sql, 3, types, values, NULL, false, 0) != SPI_OK_UPDATE ||
		SPI_execute_with_args(filled_sql, 1, types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not record the frontier of stream table " INT64_FORMAT, pgt_id);
}

/*
 * pgtrickle.immediate_leave(pgt_id bigint, is_current boolean) returns void
 *
 * For a stream table whose definition has just ceased to be IMMEDIATE: announces its sources to the applier and has them log old rows, as creating it would
 * have done, and drops triggers that nobody needs any more.  `is_current`: writers have maintained it up to now, and it goes on from here by delta; else
 * the applier has to fill it again.  A transaction with one snapshot took that before the announcement, so the stream may lack what was committed in between.
 */
Datum
pgtrickle_immediate_leave(PG_FUNCTION_ARGS)
{
	int64		pgt_id = PG_GETARG_INT64(0);
	WantedLocks wanted = {0};
	LoadedTable *table;
	List	   *sources_to_alter;
	Oid			saved_user;
	int			saved_context;

	CommandCounterIncrement();
	SPI_connect();
	table = immediate_load(pgt_id);
	sources_announce(table->program);
	GetUserIdAndSecContext(&saved_user, &saved_context);
	SetUserIdAndSecContext(table->owner, saved_context | SECURITY_LOCAL_USERID_CHANGE);
	sources_to_alter = replica_identity_plan(table->program);
	SetUserIdAndSecContext(saved_user, saved_context);
	wanted.alone = list_concat(list_copy(sources_to_alter), immediate_triggers_to_drop());
	wanted.tables = list_concat_unique_oid(tables_behind_program(table->program), wanted.alone);
	lock_wanted(&wanted);
	immediate_lock_table(table->relid, true);
	if (PG_GETARG_BOOL(1) && !IsolationUsesXactSnapshot())
		record_frontier(pgt_id);
	SetUserIdAndSecContext(table->owner, saved_context | SECURITY_LOCAL_USERID_CHANGE);
	replica_identity_set(sources_to_alter);
	SetUserIdAndSecContext(saved_user, saved_context);
	immediate_sync_triggers();
	SPI_finish();
	PG_RETURN_VOID();
}
