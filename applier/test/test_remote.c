/*
 * applier/test/test_remote.c
 *     A remote's transactions: kept whole and in order, taken from the front, and never past a copy that has to wait.
 */
#include "remote_plan.h"
#include "stream_builder.h"

typedef struct RemoteWorld
{
	World	 world; /* makes batches, and holds the catalog */
	Remote	 remote;
	Remote	*items[1];
	Remotes	 remotes;
	Catalog *catalog;
} RemoteWorld;

static Oid *
two_relids(void)
{
	Oid *relids = memory_take(2 * sizeof(Oid));

	relids[0] = 500;
	relids[1] = 600;
	return relids;
}

static StreamTable *
add_copy(Catalog *catalog, int64_t copy_id, Oid remote_relid)
{
	static const Oid no_sources[] = {0};
	StreamTable		*copy = add_table(catalog, copy_id, NULL, no_sources);

	copy->schedule = SCHEDULE_COPY;
	copy->copy.remote_id = 7;
	copy->copy.remote_relid = remote_relid;
	copy->copy.status = COPY_ACTIVE;
	return copy;
}

/* A running remote with copies of two relations, and a third relation that nobody copies. */
static RemoteWorld *
create(uint64_t memory_bytes_max)
{
	RemoteWorld *all = memory_take_zeroed(sizeof(RemoteWorld));
	Remote		*remote = &all->remote;

	all->world = world_create(1000000);
	all->catalog = catalog_create();
	add_copy(all->catalog, 1, 500);
	add_copy(all->catalog, 2, 600);
	use_catalog(&all->world, all->catalog);
	all->items[0] = remote;
	all->remotes.items = all->items;
	all->remotes.count = 1;
	all->remotes.prefix_bytes_max = PREFIX_BYTES_FIRST;
	remote->remote_id = 7;
	remote->state = REMOTE_RUNNING;
	remote->server.wal_segment_bytes = 16 * 1024 * 1024;
	remote->position = remote->released_lsn = 900;
	remote->wake_at = MICROS_NEVER;
	remote->intake = remote_intake_create(buffer_create(memory_bytes_max, 0, NULL), two_relids(), 2, 900);
	remote_find_copies(remote, all->catalog);
	put_relation(&all->world, 1, 500, 500);
	put_relation(&all->world, 2, 600, 600);
	put_relation(&all->world, 3, 700, 700);
	return all;
}

static void
destroy(RemoteWorld *all)
{
	remote_forget_transactions(&all->remote);
	free(all->remote.copies);
	world_free(&all->world);
	free(all);
}

static void
deliver(RemoteWorld *all)
{
	Error error = {0};

	CHECK(remote_intake_batch(all->remote.intake, all->world.batch.data, all->world.batch.length, 1, &error));
	all->world.batch.length = 0;
}

static void
transaction(RemoteWorld *all, Xid xid, uint32_t number)
{
	put_begin(&all->world, xid);
	put_row(&all->world, number, 10);
	put_commit(&all->world);
	deliver(all);
}

/* What a tick would do between two looks at the remotes. */
static Plan *
plan_now(RemoteWorld *all)
{
	Snapshot *snapshot = snapshot_of("20:20:");
	Plan	 *plan;

	for (size_t i = 0; i < all->catalog->count; i++)
		all->catalog->tables[i]->in_tick = true;
	remotes_mark_prefixes(&all->remotes, true, clock_now());
	plan = plan_create(all->world.intake, snapshot, 1, clock_now());
	remotes_add_sets(&all->remotes, plan);
	snapshot_release(snapshot);
	return plan;
}

/* One letter for each record of the plan's parts: B, R with its number, I with its relation, T. */
static char *
describe(const Plan *plan)
{
	StageReader reader;
	Text		said = {0};
	Error		error;

	text_append(&said, "");
	stage_reader_init(&reader, plan);
	for (;;)
	{
		const uint8_t *data;
		size_t		   length;
		int			   set;
		BatchReader	   batch;
		RecordView	   record;

		CHECK(stage_reader_next(&reader, &set, &data, &length, &error));
		if (length == 0)
			break;
		batch = batch_reader(data, length);
		while (batch_next_record(&batch, &record))
		{
			if (record.kind == KIND_BEGIN)
				text_append_format(&said, "B%d ", (int) record.begin.xid);
			else if (record.kind == KIND_RELATION)
				text_append_format(&said, "R%d ", (int) record.relation_def.number);
			else if (record.kind == KIND_INSERT)
				text_append_format(&said, "I%d ", (int) record.relation);
			else if (record.kind == KIND_TRUNCATE)
				text_append(&said, "T ");
			else
				text_append(&said, "? ");
		}
		CHECK(batch.error == NULL);
	}
	stage_reader_free(&reader);
	return said.data;
}

static void
is_staged(const Plan *plan, const char *expected)
{
	char *said = describe(plan);

	if (strcmp(said, expected) != 0)
		fprintf(stderr, "staged: %s\nexpected: %s\n", said, expected);
	CHECK(strcmp(said, expected) == 0);
	free(said);
}

/* Rows of several relations and truncations keep their order, relations are described once, before they are needed. */
static void
test_order(void)
{
	RemoteWorld *all = create(1000000);
	Plan		*plan;

	put_begin(&all->world, 11);
	put_row(&all->world, 1, 10);
	put_row(&all->world, 2, 10);
	put_row(&all->world, 3, 10); /* which nobody asked for */
	put_truncate(&all->world, 500);
	put_row(&all->world, 1, 10);
	put_row(&all->world, 1, 10);
	put_commit(&all->world);
	deliver(all);
	transaction(all, 12, 2);
	plan = plan_now(all);
	CHECK(plan->table_count == 2 && plan->set_count == 1);
	CHECK(plan->tables[0].set == 1 && plan->tables[1].set == 1);
	CHECK(strcmp(plan->tables[0].action, "copy") == 0);
	is_staged(plan, "R1 R2 B11 I1 I2 T I1 I1 B12 I2 ");
	CHECK(all->remote.prefix.position == 1150);
	CHECK(all->remote.in_tick);
	remotes_committed(&all->remotes, 5000, 1, 1);
	plan_free(plan);
	CHECK(all->remote.position == 1150 && !all->remote.in_tick);
	CHECK(all->remote.intake->buffer->count == 0);
	CHECK(!ack_stream_reached(&all->remote.ack, 4999));
	CHECK(ack_stream_reached(&all->remote.ack, 5000) && all->remote.ack.acknowledged_lsn == 1150);
	destroy(all);
}

/* What touches no copy goes without a tick, but not past something that does. */
static void
test_untouched(void)
{
	RemoteWorld *all = create(1000000);
	int64_t		 moment;
	Plan		*plan;

	transaction(all, 11, 3);
	CHECK(all->remote.intake->buffer->count == 0);
	CHECK(remote_skip_untouched(&all->remote, &moment) == 1050);
	all->catalog->tables[1]->copy.status = COPY_NOT_FOLLOWED;
	transaction(all, 12, 2);
	transaction(all, 13, 1);
	CHECK(remote_intake_keepalive(all->remote.intake, 2000, 5, NULL));
	CHECK(remote_skip_untouched(&all->remote, &moment) == 1150);
	CHECK(all->remote.intake->buffer->count == 1);
	plan = plan_now(all);
	CHECK(plan->table_count == 1 && plan->tables[0].table->pgt_id == 1);
	CHECK(all->remote.prefix.position == 2000 && all->remote.prefix.position_time == 5);
	remotes_tick_failed(&all->remotes, false, 1);
	plan_free(plan);
	CHECK(all->remote.position == 900 && all->remote.intake->buffer->count == 1);

	/* A position at a page's start is that behind the page's header. */
	all->catalog->tables[0]->copy.status = COPY_NOT_FOLLOWED;
	CHECK(remote_intake_keepalive(all->remote.intake, 8192, 6, NULL));
	CHECK(remote_skip_untouched(&all->remote, &moment) == 8192 + 24 && moment == 6);
	destroy(all);
}

/* A copy that has to wait stops the transactions that touch it, and all behind them. */
static void
test_waiting(CopyStatus status, Micros retry_at)
{
	RemoteWorld *all = create(1000000);
	Plan		*plan;

	transaction(all, 11, 1);
	transaction(all, 12, 2);
	transaction(all, 13, 1);
	all->catalog->tables[1]->copy.status = status;
	all->catalog->tables[1]->run.retry_at = retry_at;
	plan = plan_now(all);
	CHECK(plan->table_count == 1);
	is_staged(plan, "R1 B11 I1 ");
	CHECK(all->remote.prefix.position == 1050);
	CHECK(all->remote.wake_at == (retry_at != 0 ? retry_at : MICROS_NEVER));
	remotes_committed(&all->remotes, 5000, 1, 1);
	plan_free(plan);
	CHECK(all->remote.intake->buffer->count == 2);

	/* Now nothing is left that could be done. */
	plan = plan_now(all);
	CHECK(plan->table_count == 0 && plan->set_count == 0 && !all->remote.in_tick);
	plan_free(plan);

	all->catalog->tables[1]->copy.status = COPY_COPYING;
	all->catalog->tables[1]->run.retry_at = 0;
	plan = plan_now(all);
	is_staged(plan, "R2 B12 I2 R1 B13 I1 ");
	plan_free(plan);
	remotes_tick_failed(&all->remotes, true, clock_now());
	CHECK(!remote_is_ready(&all->remote, clock_now()));
	destroy(all);
}

/* A copy that is not in the tick is one that has not been locked. */
static void
test_chosen_only(void)
{
	RemoteWorld *all = create(1000000);

	transaction(all, 11, 2);
	transaction(all, 12, 1);
	remotes_mark_prefixes(&all->remotes, false, 1);
	CHECK(all->catalog->tables[0]->copy.in_prefix && all->catalog->tables[1]->copy.in_prefix);
	all->catalog->tables[1]->in_tick = true;
	remotes_mark_prefixes(&all->remotes, true, 1);
	CHECK(!all->catalog->tables[0]->copy.in_prefix && all->catalog->tables[1]->copy.in_prefix);
	CHECK(all->remote.prefix.position == 1050);
	destroy(all);
}

/* A complete copy is switched in when the stream has passed the end of its copying, also without any change. */
static void
test_switch(void)
{
	RemoteWorld *all = create(1000000);
	Plan		*plan;

	all->catalog->tables[0]->copy.status = COPY_COPIED;
	all->catalog->tables[0]->copy.copied_lsn = 1500;
	CHECK(remote_intake_keepalive(all->remote.intake, 1499, 5, NULL));
	plan = plan_now(all);
	CHECK(plan->table_count == 0);
	plan_free(plan);
	CHECK(remote_intake_keepalive(all->remote.intake, 1500, 6, NULL));
	plan = plan_now(all);
	CHECK(plan->table_count == 1 && plan->tables[0].table->pgt_id == 1 && plan->tables[0].set == 1);
	is_staged(plan, "");
	CHECK(all->remote.prefix.position == 1500);
	remotes_committed(&all->remotes, 5000, 1, 1);
	plan_free(plan);
	destroy(all);
}

/* The remote keeps what ticks do not keep up with; but one transaction has to fit, on disk if need be. */
static void
test_full(void)
{
	RemoteWorld *all = create(100000);
	Buffer		*buffer = all->remote.intake->buffer;

	put_begin(&all->world, 11);
	for (int i = 0; i < 200; i++)
	{
		put_row(&all->world, 1, 5000);
		deliver(all);
		CHECK(!remote_intake_is_full(all->remote.intake));
	}
	CHECK(buffer->memory_bytes < 200000 && buffer_total_bytes(buffer) > 1000000);
	put_commit(&all->world);
	deliver(all);
	CHECK(remote_intake_is_full(all->remote.intake));
	plan_free(plan_now(all));
	CHECK(all->remote.prefix.transaction_count == 1);
	remotes_committed(&all->remotes, 5000, 1, 1);
	CHECK(!remote_intake_is_full(all->remote.intake));
	destroy(all);
}

/* A tick that took long is followed by smaller ones; at least one transaction it always takes. */
static void
test_slow_target(void)
{
	RemoteWorld *all = create(100000000);
	Plan		*plan;

	for (Xid xid = 11; xid < 31; xid++)
	{
		put_begin(&all->world, xid);
		put_row(&all->world, 1, 1000000);
		put_commit(&all->world);
		deliver(all);
	}
	plan = plan_now(all);
	CHECK(all->remote.prefix.transaction_count == 4);
	remotes_committed(&all->remotes, 5000, 2 * MICROS_PER_SECOND, 1);
	plan_free(plan);
	plan = plan_now(all);
	CHECK(all->remote.prefix.transaction_count == 2);
	remotes_committed(&all->remotes, 5000, 60 * MICROS_PER_SECOND, 1);
	plan_free(plan);
	plan = plan_now(all);
	CHECK(all->remote.prefix.transaction_count == 1);
	remotes_committed(&all->remotes, 5000, 1000, 1);
	plan_free(plan);
	plan = plan_now(all);
	remotes_committed(&all->remotes, 5000, 1000, 1);
	plan_free(plan);
	plan = plan_now(all);
	CHECK(all->remote.prefix.transaction_count > 1);
	remotes_tick_failed(&all->remotes, false, 1);
	plan_free(plan);
	destroy(all);
}

/* A connection that is lost while a tick uses the buffer takes nothing away from it. */
static void
test_lost_in_tick(void)
{
	RemoteWorld *all = create(1000000);
	Plan		*plan;

	transaction(all, 11, 1);
	plan = plan_now(all);
	all->remote.state = REMOTE_CLOSED;
	remote_forget_transactions(&all->remote);
	is_staged(plan, "R1 B11 I1 ");
	remotes_committed(&all->remotes, 5000, 1, 1);
	plan_free(plan);
	CHECK(all->remote.position == 1050);
	CHECK(all->remote.intake == NULL);
	destroy(all);
}

/* What was applied before comes again: it is passed over, and has to be there. */
static void
test_history(Xid xid_there, bool by_keepalive)
{
	RemoteWorld	 *all = create(1000000);
	RemoteIntake *intake = all->remote.intake;
	Error		  error = {0};
	bool		  is_well = true;

	all->world.lsn = 700;
	remote_intake_expect(intake, 11, 800, NULL, 0);
	transaction(all, 10, 1);
	CHECK(intake->buffer->first == NULL && intake->stream_lsn == 900);
	put_begin(&all->world, xid_there);
	put_row(&all->world, 1, 10);
	put_commit(&all->world);
	if (!by_keepalive)
		is_well = remote_intake_batch(intake, all->world.batch.data, all->world.batch.length, 1, &error);
	else
		is_well = remote_intake_keepalive(intake, 900, 1, &error);
	all->world.batch.length = 0;
	CHECK(is_well == (xid_there == 11 && !by_keepalive));
	CHECK((intake->other_history[0] != '\0') == !is_well && intake->buffer->first == NULL);
	if (is_well)
	{
		transaction(all, 12, 1);
		CHECK(intake->buffer->first != NULL && intake->buffer->first->xid == 12);
	}
	destroy(all);
}

/* The last one that was applied is before the stream's start, or comes as it should; another one behind it was not there. */
static void
test_witness(Lsn applied_lsn, uint32_t number, bool is_truncated, Lsn from, bool is_other)
{
	RemoteWorld	 *all = create(1000000);
	RemoteIntake *intake = all->remote.intake;
	Witness		 *witnesses = memory_take(2 * sizeof(Witness));

	witnesses[0] = (Witness){700, 1};
	witnesses[1] = (Witness){500, from};
	all->world.lsn = 700;
	remote_intake_expect(intake, applied_lsn == 700 ? 10 : 0, applied_lsn, witnesses, 2);
	transaction(all, 10, 1);
	put_begin(&all->world, 11);
	if (is_truncated)
		put_truncate(&all->world, 500);
	else
		put_row(&all->world, number, 10);
	put_commit(&all->world);
	deliver(all);
	CHECK((intake->other_history[0] != '\0') == is_other && intake->buffer->first == NULL);
	destroy(all);
}

int
main(void)
{
	test_order();
	test_untouched();
	test_waiting(COPY_REDEFINE, 0);
	test_waiting(COPY_WANTED, 0);
	test_waiting(COPY_ACTIVE, MICROS_NEVER - 1);
	test_chosen_only();
	test_switch();
	test_full();
	test_slow_target();
	test_lost_in_tick();
	test_history(11, false);
	test_history(12, false);
	test_history(11, true);
	test_witness(700, 1, false, 1, true);
	test_witness(700, 1, false, 800, true);
	test_witness(700, 1, false, 801, false);
	test_witness(700, 2, false, 1, false);
	test_witness(700, 1, true, 1, true);
	test_witness(700, 1, true, 801, false);
	test_witness(690, 2, false, 1, true);
	test_witness(690, 1, false, 750, true);
	test_witness(800, 1, false, 1, false);
	return testing_done("remote");
}
