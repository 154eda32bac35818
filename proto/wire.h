/*
 * proto/wire.h
 *     Protobuf's wire format, nothing more: fields, varints, byte ranges.  A reader and a writer.
 *
 * The reader walks over bytes that somebody else sent.  It allocates nothing, never looks outside
 * of the range it was given, and on bad input stops with a phrase that says what is wrong and
 * where. The writer appends to a buffer that the caller owns and can grow.
 *
 * Knows neither the messages of pgtrickle.proto (records.h reads them, write.h writes them) nor
 * PostgreSQL, because the applier includes it too.  Hot paths are inline; the rest is in wire.c.
 */
#ifndef PGTRICKLE_PROTO_WIRE_H
#define PGTRICKLE_PROTO_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/*
 * Bytes inside somebody else's memory.  `data` is NULL when the thing is absent, not when it is
 * empty.
 */
typedef struct ByteRange
{
	const uint8_t *data;
	size_t		   length;
} ByteRange;

static inline ByteRange
byte_range(const void *data, size_t length)
{
	ByteRange range = {(const uint8_t *) data, length};

	return range;
}

/* The low three bits of a field's key. */
typedef enum WireType
{
	WIRE_VARINT = 0,
	WIRE_FIXED64 = 1,
	WIRE_BYTES = 2,
	WIRE_FIXED32 = 5
} WireType;

#define WIRE_VARINT_BYTES_MAX 10 /* a 64-bit number, seven bits a byte */

/* ------------------------------------------------------------------------------------------------
 * Reading
 */

typedef struct WireReader
{
	const uint8_t *next; /* first byte not read yet */
	const uint8_t *end;
	const char	  *error; /* NULL: so far so good.  Static text */
	const uint8_t *error_at; /* where; inside the range, or its end */
} WireReader;

/*
 * One field with its value: `varint` for WIRE_VARINT (and the fixed ones), `bytes` for WIRE_BYTES.
 */
typedef struct WireField
{
	uint32_t  number;
	WireType  type;
	uint64_t  varint;
	ByteRange bytes;
} WireField;

static inline WireReader
wire_reader(ByteRange input)
{
	WireReader reader = {input.data, input.data, NULL, NULL};

	if (input.data != NULL)
		reader.end = input.data + input.length;
	return reader;
}

/*
 * Reads the next field.  False at the end of the range, and on malformed input (then reader->error
 * is set and stays).  Unknown fields are skipped by not looking at them.
 */
extern bool wire_next_field(WireReader *reader, WireField *field);

/* Reads a bare varint, as packed repeated fields hold them. */
extern bool wire_next_varint(WireReader *reader, uint64_t *value);

/* Stops the reader.  Always returns false, so that callers can `return wire_fail(...)`. */
extern bool wire_fail(WireReader *reader, const char *error, const uint8_t *at);

/* Negative numbers in a varint: 0, -1, 1, -2 become 0, 1, 2, 3. */
static inline int64_t
wire_unzigzag(uint64_t value)
{
	return (int64_t) ((value >> 1) ^ (~(value & 1) + 1));
}

static inline uint64_t
wire_zigzag(int64_t value)
{
	return ((uint64_t) value << 1) ^ (value < 0 ? UINT64_MAX : 0);
}

/* ------------------------------------------------------------------------------------------------
 * Writing
 */

typedef struct WireBuffer WireBuffer;

/*
 * Makes room for `more` bytes behind `length`: changes data and capacity.  Must not return unless
 * it did (the decoder raises an error, a test aborts).
 */
typedef void (*WireGrow)(WireBuffer *buffer, size_t more);

struct WireBuffer
{
	uint8_t *data;
	size_t	 length;
	size_t	 capacity;
	WireGrow grow;
};

static inline void
wire_reserve(WireBuffer *buffer, size_t more)
{
	if (buffer->capacity - buffer->length < more)
		buffer->grow(buffer, more);
}

/* How many bytes a varint takes. */
static inline size_t
wire_varint_size(uint64_t value)
{
	size_t size = 1;

	while (value >= 0x80)
	{
		value >>= 7;
		size++;
	}
	return size;
}

/* Stores a varint at `at`, which must have room; returns the byte after it. */
static inline uint8_t *
wire_store_varint(uint8_t *at, uint64_t value)
{
	while (value >= 0x80)
	{
		*at++ = (uint8_t) (value | 0x80);
		value >>= 7;
	}
	*at++ = (uint8_t) value;
	return at;
}

/* A field's key. */
static inline uint32_t
wire_key(uint32_t number, WireType type)
{
	return number << 3 | (uint32_t) type;
}

static inline void
wire_put_raw_varint(WireBuffer *buffer, uint64_t value)
{
	wire_reserve(buffer, WIRE_VARINT_BYTES_MAX);
	buffer->length =
		(size_t) (wire_store_varint(buffer->data + buffer->length, value) - buffer->data);
}

/* A number; zero is left out, as proto3 wants it. */
static inline void
wire_put_varint(WireBuffer *buffer, uint32_t number, uint64_t value)
{
	if (value == 0)
		return;
	wire_put_raw_varint(buffer, wire_key(number, WIRE_VARINT));
	wire_put_raw_varint(buffer, value);
}

/* The key and length of a bytes field, with room for its value. */
static inline void
wire_put_bytes_header(WireBuffer *buffer, uint32_t number, size_t length)
{
	uint8_t *at;

	wire_reserve(buffer, 2 * WIRE_VARINT_BYTES_MAX + length);
	at = wire_store_varint(buffer->data + buffer->length, wire_key(number, WIRE_BYTES));
	at = wire_store_varint(at, length);
	buffer->length = (size_t) (at - buffer->data);
}

/* A bytes field, also when it is empty: for repeated fields and members of messages. */
static inline void
wire_put_bytes(WireBuffer *buffer, uint32_t number, const void *data, size_t length)
{
	wire_put_bytes_header(buffer, number, length);
	if (length > 0)
		memcpy(buffer->data + buffer->length, data, length);
	buffer->length += length;
}

/*
 * A message inside a message.  Its length stands before its contents, so one byte is set aside for
 * it; a message of 128 bytes and more is moved by the bytes that were missing.  (Row records, the
 * ones that are long and many, know their size before they are written and do without.)
 */
typedef struct WireMessage
{
	size_t contents_at; /* the byte after the one set aside */
} WireMessage;

extern WireMessage wire_begin_message(WireBuffer *buffer, uint32_t number);
extern void		   wire_end_message(WireBuffer *buffer, WireMessage message);

#endif /* PGTRICKLE_PROTO_WIRE_H */
