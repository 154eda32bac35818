/*
 * applier/decompression.h
 *     The other end of decoder/compression.h: messages of a compressed stream become batches again.
 */
#ifndef PGTRICKLE_APPLIER_DECOMPRESSION_H
#define PGTRICKLE_APPLIER_DECOMPRESSION_H

#include <stddef.h>
#include <stdint.h>

#include "error.h"

typedef struct Decompression Decompression;

/* A batch is no longer than its longest record. */
#define DECOMPRESSED_BATCH_BYTES_MAX (UINT64_C(1024) * 1024 * 1024)

/* For one connection: each message needs those before it. */
extern Decompression *decompression_create(size_t batch_bytes_max);
extern void			  decompression_free(Decompression *decompression);

/*
 * *batch is valid until the next call.  Errors: damaged bytes, or more than a batch may have.  After an error nothing can be read any more.
 */
extern bool decompression_read(Decompression *decompression, const void *data, size_t length,
							   const uint8_t **batch, size_t *batch_length, Error *error) MUST_CHECK;

#endif /* PGTRICKLE_APPLIER_DECOMPRESSION_H */
