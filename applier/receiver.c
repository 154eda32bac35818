/*
 * applier/receiver.c
 *     One message of a stream: its records, in their order.
 */
#include "receiver.h"

/* Neighbouring row records for one chunk, copied with one call. */
typedef struct Run
{
	uint32_t	   relation; /* of the last row, 0: none yet */
	bool		   is_wanted; /* that relation */
	uint32_t	   chunk;
	const uint8_t *start; /* NULL: no run */
	const uint8_t *end;
} Run;

static void
finish_run(Buffer *buffer, Run *run)
{
	if (run->start != NULL)
		buffer_append_rows(buffer, run->chunk, run->start, (size_t) (run->end - run->start));
	run->start = NULL;
}

static bool
turn_to_relation(const Receiver *receiver, void *stream, Buffer *buffer, uint32_t number, Run *run,
				 Error *error)
{
	const Relation *relation = relations_find(buffer->relations, number);
	uint32_t		chunk = run->chunk;

	if (buffer->open == NULL)
		return error_set(error, FAIL_RETRY, "row outside of a transaction");
	if (relation == NULL)
		return error_set(error, FAIL_RETRY, "row of relation number %u, which was not described",
						 number);
	run->relation = number;
	run->is_wanted = receiver->choose_chunk(stream, relation, &chunk);
	if (chunk != run->chunk)
		finish_run(buffer, run);
	run->chunk = chunk;
	return true;
}

static void
append_row(Buffer *buffer, const RecordView *record, Run *run)
{
	const uint8_t *start = record->encoded.data;

	if (!run->is_wanted)
		return;
	if (run->end != start)
		finish_run(buffer, run);
	if (run->start == NULL)
		run->start = start;
	run->end = start + record->encoded.length;
}

bool
receiver_take_batch(const Receiver *receiver, void *stream, Buffer *buffer, const Lsn *stream_lsn,
					ByteRange batch, int64_t server_time, Error *error)
{
	BatchReader reader = batch_reader(batch.data, batch.length);
	Run			run = {0};
	RecordView	record;

	while (batch_next_record(&reader, &record))
	{
		bool taken = true;

		if (record_is_row(&record))
		{
			if (record.relation != run.relation)
				taken = turn_to_relation(receiver, stream, buffer, record.relation, &run, error);
			if (taken)
				append_row(buffer, &record, &run);
		}
		else
		{
			finish_run(buffer, &run);
			run.relation = 0;
			taken = receiver->take_record(stream, &record, server_time, error);
		}
		if (!taken)
			return error_context(error, "could not use the stream at %s",
								 lsn_text(*stream_lsn).text);
	}
	finish_run(buffer, &run);
	if (reader.error != NULL)
		return error_set(
			error, FAIL_RETRY, "could not decode the stream after %s: %s at byte %zu of %zu",
			lsn_text(*stream_lsn).text, reader.error, batch_error_offset(&reader), batch.length);
	return buffer_keep_small(buffer, error);
}

bool
receiver_begin(Buffer *buffer, const BeginView *begin, int64_t server_time, Error *error)
{
	int64_t age = server_time - begin->commit_time;

	if (!buffer_begin(buffer, begin->xid, begin->commit_lsn, clock_now() - (age > 0 ? age : 0),
					  error))
		return false;
	buffer->open->commit_time = begin->commit_time;
	return true;
}
