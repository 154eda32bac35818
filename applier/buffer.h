/*
 * applier/buffer.h
 *     The change buffer: received transactions until every stream table has consumed them.
 *
 * Receiving appends the raw bytes of records to one chunk per transaction and relation, nothing
 * else, so a change set is made by laying chunks end to end.  Past a limit bytes move to temporary
 * files; what stays in memory per transaction is a few hundred bytes, and when even those are too
 * many the buffer says that it is under pressure.
 *
 * A transaction here is OPEN while its records arrive, then RECEIVED, then SETTLED (a snapshot of
 * ours has seen it) and released once it is settled, nobody needs it and nobody pins its relations.
 * Nothing of this is durable: the slot's position stands before every transaction that has not
 * been released.
 */
#ifndef PGTRICKLE_APPLIER_BUFFER_H
#define PGTRICKLE_APPLIER_BUFFER_H

#include "chunk.h"
#include "log.h"
#include "lsn.h"
#include "relations.h"
#include "snapshot.h"

/*
 * Where a fill happened inside its own transaction: what came before is in the fill, what comes
 * later is not.  Chunks that did not exist yet count from their start.
 */
typedef struct FillMarker
{
	int64_t	  pgt_id;
	size_t	  ddl_count;
	size_t	  chunk_count;
	uint64_t *chunk_lengths;
} FillMarker;

typedef struct Transaction Transaction;
struct Transaction
{
	Transaction *previous; /* in commit order */
	Transaction *next;
	Xid			 xid;
	Lsn			 commit_lsn;
	Lsn			 end_lsn;
	Micros		 committed_at; /* by our clock, estimated */
	Chunk		*chunks;
	size_t		 chunk_count;
	size_t		 chunk_capacity;
	Chunk		 first_chunk; /* most transactions need only one */
	int64_t		 commit_time; /* by the clock of the server that it comes from, PostgreSQL's epoch; only of remotes */
	uint32_t	*relations; /* numbers of what it has rows of, in a buffer that keeps the order of records */
	size_t		 relation_count;
	size_t		 relation_capacity;
	Oid			*truncated; /* the relations of the Truncate records */
	size_t		 truncated_count;
	Oid			*ddl_relids; /* relations that changed shape */
	size_t		 ddl_count;
	size_t		 ddl_capacity;
	FillMarker	*markers;
	size_t		 marker_count;
	bool		 changes_catalog;
	bool		 data_is_dropped; /* too large to keep: only its relations are known */
	bool		 is_given_up; /* of a remote: the target knows that, and copies what it touched again */
	bool		 is_settled;
	int			 needed_by; /* number of pending lists it is in */

	/* Scratch of the tick that is being prepared. */
	uint64_t tick_number;
	int		 consumed_by;
	size_t	 set_mark;
};

/* Transactions that a stream table still has to consume, in commit order. */
typedef struct PendingList
{
	Transaction **items;
	size_t		  count;
	size_t		  capacity;
} PendingList;

typedef struct Buffer Buffer;
struct Buffer
{
	Relations	 *relations;
	Spill		 *spill;
	Transaction	 *first; /* received, in commit order */
	Transaction	 *last;
	Transaction	 *open; /* being received, or NULL */
	size_t		  count;
	uint64_t	  memory_bytes; /* of everything but relations */
	uint64_t	  memory_bytes_max;
	uint64_t	  spill_bytes_max; /* 0: no limit */
	Transaction **unsettled;
	size_t		  unsettled_count;
	size_t		  unsettled_capacity;
	Transaction	 *spill_next; /* everything before it is on disk; NULL: start from the first */
	bool		  spill_is_complete; /* nothing was received since the walk of spill_next ended */
	bool		  settles_at_commit; /* no snapshot has to see what it holds: a remote's transactions */

	/* Must this one be kept although it is settled and nobody needs it?  NULL: no. */
	bool (*is_pinned)(const Buffer *buffer, const Transaction *transaction, const void *context);
	const void *pin_context;
};

extern Buffer *
buffer_create(uint64_t memory_bytes_max, uint64_t spill_bytes_max, const char *spill_directory);
extern void buffer_free(Buffer *buffer);

/*
 * --- receiving: appends to the open transaction -------------------------------------------------
 */

extern bool
buffer_begin(Buffer *buffer, Xid xid, Lsn commit_lsn, Micros committed_at, Error *error) MUST_CHECK;

/* `data` holds whole row records of one relation, in the form they have inside a batch. */
extern void buffer_append_rows(Buffer *buffer, uint32_t relation, const void *data, size_t length);
extern void buffer_append_truncate(Buffer *buffer, const RecordView *record);

/*
 * A buffer that keeps the order of a transaction's records has them all in one chunk (relation CHUNK_TRUNCATES).  Which relations
 * these rows belong to has to be said; once is enough.
 */
extern void buffer_note_relation(Buffer *buffer, uint32_t relation);
extern void buffer_append_ddl(Buffer *buffer, Oid relid);
extern void buffer_mark_filled(Buffer *buffer, int64_t pgt_id);

/*
 * Ends the open transaction: it is received, unsettled and needed by nobody yet.  The buffer owns
 * it; NULL and an error if the stream is out of order.
 */
extern Transaction *buffer_commit(Buffer *buffer, Lsn commit_lsn, Lsn end_lsn, Error *error);

/* Moves bytes to disk when there are too many in memory; bounded work per call. */
extern bool buffer_keep_small(Buffer *buffer, Error *error) MUST_CHECK;

/*
 * Spilling does not help any more (or the disk's share is used up): somebody must consume, or do
 * without.
 */
extern bool buffer_is_under_pressure(const Buffer *buffer);

/*
 * --- pending lists ------------------------------------------------------------------------------
 */

extern void pending_append(Buffer *buffer, PendingList *pending, Transaction *transaction);

/*
 * Takes out every transaction for which `wanted` is false, and releases those that are done with.
 */
typedef bool (*TransactionTest)(const Transaction *transaction, const void *context);
extern void
pending_keep(Buffer *buffer, PendingList *pending, TransactionTest wanted, const void *context);
extern void pending_clear(Buffer *buffer, PendingList *pending);
extern void pending_free(Buffer *buffer, PendingList *pending);

/*
 * --- letting go ---------------------------------------------------------------------------------
 */

/*
 * A snapshot of ours, whose insert position the stream has reached: every transaction that it sees
 * is settled, and released if nothing else holds it.
 */
extern void buffer_settle(Buffer *buffer, const Snapshot *snapshot);

/* Looks at every transaction: for when pins have gone or the catalog has changed. */
extern void buffer_sweep(Buffer *buffer);

/* Releases one transaction, whatever its state; it must be in no pending list. */
extern void buffer_release(Buffer *buffer, Transaction *transaction);

/* Gives up the rows of a transaction but not its place in the order. */
extern void buffer_drop_data(Buffer *buffer, Transaction *transaction);

/*
 * Lowest commit LSN of what is in the buffer, the open transaction included; LSN_MAX when it is
 * empty.
 */
extern Lsn buffer_needed_lsn(const Buffer *buffer);

/* Bytes in memory and on disk. */
extern uint64_t buffer_total_bytes(const Buffer *buffer);

/*
 * --- reading ------------------------------------------------------------------------------------
 */


/* The last marker of this stream table, or NULL. */
extern const FillMarker *transaction_marker(const Transaction *transaction, int64_t pgt_id);

/* Does the transaction have records for this relation (of the interest list)? */
extern bool transaction_touches(const Buffer *buffer, const Transaction *transaction, Oid relid);

/*
 * Calls back for every relation that it touches, by rows, truncation or DDL; the same one may come
 * twice.
 */
typedef void (*RelidVisitor)(Oid relid, void *context);
extern void transaction_visit_relids(const Buffer *buffer, const Transaction *transaction,
									 RelidVisitor visit, void *context);

#endif /* PGTRICKLE_APPLIER_BUFFER_H */
