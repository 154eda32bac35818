/*
 * applier/status.c
 *     pgtrickle status: what is going on, for people.
 */
#include <stdio.h>

#include "command.h"
#include "server.h"
#include "sql_text.h"

static bool
show(PGconn *conn, const char *sql, int value_count, const char *const *values, Error *error)
{
	PGresult *result = server_query(conn, sql, value_count, values, error);

	if (result == NULL)
		return false;
	if (PQntuples(result) > 0)
		command_print_table(result);
	else
		puts("no stream tables");
	PQclear(result);
	return true;
}

int
command_status(const Options *options)
{
	Error		error = {0};
	char		slot[64];
	const char *values[1] = {slot};
	PGconn	   *conn = command_connect(options, slot);
	bool		done;

	if (conn == NULL)
		return EXIT_NO_SERVER;
	done = show(conn, sql_status_slot, 1, values, &error);
	if (done)
	{
		puts("");
		done = show(conn, sql_status_tables, 0, NULL, &error);
	}
	PQfinish(conn);
	if (done)
		return EXIT_FINE;
	if (error.hint[0] == '\0')
		error_hint(&error, "Run \"pgtrickle doctor\" to see what is missing.");
	return command_fail(&error);
}
