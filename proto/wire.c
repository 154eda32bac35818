/*
 * proto/wire.c
 *     Protobuf's wire format: the parts that are too long to be inline.
 *
 * Every read is preceded by a comparison with reader->end, and every length is compared with what
 * is left before it is added to a pointer: the fuzz target (fuzz.c) holds us to that.
 */
#include "wire.h"

bool
wire_fail(WireReader *reader, const char *error, const uint8_t *at)
{
	if (reader->error == NULL) /* the first trouble is the one worth telling */
	{
		reader->error = error;
		reader->error_at = at;
	}
	reader->next = reader->end;
	return false;
}

/*
 * Padded varints (0x80 0x00 for zero) are legal protobuf and accepted; bits beyond the 64th are
 * not.
 */
bool
wire_next_varint(WireReader *reader, uint64_t *value)
{
	const uint8_t *start = reader->next;
	uint64_t	   result = 0;

	for (unsigned shift = 0; shift < 70; shift += 7)
	{
		if (reader->next == reader->end)
		{
			if (shift == 0 && reader->error == NULL)
				return false; /* a clean end; callers for whom it is not say so */
			return wire_fail(reader, "number is cut off", start);
		}
		uint8_t byte = *reader->next++;

		if (shift == 63 && byte > 1)
			break; /* more than 64 bits, or a continuation after the tenth byte */
		result |= (uint64_t) (byte & 0x7f) << shift;
		if (byte < 0x80)
		{
			*value = result;
			return true;
		}
	}
	return wire_fail(reader, "number has more than 64 bits", start);
}

/* A value that must be there. */
static bool
next_value_varint(WireReader *reader, uint64_t *value, const uint8_t *field_start)
{
	if (wire_next_varint(reader, value))
		return true;
	return wire_fail(reader, "field is cut off", field_start);
}

static bool
next_fixed(WireReader *reader, uint64_t *value, size_t size, const uint8_t *field_start)
{
	if ((size_t) (reader->end - reader->next) < size)
		return wire_fail(reader, "field is cut off", field_start);

	*value = 0;
	for (size_t i = 0; i < size; i++)
		*value |= (uint64_t) reader->next[i] << (8 * i);
	reader->next += size;
	return true;
}

static bool
next_bytes(WireReader *reader, ByteRange *bytes, const uint8_t *field_start)
{
	uint64_t length;

	if (!next_value_varint(reader, &length, field_start))
		return false;
	if (length > (uint64_t) (reader->end - reader->next))
		return wire_fail(reader, "field is longer than what holds it", field_start);
	*bytes = byte_range(reader->next, (size_t) length);
	reader->next += length;
	return true;
}

bool
wire_next_field(WireReader *reader, WireField *field)
{
	const uint8_t *start = reader->next;
	uint64_t	   key;

	if (!wire_next_varint(reader, &key))
		return false;
	if (key >> 3 == 0 || key >> 3 > 0x1fffffff)
		return wire_fail(reader, "field number is out of range", start);

	field->number = (uint32_t) (key >> 3);
	field->type = (WireType) (key & 7);
	field->varint = 0;
	field->bytes = byte_range(NULL, 0);
	switch (key & 7)
	{
		case WIRE_VARINT:
			return next_value_varint(reader, &field->varint, start);
		case WIRE_BYTES:
			return next_bytes(reader, &field->bytes, start);
		case WIRE_FIXED64:
			return next_fixed(reader, &field->varint, 8, start);
		case WIRE_FIXED32:
			return next_fixed(reader, &field->varint, 4, start);
		default: /* groups (3, 4) were given up by protobuf; 6 and 7 never were */
			return wire_fail(reader, "field has an unknown wire type", start);
	}
}

WireMessage
wire_begin_message(WireBuffer *buffer, uint32_t number)
{
	WireMessage message;

	wire_put_raw_varint(buffer, wire_key(number, WIRE_BYTES));
	wire_reserve(buffer, 1);
	message.contents_at = ++buffer->length;
	return message;
}

void
wire_end_message(WireBuffer *buffer, WireMessage message)
{
	size_t length = buffer->length - message.contents_at;
	size_t missing = wire_varint_size(length) - 1;

	if (missing > 0)
	{
		wire_reserve(buffer, missing);
		memmove(buffer->data + message.contents_at + missing, buffer->data + message.contents_at,
				length);
		buffer->length += missing;
	}
	wire_store_varint(buffer->data + message.contents_at - 1, length);
}
