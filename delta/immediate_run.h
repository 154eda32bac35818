/*
 * delta/immediate_run.h
 *     Maintains the IMMEDIATE stream tables behind pending deltas.
 */
#ifndef PGTRICKLE_IMMEDIATE_RUN_H
#define PGTRICKLE_IMMEDIATE_RUN_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/snapshot.h"

/* `deltas`: of PendingDelta; stays the caller's. */
extern void immediate_run(List *deltas);

/*
 * What has changed in the sources of the stream table that is brought up to date (a list of PendingDelta).  Keeps writers away from them first, and moves the
 * active snapshot forward to what they have left.  `before`: the snapshot that the rows are right for; NULL: the function knows.
 */
typedef List *(*ImmediateChanges) (void *arg, Snapshot before);

/*
 * Brings one stream table up to date and then those that read it: by computing its query and writing the difference, unless its rows are right for some
 * snapshot; then by what has changed since.  Without `changes` nobody may be writing its sources.
 */
extern void immediate_refill(int64 pgt_id, bool in_full, ImmediateChanges changes, void *arg);

#endif							/* PGTRICKLE_IMMEDIATE_RUN_H */
