/*
 * applier/test/test_pgoutput.c
 *     A recorded stream of pgoutput becomes the records it should; a damaged one does no harm.
 *
 *     test_pgoutput              run the tests, in applier/
 *     test_pgoutput --print      what pgoutput.recorded becomes: after a look at it, pgoutput.expected
 *
 * pgoutput.sql says what was recorded and how to record again.
 */
#include <inttypes.h>

#include "pgoutput.h"
#include "proto/records.h"
#include "testing.h"

#define RECORDED "test/pgoutput.recorded"
#define EXPECTED "test/pgoutput.expected"

#define DAMAGED_STREAMS 20000
#define COLUMNS_MAX 100

/* ------------------------------------------------------------------------------------------------
 * The recording
 */

typedef struct Recording
{
	uint8_t **messages; /* each in memory of its exact size, for sanitizers */
	size_t	 *lengths;
	size_t	  count;
	size_t	  capacity;
} Recording;

static char *
read_file(const char *path)
{
	FILE *file = fopen(path, "r");
	Text  text = {0};
	char  part[4096];

	CHECK(file != NULL);
	text_append(&text, "");
	while (file != NULL && fgets(part, sizeof(part), file) != NULL)
		text_append(&text, part);
	if (file != NULL)
		fclose(file);
	return text.data;
}

static void
add_message(Recording *recording, const char *hex)
{
	size_t	 length = strlen(hex) / 2;
	size_t	 capacity = recording->capacity;
	uint8_t *message = memory_take(length);

	for (size_t i = 0; i < length; i++)
	{
		unsigned byte;

		CHECK(sscanf(hex + 2 * i, "%2x", &byte) == 1);
		message[i] = (uint8_t) byte;
	}
	recording->messages =
		memory_grow_array(recording->messages, recording->count, &capacity, sizeof(uint8_t *));
	recording->lengths = memory_grow_array(recording->lengths, recording->count,
										   &recording->capacity, sizeof(size_t));
	recording->messages[recording->count] = message;
	recording->lengths[recording->count++] = length;
}

static Recording
recording_read(void)
{
	Recording recording = {0};
	char	 *text = read_file(RECORDED);

	for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"))
	{
		if (line[0] != '#')
			add_message(&recording, line);
	}
	free(text);
	return recording;
}

static void
recording_free(Recording *recording)
{
	for (size_t i = 0; i < recording->count; i++)
		free(recording->messages[i]);
	free(recording->messages);
	free(recording->lengths);
}

/* ------------------------------------------------------------------------------------------------
 * Records as text
 */

static void
print_range(Text *text, ByteRange range)
{
	if (range.length > 40)
		text_append_format(text, "%.10s...%zu bytes", (const char *) range.data, range.length);
	else
		text_append_format(text, "%.*s", (int) range.length, (const char *) range.data);
}

static uint32_t column_counts[COLUMNS_MAX]; /* by the relation's number */

static void
print_relation(Text *text, const RelationView *view)
{
	ColumnReader columns = column_reader(view);
	RelidReader	 relids = publish_as_reader(view);
	ColumnView	 column;
	uint32_t	 relid;

	text_append_format(text, "relation %u %u ", view->number, view->relid);
	print_range(text, view->schema_name);
	text_append(text, ".");
	print_range(text, view->relation_name);
	text_append(text, " as");
	while (relid_next(&relids, &relid))
		text_append_format(text, " %u", relid);
	text_append_format(text, " identity %c:", view->replica_identity);
	while (column_next(&columns, &column))
	{
		text_append(text, " ");
		print_range(text, column.name);
		text_append_format(text, ":%u%s%s", column.type_oid,
						   column.encoding == ENCODING_TEXT ? "~" : "",
						   column.in_identity ? "*" : "");
		if (column.type_modifier != -1)
			text_append_format(text, "(%d)", column.type_modifier);
		CHECK(column.attnum == 0 && column.type_name.data == NULL);
	}
	if (view->number < COLUMNS_MAX)
		column_counts[view->number] = view->column_count;
}

static void
print_row(Text *text, const char *label, uint32_t relation, ByteRange row)
{
	static const char *const kinds[] = {"", "NULL", "UNCHANGED", "NOT_LOGGED"};
	TupleReader				 reader;
	TupleValue				 value;

	if (row.data == NULL)
		return;
	reader = tuple_reader(row, relation < COLUMNS_MAX ? column_counts[relation] : 0);
	text_append_format(text, " %s:", label);
	while (tuple_next_value(&reader, &value))
	{
		text_append_format(text, " %s", kinds[value.kind]);
		if (value.kind == VALUE_PRESENT)
		{
			text_append(text, "'");
			print_range(text, value.bytes);
			text_append(text, "'");
		}
	}
	CHECK(reader.fields.error == NULL);
}

static void
print_record(Text *text, const RecordView *record)
{
	RelidReader truncated;
	uint32_t	relid;

	switch (record->kind)
	{
		case KIND_BEGIN:
			text_append_format(text, "begin %" PRIu64 " %" PRIX64 " %" PRId64, record->begin.xid,
							   record->begin.commit_lsn, record->begin.commit_time);
			break;
		case KIND_RELATION:
			print_relation(text, &record->relation_def);
			break;
		case KIND_INSERT:
		case KIND_UPDATE:
		case KIND_DELETE:
			text_append_format(text, "%s %u",
							   record->kind == KIND_INSERT	 ? "insert"
							   : record->kind == KIND_UPDATE ? "update"
															 : "delete",
							   record->relation);
			print_row(text, "old", record->relation, record->old_row);
			print_row(text, "new", record->relation, record->new_row);
			if (record->flaws != 0)
				text_append_format(text, " flaws %u", record->flaws);
			break;
		case KIND_TRUNCATE:
			text_append(text, "truncate");
			truncated = truncate_reader(&record->truncate);
			while (relid_next(&truncated, &relid))
				text_append_format(text, " %u", relid);
			break;
		case KIND_MESSAGE:
			text_append(text, record->message.transactional ? "message inside: " : "message: ");
			print_range(text, record->message.payload);
			break;
		case KIND_SKIPPED:
			text_append_format(text, "skipped %u", record->skipped_relid);
			break;
		case KIND_COMMIT:
			text_append_format(text, "commit %" PRIX64 " %" PRIX64 " rows %" PRIu64,
							   record->commit.commit_lsn, record->commit.end_lsn,
							   record->commit.row_records);
			break;
	}
	text_append(text, "\n");
}

static void
print_batch(Text *text, const uint8_t *data, size_t length)
{
	BatchReader batch = batch_reader(data, length);
	RecordView	record;

	while (batch_next_record(&batch, &record))
		print_record(text, &record);
	CHECK(batch.error == NULL);
}

/* ------------------------------------------------------------------------------------------------
 * The tests
 */

/* plain, whole, other, root of the recording; neither its leaf nor the table with the odd name. */
static Oid wanted[] = {0, 0, 0, 0};

/* The recording's first line tells the OIDs: "# 16395 plain, 16402 whole, ..." */
static void
find_wanted(void)
{
	static const char *const names[] = {" plain,", " whole,", " other,", " root,"};
	char					*text = read_file(RECORDED);

	for (size_t i = 0; i < 4; i++)
	{
		char *at = strstr(text, names[i]);

		CHECK(at != NULL);
		while (at != NULL && at > text && at[-1] >= '0' && at[-1] <= '9')
			at--;
		wanted[i] = at == NULL ? 0 : (Oid) strtoul(at, NULL, 10);
	}
	free(text);
}

/* What the recording becomes. */
static Text
convert(const Recording *recording, Xid recent_xid)
{
	Pgoutput	  *pgoutput = pgoutput_create(wanted, 4, recent_xid);
	Text		   text = {0};
	Error		   error = {0};
	const uint8_t *batch;
	size_t		   length;

	text_append(&text, "");
	for (size_t i = 0; i < recording->count; i++)
	{
		bool converted = pgoutput_convert(pgoutput, recording->messages[i], recording->lengths[i],
										  &batch, &length, &error);

		CHECK(converted);
		if (!converted)
			fprintf(stderr, "message %zu: %s\n", i, error.message);
		else
			print_batch(&text, batch, length);
	}
	pgoutput_free(pgoutput);
	return text;
}

static void
test_recording(const Recording *recording)
{
	Text  text = convert(recording, 0);
	char *expected = read_file(EXPECTED);

	CHECK(strcmp(text.data, expected) == 0);
	free(expected);
	text_free(&text);
}

/* The 32 bits of the recording's first transaction, with the epoch that is near. */
static uint64_t
first_xid(const Recording *recording, Xid recent_xid)
{
	Text	 text = convert(recording, recent_xid);
	uint64_t xid = 0;

	CHECK(sscanf(text.data, "begin %" SCNu64, &xid) == 1);
	text_free(&text);
	return xid;
}

static void
test_xids(const Recording *recording)
{
	uint64_t xid = first_xid(recording, 0);
	uint64_t epoch = UINT64_C(1) << 32;

	CHECK(xid > 0 && xid < epoch);
	CHECK(first_xid(recording, xid + 5) == xid);
	CHECK(first_xid(recording, 7 * epoch + xid - 1000) == 7 * epoch + xid);
	CHECK(first_xid(recording, 7 * epoch + xid + 1000) == 7 * epoch + xid);
	CHECK(first_xid(recording, 8 * epoch - 5) == 8 * epoch + xid); /* ours is of the next epoch */
	CHECK(first_xid(recording, epoch - 5) == epoch + xid);
}

/* Every message cut anywhere is an error, and so is one with a byte too many. */
static void
test_cuts(const Recording *recording)
{
	Error error = {0};

	for (size_t i = 0; i < recording->count; i++)
	{
		size_t step = recording->lengths[i] > 500 ? 97 : 1;

		for (size_t cut = 0; cut <= recording->lengths[i]; cut += step)
		{
			Pgoutput	  *pgoutput = pgoutput_create(wanted, 4, 0);
			size_t		   cut_length = cut < recording->lengths[i] ? cut : cut + 1;
			uint8_t		  *message = memory_take_zeroed(cut_length);
			const uint8_t *batch;
			size_t		   length;
			bool		   converted = true;

			memcpy(message, recording->messages[i], cut < cut_length ? cut : cut_length);
			for (size_t j = 0; j < i; j++)
				CHECK(pgoutput_convert(pgoutput, recording->messages[j], recording->lengths[j],
									   &batch, &length, &error));
			/* Of an origin, and of rows that nobody wants, the contents do not matter. */
			converted = pgoutput_convert(pgoutput, message, cut_length, &batch, &length, &error);
			CHECK(!converted || strchr("O", recording->messages[i][0]) != NULL ||
				  (strchr("IUD", recording->messages[i][0]) != NULL && cut_length >= 5));
			free(message);
			pgoutput_free(pgoutput);
		}
	}
}

static void
damage(uint8_t *message, size_t *length)
{
	static const uint8_t nasty[] = {0x00, 0x01, 0x7f, 0x80, 0xff, 'n',
									'u',  't',	'b',  'K',	'O',  'N'};
	size_t				 at = *length == 0 ? 0 : testing_random() % *length;

	if (*length == 0)
		return;
	switch (testing_random() % 4)
	{
		case 0:
			message[at] ^= (uint8_t) (1 << testing_random() % 8);
			break;
		case 1:
			message[at] = nasty[testing_random() % sizeof(nasty)];
			break;
		case 2:
			*length = at;
			break;
		default:
			memmove(message + at, message + at + 1, *length - at - 1);
			(*length)--;
			break;
	}
}

/* One stream with damaged messages, some left out: ends, and what comes out can be read. */
static bool
convert_damaged(const Recording *recording)
{
	Pgoutput *pgoutput = pgoutput_create(wanted, 4, testing_random());
	size_t	  first = testing_random() % recording->count;
	bool	  converted = true;

	for (size_t i = 0; i < recording->count && converted; i++)
	{
		size_t		   length = recording->lengths[i];
		uint8_t		  *message = memory_take(length + 1);
		uint8_t		  *exact;
		const uint8_t *batch;
		size_t		   batch_length;
		Error		   error = {0};

		memcpy(message, recording->messages[i], length);
		if (i >= first && testing_random() % 4 == 0)
			damage(message, &length);
		exact = memory_take(length);
		memcpy(exact, message, length);
		converted = pgoutput_convert(pgoutput, exact, length, &batch, &batch_length, &error);
		if (converted)
		{
			BatchReader reader = batch_reader(batch, batch_length);
			RecordView	record;

			while (batch_next_record(&reader, &record))
				;
			CHECK(reader.error == NULL);
		}
		free(exact);
		free(message);
	}
	pgoutput_free(pgoutput);
	return converted;
}

static void
test_damage(const Recording *recording)
{
	int accepted = 0;

	for (int i = 0; i < DAMAGED_STREAMS; i++)
		accepted += convert_damaged(recording);
	CHECK(accepted > 0 && accepted < DAMAGED_STREAMS / 2);
}

/* Rows are handed on before their commit when there are many bytes, and nothing is lost. */
static void
test_long_transaction(const Recording *recording)
{
	Pgoutput	  *pgoutput = pgoutput_create(wanted, 4, 0);
	Error		   error = {0};
	const uint8_t *batch;
	size_t		   length;
	size_t		   rows = 0;
	int			   parts = 0;

	for (int i = 0; i < 5003; i++) /* begin, type, relation, 5000 times the first row, commit */
	{
		static const size_t head[] = {0, 1, 2};
		size_t				at = i < 3 ? head[i] : 3;
		BatchReader			reader;
		RecordView			record;

		CHECK(pgoutput_convert(pgoutput, recording->messages[at], recording->lengths[at], &batch,
							   &length, &error));
		reader = batch_reader(batch, length);
		parts += length > 0;
		while (batch_next_record(&reader, &record))
			rows += record_is_row(&record);
	}
	CHECK(parts >= 2 && rows < 5000);
	CHECK(pgoutput_convert(pgoutput, recording->messages[5], recording->lengths[5], &batch, &length,
						   &error));
	CHECK(length > 0);
	pgoutput_free(pgoutput);
}

static void
test_options(void)
{
	Text text = {0};

	pgoutput_append_options(&text, "it's \"odd\"");
	CHECK(strcmp(text.data, "\"proto_version\" '1', \"messages\" 'true', "
							"\"publication_names\" '\"it''s \"\"odd\"\"\"'") == 0);
	text_free(&text);
}

int
main(int count, char **arguments)
{
	Recording recording = recording_read();

	find_wanted();
	if (count > 1 && strcmp(arguments[1], "--print") == 0)
	{
		Text text = convert(&recording, 0);

		fputs(text.data, stdout);
		text_free(&text);
		recording_free(&recording);
		return 0;
	}
	test_recording(&recording);
	test_xids(&recording);
	test_cuts(&recording);
	test_damage(&recording);
	test_long_transaction(&recording);
	test_options();
	recording_free(&recording);
	return testing_done("pgoutput");
}
