/*
 * applier/catalog.h
 *     The stream tables as the applier knows them: definition, frontier, state of the current run.
 *
 * A catalog is loaded as a whole (attach.c, run.c) and replaced as a whole, only between ticks, so
 * a tick works with one version from its start to its end.  What belongs to the run and not to the
 * database (pending changes, requests for a full refresh found by the applier itself) moves from
 * the old version to the new one.
 *
 *     listed -> (full refresh) -> followed -> gone        durable: everything but `run`
 */
#ifndef PGTRICKLE_APPLIER_CATALOG_H
#define PGTRICKLE_APPLIER_CATALOG_H

#include "buffer.h"
#include "log.h"
#include "snapshot.h"

typedef enum ScheduleKind
{
	SCHEDULE_CONTINUOUS,
	SCHEDULE_INTERVAL,
	SCHEDULE_CRON,
	SCHEDULE_MANUAL,
	SCHEDULE_IMMEDIATE, /* kept up by triggers: the applier has nothing to do with it */
	SCHEDULE_COPY /* no query: what a remote's table holds; as soon as something has arrived */
} ScheduleKind;

/* How far a copy has got; the whole path is in docs/explanation/tick.md. */
typedef enum CopyStatus
{
	COPY_NOT_FOLLOWED, /* its table is of no interest, now */
	COPY_WANTED, /* the stream has to carry it */
	COPY_COPYING, /* it does, and what comes is put aside */
	COPY_COPIED, /* and everything is there: to be switched in at copied_lsn */
	COPY_ACTIVE,
	COPY_REDEFINE /* its shape has to be compared; nothing is applied before that */
} CopyStatus;

/* What makes a copy of a remote's table different from a stream table. */
typedef struct CopyState
{
	int		   remote_id;
	Oid		   remote_relid;
	CopyStatus status;
	Lsn		   copied_lsn; /* LSN_NONE: it is not copied to the end */
	Lsn		   copied_from; /* what was committed before it was there to be copied; LSN_NONE: copying has not begun */

	/* Scratch of the schedule and the tick. */
	bool   in_prefix; /* the transactions that a tick would take now touch it */
	Micros pending_since; /* the first of them was committed */

	/* Copied, and a tick that might have switched it in has not: readers have to be waited for. */
	Micros switch_at; /* not before */
	int	   switch_attempts;
} CopyState;

/* Does its answer change without a change that could arrive, and what is a refresh then? */
typedef enum ClockKind
{
	CLOCK_NONE,
	CLOCK_FULL, /* a full refresh: only when its own schedule wants it */
	CLOCK_DELTA /* a few rows that enter and leave: whenever it is refreshed */
} ClockKind;

typedef struct StreamTable StreamTable;

/* What this run of the applier knows about a stream table beyond the catalog. */
typedef struct StreamTableRun
{
	PendingList pending; /* received transactions that belong to it and are not in its frontier */

	/*
	 * Set when changes did not reach us although the stream table reads their relation: it must be
	 * refreshed in full.  The database does not know, so the slot must not pass missed_lsn before
	 * that was done: after a restart we have to find out again.
	 */
	bool		missed_changes;
	Lsn			missed_lsn; /* lowest commit LSN of those; LSN_MAX: none */
	const char *missed_reason;

	bool was_inactive; /* nothing was kept for it meanwhile */

	bool   has_news; /* something became pending since the last tick began */
	Micros deferred_until; /* pending transactions that no snapshot sees yet: do not try before */
	Micros deferral_delay;
	Micros retry_at; /* after a failure */
	int	   failures; /* as recorded in the database */
	int	   soft_failures; /* locks not got and the like, for which nobody is to blame */
	Micros refresh_cost; /* how long its last refresh took; 0: not known */
	bool   goes_alone; /* a tick with others failed and nobody knows because of whom */
} StreamTableRun;

struct StreamTable
{
	int64_t pgt_id;
	Oid		relid;
	char   *name; /* schema.name */
	bool	is_active;
	/*
		 * neither it nor anything upstream was stopped */ /* neither it nor anything upstream was
		 * stopped
		 */
	ScheduleKind  schedule;
	Micros		  interval;
	ClockKind	  clock;
	Micros		  cron_at; /* SCHEDULE_CRON: when it is due; MICROS_NEVER: not known */
	Micros		  refreshed_at; /* the moment of its rows; moves at the commit of a tick */
	Oid			 *sources;
	char		**source_names; /* one for each source, for messages */
	size_t		  source_count;
	int64_t		 *upstream_ids; /* as given */
	size_t		  upstream_id_count;
	StreamTable **upstream; /* those of them that ticks refresh */
	size_t		  upstream_count;
	int64_t		  group_id; /* refreshed with all others that have the same; 0: none */
	CopyState	  copy; /* SCHEDULE_COPY only */

	/* The frontier: what the rows equal.  Moves at the commit of a tick. */
	Snapshot *frontier; /* NULL: never filled */
	Lsn		  frontier_lsn;
	Xid		  own_xid; /* of the last refresh or fill */
	Xid		  filled_xid; /* of the last fill inside a user's transaction */
	bool	  needs_refill;
	char	 *refill_reason;

	/* What waits in the spool: all it needs that this snapshot sees and the frontier does not. */
	Snapshot *spooled; /* NULL: nothing */
	Micros	  spooled_since; /* the oldest of it */

	StreamTableRun run;

	/* Scratch of the schedule and the tick. */
	bool   is_due;
	bool   in_tick; /* chosen; stays set while the tick runs */
	bool   moves_by_clock; /* takes part even if nothing in it has changed */
	bool   spools; /* the tick puts what is pending into the spool and leaves the rows alone */
	bool   takes_part;
	bool   is_blocked;
	Micros pending_since; /* MICROS_NEVER: not pending */
	Micros ready_at; /* when a snapshot may see what is pending */
	Micros available_at; /* not before, because of failures here or upstream */
};

/* relid is read by table */
typedef struct Reader
{
	Oid			 relid;
	StreamTable *table;
} Reader;

typedef struct Catalog
{
	StreamTable **tables; /* in topological order: upstream first */
	size_t		  count;
	Reader		 *readers; /* by relid; only active stream tables that ticks refresh */
	size_t		  reader_count;
	Snapshot	 *snapshot; /* of the query that loaded it */
	Micros		  stale_at; /* it must be loaded again by then; MICROS_NEVER: only when it changes */
} Catalog;

/*
 * Columns of sql/catalog.sql, in order.  The result belongs to the caller.
 */
extern bool catalog_from_result(const PGresult *result, Catalog **catalog, Error *error) MUST_CHECK;

/*
 * For those who make a catalog by hand (tests): an empty one, a stream table that the caller fills,
 * and the last step after all were added.
 */
extern Catalog	   *catalog_create(void);
extern StreamTable *catalog_add(Catalog *catalog, int64_t pgt_id, Oid relid, const char *name);
extern void			catalog_finish(Catalog *catalog);

extern void catalog_free(Catalog *catalog);

/* Takes over what the run knew, except for pending transactions: those are routed anew. */
extern void catalog_take_over(Catalog *catalog, Catalog *old, Micros now);

extern StreamTable *catalog_find(const Catalog *catalog, int64_t pgt_id);

/* The readers of a relation: the first of *count neighbours, or NULL. */
extern const Reader *catalog_readers(const Catalog *catalog, Oid relid, size_t *count);

/*
 * The relations whose rows are wanted: ascending, without duplicates; the caller frees the array.
 */
extern Oid *catalog_interest(const Catalog *catalog, size_t *count);

extern bool		   stream_table_reads(const StreamTable *table, Oid relid);
extern const char *stream_table_source_name(const StreamTable *table, Oid relid);

static inline bool
stream_table_is_copy(const StreamTable *table)
{
	return table->schedule == SCHEDULE_COPY;
}

/*
 * Is what arrives for this copy applied, or kept for it?  Not the same as being active, which is what its consumers need: that it has
 * rows.
 */
static inline bool
copy_is_followed(const StreamTable *copy)
{
	return stream_table_is_copy(copy) && copy->copy.status != COPY_NOT_FOLLOWED;
}

/* What it has received, as rows or in the spool. */
static inline Snapshot *
stream_table_received(const StreamTable *table)
{
	return table->spooled != NULL ? table->spooled : table->frontier;
}

/* Is its frontier still that of the fill in a user's transaction? */
static inline bool
stream_table_is_at_fill(const StreamTable *table)
{
	return table->filled_xid != XID_NONE &&
		   (table->own_xid == table->filled_xid || table->own_xid == XID_NONE);
}

/* It has become what its query gave at a moment.  When that was its time, the next one has to be asked for. */
static inline void
stream_table_was_refreshed(StreamTable *table, Micros moment)
{
	table->refreshed_at = moment;
	if (table->cron_at <= moment)
		table->cron_at = MICROS_NEVER;
}

/*
 * Does a received transaction belong to some later tick of this stream table?
 * docs/explanation/tick.md, sections 1, 7 and 8: not what the frontier or the spool has, not its own refresh.  The
 * transaction that filled it counts as a whole here; which of its records count is a matter of its
 * marker.
 */
static inline bool
stream_table_wants(const StreamTable *table, Xid xid)
{
	if (stream_table_is_at_fill(table) && xid == table->filled_xid)
		return true;
	return xid != table->own_xid && !snapshot_sees(stream_table_received(table), xid);
}

#endif /* PGTRICKLE_APPLIER_CATALOG_H */
