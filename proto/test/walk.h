/*
 * proto/test/walk.h
 *     Reads all there is in a batch, as a careless user would: every list, every row, every byte.
 *
 * Whatever the bytes are, this must end, and stay inside of them: sanitizers watch.
 */
#ifndef PGTRICKLE_TEST_WALK_H
#define PGTRICKLE_TEST_WALK_H

#include <stdlib.h>

#include "records.h"

/* What the walk came across, so that no read is optimized away. */
typedef struct Walk
{
	size_t		records;
	size_t		values;
	uint64_t	checksum;
	const char *error;
} Walk;

static void
walk_bytes(Walk *walk, ByteRange bytes)
{
	for (size_t i = 0; i < bytes.length; i++)
		walk->checksum = walk->checksum * 31 + bytes.data[i];
}

static void
walk_relids(Walk *walk, RelidReader reader, uint32_t count)
{
	uint32_t relid;

	for (; relid_next(&reader, &relid); count--)
		walk->checksum += relid;
	if (count != 0)
		abort(); /* counted one way, read another */
}

static void
walk_relation(Walk *walk, const RelationView *relation)
{
	ColumnReader reader = column_reader(relation);
	ColumnView	 column;
	uint32_t	 count = 0;

	walk_bytes(walk, relation->schema_name);
	walk_bytes(walk, relation->relation_name);
	walk_relids(walk, publish_as_reader(relation), relation->publish_as_count);
	for (; column_next(&reader, &column); count++)
	{
		walk_bytes(walk, column.name);
		walk_bytes(walk, column.type_name);
	}
	if (count != relation->column_count)
		abort();
}

static void
walk_row(Walk *walk, ByteRange row, uint32_t column_count)
{
	TupleReader reader = tuple_reader(row, column_count);
	TupleValue	value;

	while (tuple_next_value(&reader, &value))
	{
		walk->values++;
		walk_bytes(walk, value.bytes);
	}
}

static Walk
walk_batch(const void *data, size_t length, uint32_t column_count)
{
	Walk		walk = {0, 0, 0, NULL};
	BatchReader batch = batch_reader(data, length);
	RecordView	record;

	while (batch_next_record(&batch, &record))
	{
		walk.records++;
		walk_bytes(&walk, record.encoded);
		if (record.kind == KIND_RELATION)
			walk_relation(&walk, &record.relation_def);
		if (record.kind == KIND_TRUNCATE)
		{
			walk_relids(&walk, truncate_reader(&record.truncate), record.truncate.relid_count);
			walk_relids(&walk, truncate_whole_reader(&record.truncate), record.truncate.whole_count);
		}
		if (record.kind == KIND_MESSAGE)
			walk_bytes(&walk, record.message.payload);
		walk_row(&walk, record.old_row, column_count);
		walk_row(&walk, record.new_row, column_count);
	}
	walk.error = batch.error;
	if (batch_error_offset(&batch) > length)
		abort();
	return walk;
}

#endif /* PGTRICKLE_TEST_WALK_H */
