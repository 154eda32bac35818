/*
 * proto/test/sample.h
 *     A batch with a record of every kind, for the tests of reader and writer.
 */
#ifndef PGTRICKLE_TEST_SAMPLE_H
#define PGTRICKLE_TEST_SAMPLE_H

#include "write.h"

/* An empty buffer that grows by realloc; free(buffer.data) ends it. */
extern WireBuffer sample_buffer(void);

/* Columns of the relation that the sample's rows belong to. */
#define SAMPLE_COLUMNS 5

extern void sample_write(WireBuffer *buffer);

#endif /* PGTRICKLE_TEST_SAMPLE_H */
