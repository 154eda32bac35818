/*
 * applier/snapshot.h
 *     Snapshots in their text form xmin:xmax:xip, and the one question asked of them.
 *
 * Transaction ids have 64 bits here and everywhere in the applier: the plugin widens them, and
 * pg_snapshot prints them so.  A snapshot never changes after it was read; whoever keeps one takes
 * a reference.
 */
#ifndef PGTRICKLE_APPLIER_SNAPSHOT_H
#define PGTRICKLE_APPLIER_SNAPSHOT_H

#include <stddef.h>

#include "error.h"
#include "lsn.h"

typedef uint64_t Xid;

#define XID_NONE UINT64_C(0)

typedef struct Snapshot
{
	int	   references;
	Xid	   xmin; /* everything below has ended */
	Xid	   xmax; /* this and everything above had not ended */
	size_t xip_count;
	Xid	   xip[]; /* ascending; still running, in [xmin, xmax) */
} Snapshot;

/* Reads "10:20:10,14"; the caller owns one reference. */
extern bool snapshot_parse(const char *text, Snapshot **snapshot, Error *error) MUST_CHECK;

extern Snapshot *snapshot_share(Snapshot *snapshot);
extern void		 snapshot_release(Snapshot *snapshot); /* NULL is allowed */

/* Same set of transactions?  NULL equals only NULL. */
extern bool snapshot_equals(const Snapshot *a, const Snapshot *b);

/*
 * The rule of docs/explanation/tick.md section 1.  Of a transaction that committed: are its effects
 * in the snapshot?  Of any other: has it ended?  Only top-level ids.  NULL sees nothing.
 */
extern bool snapshot_sees(const Snapshot *snapshot, Xid xid);

#endif /* PGTRICKLE_APPLIER_SNAPSHOT_H */
