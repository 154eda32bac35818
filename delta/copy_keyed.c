/*
 * delta/copy_keyed.c
 *     Changes of a table with a key: the last state of every row that changed, then one look at the copy for each.
 *
 * In the order of the stream, each key is present with a row or absent; a change of the key makes the old one absent and the new one present.
 * Only the last state matters: it is compared with the row in the table, and what differs is written and handed to consumers.  A
 * row that changed a hundred times is looked up once.
 *
 * An update does not bring large values that it left alone.  They come from the state before, if there is one, else from the row in the
 * table: of the same key when rows are written, of the old key at once when the key changes.
 *
 * What the first change of a key says about the row before (it was there, or it was not) must be true of the table, or the copy does not equal
 * the remote's table, and is copied again.  Not so while it catches up: rows were loaded by snapshots that are younger than the changes, so
 * a row may be there already or be gone.  The state after all changes is right all the same, since it is set by the last of them, and rows that
 * were loaded after it did not change any more.  One case is left: a row that is in neither the table nor the stream with all its
 * values, because it was loaded by a snapshot after its key changed away and before it changed to.  It stays incomplete, waits for a change that
 * brings the value or takes the row away, and if there is none the table is copied again.
 *
 * States are kept within work_mem; when there are more, they are written and forgotten, and what comes next goes on from the table.
 */
#include "copy_target.h"

#include "access/table.h"
#include "common/hashfn.h"
#include "consolidate.h"
#include "copy_filter.h"
#include "miscadmin.h"
#include "row_finder.h"
#include "table_writer.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

typedef enum BeforeState
{
	BEFORE_UNKNOWN,
	BEFORE_PRESENT,
	BEFORE_ABSENT
} BeforeState;

/* The last state of a row. */
typedef struct KeyedRow
{
	uint32		hash;			/* of the key */
	BeforeState before;			/* what the first change said */
	bool		is_present;
	bool		is_incomplete;	/* some value is missing */
	Datum	   *values;			/* live layout; of an absent row only the key */
	bool	   *nulls;
	bool	   *missing;		/* NULL: none was, ever */
} KeyedRow;

typedef struct KeyedEntry
{
	KeyedRow   *row;
	uint32		hash;
	char		status;
} KeyedEntry;

/* Equality and hash of one key column, as its type and collation have them. */
typedef struct KeyColumn
{
	int			column;			/* in live layout, from 0 */
	FmgrInfo   *equal;
	FmgrInfo   *hash;			/* NULL: the type has none */
	Oid			collation;
} KeyColumn;

static bool keys_equal(void *keyed, const KeyedRow *row1, const KeyedRow *row2);

#define SH_PREFIX keyed
#define SH_ELEMENT_TYPE KeyedEntry
#define SH_KEY_TYPE KeyedRow *
#define SH_KEY row
#define SH_HASH_KEY(tb, key) ((key)->hash)
#define SH_EQUAL(tb, a, b) keys_equal((tb)->private_data, a, b)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, entry) ((entry)->hash)
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

typedef struct Keyed
{
	MemoryContext context;		/* of everything below but this; reset when rows have been written */
	keyed_hash *rows;
	KeyColumn  *keys;
	int			nkeys;
	int			ncolumns;
} Keyed;

/* ------------------------------------------------------------------------------------------------
 * Keys
 */

static bool
keys_equal(void *private_data, const KeyedRow *row1, const KeyedRow *row2)
{
	Keyed	   *keyed = private_data;

	for (int i = 0; i < keyed->nkeys; i++)
	{
		KeyColumn  *key = &keyed->keys[i];

		if (!DatumGetBool(FunctionCall2Coll(key->equal, key->collation, row1->values[key->column], row2->values[key->column])))
			return false;
	}
	return true;
}

static uint32
hash_key(Keyed *keyed, const Datum *values)
{
	uint32		hash = 0;

	for (int i = 0; i < keyed->nkeys; i++)
	{
		KeyColumn  *key = &keyed->keys[i];

		if (key->hash != NULL)
			hash = hash_combine(hash, DatumGetUInt32(FunctionCall1Coll(key->hash, key->collation, values[key->column])));
	}
	return hash;
}

static void
init_key_column(CopyTarget *target, KeyColumn *key, int column)
{
	Form_pg_attribute att = TupleDescAttr(target->columns, column);
	TypeCacheEntry *type = lookup_type_cache(att->atttypid, TYPECACHE_EQ_OPR_FINFO | TYPECACHE_HASH_PROC_FINFO);

	if (!OidIsValid(type->eq_opr_finfo.fn_oid))
		elog(ERROR, "type %u has no equality", att->atttypid);
	key->column = column;
	key->equal = &type->eq_opr_finfo;
	key->hash = OidIsValid(type->hash_proc_finfo.fn_oid) ? &type->hash_proc_finfo : NULL;
	key->collation = att->attcollation;
}

static void
make_rows(Keyed *keyed)
{
	keyed->rows = keyed_create(keyed->context, 64, keyed);
}

void
copy_keyed_init(CopyTarget *target)
{
	Keyed	   *keyed = palloc0(sizeof(Keyed));

	keyed->context = AllocSetContextCreate(target->context, "pgtrickle changed rows", ALLOCSET_DEFAULT_SIZES);
	keyed->nkeys = target->locator.nkeys;
	keyed->ncolumns = target->columns->natts;
	keyed->keys = palloc0((keyed->nkeys + 1) * sizeof(KeyColumn));
	for (int i = 0; i < keyed->nkeys; i++)
		init_key_column(target, &keyed->keys[i], target->key_columns[i]);
	make_rows(keyed);
	target->keyed = keyed;
}

/* ------------------------------------------------------------------------------------------------
 * From changes to rows
 */

/* A row with room for its values, in the context of all rows. */
static KeyedRow *
new_row(Keyed *keyed)
{
	KeyedRow   *row = palloc0(sizeof(KeyedRow));

	row->values = palloc0((keyed->ncolumns + 1) * sizeof(Datum));
	row->nulls = palloc((keyed->ncolumns + 1) * sizeof(bool));
	memset(row->nulls, true, (keyed->ncolumns + 1) * sizeof(bool));
	return row;
}

static void
set_missing(Keyed *keyed, KeyedRow *row, int column)
{
	if (row->missing == NULL)
		row->missing = palloc0((keyed->ncolumns + 1) * sizeof(bool));
	row->missing[column] = true;
	row->is_incomplete = true;
}

/* A value of an update that was not changed may be in the old row. */
static const TupleValue *
find_value(const CopyChange *change, int source)
{
	const TupleValue *value = &change->new_values[source];

	if (value->kind == VALUE_UNCHANGED && change->has_old_row &&
		(change->old_values[source].kind == VALUE_PRESENT || change->old_values[source].kind == VALUE_NULL))
		return &change->old_values[source];
	return value;
}

static void
report_lacking(CopyTarget *target, const BoundColumn *column, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_COPY_STREAM_LACKS),
			 errmsg("cannot follow table %s: %s", target->definition->remote_name, what),
			 errdetail("Column \"%s\".", NameStr(TupleDescAttr(target->columns, column->target)->attname))));
}

static const BoundColumn *
find_bound(CopyTarget *target, const CopyChange *change, int column)
{
	for (int i = 0; i < change->nbound; i++)
	{
		if (change->bound[i].target == column)
			return &change->bound[i];
	}
	elog(ERROR, "a key column of copy %s is not copied", target->definition->name);
	return NULL;
}

/* The new row of an insert or update. */
static KeyedRow *
decode_new_row(CopyTarget *target, const CopyChange *change)
{
	Keyed	   *keyed = target->keyed;
	KeyedRow   *row = new_row(keyed);

	row->is_present = true;
	for (int i = 0; i < change->nbound; i++)
	{
		BoundColumn *column = (BoundColumn *) &change->bound[i];
		const TupleValue *value = find_value(change, column->source);

		if (value->kind == VALUE_NOT_LOGGED)
			report_lacking(target, column, "a value is too large for the stream, or cannot be sent");
		if (value->kind == VALUE_UNCHANGED)
			set_missing(keyed, row, column->target);
		row->nulls[column->target] = value->kind != VALUE_PRESENT;
		if (value->kind == VALUE_PRESENT)
			row->values[column->target] = value_decode(&column->decoder, value->bytes, change->scratch);
	}
	for (int i = 0; i < keyed->nkeys; i++)
	{
		if (row->nulls[keyed->keys[i].column])
			report_lacking(target, find_bound(target, change, keyed->keys[i].column), "a value of its key is not there");
	}
	row->hash = hash_key(keyed, row->values);
	return row;
}

/* The key of the old row, as an absent row. */
static KeyedRow *
decode_old_key(CopyTarget *target, const CopyChange *change)
{
	Keyed	   *keyed = target->keyed;
	KeyedRow   *row = new_row(keyed);

	for (int i = 0; i < keyed->nkeys; i++)
	{
		BoundColumn *column = (BoundColumn *) find_bound(target, change, keyed->keys[i].column);
		const TupleValue *value = &change->old_values[column->source];

		if (value->kind != VALUE_PRESENT)
			report_lacking(target, column, "the replica identity does not have its key");
		row->nulls[column->target] = false;
		row->values[column->target] = value_decode(&column->decoder, value->bytes, change->scratch);
	}
	row->hash = hash_key(keyed, row->values);
	return row;
}

/* The bytes of the key are the same in the old and the new row, or there is no old row, which says so. */
static bool
key_is_unchanged(CopyTarget *target, const CopyChange *change)
{
	Keyed	   *keyed = target->keyed;

	if (!change->has_old_row)
		return true;
	for (int i = 0; i < keyed->nkeys; i++)
	{
		const BoundColumn *column = find_bound(target, change, keyed->keys[i].column);
		const TupleValue *old_value = &change->old_values[column->source];
		const TupleValue *new_value = find_value(change, column->source);

		if (old_value == new_value)
			continue;
		if (old_value->kind != VALUE_PRESENT || new_value->kind != VALUE_PRESENT ||
			old_value->bytes.length != new_value->bytes.length ||
			memcmp(old_value->bytes.data, new_value->bytes.data, old_value->bytes.length) != 0)
			return false;
	}
	return true;
}

/* The state of the row with this key.  One that is new gets `row` itself, and is said to be new. */
static KeyedEntry *
find_state(Keyed *keyed, KeyedRow *row, bool *is_new)
{
	bool		found;
	KeyedEntry *entry = keyed_insert(keyed->rows, row, &found);

	*is_new = !found;
	if (!found)
		entry->row = row;
	return entry;
}

/* Takes over what the state before knew. */
static void
complete_from(Keyed *keyed, KeyedRow *row, const KeyedRow *before)
{
	if (!row->is_incomplete)
		return;
	row->is_incomplete = false;
	for (int i = 0; i < keyed->ncolumns; i++)
	{
		if (!row->missing[i])
			continue;
		if (before->missing != NULL && before->missing[i])
		{
			row->is_incomplete = true;
			continue;
		}
		row->values[i] = before->values[i];
		row->nulls[i] = before->nulls[i];
		row->missing[i] = false;
	}
}

static void
check_before(CopyTarget *target, KeyedRow *row, bool is_there, bool should_be)
{
	if (is_there == should_be || target->catches_up)
		return;
	copy_target_report(target, should_be ? "lacks a row that was changed" : "has a row already that was inserted",
					   row->values, row->nulls);
}

static void
set_present(CopyTarget *target, KeyedRow *row, BeforeState before)
{
	bool		is_new;
	KeyedEntry *entry;

	entry = find_state(target->keyed, row, &is_new);
	if (is_new)
	{
		row->before = before;
		return;
	}
	check_before(target, row, entry->row->is_present, before == BEFORE_PRESENT);
	if (entry->row->is_present)
		complete_from(target->keyed, row, entry->row);
	row->before = entry->row->before;
	entry->row = row;
}

/* Returns the state before; NULL: it is in the table, if anywhere. */
static KeyedRow *
set_absent(CopyTarget *target, KeyedRow *key)
{
	bool		is_new;
	KeyedEntry *entry = find_state(target->keyed, key, &is_new);
	KeyedRow   *before = is_new ? NULL : entry->row;

	if (is_new)
		key->before = BEFORE_PRESENT;
	else
	{
		check_before(target, key, before->is_present, true);
		key->before = before->before;
		entry->row = key;
	}
	return before;
}

/* ------------------------------------------------------------------------------------------------
 * Looking into the table
 */

typedef struct KeyedWork
{
	CopyTarget *target;
	Relation	relation;
	TableWriter *writer;
	RowFinder  *finder;
	Datum	   *found_values;
	bool	   *found_nulls;
	KeyedRow  **rows;			/* to be written, in the order of the index */
	int			nrows;
	KeyedRow   *wanted;			/* to be completed */
} KeyedWork;

static void
open_table(KeyedWork *work, int64 rows_expected)
{
	CopyTarget *target = work->target;

	work->relation = table_open(target->relid, NoLock);
	work->writer = table_writer_open(work->relation, rows_expected);
	work->finder = row_finder_open(work->writer, &target->locator);
	work->found_values = palloc0((target->columns->natts + 1) * sizeof(Datum));
	work->found_nulls = palloc0((target->columns->natts + 1) * sizeof(bool));
}

static void
close_table(KeyedWork *work)
{
	row_finder_close(work->finder);
	table_writer_close(work->writer);
	copy_target_count(work->target, table_writer_counts(work->writer));
	table_close(work->relation, NoLock);
}

static TupleTableSlot *
find_row(KeyedWork *work, KeyedRow *row, bool flatten)
{
	Keyed	   *keyed = work->target->keyed;
	Datum		keys[INDEX_MAX_KEYS];
	TupleTableSlot *found;

	for (int i = 0; i < keyed->nkeys; i++)
		keys[i] = row->values[keyed->keys[i].column];
	row_finder_start_key(work->finder, keys, NULL);
	found = row_finder_next(work->finder);
	if (found != NULL)
		table_writer_read(work->writer, found, flatten, work->found_values, work->found_nulls);
	return found;
}

/* Takes missing values from the row of another key, which stays as it is: the row before its key changed. */
static void
complete_from_table(CopyTarget *target, KeyedRow *row, KeyedRow *key)
{
	KeyedWork	work = {.target = target};
	KeyedRow	before = {0};

	open_table(&work, 0);
	if (find_row(&work, key, true) != NULL)
	{
		before.values = work.found_values;
		before.nulls = work.found_nulls;
		complete_from(target->keyed, row, &before);
		for (int i = 0; i < target->columns->natts; i++)
		{
			Form_pg_attribute att = TupleDescAttr(target->columns, i);

			/* what is stored in the page goes when the page does */
			if (!row->nulls[i] && row->values[i] == work.found_values[i])
				row->values[i] = datumCopy(row->values[i], att->attbyval, att->attlen);
		}
	}
	close_table(&work);
}

/* ------------------------------------------------------------------------------------------------
 * Writing
 */

static bool
rows_equal(CopyTarget *target, KeyedWork *work, KeyedRow *row)
{
	return row_image_equal(target->columns, target->columns->natts, row->values, row->nulls,
						   work->found_values, work->found_nulls);
}

static void
write_found(KeyedWork *work, KeyedRow *row, TupleTableSlot *found)
{
	CopyTarget *target = work->target;

	if (row->before == BEFORE_ABSENT && !target->catches_up)
		copy_target_report(target, "has a row already that was inserted", row->values, row->nulls);
	if (row->is_present && row->is_incomplete)
	{
		KeyedRow	stored = {.values = work->found_values, .nulls = work->found_nulls};

		complete_from(target->keyed, row, &stored);
	}
	if (row->is_present && (target->filter == NULL || copy_filter_passes(target->filter, row->values, row->nulls)))
	{
		if (rows_equal(target, work, row))
			return;
		table_writer_update(work->writer, found, row->values, row->nulls);
		copy_target_put_net(target, work->found_values, work->found_nulls, -1);
		copy_target_put_net(target, row->values, row->nulls, 1);
		return;
	}
	table_writer_delete(work->writer, found);
	copy_target_put_net(target, work->found_values, work->found_nulls, -1);
}

/* With a filter, what was there before may have been left out. */
static void
write_not_found(KeyedWork *work, KeyedRow *row)
{
	CopyTarget *target = work->target;

	if (row->before == BEFORE_PRESENT && !target->catches_up && target->filter == NULL)
		copy_target_report(target, "lacks a row that was changed", row->values, row->nulls);
	if (!row->is_present)
		return;
	if (row->is_incomplete)
	{
		if (!target->catches_up)
			copy_target_report(target, "lacks a large value of a row that was changed", row->values, row->nulls);
		return;
	}
	if (target->filter != NULL && !copy_filter_passes(target->filter, row->values, row->nulls))
		return;
	table_writer_insert(work->writer, row->values, row->nulls, 1);
	copy_target_put_net(target, row->values, row->nulls, 1);
}

static int
compare_rows(const void *a, const void *b, void *argument)
{
	KeyedWork  *work = ((void **) argument)[0];
	KeyOrder   *order = ((void **) argument)[1];
	KeyColumn  *keys = work->target->keyed->keys;
	Datum		keys1[INDEX_MAX_KEYS];
	Datum		keys2[INDEX_MAX_KEYS];
	static const bool none_null[INDEX_MAX_KEYS] = {false};

	for (int i = 0; i < order->nkeys; i++)
	{
		keys1[i] = (*(KeyedRow *const *) a)->values[keys[i].column];
		keys2[i] = (*(KeyedRow *const *) b)->values[keys[i].column];
	}
	return key_order_compare(order, keys1, none_null, keys2, none_null);
}

/* In the order of the index: each of its pages is touched once. */
static void
collect_rows(KeyedWork *work)
{
	Keyed	   *keyed = work->target->keyed;
	keyed_iterator iterator;
	KeyedEntry *entry;
	void	   *argument[2] = {work, key_order_of_index(row_finder_index(work->finder), keyed->nkeys)};

	work->rows = MemoryContextAllocHuge(CurrentMemoryContext, (keyed->rows->members + 1) * sizeof(KeyedRow *));
	keyed_start_iterate(keyed->rows, &iterator);
	while ((entry = keyed_iterate(keyed->rows, &iterator)) != NULL)
		work->rows[work->nrows++] = entry->row;
	qsort_arg(work->rows, work->nrows, sizeof(KeyedRow *), compare_rows, argument);
}

static void
write_rows(void *argument)
{
	KeyedWork  *work = argument;
	MemoryContext oldcontext = CurrentMemoryContext;
	MemoryContext row_context = AllocSetContextCreate(oldcontext, "pgtrickle written row", ALLOCSET_DEFAULT_SIZES);

	open_table(work, work->target->keyed->rows->members);
	collect_rows(work);
	for (int i = 0; i < work->nrows; i++)
	{
		TupleTableSlot *found;

		CHECK_FOR_INTERRUPTS();
		found = find_row(work, work->rows[i], false);
		MemoryContextSwitchTo(row_context);
		if (found != NULL)
			write_found(work, work->rows[i], found);
		else
			write_not_found(work, work->rows[i]);
		MemoryContextSwitchTo(oldcontext);
		MemoryContextReset(row_context);
	}
	close_table(work);
	MemoryContextDelete(row_context);
}

/* A row that waits for a value moves on into the next lot. */
static KeyedRow *
copy_row(CopyTarget *target, const KeyedRow *row)
{
	Keyed	   *keyed = target->keyed;
	KeyedRow   *result = new_row(keyed);

	*result = (KeyedRow) {.hash = row->hash, .before = BEFORE_UNKNOWN, .is_present = true, .is_incomplete = true,
		.values = result->values, .nulls = result->nulls};
	for (int i = 0; i < keyed->ncolumns; i++)
	{
		Form_pg_attribute att = TupleDescAttr(target->columns, i);

		result->nulls[i] = row->nulls[i];
		if (row->missing[i])
			set_missing(keyed, result, i);
		else if (!row->nulls[i])
			result->values[i] = datumCopy(row->values[i], att->attbyval, att->attlen);
	}
	return result;
}

static void
flush(CopyTarget *target)
{
	Keyed	   *keyed = target->keyed;
	MemoryContext spent = keyed->context;
	MemoryContext work_context;
	MemoryContext oldcontext;
	KeyedWork	work = {.target = target};

	if (keyed->rows->members == 0)
		return;
	work_context = AllocSetContextCreate(target->context, "pgtrickle write rows", ALLOCSET_DEFAULT_SIZES);
	oldcontext = MemoryContextSwitchTo(work_context);
	table_write_tagged(target->hidden, write_rows, &work);

	keyed->context = AllocSetContextCreate(target->context, "pgtrickle changed rows", ALLOCSET_DEFAULT_SIZES);
	make_rows(keyed);
	MemoryContextSwitchTo(keyed->context);
	for (int i = 0; i < work.nrows; i++)
	{
		bool		is_new;

		if (work.rows[i]->is_present && work.rows[i]->is_incomplete)
			(void) find_state(keyed, copy_row(target, work.rows[i]), &is_new);
	}
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(work_context);
	MemoryContextDelete(spent);
}

/* ------------------------------------------------------------------------------------------------
 * Changes
 */

static void
take_update(CopyTarget *target, const CopyChange *change)
{
	KeyedRow   *row = decode_new_row(target, change);
	KeyedRow   *key;
	KeyedRow   *before;

	if (key_is_unchanged(target, change))
	{
		set_present(target, row, BEFORE_PRESENT);
		return;
	}
	key = decode_old_key(target, change);
	if (row->hash == key->hash && keys_equal(target->keyed, row, key))
	{
		/* other bytes, but equal: 1.0 and 1.00 */
		set_present(target, row, BEFORE_PRESENT);
		return;
	}
	before = set_absent(target, key);
	if (before != NULL && before->is_present)
		complete_from(target->keyed, row, before);
	if (row->is_incomplete && (before == NULL || before->is_present))
		complete_from_table(target, row, key);
	set_present(target, row, BEFORE_ABSENT);
}

void
copy_keyed_change(CopyTarget *target, const CopyChange *change)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(target->keyed->context);

	if (change->kind == KIND_DELETE && !change->has_old_row)
		ereport(ERROR,
				(errcode(ERRCODE_COPY_STREAM_LACKS),
				 errmsg("cannot follow table %s: a row was deleted without its key", target->definition->remote_name),
				 errhint("Give it a replica identity.")));
	switch (change->kind)
	{
		case KIND_INSERT:
			set_present(target, decode_new_row(target, change), BEFORE_ABSENT);
			break;
		case KIND_UPDATE:
			take_update(target, change);
			break;
		default:
			(void) set_absent(target, decode_old_key(target, change));
			break;
	}
	MemoryContextSwitchTo(oldcontext);
	if (MemoryContextMemAllocated(target->keyed->context, true) > (Size) work_mem * 1024)
		flush(target);
}

/* All rows are going, whatever their state. */
void
copy_keyed_forget(CopyTarget *target)
{
	Keyed	   *keyed = target->keyed;

	MemoryContextDelete(keyed->context);
	keyed->context = AllocSetContextCreate(target->context, "pgtrickle changed rows", ALLOCSET_DEFAULT_SIZES);
	make_rows(keyed);
}

void
copy_keyed_finish(CopyTarget *target)
{
	keyed_iterator iterator;
	KeyedEntry *entry;

	flush(target);
	keyed_start_iterate(target->keyed->rows, &iterator);
	entry = keyed_iterate(target->keyed->rows, &iterator);
	if (entry != NULL)
		copy_target_report(target, "lacks a large value of a row whose key changed while it was copied",
						   entry->row->values, entry->row->nulls);
}
