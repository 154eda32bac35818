/*
 * delta/replace.c
 *     Replaces the rows of some keys by recomputed ones, writing only what differs.
 *
 * Keys and rows are read side by side in the order of the index.  For each key the table's rows are
 * fetched once, and matched with the new rows by image: what matches stays.  The rest is paired into updates,
 * then deleted, and inserted at the end, as apply.c does it (and for the same reasons).
 *
 * The rows of one key are held in memory.
 */
#include "apply.h"

#include "access/htup_details.h"
#include "compat.h"
#include "consolidate.h"
#include "key_order.h"
#include "miscadmin.h"
#include "row_finder.h"
#include "table_index.h"
#include "table_writer.h"

/* A recomputed row of the present key. */
typedef struct NewRow
{
	uint64		 hash;
	MinimalTuple tuple;
	int64		 copies; /* how many are still missing in the table */
} NewRow;

/* The rows of the present key: the recomputed ones, and the table's that none of them equals. */
typedef struct KeyRows
{
	MemoryContext context; /* of the tuples, reset after each key */
	NewRow		 *new_rows; /* in the order of their hashes */
	int			  new_count;
	int			  new_capacity;
	HeapTuple	 *old_rows;
	int			  old_count;
	int			  old_capacity;
} KeyRows;

typedef struct Replace
{
	Relation		  relation;
	const RowLocator *locator;
	Rowset			 *keys;
	Rowset			 *rows;
	Rowset			 *out; /* may be NULL */

	TableWriter	   *writer;
	RowFinder	   *finder;
	KeyOrder	   *order;
	bool			pair_updates;
	Rowset		   *inserts; /* left for the end */
	TupleDesc		live_tupdesc;
	KeyRows			key_rows;
	TupleTableSlot *old_slot; /* a row of the table */
	TupleTableSlot *new_slot; /* a recomputed row */
	Datum		   *old_values; /* the table's row in live layout */
	bool		   *old_nulls;
} Replace;

/* ------------------------------------------------------------------------------------------------
 * Collecting the rows of one key
 */

static void
add_new_row(Replace *replace, TupleTableSlot *slot)
{
	KeyRows *rows = &replace->key_rows;
	int32	 weight = rowset_weight(replace->rows, slot);

	if (weight < 0)
		elog(ERROR, "rowset \"%s\" of recomputed rows has negative weights", replace->rows->name);
	if (rows->new_count == rows->new_capacity)
	{
		rows->new_capacity *= 2;
		rows->new_rows = repalloc_huge(rows->new_rows, rows->new_capacity * sizeof(NewRow));
	}

	MemoryContext oldcontext = MemoryContextSwitchTo(rows->context);

	slot_getallattrs(slot);
	rows->new_rows[rows->new_count++] =
		(NewRow){.hash = row_image_hash(replace->live_tupdesc, replace->writer->nlive,
										slot->tts_values, slot->tts_isnull),
				 .tuple = ExecCopySlotMinimalTuple(slot),
				 .copies = weight};
	MemoryContextSwitchTo(oldcontext);
}

static void
add_old_row(Replace *replace, TupleTableSlot *found)
{
	KeyRows *rows = &replace->key_rows;

	if (rows->old_count == rows->old_capacity)
	{
		rows->old_capacity *= 2;
		rows->old_rows = repalloc_huge(rows->old_rows, rows->old_capacity * sizeof(HeapTuple));
	}

	MemoryContext oldcontext = MemoryContextSwitchTo(rows->context);

	rows->old_rows[rows->old_count++] = ExecCopySlotHeapTuple(found);
	MemoryContextSwitchTo(oldcontext);
}

static TupleTableSlot *
new_row_slot(Replace *replace, NewRow *row)
{
	ExecStoreMinimalTuple(row->tuple, replace->new_slot, false);
	slot_getallattrs(replace->new_slot);
	return replace->new_slot;
}

/* Puts a row of the table into old_slot, and into old_values for `out`. */
static TupleTableSlot *
old_row_slot(Replace *replace, HeapTuple tuple)
{
	ExecStoreHeapTuple(tuple, replace->old_slot, false);
	replace->old_slot->tts_tableOid = RelationGetRelid(replace->relation);
	table_writer_read(replace->writer, replace->old_slot, true, replace->old_values,
					  replace->old_nulls);
	return replace->old_slot;
}

static int
compare_new_rows(const void *a, const void *b)
{
	uint64 hash1 = ((const NewRow *) a)->hash;
	uint64 hash2 = ((const NewRow *) b)->hash;

	return (hash1 > hash2) - (hash1 < hash2);
}

/* The first new row whose hash is not below `hash`. */
static int
first_with_hash(KeyRows *rows, uint64 hash)
{
	int low = 0;
	int high = rows->new_count;

	while (low < high)
	{
		int middle = low + (high - low) / 2;

		if (rows->new_rows[middle].hash < hash)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Uses up a new row with the image in old_values.  False: there is none. */
static bool
match_new_row(Replace *replace)
{
	KeyRows *rows = &replace->key_rows;
	int		 nlive = replace->writer->nlive;
	uint64	 hash =
		row_image_hash(replace->live_tupdesc, nlive, replace->old_values, replace->old_nulls);

	for (int i = first_with_hash(rows, hash); i < rows->new_count && rows->new_rows[i].hash == hash;
		 i++)
	{
		if (rows->new_rows[i].copies == 0)
			continue;

		TupleTableSlot *slot = new_row_slot(replace, &rows->new_rows[i]);

		if (row_image_equal(replace->live_tupdesc, nlive, replace->old_values, replace->old_nulls,
							slot->tts_values, slot->tts_isnull))
		{
			rows->new_rows[i].copies--;
			return true;
		}
	}
	return false;
}

static void
collect_old_rows(Replace *replace, const Datum *keys, const bool *nulls)
{
	KeyRows		   *rows = &replace->key_rows;
	TupleTableSlot *found;

	qsort(rows->new_rows, rows->new_count, sizeof(NewRow), compare_new_rows);
	row_finder_start_key(replace->finder, keys, nulls);
	while ((found = row_finder_next(replace->finder)) != NULL)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(rows->context);

		table_writer_read(replace->writer, found, true, replace->old_values, replace->old_nulls);
		MemoryContextSwitchTo(oldcontext);
		if (!match_new_row(replace))
			add_old_row(replace, found);
	}
}

/* ------------------------------------------------------------------------------------------------
 * Writing the rows of one key
 */

static void
put_out(Replace *replace, const Datum *values, const bool *nulls, int32 weight)
{
	if (replace->out != NULL)
		rowset_put_values(replace->out, values, nulls, weight);
}

static void
write_old_row(Replace *replace, HeapTuple tuple, NewRow *replacement)
{
	TupleTableSlot *old_slot = old_row_slot(replace, tuple);

	put_out(replace, replace->old_values, replace->old_nulls, -1);
	if (replacement == NULL)
		table_writer_delete(replace->writer, old_slot);
	else
	{
		TupleTableSlot *new_slot = new_row_slot(replace, replacement);

		put_out(replace, new_slot->tts_values, new_slot->tts_isnull, 1);
		table_writer_update(replace->writer, old_slot, new_slot->tts_values, new_slot->tts_isnull);
		replacement->copies--;
	}
}

static void
write_key(Replace *replace)
{
	KeyRows		 *rows = &replace->key_rows;
	MemoryContext oldcontext = MemoryContextSwitchTo(rows->context);
	int			  next_new = 0;

	for (int i = 0; i < rows->old_count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		while (next_new < rows->new_count && rows->new_rows[next_new].copies == 0)
			next_new++;
		write_old_row(
			replace, rows->old_rows[i],
			replace->pair_updates && next_new < rows->new_count ? &rows->new_rows[next_new] : NULL);
	}
	for (; next_new < rows->new_count; next_new++)
	{
		NewRow *row = &rows->new_rows[next_new];

		CHECK_FOR_INTERRUPTS();
		if (row->copies > 0)
			rowset_put_slot_weighted(replace->inserts, new_row_slot(replace, row), row->copies);
	}
	MemoryContextSwitchTo(oldcontext);
	rows->new_count = rows->old_count = 0;
	ExecClearTuple(replace->old_slot);
	ExecClearTuple(replace->new_slot);
	MemoryContextReset(rows->context);
}

static void
insert_rest(Replace *replace)
{
	TupleTableSlot *slot = rowset_make_slot(replace->inserts);

	rowset_rewind(replace->inserts);
	while (rowset_next(replace->inserts, slot))
	{
		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		table_writer_insert(replace->writer, slot->tts_values, slot->tts_isnull,
							rowset_weight(replace->inserts, slot));
		if (replace->out != NULL)
			rowset_put_slot(replace->out, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
}

/* ------------------------------------------------------------------------------------------------
 * The whole
 */

/* Adds the recomputed rows of a key and moves on to the first row of another one. */
static TupleTableSlot *
collect_new_rows(Replace *replace, KeyedRows *rows, TupleTableSlot *row, const Datum *keys,
				 const bool *nulls)
{
	int order = 0;

	while (row != NULL && (order = key_order_compare(replace->order, keyed_rows_keys(rows),
													 keyed_rows_key_nulls(rows), keys, nulls)) == 0)
	{
		CHECK_FOR_INTERRUPTS();
		add_new_row(replace, row);
		row = keyed_rows_next(rows);
	}
	if (row != NULL && order < 0)
		elog(ERROR, "rowset \"%s\" has a row whose key is not to be replaced", replace->rows->name);
	return row;
}

static void
replace_all(Replace *replace)
{
	int				nkeys = replace->order->nkeys;
	AttrNumber	   *attnos = palloc(Max(nkeys, 1) * sizeof(AttrNumber));
	Datum		   *keys = palloc(Max(nkeys, 1) * sizeof(Datum));
	bool		   *nulls = palloc(Max(nkeys, 1) * sizeof(bool));
	TupleTableSlot *key_slot = rowset_make_slot(replace->keys);
	TupleTableSlot *key;

	for (int i = 0; i < nkeys; i++)
		attnos[i] = i + 1;

	KeyedRows *in_order = keyed_rows_begin(replace->keys, replace->order, attnos);
	KeyedRows *rows =
		keyed_rows_begin(replace->rows, replace->order, row_finder_key_columns(replace->finder));
	TupleTableSlot *row = keyed_rows_next(rows);

	while ((key = keyed_rows_next(in_order)) != NULL)
	{
		/* A key given twice would find its rows unexpected the second time. */
		if (!TTS_EMPTY(key_slot) &&
			key_order_compare(replace->order, keys, nulls, keyed_rows_keys(in_order),
							  keyed_rows_key_nulls(in_order)) == 0)
			continue;
		ExecCopySlot(key_slot, key);
		for (int i = 0; i < nkeys; i++)
			keys[i] = slot_getattr(key_slot, i + 1, &nulls[i]);

		row = collect_new_rows(replace, rows, row, keys, nulls);
		collect_old_rows(replace, keys, nulls);
		write_key(replace);
	}
	if (row != NULL)
		elog(ERROR, "rowset \"%s\" has a row whose key is not to be replaced", replace->rows->name);
	ExecDropSingleTupleTableSlot(key_slot);
	keyed_rows_end(rows);
	keyed_rows_end(in_order);
}

static void
init_replace(Replace *replace)
{
	const RowLocator *locator = replace->locator;

	replace->writer = table_writer_open(replace->relation, replace->rows->row_count);
	replace->finder = row_finder_open(replace->writer, locator);
	if (locator->by_row_hash || (row_finder_index(replace->finder) == NULL && locator->nkeys > 0))
		elog(ERROR, "rows of table \"%s\" cannot be replaced by key",
			 RelationGetRelationName(replace->relation));
	if (replace->rows->tupdesc->natts - 1 != replace->writer->nlive ||
		replace->keys->tupdesc->natts - 1 != locator->nkeys ||
		(replace->out != NULL && replace->out->tupdesc->natts - 1 != replace->writer->nlive))
		elog(ERROR, "rowset \"%s\" does not fit table \"%s\"", replace->rows->name,
			 RelationGetRelationName(replace->relation));
	replace->order = key_order_of_index(row_finder_index(replace->finder), locator->nkeys);
	replace->pair_updates =
		!table_index_other_is_unique(replace->writer, row_finder_index(replace->finder));
	replace->inserts = rowset_create("inserts", replace->rows->tupdesc);
	replace->live_tupdesc = table_live_tupdesc(replace->relation);
	replace->old_slot =
		MakeSingleTupleTableSlot(RelationGetDescr(replace->relation), &TTSOpsHeapTuple);
	replace->new_slot = rowset_make_slot(replace->rows);
	replace->old_values = palloc(replace->writer->nlive * sizeof(Datum));
	replace->old_nulls = palloc(replace->writer->nlive * sizeof(bool));
	replace->key_rows.context = AllocSetContextCreate(
		CurrentMemoryContext, "pgtrickle rows of a key", ALLOCSET_DEFAULT_SIZES);
	replace->key_rows.new_capacity = replace->key_rows.old_capacity = 4;
	replace->key_rows.new_rows = palloc(replace->key_rows.new_capacity * sizeof(NewRow));
	replace->key_rows.old_rows = palloc(replace->key_rows.old_capacity * sizeof(HeapTuple));
}

static void
write_replacement(void *argument)
{
	Replace *replace = argument;

	init_replace(replace);
	replace_all(replace);
	insert_rest(replace);
	rowset_free(replace->inserts);
	ExecDropSingleTupleTableSlot(replace->old_slot);
	ExecDropSingleTupleTableSlot(replace->new_slot);
	row_finder_close(replace->finder);
	table_writer_close(replace->writer);
}

ApplyCounts
replace_by_key(Relation relation, const RowLocator *locator, Rowset *keys, Rowset *rows,
			   bool hidden, Rowset *out, const char *stream_table_name)
{
	ApplyCounts counts = {0};

	if (keys->row_count == 0 && rows->row_count == 0)
		return counts;

	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "pgtrickle replace", ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	Replace		  replace = {
			  .relation = relation, .locator = locator, .keys = keys, .rows = rows, .out = out};

	table_write_tagged(hidden, write_replacement, &replace);
	counts = table_writer_counts(replace.writer);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(context);
	return counts;
}
