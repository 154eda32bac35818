/*
 * proto/dump/dump.c
 *     pgtrickle-dump: prints the change stream, for people and for tests.
 *
 *     psql -AtXc "SELECT data FROM pg_logical_slot_peek_binary_changes('slot', NULL, NULL,
 *                 'proto_version', '1', 'interest', '*')" | pgtrickle-dump
 *
 * Reads one batch a line, as the server prints bytea (\x0a10...), and prints one line a record.  By
 * default it reads with protobuf-c and code that protoc-c made from pgtrickle.proto; with --ours by
 * records.c.  The two know nothing of each other, so equal text shows that our hand-written reader
 * and writer speak protobuf.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "print.h"
#include "readers.h"

static const char usage[] =
	"Usage: pgtrickle-dump [--ours] [--stable] [--full] [--hex] [--name RELID=NAME]...\n"
	"Prints batches of the change stream, given as hex, one a line.\n"
	"  --ours             read with records.c instead of protobuf-c\n"
	"  --stable           leave out transaction ids, positions, times and relation numbers\n"
	"  --full             print long values in their whole length\n"
	"  --hex              print all values as bytes\n"
	"  --name RELID=NAME  print NAME for this relation\n";

static int
hex_digit(int character)
{
	if (character >= '0' && character <= '9')
		return character - '0';
	if (character >= 'a' && character <= 'f')
		return character - 'a' + 10;
	if (character >= 'A' && character <= 'F')
		return character - 'A' + 10;
	return -1;
}

/* Turns a line of hex into bytes, in place.  False when it is not hex. */
static bool
decode_hex(char *line, size_t line_length, size_t *length)
{
	size_t at = 0;

	while (line_length > 0 && (line[line_length - 1] == '\n' || line[line_length - 1] == '\r'))
		line_length--;
	if (line_length >= 2 && line[0] == '\\' && line[1] == 'x')
		at = 2;
	for (*length = 0; at + 1 < line_length; at += 2)
	{
		int high = hex_digit((unsigned char) line[at]);
		int low = hex_digit((unsigned char) line[at + 1]);

		if (high < 0 || low < 0)
			return false;
		line[(*length)++] = (char) (high << 4 | low);
	}
	return at == line_length;
}

static void
name_relation(char *argument)
{
	char		 *name;
	unsigned long relid = strtoul(argument, &name, 10);

	if (*name != '=')
	{
		fputs(usage, stderr);
		exit(2);
	}
	print_name_relation((uint32_t) relid, name + 1);
}

static BatchPrinter
parse_arguments(int count, char **arguments)
{
	BatchPrinter printer = print_batch_by_protobuf_c;

	for (int i = 1; i < count; i++)
	{
		if (strcmp(arguments[i], "--ours") == 0)
			printer = print_batch_by_records;
		else if (strcmp(arguments[i], "--stable") == 0)
			print_options.is_stable = true;
		else if (strcmp(arguments[i], "--full") == 0)
			print_options.is_full = true;
		else if (strcmp(arguments[i], "--hex") == 0)
			print_options.is_hex = true;
		else if (strcmp(arguments[i], "--name") == 0 && i + 1 < count)
			name_relation(arguments[++i]);
		else
		{
			fputs(usage, stderr);
			exit(2);
		}
	}
	return printer;
}

int
main(int count, char **arguments)
{
	BatchPrinter print_batch = parse_arguments(count, arguments);
	char		*line = NULL;
	size_t		 capacity = 0;
	ssize_t		 line_length;
	bool		 is_good = true;

	while ((line_length = getline(&line, &capacity, stdin)) >= 0)
	{
		size_t length;

		if (!decode_hex(line, (size_t) line_length, &length))
		{
			print_error("line is not hex");
			is_good = false;
		}
		else if (!print_batch(byte_range(line, length)))
			is_good = false;
	}
	free(line);
	return is_good ? 0 : 1;
}
