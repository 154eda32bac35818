/*
 * delta/row_versions.h
 *     What has changed in tables since a snapshot, read from the versions of their rows.
 */
#ifndef PGTRICKLE_ROW_VERSIONS_H
#define PGTRICKLE_ROW_VERSIONS_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "executor/tuptable.h"
#include "nodes/pg_list.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

/* Can it be told for all of these tables (an oid list)? */
extern bool row_versions_can_tell(List *relids);

/*
 * To be called before the snapshot is taken, in the same transaction: holds the tables as they are (ACCESS SHARE), and waits for the transactions that
 * are writing them.  Whatever a snapshot taken from now on does not see will be written behind the position that is returned.
 */
extern XLogRecPtr row_versions_begin(List *relids);

typedef void (*RowVersionSink) (void *arg, TupleTableSlot *slot, int32 weight);

/*
 * Hands over the rows that `after` sees and `before` does not (weight 1), and the other way round (weight -1), both versions of a changed row.  `before` has
 * been registered since it was taken, or this process has had an older one all the time; `begin` is the position of before.
 */
extern void row_versions_compare(Relation relation, XLogRecPtr begin, Snapshot before, Snapshot after, RowVersionSink sink, void *arg);

/*
 * A snapshot that some other transaction has taken, as pg_snapshot prints it, and what that transaction, which has been committed, has done itself.  Registered;
 * NULL if rows that it sees may be gone.  It says nothing about what this transaction does.
 */
extern Snapshot row_versions_snapshot(const char *text, uint64 taken_by);

#endif							/* PGTRICKLE_ROW_VERSIONS_H */
