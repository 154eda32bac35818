/*
 * delta/immediate_capture.c
 *     From changed rows to deltas of sources: from transition tables to pending ones, and from versions of rows to those of a stream table that becomes
 *     IMMEDIATE.
 *
 * A table's rows count for each source that it is, or is a partition or child of; columns are found there by their names.  Stream tables that use
 * the same columns of a source share a delta.
 *
 * The old and new rows of an UPDATE come in the same order.  If they did not, nothing would be wrong: two rows that are equal in all used
 * columns cancel each other whether or not they are versions of the same one.
 */
#include "postgres.h"

#include "access/table.h"
#include "consolidate.h"
#include "immediate_capture.h"
#include "immediate_graph.h"
#include "immediate_pending.h"
#include "miscadmin.h"
#include "row_versions.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* A column that is used: in the trigger's table, and in the source. */
typedef struct CapturedColumn
{
	AttrNumber	from;
	AttrNumber	to;
	Form_pg_attribute attribute;
} CapturedColumn;

/* Where rows go. */
typedef struct Capture
{
	PendingDelta *delta;
	int			ncolumns;
	CapturedColumn *columns;
	Datum	   *values;			/* room for a row of the source; unused columns are NULL */
	bool	   *nulls;
} Capture;

static AttrNumber
column_named(TupleDesc columns, const char *name)
{
	for (AttrNumber attno = 1; attno <= columns->natts; attno++)
	{
		Form_pg_attribute attribute = TupleDescAttr(columns, attno - 1);

		if (!attribute->attisdropped && strcmp(NameStr(attribute->attname), name) == 0)
			return attno;
	}
	elog(ERROR, "column \"%s\" is missing in a partition of its table", name);
	return InvalidAttrNumber;
}

static Capture *
begin_capture(Relation relation, Relation source, PendingDelta *delta)
{
	Capture    *capture = palloc0(sizeof(Capture));
	TupleDesc	columns = RelationGetDescr(source);
	const Bitmapset *used_attnos = delta->used_attnos;
	int			attno = -1;

	capture->delta = delta;
	capture->columns = palloc(sizeof(CapturedColumn) * Max(bms_num_members(used_attnos), 1));
	capture->values = palloc0(sizeof(Datum) * columns->natts);
	capture->nulls = palloc(sizeof(bool) * columns->natts);
	memset(capture->nulls, true, columns->natts);
	while ((attno = bms_next_member(used_attnos, attno)) > 0)
	{
		CapturedColumn *column = &capture->columns[capture->ncolumns++];

		column->to = attno;
		column->attribute = TupleDescAttr(columns, attno - 1);
		column->from = RelationGetRelid(relation) == RelationGetRelid(source) ? attno
			: column_named(RelationGetDescr(relation), NameStr(column->attribute->attname));
	}
	return capture;
}

static const Bitmapset *
used_columns_of(LoadedTable *table, Oid source_relid)
{
	ListCell   *lc;

	foreach(lc, table->program->sources)
	{
		ProgramSource *source = lfirst(lc);

		if (source->relid == source_relid)
			return source->used_attnos;
	}
	return NULL;
}

static bool
has_capture(List *captures, Oid source_relid, const Bitmapset *used_attnos)
{
	ListCell   *lc;

	foreach(lc, captures)
	{
		PendingDelta *delta = ((Capture *) lfirst(lc))->delta;

		if (delta->source_relid == source_relid && bms_equal(delta->used_attnos, used_attnos))
			return true;
	}
	return false;
}

/* One per source that the table counts for, and set of columns that some stream table uses of it. */
static List *
begin_captures(Relation relation)
{
	List	   *captures = NIL;
	List	   *tables = immediate_tables();
	ListCell   *lc;

	foreach(lc, immediate_sources_of(RelationGetRelid(relation)))
	{
		Relation	source = table_open(lfirst_oid(lc), AccessShareLock);
		ListCell   *table_cell;

		foreach(table_cell, tables)
		{
			ImmediateTable *table = lfirst(table_cell);
			LoadedTable *loaded;
			const Bitmapset *used;

			if (!table->is_active || !list_member_oid(table->source_relids, lfirst_oid(lc)))
				continue;
			loaded = immediate_load(table->pgt_id);
			if (loaded == NULL)
				continue;
			used = used_columns_of(loaded, lfirst_oid(lc));
			if (!has_capture(captures, lfirst_oid(lc), used))
				captures = lappend(captures, begin_capture(relation, source,
														   pending_delta(RelationGetRelid(source), used, RelationGetDescr(source))));
		}
		table_close(source, NoLock);
	}
	return captures;
}

/* ---- rows ---- */

static void
add_row(Capture *capture, TupleTableSlot *slot, int32 weight)
{
	for (int i = 0; i < capture->ncolumns; i++)
	{
		CapturedColumn *column = &capture->columns[i];

		capture->values[column->to - 1] = slot_getattr(slot, column->from, &capture->nulls[column->to - 1]);
	}
	rowset_put_values(capture->delta->rowset, capture->values, capture->nulls, weight);
}

static bool
same_row(Capture *capture, TupleTableSlot *old_slot, TupleTableSlot *new_slot)
{
	for (int i = 0; i < capture->ncolumns; i++)
	{
		CapturedColumn *column = &capture->columns[i];
		bool		old_null;
		bool		new_null;
		Datum		old_value = slot_getattr(old_slot, column->from, &old_null);
		Datum		new_value = slot_getattr(new_slot, column->from, &new_null);

		if (!value_image_equal(column->attribute, old_value, old_null, new_value, new_null))
			return false;
	}
	return true;
}

static void
add_change(List *captures, TupleTableSlot *old_slot, TupleTableSlot *new_slot)
{
	ListCell   *lc;

	foreach(lc, captures)
	{
		Capture    *capture = lfirst(lc);

		if (old_slot != NULL && new_slot != NULL && same_row(capture, old_slot, new_slot))
			continue;
		if (old_slot != NULL)
			add_row(capture, old_slot, -1);
		if (new_slot != NULL)
			add_row(capture, new_slot, 1);
	}
}

static TupleTableSlot *
next_row(Tuplestorestate *store, TupleTableSlot *slot)
{
	if (store == NULL)
		return NULL;
	tuplestore_select_read_pointer(store, 0);
	return tuplestore_gettupleslot(store, true, false, slot) ? slot : NULL;
}

static void
capture_statement(TriggerData *trigger, List *captures)
{
	Tuplestorestate *stores[2] = {trigger->tg_oldtable, trigger->tg_newtable};
	TupleTableSlot *slots[2];
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext, "captured row", ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext;

	for (int i = 0; i < 2; i++)
	{
		slots[i] = MakeSingleTupleTableSlot(RelationGetDescr(trigger->tg_relation), &TTSOpsMinimalTuple);
		if (stores[i] == NULL)
			continue;
		tuplestore_select_read_pointer(stores[i], 0);
		tuplestore_rescan(stores[i]);
	}
	for (;;)
	{
		/* Not in row_context: a row that comes from disk is allocated here, and the slot frees it when it gets the next one. */
		TupleTableSlot *old_slot = next_row(stores[0], slots[0]);
		TupleTableSlot *new_slot = next_row(stores[1], slots[1]);

		CHECK_FOR_INTERRUPTS();
		if (old_slot == NULL && new_slot == NULL)
			break;
		oldcontext = MemoryContextSwitchTo(row_context);
		add_change(captures, old_slot, new_slot);
		MemoryContextSwitchTo(oldcontext);
		MemoryContextReset(row_context);
	}
	MemoryContextDelete(row_context);
	for (int i = 0; i < 2; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
}

static void
capture_row(TriggerData *trigger, List *captures)
{
	TupleTableSlot *first = trigger->tg_trigslot;

	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		add_change(captures, NULL, first);
	else if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		add_change(captures, first, NULL);
	else
		add_change(captures, first, trigger->tg_newslot);
}

void
immediate_capture(TriggerData *trigger)
{
	List	   *captures = begin_captures(trigger->tg_relation);

	if (captures == NIL)
		return;
	if (TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		capture_row(trigger, captures);
	else
		capture_statement(trigger, captures);
}

/* ---- versions ---- */

typedef struct VersionCapture
{
	Capture    *capture;
	MemoryContext row_context;
} VersionCapture;

static void
add_version(void *arg, TupleTableSlot *slot, int32 weight)
{
	VersionCapture *versions = arg;
	MemoryContext oldcontext = MemoryContextSwitchTo(versions->row_context);

	add_row(versions->capture, slot, weight);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(versions->row_context);
}

void
immediate_capture_versions(PendingDelta *delta, Relation relation, XLogRecPtr begin, Snapshot before, Snapshot after)
{
	Relation	source = table_open(delta->source_relid, AccessShareLock);
	VersionCapture versions;

	versions.capture = begin_capture(relation, source, delta);
	versions.row_context = AllocSetContextCreate(CurrentMemoryContext, "captured version", ALLOCSET_DEFAULT_SIZES);
	row_versions_compare(relation, begin, before, after, add_version, &versions);
	MemoryContextDelete(versions.row_context);
	table_close(source, NoLock);
}
