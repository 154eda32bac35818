/*
 * applier/server.c
 *     Questions to a server over a blocking connection.
 */
#include "server.h"

#include <stdio.h>

#define SLOT_NAME_LENGTH_MAX 63

void
server_default_slot(const char *database, char slot[64])
{
	size_t length = (size_t) snprintf(slot, SLOT_NAME_LENGTH_MAX + 1, "pgtrickle_%s", database);

	if (length > SLOT_NAME_LENGTH_MAX)
		length = SLOT_NAME_LENGTH_MAX;
	for (size_t i = 0; i < length; i++)
	{
		if (slot[i] >= 'A' && slot[i] <= 'Z')
			slot[i] = (char) (slot[i] - 'A' + 'a');
		else if (!((slot[i] >= 'a' && slot[i] <= 'z') || (slot[i] >= '0' && slot[i] <= '9')))
			slot[i] = '_';
	}
}

PGresult *
server_query(PGconn *conn, const char *sql, int value_count, const char *const *values,
			 Error *error)
{
	PGresult	  *result = PQexecParams(conn, sql, value_count, NULL, values, NULL, NULL, 0);
	ExecStatusType status = PQresultStatus(result);

	if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
		return result;
	error_from_result(error, FAIL_FATAL, result, NULL);
	PQclear(result);
	return NULL;
}

bool
server_execute(PGconn *conn, const char *sql, int value_count, const char *const *values,
			   Error *error)
{
	PGresult *result = server_query(conn, sql, value_count, values, error);

	PQclear(result);
	return result != NULL;
}

bool
server_script(PGconn *conn, const char *sql, Error *error)
{
	PGresult	  *result = PQexec(conn, sql);
	ExecStatusType status = PQresultStatus(result);
	bool		   done = status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK;

	if (!done)
		error_from_result(error, FAIL_FATAL, result, NULL);
	PQclear(result);
	return done;
}

bool
server_ask(PGconn *conn, const char *sql, int value_count, const char *const *values, Text *value,
		   bool *found, Error *error)
{
	PGresult *result = server_query(conn, sql, value_count, values, error);

	if (result == NULL)
		return false;
	text_reset(value);
	*found = PQntuples(result) > 0 && !PQgetisnull(result, 0, 0);
	text_append(value, *found ? PQgetvalue(result, 0, 0) : "");
	PQclear(result);
	return true;
}

bool
server_ask_bool(PGconn *conn, const char *sql, int value_count, const char *const *values,
				bool *answer, Error *error)
{
	Text value = {0};
	bool found;

	if (!server_ask(conn, sql, value_count, values, &value, &found, error))
		return false;
	*answer = found && value.data[0] == 't';
	text_free(&value);
	return true;
}

const char *
server_field(const PGresult *result, int row, const char *name)
{
	int column = PQfnumber(result, name);

	return column < 0 || PQgetisnull(result, row, column) ? NULL : PQgetvalue(result, row, column);
}

bool
server_field_is_true(const PGresult *result, int row, const char *name)
{
	const char *value = server_field(result, row, name);

	return value != NULL && value[0] == 't';
}

void
text_append_identifier(Text *text, PGconn *conn, const char *name)
{
	char *quoted = PQescapeIdentifier(conn, name, strlen(name));

	text_append(text, quoted);
	PQfreemem(quoted);
}

void
text_append_literal(Text *text, PGconn *conn, const char *value)
{
	char *quoted = PQescapeLiteral(conn, value, strlen(value));

	text_append(text, quoted);
	PQfreemem(quoted);
}
