/*
 * applier/change_set.c
 *     Change sets as bytes: chunks of the buffer, laid end to end in parts of bounded size.
 *
 * A part is a Batch of proto/pgtrickle.proto.  Records are not taken apart, only their lengths are
 * walked over where a chunk has to be cut.
 */
#include <assert.h>

#include "memory.h"
#include "plan.h"

void
stage_reader_init(StageReader *reader, const Plan *plan)
{
	memset(reader, 0, sizeof(*reader));
	reader->plan = plan;
}

void
stage_reader_free(StageReader *reader)
{
	free(reader->described);
	free(reader->data);
	memset(reader, 0, sizeof(*reader));
}

static void
reserve(StageReader *reader, size_t capacity)
{
	if (capacity <= reader->capacity)
		return;
	if (capacity < reader->capacity * 2)
		capacity = reader->capacity * 2;
	reader->data = memory_resize(reader->data, capacity);
	reader->capacity = capacity;
}

static bool
set_wants_any(const ChangeSet *set, const Oid *relids, size_t count)
{
	for (size_t i = 0; i < count; i++)
	{
		for (size_t j = 0; j < set->wanted_count; j++)
		{
			if (set->wanted[j] == relids[i])
				return true;
		}
	}
	return false;
}

static bool
chunk_is_wanted(const ChangeSet *set, const Transaction *transaction, const Chunk *chunk)
{
	const Relation *relation = relations_find(set->buffer->relations, chunk->relation);

	if (set->remote != NULL)
		return true;
	if (relation != NULL)
		return set_wants_any(set, relation->publish_as, relation->publish_as_count);
	return set_wants_any(set, transaction->truncated, transaction->truncated_count);
}

/*
 * Where a chunk starts for this set: behind the fill, if its stream table was filled in this
 * transaction.
 */
static uint64_t
first_offset(const ChangeSet *set, const Transaction *transaction, size_t chunk_index)
{
	const FillMarker *marker;

	if (!set->is_exclusive || transaction->xid != set->first->filled_xid)
		return 0;
	marker = transaction_marker(transaction, set->first->pgt_id);
	if (marker == NULL || chunk_index >= marker->chunk_count)
		return 0;
	return marker->chunk_lengths[chunk_index];
}

/* The relation's own record must come before its rows, once per set. */
static void
describe_relation(StageReader *reader, const Buffer *buffer, uint32_t number)
{
	const Relation *relation = relations_find(buffer->relations, number);

	if (relation == NULL)
		return;
	if (number >= reader->described_capacity)
	{
		size_t capacity = (size_t) number * 2 + 8;

		reader->described = memory_resize(reader->described, capacity * sizeof(bool));
		memset(reader->described + reader->described_capacity, 0,
			   (capacity - reader->described_capacity) * sizeof(bool));
		reader->described_capacity = capacity;
	}
	if (reader->described[number])
		return;
	reader->described[number] = true;
	reserve(reader, reader->length + relation->encoded_length);
	memcpy(reader->data + reader->length, relation->encoded, relation->encoded_length);
	reader->length += relation->encoded_length;
}

/*
 * How long is the record that starts at `at`, key and length included?  False when not even these
 * are whole.
 */
static bool
record_length(const uint8_t *at, const uint8_t *end, uint64_t *length)
{
	const uint8_t *next = at + 1; /* the key of a repeated message field below 16 is one byte */
	uint64_t	   value = 0;

	for (int shift = 0; next < end && shift < 64; shift += 7)
	{
		value |= (uint64_t) (*next & 0x7f) << shift;
		if ((*next++ & 0x80) == 0)
		{
			*length = (uint64_t) (next - at) + value;
			return true;
		}
	}
	return false;
}

/*
 * Of `length` bytes that start with a whole record: how many make up whole records?  *needed: the
 * length of the first one that does not fit (0: unknown).
 */
static size_t
whole_records(const uint8_t *data, size_t length, uint64_t *needed)
{
	const uint8_t *end = data + length;
	const uint8_t *at = data;
	uint64_t	   record;

	*needed = 0;
	while (at < end && record_length(at, end, &record))
	{
		if (record > (uint64_t) (end - at))
		{
			*needed = record;
			break;
		}
		at += record;
	}
	return (size_t) (at - data);
}

/* Of a remote's transaction, whose one chunk holds the records of all its relations. */
static void
describe_relations(StageReader *reader, const ChangeSet *set, const Transaction *transaction)
{
	for (size_t i = 0; i < transaction->relation_count; i++)
		describe_relation(reader, set->buffer, transaction->relations[i]);
}

/* Copies from one chunk until it ends or the part is full. */
static bool
copy_from_chunk(StageReader *reader, const Buffer *buffer, const Chunk *chunk, bool *part_is_full,
				Error *error)
{
	uint64_t left = chunk->length - reader->offset;
	size_t	 room = STAGE_BYTES_MAX > reader->length ? STAGE_BYTES_MAX - reader->length : 0;
	size_t	 wanted = left < room ? (size_t) left : room;
	uint64_t needed;
	size_t	 got;
	size_t	 whole;

	*part_is_full = room == 0;
	if (room == 0)
		return true;
	reserve(reader, reader->length + wanted);
	if (!chunk_read(buffer->spill, chunk, reader->offset, reader->data + reader->length, wanted,
					&got, error))
		return false;
	assert(got == wanted);
	if (wanted == left)
		whole = got;
	else
	{
		whole = whole_records(reader->data + reader->length, got, &needed);
		*part_is_full = true;
		if (whole == 0 && reader->length == 0)
		{
			/* One record that is larger than a part. */
			assert(needed > 0 && needed <= left);
			reserve(reader, (size_t) needed);
			if (!chunk_read(buffer->spill, chunk, reader->offset, reader->data, (size_t) needed,
							&got, error))
				return false;
			whole = (size_t) needed;
		}
	}
	reader->length += whole;
	reader->offset += whole;
	return true;
}

/*
 * Fills the part from the chunks of one transaction; true in *done when all of them have been read.
 */
static bool
copy_transaction(StageReader *reader, const ChangeSet *set, bool *done, Error *error)
{
	const Transaction *transaction = set->transactions[reader->transaction];
	bool			   part_is_full = false;

	if (set->remote != NULL && transaction->data_is_dropped)
	{
		*done = true;
		return true;
	}
	while (reader->chunk < transaction->chunk_count && !part_is_full)
	{
		const Chunk *chunk = &transaction->chunks[reader->chunk];

		if (!reader->chunk_is_started && chunk_is_wanted(set, transaction, chunk))
		{
			reader->offset = first_offset(set, transaction, reader->chunk);
			reader->chunk_is_started = true;
			if (reader->offset < chunk->length)
			{
				describe_relation(reader, set->buffer, chunk->relation);
				describe_relations(reader, set, transaction);
			}
		}
		if (reader->chunk_is_started && reader->offset < chunk->length)
		{
			if (!copy_from_chunk(reader, set->buffer, chunk, &part_is_full, error))
				return false;
			if (reader->offset < chunk->length)
				continue;
		}
		reader->chunk_is_started = false;
		reader->chunk++;
	}
	*done = reader->chunk >= transaction->chunk_count;
	return true;
}

static void
next_set(StageReader *reader)
{
	reader->set++;
	reader->transaction = 0;
	reader->chunk = 0;
	if (reader->described != NULL)
		memset(reader->described, 0, reader->described_capacity * sizeof(bool));
}

bool
stage_reader_next(StageReader *reader, int *set, const uint8_t **data, size_t *length, Error *error)
{
	reader->length = 0;
	for (; reader->set < reader->plan->set_count; next_set(reader))
	{
		const ChangeSet *current = &reader->plan->sets[reader->set];

		while (reader->transaction < current->transaction_count && reader->length < STAGE_BYTES_MAX)
		{
			bool done;

			if (!copy_transaction(reader, current, &done, error))
				return error_context(error, "change set %d", current->number);
			if (!done)
				break;
			reader->transaction++;
			reader->chunk = 0;
		}
		if (reader->length > 0)
		{
			*set = current->number;
			break;
		}
	}
	*data = reader->data;
	*length = reader->length;
	return true;
}
