/*
 * decoder/interest.h
 *     The set of relations whose rows the reader of the stream wants.
 *
 * It starts as the option `interest` says and only grows, by non-transactional messages in the WAL:
 * a relation that nobody wants any more leaves it at the next START_REPLICATION.
 */
#ifndef PGTRICKLE_DECODER_INTEREST_H
#define PGTRICKLE_DECODER_INTEREST_H

#include "postgres.h"

#include "utils/hsearch.h"

/*
 * Anybody may emit messages, so the set has a limit.  Beyond it rows are skipped, which is always
 * right.
 */
#define INTEREST_RELATIONS_MAX 100000

typedef struct Interest
{
	bool  is_all; /* every relation there is */
	HTAB *relids;
} Interest;

/* An empty set in the given context. */
extern void interest_init(Interest *interest, MemoryContext context);

/*
 * Adds relations from the text `16385,16402`, or all of them for `*`.  False when the text is not
 * such a list; nothing has been added then.
 */
extern bool interest_add_text(Interest *interest, const char *text);

/*
 * Adds what a message `interest <xid> <relid>[,<relid>...]` asks for.  False when it is another
 * message or malformed.
 */
extern bool interest_add_message(Interest *interest, const char *payload, Size length);

extern bool interest_contains(const Interest *interest, Oid relid);

/* Asked for by its OID, not only by `*`. */
extern bool interest_names(const Interest *interest, Oid relid);

#endif /* PGTRICKLE_DECODER_INTEREST_H */
