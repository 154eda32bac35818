/*
 * delta/copy_switch.c
 *     Puts what has been copied in place.
 *
 * A load table holds rows that were read by one snapshot (without a key) or by several (with one, chunk by chunk).  The spool has everything that was
 * committed since the stream carries the table, up to this tick's position, which is not below the one that was read after the last snapshot.  Applied
 * in order they make the load table equal the remote's at the position: rows with a key get the state that the last change gave them, whatever
 * they were loaded as; rows without one were all loaded by one snapshot, and what that sees is left out.
 *
 * A copy that has rows gets the difference, which consumers are given as the delta that it is.  One that is empty gets the files (copy_swap.c).  That
 * has to wait until nobody can read by a snapshot from before the load table was caught up, hence the steps
 *
 *     loaded -> caught up: the load table is exact, and follows the stream -> switched
 *
 * each in a tick of its own; when nothing was committed to the table since copying began, it has been exact since it was loaded, and one tick does both.
 * When readers keep us waiting for longer than the copying took, or the tables are not alike, the rows are written into the copy.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "compat.h"
#include "consolidate.h"
#include "copy_reader.h"
#include "copy_record.h"
#include "copy_spool.h"
#include "copy_swap.h"
#include "copy_switch.h"
#include "copy_target.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "run.h"
#include "pgstat.h"
#include "table_writer.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

typedef struct Switch
{
	CopyDefinition *definition;
	bool		hidden;
	MemoryContext context;
	CopyFeed   *feed;
	CopySwitched result;
} Switch;

/* ---- catching up ---- */

/* The spool has only changes of this one. */
static List *
the_only_feed(void *argument, Oid remote_relid)
{
	Switch	   *work = argument;

	return remote_relid == work->definition->remote_relid ? list_make1(work->feed) : NIL;
}

/* Was there anything?  What is left out counts, too: the load table has had it since a position that some snapshots are not at yet. */
static bool
catch_up(Switch *work, CopyDefinition **current)
{
	CopyDefinition *definition = work->definition;
	CopyFeed	feed = {.definition = definition, .is_load = true};
	CopyScope	scope;
	CopyReader *reader;
	bool		has_changes;

	copy_scope_enter(&scope, definition);
	feed.target = copy_target_create(definition, definition->load_table, definition->has_key, true, false, work->context);
	copy_scope_leave(&scope);
	if (!definition->has_key && definition->copied_snapshot != NULL)
		feed.skipped_snapshot = DirectFunctionCall1(pg_snapshot_in, CStringGetDatum(definition->copied_snapshot));
	work->feed = &feed;
	reader = copy_reader_create(the_only_feed, work, work->context);
	/* this tick has put something into the spool as well */
	advance_active_snapshot();
	has_changes = copy_spool_replay(definition->copy_id, reader, current);
	*current = definition;
	copy_scope_enter(&scope, definition);
	copy_target_finish(feed.target);
	copy_scope_leave(&scope);
	definition->rows_copied += feed.target->counts.rows_inserted - feed.target->counts.rows_deleted;
	copy_target_release(feed.target);
	advance_active_snapshot();
	return has_changes;
}

/* ---- putting in place ---- */

/* Into a table that has no rows. */
static void
move_rows(void *argument)
{
	Switch	   *work = argument;
	Relation	copy = table_open(work->definition->relid, RowExclusiveLock);
	Relation	loaded = table_open(work->definition->load_table, AccessShareLock);
	TableWriter *writer = table_writer_open(copy, 1000000);
	TupleTableSlot *slot = table_slot_create(loaded, NULL);
	TableScanDesc scan = table_beginscan(loaded, writer->snapshot, 0, NULL);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		table_writer_insert(writer, slot->tts_values, slot->tts_isnull, 1);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_writer_close(writer);
	work->result.counts = table_writer_counts(writer);
	table_close(loaded, NoLock);
	table_close(copy, NoLock);
}

static void
put_rows(Rowset *rowset, Oid relid, int32 weight)
{
	Relation	relation = table_open(relid, AccessShareLock);
	TupleDesc	columns = RelationGetDescr(relation);
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	TableScanDesc scan = table_beginscan(relation, GetActiveSnapshot(), 0, NULL);
	Datum	   *values = palloc0((columns->natts + 1) * sizeof(Datum));
	bool	   *nulls = palloc0((columns->natts + 1) * sizeof(bool));

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		int			live = 0;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		for (int i = 0; i < columns->natts; i++)
		{
			if (TupleDescAttr(columns, i)->attisdropped)
				continue;
			values[live] = slot->tts_values[i];
			nulls[live++] = slot->tts_isnull[i];
		}
		rowset_put_values(rowset, values, nulls, weight);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(relation, NoLock);
}

static void
apply_difference(Switch *work)
{
	Relation	copy = table_open(work->definition->relid, RowExclusiveLock);
	Rowset	   *difference = rowset_create("difference", table_live_tupdesc(copy));

	put_rows(difference, work->definition->load_table, 1);
	put_rows(difference, work->definition->relid, -1);
	work->result.counts = apply_delta(copy, &work->definition->locator, difference, work->hidden, &work->result.net);
	rowset_free(difference);
	table_close(copy, NoLock);
}

/* Statistics that decide when the copy is vacuumed know nothing of swapped files. */
static void
count_rows(Switch *work)
{
	Relation	copy = table_open(work->definition->relid, NoLock);

	pgstat_count_heap_insert(copy, work->definition->rows_copied);
	table_close(copy, NoLock);
	work->result.counts.rows_inserted = work->definition->rows_copied;
}

/* False: somebody still has to be waited for. */
static bool
fill_empty(Switch *work)
{
	CopyDefinition *definition = work->definition;
	const char *reason = "Its files cannot take the place of the copy's.";
	CopyScope	scope;

	switch (copy_swap(definition, definition->exact_xid))
	{
		case COPY_SWAPPED:
			count_rows(work);
			return true;
		case COPY_SWAP_LATER:
			if (definition->may_wait)
				return false;
			reason = "Readers have kept it waiting for too long.";
			/* FALLTHROUGH */
		case COPY_SWAP_NEVER:
			break;
	}
	ereport(LOG, (errmsg("writing the rows of copy %s in one tick", definition->name), errdetail("%s", reason)));
	copy_scope_enter(&scope, definition);
	table_write_tagged(true, move_rows, work);
	copy_scope_leave(&scope);
	copy_swap_drop(definition->load_table);
	return true;
}

/* Is the load table what the remote's is, for every snapshot from some moment before this tick on? */
static bool
be_exact(Switch *work, CopyDefinition **current)
{
	CopyDefinition *definition = work->definition;

	if (definition->exact_xid == 0 && !catch_up(work, current))
		definition->exact_xid = copy_record_exact(definition, true);
	else if (definition->exact_xid == 0)
		(void) copy_record_exact(definition, false);
	return definition->exact_xid != 0;
}

static void
replace_rows(Switch *work, CopyDefinition **current)
{
	CopyScope	scope;

	(void) catch_up(work, current);
	copy_scope_enter(&scope, work->definition);
	apply_difference(work);
	copy_scope_leave(&scope);
	copy_swap_drop(work->definition->load_table);
}

CopySwitched
copy_switch(CopyDefinition *definition, bool hidden, MemoryContext context, CopyDefinition **current)
{
	Switch		work = {.definition = definition, .hidden = hidden, .context = context};
	MemoryContext oldcontext = MemoryContextSwitchTo(context);

	if (definition->is_populated)
	{
		replace_rows(&work, current);
		work.result.is_done = true;
	}
	else if (be_exact(&work, current))
		work.result.is_done = fill_empty(&work);
	advance_active_snapshot();
	MemoryContextSwitchTo(oldcontext);
	return work.result;
}
