/*
 * decoder/batch.c
 *     Records on their way to the reader, collected so that one write carries many.
 *
 * The batch is copied once into the server's output buffer: the server empties that whenever a
 * write begins, so records cannot be collected in it.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "replication/output_plugin.h"
#include "utils/memutils.h"

#include "batch.h"

/* A buffer that a huge row has blown up is given back when it is this many times too large. */
#define BATCH_SLACK 8

static void
buffer_grow(WireBuffer *buffer, size_t more)
{
	Size capacity = buffer->capacity * 2;

	if (capacity < buffer->length + more)
		capacity = buffer->length + more;
	buffer->data = repalloc_huge(buffer->data, capacity);
	buffer->capacity = capacity;
}

void
buffer_init(WireBuffer *buffer, MemoryContext context, Size capacity)
{
	buffer->data = MemoryContextAlloc(context, capacity);
	buffer->length = 0;
	buffer->capacity = capacity;
	buffer->grow = buffer_grow;
}

void
batch_init(Batch *batch, MemoryContext context, Size bytes_max, bool is_compressed)
{
	batch->bytes_max = bytes_max;
	batch->compression = is_compressed ? compression_create(context) : NULL;
	buffer_init(&batch->buffer, context, bytes_max + 1024);
}

void
batch_flush(Batch *batch, LogicalDecodingContext *ctx, bool is_last)
{
	WireBuffer *buffer = &batch->buffer;

	if (buffer->length == 0)
		return;
	OutputPluginPrepareWrite(ctx, is_last);
	if (batch->compression != NULL)
		compression_append(batch->compression, ctx->out, buffer->data, buffer->length);
	else
		appendBinaryStringInfo(ctx->out, (const char *) buffer->data, (int) buffer->length);
	OutputPluginWrite(ctx, is_last);

	buffer->length = 0;
	if (buffer->capacity > BATCH_SLACK * (batch->bytes_max + 1024))
	{
		buffer->capacity = batch->bytes_max + 1024;
		buffer->data = repalloc(buffer->data, buffer->capacity);
	}
}
