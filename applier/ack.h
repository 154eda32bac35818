/*
 * applier/ack.h
 *     Acknowledge last: which position the slot may be told.
 *
 * The path of a position:
 *
 *     planned -> persisted -> flushed -> acknowledged
 *
 * Planned by plan_ack_lsn; persisted when a tick or heartbeat that carries it has committed;
 * flushed when the WAL behind that commit is on disk.  A tick commits without waiting for the disk;
 * that its commit is flushed is known when the stream position has passed the insert position read
 * after the commit, because a walsender sends only what is flushed.
 */
#ifndef PGTRICKLE_APPLIER_ACK_H
#define PGTRICKLE_APPLIER_ACK_H

#include "lsn.h"

typedef struct PersistedAck
{
	Lsn ack_lsn;
	Lsn insert_lsn; /* read after the commit; LSN_NONE: this place is empty */
} PersistedAck;

typedef struct Ack
{
	Lsn acknowledged_lsn; /* what the slot may be told now; only grows */

	/*
	 * The oldest that is not known to be flushed, and the newest.  Those between need not be
	 * remembered.
	 */
	PersistedAck oldest;
	PersistedAck newest;
} Ack;

/* A commit that carries ack_lsn is done, and insert_lsn was read after it. */
extern void ack_persisted(Ack *ack, Lsn ack_lsn, Lsn insert_lsn);

/* The same, when the commit itself has waited for the disk. */
extern void ack_flushed(Ack *ack, Lsn ack_lsn);

/* The stream has got this far.  Returns whether acknowledged_lsn has moved. */
extern bool ack_stream_reached(Ack *ack, Lsn stream_lsn);

/* Is something on its way? */
static inline bool
ack_is_waiting(const Ack *ack)
{
	return ack->oldest.insert_lsn != LSN_NONE;
}

#endif /* PGTRICKLE_APPLIER_ACK_H */
