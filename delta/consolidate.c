/*
 * delta/consolidate.c
 *     Reduces a rowset to one row per image, weights added, zeros gone.
 *
 * Rows are collected in the order in which their images first occur, with a hash table on top once there
 * are more than a few.  Rows that are in memory already (a rowset that did not spill) are only pointed
 * at.  A rowset that did spill is copied, and when the net rows outgrow work_mem they and the rest of
 * the input are dealt out by hash to as many smaller rowsets as will fit, each of which is consolidated by itself.
 * Sorting would do as well; dealing out needs no comparisons and keeps the rows as they are.
 *
 * The hash only finds candidates: row_image.c decides what is equal.
 */
#include "consolidate.h"

#include "access/htup_details.h"
#include "common/hashfn.h"
#include "compat.h"
#include "miscadmin.h"

#define NET_ROW_BYTES_MIN 64 /* what a small row takes in memory, with everything around it */
#define LINEAR_ROWS_MAX 8 /* so few distinct rows are compared with each other */
#define PART_BITS 6
#define PARTS_MAX (1 << PART_BITS)
#define PART_MEMORY_KB_MIN 64 /* what a tuplestore takes at least */

typedef struct NetRow
{
	MinimalTuple tuple; /* the first row with this image; its own weight is still in it */
	uint64		 hash;
	int64		 weight;
} NetRow;

typedef struct NetIndexEntry
{
	uint32 row; /* in NetTable.rows */
	uint32 hash;
	char   status;
} NetIndexEntry;

typedef struct net_index_hash net_index_hash;

/* The net rows so far. */
typedef struct NetTable
{
	MemoryContext	context;
	TupleDesc		tupdesc; /* with the weight */
	NetRow		   *rows;
	uint32			count;
	uint32			capacity;
	uint32			rows_expected; /* for making the index as large as it will have to be */
	net_index_hash *index; /* NULL while there are few */
	Size			bytes; /* of tuples that were copied */
	TupleTableSlot *slot1; /* for comparing two rows column by column */
	TupleTableSlot *slot2;
} NetTable;

static bool net_rows_equal(NetTable *table, uint32 row1, uint32 row2);

#define SH_PREFIX net_index
#define SH_ELEMENT_TYPE NetIndexEntry
#define SH_KEY_TYPE uint32
#define SH_KEY row
#define SH_HASH_KEY(tb, key) ((uint32) ((NetTable *) (tb)->private_data)->rows[key].hash)
#define SH_EQUAL(tb, a, b) net_rows_equal((NetTable *) (tb)->private_data, a, b)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

static void consolidate_into(Rowset *input, Rowset *output, int level);

Rowset *
consolidate(Rowset *input, const char *name)
{
	Rowset *output = rowset_create(name, input->tupdesc);

	if (input->row_count > 0)
		consolidate_into(input, output, 0);
	return output;
}

/* ------------------------------------------------------------------------------------------------
 * The table of net rows
 */

static NetTable *
net_table_create(TupleDesc tupdesc, uint32 rows_expected)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pgtrickle consolidate",
												  ALLOCSET_DEFAULT_SIZES);
	NetTable	 *table = MemoryContextAllocZero(context, sizeof(NetTable));

	table->context = context;
	table->tupdesc = tupdesc;
	table->rows_expected = rows_expected;
	table->capacity = 2 * LINEAR_ROWS_MAX;
	table->rows = MemoryContextAlloc(context, table->capacity * sizeof(NetRow));
	return table;
}

/*
 * Rows made in the same way have the same bytes, so comparing those first saves most of the work.  The weight
 * stands at the very end of a row, because it is the last column, fixed in width and never NULL.
 */
static bool
tuples_same_bytes(MinimalTuple tuple1, MinimalTuple tuple2)
{
	const Size start = offsetof(MinimalTupleData, t_infomask2);

	return tuple1->t_len == tuple2->t_len &&
		   memcmp((char *) tuple1 + start, (char *) tuple2 + start,
				  tuple1->t_len - start - sizeof(int32)) == 0;
}

static bool
tuples_same_image(NetTable *table, MinimalTuple tuple1, MinimalTuple tuple2)
{
	if (table->slot1 == NULL)
	{
		table->slot1 = MakeSingleTupleTableSlot(table->tupdesc, &TTSOpsMinimalTuple);
		table->slot2 = MakeSingleTupleTableSlot(table->tupdesc, &TTSOpsMinimalTuple);
	}
	ExecStoreMinimalTuple(tuple1, table->slot1, false);
	ExecStoreMinimalTuple(tuple2, table->slot2, false);
	slot_getallattrs(table->slot1);
	slot_getallattrs(table->slot2);
	return row_image_equal(table->tupdesc, table->tupdesc->natts - 1, table->slot1->tts_values,
						   table->slot1->tts_isnull, table->slot2->tts_values,
						   table->slot2->tts_isnull);
}

static bool
net_rows_equal(NetTable *table, uint32 row1, uint32 row2)
{
	NetRow *a = &table->rows[row1];
	NetRow *b = &table->rows[row2];

	return a->hash == b->hash &&
		   (tuples_same_bytes(a->tuple, b->tuple) || tuples_same_image(table, a->tuple, b->tuple));
}

static void
net_table_add_index(NetTable *table)
{
	bool found;

	table->index = net_index_create(table->context, table->rows_expected, table);
	for (uint32 i = 0; i < table->count; i++)
		net_index_insert(table->index, i, &found);
}

/* The row that has the image of the candidate at rows[count], or `count`: there is none. */
static uint32
net_table_find(NetTable *table)
{
	uint32 candidate = table->count;
	bool   found;

	if (table->index == NULL && candidate > LINEAR_ROWS_MAX)
		net_table_add_index(table);
	if (table->index != NULL)
		return net_index_insert(table->index, candidate, &found)->row;

	for (uint32 i = 0; i < candidate; i++)
	{
		if (net_rows_equal(table, i, candidate))
			return i;
	}
	return candidate;
}

/* Takes in a row.  `copy`: the tuple will not stay where it is. */
static void
net_table_add(NetTable *table, MinimalTuple tuple, uint64 hash, int32 weight, bool copy)
{
	if (table->count == table->capacity)
	{
		if (table->capacity > PG_UINT32_MAX / 2)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("delta has too many rows")));
		table->capacity *= 2;
		table->rows = repalloc_huge(table->rows, (Size) table->capacity * sizeof(NetRow));
	}
	table->rows[table->count] = (NetRow){tuple, hash, weight};

	uint32 row = net_table_find(table);

	if (row != table->count) /* seen before? */
		table->rows[row].weight += weight;
	else
	{
		if (copy)
		{
			MemoryContext oldcontext = MemoryContextSwitchTo(table->context);

			table->rows[row].tuple = compat_copy_minimal_tuple(tuple);
			table->bytes += tuple->t_len;
			MemoryContextSwitchTo(oldcontext);
		}
		table->count++;
	}
}

/* What it takes in memory, for comparing with work_mem. */
static Size
net_table_size(NetTable *table)
{
	return table->bytes +
		   (Size) table->count * (sizeof(NetRow) + 2 * sizeof(NetIndexEntry) + sizeof(void *));
}

static void
net_table_emit(NetTable *table, Rowset *output, TupleTableSlot *slot)
{
	for (uint32 i = 0; i < table->count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (table->rows[i].weight == 0)
			continue;
		ExecStoreMinimalTuple(table->rows[i].tuple, slot, false);
		rowset_put_slot_weighted(output, slot, table->rows[i].weight);
	}
}

static void
net_table_free(NetTable *table)
{
	if (table->slot1 != NULL)
	{
		ExecDropSingleTupleTableSlot(table->slot1);
		ExecDropSingleTupleTableSlot(table->slot2);
	}
	MemoryContextDelete(table->context);
}

/* ------------------------------------------------------------------------------------------------
 * Dealing out what does not fit
 */

typedef struct Parts
{
	int		count; /* a power of two */
	int		shift; /* which bits of the hash choose */
	Rowset *rowsets[PARTS_MAX];
} Parts;

/* As many parts as are needed for each to fit twice, judging by what has been read. */
static Parts *
parts_create(NetTable *table, Rowset *input, int64 rows_read, int level)
{
	Parts *parts = palloc(sizeof(Parts));
	double bytes_total = (double) net_table_size(table) / rows_read * input->row_count;
	double wanted = 2 * bytes_total / (work_mem * 1024.0);

	parts->count = 2;
	while (parts->count < PARTS_MAX && parts->count < wanted)
		parts->count *= 2;
	parts->shift = 64 - PART_BITS * (level + 1);
	for (int i = 0; i < parts->count; i++)
		parts->rowsets[i] = rowset_create_limited("part", input->tupdesc,
												  Max(work_mem / parts->count, PART_MEMORY_KB_MIN));
	return parts;
}

static Rowset *
parts_choose(Parts *parts, uint64 hash)
{
	return parts->rowsets[(hash >> parts->shift) & (uint64) (parts->count - 1)];
}

static uint64
slot_image_hash(TupleTableSlot *slot)
{
	slot_getallattrs(slot);
	return row_image_hash(slot->tts_tupleDescriptor, slot->tts_tupleDescriptor->natts - 1,
						  slot->tts_values, slot->tts_isnull);
}

/* Deals out the net rows so far and the rest of the input, which is being read. */
static Parts *
deal_out(NetTable *table, Rowset *input, TupleTableSlot *slot, int64 rows_read, int level)
{
	Parts *parts = parts_create(table, input, rows_read, level);

	for (uint32 i = 0; i < table->count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (table->rows[i].weight == 0)
			continue;
		ExecStoreMinimalTuple(table->rows[i].tuple, slot, false);
		rowset_put_slot_weighted(parts_choose(parts, table->rows[i].hash), slot,
								 table->rows[i].weight);
	}
	while (rowset_next(input, slot))
	{
		CHECK_FOR_INTERRUPTS();
		rowset_put_slot(parts_choose(parts, slot_image_hash(slot)), slot);
	}
	return parts;
}

static void
consolidate_parts(Parts *parts, Rowset *output, int level)
{
	for (int i = 0; i < parts->count; i++)
	{
		if (parts->rowsets[i]->row_count > 0)
			consolidate_into(parts->rowsets[i], output, level);
		rowset_free(parts->rowsets[i]);
	}
	pfree(parts);
}

/* ------------------------------------------------------------------------------------------------
 * The whole
 */

/*
 * Appends the net rows of `input` to `output`.  `level` counts how often the rows have been dealt out: when the
 * hash has no bits left for another time, memory has to do.
 */
static void
consolidate_into(Rowset *input, Rowset *output, int level)
{
	TupleTableSlot *slot = rowset_make_slot(input);
	bool			copy = !rowset_in_memory(input);
	bool			may_deal_out = copy && PART_BITS * (level + 1) <= 64;
	int64			rows_read = 0;
	int64			rows_max = copy ? (int64) work_mem * 1024 / NET_ROW_BYTES_MIN : PG_INT32_MAX;
	NetTable	   *table = net_table_create(input->tupdesc, Min(input->row_count, rows_max));
	Parts		   *parts = NULL;

	rowset_rewind(input);
	while (parts == NULL && rowset_next(input, slot))
	{
		uint64		 hash = slot_image_hash(slot);
		MinimalTuple tuple = ((MinimalTupleTableSlot *) slot)->mintuple;

		CHECK_FOR_INTERRUPTS();
		rows_read++;
		net_table_add(table, tuple, hash, rowset_weight(input, slot), copy);
		if (may_deal_out && net_table_size(table) > (Size) work_mem * 1024)
			parts = deal_out(table, input, slot, rows_read, level);
	}
	if (parts == NULL)
		net_table_emit(table, output, slot);

	ExecDropSingleTupleTableSlot(slot);
	net_table_free(table); /* before the parts need the memory */
	if (parts != NULL)
		consolidate_parts(parts, output, level + 1);
}
