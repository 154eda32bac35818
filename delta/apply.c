/*
 * delta/apply.c
 *     Writes a delta into its table: deletes, then updates, then inserts.
 *
 *     delta --consolidate--> net rows --in key order--> delete / update, collect inserts --> insert
 *
 * What has a key and does not fit in memory, or is few rows, is put in key order as it is, since that brings equal rows together anyway; each key's
 * rows are consolidated by themselves.
 *
 * A delta without deletes needs none of that and is inserted as it comes.  With a key, rows of equal key
 * are paired so that a changed row is updated in place, which leaves indexes alone when no indexed column
 * changes.  Not so when the table has a further unique index: then two updates could get into each
 * other's way for a moment where deletes followed by inserts cannot.
 *
 * Snapshot: the caller's active one, brought up to the present command (table_writer_open).
 */
#include "apply.h"

#include "access/htup_details.h"
#include "compat.h"
#include "consolidate.h"
#include "fill_progress.h"
#include "key_order.h"
#include "miscadmin.h"
#include "row_finder.h"
#include "table_index.h"
#include "table_writer.h"

/* Everything one call of apply_delta needs, so that it fits through table_write_tagged. */
typedef struct Apply
{
	Relation		  relation;
	const RowLocator *locator;
	Rowset			 *delta;
	TableWriter		 *writer;
	RowFinder		 *finder;
	bool			  pair_updates;
	bool			  is_net; /* no two rows of the delta have the same image */
	Rowset			 *inserts; /* rows with a key, collected; NULL: none yet */
} Apply;

/* A row of the group that is being written. */
typedef struct GroupRow
{
	MinimalTuple tuple;
	int64		 copies; /* how many are still to be written */
	uint64		 hash; /* of the image, while a group is consolidated */
} GroupRow;

typedef struct GroupRows
{
	GroupRow	   *rows;
	int				count;
	int				capacity;
	TupleTableSlot *slot; /* for taking one of them apart */
} GroupRows;

static int
compare_group_rows(const void *a, const void *b)
{
	uint64 hash1 = ((const GroupRow *) a)->hash;
	uint64 hash2 = ((const GroupRow *) b)->hash;

	return (hash1 > hash2) - (hash1 < hash2);
}

/* The rows of one key. */
typedef struct KeyGroup
{
	MemoryContext context; /* of this group's tuples, reset between groups */
	GroupRows	  old_rows;
	GroupRows	  new_rows;
	Datum		 *keys;
	bool		 *nulls;
} KeyGroup;

/* ------------------------------------------------------------------------------------------------
 * Deletes and inserts of single rows
 */

/* Deletes as many rows with the image in `slot` as `copies` says. */
static void
delete_copies(Apply *apply, TupleTableSlot *slot, int64 copies)
{
	slot_getallattrs(slot);
	row_finder_start_image(apply->finder, slot->tts_values, slot->tts_isnull);
	for (; copies > 0; copies--)
	{
		TupleTableSlot *found = row_finder_next(apply->finder);

		if (found == NULL)
			row_finder_report_missing(apply->finder, RelationGetRelationName(apply->relation),
									  copies, slot->tts_values, slot->tts_isnull, false);
		table_writer_delete(apply->writer, found);
	}
}

static void
insert_copies(Apply *apply, TupleTableSlot *slot, int64 copies)
{
	slot_getallattrs(slot);
	table_writer_insert(apply->writer, slot->tts_values, slot->tts_isnull, copies);
}

/* Inserts the rows of `rowset` with a positive weight, in its order. */
static void
insert_all(Apply *apply, Rowset *rowset)
{
	TupleTableSlot *slot = rowset_make_slot(rowset);

	rowset_rewind(rowset);
	while (rowset_next(rowset, slot))
	{
		int32 weight = rowset_weight(rowset, slot);

		CHECK_FOR_INTERRUPTS();
		fill_progress_count_row();
		if (weight > 0)
			insert_copies(apply, slot, weight);
	}
	ExecDropSingleTupleTableSlot(slot);
}

/* ------------------------------------------------------------------------------------------------
 * Rows without a key: deletes in the order of the row hash
 */

typedef struct HashedRow
{
	int64		 hash; /* signed, as the index orders it */
	MinimalTuple tuple;
	int64		 copies;
} HashedRow;

typedef struct HashedRows
{
	MemoryContext	context;
	HashedRow	   *rows;
	int				count;
	int				capacity;
	Size			bytes;
	TupleTableSlot *slot;
} HashedRows;

static int
compare_hashed_rows(const void *a, const void *b)
{
	int64 hash1 = ((const HashedRow *) a)->hash;
	int64 hash2 = ((const HashedRow *) b)->hash;

	return (hash1 > hash2) - (hash1 < hash2);
}

static void
delete_hashed_rows(Apply *apply, HashedRows *hashed)
{
	qsort(hashed->rows, hashed->count, sizeof(HashedRow), compare_hashed_rows);
	for (int i = 0; i < hashed->count; i++)
	{
		ExecStoreMinimalTuple(hashed->rows[i].tuple, hashed->slot, false);
		delete_copies(apply, hashed->slot, hashed->rows[i].copies);
	}
	ExecClearTuple(hashed->slot);
	MemoryContextReset(hashed->context);
	hashed->count = 0;
	hashed->bytes = 0;
}

static void
add_hashed_row(HashedRows *hashed, TupleTableSlot *slot, int32 weight, bool stays)
{
	MinimalTuple  tuple = ((MinimalTupleTableSlot *) slot)->mintuple;
	MemoryContext oldcontext;

	if (hashed->count == hashed->capacity)
	{
		hashed->capacity *= 2;
		hashed->rows = repalloc_huge(hashed->rows, hashed->capacity * sizeof(HashedRow));
	}
	oldcontext = MemoryContextSwitchTo(hashed->context);
	slot_getallattrs(slot);
	hashed->rows[hashed->count++] =
		(HashedRow){.hash = (int64) row_image_hash(slot->tts_tupleDescriptor,
												   slot->tts_tupleDescriptor->natts - 1,
												   slot->tts_values, slot->tts_isnull),
					.tuple = stays ? tuple : compat_copy_minimal_tuple(tuple),
					.copies = -(int64) weight};
	MemoryContextSwitchTo(oldcontext);
	hashed->bytes += sizeof(HashedRow) + (stays ? 0 : tuple->t_len);
}

/* As many rows at a time as work_mem holds. */
static void
delete_by_hash(Apply *apply, Rowset *net)
{
	TupleTableSlot *slot = rowset_make_slot(net);
	bool			stays = rowset_in_memory(net);
	HashedRows		hashed = {.capacity = 64, .slot = rowset_make_slot(net)};

	hashed.context = AllocSetContextCreate(CurrentMemoryContext, "pgtrickle rows to delete",
										   ALLOCSET_DEFAULT_SIZES);
	hashed.rows = palloc(hashed.capacity * sizeof(HashedRow));
	rowset_rewind(net);
	while (rowset_next(net, slot))
	{
		int32 weight = rowset_weight(net, slot);

		CHECK_FOR_INTERRUPTS();
		if (weight > 0)
			continue;
		if (hashed.bytes >= (Size) work_mem * 1024 || hashed.count == PG_INT32_MAX / 2)
			delete_hashed_rows(apply, &hashed);
		add_hashed_row(&hashed, slot, weight, stays);
	}
	delete_hashed_rows(apply, &hashed);
	pfree(hashed.rows);
	MemoryContextDelete(hashed.context);
	ExecDropSingleTupleTableSlot(hashed.slot);
	ExecDropSingleTupleTableSlot(slot);
}

/* ------------------------------------------------------------------------------------------------
 * Rows with a key
 */

static void
init_group_rows(GroupRows *rows, Rowset *net)
{
	rows->capacity = 4;
	rows->count = 0;
	rows->rows = palloc(rows->capacity * sizeof(GroupRow));
	rows->slot = rowset_make_slot(net);
}

static void
add_group_row(GroupRows *rows, MinimalTuple tuple, int64 copies)
{
	if (rows->count == rows->capacity)
	{
		rows->capacity *= 2;
		rows->rows = repalloc_huge(rows->rows, rows->capacity * sizeof(GroupRow));
	}
	rows->rows[rows->count++] = (GroupRow){.tuple = tuple, .copies = copies};
}

static TupleTableSlot *
group_row_slot(GroupRows *rows, int i)
{
	ExecStoreMinimalTuple(rows->rows[i].tuple, rows->slot, false);
	slot_getallattrs(rows->slot);
	return rows->slot;
}

/* Finds a row with the old image and writes the new one in its place. */
static void
update_copies(Apply *apply, TupleTableSlot *old_slot, TupleTableSlot *new_slot, int64 copies)
{
	row_finder_start_image(apply->finder, old_slot->tts_values, old_slot->tts_isnull);
	for (; copies > 0; copies--)
	{
		TupleTableSlot *found = row_finder_next(apply->finder);

		if (found == NULL)
			row_finder_report_missing(apply->finder, RelationGetRelationName(apply->relation),
									  copies, old_slot->tts_values, old_slot->tts_isnull, false);
		table_writer_update(apply->writer, found, new_slot->tts_values, new_slot->tts_isnull);
	}
}

/*
 * Turns old and new rows of the group into updates as long as there are both.  Each old image is looked up once
 * only: a finder started again would come across the rows that this delta has already changed.
 */
static void
pair_rows(Apply *apply, KeyGroup *group)
{
	int next_new = 0;

	for (int i = 0; i < group->old_rows.count && next_new < group->new_rows.count; i++)
	{
		GroupRow *old_row = &group->old_rows.rows[i];
		GroupRow *new_row = &group->new_rows.rows[next_new];

		if (old_row->copies > 1)
			continue; /* left to be deleted */
		update_copies(apply, group_row_slot(&group->old_rows, i),
					  group_row_slot(&group->new_rows, next_new), 1);
		old_row->copies = 0;
		if (--new_row->copies == 0)
			next_new++;
	}
}

static bool
have_same_image(KeyGroup *group, MinimalTuple tuple1, MinimalTuple tuple2)
{
	TupleTableSlot *slot1 = group->old_rows.slot;
	TupleTableSlot *slot2 = group->new_rows.slot;

	ExecStoreMinimalTuple(tuple1, slot1, false);
	ExecStoreMinimalTuple(tuple2, slot2, false);
	slot_getallattrs(slot1);
	slot_getallattrs(slot2);
	return row_image_equal(slot1->tts_tupleDescriptor, slot1->tts_tupleDescriptor->natts - 1,
						   slot1->tts_values, slot1->tts_isnull, slot2->tts_values,
						   slot2->tts_isnull);
}

/* Old and new rows together, copies of old ones negative, in the order of their images' hashes. */
static GroupRow *
rows_by_hash(KeyGroup *group)
{
	int		  count = group->old_rows.count + group->new_rows.count;
	GroupRow *rows = MemoryContextAllocHuge(group->context, count * sizeof(GroupRow));

	count = 0;
	for (int i = 0; i < group->old_rows.count; i++)
	{
		rows[count] = group->old_rows.rows[i];
		rows[count++].copies *= -1;
	}
	for (int i = 0; i < group->new_rows.count; i++)
		rows[count++] = group->new_rows.rows[i];
	for (int i = 0; i < count; i++)
	{
		TupleTableSlot *slot = group->old_rows.slot;

		ExecStoreMinimalTuple(rows[i].tuple, slot, false);
		slot_getallattrs(slot);
		rows[i].hash = row_image_hash(slot->tts_tupleDescriptor, slot->tts_tupleDescriptor->natts - 1,
									  slot->tts_values, slot->tts_isnull);
	}
	qsort(rows, count, sizeof(GroupRow), compare_group_rows);
	return rows;
}

/* One row per image: what came and went cancels. */
static void
consolidate_group(KeyGroup *group)
{
	int		  count = group->old_rows.count + group->new_rows.count;
	GroupRow *rows;
	int		  first = 0; /* with the present hash */

	if (count < 2 ||
		(group->old_rows.count == 1 && group->new_rows.count == 1 &&
		 !have_same_image(group, group->old_rows.rows[0].tuple, group->new_rows.rows[0].tuple)))
		return;
	rows = rows_by_hash(group);
	group->old_rows.count = group->new_rows.count = 0;
	for (int i = 1; i < count; i++)
	{
		if (rows[i].hash != rows[first].hash)
			first = i;
		for (int earlier = first; earlier < i; earlier++)
		{
			if (!have_same_image(group, rows[earlier].tuple, rows[i].tuple))
				continue;
			rows[earlier].copies += rows[i].copies;
			rows[i].copies = 0;
			break;
		}
	}
	for (int i = 0; i < count; i++)
	{
		if (rows[i].copies != 0)
			add_group_row(rows[i].copies < 0 ? &group->old_rows : &group->new_rows, rows[i].tuple,
						  rows[i].copies < 0 ? -rows[i].copies : rows[i].copies);
	}
}

static void
write_group(Apply *apply, KeyGroup *group, Rowset *net)
{
	if (!apply->is_net)
		consolidate_group(group);
	if (apply->pair_updates)
		pair_rows(apply, group);
	for (int i = 0; i < group->old_rows.count; i++)
	{
		if (group->old_rows.rows[i].copies > 0)
			delete_copies(apply, group_row_slot(&group->old_rows, i),
						  group->old_rows.rows[i].copies);
	}
	for (int i = 0; i < group->new_rows.count; i++)
	{
		if (group->new_rows.rows[i].copies == 0)
			continue;
		if (apply->inserts == NULL)
			apply->inserts = rowset_create("inserts", net->tupdesc);
		rowset_put_slot_weighted(apply->inserts, group_row_slot(&group->new_rows, i),
								 group->new_rows.rows[i].copies);
	}
	group->old_rows.count = group->new_rows.count = 0;
	ExecClearTuple(group->old_rows.slot);
	ExecClearTuple(group->new_rows.slot);
	MemoryContextReset(group->context);
}

/* Adds the current row to the group.  The first one's copy also keeps the key's values. */
static void
add_to_group(KeyGroup *group, KeyOrder *order, const AttrNumber *attnos, TupleTableSlot *slot,
			 int32 weight)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(group->context);
	bool		  first = group->old_rows.count + group->new_rows.count == 0;
	MinimalTuple  tuple = ExecCopySlotMinimalTuple(slot);
	GroupRows	 *rows = weight < 0 ? &group->old_rows : &group->new_rows;

	MemoryContextSwitchTo(oldcontext);
	add_group_row(rows, tuple, weight < 0 ? -(int64) weight : weight);
	if (first)
	{
		group_row_slot(rows, 0);
		for (int i = 0; i < order->nkeys; i++)
			group->keys[i] = slot_getattr(rows->slot, attnos[i], &group->nulls[i]);
	}
}

/* Deletes and updates in key order; what is to be inserted is collected. */
static void
write_by_key(Apply *apply, Rowset *net)
{
	int				  nkeys = apply->locator->nkeys;
	KeyOrder		 *order = key_order_of_index(row_finder_index(apply->finder), nkeys);
	const AttrNumber *attnos = row_finder_key_columns(apply->finder);
	KeyedRows		 *rows = keyed_rows_begin(net, order, attnos);
	KeyGroup		  group;
	TupleTableSlot	 *slot;

	group.context = AllocSetContextCreate(CurrentMemoryContext, "pgtrickle rows of a key",
										  ALLOCSET_DEFAULT_SIZES);
	group.keys = palloc(Max(nkeys, 1) * sizeof(Datum));
	group.nulls = palloc(Max(nkeys, 1) * sizeof(bool));
	init_group_rows(&group.old_rows, net);
	init_group_rows(&group.new_rows, net);

	while ((slot = keyed_rows_next(rows)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		if (group.old_rows.count + group.new_rows.count > 0 &&
			key_order_compare(order, group.keys, group.nulls, keyed_rows_keys(rows),
							  keyed_rows_key_nulls(rows)) != 0)
			write_group(apply, &group, net);
		add_to_group(&group, order, attnos, slot, rowset_weight(net, slot));
	}
	write_group(apply, &group, net);

	keyed_rows_end(rows);
	ExecDropSingleTupleTableSlot(group.old_rows.slot);
	ExecDropSingleTupleTableSlot(group.new_rows.slot);
	MemoryContextDelete(group.context);
}

/* ------------------------------------------------------------------------------------------------
 * One row that changes
 */

static bool
have_same_key(Apply *apply, TupleTableSlot *slot1, TupleTableSlot *slot2)
{
	const AttrNumber *attnos = row_finder_key_columns(apply->finder);

	for (int i = 0; i < apply->locator->nkeys; i++)
	{
		int at = attnos[i] - 1;

		if (!value_image_equal(TupleDescAttr(slot1->tts_tupleDescriptor, at), slot1->tts_values[at],
							   slot1->tts_isnull[at], slot2->tts_values[at], slot2->tts_isnull[at]))
			return false;
	}
	return true;
}

/*
 * Is the delta one row of a group that took the place of another, as most often after a statement on one row?  Then it is written here, without putting
 * rows in order.
 */
static bool
write_one_update(Apply *apply, Rowset *net)
{
	TupleTableSlot *slots[2] = {rowset_make_slot(net), rowset_make_slot(net)};
	bool			is_one = apply->pair_updates && rowset_in_memory(net) && net->row_count == 2;

	rowset_rewind(net);
	for (int i = 0; i < 2 && is_one; i++)
	{
		is_one = rowset_next(net, slots[i]);
		if (is_one)
			slot_getallattrs(slots[i]);
	}
	is_one = is_one && rowset_weight(net, slots[0]) == -1 && rowset_weight(net, slots[1]) == 1 &&
		have_same_key(apply, slots[0], slots[1]);
	if (is_one && !row_image_equal(net->tupdesc, net->tupdesc->natts - 1, slots[0]->tts_values, slots[0]->tts_isnull,
								   slots[1]->tts_values, slots[1]->tts_isnull))
		update_copies(apply, slots[0], slots[1], 1);
	ExecDropSingleTupleTableSlot(slots[0]);
	ExecDropSingleTupleTableSlot(slots[1]);
	return is_one;
}

/* ------------------------------------------------------------------------------------------------
 * The whole
 */

/* With a key, the rows need not be net. */
static void
write_rows(Apply *apply, Rowset *net)
{
	if (row_finder_index(apply->finder) != NULL && !apply->locator->by_row_hash)
	{
		if (write_one_update(apply, net))
			return;
		write_by_key(apply, net);
		if (apply->inserts == NULL)
			return;
		insert_all(apply, apply->inserts);
		rowset_free(apply->inserts);
	}
	else
	{
		delete_by_hash(apply, net);
		insert_all(apply, net);
	}
}

static void
write_delta(void *argument)
{
	Apply *apply = argument;

	apply->writer = table_writer_open(apply->relation, apply->delta->row_count);
	if (apply->delta->has_deletes)
	{
		apply->finder = row_finder_open(apply->writer, apply->locator);
		apply->pair_updates =
			!table_index_other_is_unique(apply->writer, row_finder_index(apply->finder));
		write_rows(apply, apply->delta);
		row_finder_close(apply->finder);
	}
	else
		insert_all(apply, apply->delta);
	table_writer_close(apply->writer);
}

/* A copy with the relation's attribute numbers, dropped columns included. */
static Rowset *
net_delta_for_consumers(Relation relation, Rowset *rows)
{
	TupleDesc		columns = RelationGetDescr(relation);
	char			name[NAMEDATALEN];
	Datum		   *values = palloc(columns->natts * sizeof(Datum));
	bool		   *nulls = palloc(columns->natts * sizeof(bool));
	TupleTableSlot *slot = rowset_make_slot(rows);

	snprintf(name, sizeof(name), "__pgt_delta_%u", RelationGetRelid(relation));

	Rowset *net = rowset_create(name, rowset_tupdesc_for(columns));

	rowset_rewind(rows);
	while (rowset_next(rows, slot))
	{
		int live = 0;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		for (int i = 0; i < columns->natts; i++)
		{
			nulls[i] = TupleDescAttr(columns, i)->attisdropped || slot->tts_isnull[live];
			values[i] = nulls[i] ? (Datum) 0 : slot->tts_values[live];
			live += !TupleDescAttr(columns, i)->attisdropped;
		}
		rowset_put_values(net, values, nulls, rowset_weight(rows, slot));
	}
	ExecDropSingleTupleTableSlot(slot);
	return net;
}

static void
check_row_type(Relation relation, Rowset *rows)
{
	TupleDesc live = table_live_tupdesc(relation);

	if (live->natts != rows->tupdesc->natts)
		elog(ERROR, "rowset \"%s\" has %d columns, table \"%s\" %d", rows->name,
			 rows->tupdesc->natts - 1, RelationGetRelationName(relation), live->natts - 1);
	for (int i = 0; i < live->natts; i++)
	{
		Form_pg_attribute have = TupleDescAttr(rows->tupdesc, i);
		Form_pg_attribute want = TupleDescAttr(live, i);

		/* Other names for the same representation (varchar and text, domains) do no harm. */
		if (have->atttypid != want->atttypid &&
			(have->attlen != want->attlen || have->attbyval != want->attbyval))
			elog(ERROR, "column %d of rowset \"%s\" does not fit table \"%s\"", i + 1, rows->name,
				 RelationGetRelationName(relation));
	}
}

/* Will its rows be written in key order, and is that less work than consolidating all of them before? */
static bool
is_sorted_by_key(const RowLocator *locator, Rowset *delta)
{
	return OidIsValid(locator->index_oid) && !locator->by_row_hash && locator->nkeys > 0 &&
		(!rowset_in_memory(delta) || delta->row_count <= KEYED_ROWS_FEW);
}

ApplyCounts
apply_delta(Relation relation, const RowLocator *locator, Rowset *delta, bool hidden, Rowset **net)
{
	ApplyCounts	  counts = {0};
	MemoryContext callers_context = CurrentMemoryContext;
	MemoryContext context =
		AllocSetContextCreate(callers_context, "pgtrickle apply", ALLOCSET_DEFAULT_SIZES);

	MemoryContextSwitchTo(context);
	check_row_type(relation, delta);

	bool	as_it_is = !delta->has_deletes || (net == NULL && is_sorted_by_key(locator, delta));
	Rowset *rows = as_it_is ? delta : consolidate(delta, "net");

	if (rows->row_count > 0)
	{
		Apply apply = {.relation = relation,
					   .locator = locator,
					   .delta = rows,
					   .is_net = rows != delta};

		table_write_tagged(hidden, write_delta, &apply);
		counts = table_writer_counts(apply.writer);
	}
	MemoryContextSwitchTo(callers_context);
	if (net != NULL)
		*net = net_delta_for_consumers(relation, rows);
	if (rows != delta)
		rowset_free(rows);
	MemoryContextDelete(context);
	return counts;
}

int64
apply_fill(Relation relation, Rowset *rows, bool hidden)
{
	RowLocator none = {0};

	if (rows->has_deletes)
		elog(ERROR, "rowset \"%s\" for a fill has negative weights", rows->name);
	return apply_delta(relation, &none, rows, hidden, NULL).rows_inserted;
}
