/*
 * delta/copy_tick.c
 *     Copies in a tick: from the records of a remote to rows, positions and what consumers are told.
 *
 *     tick_remote, tick_plan -> copies and what is to be done with each;  tick_stage -> changes are read, and written when there are many;
 *     tick_execute -> the rest is written, tables that have been copied are switched in, and then the stream tables have their turn
 *
 * What becomes of a copy's changes follows from its state:
 *
 *     its rows follow the stream (active, or copied again without need)      they are written
 *     it is being copied                                                     they are kept, besides
 *     it is copied, and the position of this tick is not below copied_lsn    they are kept and then the copy is switched; for a
 *                                                                            first copy the load table is caught up, and
 *     the load table of a first copy has been caught up                      they are written into that until the copy is switched
 *     it has dropped its rows, which no stream table needs                   they are handed over
 *     anything else                                                          nothing: it will be copied
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "copy_positions.h"
#include "copy_reader.h"
#include "copy_record.h"
#include "copy_spool.h"
#include "copy_switch.h"
#include "copy_target.h"
#include "copy_tick.h"
#include "executor/spi.h"
#include "rows_read.h"
#include "run.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

struct CopyTick
{
	MemoryContext context;
	int64	   *failed_id;
	TakesPart	takes_part;
	bool		is_planned;
	List	   *entries;		/* of CopyEntry */
	List	   *sets;			/* of RemoteSet */
	CopyDefinition *current;	/* the copy at work in a reader */
};

/* A change set of a remote. */
typedef struct RemoteSet
{
	CopyTick   *copies;
	const RemoteMove *move;
	CopyReader *reader;
} RemoteSet;

CopyTick *
copy_tick_create(int64 *failed_id, TakesPart takes_part)
{
	CopyTick   *copies = palloc0(sizeof(CopyTick));

	copies->context = AllocSetContextCreate(CurrentMemoryContext, "pgtrickle copies", ALLOCSET_DEFAULT_SIZES);
	copies->failed_id = failed_id;
	copies->takes_part = takes_part;
	return copies;
}

static CopyEntry *
entry_of_copy(CopyTick *copies, int64 copy_id)
{
	ListCell   *lc;

	foreach(lc, copies->entries)
	{
		CopyEntry  *entry = lfirst(lc);

		if (entry->definition->copy_id == copy_id)
			return entry;
	}
	return NULL;
}

CopyEntry *
copy_tick_entry(CopyTick *copies, Oid relid)
{
	ListCell   *lc;

	foreach(lc, copies->entries)
	{
		CopyEntry  *entry = lfirst(lc);

		if (entry->definition->relid == relid)
			return entry;
	}
	return NULL;
}

/* ---- taking part ---- */

/* Consumers get what changed in this tick, if all of them are there; then nothing of it has to come back. */
static void
find_absent(CopyTick *copies, CopyEntry *entry)
{
	ListCell   *lc;

	foreach(lc, entry->definition->consumer_ids)
	{
		if (!copies->takes_part(*(int64 *) lfirst(lc)))
			entry->absent_ids = lappend(entry->absent_ids, lfirst(lc));
	}
	entry->hidden = entry->absent_ids == NIL;
}

static void
put_kept_away(CopyFeed *feed)
{
	SPI_connect();
	copy_spool_put(feed->definition->copy_id, feed->position, feed->kept);
	SPI_finish();
}

static bool
is_switch_due(const CopyTick *copies, const CopyEntry *entry)
{
	return entry->definition->is_copied && remote_move_of_set(entry->set)->position >= entry->definition->copied_lsn;
}

/* Does the load table follow the stream in place of the copy? */
static bool
is_exact(const CopyDefinition *definition)
{
	return definition->exact_xid != 0;
}

/* Decides where the changes go. */
static void
prepare(CopyTick *copies, CopyEntry *entry)
{
	CopyDefinition *definition = entry->definition;
	CopyFeed   *feed = entry->feed;
	MemoryContext oldcontext = MemoryContextSwitchTo(copies->context);
	CopyScope	scope;

	find_absent(copies, entry);
	if (definition->is_copying && !is_exact(definition))
	{
		feed->kept = makeStringInfo();
		feed->put_away = put_kept_away;
		feed->position = remote_move_of_set(entry->set)->position;
	}
	if (definition->follows || definition->passes_through || is_exact(definition))
	{
		bool		is_load = is_exact(definition);

		copies->current = definition;
		copy_scope_enter(&scope, definition);
		feed->target = copy_target_create(definition, is_load ? definition->load_table : definition->relid, false,
										  is_load || entry->hidden, !is_load && definition->consumer_ids != NIL,
										  copies->context);
		copy_scope_leave(&scope);
		copies->current = NULL;
	}
	MemoryContextSwitchTo(oldcontext);
}

static CopyEntry *
make_entry(CopyTick *copies, CopyDefinition *definition, int set)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(copies->context);
	CopyEntry  *entry = palloc0(sizeof(CopyEntry));

	entry->definition = definition;
	entry->set = set;
	entry->action = "NO_DATA";
	entry->started_at = GetCurrentTimestamp();
	entry->feed = palloc0(sizeof(CopyFeed));
	entry->feed->definition = definition;
	copies->entries = lappend(copies->entries, entry);
	MemoryContextSwitchTo(oldcontext);
	return entry;
}

void
copy_tick_add(CopyTick *copies, int64 copy_id, int set)
{
	const RemoteMove *move = remote_move_of_set(set);
	MemoryContext oldcontext = CurrentMemoryContext;
	CopyDefinition *definition;

	*copies->failed_id = copy_id;
	definition = copy_definition_load(copy_id, copies->context);
	/* every call of SPI leaves its own context behind */
	MemoryContextSwitchTo(oldcontext);
	if (definition == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("copy " INT64_FORMAT " does not exist", copy_id)));
	if (move == NULL || move->remote_id != definition->remote_id)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("change set %d is not of the remote of copy %s", set, definition->name)));
	(void) make_entry(copies, definition, set);
	*copies->failed_id = 0;
}

void
copy_tick_planned(CopyTick *copies)
{
	ListCell   *lc;

	foreach(lc, copies->entries)
	{
		*copies->failed_id = ((CopyEntry *) lfirst(lc))->definition->copy_id;
		prepare(copies, lfirst(lc));
	}
	*copies->failed_id = 0;
	copies->is_planned = true;
}

/* ---- reading ---- */

/* Those of a table of the remote, whether the applier has named them or not. */
static List *
find_feeds(void *argument, Oid remote_relid)
{
	RemoteSet  *set = argument;
	CopyTick   *copies = set->copies;
	MemoryContext oldcontext = CurrentMemoryContext;
	List	   *feeds = NIL;
	ListCell   *lc;

	SPI_connect();
	foreach(lc, copy_ids_of_remote_table(set->move->remote_id, remote_relid, copies->context))
	{
		int64		copy_id = *(int64 *) lfirst(lc);
		CopyEntry  *entry = entry_of_copy(copies, copy_id);

		if (entry == NULL)
		{
			CopyDefinition *definition = copy_definition_load(copy_id, copies->context);

			if (definition == NULL)
				continue;
			entry = make_entry(copies, definition, set->move->set);
			prepare(copies, entry);
		}
		MemoryContextSwitchTo(copies->context);
		feeds = lappend(feeds, entry->feed);
	}
	SPI_finish();
	MemoryContextSwitchTo(oldcontext);
	return feeds;
}

static RemoteSet *
set_of(CopyTick *copies, int set)
{
	MemoryContext oldcontext;
	RemoteSet  *result;
	ListCell   *lc;

	foreach(lc, copies->sets)
	{
		if (((RemoteSet *) lfirst(lc))->move->set == set)
			return lfirst(lc);
	}
	oldcontext = MemoryContextSwitchTo(copies->context);
	result = palloc0(sizeof(RemoteSet));
	result->copies = copies;
	result->move = remote_move_of_set(set);
	result->reader = copy_reader_create(find_feeds, result, copies->context);
	copies->sets = lappend(copies->sets, result);
	MemoryContextSwitchTo(oldcontext);
	return result;
}

void
copy_tick_stage(CopyTick *copies, int set, const char *data, size_t length)
{
	CopyReader *reader = set_of(copies, set)->reader;

	PG_TRY();
	{
		copy_reader_read(reader, data, length, &copies->current);
	}
	PG_CATCH();
	{
		if (copies->current != NULL)
			*copies->failed_id = copies->current->copy_id;
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (copy_reader_last(reader).xid != 0)
		remote_move_note(set, copy_reader_last(reader).xid, copy_reader_last(reader).commit_lsn);
}

/* ---- finishing ----
 *
 * A copy with storage "none" is one that drops its rows when all stream tables over it have been filled and none of them reads rows in refreshes by
 * delta.  From then on changes are handed over as they come, with their old rows from the stream.  Whatever needs the rows after all, a full refresh
 * for any reason or a new stream table, has the table copied again, and then all stream tables over it are filled again in the usual way.  A stream table
 * that does not take part in a tick cannot be told later on, so it is marked to be refreshed in full.
 */

/* Changes of a load table are none of the copy: they come with all of its rows. */
static void
finish_followed(CopyEntry *entry)
{
	const ApplyCounts *counts = &entry->feed->target->counts;
	int64		rows = counts->rows_inserted - counts->rows_deleted;

	entry->action = "KEEP";
	entry->definition->rows_copied += rows;
	if (rows != 0)
		copy_record_followed(entry->definition, rows);
}

static void
finish_target(CopyEntry *entry)
{
	CopyTarget *target = entry->feed->target;
	CopyScope	scope;

	if (target == NULL || target->changes == 0)
		return;
	copy_scope_enter(&scope, entry->definition);
	copy_target_finish(target);
	copy_scope_leave(&scope);
	advance_active_snapshot();
	if (is_exact(entry->definition))
	{
		finish_followed(entry);
		return;
	}
	entry->action = "COPY";
	entry->counts = target->counts;
	entry->net = target->net;
}

static void
finish_kept(CopyEntry *entry)
{
	CopyFeed   *feed = entry->feed;

	if (feed->kept == NULL || (feed->kept->len == 0 && feed->kept_xid == 0))
		return;
	copy_spool_put(entry->definition->copy_id, feed->position, feed->kept);
	if (feed->target == NULL)
		entry->action = "KEEP";
}

static void
finish_switch(CopyTick *copies, CopyEntry *entry)
{
	CopyDefinition *definition = entry->definition;
	CopySwitched switched;

	copy_record_lock(definition);
	switched = copy_switch(definition, entry->hidden, copies->context, &copies->current);
	copies->current = NULL;
	if (!switched.is_done)
	{
		entry->action = "KEEP";
		return;
	}
	entry->action = "SWITCH";
	entry->counts.rows_inserted += switched.counts.rows_inserted;
	entry->counts.rows_deleted += switched.counts.rows_deleted;
	entry->switched_net = switched.net;
	if (entry->net == NULL)
		entry->net = switched.net;
	else if (switched.net != NULL)
		rowset_append(entry->net, switched.net);
	if (!definition->is_populated)
		entry->full_reason = psprintf("first copy of %s", definition->name);
}

/* Rows that were copied before this tick, that all consumers have been filled with, and that none of their programs reads. */
static bool
may_drop_rows(const CopyEntry *entry)
{
	const CopyDefinition *definition = entry->definition;
	ListCell   *lc;

	if (!definition->drops_rows || !definition->is_populated || strcmp(definition->status, "ACTIVE") != 0 ||
		copy_record_is_filling(definition->copy_id))
		return false;
	foreach(lc, definition->consumer_ids)
	{
		LoadedTable *table = table_load(*(int64 *) lfirst(lc));

		if (table == NULL || program_reads_rows(table, definition->relid))
			return false;
	}
	return true;
}

static void
drop_rows(CopyTick *copies, CopyEntry *entry)
{
	CopyDefinition *definition = entry->definition;
	CopyScope	scope;
	CopyTarget *target;

	copy_scope_enter(&scope, definition);
	target = copy_target_create(definition, definition->relid, false, true, false, copies->context);
	copy_target_delete_all(target);
	copy_target_release(target);
	copy_scope_leave(&scope);
	copy_record_dropped(definition->copy_id);
	advance_active_snapshot();
}

bool
copy_tick_rows_missing(CopyTick *copies, const LoadedTable *table, bool only_ask)
{
	ListCell   *lc;

	foreach(lc, table->program->sources)
	{
		Oid			relid = ((ProgramSource *) lfirst(lc))->relid;
		bool		is_active;
		int64		copy_id = copy_record_without_rows(relid, &is_active);

		if (copy_id == 0)
			continue;
		if (only_ask)
			return true;
		*copies->failed_id = 0;
		if (!is_active)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("stream table \"%s\" has to wait until its copy has been copied again", table->qualified_name)));
		*copies->failed_id = copy_id;
		ereport(ERROR,
				(errcode(ERRCODE_COPY_NOT_EQUAL),
				 errmsg("stream table \"%s\" needs rows that its copy has dropped", table->qualified_name)));
	}
	return false;
}

static void
finish(CopyTick *copies, CopyEntry *entry)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(copies->context);

	*copies->failed_id = entry->definition->copy_id;
	finish_kept(entry);
	MemoryContextSwitchTo(copies->context);
	finish_target(entry);
	if (is_switch_due(copies, entry))
		finish_switch(copies, entry);
	copy_record(entry, remote_move_of_set(entry->set));
	MemoryContextSwitchTo(copies->context);
	if (may_drop_rows(entry))
		drop_rows(copies, entry);
	*copies->failed_id = 0;
	MemoryContextSwitchTo(oldcontext);
}

List *
copy_tick_finish(CopyTick *copies)
{
	ListCell   *lc;

	foreach(lc, copies->entries)
		finish(copies, lfirst(lc));
	return copies->entries;
}

void
copy_tick_release(CopyTick *copies)
{
	ListCell   *lc;

	foreach(lc, copies->entries)
	{
		CopyEntry  *entry = lfirst(lc);

		if (entry->switched_net != NULL)
			rowset_free(entry->switched_net);
		if (entry->feed->target != NULL)
			copy_target_release(entry->feed->target);
	}
}
