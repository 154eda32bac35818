/*
 * applier/connection.h
 *     Where to connect: the command line's connection string, libpq's environment, and our
 *     additions.
 */
#ifndef PGTRICKLE_APPLIER_CONNECTION_H
#define PGTRICKLE_APPLIER_CONNECTION_H

#include "error.h"

/*
 * The parameters of one connection, for PQconnectStartParams and PQconnectdbParams with
 * expand_dbname = 1.
 */
#define CONNECTION_PARAMETERS_MAX 16

typedef struct ConnectionParameters
{
	const char *keywords[CONNECTION_PARAMETERS_MAX];
	const char *values[CONNECTION_PARAMETERS_MAX];
} ConnectionParameters;

/*
 * `dbname`: a name, a connection string or a URI; NULL: what the environment says.  Points into its
 * arguments.
 */
extern void connection_parameters(ConnectionParameters *parameters, const char *dbname,
								  const char *application_name, bool is_replication);

/* Host, port, database and user of a connection, for messages; never a password.  Static memory. */
extern const char *connection_describe(const PGconn *conn);

/*
 * Connects and waits for it: for subcommands that do one thing after the other.  NULL and an error
 * if it fails.
 */
extern PGconn *connection_open(const char *dbname, const char *application_name,
							   bool is_replication, Error *error);

#endif /* PGTRICKLE_APPLIER_CONNECTION_H */
