/*
 * delta/row_finder.c
 *     Finds rows of a table by key, by the hash of the whole row, or by looking at all of them.
 *
 * One index scan is opened and repositioned for every row, as a nested loop does.  An index entry only
 * finds candidates: when a row is looked for by its image, the image is compared.
 */
#include "row_finder.h"

#include "access/nbtree.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "consolidate.h"
#include "isolation.h"
#include "miscadmin.h"
#include "row_text.h"
#include "table_index.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

struct RowFinder
{
	MemoryContext	  context; /* for what scans keep until they end */
	TableWriter		 *writer;
	const RowLocator *locator;
	Relation		  index; /* NULL: all rows are looked at */
	IndexScanDesc	  index_scan;
	TableScanDesc	  table_scan;
	TupleTableSlot	 *slot;
	ScanKey			  equal; /* per key column: "= value", the value to be filled in */
	ScanKey			  keys; /* of the current search */
	int				  nkeys;

	Snapshot own_snapshot; /* of a transaction with one, if the writer's is newer; registered */
	bool	 passed_over; /* rows that it does not see, in the current search */

	const Datum *image_values; /* NULL: every row with the key will do */
	const bool	*image_nulls;
	Datum		*found_values; /* live layout, when columns were dropped */
	bool		*found_nulls;
	TupleDesc	 live_tupdesc;
	Datum		*key_values; /* the key of the image that is looked for */
	bool		*key_nulls;
	AttrNumber	*key_columns; /* where the key is in live layout, from 1 */
};

/* ------------------------------------------------------------------------------------------------
 * Opening and closing
 */

static void
init_equal_key(RowFinder *finder, int i)
{
	Relation index = finder->index;
	Oid		 type = index->rd_opcintype[i];
	Oid operator= get_opfamily_member(index->rd_opfamily[i], type, type, BTEqualStrategyNumber);

	if (!OidIsValid(operator))
		elog(ERROR, "missing equality operator for column %d of index \"%s\"", i + 1,
			 RelationGetRelationName(index));
	ScanKeyEntryInitialize(&finder->equal[i], 0, i + 1, BTEqualStrategyNumber, InvalidOid,
						   index->rd_indcollation[i], get_opcode(operator), (Datum) 0);
}

/* Where the key columns are when dropped columns are left out. */
static void
init_key_columns(RowFinder *finder)
{
	TupleDesc tupdesc = RelationGetDescr(finder->writer->relation);

	for (int i = 0; i < finder->locator->nkeys; i++)
	{
		AttrNumber attno = finder->locator->key_attnos[i];

		finder->key_columns[i] = 1;
		for (int before = 0; before < attno - 1; before++)
			finder->key_columns[i] += !TupleDescAttr(tupdesc, before)->attisdropped;
	}
}

static void
init_index(RowFinder *finder)
{
	TableWriter		 *writer = finder->writer;
	const RowLocator *locator = finder->locator;

	finder->index = table_index_find(writer, locator);
	finder->nkeys = locator->by_row_hash ? 1 : locator->nkeys;
	if (finder->nkeys > finder->index->rd_index->indnkeyatts)
		elog(ERROR, "index \"%s\" does not fit the key of its table",
			 RelationGetRelationName(finder->index));
	finder->equal = palloc(Max(finder->nkeys, 1) * sizeof(ScanKeyData));
	finder->keys = palloc(Max(finder->nkeys, 1) * sizeof(ScanKeyData));
	for (int i = 0; i < finder->nkeys; i++)
		init_equal_key(finder, i);
	finder->index_scan =
		compat_index_beginscan(writer->relation, finder->index, writer->snapshot, finder->nkeys);
}

static void
init_own_snapshot(RowFinder *finder)
{
	if (isolation_older_snapshot() == NULL)
		return;
	isolation_push_snapshot();
	finder->own_snapshot = RegisterSnapshot(GetActiveSnapshot());
	PopActiveSnapshot();
}

RowFinder *
row_finder_open(TableWriter *writer, const RowLocator *locator)
{
	RowFinder *finder = palloc0(sizeof(RowFinder));
	int		   nkeys = Max(locator->nkeys, 1);

	finder->context = CurrentMemoryContext;
	finder->writer = writer;
	finder->locator = locator;
	finder->slot = table_slot_create(writer->relation, NULL);
	finder->live_tupdesc = writer->live_attnos == NULL ? RelationGetDescr(writer->relation)
													   : table_live_tupdesc(writer->relation);
	finder->found_values = palloc(Max(writer->nlive, 1) * sizeof(Datum));
	finder->found_nulls = palloc(Max(writer->nlive, 1) * sizeof(bool));
	finder->key_values = palloc(nkeys * sizeof(Datum));
	finder->key_nulls = palloc(nkeys * sizeof(bool));
	finder->key_columns = palloc(nkeys * sizeof(AttrNumber));
	init_key_columns(finder);
	init_own_snapshot(finder);
	if (OidIsValid(locator->index_oid))
		init_index(finder);
	else
		finder->table_scan = table_beginscan(writer->relation, writer->snapshot, 0, NULL);
	return finder;
}

void
row_finder_close(RowFinder *finder)
{
	ExecDropSingleTupleTableSlot(finder->slot);
	if (finder->index_scan != NULL)
		index_endscan(finder->index_scan);
	if (finder->table_scan != NULL)
		table_endscan(finder->table_scan);
	if (finder->own_snapshot != NULL)
		UnregisterSnapshot(finder->own_snapshot);
}

Relation
row_finder_index(RowFinder *finder)
{
	return finder->index;
}

const AttrNumber *
row_finder_key_columns(RowFinder *finder)
{
	return finder->key_columns;
}

/* ------------------------------------------------------------------------------------------------
 * Searching
 */

/*
 * Access methods keep things from one call to the next, in whatever context is current when they first need
 * them.  So scans always run in the finder's context, not in one that the caller resets after each row.
 */
static void
start_scan(RowFinder *finder, const Datum *keys, const bool *nulls)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(finder->context);

	for (int i = 0; i < finder->nkeys; i++)
	{
		finder->keys[i] = finder->equal[i];
		if (nulls != NULL && nulls[i])
			finder->keys[i].sk_flags |= SK_ISNULL | SK_SEARCHNULL;
		else
			finder->keys[i].sk_argument = keys[i];
	}
	if (finder->index_scan != NULL)
		index_rescan(finder->index_scan, finder->keys, finder->nkeys, NULL, 0);
	else
		table_rescan(finder->table_scan, NULL);
	MemoryContextSwitchTo(oldcontext);
}

/* How many rows of a key there are at a snapshot, and where. */
typedef struct RowsSeen
{
	int64  count;
	uint64 places;
} RowsSeen;

static void
count_seen(RowsSeen *seen, TupleTableSlot *slot)
{
	seen->count++;
	seen->places += ((uint64) ItemPointerGetBlockNumber(&slot->tts_tid) << 16) +
		ItemPointerGetOffsetNumber(&slot->tts_tid);
}

static RowsSeen
rows_seen(RowFinder *finder, Snapshot snapshot)
{
	RowsSeen seen = {0};
	Relation relation = finder->writer->relation;

	if (finder->index != NULL)
	{
		IndexScanDesc scan =
			compat_index_beginscan(relation, finder->index, snapshot, finder->nkeys);

		index_rescan(scan, finder->keys, finder->nkeys, NULL, 0);
		while (index_getnext_slot(scan, ForwardScanDirection, finder->slot))
			count_seen(&seen, finder->slot);
		index_endscan(scan);
	}
	else
	{
		TableScanDesc scan = table_beginscan(relation, snapshot, 0, NULL);

		while (table_scan_getnextslot(scan, ForwardScanDirection, finder->slot))
			count_seen(&seen, finder->slot);
		table_endscan(scan);
	}
	return seen;
}

/* A transaction with one snapshot must not build upon rows that it does not see. */
static void
check_own_snapshot(RowFinder *finder)
{
	RowsSeen	  now;
	RowsSeen	  then;
	MemoryContext oldcontext;

	if (finder->own_snapshot == NULL)
		return;
	oldcontext = MemoryContextSwitchTo(finder->context);
	now = rows_seen(finder, finder->writer->snapshot);
	then = rows_seen(finder, finder->own_snapshot);
	MemoryContextSwitchTo(oldcontext);
	if (now.count != then.count || now.places != then.places)
		isolation_fail();
}

void
row_finder_start_key(RowFinder *finder, const Datum *keys, const bool *nulls)
{
	Assert(!finder->locator->by_row_hash);
	finder->image_values = NULL;
	start_scan(finder, keys, nulls);
	check_own_snapshot(finder);
}

void
row_finder_start_image(RowFinder *finder, const Datum *values, const bool *nulls)
{
	finder->image_values = values;
	finder->image_nulls = nulls;
	finder->passed_over = false;
	if (finder->locator->by_row_hash)
	{
		Datum hash = Int64GetDatum(
			(int64) row_image_hash(finder->live_tupdesc, finder->writer->nlive, values, nulls));

		start_scan(finder, &hash, NULL);
		return;
	}
	for (int i = 0; i < finder->locator->nkeys; i++)
	{
		finder->key_values[i] = values[finder->key_columns[i] - 1];
		finder->key_nulls[i] = nulls[finder->key_columns[i] - 1];
	}
	start_scan(finder, finder->key_values, finder->key_nulls);
}

/*
 * The caller's context may be one per row, while an index scan keeps what it allocates on its way (the list of
 * dead entries it met) until its end.
 */
static bool
next_candidate(RowFinder *finder)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(finder->context);
	bool		  found;

	CHECK_FOR_INTERRUPTS();
	if (finder->index_scan != NULL)
		found = index_getnext_slot(finder->index_scan, ForwardScanDirection, finder->slot);
	else
		found = table_scan_getnextslot(finder->table_scan, ForwardScanDirection, finder->slot);
	MemoryContextSwitchTo(oldcontext);
	return found;
}

static bool
candidate_has_image(RowFinder *finder)
{
	TableWriter *writer = finder->writer;

	if (writer->live_attnos == NULL)
	{
		slot_getallattrs(finder->slot);
		return row_image_equal(finder->live_tupdesc, writer->nlive, finder->slot->tts_values,
							   finder->slot->tts_isnull, finder->image_values, finder->image_nulls);
	}
	table_writer_read(writer, finder->slot, false, finder->found_values, finder->found_nulls);
	return row_image_equal(finder->live_tupdesc, writer->nlive, finder->found_values,
						   finder->found_nulls, finder->image_values, finder->image_nulls);
}

/*
 * Of several copies of a row, a transaction with one snapshot must take away one that it sees, or it would go on seeing as many as before.
 */
static bool
candidate_is_seen(RowFinder *finder)
{
	if (finder->own_snapshot == NULL ||
		table_tuple_satisfies_snapshot(finder->writer->relation, finder->slot, finder->own_snapshot))
		return true;
	finder->passed_over = true;
	return false;
}

TupleTableSlot *
row_finder_next(RowFinder *finder)
{
	while (next_candidate(finder))
	{
		if (finder->image_values == NULL || (candidate_has_image(finder) && candidate_is_seen(finder)))
			return finder->slot;
	}
	if (finder->image_values != NULL && finder->passed_over)
		isolation_fail();
	return NULL;
}

/* ------------------------------------------------------------------------------------------------
 * Not found
 */

void
row_finder_report_missing(RowFinder *finder, const char *stream_table_name, int64 missing,
						  const Datum *values, const bool *nulls, bool key_only)
{
	const RowLocator *locator = finder->locator;
	TupleDesc		  tupdesc = RelationGetDescr(finder->writer->relation);
	char			 *key = NULL;

	if (key_only)
		key = row_text_key(tupdesc, locator->nkeys, locator->key_attnos, values, nulls);
	else if (OidIsValid(locator->index_oid) && !locator->by_row_hash)
		key = row_text_key(tupdesc, locator->nkeys, locator->key_attnos, finder->key_values,
						   finder->key_nulls);

	ereport(
		ERROR,
		(errcode(ERRCODE_DATA_CORRUPTED),
		 errmsg("multiplicity of a row in stream table \"%s\" would become " INT64_FORMAT,
				stream_table_name, -missing),
		 key_only ? errdetail("Key %s.", key)
		 : key != NULL
			 ? errdetail("Key %s, row %s.", key,
						 row_text_row(finder->live_tupdesc, finder->writer->nlive, values, nulls))
			 : errdetail("Row %s.", row_text_row(finder->live_tupdesc, finder->writer->nlive,
												 values, nulls))));
}
