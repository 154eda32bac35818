/*
 * applier/command.c
 *     What the subcommands have in common.
 */
#include "command.h"

#include <stdio.h>
#include <string.h>

#include "connection.h"
#include "memory.h"
#include "server.h"

int
command_fail(const Error *error)
{
	fprintf(stderr, "pgtrickle: error: %s\n", error->message);
	if (error->detail[0] != '\0')
		fprintf(stderr, "DETAIL:  %s\n", error->detail);
	if (error->hint[0] != '\0')
		fprintf(stderr, "HINT:  %s\n", error->hint);
	return EXIT_PROBLEM;
}

PGconn *
command_connect(const Options *options, char slot[64])
{
	Error	error = {0};
	PGconn *conn = connection_open(options->dbname, "pgtrickle", false, &error);

	if (conn == NULL)
	{
		command_fail(&error);
		return NULL;
	}
	if (options->slot != NULL)
		snprintf(slot, 64, "%s", options->slot);
	else
		server_default_slot(PQdb(conn), slot);
	return conn;
}

/* Columns on the screen, not bytes: continuation bytes of UTF-8 take none. */
static int
text_width(const char *text)
{
	int width = 0;

	for (; *text != '\0'; text++)
		width += (*text & 0xc0) != 0x80;
	return width;
}

static void
print_cell(const char *text, int width, bool right, bool is_last)
{
	int padding = width - text_width(text);

	if (right)
		printf("%*s%s", padding, "", text);
	else
		printf("%s%*s", text, is_last ? 0 : padding, "");
	fputs(is_last ? "\n" : "  ", stdout);
}

static bool
is_number_type(Oid type)
{
	return type == 20 || type == 21 || type == 23 || type == 700 || type == 701 || type == 1700;
}

void
command_print_table(const PGresult *result)
{
	int	 columns = PQnfields(result);
	int *widths = memory_take((size_t) columns * sizeof(int));

	for (int column = 0; column < columns; column++)
	{
		widths[column] = text_width(PQfname(result, column));
		for (int row = 0; row < PQntuples(result); row++)
		{
			int width = text_width(PQgetvalue(result, row, column));

			if (width > widths[column])
				widths[column] = width;
		}
	}
	for (int column = 0; column < columns; column++)
		print_cell(PQfname(result, column), widths[column], is_number_type(PQftype(result, column)),
				   column == columns - 1);
	for (int row = 0; row < PQntuples(result); row++)
	{
		for (int column = 0; column < columns; column++)
			print_cell(PQgetvalue(result, row, column), widths[column],
					   is_number_type(PQftype(result, column)), column == columns - 1);
	}
	free(widths);
}
