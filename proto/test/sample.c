/*
 * proto/test/sample.c
 *     A batch with a record of every kind, for the tests of reader and writer.
 *
 * sample.expected holds what pgtrickle-dump prints for it.
 */
#include "sample.h"

#include <stdlib.h>

static void
grow(WireBuffer *buffer, size_t more)
{
	size_t capacity = buffer->length + more; /* tight, so that sanitizers see a byte too many */

	buffer->data = realloc(buffer->data, capacity);
	if (buffer->data == NULL)
		abort();
	buffer->capacity = capacity;
}

WireBuffer
sample_buffer(void)
{
	WireBuffer buffer = {NULL, 0, 0, grow};

	return buffer;
}

static ByteRange
text(const char *characters)
{
	return byte_range(characters, strlen(characters));
}

static void
write_sample_relation(WireBuffer *buffer)
{
	static const uint32_t publish_as[] = {16385, 16390, 4294967295u};
	ColumnView			  columns[SAMPLE_COLUMNS] = {
				   {text("id"), 1, 20, -1, ENCODING_BINARY, true, {NULL, 0}},
				   {text("name"), 2, 25, -1, ENCODING_BINARY, true, {NULL, 0}},
				   {text("amount"), 4, 1700, 655366, ENCODING_BINARY, true, {NULL, 0}},
				   {text("acl"), 5, 1033, -1, ENCODING_TEXT, true, text("app.\"Rights\"")},
				   {text("long column name with blanks"), 1600, 17, -1, ENCODING_BINARY, true, {NULL, 0}},
	   };
	RelationView relation = {.relid = 16385,
							 .schema_name = text("public"),
							 .relation_name = text("orders"),
							 .replica_identity = 'f',
							 .publish_as_count = 3,
							 .column_count = SAMPLE_COLUMNS};
	WireBuffer	 contents = sample_buffer();

	write_relation_contents(&contents, &relation, publish_as, columns);
	write_relation(buffer, 1, byte_range(contents.data, contents.length));
	free(contents.data);
}

/* A row; values that are NULL pointers have no bytes, their kinds say why. */
static void
put_row(WireBuffer *buffer, uint32_t field, const char *kinds, const ByteRange *values)
{
	WireMessage row = wire_begin_message(buffer, field);

	if (kinds != NULL)
		wire_put_bytes(buffer, TUPLE_KINDS, kinds, 2);
	for (int i = 0; i < SAMPLE_COLUMNS; i++)
	{
		if (values[i].data != NULL)
			wire_put_bytes(buffer, TUPLE_VALUES, values[i].data, values[i].length);
	}
	wire_end_message(buffer, row);
}

static WireMessage
begin_row_record(WireBuffer *buffer, RecordKind kind)
{
	WireMessage record = wire_begin_message(buffer, BATCH_RECORDS);

	wire_put_varint(buffer, RECORD_KIND, kind);
	wire_put_varint(buffer, RECORD_RELATION, 1);
	return record;
}

static void
write_sample_rows(WireBuffer *buffer)
{
	static const uint8_t long_bytes[300] = {0xde, 0xad, 0xbe, 0xef};
	static const char	 id[] = {0, 0, 0, 0, 0, 0, 1, 0};
	ByteRange			 full[SAMPLE_COLUMNS] = {byte_range(id, 8), text("it's"), text("\1\2\3"),
												 text("{postgres=r}"), byte_range(long_bytes, 300)};
	ByteRange			 sparse[SAMPLE_COLUMNS] = {byte_range(id, 8), text("")};
	WireMessage			 record;

	record = begin_row_record(buffer, KIND_INSERT);
	put_row(buffer, RECORD_NEW_ROW, NULL, full);
	wire_end_message(buffer, record);

	/* value, empty value, NULL, unchanged, not logged */
	record = begin_row_record(buffer, KIND_UPDATE);
	put_row(buffer, RECORD_OLD_ROW, NULL, full);
	put_row(buffer, RECORD_NEW_ROW, "\x90\x03", sparse);
	wire_put_varint(buffer, RECORD_FLAWS, FLAW_VALUE_TOO_LARGE);
	wire_end_message(buffer, record);

	record = begin_row_record(buffer, KIND_DELETE);
	wire_put_varint(buffer, RECORD_FLAWS, FLAW_OLD_ROW_MISSING);
	wire_end_message(buffer, record);
}

void
sample_write(WireBuffer *buffer)
{
	static const uint32_t truncated[] = {16385, 300};
	BeginView			  begin = {UINT64_C(0x100000005), UINT64_C(0x1500000028), -1};
	CommitView			  commit = {UINT64_C(0x1500000028), UINT64_C(0x1500000060), 3};
	MessageView			  transactional = {true, 7, text("catalog")};
	MessageView			  fence = {false, UINT64_C(0x1500000090), text("fence a1")};

	write_begin(buffer, &begin);
	write_sample_relation(buffer);
	write_sample_rows(buffer);
	write_truncate(buffer, truncated, 2, truncated, 1);
	write_message(buffer, &transactional);
	write_skipped(buffer, 16400);
	write_commit(buffer, &commit);
	write_message(buffer, &fence);
}
