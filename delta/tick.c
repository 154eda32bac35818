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
#include "access/xlog.h"
#include "catalog/pg_type_d.h"
#include "clock.h"
#include "copy_positions.h"
#include "copy_tick.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "refresh_record.h"
#include "retain.h"
#include "run.h"
#include "settings.h"
#include "shared_rows.h"
#include "sources.h"
#include "spool.h"
#include "stage.h"
#include "storage/lmgr.h"
#include "temporal.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "verify.h"
#include "wal_message.h"

PG_FUNCTION_INFO_V1(pgtrickle_tick_plan);
PG_FUNCTION_INFO_V1(pgtrickle_tick_stage);
PG_FUNCTION_INFO_V1(pgtrickle_tick_execute);
PG_FUNCTION_INFO_V1(pgtrickle_tick_failed_id);

/* One stream table of the tick. */
typedef struct TickEntry
{
	int64		pgt_id;
	LoadedTable *table;
	int			set;
	const char *full_reason;	/* refresh in full, and why; NULL: by delta */
	char	   *verify_nonce;	/* verify afterwards, under this nonce; NULL: no */
	bool		is_spooled;		/* some of its changes are in the spool */
	bool		spools;			/* no refresh: its changes go into the spool; no table */
	bool		bound_anew;		/* the stream did not bring changes of all its sources before */
	TimestampTz spooled_since;	/* the oldest of them */
	RefreshOutcome outcome;
} TickEntry;

typedef struct Tick
{
	MemoryContext context;
	List	   *entries;		/* of TickEntry, in topological order */
	CopyTick   *copies;			/* before all of them */
	Stage	   *stage;
	List	   *made_rowsets;	/* of Rowset: to be freed at the end, which closes their files */
	bool		spools;			/* all entries do */
	List	   *spool_parts;	/* of SpoolPart */
	TimestampTz started_at;
} Tick;

static Tick *tick = NULL;
static int64 failed_id = 0;		/* which stream table was at work when the last tick failed */
static bool xact_callback_registered = false;

static void
forget_tick(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		tick = NULL;
}

static void
begin_tick(void)
{
	MemoryContext context;

	if (!xact_callback_registered)
	{
		RegisterXactCallback(forget_tick, NULL);
		xact_callback_registered = true;
	}
	if (tick != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a tick was already planned in this transaction")));
	context = AllocSetContextCreate(TopTransactionContext, "tick", ALLOCSET_DEFAULT_SIZES);
	tick = MemoryContextAllocZero(context, sizeof(Tick));
	tick->context = context;
	tick->started_at = GetCurrentTimestamp();
	failed_id = 0;
}

static TickEntry *
entry_of(int64 pgt_id)
{
	ListCell   *lc;

	foreach(lc, tick->entries)
	{
		TickEntry  *entry = lfirst(lc);

		if (entry->pgt_id == pgt_id)
			return entry;
	}
	return NULL;
}

/* ---- tick_plan ---- */

/* Cuts "+word" or "+word:argument" off the end of an action; NULL: it is not there. */
static char *
cut_suffix(char *action, const char *suffix)
{
	char	   *found = strstr(action, suffix);
	size_t		length = strlen(suffix);

	if (found == NULL)
		return NULL;
	*found = '\0';
	return found[length] == ':' ? found + length + 1 : found + length;
}

/* "spool:<age of the oldest change in ms>", or the same followed by ":<reason>" for a full refresh later on. */
static void
parse_spool_action(TickEntry *entry, const char *arguments)
{
	char	   *end;
	int64		age_ms = strtoll(arguments, &end, 10);

	entry->spools = true;
	entry->spooled_since = GetCurrentTimestamp() - age_ms * 1000;
	entry->full_reason = *end == ':' ? pstrdup(end + 1) : NULL;
}

/*
 * "delta", "full:<reason>", either followed by "+spooled", by "+verify" or "+verify:<nonce>", in this order; or "spool:...".
 */
static void
parse_action(TickEntry *entry, const char *action)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(tick->context);
	char	   *head = pstrdup(action);

	entry->verify_nonce = cut_suffix(head, "+verify");
	entry->is_spooled = cut_suffix(head, "+spooled") != NULL;
	if (strncmp(head, "spool:", 6) == 0)
		parse_spool_action(entry, head + 6);
	else if (strncmp(head, "full", 4) == 0)
		entry->full_reason = pstrdup(head[4] == ':' ? head + 5 : "requested");
	else if (strcmp(head, "delta") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown action \"%s\" in a tick", action)));
	MemoryContextSwitchTo(oldcontext);
}

/*
 * The stream table is locked before its states, as by everybody who changes its query.  One that was changed while we waited, or is new to
 * this session, may have a definition that is younger than our snapshot; then the frontier, which whoever gave it another query or
 * dropped it has moved, cannot be locked at our snapshot: a serialization failure, and the tick is tried again.
 */
static LoadedTable *
load_locked(int64 pgt_id)
{
	LoadedTable *table = table_load(pgt_id);

	if (table != NULL)
		LockRelationOid(table->relid, RowExclusiveLock);
	if (table != NULL && table->valid && table->is_known)
		return table;
	if (SPI_execute(psprintf("SELECT FROM pgtrickle.pgt_frontiers WHERE pgt_id = " INT64_FORMAT " FOR UPDATE", pgt_id),
					false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not lock the frontier of stream table " INT64_FORMAT, pgt_id);
	table = table_load(pgt_id);
	if (table != NULL)
		table->is_known = true;
	return table;
}

/*
 * DDL binds a stream table anew when a name in its query has got another meaning.  Where it could not, for a lock that somebody else held, say, we
 * do.  The rows are right now; but the stream may have left out changes of the new source that this tick does not see either, so another
 * full refresh has to follow.
 */
static void
bind_sources(TickEntry *entry)
{
	LoadedTable *table = entry->table;

	if (table->sources_bound || (table->sources_bound = sources_are_bound(entry->pgt_id, table->program)))
		return;
	sources_bind(table);
	entry->bound_anew = true;
	entry->full_reason = "a name in its query means another relation";
}

static void
mark_to_refill(TickEntry *entry)
{
	if (SPI_execute(psprintf("UPDATE pgtrickle.pgt_frontiers SET needs_refill = true,"
							 " refill_reason = 'changes of a new source may be missing' WHERE pgt_id = " INT64_FORMAT,
							 entry->pgt_id),
					false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not mark stream table " INT64_FORMAT " to be refreshed", entry->pgt_id);
	(void) wal_message_emit("catalog", true, false);
}

static bool
takes_part(int64 pgt_id)
{
	TickEntry  *entry = entry_of(pgt_id);

	return entry != NULL && !entry->spools;
}

static void
add_entry(int64 pgt_id, int set, const char *action)
{
	TickEntry  *entry;

	if (strcmp(action, "copy") == 0)
	{
		copy_tick_add(tick->copies, pgt_id, set);
		return;
	}
	entry = palloc0(sizeof(TickEntry));
	failed_id = pgt_id;
	entry->pgt_id = pgt_id;
	entry->set = set;
	parse_action(entry, action);
	if (tick->entries != NIL && tick->spools != entry->spools)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a tick cannot both refresh and spool")));
	tick->spools = entry->spools;
	if (entry->spools)
	{
		/* its query may be whatever it wants to be meanwhile */
		tick->entries = lappend(tick->entries, entry);
		failed_id = 0;
		return;
	}
	entry->table = load_locked(pgt_id);
	if (entry->table == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("stream table " INT64_FORMAT " does not exist", pgt_id)));
	if (!table_states_fit(entry->table))
	{
		entry->table = table_rebuild_states(entry->table);
		if (entry->full_reason == NULL)
			entry->full_reason = "a source changed what the query means";
	}
	bind_sources(entry);
	clock_record_reason(entry->table);
	/* every call of SPI leaves its own context behind */
	MemoryContextSwitchTo(tick->context);
	if (entry->full_reason == NULL)
	{
		if (entry->table->program->full_reason != NULL)
			entry->full_reason = entry->table->program->full_reason;
		else if (!entry->table->is_populated)
			entry->full_reason = pstrdup("not filled yet");
	}
	tick->entries = lappend(tick->entries, entry);
	failed_id = 0;
}

static ProgramSource *
program_source(DeltaProgram *program, Oid relid)
{
	ListCell   *lc;

	foreach(lc, program->sources)
	{
		if (((ProgramSource *) lfirst(lc))->relid == relid)
			return lfirst(lc);
	}
	elog(ERROR, "relation %u is not a source of its program", relid);
	return NULL;
}

static void
expect_sources(TickEntry *entry)
{
	ListCell   *lc;

	foreach(lc, entry->table->program->sources)
	{
		ProgramSource *source = lfirst(lc);

		stage_expect(tick->stage, entry->set, source->relid, false, source->used_attnos);
	}
	foreach(lc, entry->table->program->rowsets)
	{
		ProgramRowset *rowset = lfirst(lc);

		if (rowset->source_only)
			stage_expect(tick->stage, entry->set, rowset->source_relid, true,
						 program_source(entry->table->program, rowset->source_relid)->used_attnos);
	}
}

/* What came earlier is laid before what tick_stage is going to bring. */
static void
take_from_spool(TickEntry *entry)
{
	if (!entry->is_spooled || entry->full_reason != NULL)
		return;
	failed_id = entry->pgt_id;
	entry->full_reason = spool_take(tick->stage, entry->set, entry->pgt_id);
	failed_id = 0;
}

Datum
pgtrickle_tick_plan(PG_FUNCTION_ARGS)
{
	Datum	   *ids;
	Datum	   *sets;
	Datum	   *actions;
	int			nids;
	int			nsets;
	int			nactions;
	MemoryContext oldcontext;
	ListCell   *lc;

	if (!IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("a tick needs a REPEATABLE READ transaction")));
	begin_tick();
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), INT8OID, 8, true, TYPALIGN_DOUBLE, &ids, NULL, &nids);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), INT4OID, 4, true, TYPALIGN_INT, &sets, NULL, &nsets);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(2), TEXTOID, -1, false, TYPALIGN_INT, &actions, NULL, &nactions);
	if (nids != nsets || nids != nactions)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("a tick's arrays must have the same length")));

	SPI_connect();
	oldcontext = MemoryContextSwitchTo(tick->context);
	tick->stage = stage_create();
	tick->copies = copy_tick_create(&failed_id, takes_part);
	for (int i = 0; i < nids; i++)
		add_entry(DatumGetInt64(ids[i]), DatumGetInt32(sets[i]), TextDatumGetCString(actions[i]));
	MemoryContextSwitchTo(tick->context);
	copy_tick_planned(tick->copies);
	foreach(lc, tick->entries)
	{
		if (!tick->spools)
			expect_sources(lfirst(lc));
	}
	foreach(lc, tick->entries)
		take_from_spool(lfirst(lc));
	MemoryContextSwitchTo(oldcontext);
	SPI_finish();
	PG_RETURN_VOID();
}

static void
require_tick(void)
{
	if (tick == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no tick was planned in this transaction")));
}

/* ---- tick_stage ---- */

Datum
pgtrickle_tick_stage(PG_FUNCTION_ARGS)
{
	bytea	   *data = PG_GETARG_BYTEA_PP(1);
	MemoryContext oldcontext;

	require_tick();
	oldcontext = MemoryContextSwitchTo(tick->context);
	if (remote_move_of_set(PG_GETARG_INT32(0)) != NULL)
		copy_tick_stage(tick->copies, PG_GETARG_INT32(0), VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data));
	else if (tick->spools)
		tick->spool_parts = spool_store(tick->spool_parts, PG_GETARG_INT32(0), VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data));
	else
		stage_append(tick->stage, PG_GETARG_INT32(0), VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data));
	MemoryContextSwitchTo(oldcontext);
	PG_RETURN_VOID();
}

/* ---- tick_execute ---- */

/*
 * A refreshed stream table's rows need not come back through the stream when everyone who reads them takes part in
 * this tick: the consumers get them right here.
 */
static bool
all_consumers_take_part(TickEntry *entry)
{
	ListCell   *lc;

	foreach(lc, entry->table->consumer_ids)
	{
		if (entry_of(*(int64 *) lfirst(lc)) == NULL)
			return false;
	}
	return true;
}

static TickEntry *
upstream_entry(Oid relid)
{
	ListCell   *lc;

	foreach(lc, tick->entries)
	{
		TickEntry  *entry = lfirst(lc);

		if (entry->table->relid == relid)
			return entry;
	}
	return NULL;
}

/* What this tick did to a source: a stream table or a copy; NULL: nothing. */
static Rowset *
upstream_net(Oid relid)
{
	TickEntry  *upstream = upstream_entry(relid);
	CopyEntry  *copy = copy_tick_entry(tick->copies, relid);

	if (copy != NULL)
		return copy->net;
	return upstream ? upstream->outcome.net : NULL;
}

/* A copy that has just been filled for the first time hands over no delta; NULL: there is none among the sources. */
static const char *
reason_of_copies(TickEntry *entry)
{
	ListCell   *lc;

	foreach(lc, entry->table->program->sources)
	{
		CopyEntry  *copy = copy_tick_entry(tick->copies, ((ProgramSource *) lfirst(lc))->relid);

		if (copy != NULL && copy->full_reason != NULL)
			return copy->full_reason;
	}
	return NULL;
}

/* What came through the stream and what this tick did to the source, together. */
static Rowset *
both_rowsets(Rowset *staged, Rowset *net)
{
	Rowset	   *both;
	Rowset	   *parts[2] = {staged, net};

	if (staged == NULL || staged->row_count == 0)
		return net;
	if (net == NULL || net->row_count == 0)
		return staged;
	both = rowset_create(staged->name, staged->tupdesc);
	tick->made_rowsets = lappend(tick->made_rowsets, both);
	for (int i = 0; i < 2; i++)
	{
		TupleTableSlot *slot = rowset_make_slot(parts[i]);

		rowset_rewind(parts[i]);
		while (rowset_next(parts[i], slot))
			rowset_put_slot(both, slot);
		ExecDropSingleTupleTableSlot(slot);
	}
	both->has_deletes = staged->has_deletes || net->has_deletes;
	return both;
}

/* The deltas of the program's sources, by rowset number; NULL and a reason when some cannot be used. */
static Rowset **
collect_sources(TickEntry *entry)
{
	DeltaProgram *program = entry->table->program;
	Rowset	  **rowsets = palloc0(sizeof(Rowset *) * list_length(program->rowsets));
	ListCell   *lc;

	foreach(lc, program->rowsets)
	{
		ProgramRowset *described = lfirst(lc);
		StageObstacle obstacle = STAGE_USABLE;
		Rowset	   *staged;

		if (!OidIsValid(described->source_relid))
			continue;
		staged = stage_rowset(tick->stage, entry->set, described->source_relid, described->source_only, &obstacle);
		if (obstacle != STAGE_USABLE)
		{
			entry->full_reason = psprintf("source \"%s\": %s", get_rel_name(described->source_relid),
										  stage_obstacle_reason(obstacle));
			return NULL;
		}
		rowsets[foreach_current_index(lc)] = both_rowsets(staged, upstream_net(described->source_relid));
	}
	return rowsets;
}

static void
check_paranoid(TickEntry *entry)
{
	int64		row_count;
	Rowset	   *difference = table_compare(entry->table, &row_count);

	if (difference->row_count > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("stream table \"%s\" differs from its defining query in " INT64_FORMAT " rows",
						entry->table->qualified_name, difference->row_count),
				 errdetail("Found by pgtrickle.paranoid_verify after a refresh; action \"%s\".",
						   entry->outcome.action)));
	rowset_free(difference);
}

/* By delta, unless the whole query is cheaper and the choice is ours; false: in full, for the reason noted. */
static bool
refresh_by_delta(TickEntry *entry, Rowset **rowsets, bool hidden, CostDecision *decision)
{
	if (pgtrickle_cost_based && entry->table->is_auto)
		cost_decide(entry->table, rowsets, decision);
	if (decision->choice == COST_FULL && copy_tick_rows_missing(tick->copies, entry->table, true))
		decision->choice = COST_DELTA;
	if (decision->choice != COST_FULL)
	{
		entry->outcome = table_refresh_delta(entry->table, rowsets, hidden, NULL);
		return true;
	}
	entry->full_reason = cost_reason(decision);
	return false;
}

static void
execute_entry(TickEntry *entry)
{
	TimestampTz started_at = GetCurrentTimestamp();
	bool		hidden = all_consumers_take_part(entry);
	Rowset	  **rowsets = NULL;
	RefreshRecord record = {0};
	CostDecision decision = {COST_NOT_WEIGHED, -1, -1, -1, -1};

	failed_id = entry->pgt_id;
	if (entry->full_reason == NULL)
		entry->full_reason = reason_of_copies(entry);
	if (entry->full_reason == NULL)
		rowsets = collect_sources(entry);
	if (rowsets != NULL && entry->table->program->follows_time && !previous_now_load(entry->pgt_id))
	{
		entry->full_reason = "the moment of the last refresh is not known";
		rowsets = NULL;
	}
	if (rowsets == NULL || !refresh_by_delta(entry, rowsets, hidden, &decision))
	{
		(void) copy_tick_rows_missing(tick->copies, entry->table, false);
		entry->outcome = table_refresh_full(entry->table, hidden);
	}
	previous_now_forget();
	if (entry->outcome.net != NULL)
		tick->made_rowsets = lappend(tick->made_rowsets, entry->outcome.net);
	if (!entry->table->is_populated)
		retain_begin(entry->pgt_id, tick->started_at);
	else if (entry->table->retains_history && entry->outcome.net != NULL)
		retain_changes(entry->pgt_id, entry->table->owner, entry->outcome.net, tick->started_at);
	entry->table->is_populated = true;

	if (pgtrickle_paranoid_verify && !copy_tick_rows_missing(tick->copies, entry->table, true))
		check_paranoid(entry);
	if (entry->verify_nonce != NULL)
		verify_store(entry->table, entry->verify_nonce);

	record.table = entry->table;
	record.outcome = &entry->outcome;
	record.reason = entry->full_reason;
	record.decision = &decision;
	record.started_at = started_at;
	record.ended_at = GetCurrentTimestamp();
	cost_learn(entry->table, &decision, (record.ended_at - started_at) / 1000.0);
	record_refresh(&record);
	if (entry->bound_anew)
		mark_to_refill(entry);
	if (entry->is_spooled)
		spool_forget(entry->pgt_id);
	failed_id = 0;
}

static void
return_entry(ReturnSetInfo *rsinfo, TickEntry *entry, TimestampTz started_at)
{
	Datum		values[6];
	bool		nulls[6] = {false};

	values[0] = Int64GetDatum(entry->pgt_id);
	values[1] = CStringGetTextDatum(entry->outcome.action);
	values[2] = Int64GetDatum(entry->outcome.counts.rows_inserted);
	values[3] = Int64GetDatum(entry->outcome.counts.rows_deleted);
	values[4] = Float8GetDatum((GetCurrentTimestamp() - started_at) / 1000.0);
	nulls[5] = entry->full_reason == NULL;
	values[5] = nulls[5] ? (Datum) 0 : CStringGetTextDatum(entry->full_reason);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static void
return_copy(ReturnSetInfo *rsinfo, CopyEntry *copy)
{
	Datum		values[6] = {0};
	bool		nulls[6] = {false, false, false, false, false, true};

	values[0] = Int64GetDatum(copy->definition->copy_id);
	values[1] = CStringGetTextDatum(copy->action);
	values[2] = Int64GetDatum(copy->counts.rows_inserted);
	values[3] = Int64GetDatum(copy->counts.rows_deleted);
	values[4] = Float8GetDatum((GetCurrentTimestamp() - copy->started_at) / 1000.0);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static void
return_own_xid(ReturnSetInfo *rsinfo)
{
	Datum		values[6] = {0};
	bool		nulls[6] = {false, true, true, true, true, false};
	char	   *xid = psprintf(UINT64_FORMAT, U64FromFullTransactionId(GetTopFullTransactionId()));

	values[0] = Int64GetDatum(0);
	values[5] = CStringGetTextDatum(xid);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
pgtrickle_tick_execute(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TickFrontier frontier = {0};
	MemoryContext oldcontext;
	ListCell   *lc;

	require_tick();
	frontier.has_ack_lsn = !PG_ARGISNULL(0);
	frontier.ack_lsn = PG_ARGISNULL(0) ? InvalidXLogRecPtr : PG_GETARG_LSN(0);
	frontier.stream_lsn = PG_ARGISNULL(1) ? InvalidXLogRecPtr : PG_GETARG_LSN(1);
	/* The transaction that is ours must not look like one that is still to come. */
	(void) GetTopFullTransactionId();

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	oldcontext = MemoryContextSwitchTo(tick->context);
	PushCopiedSnapshot(GetTransactionSnapshot());
	UpdateActiveSnapshotCommandId();

	record_begin(&frontier, tick->started_at);
	foreach(lc, copy_tick_finish(tick->copies))
		return_copy(rsinfo, lfirst(lc));
	shared_rows_begin();
	foreach(lc, tick->entries)
	{
		TickEntry  *entry = lfirst(lc);
		TimestampTz started_at = GetCurrentTimestamp();

		if (entry->spools)
		{
			spool_give(tick->spool_parts, entry->set, entry->pgt_id, entry->spooled_since, entry->full_reason);
			entry->outcome.action = "SPOOL";
		}
		else
			execute_entry(entry);
		return_entry(rsinfo, entry, started_at);
	}
	remote_positions_write();
	record_progress(&frontier);
	return_own_xid(rsinfo);

	PopActiveSnapshot();
	/*
	 * Files that are still open when the transaction ends are complained about.  Every SPI call leaves its own context current, so
	 * these rowsets live there and must go before SPI_finish takes it away.
	 */
	shared_rows_end();
	foreach(lc, tick->made_rowsets)
		rowset_free(lfirst(lc));
	copy_tick_release(tick->copies);
	MemoryContextSwitchTo(oldcontext);
	SPI_finish();
	stage_free(tick->stage);
	tick = NULL;
	return (Datum) 0;
}

Datum
pgtrickle_tick_failed_id(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(failed_id);
}
