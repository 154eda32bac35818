/*
 * delta/immediate_graph.h
 *     Which stream tables are IMMEDIATE, in which order they are maintained, and which of them read a table.
 */
#ifndef PGTRICKLE_IMMEDIATE_GRAPH_H
#define PGTRICKLE_IMMEDIATE_GRAPH_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "run.h"

typedef struct ImmediateTable
{
	int64		pgt_id;
	Oid			relid;
	bool		is_active;		/* neither paused nor in error: it is maintained */
	List	   *source_relids;	/* oid list, views left out */
} ImmediateTable;

/*
 * All IMMEDIATE stream tables (ImmediateTable), upstream ones first, in the same order in all sessions.  From the session's cache: the
 * list stays where it is until this is called again.
 */
extern List *immediate_tables(void);

/* The one with this id, or NULL. */
extern ImmediateTable *immediate_table(int64 pgt_id);

/* The table itself and those that it is a partition or child of, as far as some IMMEDIATE stream table reads them; an oid list, also cached. */
extern List *immediate_sources_of(Oid relid);

/* table_load() for whoever writes a source. */
extern LoadedTable *immediate_load(int64 pgt_id);

#endif							/* PGTRICKLE_IMMEDIATE_GRAPH_H */
