/*
 * applier/copy.h
 *     The worker that makes copies of remote tables: what its parts share.
 *
 * One process for everything that takes long or needs the remote's catalogs, so that the daemon's loop never
 * waits for it.  Whatever it has done is in the target's catalog: killed at any moment, the next one goes on.
 *
 *     REQUESTED -> DECLARED          copy_define.c   the table is there
 *     REDEFINE  -> what it was       copy_alter.c    the table follows the remote's
 *     COPYING   -> COPIED            copy_load.c     the rows are there; copy_finish.c: and their indexes
 */
#ifndef PGTRICKLE_APPLIER_COPY_H
#define PGTRICKLE_APPLIER_COPY_H

#include "copy_rate.h"
#include "options.h"
#include "remote_table.h"
#include "server.h"

typedef struct CopyFinishing CopyFinishing; /* see copy_finish.h */

/* One remote, while the worker works for it. */
typedef struct CopyRemote
{
	const Options *options;
	PGconn		  *target;
	PGconn		  *remote;
	CopyRate	   rate;
	int			   jobs;
	uint64_t	   chunk_rows;
	const char	  *target_dbname; /* connection strings, for connections of the jobs */
	const char	  *remote_dbname;
	const char	  *encoding; /* in which values cross: the target's */
	const char	  *remote_id;
	const char	  *name;
	const char	  *schema_map; /* jsonb */
	const char	  *publication; /* when pgoutput is read: it has no generated columns; else NULL */
	Text settled_lsn; /* whatever was committed there before can be seen; filled before rows are copied */
	CopyFinishing *finishing; /* copies whose rows are there, until they are taken */
	int type_changes; /* types of the target that were made or altered for the copy at hand */
} CopyRemote;

/* One copy, as copy_catalog() tells it; points into the result. */
typedef struct Copy
{
	const char *copy_id;
	const char *remote_schema;
	const char *remote_table;
	const char *remote_relid; /* NULL before it has been defined */
	const char *relid; /* the table on the target; NULL before it has been defined */
	const char *target_schema;
	const char *target_table;
	const char *columns_wanted; /* text[] or NULL: all */
	const char *row_filter; /* or NULL */
	const char *status;
	const char *load_table; /* NULL: copying has not begun */
	bool		is_populated;
} Copy;

/*
 * The name of a schema on the target, as the schema map says.  In `schema`, which the caller owns.
 */
extern bool
copy_map_schema(CopyRemote *work, const char *remote_schema, Text *schema, Error *error) MUST_CHECK;

/* Makes the table on the target; the server knows about it when it is there. */
extern bool copy_define(CopyRemote *work, const Copy *copy, Error *error) MUST_CHECK;

/* Compares a table with the remote's and follows what has changed there. */
extern bool copy_follow(CopyRemote *work, const Copy *copy, Error *error) MUST_CHECK;

/* Copies the rows that are not there yet.  What then is to be done has been started when it returns (copy_finish.h). */
extern bool copy_load(CopyRemote *work, const Copy *copy, Error *error) MUST_CHECK;

/* Is the remote's table still what the copy was defined by? */
extern bool copy_load_check(CopyRemote *work, const Copy *copy, Error *error) MUST_CHECK;

/* A connection of the worker to one side or the other, with the settings that both need. */
extern PGconn *
copy_connect(const char *dbname, const char *name, const char *encoding, Error *error);

#endif /* PGTRICKLE_APPLIER_COPY_H */
