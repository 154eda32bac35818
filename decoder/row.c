/*
 * decoder/row.c
 *     Rows: from tuples of the reorder buffer to records of the stream.
 *
 * The hot path.  Each tuple is taken apart once, each value is looked at twice: first to find out
 * what there is to send and how long it is (prepare_row), then to store it (store_row).  Protobuf
 * puts lengths before contents; with all lengths known the record is written front to back in one
 * reservation, nothing is moved and, for most types, nothing is allocated.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "utils/rel.h"

#include "row.h"
#include "write.h"

/* One row image on its way. */
typedef struct RowImage
{
	int	   width; /* columns that the arrays have room for */
	Datum *values;
	bool  *nulls;
	Cell  *cells; /* one per column of the relation's entry */
	Size   size; /* of the Tuple message */
	bool   is_all_there; /* every column has a value: no kinds needed */
} RowImage;

struct RowWriter
{
	MemoryContext context;
	Size		  value_bytes_max;
	Size		  record_bytes_max;
	RowImage	  old_row;
	RowImage	  new_row;

	/* Of the record being written. */
	Size   bytes_left; /* for values */
	uint32 flaws; /* bits of enum Flaw */
};

RowWriter *
row_writer_create(MemoryContext context, Size value_bytes_max)
{
	RowWriter *writer = MemoryContextAllocZero(context, sizeof(RowWriter));

	writer->context = context;
	writer->value_bytes_max = value_bytes_max;

	/* A large old value and a large new one must fit, so must 1600 values of moderate size. */
	writer->record_bytes_max =
		Min(Max(2 * value_bytes_max, (Size) 64 * 1024 * 1024), RECORD_BYTES_MAX);
	return writer;
}

static void
widen_image(RowImage *image, int width, MemoryContext context)
{
	if (image->values != NULL)
	{
		pfree(image->values);
		pfree(image->nulls);
		pfree(image->cells);
	}
	image->values = MemoryContextAlloc(context, width * sizeof(Datum));
	image->nulls = MemoryContextAlloc(context, width * sizeof(bool));
	image->cells = MemoryContextAlloc(context, width * sizeof(Cell));
	image->width = width;
}

/* ------------------------------------------------------------------------------------------------
 * Preparing
 */

static Size
kinds_size(int column_count)
{
	return ((Size) column_count + 3) / 4;
}

/* A column without a value in this tuple. */
static ValueKind
absent_kind(const ColumnEncoder *column, bool is_key_only)
{
	return is_key_only && !column->in_identity ? VALUE_NOT_LOGGED : VALUE_NULL;
}

/*
 * Fills the cells of a row and adds up its size.  Values that do not fit any more into what may be
 * sent as one record are flagged and left out.
 */
static void
prepare_row(RowWriter *writer, RowImage *image, const RowChange *change, HeapTuple tuple,
			bool is_key_only)
{
	TupleDesc	   tupdesc = RelationGetDescr(change->relation);
	RelationEntry *entry = change->entry;
	Size		   size = 0;

	if (unlikely(tupdesc->natts > image->width))
		widen_image(image, tupdesc->natts, writer->context);
	heap_deform_tuple(tuple, tupdesc, image->values, image->nulls);

	image->is_all_there = true;
	for (int i = 0; i < entry->column_count; i++)
	{
		ColumnEncoder *column = &entry->columns[i];
		Cell		  *cell = &image->cells[i];
		int			   attribute = column->attnum - 1;

		if (image->nulls[attribute])
			cell->kind = absent_kind(column, is_key_only);
		else
			encoder_prepare(column, image->values[attribute],
							Min(writer->value_bytes_max, writer->bytes_left), cell, &writer->flaws);

		if (cell->kind == VALUE_PRESENT)
		{
			size += 1 + wire_varint_size(cell->length) + cell->length;
			writer->bytes_left -= Min(cell->length, writer->bytes_left);
		}
		else
			image->is_all_there = false;
	}
	if (!image->is_all_there)
		size +=
			1 + wire_varint_size(kinds_size(entry->column_count)) + kinds_size(entry->column_count);
	image->size = size;
}

/*
 * The server has logged that there was a change, but not the new row.  It does not happen to tables
 * of users; should it, the reader learns that something is missing.
 */
static void
prepare_lost_row(RowWriter *writer, RowImage *image, const RowChange *change)
{
	int column_count = change->entry->column_count;

	if (column_count > image->width)
		widen_image(image, column_count, writer->context);
	for (int i = 0; i < column_count; i++)
		image->cells[i].kind = VALUE_NOT_LOGGED;
	image->is_all_there = false;
	image->size = 1 + wire_varint_size(kinds_size(column_count)) + kinds_size(column_count);
	writer->flaws |= FLAW_VALUE_UNSENDABLE;
}

/* ------------------------------------------------------------------------------------------------
 * Storing
 */

/* Keys of fields below 16 take one byte. */
static inline uint8 *
store_key(uint8 *at, uint32 number, WireType type)
{
	*at = (uint8) wire_key(number, type);
	return at + 1;
}

static uint8 *
store_kinds(const RelationEntry *entry, const RowImage *image, uint8 *at)
{
	Size size = kinds_size(entry->column_count);

	at = store_key(at, TUPLE_KINDS, WIRE_BYTES);
	at = wire_store_varint(at, size);
	memset(at, 0, size);
	for (int i = 0; i < entry->column_count; i++)
		at[i / 4] |= (uint8) (image->cells[i].kind << (2 * (i % 4)));
	return at + size;
}

static uint8 *
store_row(const RelationEntry *entry, const RowImage *image, uint32 number, uint8 *at)
{
	at = store_key(at, number, WIRE_BYTES);
	at = wire_store_varint(at, image->size);
	if (!image->is_all_there)
		at = store_kinds(entry, image, at);
	for (int i = 0; i < entry->column_count; i++)
	{
		const Cell *cell = &image->cells[i];

		if (cell->kind != VALUE_PRESENT)
			continue;
		at = store_key(at, TUPLE_VALUES, WIRE_BYTES);
		at = wire_store_varint(at, cell->length);
		at = encoder_store(&entry->columns[i], cell, at);
	}
	return at;
}

/* Bytes of a field that holds a row. */
static Size
row_field_size(const RowImage *image)
{
	return 1 + wire_varint_size(image->size) + image->size;
}

/* Prepares both rows of a change; sets which there are. */
static void
prepare_rows(RowWriter *writer, const RowChange *change, bool *has_old, bool *has_new)
{
	bool is_key_only = change->entry->replica_identity != REPLICA_IDENTITY_FULL;

	*has_old = change->old_tuple != NULL;
	*has_new = change->kind != KIND_DELETE;
	writer->bytes_left = writer->record_bytes_max;
	writer->flaws = 0;

	if (*has_old)
	{
		writer->flaws |= is_key_only ? FLAW_OLD_ROW_KEY_ONLY : 0;
		prepare_row(writer, &writer->old_row, change, change->old_tuple, is_key_only);
	}
	else if (change->kind != KIND_INSERT)
		writer->flaws |= FLAW_OLD_ROW_MISSING;

	if (*has_new && change->new_tuple != NULL)
		prepare_row(writer, &writer->new_row, change, change->new_tuple, false);
	else if (*has_new)
		prepare_lost_row(writer, &writer->new_row, change);
}

void
row_write(RowWriter *writer, const RowChange *change, Batch *batch, LogicalDecodingContext *ctx)
{
	const RelationEntry *entry = change->entry;
	WireBuffer			*buffer = &batch->buffer;
	bool				 has_old;
	bool				 has_new;

	prepare_rows(writer, change, &has_old, &has_new);

	Size size = 2 + 1 + wire_varint_size(entry->number) +
				(has_old ? row_field_size(&writer->old_row) : 0) +
				(has_new ? row_field_size(&writer->new_row) : 0) + (writer->flaws != 0 ? 2 : 0);

	batch_make_room(batch, ctx, size);
	wire_put_bytes_header(buffer, BATCH_RECORDS, size); /* reserves the contents too */

	uint8 *at = buffer->data + buffer->length;

	at = store_key(at, RECORD_KIND, WIRE_VARINT);
	*at++ = (uint8) change->kind;
	at = store_key(at, RECORD_RELATION, WIRE_VARINT);
	at = wire_store_varint(at, entry->number);
	if (has_old)
		at = store_row(entry, &writer->old_row, RECORD_OLD_ROW, at);
	if (has_new)
		at = store_row(entry, &writer->new_row, RECORD_NEW_ROW, at);
	if (writer->flaws != 0)
	{
		at = store_key(at, RECORD_FLAWS, WIRE_VARINT);
		*at++ = (uint8) writer->flaws;
	}
	Assert((Size) (at - buffer->data) == buffer->length + size);
	buffer->length = (size_t) (at - buffer->data);
}
