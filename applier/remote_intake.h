/*
 * applier/remote_intake.h
 *     From the records of a remote's stream to its buffer.
 *
 * Much less happens here than to the local stream (intake.h): a remote's transactions count in the order of their commits, whole,
 * for all copies alike.  So there are no snapshots, no frontiers and no pending lists; what is left is a queue, from which a tick
 * takes the front.  Inside a transaction records keep their order, since a copy is written row by row.
 */
#ifndef PGTRICKLE_APPLIER_REMOTE_INTAKE_H
#define PGTRICKLE_APPLIER_REMOTE_INTAKE_H

#include "buffer.h"

/* A relation whose changes have all been applied, from this position up to that where the stream goes on. */
typedef struct Witness
{
	Oid relid;
	Lsn from;
} Witness;

typedef struct RemoteIntake
{
	Buffer *buffer; /* transactions that no tick has taken */

	/* The stream position: everything that commits before it has been received, and when the remote was there, by its clock. */
	Lsn		stream_lsn;
	int64_t stream_time;

	Oid	  *carried; /* the relations that the stream was asked for, ascending */
	size_t carried_count;

	/* What was applied before and comes again, to be recognized (remote_intake_expect). */
	Lsn		 passed_lsn; /* transactions that committed before are not wanted */
	Xid		 expected_xid; /* one of them; 0: it was there, or nobody asked */
	Lsn		 expected_lsn; /* of the last one that was applied, whether it has to come or not */
	Witness *witnesses;
	size_t	 witness_count;
	bool	 is_passing; /* the open transaction is not wanted */
	char	 other_history[128]; /* not empty: what comes is not what was applied, and why that is so */
} RemoteIntake;

/* Takes over `carried` (ascending); what commits before start_lsn counts as received. */
extern RemoteIntake *remote_intake_create(Buffer *buffer, Oid *carried, size_t carried_count,
										  Lsn start_lsn);
extern void			 remote_intake_free(RemoteIntake *intake);

/*
 * The stream starts before start_lsn.  It must bring the transaction that was applied last (xid 0: it was there before the stream starts), and none behind
 * it that a witness would have seen.  A server that was restored to an older state and has written on since may have as much WAL as before, but
 * not the same: then intake->other_history says so, and nothing that comes may be used.  Takes over `witnesses`.
 */
extern void remote_intake_expect(RemoteIntake *intake, Xid xid, Lsn commit_lsn, Witness *witnesses,
								 size_t witness_count);

/* One message of the stream; `server_time` as in stream.h. */
extern bool remote_intake_batch(RemoteIntake *intake, const void *data, size_t length,
								int64_t server_time, Error *error) MUST_CHECK;
extern bool remote_intake_keepalive(RemoteIntake *intake, Lsn wal_end, int64_t server_time,
									Error *error) MUST_CHECK;

/*
 * Has so much been received that no more should be read before a tick has taken some?  A transaction that is larger than the
 * memory goes to disk, since no tick can take half of it; whole ones wait at the remote instead.
 */
extern bool remote_intake_is_full(const RemoteIntake *intake);

extern bool remote_intake_carries(const RemoteIntake *intake, Oid relid);

#endif /* PGTRICKLE_APPLIER_REMOTE_INTAKE_H */
