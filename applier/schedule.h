/*
 * applier/schedule.h
 *     What is to be refreshed, and when.
 *
 * A stream table is *pending* when a received transaction belongs to it, or when something upstream
 * is pending.  It is *due* when it is pending and its schedule says so, when somebody asked for it,
 * when it has to be filled again, or, pending or not, when it follows the clock and its schedule
 * says so.  Nothing pending, nothing asked and nobody who follows the clock: no deadline, so the
 * main loop sleeps.
 *
 * Computed from the catalog each time it is asked, which costs a walk over the stream tables; the
 * main loop asks once per turn, not once per transaction.
 */
#ifndef PGTRICKLE_APPLIER_SCHEDULE_H
#define PGTRICKLE_APPLIER_SCHEDULE_H

#include "catalog.h"
#include "log.h"
#include "lsn.h"

#define SCHEDULE_ALL INT64_C(0) /* in place of a pgt_id */

/* Somebody called refresh_stream_table or verify. */
typedef struct Request
{
	int64_t pgt_id; /* SCHEDULE_ALL: every one */
	char   *nonce; /* of a verification; NULL: refresh */
	Lsn		hold_lsn; /* before the message: unanswered, it is read again */
	bool	in_tick; /* the running tick answers it */
	bool	is_new;
} Request;

typedef struct Schedule
{
	Request *requests;
	size_t	 request_count;
	size_t	 request_capacity;
	bool	 is_dirty; /* since the last choice something may have become due */
	bool	 chose_alone; /* the last choice was one that goes alone */
	Xid		 valid_xid; /* fills with a lower xmin may miss changes: see tick.md section 7 */
	Micros	 tick_duration; /* of recent ticks, to be early by that much */
} Schedule;

extern Schedule *schedule_create(void);
extern void		 schedule_free(Schedule *schedule);

extern void schedule_request(Schedule *schedule, int64_t pgt_id, const char *nonce, Lsn hold_lsn);

/* What the requests say about one stream table. */
extern bool			  schedule_is_requested(const Schedule *schedule, const StreamTable *table);
extern const Request *schedule_verification(const Schedule *schedule, const StreamTable *table);

/*
 * Marks the requests that a tick beginning now may answer (those that come later are for the next
 * one).  At its end they are dropped if it was committed and their stream table took part.
 */
extern void schedule_requests_begin(Schedule *schedule, const Catalog *catalog);
extern void schedule_requests_end(Schedule *schedule, const Catalog *catalog, bool committed);
extern bool request_is_answered(const Request *request, const Catalog *catalog);

/* Drops requests for stream tables that do not exist or are not refreshed. */
extern void schedule_drop_unknown(Schedule *schedule, const Catalog *catalog);

/* Unanswered requests hold the slot; LSN_MAX: none. */
extern Lsn schedule_needed_lsn(const Schedule *schedule);

/*
 * Sets in_tick (and the scratch beside it) on the stream tables that are due at `now` and on
 * everything upstream of them; of those that go alone, on one at a time.  Returns how many;
 * *next_due is when to ask again (MICROS_NEVER: no reason to). `under_pressure`: the change buffer
 * is full, so intervals do not count.
 */
extern size_t schedule_choose(Schedule *schedule, Catalog *catalog, Micros now, bool under_pressure,
							  Micros *next_due);

/*
 * Slow stream tables must not hold the slot back.  After schedule_choose: of those that are not due, takes the ones for which something
 * has waited for `wait` or longer, or holds the slot more than `wal_bytes_max` behind; with `all`, all for which something waits.  If there are
 * any, in_tick is set on them alone, and spools.  Returns how many; *next is when to ask again (MICROS_NEVER: when something arrives).
 */
extern size_t schedule_choose_spool(const Schedule *schedule, Catalog *catalog, Lsn stream_lsn,
									Micros wait, uint64_t wal_bytes_max, bool all, Micros now,
									Micros *next);

/* Must it be refreshed in full, now and whatever its schedule?  The reason, or NULL. */
extern const char *schedule_refill_reason(const Schedule *schedule, const StreamTable *table);

/* How long to wait after so many failures: grows, with a maximum, and with jitter. */
extern Micros retry_delay(int failures, Micros first, Micros max);

/* What is pending was not visible: look again soon, then less soon. */
extern void schedule_defer(StreamTable *table, Micros now);

#endif /* PGTRICKLE_APPLIER_SCHEDULE_H */
