/*
 * applier/connection.c
 *     Where to connect.
 */
#include "connection.h"

#include <stdio.h>
#include <stdlib.h>

/* So that a transaction of some size is not written to the server's disk while it is decoded. */
#define STREAM_SETTINGS "-c logical_decoding_work_mem=256MB"

void
connection_parameters(ConnectionParameters *parameters, const char *dbname,
					  const char *application_name, bool is_replication)
{
	/*
	 * What stands before the connection string can be overridden by it, what stands behind cannot.
	 * A peer that died silently holds the slot, so we notice within a minute.
	 */
	const char *const pairs[][2] = {{"connect_timeout", "10"},
									{"keepalives_idle", "20"},
									{"keepalives_interval", "10"},
									{"keepalives_count", "3"},
									{"tcp_user_timeout", "60000"},
									{"options", is_replication ? STREAM_SETTINGS : NULL},
									{"dbname", dbname},
									{"application_name", application_name},
									{"replication", is_replication ? "database" : NULL}};
	size_t			  count = 0;

	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
	{
		if (pairs[i][1] == NULL)
			continue;
		parameters->keywords[count] = pairs[i][0];
		parameters->values[count] = pairs[i][1];
		count++;
	}
	parameters->keywords[count] = NULL;
	parameters->values[count] = NULL;
}

static const char *
or_empty(const char *text)
{
	return text != NULL ? text : "";
}

const char *
connection_describe(const PGconn *conn)
{
	static char description[512];

	snprintf(description, sizeof(description),
			 "database \"%s\" as user \"%s\" on host \"%s\" at port \"%s\"", or_empty(PQdb(conn)),
			 or_empty(PQuser(conn)), or_empty(PQhost(conn)), or_empty(PQport(conn)));
	return description;
}

PGconn *
connection_open(const char *dbname, const char *application_name, bool is_replication, Error *error)
{
	ConnectionParameters parameters;
	PGconn				*conn;

	connection_parameters(&parameters, dbname, application_name, is_replication);
	conn = PQconnectdbParams(parameters.keywords, parameters.values, 1);
	if (conn != NULL && PQstatus(conn) == CONNECTION_OK)
		return conn;
	error_from_connection(error, FAIL_FATAL, conn, "could not connect");
	PQfinish(conn);
	return NULL;
}
