/*
 * decoder/compression.h
 *     The stream, made smaller for a slow link: option `compression`.
 *
 * All messages of a session are one zstd frame that never ends.  Each message is flushed, so that it can be read when it has arrived, and still the next one
 * refers back to what was sent before it: names, the bytes of every row of the same table, the records around them.  So single rows get smaller, too, where
 * a message compressed alone would not.
 */
#ifndef PGTRICKLE_DECODER_COMPRESSION_H
#define PGTRICKLE_DECODER_COMPRESSION_H

#include "postgres.h"

#include "lib/stringinfo.h"

typedef struct Compression Compression;

/* Its memory, some 1.4 MB, goes with `context`. */
extern Compression *compression_create(MemoryContext context);

/* Appends what a reader needs, after all messages before, to have these bytes. */
extern void compression_append(Compression *compression, StringInfo out, const void *data, Size length);

#endif /* PGTRICKLE_DECODER_COMPRESSION_H */
