/*
 * proto/records.c
 *     Typed reading of the change stream.
 *
 * One static function per message of pgtrickle.proto, each a loop over its fields with a switch.
 * The stream is stricter than protobuf at large: a known field must have its wire type and a
 * singular one occurs at most once, so that nothing depends on which of two wins.  Unknown fields
 * are skipped (a newer writer), unknown kinds of records are not (they could mean changes).
 */
#include "records.h"

/* ------------------------------------------------------------------------------------------------
 * Reading one message
 */

/* A reader over one message that remembers which singular fields it has seen. */
typedef struct MessageReader
{
	WireReader fields;
	WireField  field;
	uint32_t   seen; /* bit set of field numbers below 32 */
} MessageReader;

static MessageReader
message_reader(ByteRange input)
{
	MessageReader reader = {.fields = wire_reader(input)};

	return reader;
}

static bool
message_next_field(MessageReader *reader)
{
	return wire_next_field(&reader->fields, &reader->field);
}

/* The start of the field's value, for error positions: good enough to find it in a hex dump. */
static bool
message_fail(MessageReader *reader, const char *error)
{
	return wire_fail(&reader->fields, error, reader->fields.next);
}

/* The current field is singular and has this wire type. */
static bool
accept_singular(MessageReader *reader, WireType type)
{
	uint32_t bit = UINT32_C(1) << reader->field.number;

	if (reader->field.type != type)
		return message_fail(reader, "field has the wrong wire type");
	if (reader->seen & bit)
		return message_fail(reader, "field occurs twice");
	reader->seen |= bit;
	return true;
}

static bool
take_uint64(MessageReader *reader, uint64_t *value)
{
	if (!accept_singular(reader, WIRE_VARINT))
		return false;
	*value = reader->field.varint;
	return true;
}

static bool
take_uint32(MessageReader *reader, uint32_t *value)
{
	if (!accept_singular(reader, WIRE_VARINT))
		return false;
	if (reader->field.varint > UINT32_MAX)
		return message_fail(reader, "number has more than 32 bits");
	*value = (uint32_t) reader->field.varint;
	return true;
}

static bool
take_int32(MessageReader *reader, int32_t *value)
{
	uint32_t zigzag = 0;

	if (!take_uint32(reader, &zigzag))
		return false;
	*value = (int32_t) wire_unzigzag(zigzag);
	return true;
}

static bool
take_bool(MessageReader *reader, bool *value)
{
	uint64_t number;

	if (!take_uint64(reader, &number))
		return false;
	*value = number != 0;
	return true;
}

static bool
take_bytes(MessageReader *reader, ByteRange *bytes)
{
	if (!accept_singular(reader, WIRE_BYTES))
		return false;
	*bytes = reader->field.bytes;
	return true;
}

/* ------------------------------------------------------------------------------------------------
 * Lists of relids: packed (as proto3 writes them) or one field each
 */

static RelidReader
relid_reader(ByteRange fields, uint32_t field_number)
{
	RelidReader reader = {wire_reader(fields), wire_reader(byte_range(NULL, 0)), field_number};

	return reader;
}

static bool
take_relid(RelidReader *reader, uint64_t number, uint32_t *relid)
{
	if (number > UINT32_MAX)
		return wire_fail(&reader->fields, "number has more than 32 bits", reader->fields.next);
	*relid = (uint32_t) number;
	return true;
}

bool
relid_next(RelidReader *reader, uint32_t *relid)
{
	WireField field;
	uint64_t  number;

	for (;;)
	{
		if (wire_next_varint(&reader->packed, &number))
			return take_relid(reader, number, relid);
		if (reader->packed.error != NULL)
			return wire_fail(&reader->fields, reader->packed.error, reader->packed.error_at);

		if (!wire_next_field(&reader->fields, &field))
			return false;
		if (field.number != reader->field_number)
			continue;
		if (field.type == WIRE_VARINT)
			return take_relid(reader, field.varint, relid);
		if (field.type != WIRE_BYTES)
			return wire_fail(&reader->fields, "field has the wrong wire type", reader->fields.next);
		reader->packed = wire_reader(field.bytes);
	}
}

/* Counts the list, which checks it too. */
static bool
count_relids(MessageReader *reader, ByteRange fields, uint32_t field_number, uint32_t *count)
{
	RelidReader relids = relid_reader(fields, field_number);
	uint32_t	relid;

	*count = 0;
	while (relid_next(&relids, &relid))
		(*count)++;
	if (relids.fields.error != NULL)
		return wire_fail(&reader->fields, relids.fields.error, relids.fields.error_at);
	return true;
}

#define RELATION_PUBLISH_AS 5
#define TRUNCATE_RELIDS 1
#define TRUNCATE_WHOLE 2

RelidReader
publish_as_reader(const RelationView *relation)
{
	return relid_reader(relation->fields, RELATION_PUBLISH_AS);
}

RelidReader
truncate_reader(const TruncateView *truncate)
{
	return relid_reader(truncate->fields, TRUNCATE_RELIDS);
}

RelidReader
truncate_whole_reader(const TruncateView *truncate)
{
	return relid_reader(truncate->fields, TRUNCATE_WHOLE);
}

/* ------------------------------------------------------------------------------------------------
 * The messages
 */

static bool
read_begin(MessageReader *reader, BeginView *begin)
{
	uint64_t zigzag = 0;

	memset(begin, 0, sizeof(*begin));
	while (message_next_field(reader))
	{
		switch (reader->field.number)
		{
			case 1:
				take_uint64(reader, &begin->xid);
				break;
			case 2:
				take_uint64(reader, &begin->commit_lsn);
				break;
			case 3:
				if (take_uint64(reader, &zigzag))
					begin->commit_time = wire_unzigzag(zigzag);
				break;
		}
	}
	return reader->fields.error == NULL;
}

static bool
read_column(MessageReader *reader, ColumnView *column)
{
	uint32_t encoding = 0;

	memset(column, 0, sizeof(*column));
	while (message_next_field(reader))
	{
		switch (reader->field.number)
		{
			case 1:
				take_bytes(reader, &column->name);
				break;
			case 2:
				take_uint32(reader, &column->attnum);
				break;
			case 3:
				take_uint32(reader, &column->type_oid);
				break;
			case 4:
				take_int32(reader, &column->type_modifier);
				break;
			case 5:
				take_uint32(reader, &encoding);
				break;
			case 6:
				take_bool(reader, &column->in_identity);
				break;
			case 7:
				take_bytes(reader, &column->type_name);
				break;
		}
	}
	if (reader->fields.error == NULL && encoding != ENCODING_BINARY && encoding != ENCODING_TEXT)
		message_fail(reader, "column has an unknown encoding");
	column->encoding = (ValueEncoding) encoding;
	return reader->fields.error == NULL;
}

ColumnReader
column_reader(const RelationView *relation)
{
	ColumnReader reader = {wire_reader(relation->fields)};

	return reader;
}

#define RELATION_COLUMNS 7

bool
column_next(ColumnReader *reader, ColumnView *column)
{
	WireField field;

	while (wire_next_field(&reader->fields, &field))
	{
		if (field.number == RELATION_COLUMNS && field.type == WIRE_BYTES)
		{
			MessageReader message = message_reader(field.bytes);

			return read_column(&message, column);
		}
	}
	return false;
}

/* One column among the fields of a relation: counts and checks it. */
static void
check_column(MessageReader *reader, RelationView *relation)
{
	MessageReader message = message_reader(reader->field.bytes);
	ColumnView	  column;

	if (reader->field.type != WIRE_BYTES)
		message_fail(reader, "field has the wrong wire type");
	else if (!read_column(&message, &column))
		wire_fail(&reader->fields, message.fields.error, message.fields.error_at);
	relation->column_count++;
}

static bool
read_relation(MessageReader *reader, RelationView *relation)
{
	uint32_t replica_identity = 0;

	memset(relation, 0, sizeof(*relation));
	relation->fields =
		byte_range(reader->fields.next, (size_t) (reader->fields.end - reader->fields.next));
	while (message_next_field(reader))
	{
		switch (reader->field.number)
		{
			case 1:
				take_uint32(reader, &relation->number);
				break;
			case 2:
				take_uint32(reader, &relation->relid);
				break;
			case 3:
				take_bytes(reader, &relation->schema_name);
				break;
			case 4:
				take_bytes(reader, &relation->relation_name);
				break;
			case 6:
				take_uint32(reader, &replica_identity);
				break;
			case RELATION_COLUMNS:
				check_column(reader, relation);
				break;
		}
	}
	if (reader->fields.error != NULL)
		return false;
	if (relation->number == 0)
		return message_fail(reader, "relation has no number");
	if (replica_identity < 'a' || replica_identity > 'z')
		return message_fail(reader, "relation has an unknown replica identity");
	relation->replica_identity = (char) replica_identity;
	return count_relids(reader, relation->fields, RELATION_PUBLISH_AS, &relation->publish_as_count);
}

static bool
read_truncate(MessageReader *reader, TruncateView *truncate)
{
	truncate->fields =
		byte_range(reader->fields.next, (size_t) (reader->fields.end - reader->fields.next));
	return count_relids(reader, truncate->fields, TRUNCATE_RELIDS, &truncate->relid_count) &&
		   count_relids(reader, truncate->fields, TRUNCATE_WHOLE, &truncate->whole_count);
}

static bool
read_message(MessageReader *reader, MessageView *message)
{
	memset(message, 0, sizeof(*message));
	message->payload = byte_range(reader->fields.next, 0);
	while (message_next_field(reader))
	{
		switch (reader->field.number)
		{
			case 1:
				take_bool(reader, &message->transactional);
				break;
			case 2:
				take_uint64(reader, &message->lsn);
				break;
			case 3:
				take_bytes(reader, &message->payload);
				break;
		}
	}
	return reader->fields.error == NULL;
}

static bool
read_skipped(MessageReader *reader, uint32_t *relid)
{
	*relid = 0;
	while (message_next_field(reader))
	{
		if (reader->field.number == 1)
			take_uint32(reader, relid);
	}
	return reader->fields.error == NULL;
}

static bool
read_commit(MessageReader *reader, CommitView *commit)
{
	memset(commit, 0, sizeof(*commit));
	while (message_next_field(reader))
	{
		switch (reader->field.number)
		{
			case 1:
				take_uint64(reader, &commit->commit_lsn);
				break;
			case 2:
				take_uint64(reader, &commit->end_lsn);
				break;
			case 3:
				take_uint64(reader, &commit->row_records);
				break;
		}
	}
	return reader->fields.error == NULL;
}

/* ------------------------------------------------------------------------------------------------
 * The record around them
 */

/* What a record of each kind must hold besides its kind. */
static bool
check_row(MessageReader *reader, const RecordView *record)
{
	bool has_old = record->old_row.data != NULL;
	bool has_new = record->new_row.data != NULL;

	if (record->relation == 0)
		return message_fail(reader, "row record names no relation");
	if (has_new != (record->kind != KIND_DELETE))
		return message_fail(reader,
							has_new ? "delete has a new row" : "insert or update has no new row");
	if (has_old && record->kind == KIND_INSERT)
		return message_fail(reader, "insert has an old row");
	if (!has_old && record->kind != KIND_INSERT && !(record->flaws & FLAW_OLD_ROW_MISSING))
		return message_fail(reader, "old row is missing without a flaw that says so");
	return true;
}

static bool
read_submessage(MessageReader *reader, RecordView *record, ByteRange contents)
{
	MessageReader sub = message_reader(contents);
	bool		  is_good = false;

	switch (record->kind)
	{
		case KIND_BEGIN:
			is_good = read_begin(&sub, &record->begin);
			break;
		case KIND_RELATION:
			is_good = read_relation(&sub, &record->relation_def);
			break;
		case KIND_TRUNCATE:
			is_good = read_truncate(&sub, &record->truncate);
			break;
		case KIND_MESSAGE:
			is_good = read_message(&sub, &record->message);
			break;
		case KIND_SKIPPED:
			is_good = read_skipped(&sub, &record->skipped_relid);
			break;
		case KIND_COMMIT:
			is_good = read_commit(&sub, &record->commit);
			break;
		default:
			break; /* rows have no submessage */
	}
	if (!is_good)
		return wire_fail(&reader->fields, sub.fields.error, sub.fields.error_at);
	return true;
}

/* The field of Record that holds the submessage of a kind; 0: the kind has none. */
static uint32_t
submessage_field(RecordKind kind)
{
	switch (kind)
	{
		case KIND_BEGIN:
			return 6;
		case KIND_RELATION:
			return 7;
		case KIND_TRUNCATE:
			return 8;
		case KIND_MESSAGE:
			return 9;
		case KIND_SKIPPED:
			return 10;
		case KIND_COMMIT:
			return 11;
		default:
			return 0;
	}
}

static bool
read_record(MessageReader *reader, RecordView *record)
{
	uint32_t  kind = 0;
	uint32_t  submessage_number = 0;
	ByteRange submessage = byte_range(NULL, 0);

	while (message_next_field(reader))
	{
		switch (reader->field.number)
		{
			case 1:
				take_uint32(reader, &kind);
				break;
			case 2:
				take_uint32(reader, &record->relation);
				break;
			case 3:
				take_bytes(reader, &record->old_row);
				break;
			case 4:
				take_bytes(reader, &record->new_row);
				break;
			case 5:
				take_uint32(reader, &record->flaws);
				break;
			case 6:
			case 7:
			case 8:
			case 9:
			case 10:
			case 11:
				if (submessage.data != NULL)
					message_fail(reader, "record holds two submessages");
				submessage_number = reader->field.number;
				take_bytes(reader, &submessage);
				break;
		}
	}
	if (reader->fields.error != NULL)
		return false;
	if (kind < KIND_BEGIN || kind > KIND_COMMIT)
		return message_fail(reader, "record is of an unknown kind");
	record->kind = (RecordKind) kind;
	if (submessage_number != submessage_field(record->kind))
		return message_fail(reader, "record does not hold the submessage of its kind");
	if (record_is_row(record))
		return check_row(reader, record);
	return read_submessage(reader, record, submessage);
}

BatchReader
batch_reader(const void *data, size_t length)
{
	BatchReader batch = {wire_reader(byte_range(data, length)), (const uint8_t *) data, NULL};

	return batch;
}

bool
batch_next_record(BatchReader *batch, RecordView *record)
{
	const uint8_t *start = batch->fields.next;
	WireField	   field;

	while (wire_next_field(&batch->fields, &field))
	{
		MessageReader reader = message_reader(field.bytes);

		if (field.number != 1) /* a newer writer's field of Batch? */
		{
			start = batch->fields.next;
			continue;
		}
		memset(record, 0, sizeof(*record));
		record->encoded = byte_range(start, (size_t) (batch->fields.next - start));
		if (field.type != WIRE_BYTES)
			wire_fail(&batch->fields, "field has the wrong wire type", start);
		else if (read_record(&reader, record))
			return true;
		else
			wire_fail(&batch->fields, reader.fields.error, reader.fields.error_at);
	}
	batch->error = batch->fields.error;
	return false;
}

size_t
batch_error_offset(const BatchReader *batch)
{
	return batch->error == NULL ? 0 : (size_t) (batch->fields.error_at - batch->start);
}

/* ------------------------------------------------------------------------------------------------
 * Rows
 */


TupleReader
tuple_reader(ByteRange row, uint32_t column_count)
{
	TupleReader reader = {.fields = wire_reader(row), .column_count = column_count};
	WireReader	ahead = reader.fields;
	WireField	field;

	/*
	 * The kinds, if any, stand before the values: writers write fields in the order of their
	 * numbers.
	 */
	if (wire_next_field(&ahead, &field) && field.number == TUPLE_KINDS && field.type == WIRE_BYTES)
	{
		reader.kinds = field.bytes;
		reader.fields = ahead;
		if (field.bytes.length != ((size_t) column_count + 3) / 4)
			wire_fail(&reader.fields, "row has the wrong number of column kinds", row.data);
	}
	return reader;
}

/* The next field that is a value.  False at the end of the row too. */
static bool
next_present_value(TupleReader *reader, ByteRange *bytes)
{
	WireField field;

	while (wire_next_field(&reader->fields, &field))
	{
		if (field.number == TUPLE_VALUES && field.type == WIRE_BYTES)
		{
			*bytes = field.bytes;
			return true;
		}
		if (field.number == TUPLE_VALUES || field.number == TUPLE_KINDS)
			return wire_fail(&reader->fields, "row has a field out of order", reader->fields.next);
	}
	return false;
}

bool
tuple_next_value(TupleReader *reader, TupleValue *value)
{
	uint32_t column = reader->column;

	if (reader->fields.error != NULL)
		return false;
	if (column == reader->column_count)
	{
		if (next_present_value(reader, &value->bytes))
			wire_fail(&reader->fields, "row has more values than columns", value->bytes.data);
		return false;
	}

	reader->column++;
	value->kind = VALUE_PRESENT;
	value->bytes = byte_range(NULL, 0);
	if (reader->kinds.data != NULL)
		value->kind = (ValueKind) (reader->kinds.data[column / 4] >> (2 * (column % 4)) & 3);
	if (value->kind != VALUE_PRESENT || next_present_value(reader, &value->bytes))
		return true;
	return wire_fail(&reader->fields, "row has fewer values than columns", reader->fields.end);
}
