/*
 * proto/test/test_records.c
 *     Unit tests of the reader and the writer, and the source of sample data for other tests.
 *
 *     test_records                 run the tests
 *     test_records --sample        print the sample batch in hex
 *     test_records --corpus DIR    write the sample's records into files, for the fuzzer
 */
#include "sample.h"
#include "walk.h"

#include <stdio.h>

static int failures;

static void
check(bool is_true, const char *statement)
{
	if (is_true)
		return;
	printf("test_records: not true: %s\n", statement);
	failures++;
}

/* ---------------------------------------------------------------------------------------------- */

static void
test_numbers(void)
{
	static const uint64_t numbers[] = {0,	  1,		  127,		  128,		 16383,
									   16384, UINT32_MAX, UINT64_MAX, INT64_MAX, 300};
	WireBuffer			  buffer = sample_buffer();

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
	{
		uint64_t   read = 99;
		WireReader reader;

		buffer.length = 0;
		wire_put_raw_varint(&buffer, numbers[i]);
		reader = wire_reader(byte_range(buffer.data, buffer.length));
		check(buffer.length == wire_varint_size(numbers[i]), "a varint has the size foretold");
		check(wire_next_varint(&reader, &read) && read == numbers[i], "a number comes back");
		check(!wire_next_varint(&reader, &read) && reader.error == NULL, "and is the only one");
		check(wire_zigzag(wire_unzigzag(numbers[i])) == numbers[i], "zigzag comes back");
	}
	check(wire_zigzag(-1) == 1 && wire_zigzag(INT64_MIN) == UINT64_MAX, "zigzag is protobuf's");
	free(buffer.data);
}

static void
test_round_trip(void)
{
	WireBuffer				sample = sample_buffer();
	static const RecordKind kinds[] = {KIND_BEGIN,	KIND_RELATION, KIND_INSERT,	 KIND_UPDATE,
									   KIND_DELETE, KIND_TRUNCATE, KIND_MESSAGE, KIND_SKIPPED,
									   KIND_COMMIT, KIND_MESSAGE};
	BatchReader				batch;
	RecordView				record;
	size_t					count = 0;
	const uint8_t		   *expected_start;

	sample_write(&sample);
	batch = batch_reader(sample.data, sample.length);
	expected_start = sample.data;
	while (batch_next_record(&batch, &record))
	{
		check(record.kind == kinds[count++], "records come in the order written");
		check(record.encoded.data == expected_start, "encoded records lie end to end");
		expected_start += record.encoded.length;
	}
	check(batch.error == NULL && count == 10, "the whole sample can be read");
	check(expected_start == sample.data + sample.length, "and nothing is left");
	free(sample.data);
}

/* One record alone is a batch, with the same bytes and meaning. */
static void
test_records_stand_alone(void)
{
	WireBuffer	sample = sample_buffer();
	BatchReader batch;
	RecordView	record;

	sample_write(&sample);
	batch = batch_reader(sample.data, sample.length);
	while (batch_next_record(&batch, &record))
	{
		Walk walk = walk_batch(record.encoded.data, record.encoded.length, SAMPLE_COLUMNS);

		check(walk.error == NULL && walk.records == 1, "a record's encoded bytes are a batch");
	}
	free(sample.data);
}

/* Every proper prefix is complete records or an error, never something else. */
static void
test_prefixes(void)
{
	WireBuffer sample = sample_buffer();
	size_t	   clean_ends = 0;

	sample_write(&sample);
	for (size_t length = 0; length < sample.length; length++)
	{
		uint8_t *exact = malloc(length);

		memcpy(exact, sample.data, length);
		if (walk_batch(exact, length, SAMPLE_COLUMNS).error == NULL)
			clean_ends++;
		free(exact);
	}
	check(clean_ends == 10, "a cut is noticed unless it is between records");
	free(sample.data);
}

typedef struct Malformed
{
	const char *what;
	const char *bytes;
	size_t		length;
	const char *error;
} Malformed;

#define BYTES(text) text, sizeof(text) - 1

static void
test_malformed(void)
{
	static const Malformed cases[] = {
		{"no kind", BYTES("\x0a\x00"), "record is of an unknown kind"},
		{"kind 10", BYTES("\x0a\x02\x08\x0a"), "record is of an unknown kind"},
		{"kind twice", BYTES("\x0a\x04\x08\x01\x08\x01"), "field occurs twice"},
		{"kind as bytes", BYTES("\x0a\x02\x0a\x00"), "field has the wrong wire type"},
		{"record as number", BYTES("\x08\x01"), "field has the wrong wire type"},
		{"begin without Begin", BYTES("\x0a\x02\x08\x01"),
		 "record does not hold the submessage of its kind"},
		{"begin with Commit", BYTES("\x0a\x04\x08\x01\x5a\x00"),
		 "record does not hold the submessage of its kind"},
		{"two submessages", BYTES("\x0a\x06\x08\x01\x32\x00\x5a\x00"),
		 "record holds two submessages"},
		{"length beyond the end", BYTES("\x0a\x05\x08\x01"), "field is longer than what holds it"},
		{"length of 2^64 - 1", BYTES("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
		 "field is longer than what holds it"},
		{"65 bits", BYTES("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"),
		 "number has more than 64 bits"},
		{"group", BYTES("\x0b"), "field has an unknown wire type"},
		{"field 0", BYTES("\x02\x00"), "field number is out of range"},
		{"insert without relation", BYTES("\x0a\x04\x08\x03\x22\x00"),
		 "row record names no relation"},
		{"insert without row", BYTES("\x0a\x04\x08\x03\x10\x01"),
		 "insert or update has no new row"},
		{"insert with old row", BYTES("\x0a\x08\x08\x03\x10\x01\x1a\x00\x22\x00"),
		 "insert has an old row"},
		{"delete with new row", BYTES("\x0a\x08\x08\x05\x10\x01\x1a\x00\x22\x00"),
		 "delete has a new row"},
		{"old row silently missing", BYTES("\x0a\x04\x08\x05\x10\x01"),
		 "old row is missing without a flaw that says so"},
		{"relation of 33 bits", BYTES("\x0a\x0a\x08\x03\x10\x80\x80\x80\x80\x10\x22\x00"),
		 "number has more than 32 bits"},
		{"relation without number", BYTES("\x0a\x06\x08\x02\x3a\x02\x30\x64"),
		 "relation has no number"},
		{"relation without identity", BYTES("\x0a\x06\x08\x02\x3a\x02\x08\x01"),
		 "relation has an unknown replica identity"},
		{"column without encoding", BYTES("\x0a\x08\x08\x02\x3a\x04\x08\x01\x3a\x00"),
		 "column has an unknown encoding"},
		{"type named twice", BYTES("\x0a\x0e\x08\x02\x3a\x0a\x3a\x08\x28\x02\x3a\x01x\x3a\x01y"),
		 "field occurs twice"},
		{"type name as number", BYTES("\x0a\x08\x08\x02\x3a\x04\x3a\x02\x38\x01"),
		 "field has the wrong wire type"},
		{"cut list of relids", BYTES("\x0a\x07\x08\x06\x42\x03\x0a\x01\x80"), "number is cut off"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		Walk walk = walk_batch(cases[i].bytes, cases[i].length, 0);

		if (walk.error == NULL || strcmp(walk.error, cases[i].error) != 0)
		{
			printf("%s: expected \"%s\", got \"%s\"\n", cases[i].what, cases[i].error,
				   walk.error == NULL ? "no error" : walk.error);
			failures++;
		}
	}
}

/* What protobuf allows and other writers do. */
static void
test_tolerated(void)
{
	check(walk_batch(BYTES("\x0a\x06\x08\x01\x32\x02\x08\x00"), 0).error == NULL, "explicit zeros");
	check(walk_batch(BYTES("\x0a\x05\x08\x81\x00\x32\x00"), 0).error == NULL, "padded numbers");
	check(walk_batch(BYTES("\x0a\x07\x08\x01\x32\x00\xa2\x06\x00"), 0).error == NULL,
		  "unknown fields");
	check(walk_batch(BYTES("\x0a\x08\x08\x06\x42\x04\x08\x07\x08\x09"), 0).error == NULL,
		  "lists that are not packed");
	check(walk_batch(NULL, 0, 0).error == NULL, "an empty batch");
}

static const char *
row_error(const char *row, size_t length, uint32_t column_count)
{
	TupleReader reader = tuple_reader(byte_range(row, length), column_count);
	TupleValue	value;

	while (tuple_next_value(&reader, &value))
		;
	return reader.fields.error == NULL ? "no error" : reader.fields.error;
}

static void
test_rows(void)
{
	check(strcmp(row_error(BYTES("\x12\x00\x12\x01x"), 2), "no error") == 0,
		  "two values fill two columns");
	check(strcmp(row_error(BYTES("\x0a\x01\x01\x12\x01x"), 2), "no error") == 0,
		  "NULL and a value fill two columns");
	check(strcmp(row_error(BYTES(""), 0), "no error") == 0, "a table without columns has rows");
	check(strcmp(row_error(BYTES("\x12\x00"), 2), "row has fewer values than columns") == 0,
		  "a missing value is noticed");
	check(strcmp(row_error(BYTES("\x12\x00\x12\x00"), 1), "row has more values than columns") == 0,
		  "a surplus value is noticed");
	check(strcmp(row_error(BYTES("\x0a\x02\x01\x01\x12\x00"), 2),
				 "row has the wrong number of column kinds") == 0,
		  "kinds must fit the columns");
	check(strcmp(row_error(BYTES("\x12\x00\x0a\x01\x00"), 1), "row has a field out of order") == 0,
		  "kinds stand first");
}

/* ---------------------------------------------------------------------------------------------- */

static int
print_sample(void)
{
	WireBuffer sample = sample_buffer();

	sample_write(&sample);
	for (size_t i = 0; i < sample.length; i++)
		printf("%02x", sample.data[i]);
	putchar('\n');
	free(sample.data);
	return 0;
}

static int
write_corpus(const char *folder)
{
	WireBuffer	sample = sample_buffer();
	BatchReader batch;
	RecordView	record;

	sample_write(&sample);
	batch = batch_reader(sample.data, sample.length);
	for (int i = 0; batch_next_record(&batch, &record); i++)
	{
		char  path[1024];
		FILE *file;

		snprintf(path, sizeof(path), "%s/record_%d", folder, i);
		file = fopen(path, "wb");
		if (file == NULL)
			return 1;
		fwrite(record.encoded.data, 1, record.encoded.length, file);
		fclose(file);
	}
	free(sample.data);
	return 0;
}

int
main(int count, char **arguments)
{
	if (count == 2 && strcmp(arguments[1], "--sample") == 0)
		return print_sample();
	if (count == 3 && strcmp(arguments[1], "--corpus") == 0)
		return write_corpus(arguments[2]);

	test_numbers();
	test_round_trip();
	test_records_stand_alone();
	test_prefixes();
	test_malformed();
	test_tolerated();
	test_rows();
	printf("test_records: %s\n", failures == 0 ? "all is well" : "failed");
	return failures == 0 ? 0 : 1;
}
