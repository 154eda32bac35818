/*
 * applier/remote_plan.h
 *     What a tick takes from the remotes: of each a prefix of its transactions, in the order of their commits.
 *
 * A prefix is bounded by bytes but holds at least one transaction, and it stops before the first one that touches a copy that has to
 * wait: one whose shape is being compared, one that is to be tried again later, one that the tick has not locked.
 */
#ifndef PGTRICKLE_APPLIER_REMOTE_PLAN_H
#define PGTRICKLE_APPLIER_REMOTE_PLAN_H

#include "plan.h"
#include "remote.h"

/*
 * Marks the copies that a tick at this moment would write: in_prefix and pending_since.  `chosen_only`: only what touches no other
 * copies than those that are chosen (in_tick).
 */
extern void remotes_mark_prefixes(Remotes *remotes, bool chosen_only, Micros now);

/* Gives the plan a change set for each remote that has something for one of the plan's copies. */
extern void remotes_add_sets(Remotes *remotes, Plan *plan);

/* The tick was committed, and insert_lsn was read after it: positions move, transactions are released. */
extern void remotes_committed(Remotes *remotes, Lsn insert_lsn, Micros duration, Micros now);

/* How much a tick takes before it is known how long that takes. */
#define PREFIX_BYTES_FIRST (UINT64_C(4) * 1024 * 1024)

/*
 * It has failed.  `apart`: nobody knows because of whom, or a lock was not got.  Then each of its remotes waits for a time of its own, so
 * that the next ticks have one of them or none.
 */
extern void remotes_tick_failed(Remotes *remotes, bool apart, Micros now);

/* After the end of the epoch: what was received comes again.  While a tick uses it, it stays until that is over. */
extern void remote_forget_transactions(Remote *remote);

/*
 * Lets go of the transactions at the front that touch no copy that is followed.  Returns the position up to which everything is
 * then in the copies, or what the remote has persisted if that is as far; *time is the remote's clock there.
 */
extern Lsn remote_skip_untouched(Remote *remote, int64_t *time);

#endif /* PGTRICKLE_APPLIER_REMOTE_PLAN_H */
