/*
 * delta/immediate_locks.h
 *     The locks of an IMMEDIATE run, and the snapshots taken after them.
 *
 * docs/explanation/immediate.md, section 3, is the protocol.
 */
#ifndef PGTRICKLE_IMMEDIATE_LOCKS_H
#define PGTRICKLE_IMMEDIATE_LOCKS_H

#include "postgres.h"

#include "run.h"

typedef struct RunLocks RunLocks;

/*
 * Locks the stream table for one run, fine or coarse; NULL if its definition changed while we waited (it has to be loaded again; the lock
 * stays).  The caller has pushed an active snapshot; it is replaced by a newer one whenever locks have been taken.
 */
extern RunLocks *run_locks_begin(LoadedTable *table, bool coarse);

/* Before a step is run, with the rowsets of the program so far. */
extern void run_locks_before_step(RunLocks *locks, ProgramStep *step, Rowset **rowsets);

/* Before the stream table's delta is applied. */
extern void run_locks_before_apply(RunLocks *locks, Rowset *delta);

/* The stream table's lock by itself: keeps all runs out until the end of the transaction. */
extern void immediate_lock_table(Oid relid, bool coarse);

/* In place of the active snapshot: one that sees what has been committed up to now, and all that this transaction has done. */
extern void immediate_renew_snapshot(void);

#endif							/* PGTRICKLE_IMMEDIATE_LOCKS_H */
