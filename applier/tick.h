/*
 * applier/tick.h
 *     One tick on the refresh connection: docs/explanation/tick.md, section 6, as a state machine.
 *
 *     IDLE -> LOCK_LIST -> BEGIN -> FENCE -> STAGE -> EXECUTE -> IDLE      committed
 *                            |        |        |         |
 *                            +--------+--------+---------+--> ROLLBACK -> IDLE   given up, failed
 *
 * Nothing survives a crash but what the commit in EXECUTE wrote: rows, frontiers and the position
 * to acknowledge, in one transaction.  The catalog is not replaced while a tick runs.
 */
#ifndef PGTRICKLE_APPLIER_TICK_H
#define PGTRICKLE_APPLIER_TICK_H

#include "control.h"
#include "plan.h"
#include "remote_plan.h"
#include "session.h"

typedef enum TickState
{
	TICK_IDLE,
	TICK_LOCK_LIST,
	TICK_BEGIN,
	TICK_FENCE,
	TICK_STAGE,
	TICK_EXECUTE,
	TICK_ROLLBACK
} TickState;

typedef enum TickOutcome
{
	TICK_NO_OUTCOME, /* it runs, or nobody asked for one */
	TICK_COMMITTED,
	TICK_NOTHING_VISIBLE, /* what is pending cannot be seen yet */
	TICK_STALE_CATALOG, /* the snapshot sees a change of the catalog that is not loaded */
	TICK_TOO_FAR_BEHIND, /* the stream is: no snapshot is held open for so long */
	TICK_FAILED
} TickOutcome;

/* While the stream is farther behind than this, no snapshot is held open to wait for it. */
#define TICK_DISTANCE_MAX (UINT64_C(64) * 1024 * 1024)

/*
 * The same when the stream does not get there in time, be it near or far.  The longer one is for those
 * who have waited before.
 */
#define FENCE_WAIT_MAX (10 * MICROS_PER_SECOND)
#define FENCE_WAIT_LONG_MAX (60 * MICROS_PER_SECOND)

/*
 * Lock lists of the sets of stream tables that were due together, for one version of the catalog.
 */
#define LOCK_LISTS_MAX 64

typedef struct LockList
{
	char *pgt_ids;
	char *tables;
} LockList;

typedef struct Tick
{
	Session		session;
	TickState	state;
	TickOutcome outcome;
	Error		failure; /* when it failed */
	int64_t		culprit; /* the stream table that made it fail, or 0 */
	bool		failed_at_lock; /* before it had a snapshot */

	/* What it works with; belongs to the main loop. */
	Control *control;
	Intake	*intake;
	Remotes *remotes;
	uint64_t wal_segment_bytes;

	/* This tick. */
	uint64_t	number;
	Micros		started_at; /* and when each phase was over, for the log */
	Micros		snapshot_at;
	Micros		fence_at;
	bool		spools; /* it refreshes nobody, but puts what waits into the spool */
	bool		may_wait_long; /* TOO_FAR_BEHIND does not count this time */
	Micros		give_up_at; /* waiting for the fence */
	char	   *pgt_ids; /* of those chosen, as an array */
	Snapshot   *snapshot;
	Lsn			insert_lsn; /* read after the snapshot */
	Plan	   *plan;
	StageReader stage;
	bool		all_is_sent;
	bool		commit_is_sent;
	Xid			own_xid;
	bool		is_committed;
	Lsn			commit_insert_lsn; /* read after the commit */
	Lsn			persisted_ack_lsn; /* by the last one that was committed */
	Lsn			persisted_stream_lsn;

	LockList lock_lists[LOCK_LISTS_MAX];
	size_t	 lock_list_count;
	char	 fence_prefix[24];
} Tick;

extern void tick_init(Tick *tick, Control *control, Intake *intake, Remotes *remotes);

/* Before a new connection, and at the end. */
extern void tick_reset(Tick *tick);

/* Statements that every tick uses; the session must be open.  The sync's answer is the caller's. */
extern bool tick_prepare_statements(Tick *tick, Error *error) MUST_CHECK;

/* The catalog has changed, or names of sources: what was fetched about them is void. */
extern void tick_forget_lock_lists(Tick *tick);

/* Begins a tick of the stream tables that are marked in_tick. */
extern bool tick_start(Tick *tick, bool may_wait_long, Micros now, Error *error) MUST_CHECK;

/* Begins one that puts into the spool what waits for those that are marked in_tick and spools. */
extern bool tick_start_spool(Tick *tick, bool may_wait_long, Micros now, Error *error) MUST_CHECK;

/*
 * Goes as far as it can without waiting.  When the tick is over, `outcome` says how, and the state
 * is IDLE again.  An error is one of the connection.
 */
extern bool tick_advance(Tick *tick, Error *error) MUST_CHECK;

#endif /* PGTRICKLE_APPLIER_TICK_H */
