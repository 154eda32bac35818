/*
 * decoder/row.h
 *     Rows: from tuples of the reorder buffer to records of the stream.
 */
#ifndef PGTRICKLE_DECODER_ROW_H
#define PGTRICKLE_DECODER_ROW_H

#include "postgres.h"

#include "access/htup.h"
#include "replication/logical.h"
#include "utils/relcache.h"

#include "batch.h"
#include "relation.h"

/* A message to the reader must stay below 1 GB; leave room for what is around the record. */
#define RECORD_BYTES_MAX ((Size) 1023 * 1024 * 1024)

/* Room for the two rows of a change, reused for every change and as wide as the widest relation. */
typedef struct RowWriter RowWriter;

extern RowWriter *row_writer_create(MemoryContext context, Size value_bytes_max);

/* One change of one row, as the reorder buffer has it.  Either tuple may be NULL. */
typedef struct RowChange
{
	RecordKind	   kind;
	Relation	   relation;
	RelationEntry *entry;
	HeapTuple	   old_tuple;
	HeapTuple	   new_tuple;
} RowChange;

/*
 * Appends the record of a change to the batch, which is written first if it would become too long.
 * What is needed in between is allocated in the current context.
 */
extern void
row_write(RowWriter *writer, const RowChange *change, Batch *batch, LogicalDecodingContext *ctx);

#endif /* PGTRICKLE_DECODER_ROW_H */
