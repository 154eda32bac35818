/*
 * applier/test/test_ack.c
 *     Acknowledge last: persisted and flushed before the slot is told.
 */
#include "ack.h"
#include "testing.h"

int
main(void)
{
	Ack ack = {0};

	ack_persisted(&ack, 100, 200);
	CHECK(!ack_stream_reached(&ack, 199));
	CHECK(ack.acknowledged_lsn == 0 && ack_is_waiting(&ack));
	CHECK(ack_stream_reached(&ack, 200));
	CHECK(ack.acknowledged_lsn == 100 && !ack_is_waiting(&ack));

	/* A busy applier persists faster than the disk flushes: the oldest still gets its turn. */
	ack_persisted(&ack, 110, 300);
	ack_persisted(&ack, 120, 400);
	ack_persisted(&ack, 130, 500);
	CHECK(ack_stream_reached(&ack, 350));
	CHECK(ack.acknowledged_lsn == 110);
	CHECK(!ack_stream_reached(&ack, 499));
	CHECK(ack_stream_reached(&ack, 500));
	CHECK(ack.acknowledged_lsn == 130);

	/* Both at once. */
	ack_persisted(&ack, 140, 600);
	ack_persisted(&ack, 150, 700);
	CHECK(ack_stream_reached(&ack, 1000));
	CHECK(ack.acknowledged_lsn == 150 && !ack_is_waiting(&ack));

	/* A heartbeat waits for the disk itself, and everything before it is then on disk. */
	ack_persisted(&ack, 160, 2000);
	ack_flushed(&ack, 170);
	CHECK(ack.acknowledged_lsn == 170 && !ack_is_waiting(&ack));

	/* It never moves back. */
	ack_flushed(&ack, 165);
	CHECK(ack.acknowledged_lsn == 170);
	return testing_done("ack");
}
