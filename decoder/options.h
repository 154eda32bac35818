/*
 * decoder/options.h
 *     The options of START_REPLICATION and of pg_logical_slot_get_binary_changes.
 */
#ifndef PGTRICKLE_DECODER_OPTIONS_H
#define PGTRICKLE_DECODER_OPTIONS_H

#include "postgres.h"

#include "nodes/pg_list.h"

#define PROTO_VERSION 1

#define BATCH_BYTES_DEFAULT 65536
#define BATCH_BYTES_MAX (16 * 1024 * 1024)
#define VALUE_BYTES_DEFAULT (256 * 1024 * 1024)
#define VALUE_BYTES_MAX (1000 * 1024 * 1024)

typedef struct DecoderOptions
{
	int			proto_version; /* 0: not given */
	Size		batch_bytes;
	Size		value_bytes_max;
	const char *interest; /* "" when not given; owned by the option list */
	const char *encoding; /* NULL when not given; owned by the option list */
	bool		user_types_as_text;
	bool		is_compressed;
} DecoderOptions;

/*
 * Reads the options, DefElems whose argument is a String or NULL.  Any option that is unknown,
 * given twice or out of range is an error.  `is_slot_creation`: nothing will be streamed, so
 * nothing is required.
 */
extern DecoderOptions options_parse(List *elements, bool is_slot_creation);

#endif /* PGTRICKLE_DECODER_OPTIONS_H */
