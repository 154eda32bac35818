/*
 * delta/wal_message.h
 *     Writes the messages by which the server speaks to the applier.
 *
 * docs/explanation/tick.md, section 4, lists the payloads and what each of them means.
 */
#ifndef PGTRICKLE_WAL_MESSAGE_H
#define PGTRICKLE_WAL_MESSAGE_H

#include "postgres.h"

#include "access/xlogdefs.h"

/*
 * Writes a logical message with the prefix "pgtrickle" into the WAL and returns the end of its record.
 *
 * A transactional message arrives with the other changes of this transaction, or never if it aborts, and
 * assigns a transaction id.  One that is not arrives whatever becomes of the transaction, as soon as its
 * record is flushed.  `flush` waits for that flush.  An ERROR during recovery.
 */
extern XLogRecPtr wal_message_emit(const char *payload, bool transactional, bool flush);

#endif /* PGTRICKLE_WAL_MESSAGE_H */
