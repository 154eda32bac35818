/*
 * decoder/compression.c
 *     The stream, made smaller for a slow link.
 *
 * zstd allocates with malloc, so the stream's end is bound to a memory context: also an error frees it.  The level is the lowest: the CPU is the source
 * server's, and higher ones would take it for little.
 */
#include "postgres.h"

#include <zstd.h>

#include "utils/memutils.h"

#include "compression.h"

#define LEVEL 1

/* How far back a message may refer.  A reader keeps as much. */
#define WINDOW_LOG 19

struct Compression
{
	ZSTD_CCtx *stream;
	Size	   output_chunk;
};

static void
free_stream(void *compression)
{
	ZSTD_freeCCtx(((Compression *) compression)->stream);
}

static void
set_parameter(Compression *compression, ZSTD_cParameter parameter, int value)
{
	size_t result = ZSTD_CCtx_setParameter(compression->stream, parameter, value);

	if (ZSTD_isError(result))
		elog(ERROR, "could not set up compression: %s", ZSTD_getErrorName(result));
}

Compression *
compression_create(MemoryContext context)
{
	Compression			  *compression = MemoryContextAllocZero(context, sizeof(Compression));
	MemoryContextCallback *callback = MemoryContextAllocZero(context, sizeof(MemoryContextCallback));

	compression->stream = ZSTD_createCCtx();
	if (compression->stream == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	callback->func = free_stream;
	callback->arg = compression;
	MemoryContextRegisterResetCallback(context, callback);
	compression->output_chunk = ZSTD_CStreamOutSize();
	set_parameter(compression, ZSTD_c_compressionLevel, LEVEL);
	set_parameter(compression, ZSTD_c_windowLog, WINDOW_LOG);
	return compression;
}

void
compression_append(Compression *compression, StringInfo out, const void *data, Size length)
{
	ZSTD_inBuffer input = {data, length, 0};
	size_t		  left;

	do
	{
		ZSTD_outBuffer output;

		enlargeStringInfo(out, (int) Min(length / 2 + 64, compression->output_chunk));
		output = (ZSTD_outBuffer){out->data, (size_t) out->maxlen - 1, (size_t) out->len};
		left = ZSTD_compressStream2(compression->stream, &output, &input, ZSTD_e_flush);
		if (ZSTD_isError(left))
			elog(ERROR, "could not compress: %s", ZSTD_getErrorName(left));
		out->len = (int) output.pos;
	} while (left > 0);
	out->data[out->len] = '\0';
}
