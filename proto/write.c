/*
 * proto/write.c
 *     Typed writing of the change stream.
 *
 * Straight-line code, one function per record, in the order of pgtrickle.proto.
 */
#include "write.h"

/* A record of a kind whose submessage is field `field_number`; ended by end_record. */
typedef struct OpenRecord
{
	WireMessage record;
	WireMessage submessage;
} OpenRecord;

static OpenRecord
begin_record(WireBuffer *buffer, RecordKind kind, uint32_t field_number)
{
	OpenRecord open;

	open.record = wire_begin_message(buffer, BATCH_RECORDS);
	wire_put_varint(buffer, RECORD_KIND, kind);
	open.submessage = wire_begin_message(buffer, field_number);
	return open;
}

static void
end_record(WireBuffer *buffer, OpenRecord open)
{
	wire_end_message(buffer, open.submessage);
	wire_end_message(buffer, open.record);
}

static void
put_range(WireBuffer *buffer, uint32_t number, ByteRange range)
{
	if (range.length > 0)
		wire_put_bytes(buffer, number, range.data, range.length);
}

/* A packed list, as proto3 writes repeated numbers. */
static void
put_relids(WireBuffer *buffer, uint32_t number, const uint32_t *relids, size_t count)
{
	WireMessage list;

	if (count == 0)
		return;
	list = wire_begin_message(buffer, number);
	for (size_t i = 0; i < count; i++)
		wire_put_raw_varint(buffer, relids[i]);
	wire_end_message(buffer, list);
}

void
write_begin(WireBuffer *buffer, const BeginView *begin)
{
	OpenRecord open = begin_record(buffer, KIND_BEGIN, 6);

	wire_put_varint(buffer, 1, begin->xid);
	wire_put_varint(buffer, 2, begin->commit_lsn);
	wire_put_varint(buffer, 3, wire_zigzag(begin->commit_time));
	end_record(buffer, open);
}

static void
put_column(WireBuffer *buffer, const ColumnView *column)
{
	WireMessage message = wire_begin_message(buffer, 7);

	put_range(buffer, 1, column->name);
	wire_put_varint(buffer, 2, column->attnum);
	wire_put_varint(buffer, 3, column->type_oid);
	wire_put_varint(buffer, 4, wire_zigzag(column->type_modifier));
	wire_put_varint(buffer, 5, column->encoding);
	wire_put_varint(buffer, 6, column->in_identity);
	put_range(buffer, 7, column->type_name);
	wire_end_message(buffer, message);
}

void
write_relation_contents(WireBuffer *buffer, const RelationView *relation,
						const uint32_t *publish_as, const ColumnView *columns)
{
	wire_put_varint(buffer, 2, relation->relid);
	put_range(buffer, 3, relation->schema_name);
	put_range(buffer, 4, relation->relation_name);
	put_relids(buffer, 5, publish_as, relation->publish_as_count);
	wire_put_varint(buffer, 6, (uint8_t) relation->replica_identity);
	for (uint32_t i = 0; i < relation->column_count; i++)
		put_column(buffer, &columns[i]);
}

void
write_relation(WireBuffer *buffer, uint32_t number, ByteRange contents)
{
	OpenRecord open = begin_record(buffer, KIND_RELATION, 7);

	wire_put_varint(buffer, 1, number);
	wire_reserve(buffer, contents.length);
	memcpy(buffer->data + buffer->length, contents.data, contents.length);
	buffer->length += contents.length;
	end_record(buffer, open);
}

void
write_truncate(WireBuffer *buffer, const uint32_t *relids, size_t relid_count,
			   const uint32_t *whole, size_t whole_count)
{
	OpenRecord open = begin_record(buffer, KIND_TRUNCATE, 8);

	put_relids(buffer, 1, relids, relid_count);
	put_relids(buffer, 2, whole, whole_count);
	end_record(buffer, open);
}

void
write_message(WireBuffer *buffer, const MessageView *message)
{
	OpenRecord open = begin_record(buffer, KIND_MESSAGE, 9);

	wire_put_varint(buffer, 1, message->transactional);
	wire_put_varint(buffer, 2, message->lsn);
	put_range(buffer, 3, message->payload);
	end_record(buffer, open);
}

void
write_skipped(WireBuffer *buffer, uint32_t relid)
{
	OpenRecord open = begin_record(buffer, KIND_SKIPPED, 10);

	wire_put_varint(buffer, 1, relid);
	end_record(buffer, open);
}

void
write_commit(WireBuffer *buffer, const CommitView *commit)
{
	OpenRecord open = begin_record(buffer, KIND_COMMIT, 11);

	wire_put_varint(buffer, 1, commit->commit_lsn);
	wire_put_varint(buffer, 2, commit->end_lsn);
	wire_put_varint(buffer, 3, commit->row_records);
	end_record(buffer, open);
}
