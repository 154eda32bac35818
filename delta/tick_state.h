/*
 * delta/tick_state.h
 *     The tick of this transaction, for the parts of the server's half of it: tick.c, tick_plan.c, tick_execute.c.
 */
#ifndef PGTRICKLE_TICK_STATE_H
#define PGTRICKLE_TICK_STATE_H

#include "postgres.h"

#include "copy_tick.h"
#include "refresh_record.h"
#include "run.h"
#include "stage.h"

/* One stream table of the tick. */
typedef struct TickEntry
{
	int64		pgt_id;
	LoadedTable *table;
	int			set;
	const char *full_reason;	/* refresh in full, and why; NULL: by delta */
	char	   *verify_nonce;	/* verify afterwards, under this nonce; NULL: no */
	bool		is_spooled;		/* some of its changes are in the spool */
	bool		spools;			/* no refresh: its changes go into the spool; no table */
	bool		bound_anew;		/* the stream did not bring changes of all its sources before */
	TimestampTz spooled_since;	/* the oldest of them */
	RefreshOutcome outcome;
} TickEntry;

typedef struct Tick
{
	MemoryContext context;
	List	   *entries;		/* of TickEntry, in topological order */
	CopyTick   *copies;			/* before all of them */
	Stage	   *stage;
	List	   *made_rowsets;	/* of Rowset: to be freed at the end, which closes their files */
	bool		spools;			/* all entries do */
	List	   *spool_parts;	/* of SpoolPart */
	TimestampTz started_at;
} Tick;

/* NULL: none was planned in this transaction. */
extern Tick *current_tick;

/* Which stream table is at work, or was when the last tick failed; 0: none. */
extern int64 tick_failed_id;

/* Errors: 55000 when there is one already, or none yet. */
extern void tick_begin(void);
extern void tick_require(void);

/* NULL: it is not in the tick. */
extern TickEntry *tick_entry(int64 pgt_id);

#endif							/* PGTRICKLE_TICK_STATE_H */
