/*
 * proto/dump/print.c
 *     The text of pgtrickle-dump: one line per record, whoever read it.
 *
 * Values of the commonest types are printed as people write them, all others as bytes in hex.  A
 * tool: it allocates without looking back and ends with the program.
 */
#include "print.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

PrintOptions print_options;

/* A longer value is cut here unless all of it is asked for. */
#define VALUE_BYTES_SHORT 64

/* OIDs of the server's types that are printed as more than bytes. */
enum
{
	TYPE_BOOL = 16,
	TYPE_NAME = 19,
	TYPE_INT8 = 20,
	TYPE_INT2 = 21,
	TYPE_INT4 = 23,
	TYPE_TEXT = 25,
	TYPE_OID = 26,
	TYPE_JSON = 114,
	TYPE_BPCHAR = 1042,
	TYPE_VARCHAR = 1043
};

typedef struct KnownColumn
{
	char		 *name;
	uint32_t	  type_oid;
	ValueEncoding encoding;
} KnownColumn;

/* Relations by their number, as announced; relid and name by --name. */
typedef struct KnownRelation
{
	char		*name;
	int			 column_count;
	KnownColumn *columns;
} KnownRelation;

static KnownRelation *relations;
static uint32_t		  relation_limit;

typedef struct GivenName
{
	uint32_t	relid;
	const char *name;
} GivenName;

static GivenName *names;
static size_t	  name_count;

static void *
resize(void *memory, size_t count, size_t size)
{
	memory = realloc(memory, (count == 0 ? 1 : count) * size);
	if (memory == NULL)
	{
		fputs("pgtrickle-dump: out of memory\n", stderr);
		exit(1);
	}
	return memory;
}

static char *
copy_text(ByteRange range)
{
	char *text = resize(NULL, range.length + 1, 1);

	if (range.length > 0)
		memcpy(text, range.data, range.length);
	text[range.length] = '\0';
	return text;
}

/* ------------------------------------------------------------------------------------------------
 * Small things
 */

/* How much of a value is printed. */
static size_t
printed_length(ByteRange bytes)
{
	return bytes.length > VALUE_BYTES_SHORT && !print_options.is_full ? VALUE_BYTES_SHORT
																	  : bytes.length;
}

static void
print_rest(ByteRange bytes)
{
	if (printed_length(bytes) < bytes.length)
		printf("...(%zu bytes)", bytes.length);
}

static void
print_text(ByteRange text)
{
	putchar('\'');
	for (size_t i = 0; i < printed_length(text); i++)
	{
		if (text.data[i] == '\'' || text.data[i] == '\\')
			printf("\\%c", text.data[i]);
		else if (text.data[i] < ' ' || text.data[i] == 0x7f)
			printf("\\x%02x", text.data[i]);
		else
			putchar(text.data[i]);
	}
	putchar('\'');
	print_rest(text);
}

static void
print_hex(ByteRange bytes)
{
	printf("\\x");
	for (size_t i = 0; i < printed_length(bytes); i++)
		printf("%02x", bytes.data[i]);
	print_rest(bytes);
}

static void
print_lsn(const char *label, uint64_t lsn)
{
	printf(" %s %X/%08X", label, (unsigned) (lsn >> 32), (unsigned) lsn);
}

void
print_name_relation(uint32_t relid, const char *name)
{
	names = resize(names, name_count + 1, sizeof(GivenName));
	names[name_count++] = (GivenName){relid, name};
}

static void
print_relid(uint32_t relid)
{
	for (size_t i = 0; i < name_count; i++)
	{
		if (names[i].relid == relid)
		{
			printf(" %s", names[i].name);
			return;
		}
	}
	printf(" %" PRIu32, relid);
}

/* ------------------------------------------------------------------------------------------------
 * Records
 */

void
print_begin(const BeginView *begin)
{
	printf("begin");
	if (!print_options.is_stable)
	{
		printf(" xid %" PRIu64, begin->xid);
		print_lsn("commit_lsn", begin->commit_lsn);
		printf(" commit_time %" PRId64, begin->commit_time);
	}
	putchar('\n');
}

static void
remember_relation(const PrintedRelation *relation)
{
	uint32_t	   number = relation->view.number;
	KnownRelation *known;

	if (number > 1000000)
		return; /* a tool for people and tests; mutated batches may say anything */
	if (number >= relation_limit)
	{
		relations = resize(relations, (size_t) number + 1, sizeof(KnownRelation));
		for (; relation_limit <= number; relation_limit++)
			relations[relation_limit] = (KnownRelation){.column_count = -1};
	}
	known = &relations[number];
	for (int i = 0; i < known->column_count; i++)
		free(known->columns[i].name);
	free(known->name);
	known->name = copy_text(relation->view.relation_name);
	known->column_count = (int) relation->view.column_count;
	known->columns = resize(known->columns, relation->view.column_count, sizeof(KnownColumn));
	for (int i = 0; i < known->column_count; i++)
	{
		known->columns[i].name = copy_text(relation->columns[i].name);
		known->columns[i].type_oid = relation->columns[i].type_oid;
		known->columns[i].encoding = relation->columns[i].encoding;
	}
}

static void
print_column(const ColumnView *column)
{
	printf(" %.*s", (int) column->name.length, (const char *) column->name.data);
	printf("@%" PRIu32 ":", column->attnum);
	if (column->type_name.length > 0)
		printf("%.*s", (int) column->type_name.length, (const char *) column->type_name.data);
	else
		printf("%" PRIu32, column->type_oid);
	if (column->type_modifier != -1)
		printf("(%" PRId32 ")", column->type_modifier);
	if (column->encoding == ENCODING_TEXT)
		printf("~");
	if (column->in_identity)
		printf("*");
}

void
print_relation(const PrintedRelation *relation)
{
	const RelationView *view = &relation->view;

	remember_relation(relation);
	printf("relation");
	if (!print_options.is_stable)
		printf(" %" PRIu32, view->number);
	print_relid(view->relid);
	printf(" %.*s.", (int) view->schema_name.length, (const char *) view->schema_name.data);
	printf("%.*s as", (int) view->relation_name.length, (const char *) view->relation_name.data);
	for (uint32_t i = 0; i < view->publish_as_count; i++)
		print_relid(relation->publish_as[i]);
	printf(" identity %c:", view->replica_identity);
	for (uint32_t i = 0; i < view->column_count; i++)
		print_column(&relation->columns[i]);
	putchar('\n');
}

void
print_truncate(const uint32_t *relids, size_t count, const uint32_t *whole, size_t whole_count)
{
	printf("truncate");
	for (size_t i = 0; i < count; i++)
		print_relid(relids[i]);
	if (whole_count > 0)
		printf(" whole");
	for (size_t i = 0; i < whole_count; i++)
		print_relid(whole[i]);
	putchar('\n');
}

void
print_message(const MessageView *message)
{
	printf("message");
	if (message->transactional)
		printf(" transactional");
	if (!print_options.is_stable)
		print_lsn("lsn", message->lsn);
	putchar(' ');
	print_text(message->payload);
	putchar('\n');
}

void
print_skipped(uint32_t relid)
{
	printf("skipped");
	print_relid(relid);
	putchar('\n');
}

void
print_commit(const CommitView *commit)
{
	printf("commit rows %" PRIu64, commit->row_records);
	if (!print_options.is_stable)
	{
		print_lsn("commit_lsn", commit->commit_lsn);
		print_lsn("end_lsn", commit->end_lsn);
	}
	putchar('\n');
}

/* ------------------------------------------------------------------------------------------------
 * Rows
 */

static const KnownRelation *
find_relation(uint32_t number)
{
	if (number >= relation_limit || relations[number].column_count < 0)
		return NULL;
	return &relations[number];
}

int
print_column_count(uint32_t relation)
{
	const KnownRelation *known = find_relation(relation);

	return known == NULL ? -1 : known->column_count;
}

void
print_row_start(RecordKind kind, uint32_t relation)
{
	const KnownRelation *known = find_relation(relation);
	const char *verb = kind == KIND_INSERT ? "insert" : kind == KIND_UPDATE ? "update" : "delete";

	printf("%s %s", verb, known == NULL ? "?" : known->name);
}

void
print_row_image(const char *label)
{
	printf(" %s:", label);
}

static int64_t
read_integer(ByteRange bytes)
{
	uint64_t number = bytes.length > 0 && bytes.data[0] >= 0x80 ? UINT64_MAX : 0;

	for (size_t i = 0; i < bytes.length; i++)
		number = number << 8 | bytes.data[i];
	return (int64_t) number;
}

static bool
is_text_type(uint32_t type_oid)
{
	return type_oid == TYPE_TEXT || type_oid == TYPE_NAME || type_oid == TYPE_VARCHAR ||
		   type_oid == TYPE_BPCHAR || type_oid == TYPE_JSON;
}

static void
print_present(const KnownColumn *column, ByteRange bytes)
{
	if (print_options.is_hex)
		print_hex(bytes);
	else if (column->encoding == ENCODING_TEXT || is_text_type(column->type_oid))
		print_text(bytes);
	else if (column->type_oid == TYPE_BOOL && bytes.length == 1)
		printf(bytes.data[0] ? "true" : "false");
	else if (((column->type_oid == TYPE_INT2 && bytes.length == 2) ||
			  (column->type_oid == TYPE_INT4 && bytes.length == 4) ||
			  (column->type_oid == TYPE_INT8 && bytes.length == 8)))
		printf("%" PRId64, read_integer(bytes));
	else if (column->type_oid == TYPE_OID && bytes.length == 4)
		printf("%" PRIu32, (uint32_t) read_integer(bytes));
	else
		print_hex(bytes);
}

void
print_value(uint32_t relation, uint32_t column, const TupleValue *value)
{
	const KnownColumn *known = &find_relation(relation)->columns[column];

	printf(" %s=", known->name);
	switch (value->kind)
	{
		case VALUE_PRESENT:
			print_present(known, value->bytes);
			break;
		case VALUE_NULL:
			printf("NULL");
			break;
		case VALUE_UNCHANGED:
			printf("UNCHANGED");
			break;
		case VALUE_NOT_LOGGED:
			printf("NOT_LOGGED");
			break;
	}
}

void
print_row_end(uint32_t flaws)
{
	static const char *const flaw_names[] = {"old_row_missing", "old_row_key_only",
											 "value_too_large", "value_unsendable"};

	for (unsigned i = 0; i < 32; i++)
	{
		if (!(flaws >> i & 1))
			continue;
		if (i < 4)
			printf(" !%s", flaw_names[i]);
		else
			printf(" !%u", i);
	}
	putchar('\n');
}

void
print_error(const char *error)
{
	printf("error %s\n", error);
}
