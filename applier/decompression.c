/*
 * applier/decompression.c
 *     Messages of a compressed stream become batches again.
 *
 * The sender flushes at the end of each message, so a message that has been read to its end gives its batch to its end, and nothing of the next one.  A few
 * bytes can stand for very many: what a batch may have at the most is checked while it grows.
 */
#include "decompression.h"

#include <stdlib.h>

#include <zstd.h>

#include "memory.h"

/* What a huge row has blown up is given back when the next batch is this much smaller. */
#define KEPT_BYTES_MAX (4 * 1024 * 1024)

/* The sender refers back no further; more would be memory for anybody to ask for. */
#define WINDOW_LOG_MAX 20

struct Decompression
{
	ZSTD_DCtx *stream;
	uint8_t	  *batch;
	size_t	   capacity;
	size_t	   batch_bytes_max;
};

Decompression *
decompression_create(size_t batch_bytes_max)
{
	Decompression *decompression = memory_take_zeroed(sizeof(Decompression));

	decompression->stream = memory_checked(ZSTD_createDCtx());
	decompression->batch_bytes_max = batch_bytes_max;
	(void) ZSTD_DCtx_setParameter(decompression->stream, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
	decompression->capacity = ZSTD_DStreamOutSize();
	decompression->batch = memory_take(decompression->capacity);
	return decompression;
}

void
decompression_free(Decompression *decompression)
{
	if (decompression == NULL)
		return;
	ZSTD_freeDCtx(decompression->stream);
	free(decompression->batch);
	free(decompression);
}

static void
give_back(Decompression *decompression)
{
	if (decompression->capacity <= KEPT_BYTES_MAX)
		return;
	free(decompression->batch);
	decompression->capacity = ZSTD_DStreamOutSize();
	decompression->batch = memory_take(decompression->capacity);
}

bool
decompression_read(Decompression *decompression, const void *data, size_t length,
				   const uint8_t **batch, size_t *batch_length, Error *error)
{
	ZSTD_inBuffer  input = {data, length, 0};
	ZSTD_outBuffer output = {NULL, 0, 0};
	size_t		   result;

	give_back(decompression);
	do
	{
		if (output.pos == decompression->capacity)
		{
			if (decompression->capacity >= decompression->batch_bytes_max)
				return error_set(error, FAIL_RETRY, "a compressed batch has more than %zu bytes",
								 decompression->batch_bytes_max);
			decompression->capacity *= 2;
			decompression->batch = memory_resize(decompression->batch, decompression->capacity);
		}
		output.dst = decompression->batch;
		output.size = decompression->capacity;
		result = ZSTD_decompressStream(decompression->stream, &output, &input);
		if (ZSTD_isError(result))
			return error_set(error, FAIL_RETRY, "could not decompress a batch: %s",
							 ZSTD_getErrorName(result));
		/* a full buffer may not be all: the library may hold more */
	} while (input.pos < input.size || output.pos == output.size);
	*batch = decompression->batch;
	*batch_length = output.pos;
	return true;
}
