/*
 * applier/status.c
 *     pgtrickle status: what is going on, for people.
 */
#include <stdio.h>

#include "command.h"
#include "server.h"
#include "sql_text.h"

static bool
show(PGconn *conn, const char *sql, int value_count, const char *const *values, const char *nothing,
	 Error *error)
{
	PGresult *result = server_query(conn, sql, value_count, values, error);

	if (result == NULL)
		return false;
	if (PQntuples(result) > 0)
		command_print_table(result);
	else if (nothing != NULL)
		puts(nothing);
	PQclear(result);
	return true;
}

/* Most databases have none: then nothing is said about them. */
static bool
show_remotes(PGconn *conn, Error *error)
{
	bool has_remotes;

	if (!server_ask_bool(conn, "SELECT count(*) > 0 FROM pgtrickle.remote_catalog()", 0, NULL,
						 &has_remotes, error))
		return false;
	if (!has_remotes)
		return true;
	puts("");
	if (!show(conn, sql_status_remotes, 0, NULL, NULL, error))
		return false;
	puts("");
	return show(conn, sql_status_copies, 0, NULL, "no copies", error);
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
	done = show(conn, sql_status_slot, 1, values, NULL, &error);
	if (done)
	{
		puts("");
		done = show(conn, sql_status_tables, 0, NULL, "no stream tables", &error) &&
			   show_remotes(conn, &error);
	}
	PQfinish(conn);
	if (done)
		return EXIT_FINE;
	if (error.hint[0] == '\0')
		error_hint(&error, "Run \"pgtrickle doctor\" to see what is missing.");
	return command_fail(&error);
}
