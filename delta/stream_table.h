/*
 * delta/stream_table.h
 *     Finds stream tables by the names that users give them, and checks what the caller may do with them.
 */
#ifndef PGTRICKLE_STREAM_TABLE_H
#define PGTRICKLE_STREAM_TABLE_H

#include "postgres.h"

/* What the caller must be allowed to do. */
typedef enum StreamTableRight
{
	STREAM_TABLE_NONE, /* just find it */
	STREAM_TABLE_SEE, /* SELECT on it */
	STREAM_TABLE_CHANGE /* own it, be a member of its owner, a superuser, or an operator */
} StreamTableRight;

typedef struct StreamTableName
{
	int64 pgt_id;
	Oid	  relid;
	char *qualified; /* schema.name, for messages */
} StreamTableName;

/*
 * Resolves `name` ("name" or "schema.name", quoted as in SQL) through the caller's search_path, and checks the right.
 * Errors: 42P01 no such relation, 42809 not a stream table, 42501.  Allocates in the current context.
 */
extern StreamTableName stream_table_resolve(const char *name, StreamTableRight right);

/* The stream table with this relation, 0 if it is none. */
extern int64 stream_table_id_of_relation(Oid relid);

/* Is the caller a member of pgtrickle_operator or pgtrickle_admin? */
extern bool is_operator(void);

#endif /* PGTRICKLE_STREAM_TABLE_H */
