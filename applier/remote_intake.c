/*
 * applier/remote_intake.c
 *     From the records of a remote's stream to its buffer.
 */
#include "remote_intake.h"

#include <stdlib.h>

#include "memory.h"

/* All records of a transaction lie in one chunk, in their order. */
#define CHUNK_OF_ALL CHUNK_TRUNCATES

RemoteIntake *
remote_intake_create(Buffer *buffer, Oid *carried, size_t carried_count, Lsn start_lsn)
{
	RemoteIntake *intake = memory_take_zeroed(sizeof(RemoteIntake));

	buffer->settles_at_commit = true;
	intake->buffer = buffer;
	intake->carried = carried;
	intake->carried_count = carried_count;
	intake->stream_lsn = start_lsn;
	return intake;
}

void
remote_intake_free(RemoteIntake *intake)
{
	if (intake == NULL)
		return;
	buffer_free(intake->buffer);
	free(intake->carried);
	free(intake);
}

bool
remote_intake_carries(const RemoteIntake *intake, Oid relid)
{
	size_t low = 0;
	size_t high = intake->carried_count;

	while (low < high)
	{
		size_t middle = low + (high - low) / 2;

		if (intake->carried[middle] < relid)
			low = middle + 1;
		else
			high = middle;
	}
	return low < intake->carried_count && intake->carried[low] == relid;
}

bool
remote_intake_is_full(const RemoteIntake *intake)
{
	const Buffer *buffer = intake->buffer;

	return buffer->first != NULL && buffer_total_bytes(buffer) > buffer->memory_bytes_max;
}

/* ------------------------------------------------------------------------------------------------
 * Records
 */

static bool
take_begin(RemoteIntake *intake, const RecordView *record, int64_t server_time, Error *error)
{
	const BeginView *begin = &record->begin;
	int64_t			 age = server_time - begin->commit_time;

	if (!buffer_begin(intake->buffer, begin->xid, begin->commit_lsn,
					  clock_now() - (age > 0 ? age : 0), error))
		return false;
	intake->buffer->open->commit_time = begin->commit_time;
	buffer_append_rows(intake->buffer, CHUNK_OF_ALL, record->encoded.data, record->encoded.length);
	return true;
}

static bool
take_commit(RemoteIntake *intake, const CommitView *commit, int64_t server_time, Error *error)
{
	Transaction *transaction =
		buffer_commit(intake->buffer, commit->commit_lsn, commit->end_lsn, error);

	if (transaction == NULL)
		return false;
	intake->transactions_received++;
	/* It brought nothing that a copy could want. */
	if (transaction->relation_count == 0 && transaction->truncated_count == 0)
		buffer_release(intake->buffer, transaction);
	if (commit->end_lsn > intake->stream_lsn)
		remote_intake_keepalive(intake, commit->end_lsn, server_time);
	return true;
}

static bool
take_other(RemoteIntake *intake, const RecordView *record, int64_t server_time, Error *error)
{
	switch (record->kind)
	{
		case KIND_BEGIN:
			return take_begin(intake, record, server_time, error);
		case KIND_RELATION:
			return relations_add(intake->buffer->relations, record, error);
		case KIND_TRUNCATE:
			if (intake->buffer->open == NULL)
				return error_set(error, FAIL_RETRY, "truncation outside of a transaction");
			buffer_append_truncate(intake->buffer, record);
			return true;
		case KIND_COMMIT:
			return take_commit(intake, &record->commit, server_time, error);
		case KIND_MESSAGE: /* of stream tables that live there: not for us */
		case KIND_SKIPPED:
			return true;
		default:
			return error_set(error, FAIL_RETRY, "unexpected record of kind %d", (int) record->kind);
	}
}

/* ------------------------------------------------------------------------------------------------
 * Rows
 */

/* Neighbouring row records, of whatever relations, copied with one call. */
typedef struct Run
{
	uint32_t	   relation; /* of the last row, 0: none yet */
	bool		   is_wanted; /* that relation */
	const uint8_t *start; /* NULL: no run */
	const uint8_t *end;
} Run;

static void
finish_run(RemoteIntake *intake, Run *run)
{
	if (run->start != NULL)
		buffer_append_rows(intake->buffer, CHUNK_OF_ALL, run->start,
						   (size_t) (run->end - run->start));
	run->start = NULL;
}

/* The remote may have stream tables of its own, whose messages make the plugin send more than we asked for. */
static bool
is_wanted(const RemoteIntake *intake, const Relation *relation)
{
	for (size_t i = 0; i < relation->publish_as_count; i++)
	{
		if (remote_intake_carries(intake, relation->publish_as[i]))
			return true;
	}
	return false;
}

static bool
turn_to_relation(RemoteIntake *intake, uint32_t number, Run *run, Error *error)
{
	const Relation *relation = relations_find(intake->buffer->relations, number);

	if (relation == NULL)
		return error_set(error, FAIL_RETRY, "row of relation number %u, which was not described",
						 number);
	run->relation = number;
	run->is_wanted = is_wanted(intake, relation);
	if (run->is_wanted)
		buffer_note_relation(intake->buffer, number);
	return true;
}

static bool
take_row(RemoteIntake *intake, const RecordView *record, Run *run, Error *error)
{
	const uint8_t *start = record->encoded.data;

	if (intake->buffer->open == NULL)
		return error_set(error, FAIL_RETRY, "row outside of a transaction");
	if (record->relation != run->relation && !turn_to_relation(intake, record->relation, run, error))
		return false;
	if (!run->is_wanted)
		return true;
	if (run->start != NULL && run->end != start)
		finish_run(intake, run);
	if (run->start == NULL)
		run->start = start;
	run->end = start + record->encoded.length;
	return true;
}

/* Whole transactions wait at the remote instead, so it is the open one that fills the disk. */
static void
keep_spill_small(RemoteIntake *intake)
{
	Buffer *buffer = intake->buffer;

	if (buffer->spill_bytes_max == 0 || spill_bytes(buffer->spill) <= buffer->spill_bytes_max ||
		buffer->open == NULL || buffer->open->data_is_dropped)
		return;
	log_event(LEVEL_WARNING,
			  "transaction %llu of a remote is larger than --spill-mb allows: its changes will not be kept",
			  (unsigned long long) buffer->open->xid);
	buffer_drop_data(buffer, buffer->open);
}

bool
remote_intake_batch(RemoteIntake *intake, const void *data, size_t length, int64_t server_time,
					Error *error)
{
	BatchReader batch = batch_reader(data, length);
	Run			run = {0};
	RecordView	record;

	while (batch_next_record(&batch, &record))
	{
		bool taken;

		if (record_is_row(&record))
			taken = take_row(intake, &record, &run, error);
		else
		{
			finish_run(intake, &run);
			run.relation = 0;
			taken = take_other(intake, &record, server_time, error);
		}
		if (!taken)
			return error_context(error, "could not use the stream at %s",
								 lsn_text(intake->stream_lsn).text);
	}
	finish_run(intake, &run);
	if (batch.error != NULL)
		return error_set(
			error, FAIL_RETRY, "could not decode the stream after %s: %s at byte %zu of %zu",
			lsn_text(intake->stream_lsn).text, batch.error, batch_error_offset(&batch), length);
	if (!buffer_keep_small(intake->buffer, error))
		return false;
	keep_spill_small(intake);
	return true;
}

void
remote_intake_keepalive(RemoteIntake *intake, Lsn wal_end, int64_t server_time)
{
	intake->stream_lsn = lsn_max(intake->stream_lsn, wal_end);
	if (server_time > intake->stream_time)
		intake->stream_time = server_time;
}
