/*
 * applier/test/test_settle.c
 *     Unsettled entries and pins: what stays, for how long, and what it holds back.
 */
#include "settle.h"
#include "stream_builder.h"

static void
test_entries(void)
{
	Settle	 *settle = settle_create();
	Snapshot *snapshot = snapshot_of("10:20:12");

	CHECK(settle_needed_lsn(settle) == LSN_MAX);
	settle_add_skipped(settle, 11, 500, 1000);
	settle_add_skipped(settle, 12, 500, 1100);
	settle_add_skipped(settle, 25, 600, 1200);
	CHECK(settle_needed_lsn(settle) == 1000);
	CHECK(settle_first_missed(settle, 500, snapshot, XID_NONE) == 1100);
	CHECK(settle_first_missed(settle, 600, snapshot, XID_NONE) == 1200);
	CHECK(settle_first_missed(settle, 700, snapshot, XID_NONE) == LSN_MAX);
	CHECK(settle_first_missed(settle, 500, NULL, XID_NONE) == 1000);
	CHECK(settle_first_missed(settle, 500, snapshot, 12) == LSN_MAX);
	CHECK(settle_first_missed(settle, 500, NULL, 11) == 1100);

	CHECK(!settle_see(settle, snapshot, true));
	CHECK(settle->entry_count == 2);
	CHECK(settle_needed_lsn(settle) == 1100);

	/* Out of order, as when rows are given up later. */
	settle_add_skipped(settle, 13, 500, 900);
	CHECK(settle_needed_lsn(settle) == 900);
	snapshot_release(snapshot);
	snapshot = snapshot_of("30:30:");
	CHECK(!settle_see(settle, snapshot, true));
	CHECK(settle_needed_lsn(settle) == LSN_MAX);
	snapshot_release(snapshot);
	settle_free(settle);
}

static void
test_pins(void)
{
	Settle	 *settle = settle_create();
	Snapshot *before = snapshot_of("30:41:40"); /* the creator, 40, is still running */
	Snapshot *after = snapshot_of("50:50:");
	Oid		  relids[2] = {500, 600};

	settle_add_skipped(settle, 11, 500, 1000);
	settle_add_skipped(settle, 12, 700, 1050);
	settle_add_pin(settle, 40, relids, 2, 1060);
	CHECK(settle_is_pinned(settle, 500) && settle_is_pinned(settle, 600));
	CHECK(!settle_is_pinned(settle, 700));

	/* Seen, but pinned: it must be found when the stream table appears. */
	CHECK(!settle_see(settle, before, true));
	CHECK(settle->entry_count == 1);
	CHECK(settle_needed_lsn(settle) == 1000);

	/* The creator has ended, but what it created is not loaded. */
	CHECK(!settle_see(settle, after, false));
	CHECK(settle->entry_count == 1 && settle->pin_count == 1);

	CHECK(settle_see(settle, after, true));
	CHECK(settle->entry_count == 0 && settle->pin_count == 0);
	CHECK(settle_needed_lsn(settle) == LSN_MAX);

	/* A pin alone holds the slot before its message. */
	settle_add_pin(settle, 60, relids, 1, 2000);
	CHECK(settle_needed_lsn(settle) == 2000);
	snapshot_release(before);
	snapshot_release(after);
	settle_free(settle);
}

int
main(void)
{
	test_entries();
	test_pins();
	return testing_done("settle");
}
