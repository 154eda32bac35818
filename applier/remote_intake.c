/*
 * applier/remote_intake.c
 *     From the records of a remote's stream to its buffer.
 */
#include "remote_intake.h"

#include <stdio.h>
#include <stdlib.h>

#include "memory.h"
#include "receiver.h"

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
remote_intake_expect(RemoteIntake *intake, Xid xid, Lsn commit_lsn, Witness *witnesses,
					 size_t witness_count)
{
	intake->passed_lsn = intake->stream_lsn;
	intake->expected_xid = xid;
	intake->expected_lsn = commit_lsn;
	intake->witnesses = witnesses;
	intake->witness_count = witness_count;
}

void
remote_intake_free(RemoteIntake *intake)
{
	if (intake == NULL)
		return;
	buffer_free(intake->buffer);
	free(intake->carried);
	free(intake->witnesses);
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

/* The stream has come to `lsn`, with the beginning of a transaction there or without (xid 0). */
static bool
check_history(RemoteIntake *intake, Lsn lsn, Xid xid, Error *error)
{
	if (intake->expected_xid == 0)
		return true;
	if (lsn == intake->expected_lsn && xid == intake->expected_xid)
		intake->expected_xid = 0;
	if (intake->expected_xid == 0 || lsn < intake->expected_lsn)
		return true;
	snprintf(intake->other_history, sizeof(intake->other_history),
			 "transaction %llu at %s is not in the history of the server",
			 (unsigned long long) intake->expected_xid, lsn_text(intake->expected_lsn).text);
	return error_set(error, FAIL_RETRY, "%s", intake->other_history);
}

/* A transaction behind the last one that was applied changes this relation, and counts as received. */
static void
ask_witnesses(RemoteIntake *intake, Oid relid)
{
	const Transaction *open = intake->buffer->open;

	if (open->commit_lsn <= intake->expected_lsn || intake->other_history[0] != '\0')
		return;
	for (size_t i = 0; i < intake->witness_count; i++)
	{
		if (intake->witnesses[i].relid == relid && intake->witnesses[i].from <= open->commit_lsn)
			snprintf(intake->other_history, sizeof(intake->other_history),
					 "transaction %llu at %s is in the history of the server and was not",
					 (unsigned long long) open->xid, lsn_text(open->commit_lsn).text);
	}
}

static bool
take_begin(RemoteIntake *intake, const RecordView *record, int64_t server_time, Error *error)
{
	const BeginView *begin = &record->begin;

	if (!check_history(intake, begin->commit_lsn, begin->xid, error) ||
		!receiver_begin(intake->buffer, begin, server_time, error))
		return false;
	intake->is_passing = begin->commit_lsn < intake->passed_lsn;
	if (!intake->is_passing)
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
	/* It brought nothing that a copy could want. */
	if (transaction->relation_count == 0 && transaction->truncated_count == 0)
		buffer_release(intake->buffer, transaction);
	if (commit->end_lsn > intake->stream_lsn)
		return remote_intake_keepalive(intake, commit->end_lsn, server_time, error);
	return true;
}

static bool
take_truncate(RemoteIntake *intake, const RecordView *record, Error *error)
{
	RelidReader relids = truncate_reader(&record->truncate);
	uint32_t	relid;

	if (intake->buffer->open == NULL)
		return error_set(error, FAIL_RETRY, "truncation outside of a transaction");
	if (!intake->is_passing)
		buffer_append_truncate(intake->buffer, record);
	else
	{
		while (relid_next(&relids, &relid))
			ask_witnesses(intake, relid);
	}
	return true;
}

static bool
take_record(void *stream, const RecordView *record, int64_t server_time, Error *error)
{
	RemoteIntake *intake = stream;

	switch (record->kind)
	{
		case KIND_BEGIN:
			return take_begin(intake, record, server_time, error);
		case KIND_RELATION:
			return relations_add(intake->buffer->relations, record, error);
		case KIND_TRUNCATE:
			return take_truncate(intake, record, error);
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

/* The remote may have stream tables of its own, whose messages make the plugin send more than we asked for. */
static bool
choose_chunk(void *stream, const Relation *relation, uint32_t *chunk)
{
	RemoteIntake *intake = stream;

	*chunk = CHUNK_OF_ALL;
	for (size_t i = 0; intake->is_passing && i < relation->publish_as_count; i++)
		ask_witnesses(intake, relation->publish_as[i]);
	if (intake->is_passing)
		return false;
	for (size_t i = 0; i < relation->publish_as_count; i++)
	{
		if (remote_intake_carries(intake, relation->publish_as[i]))
		{
			buffer_note_relation(intake->buffer, relation->number);
			return true;
		}
	}
	return false;
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
	static const Receiver receiver = {choose_chunk, take_record};

	if (!receiver_take_batch(&receiver, intake, intake->buffer, &intake->stream_lsn,
							 byte_range(data, length), server_time, error))
		return false;
	keep_spill_small(intake);
	return true;
}

bool
remote_intake_keepalive(RemoteIntake *intake, Lsn wal_end, int64_t server_time, Error *error)
{
	if (wal_end > intake->expected_lsn && !check_history(intake, wal_end, 0, error))
		return false;
	intake->stream_lsn = lsn_max(intake->stream_lsn, wal_end);
	if (server_time > intake->stream_time)
		intake->stream_time = server_time;
	return true;
}
