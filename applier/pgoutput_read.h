/*
 * applier/pgoutput_read.h
 *     Reading a message of pgoutput: numbers in network byte order, text that ends with a zero byte.
 *
 * A reader that has come to the end too early gives zeros and says so once it is asked, so that
 * callers check once per message and not once per field.  It never looks outside of the message.
 */
#ifndef PGTRICKLE_APPLIER_PGOUTPUT_READ_H
#define PGTRICKLE_APPLIER_PGOUTPUT_READ_H

#include "proto/wire.h"

typedef struct PgoutputReader
{
	const uint8_t *next;
	size_t		   left;
	bool		   is_short; /* something was read that is not there */
} PgoutputReader;

static inline ByteRange
read_range(PgoutputReader *reader, size_t length)
{
	ByteRange range;

	if (length > reader->left)
	{
		reader->is_short = true;
		length = 0;
	}
	range = byte_range(reader->next, length);
	reader->next += length;
	reader->left -= length;
	return range;
}

static inline void
read_to_end(PgoutputReader *reader)
{
	(void) read_range(reader, reader->left);
}

/* A number of `bytes` bytes. */
static inline uint64_t
read_number(PgoutputReader *reader, size_t bytes)
{
	ByteRange range = read_range(reader, bytes);
	uint64_t  number = 0;

	for (size_t i = 0; i < range.length; i++)
		number = number << 8 | range.data[i];
	return number;
}

/* Text without its zero byte. */
static inline ByteRange
read_string(PgoutputReader *reader)
{
	const uint8_t *zero = reader->left > 0 ? memchr(reader->next, 0, reader->left) : NULL;
	ByteRange	   range;

	if (zero == NULL)
		return read_range(reader, reader->left + 1); /* one byte is missing */
	range = read_range(reader, (size_t) (zero - reader->next));
	(void) read_range(reader, 1);
	return range;
}

#endif /* PGTRICKLE_APPLIER_PGOUTPUT_READ_H */
