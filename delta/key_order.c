/*
 * delta/key_order.c
 *     Rows of a rowset in the order of an index.
 *
 * A handful of rows is sorted in place: starting the server's tuplesort costs more than a refresh of one
 * row may take.  The others go through tuplesort, which also bounds the memory.
 */
#include "key_order.h"

#include "access/htup_details.h"
#include "access/nbtree.h"
#include "catalog/pg_index.h"
#include "compat.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/tuplesort.h"

typedef struct KeyedRow
{
	MinimalTuple tuple;
	Datum		*keys; /* pointing into the tuple */
	bool		*nulls;
} KeyedRow;

struct KeyedRows
{
	MemoryContext	  context; /* everything here */
	Rowset			 *rowset;
	KeyOrder		 *order;
	const AttrNumber *attnos;
	TupleTableSlot	 *slot;
	Datum			 *keys; /* of the current row */
	bool			 *nulls;

	/* few rows */
	KeyedRow *sorted;
	int		  count;
	int		  next;

	/* many rows */
	Tuplesortstate *sort;
};

/* ------------------------------------------------------------------------------------------------
 * The order
 */

static void
init_key(KeyOrder *order, Relation index, int i)
{
	SortSupport comparator = &order->comparators[i];
	bool		descending = (index->rd_indoption[i] & INDOPTION_DESC) != 0;
	Oid			type = index->rd_opcintype[i];
	Oid			operator= get_opfamily_member(index->rd_opfamily[i], type, type,
									  descending ? BTGreaterStrategyNumber : BTLessStrategyNumber);

	if (!OidIsValid(operator))
		elog(ERROR, "missing ordering operator for column %d of index \"%s\"", i + 1,
			 RelationGetRelationName(index));

	order->operators[i] = operator;
	order->collations[i] = index->rd_indcollation[i];
	order->nulls_first[i] = (index->rd_indoption[i] & INDOPTION_NULLS_FIRST) != 0;

	comparator->ssup_cxt = CurrentMemoryContext;
	comparator->ssup_collation = order->collations[i];
	comparator->ssup_nulls_first = order->nulls_first[i];
	comparator->ssup_attno = i + 1;
	PrepareSortSupportFromOrderingOp(operator, comparator);
}

KeyOrder *
key_order_of_index(Relation index, int nkeys)
{
	KeyOrder *order = palloc0(sizeof(KeyOrder));

	Assert(nkeys == 0 || nkeys <= index->rd_index->indnkeyatts);
	order->nkeys = nkeys;
	order->comparators = palloc0(Max(nkeys, 1) * sizeof(SortSupportData));
	order->operators = palloc(Max(nkeys, 1) * sizeof(Oid));
	order->collations = palloc(Max(nkeys, 1) * sizeof(Oid));
	order->nulls_first = palloc(Max(nkeys, 1) * sizeof(bool));
	for (int i = 0; i < nkeys; i++)
		init_key(order, index, i);
	return order;
}

int
key_order_compare(KeyOrder *order, const Datum *keys1, const bool *nulls1, const Datum *keys2,
				  const bool *nulls2)
{
	for (int i = 0; i < order->nkeys; i++)
	{
		int result =
			ApplySortComparator(keys1[i], nulls1[i], keys2[i], nulls2[i], &order->comparators[i]);

		if (result != 0)
			return result;
	}
	return 0;
}

/* ------------------------------------------------------------------------------------------------
 * Few rows
 */

static void
read_key(KeyedRows *rows, Datum *keys, bool *nulls)
{
	for (int i = 0; i < rows->order->nkeys; i++)
		keys[i] = slot_getattr(rows->slot, rows->attnos[i], &nulls[i]);
}

static int
compare_keyed_rows(const void *a, const void *b, void *arg)
{
	const KeyedRow *row1 = a;
	const KeyedRow *row2 = b;

	return key_order_compare(arg, row1->keys, row1->nulls, row2->keys, row2->nulls);
}

static void
sort_in_place(KeyedRows *rows)
{
	int	 nkeys = rows->order->nkeys;
	bool stays = rowset_in_memory(rows->rowset);

	rows->sorted = palloc(rows->rowset->row_count * sizeof(KeyedRow));
	rowset_rewind(rows->rowset);
	while (rowset_next(rows->rowset, rows->slot))
	{
		KeyedRow *row = &rows->sorted[rows->count++];

		row->tuple = ((MinimalTupleTableSlot *) rows->slot)->mintuple;
		if (!stays)
		{
			row->tuple = compat_copy_minimal_tuple(row->tuple);
			ExecStoreMinimalTuple(row->tuple, rows->slot, false);
		}
		row->keys = palloc(Max(nkeys, 1) * sizeof(Datum));
		row->nulls = palloc(Max(nkeys, 1) * sizeof(bool));
		read_key(rows, row->keys, row->nulls);
	}
	qsort_arg(rows->sorted, rows->count, sizeof(KeyedRow), compare_keyed_rows, rows->order);
}

/* ------------------------------------------------------------------------------------------------
 * Many rows
 */

static void
sort_many(KeyedRows *rows)
{
	KeyOrder *order = rows->order;

	rows->sort = tuplesort_begin_heap(
		rows->rowset->tupdesc, order->nkeys, unconstify(AttrNumber *, rows->attnos),
		order->operators, order->collations, order->nulls_first, work_mem, NULL, TUPLESORT_NONE);
	rowset_rewind(rows->rowset);
	while (rowset_next(rows->rowset, rows->slot))
	{
		CHECK_FOR_INTERRUPTS();
		tuplesort_puttupleslot(rows->sort, rows->slot);
	}
	tuplesort_performsort(rows->sort);
}

/* ------------------------------------------------------------------------------------------------
 * Reading
 */

KeyedRows *
keyed_rows_begin(Rowset *rowset, KeyOrder *order, const AttrNumber *attnos)
{
	MemoryContext context = AllocSetContextCreate(
		CurrentMemoryContext, "pgtrickle rows in key order", ALLOCSET_SMALL_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	KeyedRows	 *rows = palloc0(sizeof(KeyedRows));

	rows->context = context;
	rows->rowset = rowset;
	rows->order = order;
	rows->attnos = attnos;
	rows->slot = rowset_make_slot(rowset);
	rows->keys = palloc(Max(order->nkeys, 1) * sizeof(Datum));
	rows->nulls = palloc(Max(order->nkeys, 1) * sizeof(bool));
	if (order->nkeys == 0) /* all rows have the same key */
		rowset_rewind(rowset);
	else if (rowset->row_count <= KEYED_ROWS_FEW)
		sort_in_place(rows);
	else
		sort_many(rows);
	MemoryContextSwitchTo(oldcontext);
	return rows;
}

TupleTableSlot *
keyed_rows_next(KeyedRows *rows)
{
	if (rows->sort != NULL)
	{
		if (!tuplesort_gettupleslot(rows->sort, true, false, rows->slot, NULL))
			return NULL;
	}
	else if (rows->order->nkeys == 0)
	{
		if (!rowset_next(rows->rowset, rows->slot))
			return NULL;
	}
	else
	{
		if (rows->next == rows->count)
			return NULL;
		ExecStoreMinimalTuple(rows->sorted[rows->next++].tuple, rows->slot, false);
	}
	read_key(rows, rows->keys, rows->nulls);
	return rows->slot;
}

const Datum *
keyed_rows_keys(KeyedRows *rows)
{
	return rows->keys;
}

const bool *
keyed_rows_key_nulls(KeyedRows *rows)
{
	return rows->nulls;
}

void
keyed_rows_end(KeyedRows *rows)
{
	ExecDropSingleTupleTableSlot(rows->slot);
	if (rows->sort != NULL)
		tuplesort_end(rows->sort);
	MemoryContextDelete(rows->context);
}
