/*
 * proto/dump/by_records.c
 *     Reads batches with the project's own reader, records.c.
 *
 * Also an example of its use: every kind of record, every list, every row.
 */
#include <stdlib.h>

#include "print.h"
#include "readers.h"

static void
relation(const RelationView *view)
{
	uint32_t	   *publish_as = calloc(view->publish_as_count + 1, sizeof(uint32_t));
	ColumnView	   *columns = calloc(view->column_count + 1, sizeof(ColumnView));
	RelidReader		relids = publish_as_reader(view);
	ColumnReader	reader = column_reader(view);
	PrintedRelation printed = {*view, publish_as, columns};

	for (uint32_t i = 0; relid_next(&relids, &publish_as[i]); i++)
		;
	for (uint32_t i = 0; column_next(&reader, &columns[i]); i++)
		;
	print_relation(&printed);
	free(publish_as);
	free(columns);
}

static void
truncate(const TruncateView *view)
{
	uint32_t   *relids = calloc(view->relid_count + 1, sizeof(uint32_t));
	uint32_t   *whole = calloc(view->whole_count + 1, sizeof(uint32_t));
	RelidReader reader = truncate_reader(view);
	RelidReader whole_reader = truncate_whole_reader(view);

	for (uint32_t i = 0; relid_next(&reader, &relids[i]); i++)
		;
	for (uint32_t i = 0; relid_next(&whole_reader, &whole[i]); i++)
		;
	print_truncate(relids, view->relid_count, whole, view->whole_count);
	free(relids);
	free(whole);
}

static bool
row_image(const RecordView *record, const char *label, ByteRange image)
{
	TupleReader reader;
	TupleValue	value;

	if (image.data == NULL)
		return true;
	print_row_image(label);
	reader = tuple_reader(image, (uint32_t) print_column_count(record->relation));
	for (uint32_t i = 0; tuple_next_value(&reader, &value); i++)
		print_value(record->relation, i, &value);
	return reader.fields.error == NULL;
}

static bool
row(const RecordView *record)
{
	bool is_good;

	print_row_start(record->kind, record->relation);
	is_good = print_column_count(record->relation) >= 0 &&
			  row_image(record, "old", record->old_row) &&
			  row_image(record, "new", record->new_row);
	print_row_end(record->flaws);
	return is_good;
}

static bool
print_record(const RecordView *record)
{
	switch (record->kind)
	{
		case KIND_BEGIN:
			print_begin(&record->begin);
			break;
		case KIND_RELATION:
			relation(&record->relation_def);
			break;
		case KIND_INSERT:
		case KIND_UPDATE:
		case KIND_DELETE:
			return row(record);
		case KIND_TRUNCATE:
			truncate(&record->truncate);
			break;
		case KIND_MESSAGE:
			print_message(&record->message);
			break;
		case KIND_SKIPPED:
			print_skipped(record->skipped_relid);
			break;
		case KIND_COMMIT:
			print_commit(&record->commit);
			break;
	}
	return true;
}

bool
print_batch_by_records(ByteRange bytes)
{
	BatchReader batch = batch_reader(bytes.data, bytes.length);
	RecordView	record;

	while (batch_next_record(&batch, &record))
	{
		if (!print_record(&record))
		{
			print_error("malformed row");
			return false;
		}
	}
	if (batch.error == NULL)
		return true;
	print_error("malformed batch");
	return false;
}
