/*
 * delta/tick_execute.c
 *     tick_execute: runs the programs of a planned tick, hands on what changed, and writes down how far everything is.
 */
#include "postgres.h"

#include "access/xact.h"
#include "clock.h"
#include "copy_positions.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "retain.h"
#include "settings.h"
#include "shared_rows.h"
#include "spool.h"
#include "temporal.h"
#include "tick_state.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "verify.h"
#include "wal_message.h"

PG_FUNCTION_INFO_V1(pgtrickle_tick_execute);

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
		if (tick_entry(*(int64 *) lfirst(lc)) == NULL)
			return false;
	}
	return true;
}

static TickEntry *
upstream_entry(Oid relid)
{
	ListCell   *lc;

	foreach(lc, current_tick->entries)
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
	CopyEntry  *copy = copy_tick_entry(current_tick->copies, relid);

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
		CopyEntry  *copy = copy_tick_entry(current_tick->copies, ((ProgramSource *) lfirst(lc))->relid);

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
	current_tick->made_rowsets = lappend(current_tick->made_rowsets, both);
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
		staged = stage_rowset(current_tick->stage, entry->set, described->source_relid, described->source_only, &obstacle);
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
	if (decision->choice == COST_FULL && copy_tick_rows_missing(current_tick->copies, entry->table, true))
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
mark_to_refill(TickEntry *entry)
{
	if (SPI_execute(psprintf("UPDATE pgtrickle.pgt_frontiers SET needs_refill = true,"
							 " refill_reason = 'changes of a new source may be missing' WHERE pgt_id = " INT64_FORMAT,
							 entry->pgt_id),
					false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not mark stream table " INT64_FORMAT " to be refreshed", entry->pgt_id);
	(void) wal_message_emit("catalog", true, false);
}

static void
execute_entry(TickEntry *entry)
{
	TimestampTz started_at = GetCurrentTimestamp();
	bool		hidden = all_consumers_take_part(entry);
	Rowset	  **rowsets = NULL;
	RefreshRecord record = {0};
	CostDecision decision = {COST_NOT_WEIGHED, -1, -1, -1, -1};

	tick_failed_id = entry->pgt_id;
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
		(void) copy_tick_rows_missing(current_tick->copies, entry->table, false);
		entry->outcome = table_refresh_full(entry->table, hidden);
	}
	previous_now_forget();
	if (entry->outcome.net != NULL)
		current_tick->made_rowsets = lappend(current_tick->made_rowsets, entry->outcome.net);
	if (!entry->table->is_populated)
		retain_begin(entry->pgt_id, current_tick->started_at);
	else if (entry->table->retains_history && entry->outcome.net != NULL)
		retain_changes(entry->pgt_id, entry->table->owner, entry->outcome.net, current_tick->started_at);
	entry->table->is_populated = true;

	if (pgtrickle_paranoid_verify && !copy_tick_rows_missing(current_tick->copies, entry->table, true))
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
	tick_failed_id = 0;
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

	tick_require();
	frontier.has_ack_lsn = !PG_ARGISNULL(0);
	frontier.ack_lsn = PG_ARGISNULL(0) ? InvalidXLogRecPtr : PG_GETARG_LSN(0);
	frontier.stream_lsn = PG_ARGISNULL(1) ? InvalidXLogRecPtr : PG_GETARG_LSN(1);
	/* The transaction that is ours must not look like one that is still to come. */
	(void) GetTopFullTransactionId();

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	oldcontext = MemoryContextSwitchTo(current_tick->context);
	PushCopiedSnapshot(GetTransactionSnapshot());
	UpdateActiveSnapshotCommandId();

	record_begin(&frontier, current_tick->started_at);
	foreach(lc, copy_tick_finish(current_tick->copies))
		return_copy(rsinfo, lfirst(lc));
	shared_rows_begin();
	foreach(lc, current_tick->entries)
	{
		TickEntry  *entry = lfirst(lc);
		TimestampTz started_at = GetCurrentTimestamp();

		if (entry->spools)
		{
			spool_give(current_tick->spool_parts, entry->set, entry->pgt_id, entry->spooled_since, entry->full_reason);
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
	foreach(lc, current_tick->made_rowsets)
		rowset_free(lfirst(lc));
	copy_tick_release(current_tick->copies);
	MemoryContextSwitchTo(oldcontext);
	SPI_finish();
	stage_free(current_tick->stage);
	current_tick = NULL;
	return (Datum) 0;
}
