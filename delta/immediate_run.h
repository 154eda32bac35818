/*
 * delta/immediate_run.h
 *     Maintains the IMMEDIATE stream tables behind pending deltas.
 */
#ifndef PGTRICKLE_IMMEDIATE_RUN_H
#define PGTRICKLE_IMMEDIATE_RUN_H

#include "postgres.h"

#include "nodes/pg_list.h"

/* `deltas`: of PendingDelta; stays the caller's. */
extern void immediate_run(List *deltas);

/*
 * Brings one stream table up to date whatever it has missed, by computing its query and writing the difference, and then those that read it.  Nobody
 * may be writing its sources: immediate_lock_sources().
 */
extern void immediate_refill(int64 pgt_id);

#endif							/* PGTRICKLE_IMMEDIATE_RUN_H */
