/*
 * proto/dump/by_protobuf_c.c
 *     Reads batches with protobuf-c and the code that protoc-c generates from pgtrickle.proto.
 *
 * The independent witness: nothing here may use wire.c or records.c (their structs are only the
 * form in which print.c wants to be told).
 */
#include <stdlib.h>

#include "pgtrickle.pb-c.h"
#include "print.h"
#include "readers.h"

static ByteRange
text(const char *characters)
{
	return byte_range(characters, strlen(characters));
}

static void
relation(const Pgtrickle__Relation *message)
{
	ColumnView	   *columns = calloc(message->n_columns + 1, sizeof(ColumnView));
	PrintedRelation printed = {
		.view = {.number = message->number,
				 .relid = message->relid,
				 .schema_name = text(message->schema_name),
				 .relation_name = text(message->relation_name),
				 .replica_identity = (char) message->replica_identity,
				 .publish_as_count = (uint32_t) message->n_publish_as,
				 .column_count = (uint32_t) message->n_columns},
		.publish_as = message->publish_as,
		.columns = columns,
	};

	for (size_t i = 0; i < message->n_columns; i++)
	{
		const Pgtrickle__Column *column = message->columns[i];

		columns[i] = (ColumnView){
			.name = text(column->name),
			.attnum = column->attnum,
			.type_oid = column->type_oid,
			.type_modifier = column->type_modifier,
			.encoding = (ValueEncoding) column->encoding,
			.in_identity = column->in_identity,
			.type_name = text(column->type_name),
		};
	}
	print_relation(&printed);
	free(columns);
}

static bool
row_image(const Pgtrickle__Record *record, const char *label, const Pgtrickle__Tuple *tuple)
{
	size_t next = 0;
	int	   column_count = print_column_count(record->relation);

	if (tuple == NULL)
		return true;
	print_row_image(label);
	for (int i = 0; i < column_count; i++)
	{
		TupleValue value = {VALUE_PRESENT, {NULL, 0}};

		if (tuple->kinds.len > (size_t) i / 4)
			value.kind = (ValueKind) (tuple->kinds.data[i / 4] >> (2 * (i % 4)) & 3);
		if (value.kind == VALUE_PRESENT)
		{
			if (next == tuple->n_values)
				return false;
			value.bytes = byte_range(tuple->values[next].data, tuple->values[next].len);
			next++;
		}
		print_value(record->relation, (uint32_t) i, &value);
	}
	return next == tuple->n_values;
}

static bool
row(const Pgtrickle__Record *record)
{
	bool is_good;

	print_row_start((RecordKind) record->kind, record->relation);
	is_good = print_column_count(record->relation) >= 0 &&
			  row_image(record, "old", record->old_row) &&
			  row_image(record, "new", record->new_row);
	print_row_end(record->flaws);
	return is_good;
}

static void
begin(const Pgtrickle__Begin *message)
{
	BeginView view = {message->xid, message->commit_lsn, message->commit_time};

	print_begin(&view);
}

static void
logical_message(const Pgtrickle__Message *message)
{
	MessageView view = {message->transactional, message->lsn,
						byte_range(message->payload.data, message->payload.len)};

	print_message(&view);
}

static void
commit(const Pgtrickle__Commit *message)
{
	CommitView view = {message->commit_lsn, message->end_lsn, message->row_records};

	print_commit(&view);
}

/* Prints a record; false when it does not hold what its kind says. */
static bool
print_record(const Pgtrickle__Record *record)
{
	switch (record->kind)
	{
		case PGTRICKLE__KIND__KIND_INSERT:
		case PGTRICKLE__KIND__KIND_UPDATE:
		case PGTRICKLE__KIND__KIND_DELETE:
			return row(record);
		case PGTRICKLE__KIND__KIND_BEGIN:
			if (record->begin != NULL)
				begin(record->begin);
			return record->begin != NULL;
		case PGTRICKLE__KIND__KIND_RELATION:
			if (record->relation_def != NULL)
				relation(record->relation_def);
			return record->relation_def != NULL;
		case PGTRICKLE__KIND__KIND_TRUNCATE:
			if (record->truncate != NULL)
				print_truncate(record->truncate->relids, record->truncate->n_relids,
							   record->truncate->whole, record->truncate->n_whole);
			return record->truncate != NULL;
		case PGTRICKLE__KIND__KIND_MESSAGE:
			if (record->message != NULL)
				logical_message(record->message);
			return record->message != NULL;
		case PGTRICKLE__KIND__KIND_SKIPPED:
			if (record->skipped != NULL)
				print_skipped(record->skipped->relid);
			return record->skipped != NULL;
		case PGTRICKLE__KIND__KIND_COMMIT:
			if (record->commit != NULL)
				commit(record->commit);
			return record->commit != NULL;
		default:
			return false;
	}
}

bool
print_batch_by_protobuf_c(ByteRange bytes)
{
	Pgtrickle__Batch *batch = pgtrickle__batch__unpack(NULL, bytes.length, bytes.data);
	bool			  is_good = true;

	if (batch == NULL)
	{
		print_error("malformed batch");
		return false;
	}
	for (size_t i = 0; i < batch->n_records && is_good; i++)
		is_good = print_record(batch->records[i]);
	if (!is_good)
		print_error("malformed record");
	pgtrickle__batch__free_unpacked(batch, NULL);
	return is_good;
}
