/*
 * applier/remote_table.h
 *     A table of a remote as its catalogs describe it, and what becomes of it on the target.
 *
 * Reading and judging are here; making the copy is copy_define.c, so that doctor and set-up can ask the same
 * questions without doing anything.
 */
#ifndef PGTRICKLE_APPLIER_REMOTE_TABLE_H
#define PGTRICKLE_APPLIER_REMOTE_TABLE_H

#include "server.h"

/* Texts belong to the table's results, but those that were mapped. */
typedef struct RemoteColumn
{
	const char *attnum;
	const char *name;
	const char *type; /* with its modifier */
	const char *type_name; /* without: by this and the modifier a change is seen */
	const char *type_oid;
	const char *type_modifier;
	const char *type_use; /* with OIDs of the remote in it: see sql/remote_columns.sql */
	const char *builtin; /* the server's own type that it is, or is an array of */
	const char *collation_schema; /* NULL: the type's */
	const char *collation_name;
	const char *missing; /* the value of rows older than the column */
	const char *comment;
	bool		not_null;
	int			key_position; /* from 0; below 0: not part of the key */
	bool		has_default;
	bool		may_select;
	char		generated; /* 's' stored, 'v' virtual, 0 */
} RemoteColumn;

typedef struct RemoteTable
{
	PGresult	 *table;
	PGresult	 *columns_result;
	const char	 *relid;
	const char	 *key_index; /* NULL: a bag of rows */
	const char	 *comment;
	const char	 *rows_expected;
	Text		  members; /* the table and its partitions: see sql/remote_members.sql */
	uint64_t	  bytes;
	bool		  key_is_primary;
	bool		  key_is_scattered; /* its order is not that of the rows */
	bool		  is_binary; /* rows can come in binary form; known once it was compared with its copy */
	bool		  is_partitioned;
	bool		  is_on_standby;
	char		  replica_identity; /* d, n, f or i */
	RemoteColumn *columns; /* those that the copy has */
	int			  column_count;
} RemoteTable;

/*
 * Reads a table's definition.  Fails when there is none, when it cannot be followed or when this role may not read it: then the
 * error says what to do.  `columns_wanted` is a text[] or NULL for all; `with_generated` says whether the stream has
 * generated columns.
 */
extern bool
remote_table_load(PGconn *remote, const char *schema, const char *name, const char *columns_wanted,
				  bool with_generated, RemoteTable *table, Error *error) MUST_CHECK;
extern void remote_table_free(RemoteTable *table);

/* "schema.table" for messages. */
extern const char *remote_table_describe(const char *schema, const char *name);

#endif /* PGTRICKLE_APPLIER_REMOTE_TABLE_H */
