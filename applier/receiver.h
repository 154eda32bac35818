/*
 * applier/receiver.h
 *     One message of a stream: its records, in their order.
 *
 * What the local stream (intake.h) and that of a remote (remote_intake.h) have in common: rows are only appended to the open transaction,
 * neighbours with one call, and everything else is up to the stream.
 */
#ifndef PGTRICKLE_APPLIER_RECEIVER_H
#define PGTRICKLE_APPLIER_RECEIVER_H

#include "buffer.h"

typedef struct Receiver
{
	/* The chunk for the rows of a relation that come next; false: they are not wanted. */
	bool (*choose_chunk)(void *stream, const Relation *relation, uint32_t *chunk);

	/* A record that is no row. */
	bool (*take_record)(void *stream, const RecordView *record, int64_t server_time, Error *error);
} Receiver;

/*
 * `server_time` is when the server sent the message, in its clock (PostgreSQL's epoch); *stream_lsn is the position of the stream, for
 * messages.
 */
extern bool receiver_take_batch(const Receiver *receiver, void *stream, Buffer *buffer,
								const Lsn *stream_lsn, ByteRange batch, int64_t server_time,
								Error *error) MUST_CHECK;

/* Opens a transaction, which was committed as long ago as it was when the server sent its Begin. */
extern bool receiver_begin(Buffer *buffer, const BeginView *begin, int64_t server_time,
						   Error *error) MUST_CHECK;

#endif /* PGTRICKLE_APPLIER_RECEIVER_H */
