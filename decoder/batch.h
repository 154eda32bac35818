/*
 * decoder/batch.h
 *     Records on their way to the reader, collected so that one write carries many.
 *
 * Every OutputPluginWrite costs a message and a send(2): with one record a write, decoding takes half
 * as much time again (3.2 and 5.1 s for the large case of bench/decode.py).  So records wait here until
 * there are batch_bytes of them, but never longer than until the commit of their transaction: no
 * committed change waits for another transaction to come.
 */
#ifndef PGTRICKLE_DECODER_BATCH_H
#define PGTRICKLE_DECODER_BATCH_H

#include "postgres.h"

#include "replication/logical.h"

#include "compression.h"
#include "wire.h"

typedef struct Batch
{
	WireBuffer buffer;
	Size	   bytes_max; /* written when it would grow beyond; a single record may be longer */
	Compression *compression; /* NULL: none */
} Batch;

/* A buffer that grows by the server's allocator, in `context`. */
extern void buffer_init(WireBuffer *buffer, MemoryContext context, Size capacity);

extern void batch_init(Batch *batch, MemoryContext context, Size bytes_max, bool is_compressed);

/*
 * Writes what has been collected, if anything.  `is_last`: nothing more will come of this
 * transaction.
 */
extern void batch_flush(Batch *batch, LogicalDecodingContext *ctx, bool is_last);

/* Writes the batch if a record of `bytes` more would make it too long. */
static inline void
batch_make_room(Batch *batch, LogicalDecodingContext *ctx, Size bytes)
{
	if (batch->buffer.length + bytes > batch->bytes_max && batch->buffer.length > 0)
		batch_flush(batch, ctx, false);
}

#endif /* PGTRICKLE_DECODER_BATCH_H */
