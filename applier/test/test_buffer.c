/*
 * applier/test/test_buffer.c
 *     The change buffer: bytes come out as they went in, in memory and on disk; limits; letting go.
 */
#include "buffer.h"
#include "memory.h"
#include "testing.h"

static Error error;

static Transaction *
add_transaction(Buffer *buffer, Xid xid, Lsn commit_lsn, size_t bytes)
{
	uint8_t *data = memory_take(bytes);

	memset(data, (int) (xid & 0xff), bytes);
	CHECK(buffer_begin(buffer, xid, commit_lsn, 0, &error));
	if (bytes > 0)
		buffer_append_rows(buffer, 1, data, bytes);
	free(data);
	return buffer_commit(buffer, commit_lsn, commit_lsn + 10, &error);
}

static bool
chunk_equals(const Buffer *buffer, const Chunk *chunk, const uint8_t *expected, size_t length)
{
	uint8_t *data = memory_take(length + 1);
	size_t	 got;
	bool equal = chunk_read(buffer->spill, chunk, 0, data, length + 1, &got, &error) && got == length &&
				 memcmp(data, expected, length) == 0;

	/* And from the middle. */
	equal = equal && chunk_read(buffer->spill, chunk, length / 3, data, length / 3, &got, &error) &&
			got == length / 3 && memcmp(data, expected + length / 3, got) == 0;
	free(data);
	return equal;
}

/* Many appends of odd sizes, with spills between them. */
static void
test_bytes(bool spill)
{
	Buffer		*buffer = buffer_create(spill ? 50000 : 100000000, 0, NULL);
	size_t		 length = 0;
	size_t		 capacity = 3 * 1024 * 1024;
	uint8_t		*expected = memory_take(capacity);
	Transaction *transaction;

	CHECK(buffer_begin(buffer, 7, 100, 0, &error));
	for (int i = 0; length + 5000 < capacity; i++)
	{
		size_t part = (size_t) (1 + i * 7 % 4999);

		for (size_t j = 0; j < part; j++)
			expected[length + j] = (uint8_t) (i + (int) j);
		buffer_append_rows(buffer, 1, expected + length, part);
		length += part;
		if (i % 3 == 0)
			buffer_append_rows(buffer, 2, "x", 1);
		CHECK(buffer_keep_small(buffer, &error));
	}
	transaction = buffer_commit(buffer, 100, 110, &error);
	CHECK(transaction != NULL);
	CHECK(transaction->chunk_count == 2);
	CHECK(transaction->chunks[0].length == length);
	CHECK(chunk_equals(buffer, &transaction->chunks[0], expected, length));
	CHECK((transaction->chunks[0].extent_bytes > 0) == spill);
	CHECK(!spill || buffer->memory_bytes < 200000);
	CHECK(!buffer_is_under_pressure(buffer));
	free(expected);
	buffer_release(buffer, transaction);
	CHECK(buffer->memory_bytes == 0);
	CHECK(buffer_total_bytes(buffer) == 0);
	buffer_free(buffer);
}

/*
 * Many small transactions: bytes go to disk, and when what remains is too much the buffer says so.
 */
static void
test_many_small(void)
{
	Buffer	   *buffer = buffer_create(3000000, 0, NULL);
	PendingList pending = {0};
	uint8_t		expected[1000];

	for (int i = 0; i < 5000; i++)
	{
		pending_append(buffer, &pending,
					   add_transaction(buffer, (Xid) i, (Lsn) (1000 + i * 20), sizeof(expected)));
		CHECK(buffer_keep_small(buffer, &error));
	}
	CHECK(buffer->memory_bytes <= 3000000);
	CHECK(!buffer_is_under_pressure(buffer));
	for (size_t i = 0; i < pending.count; i += 499)
	{
		memset(expected, (int) (pending.items[i]->xid & 0xff), sizeof(expected));
		CHECK(chunk_equals(buffer, &pending.items[i]->chunks[0], expected, sizeof(expected)));
	}
	for (int i = 5000; i < 12000; i++)
	{
		pending_append(buffer, &pending,
					   add_transaction(buffer, (Xid) i, (Lsn) (1000 + i * 20), 10));
		CHECK(buffer_keep_small(buffer, &error));
	}
	CHECK(buffer_is_under_pressure(buffer));
	pending_free(buffer, &pending);
	buffer_free(buffer);
}

static bool
is_odd(const Transaction *transaction, const void *context)
{
	return transaction->xid % 2 == 1;
}

/* Needed, unsettled, or both: only who is neither goes. */
static void
test_letting_go(void)
{
	Buffer	   *buffer = buffer_create(1000000, 0, NULL);
	PendingList pending = {0};
	Snapshot   *snapshot;

	for (Xid xid = 10; xid < 16; xid++)
		pending_append(buffer, &pending, add_transaction(buffer, xid, xid * 100, 5));
	CHECK(buffer_needed_lsn(buffer) == 1000);

	pending_keep(buffer, &pending, is_odd, NULL);
	CHECK(pending.count == 3 && buffer->count == 6); /* no snapshot has seen the others */

	CHECK(snapshot_parse("12:15:13", &snapshot, &error));
	buffer_settle(buffer, snapshot);
	snapshot_release(snapshot);
	CHECK(buffer->count == 3); /* 11, 13, 15 are needed */
	CHECK(buffer->unsettled_count == 2);
	CHECK(buffer->first->is_settled && !buffer->last->is_settled);
	CHECK(buffer_needed_lsn(buffer) == 1100);

	pending_clear(buffer, &pending);
	CHECK(buffer->count == 2);
	CHECK(buffer_needed_lsn(buffer) == 1300);
	CHECK(snapshot_parse("20:20:", &snapshot, &error));
	buffer_settle(buffer, snapshot);
	snapshot_release(snapshot);
	CHECK(buffer->count == 0 && buffer->unsettled_count == 0);
	CHECK(buffer_needed_lsn(buffer) == LSN_MAX);
	CHECK(buffer_begin(buffer, 30, 3000, 0, &error));
	CHECK(buffer_needed_lsn(buffer) == 3000);
	pending_free(buffer, &pending);
	buffer_free(buffer);
}

static void
test_markers(void)
{
	Buffer			 *buffer = buffer_create(1000000, 0, NULL);
	Transaction		 *transaction;
	const FillMarker *marker;

	CHECK(buffer_begin(buffer, 5, 100, 0, &error));
	buffer_append_rows(buffer, 1, "abc", 3);
	buffer_mark_filled(buffer, 77);
	buffer_append_rows(buffer, 2, "de", 2);
	buffer_append_rows(buffer, 1, "f", 1);
	buffer_append_ddl(buffer, 16385);
	buffer_mark_filled(buffer, 77);
	buffer_mark_filled(buffer, 78);
	transaction = buffer_commit(buffer, 100, 120, &error);
	marker = transaction_marker(transaction, 77);
	CHECK(marker != NULL && marker->chunk_count == 2 && marker->ddl_count == 1);
	CHECK(marker->chunk_lengths[0] == 4 && marker->chunk_lengths[1] == 2);
	CHECK(transaction_marker(transaction, 78) != NULL);
	CHECK(transaction_marker(transaction, 79) == NULL);
	buffer_free(buffer);
}

static void
test_order(void)
{
	Buffer *buffer = buffer_create(1000000, 0, NULL);

	CHECK(add_transaction(buffer, 5, 100, 1) != NULL);
	CHECK(!buffer_begin(buffer, 6, 100, 0, &error)); /* before the end of the one before */
	CHECK(buffer_begin(buffer, 6, 110, 0, &error));
	CHECK(!buffer_begin(buffer, 7, 130, 0, &error));
	CHECK(buffer_commit(buffer, 111, 120, &error) == NULL);
	CHECK(buffer_commit(buffer, 110, 120, &error) != NULL);
	CHECK(buffer_commit(buffer, 110, 120, &error) == NULL);
	buffer_free(buffer);
}

int
main(void)
{
	test_bytes(false);
	test_bytes(true);
	test_many_small();
	test_letting_go();
	test_markers();
	test_order();
	return testing_done("buffer");
}
