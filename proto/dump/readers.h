/*
 * proto/dump/readers.h
 *     The two readers of pgtrickle-dump.
 */
#ifndef PGTRICKLE_DUMP_READERS_H
#define PGTRICKLE_DUMP_READERS_H

#include "wire.h"

/* Prints a batch; false when it could not be read to its end (then a line says why). */
typedef bool (*BatchPrinter)(ByteRange batch);

extern bool print_batch_by_records(ByteRange batch);
extern bool print_batch_by_protobuf_c(ByteRange batch);

#endif /* PGTRICKLE_DUMP_READERS_H */
