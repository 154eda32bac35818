/*
 * applier/intake.c
 *     From the records of the stream to the change buffer, the settle list and the requests.
 */
#include "intake_parts.h"

#include "memory.h"
#include "receiver.h"

/* Is one of its relations about to be read by somebody?  The buffer asks before it lets go. */
typedef struct PinSearch
{
	const Settle *settle;
	bool		  found;
} PinSearch;

static void
search_pin(Oid relid, void *context)
{
	PinSearch *search = context;

	if (!search->found)
		search->found = settle_is_pinned(search->settle, relid);
}

static bool
transaction_is_pinned(const Buffer *buffer, const Transaction *transaction, const void *context)
{
	PinSearch search = {context, false};

	if (search.settle->pin_count > 0)
		transaction_visit_relids(buffer, transaction, search_pin, &search);
	return search.found;
}

Intake *
intake_create(Buffer *buffer, Settle *settle, Schedule *schedule)
{
	Intake *intake = memory_take_zeroed(sizeof(Intake));

	intake->buffer = buffer;
	intake->settle = settle;
	intake->schedule = schedule;
	buffer->is_pinned = transaction_is_pinned;
	buffer->pin_context = settle;
	return intake;
}

void
intake_free(Intake *intake)
{
	free(intake->catalog_changes);
	free(intake->carried);
	free(intake);
}

/* ------------------------------------------------------------------------------------------------
 * Commit
 */

typedef struct Missing
{
	Intake	   *intake;
	Xid			xid;
	Lsn			commit_lsn;
	const char *reason;
} Missing;

static void
visit_missed(Oid relid, void *context)
{
	Missing *missing = context;

	(void) record_missed(missing->intake, missing->xid, relid, missing->commit_lsn,
						 missing->reason);
}

/*
 * Only the fact remains that these relations changed, as if the rows had been skipped by the
 * plugin.
 */
static void
reduce_to_skipped(Intake *intake, Transaction *transaction, const char *reason)
{
	Missing missing = {intake, transaction->xid, transaction->commit_lsn, reason};

	transaction_visit_relids(intake->buffer, transaction, visit_missed, &missing);
	buffer_release(intake->buffer, transaction);
}

static void
remember_catalog_change(Intake *intake, const Transaction *transaction)
{
	CatalogChange *change;

	intake->catalog_changes =
		memory_grow_array(intake->catalog_changes, intake->catalog_change_count,
						  &intake->catalog_change_capacity, sizeof(CatalogChange));
	change = &intake->catalog_changes[intake->catalog_change_count++];
	change->xid = transaction->xid;
	change->commit_lsn = transaction->commit_lsn;
}

static bool
take_commit(Intake *intake, const CommitView *commit, Error *error)
{
	Transaction *transaction =
		buffer_commit(intake->buffer, commit->commit_lsn, commit->end_lsn, error);

	if (transaction == NULL)
		return false;
	intake->stream_lsn = lsn_max(intake->stream_lsn, commit->end_lsn);
	if (transaction->changes_catalog)
		remember_catalog_change(intake, transaction);

	if (transaction->data_is_dropped)
	{
		reduce_to_skipped(intake, transaction, MISSED_TOO_LARGE);
		return true;
	}
	route_transaction(intake, transaction);

	/*
	 * Nobody reads it, and nobody has said that he is going to.  Should somebody turn up whose fill
	 * did not see it, he is filled again.  A transaction with fills inside is kept: its fills
	 * contain it.
	 */
	if (transaction->needed_by == 0 && transaction->marker_count == 0 &&
		!transaction_is_pinned(intake->buffer, transaction, intake->settle))
		reduce_to_skipped(intake, transaction, MISSED_SKIPPED);
	return true;
}

/* ------------------------------------------------------------------------------------------------
 * Batches
 */

static bool
take_record(void *stream, const RecordView *record, int64_t server_time, Error *error)
{
	Intake			  *intake = stream;
	const Transaction *open = intake->buffer->open;
	bool			   needs_open = record->kind == KIND_TRUNCATE || record->kind == KIND_SKIPPED;

	if (needs_open && open == NULL)
		return error_set(error, FAIL_RETRY, "record of kind %d outside of a transaction",
						 (int) record->kind);
	switch (record->kind)
	{
		case KIND_BEGIN:
			return receiver_begin(intake->buffer, &record->begin, server_time, error);
		case KIND_RELATION:
			return relations_add(intake->buffer->relations, record, error);
		case KIND_TRUNCATE:
			buffer_append_truncate(intake->buffer, record);
			return true;
		case KIND_MESSAGE:
			take_message(intake, &record->message);
			return true;
		case KIND_SKIPPED:
			take_skipped(intake, open, record->skipped_relid);
			return true;
		case KIND_COMMIT:
			return take_commit(intake, &record->commit, error);
		default:
			return error_set(error, FAIL_RETRY, "unexpected record of kind %d", (int) record->kind);
	}
}

/* Those of one relation together: change sets are made of such chunks. */
static bool
choose_chunk(void *stream, const Relation *relation, uint32_t *chunk)
{
	(void) stream;
	*chunk = relation->number;
	return true;
}

bool
intake_batch(Intake *intake, const void *data, size_t length, int64_t server_time, Error *error)
{
	static const Receiver receiver = {choose_chunk, take_record};

	return receiver_take_batch(&receiver, intake, intake->buffer, &intake->stream_lsn,
							   byte_range(data, length), server_time, error);
}

void
intake_keepalive(Intake *intake, Lsn wal_end)
{
	intake->stream_lsn = lsn_max(intake->stream_lsn, wal_end);
}
