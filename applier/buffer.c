/*
 * applier/buffer.c
 *     The change buffer: received transactions until every stream table has consumed them.
 *
 * Memory: a transaction's struct, small arrays beside it, and its chunks (chunk.h).  All of it is counted in
 * memory_bytes.
 */
#include "buffer.h"

#include <assert.h>

#include "memory.h"

/*
 * How far below the limit one call of buffer_keep_small goes, so that the next ones have nothing to
 * do.
 */
#define SPILL_STEP_BYTES (UINT64_C(16) * 1024 * 1024)

/* An empty pending list gives back an array that is larger than this. */
#define PENDING_CAPACITY_KEPT_MAX 4096

Buffer *
buffer_create(uint64_t memory_bytes_max, uint64_t spill_bytes_max, const char *spill_directory)
{
	Buffer *buffer = memory_take_zeroed(sizeof(Buffer));

	buffer->relations = relations_create();
	buffer->spill = spill_create(spill_directory);
	buffer->memory_bytes_max = memory_bytes_max;
	buffer->spill_bytes_max = spill_bytes_max;
	buffer->spill_is_complete = true;
	return buffer;
}

/* ------------------------------------------------------------------------------------------------
 * Transactions
 */

static uint64_t
transaction_overhead(const Transaction *transaction)
{
	uint64_t bytes = sizeof(Transaction);

	if (transaction->chunks != &transaction->first_chunk)
		bytes += transaction->chunk_capacity * sizeof(Chunk);
	bytes += transaction->relation_capacity * sizeof(uint32_t);
	bytes += transaction->truncated_count * sizeof(Oid);
	bytes += transaction->ddl_capacity * sizeof(Oid);
	for (size_t i = 0; i < transaction->marker_count; i++)
		bytes += sizeof(FillMarker) + transaction->markers[i].chunk_count * sizeof(uint64_t);
	return bytes;
}

static void
transaction_free(Buffer *buffer, Transaction *transaction)
{
	buffer->memory_bytes -= transaction_overhead(transaction);
	for (size_t i = 0; i < transaction->chunk_count; i++)
		chunk_release(buffer->spill, &buffer->memory_bytes, &transaction->chunks[i]);
	if (transaction->chunks != &transaction->first_chunk)
		free(transaction->chunks);
	for (size_t i = 0; i < transaction->marker_count; i++)
		free(transaction->markers[i].chunk_lengths);
	free(transaction->markers);
	free(transaction->relations);
	free(transaction->truncated);
	free(transaction->ddl_relids);
	free(transaction);
}

void
buffer_free(Buffer *buffer)
{
	while (buffer->first != NULL)
	{
		Transaction *transaction = buffer->first;

		buffer->first = transaction->next;
		transaction_free(buffer, transaction);
	}
	if (buffer->open != NULL)
		transaction_free(buffer, buffer->open);
	assert(buffer->memory_bytes == 0);
	free(buffer->unsettled);
	spill_free(buffer->spill);
	relations_free(buffer->relations);
	free(buffer);
}

bool
buffer_begin(Buffer *buffer, Xid xid, Lsn commit_lsn, Micros committed_at, Error *error)
{
	Transaction *transaction;

	if (buffer->open != NULL)
		return error_set(error, FAIL_RETRY,
						 "transaction %llu begins inside transaction %llu on the stream",
						 (unsigned long long) xid, (unsigned long long) buffer->open->xid);
	if (buffer->last != NULL && commit_lsn < buffer->last->end_lsn)
		return error_set(error, FAIL_RETRY,
						 "transaction %llu with commit LSN %s is not in commit order on the stream",
						 (unsigned long long) xid, lsn_text(commit_lsn).text);

	transaction = memory_take_zeroed(sizeof(Transaction));
	transaction->xid = xid;
	transaction->commit_lsn = commit_lsn;
	transaction->committed_at = committed_at;
	transaction->chunks = &transaction->first_chunk;
	transaction->chunk_capacity = 1;
	buffer->open = transaction;
	buffer->memory_bytes += transaction_overhead(transaction);
	return true;
}

/* The chunk for a relation number in the open transaction; made when there is none. */
static Chunk *
open_chunk(Buffer *buffer, uint32_t relation)
{
	Transaction *transaction = buffer->open;
	Chunk		*chunk;

	/* Backwards: what comes next mostly belongs to what came last. */
	for (size_t i = transaction->chunk_count; i > 0; i--)
	{
		if (transaction->chunks[i - 1].relation == relation)
			return &transaction->chunks[i - 1];
	}

	buffer->memory_bytes -= transaction_overhead(transaction);
	if (transaction->chunk_count == 1 && transaction->chunks == &transaction->first_chunk)
	{
		transaction->chunk_capacity = 4;
		transaction->chunks = memory_take(transaction->chunk_capacity * sizeof(Chunk));
		transaction->chunks[0] = transaction->first_chunk;
	}
	else if (transaction->chunk_count > 0)
		transaction->chunks = memory_grow_array(transaction->chunks, transaction->chunk_count,
												&transaction->chunk_capacity, sizeof(Chunk));
	buffer->memory_bytes += transaction_overhead(transaction);

	chunk = &transaction->chunks[transaction->chunk_count++];
	memset(chunk, 0, sizeof(*chunk));
	chunk->relation = relation;
	return chunk;
}

void
buffer_append_rows(Buffer *buffer, uint32_t relation, const void *data, size_t length)
{
	Chunk *chunk = open_chunk(buffer, relation);

	if (!buffer->open->data_is_dropped)
		chunk_append(&buffer->memory_bytes, chunk, data, length);
}

void
buffer_append_truncate(Buffer *buffer, const RecordView *record)
{
	Transaction *transaction = buffer->open;
	Chunk		*chunk = open_chunk(buffer, CHUNK_TRUNCATES);
	RelidReader	 relids = truncate_reader(&record->truncate);
	size_t		 count = transaction->truncated_count + record->truncate.relid_count;
	uint32_t	 relid;

	if (!transaction->data_is_dropped)
		chunk_append(&buffer->memory_bytes, chunk, record->encoded.data, record->encoded.length);
	buffer->memory_bytes -= transaction_overhead(transaction);
	transaction->truncated = memory_resize(transaction->truncated, count * sizeof(Oid));
	while (relid_next(&relids, &relid))
		transaction->truncated[transaction->truncated_count++] = relid;
	assert(transaction->truncated_count == count);
	buffer->memory_bytes += transaction_overhead(transaction);
}

void
buffer_note_relation(Buffer *buffer, uint32_t relation)
{
	Transaction *transaction = buffer->open;

	for (size_t i = transaction->relation_count; i > 0; i--)
	{
		if (transaction->relations[i - 1] == relation)
			return;
	}
	buffer->memory_bytes -= transaction_overhead(transaction);
	transaction->relations = memory_grow_array(transaction->relations, transaction->relation_count,
											   &transaction->relation_capacity, sizeof(uint32_t));
	transaction->relations[transaction->relation_count++] = relation;
	buffer->memory_bytes += transaction_overhead(transaction);
}

void
buffer_append_ddl(Buffer *buffer, Oid relid)
{
	Transaction *transaction = buffer->open;

	buffer->memory_bytes -= transaction_overhead(transaction);
	transaction->ddl_relids = memory_grow_array(transaction->ddl_relids, transaction->ddl_count,
												&transaction->ddl_capacity, sizeof(Oid));
	transaction->ddl_relids[transaction->ddl_count++] = relid;
	buffer->memory_bytes += transaction_overhead(transaction);
}

void
buffer_mark_filled(Buffer *buffer, int64_t pgt_id)
{
	Transaction *transaction = buffer->open;
	FillMarker	*marker;

	buffer->memory_bytes -= transaction_overhead(transaction);
	transaction->markers =
		memory_resize(transaction->markers, (transaction->marker_count + 1) * sizeof(FillMarker));
	marker = &transaction->markers[transaction->marker_count++];
	marker->pgt_id = pgt_id;
	marker->ddl_count = transaction->ddl_count;
	marker->chunk_count = transaction->chunk_count;
	marker->chunk_lengths = memory_take(transaction->chunk_count * sizeof(uint64_t));
	for (size_t i = 0; i < transaction->chunk_count; i++)
		marker->chunk_lengths[i] = transaction->chunks[i].length;
	buffer->memory_bytes += transaction_overhead(transaction);
}

Transaction *
buffer_commit(Buffer *buffer, Lsn commit_lsn, Lsn end_lsn, Error *error)
{
	Transaction *transaction = buffer->open;

	if (transaction == NULL || transaction->commit_lsn != commit_lsn || end_lsn <= commit_lsn)
	{
		error_set(error, FAIL_RETRY, "commit at %s does not match its begin on the stream",
				  lsn_text(commit_lsn).text);
		return NULL;
	}
	transaction->end_lsn = end_lsn;
	transaction->previous = buffer->last;
	if (buffer->last != NULL)
		buffer->last->next = transaction;
	else
		buffer->first = transaction;
	buffer->last = transaction;
	buffer->open = NULL;
	buffer->count++;
	buffer->spill_is_complete = false;
	transaction->is_settled = buffer->settles_at_commit;
	if (transaction->is_settled)
		return transaction;

	buffer->unsettled = memory_grow_array(buffer->unsettled, buffer->unsettled_count,
										  &buffer->unsettled_capacity, sizeof(Transaction *));
	buffer->unsettled[buffer->unsettled_count++] = transaction;
	return transaction;
}

/* ------------------------------------------------------------------------------------------------
 * Limits
 */

static bool
transaction_spill(Buffer *buffer, Transaction *transaction, Error *error)
{
	for (size_t i = 0; i < transaction->chunk_count; i++)
	{
		if (!chunk_spill(buffer->spill, &buffer->memory_bytes, &transaction->chunks[i], error))
			return false;
	}
	return true;
}

/* A larger share of the memory than all others together?  Then it is the one to move. */
static bool
open_is_largest(const Buffer *buffer)
{
	uint64_t bytes = 0;

	if (buffer->open == NULL)
		return false;
	for (size_t i = 0; i < buffer->open->chunk_count; i++)
		bytes += buffer->open->chunks[i].length - buffer->open->chunks[i].extent_bytes;
	return bytes > buffer->memory_bytes / 2;
}

bool
buffer_keep_small(Buffer *buffer, Error *error)
{
	uint64_t target;

	if (buffer->memory_bytes <= buffer->memory_bytes_max)
		return true;
	if (open_is_largest(buffer))
		return transaction_spill(buffer, buffer->open, error);
	if (buffer->spill_is_complete)
		return true;

	/* Oldest first: they have waited longest, so they wait for something slow. */
	target = buffer->memory_bytes_max - (buffer->memory_bytes_max / 4 < SPILL_STEP_BYTES
											 ? buffer->memory_bytes_max / 4
											 : SPILL_STEP_BYTES);
	if (buffer->spill_next == NULL)
		buffer->spill_next = buffer->first;
	while (buffer->spill_next != NULL && buffer->memory_bytes > target)
	{
		if (!transaction_spill(buffer, buffer->spill_next, error))
			return false;
		buffer->spill_next = buffer->spill_next->next;
	}
	buffer->spill_is_complete = buffer->spill_next == NULL;
	return true;
}

bool
buffer_is_under_pressure(const Buffer *buffer)
{
	if (buffer->spill_bytes_max > 0 && spill_bytes(buffer->spill) > buffer->spill_bytes_max)
		return true;
	return buffer->memory_bytes > buffer->memory_bytes_max && buffer->spill_is_complete &&
		   !open_is_largest(buffer);
}

uint64_t
buffer_total_bytes(const Buffer *buffer)
{
	return buffer->memory_bytes + spill_bytes(buffer->spill);
}

/* ------------------------------------------------------------------------------------------------
 * Letting go
 */

static void
forget_unsettled(Buffer *buffer, const Transaction *transaction)
{
	size_t kept = 0;

	for (size_t i = 0; i < buffer->unsettled_count; i++)
	{
		if (buffer->unsettled[i] != transaction)
			buffer->unsettled[kept++] = buffer->unsettled[i];
	}
	buffer->unsettled_count = kept;
}

void
buffer_release(Buffer *buffer, Transaction *transaction)
{
	assert(transaction->needed_by == 0);
	assert(transaction != buffer->open);

	if (!transaction->is_settled)
	{
		/* Mostly it is the one that was just received. */
		if (buffer->unsettled[buffer->unsettled_count - 1] == transaction)
			buffer->unsettled_count--;
		else
			forget_unsettled(buffer, transaction);
	}
	if (buffer->spill_next == transaction)
		buffer->spill_next = transaction->next;
	if (transaction->previous != NULL)
		transaction->previous->next = transaction->next;
	else
		buffer->first = transaction->next;
	if (transaction->next != NULL)
		transaction->next->previous = transaction->previous;
	else
		buffer->last = transaction->previous;
	buffer->count--;
	transaction_free(buffer, transaction);
}

static void
release_if_done(Buffer *buffer, Transaction *transaction)
{
	if (transaction->needed_by > 0 || !transaction->is_settled)
		return;
	if (buffer->is_pinned != NULL && buffer->is_pinned(buffer, transaction, buffer->pin_context))
		return;
	buffer_release(buffer, transaction);
}

void
buffer_settle(Buffer *buffer, const Snapshot *snapshot)
{
	size_t count = buffer->unsettled_count;
	size_t kept = 0;

	for (size_t i = 0; i < count; i++)
	{
		Transaction *transaction = buffer->unsettled[i];

		if (!snapshot_sees(snapshot, transaction->xid))
		{
			buffer->unsettled[kept++] = transaction;
			continue;
		}
		transaction->is_settled = true;
		release_if_done(buffer, transaction);
	}
	buffer->unsettled_count = kept;
}

void
buffer_sweep(Buffer *buffer)
{
	Transaction *next;

	for (Transaction *transaction = buffer->first; transaction != NULL; transaction = next)
	{
		next = transaction->next;
		release_if_done(buffer, transaction);
	}
}

void
buffer_drop_data(Buffer *buffer, Transaction *transaction)
{
	for (size_t i = 0; i < transaction->chunk_count; i++)
	{
		Chunk	*chunk = &transaction->chunks[i];
		uint32_t relation = chunk->relation;

		chunk_release(buffer->spill, &buffer->memory_bytes, chunk);
		memset(chunk, 0, sizeof(*chunk));
		chunk->relation = relation;
	}
	transaction->data_is_dropped = true;
}

Lsn
buffer_needed_lsn(const Buffer *buffer)
{
	if (buffer->first != NULL)
		return buffer->first->commit_lsn;
	return buffer->open != NULL ? buffer->open->commit_lsn : LSN_MAX;
}

/* ------------------------------------------------------------------------------------------------
 * Pending lists
 */

void
pending_append(Buffer *buffer, PendingList *pending, Transaction *transaction)
{
	size_t capacity_before = pending->capacity;

	pending->items = memory_grow_array(pending->items, pending->count, &pending->capacity,
									   sizeof(Transaction *));
	buffer->memory_bytes += (pending->capacity - capacity_before) * sizeof(Transaction *);
	pending->items[pending->count++] = transaction;
	transaction->needed_by++;
}

void
pending_keep(Buffer *buffer, PendingList *pending, TransactionTest wanted, const void *context)
{
	size_t count = pending->count;
	size_t kept = 0;

	for (size_t i = 0; i < count; i++)
	{
		Transaction *transaction = pending->items[i];

		if (wanted != NULL && wanted(transaction, context))
		{
			pending->items[kept++] = transaction;
			continue;
		}
		transaction->needed_by--;
		release_if_done(buffer, transaction);
	}
	pending->count = kept;
	if (kept == 0 && pending->capacity > PENDING_CAPACITY_KEPT_MAX)
		pending_free(buffer, pending);
}

void
pending_clear(Buffer *buffer, PendingList *pending)
{
	pending_keep(buffer, pending, NULL, NULL);
}

void
pending_free(Buffer *buffer, PendingList *pending)
{
	for (size_t i = 0; i < pending->count; i++)
		pending->items[i]->needed_by--;
	buffer->memory_bytes -= pending->capacity * sizeof(Transaction *);
	free(pending->items);
	memset(pending, 0, sizeof(*pending));
}

/* ------------------------------------------------------------------------------------------------
 * Questions about one transaction
 */

const FillMarker *
transaction_marker(const Transaction *transaction, int64_t pgt_id)
{
	for (size_t i = transaction->marker_count; i > 0; i--)
	{
		if (transaction->markers[i - 1].pgt_id == pgt_id)
			return &transaction->markers[i - 1];
	}
	return NULL;
}

bool
transaction_touches(const Buffer *buffer, const Transaction *transaction, Oid relid)
{
	for (size_t i = 0; i < transaction->chunk_count; i++)
	{
		const Relation *relation =
			relations_find(buffer->relations, transaction->chunks[i].relation);

		if (relation != NULL && relation_counts_for(relation, relid))
			return true;
	}
	for (size_t i = 0; i < transaction->truncated_count; i++)
	{
		if (transaction->truncated[i] == relid)
			return true;
	}
	for (size_t i = 0; i < transaction->ddl_count; i++)
	{
		if (transaction->ddl_relids[i] == relid)
			return true;
	}
	return false;
}

void
transaction_visit_relids(const Buffer *buffer, const Transaction *transaction, RelidVisitor visit,
						 void *context)
{
	for (size_t i = 0; i < transaction->chunk_count; i++)
	{
		const Relation *relation =
			relations_find(buffer->relations, transaction->chunks[i].relation);

		for (size_t j = 0; relation != NULL && j < relation->publish_as_count; j++)
			visit(relation->publish_as[j], context);
	}
	for (size_t i = 0; i < transaction->truncated_count; i++)
		visit(transaction->truncated[i], context);
	for (size_t i = 0; i < transaction->ddl_count; i++)
		visit(transaction->ddl_relids[i], context);
}
