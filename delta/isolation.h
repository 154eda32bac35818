/*
 * delta/isolation.h
 *     IMMEDIATE runs in transactions with one snapshot: they fail rather than use what the transaction does not see.
 */
#ifndef PGTRICKLE_ISOLATION_H
#define PGTRICKLE_ISOLATION_H

#include "postgres.h"

#include "compat.h"
#include "rowset.h"
#include "utils/snapshot.h"

/*
 * The snapshot of a REPEATABLE READ or SERIALIZABLE transaction, if the active one is newer; else NULL.  Belongs to the snapshot manager; valid until
 * the next command.
 */
extern Snapshot isolation_older_snapshot(void);

/* Makes that snapshot the active one, with all that this transaction has done. */
extern void isolation_push_snapshot(void);

/* Error 40001 unless both rowsets hold the same rows. */
extern void isolation_require_same(Rowset *now, Rowset *then);

pg_noreturn extern void isolation_fail(void);

#endif							/* PGTRICKLE_ISOLATION_H */
