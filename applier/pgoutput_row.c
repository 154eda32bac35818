/*
 * applier/pgoutput_row.c
 *     Rows: from pgoutput's tuples to row records.
 *
 * A tuple is a number of columns and for each a letter: n NULL, u an unchanged value stored out of
 * line, t text with its length.  Before it stands what it is: N the new row, O the old row, K the
 * old row's key, in which all other columns look like NULL and are not.
 *
 * Lengths stand before contents in a record, so a tuple is looked at once to find its size, and
 * once more to store it.
 */
#include "pgoutput_row.h"

#include "memory.h"

void
row_converter_free(RowConverter *converter)
{
	free(converter->old_row.kinds);
	free(converter->old_row.values);
	free(converter->new_row.kinds);
	free(converter->new_row.values);
}

static void
widen_image(RowImage *image, size_t column_count)
{
	if (column_count <= image->capacity)
		return;
	image->kinds = memory_resize(image->kinds, column_count);
	image->values = memory_resize(image->values, column_count * sizeof(ByteRange));
	image->capacity = column_count;
}

static size_t
kinds_size(uint32_t column_count)
{
	return ((size_t) column_count + 3) / 4;
}

static size_t
bytes_field_size(size_t length)
{
	return 1 + wire_varint_size(length) + length; /* the keys of our fields take one byte */
}

/* One column; NULL, or what is wrong. */
static const char *
take_column(RowImage *image, uint32_t column, PgoutputReader *reader, bool is_absent)
{
	char letter = (char) read_number(reader, 1);

	image->kinds[column] = VALUE_NULL;
	switch (letter)
	{
		case 'n':
			if (is_absent)
				image->kinds[column] = VALUE_NOT_LOGGED;
			break;
		case 'u':
			image->kinds[column] = VALUE_UNCHANGED;
			break;
		case 't':
			image->kinds[column] = VALUE_PRESENT;
			image->values[column] = read_range(reader, (size_t) read_number(reader, 4));
			image->size += bytes_field_size(image->values[column].length);
			break;
		case 'b':
			return "value is binary although text was asked for";
		default:
			return reader->is_short ? "message is cut off" : "value is of an unknown kind";
	}
	if (image->kinds[column] != VALUE_PRESENT)
		image->is_all_there = false;
	return NULL;
}

static const char *
take_tuple(RowImage *image, const RowShape *shape, PgoutputReader *reader, bool is_key_only)
{
	uint32_t column_count = (uint32_t) read_number(reader, 2);

	if (reader->is_short || column_count != shape->column_count)
		return "row has the wrong number of columns";
	widen_image(image, column_count);
	image->size = 0;
	image->is_all_there = true;
	for (uint32_t i = 0; i < column_count; i++)
	{
		const char *wrong = take_column(image, i, reader, is_key_only && !shape->in_identity[i]);

		if (wrong != NULL)
			return wrong;
	}
	if (!image->is_all_there)
		image->size += bytes_field_size(kinds_size(column_count));
	return NULL;
}

static void
put_kinds(WireBuffer *buffer, const RowImage *image, uint32_t column_count)
{
	size_t	 size = kinds_size(column_count);
	uint8_t *kinds;

	wire_put_bytes_header(buffer, TUPLE_KINDS, size);
	kinds = buffer->data + buffer->length;
	memset(kinds, 0, size);
	for (uint32_t i = 0; i < column_count; i++)
		kinds[i / 4] |= (uint8_t) (image->kinds[i] << (2 * (i % 4)));
	buffer->length += size;
}

static void
put_image(WireBuffer *buffer, uint32_t field, const RowImage *image, uint32_t column_count)
{
	wire_put_bytes_header(buffer, field, image->size);
	if (!image->is_all_there)
		put_kinds(buffer, image, column_count);
	for (uint32_t i = 0; i < column_count; i++)
	{
		if (image->kinds[i] == VALUE_PRESENT)
			wire_put_bytes(buffer, TUPLE_VALUES, image->values[i].data, image->values[i].length);
	}
}

/* Which images a message has, and what that means. */
typedef struct RowParts
{
	bool	 has_old;
	bool	 has_new;
	uint32_t flaws;
} RowParts;

static const char *
take_parts(RowConverter *converter, const RowShape *shape, RecordKind kind, PgoutputReader *reader,
		   RowParts *parts)
{
	char		letter = (char) read_number(reader, 1);
	const char *wrong = NULL;

	if (kind != KIND_INSERT && (letter == 'K' || letter == 'O'))
	{
		parts->has_old = true;
		parts->flaws = letter == 'K' ? FLAW_OLD_ROW_KEY_ONLY : 0;
		wrong = take_tuple(&converter->old_row, shape, reader, letter == 'K');
		if (kind == KIND_UPDATE && wrong == NULL)
			letter = (char) read_number(reader, 1);
	}
	else if (kind == KIND_UPDATE)
		parts->flaws = FLAW_OLD_ROW_MISSING;
	if (wrong == NULL && kind != KIND_DELETE)
	{
		if (letter != 'N')
			return "message has no new row";
		parts->has_new = true;
		wrong = take_tuple(&converter->new_row, shape, reader, false);
	}
	if (wrong == NULL && kind == KIND_DELETE && !parts->has_old)
		return "delete has no old row";
	return wrong;
}

const char *
row_convert(RowConverter *converter, const RowShape *shape, RecordKind kind, PgoutputReader *reader,
			WireBuffer *buffer)
{
	RowParts	parts = {false, false, 0};
	const char *wrong = take_parts(converter, shape, kind, reader, &parts);
	size_t		size;

	if (wrong != NULL)
		return wrong;
	if (reader->is_short)
		return "message is cut off";
	if (reader->left > 0)
		return "message is longer than its row";

	size = 2 + 1 + wire_varint_size(shape->number) + (parts.flaws != 0 ? 2 : 0) +
		   (parts.has_old ? bytes_field_size(converter->old_row.size) : 0) +
		   (parts.has_new ? bytes_field_size(converter->new_row.size) : 0);
	wire_put_bytes_header(buffer, BATCH_RECORDS, size);
	wire_put_varint(buffer, RECORD_KIND, kind);
	wire_put_varint(buffer, RECORD_RELATION, shape->number);
	if (parts.has_old)
		put_image(buffer, RECORD_OLD_ROW, &converter->old_row, shape->column_count);
	if (parts.has_new)
		put_image(buffer, RECORD_NEW_ROW, &converter->new_row, shape->column_count);
	wire_put_varint(buffer, RECORD_FLAWS, parts.flaws);
	return NULL;
}
