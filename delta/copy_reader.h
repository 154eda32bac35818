/*
 * delta/copy_reader.h
 *     From records of a remote's stream to changes of copies.
 */
#ifndef PGTRICKLE_COPY_READER_H
#define PGTRICKLE_COPY_READER_H

#include "postgres.h"

#include "copy_definition.h"
#include "copy_target.h"
#include "lib/stringinfo.h"

/* What becomes of the changes of a copy's table. */
typedef struct CopyFeed
{
	CopyDefinition *definition;
	CopyTarget *target;			/* takes the changes; NULL: nobody does now */
	StringInfo	kept;			/* the records as they are, appended; NULL: not kept */
	void		(*put_away) (struct CopyFeed *feed);	/* called when there is much of it */
	XLogRecPtr	position;		/* of the remote, after all of it */
	uint64		kept_xid;		/* whose Begin record was kept last */
	bool		is_outdated;	/* a row fitted only because its columns are known by number */

	/* Catching up: what need not or must not be applied. */
	bool		is_load;		/* the target is the load table: it has what was committed before the copying began */
	Datum		skipped_snapshot;	/* a pg_snapshot: transactions that it sees are in the table; 0: none */
} CopyFeed;

/* The feeds of a table of the remote: a list of CopyFeed * that outlives the reader; NIL: nobody is interested. */
typedef List *(*CopyFeedFinder) (void *argument, Oid remote_relid);

typedef struct CopyReader CopyReader;

/* Allocated in the given context. */
extern CopyReader *copy_reader_create(CopyFeedFinder find_feeds, void *argument, MemoryContext context);

/*
 * Takes records: a serialized Batch.  `current` is set to the copy at work, for whoever has to blame one, and to NULL in between.
 * An ERROR for bad bytes (08P01), for a shape that does not fit its copy (ERRCODE_COPY_OTHER_SHAPE), and those of the targets.
 */
extern void copy_reader_read(CopyReader *reader, const char *data, size_t length, CopyDefinition **current);

/* The transaction that was read last; its xid is 0 if there was none. */
extern BeginView copy_reader_last(const CopyReader *reader);

#endif							/* PGTRICKLE_COPY_READER_H */
