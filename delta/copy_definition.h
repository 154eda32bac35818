/*
 * delta/copy_definition.h
 *     What the catalog says about a copy, for one tick.
 */
#ifndef PGTRICKLE_COPY_DEFINITION_H
#define PGTRICKLE_COPY_DEFINITION_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "apply.h"
#include "nodes/pg_list.h"

/* SQLSTATEs by which applier_failed() (sql/70_applier.sql) knows what to do about a copy. */
#define ERRCODE_COPY_OTHER_SHAPE MAKE_SQLSTATE('P', 'T', 'R', '0', '1')	/* its definition has to be compared */
#define ERRCODE_COPY_NOT_EQUAL MAKE_SQLSTATE('P', 'T', 'R', '0', '2')	/* it has to be copied again */
#define ERRCODE_COPY_STREAM_LACKS MAKE_SQLSTATE('P', 'T', 'R', '0', '3')	/* copying again would not help */

/* A column that is copied. */
typedef struct CopyColumn
{
	AttrNumber	attno;			/* in the copy */
	AttrNumber	remote_attno;
	char	   *remote_column;
	Oid			remote_type;	/* an OID of the remote */
	int32		remote_typmod;
} CopyColumn;

typedef struct CopyDefinition
{
	int64		copy_id;
	int			remote_id;
	Oid			relid;
	Oid			owner;			/* with whose rights its values are read */
	char	   *name;			/* qualified and quoted, for messages */
	char	   *remote_name;	/* the same of the remote's table */
	char	   *status;
	bool		is_populated;
	bool		follows;		/* its rows follow the stream: it is active, or copied again without need */
	bool		is_copying;		/* changes have to be kept for the table that is being loaded */
	bool		is_copied;		/* all of it is loaded */
	uint64		loaded_xid;		/* the transaction after which all of it was loaded; 0: none yet */
	uint64		exact_xid;		/* an empty copy's load table equals the remote's since this transaction, and follows; 0: not yet */
	bool		may_wait;		/* those who read may still be waited for */
	int64		rows_copied;
	bool		drops_rows;		/* as soon as no stream table needs them */
	bool		passes_through; /* it has done so: changes go to stream tables and nowhere else */
	bool		all_columns;
	bool		has_key;
	RowLocator	locator;
	Oid			remote_relid;
	bool		is_partitioned; /* the remote's table */
	bool		is_blocked;		/* nothing can be done about changes before somebody has compared the definitions */
	int			remote_natts;	/* attribute numbers of the remote's table that have been seen */
	XLogRecPtr	copied_from;
	XLogRecPtr	copied_lsn;
	char	   *copied_snapshot;	/* text of a pg_snapshot; NULL: there is a key */
	Oid			load_table;
	char	   *row_filter;		/* NULL: all rows */
	int			ncolumns;
	CopyColumn *columns;
	List	   *consumer_ids;	/* of int64 *: stream tables that read it */
} CopyDefinition;

/*
 * Reads a definition as it is now, whatever the transaction's snapshot sees, and locks it until the transaction ends.  NULL: there is none.
 * Needs an SPI connection and the rights on the extension's catalog; the result is allocated in the given context.
 */
extern CopyDefinition *copy_definition_load(int64 copy_id, MemoryContext context);

/* The copies of a remote's table that have to do with its stream: a list of int64 * in the given context. */
extern List *copy_ids_of_remote_table(int remote_id, Oid remote_relid, MemoryContext context);

#endif							/* PGTRICKLE_COPY_DEFINITION_H */
