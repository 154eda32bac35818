/*
 * applier/server.h
 *     Questions to a server over a blocking connection: for the subcommands that do one thing after
 *     another.
 */
#ifndef PGTRICKLE_APPLIER_SERVER_H
#define PGTRICKLE_APPLIER_SERVER_H

#include "connection.h"
#include "memory.h"

/* The default slot of a database: pgtrickle_<name>, with what slot names do not allow replaced. */
extern void server_default_slot(const char *database, char slot[64]);

/* Runs a statement; NULL and an error (FAIL_FATAL) if it fails.  The caller clears the result. */
extern PGresult *server_query(PGconn *conn, const char *sql, int value_count,
							  const char *const *values, Error *error);

/* Runs a statement for its effect. */
extern bool server_execute(PGconn *conn, const char *sql, int value_count,
						   const char *const *values, Error *error) MUST_CHECK;

/* Runs several statements. */
extern bool server_script(PGconn *conn, const char *sql, Error *error) MUST_CHECK;

/*
 * The first column of the first row into `value`; false (no error) when there is no row or it is
 * NULL.
 */
extern bool server_ask(PGconn *conn, const char *sql, int value_count, const char *const *values,
					   Text *value, bool *found, Error *error) MUST_CHECK;

/* The same for a yes or no; NULL and no row count as no. */
extern bool server_ask_bool(PGconn *conn, const char *sql, int value_count,
							const char *const *values, bool *answer, Error *error) MUST_CHECK;

/* A field of a result by its column's name; NULL when it is NULL.  Belongs to the result. */
extern const char *server_field(const PGresult *result, int row, const char *name);

/* Is it there and true? */
extern bool server_field_is_true(const PGresult *result, int row, const char *name);

/* A name as an identifier, or a value as a literal, at the end of a statement. */
extern void text_append_identifier(Text *text, PGconn *conn, const char *name);
extern void text_append_literal(Text *text, PGconn *conn, const char *value);

#endif /* PGTRICKLE_APPLIER_SERVER_H */
