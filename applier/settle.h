/*
 * applier/settle.h
 *     What the stream did not bring, and relations that somebody is about to read.
 *
 * docs/explanation/tick.md, section 7.  The plugin sends one Skipped record where a transaction
 * changed a relation outside of the interest list.  When a stream table over that relation appears,
 * such a transaction may be one that its fill could not see: then it has to be filled again.  So an
 * entry is kept until no fill can miss the transaction any more: a snapshot S' of ours has seen it,
 * and the stream has reached the insert position of S' (whoever asks for the relation later takes a
 * snapshot that sees it as well, and whoever had asked earlier is known by then), and no pin holds
 * the relation.
 *
 * A pin stands for an `interest` message: from then on until its transaction has ended and the
 * catalog has been loaded, entries and buffered transactions of its relations stay, and the slot
 * stays before the message, so that the plugin reads it again if the connection is lost.
 *
 * Nothing here is durable; the acknowledged position never passes what is listed here.
 */
#ifndef PGTRICKLE_APPLIER_SETTLE_H
#define PGTRICKLE_APPLIER_SETTLE_H

#include "lsn.h"
#include "snapshot.h"

typedef struct SkippedEntry
{
	Xid	 xid;
	Oid	 relid;
	bool is_settled; /* only a pin keeps it */
	Lsn	 commit_lsn;
} SkippedEntry;

typedef struct Pin
{
	Xid	   xid; /* the transaction that asked */
	Lsn	   hold_lsn; /* a position before the message */
	Oid	  *relids;
	size_t relid_count;
} Pin;

typedef struct Settle
{
	SkippedEntry *entries; /* in commit order */
	size_t		  entry_count;
	size_t		  entry_capacity;
	Pin			 *pins;
	size_t		  pin_count;
	size_t		  pin_capacity;
} Settle;

extern Settle *settle_create(void);
extern void	   settle_free(Settle *settle);

extern void settle_add_skipped(Settle *settle, Xid xid, Oid relid, Lsn commit_lsn);

/* `relids` is copied. */
extern void
settle_add_pin(Settle *settle, Xid xid, const Oid *relids, size_t relid_count, Lsn hold_lsn);

extern bool settle_is_pinned(const Settle *settle, Oid relid);

/*
 * A snapshot of ours whose insert position the stream has reached.  `catalog_is_current`: every
 * committed change of the catalog that this snapshot sees has been loaded.  Returns whether pins
 * went away.
 */
extern bool settle_see(Settle *settle, const Snapshot *snapshot, bool catalog_is_current);

/*
 * The lowest commit LSN of an entry of this relation that the snapshot does not see and that is not
 * `own_xid` (XID_NONE: no exception); LSN_MAX: none.
 */
extern Lsn
settle_first_missed(const Settle *settle, Oid relid, const Snapshot *snapshot, Xid own_xid);

/* Nothing from here on may be acknowledged; LSN_MAX: nothing is listed. */
extern Lsn settle_needed_lsn(const Settle *settle);

#endif /* PGTRICKLE_APPLIER_SETTLE_H */
