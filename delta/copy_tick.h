/*
 * delta/copy_tick.h
 *     Copies in a tick: what tick.c calls.
 *
 * A tick's change sets are those of this database, and those of remotes that tick_remote() has announced.  The latter come here.
 */
#ifndef PGTRICKLE_COPY_TICK_H
#define PGTRICKLE_COPY_TICK_H

#include "postgres.h"

#include "copy_definition.h"
#include "rowset.h"
#include "run.h"

typedef struct CopyTick CopyTick;

/* One copy of the tick. */
typedef struct CopyEntry
{
	CopyDefinition *definition;
	int			set;
	const char *action;			/* COPY, KEEP, SWITCH, NO_DATA; after copy_tick_finish */
	ApplyCounts counts;
	Rowset	   *net;			/* what changed in it, for consumers of the same tick; NULL: nothing */
	const char *full_reason;	/* why consumers must be refreshed in full instead; NULL: they need not */
	TimestampTz started_at;
	struct CopyFeed *feed;
	bool		hidden;
	List	   *absent_ids;		/* of int64 *: consumers that do not take part */
	Rowset	   *switched_net;	/* part of `net`, to be freed */
} CopyEntry;

/* Is this stream table refreshed in the tick? */
typedef bool (*TakesPart) (int64 pgt_id);

/* `failed_id`: where to say which copy is at work, for whoever has to blame one.  Lives in the current context. */
extern CopyTick *copy_tick_create(int64 *failed_id, TakesPart takes_part);

/* A copy that takes part, with the change set of its remote. */
extern void copy_tick_add(CopyTick *copies, int64 copy_id, int set);

/* All stream tables of the tick are known: nothing can be written before. */
extern void copy_tick_planned(CopyTick *copies);

/* Records of a remote.  A copy that they concern takes part, whether it was added or not. */
extern void copy_tick_stage(CopyTick *copies, int set, const char *data, size_t length);

/*
 * Writes what is left, and what has become of the copies, into tables and catalog.  With an active snapshot of the caller's own, which sees it
 * afterwards.  Returns the list of CopyEntry.
 */
extern List *copy_tick_finish(CopyTick *copies);

/* The entry of the copy that is this table; NULL: there is none in the tick. */
extern CopyEntry *copy_tick_entry(CopyTick *copies, Oid relid);

/*
 * A stream table is going to be refreshed in full: rows of its sources have to be there.  Copies that have dropped theirs are copied again, which
 * is an ERROR that says so.  With `only_ask`: are they missing?
 */
extern bool copy_tick_rows_missing(CopyTick *copies, const LoadedTable *table, bool only_ask);

/* Closes files; before the statement ends. */
extern void copy_tick_release(CopyTick *copies);

#endif							/* PGTRICKLE_COPY_TICK_H */
