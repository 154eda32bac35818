/*
 * applier/test/test_plan.c
 *     The heart: which transactions belong to a tick, what is staged, what may be acknowledged.
 */
#include "plan.h"
#include "stream_builder.h"

static const Oid source_500[] = {500, 0};
static const Oid source_600[] = {600, 0};
static const Oid both_sources[] = {500, 600, 0};
static const Oid reads_first[] = {100001, 0}; /* the stream table with id 1 */

static uint64_t tick_number;

static Plan *
plan_at(World *world, const char *text)
{
	Snapshot *snapshot = snapshot_of(text);
	Plan	 *plan;

	for (size_t i = 0; i < world->intake->catalog->count; i++)
		world->intake->catalog->tables[i]->in_tick = true;
	intake_see_snapshot(world->intake, snapshot);
	schedule_requests_begin(world->schedule, world->intake->catalog);
	plan = plan_create(world->intake, snapshot, ++tick_number, clock_now());
	snapshot_release(snapshot);
	return plan;
}

static void
commit(World *world, Plan *plan, Xid own_xid)
{
	plan_committed(plan, world->intake, own_xid);
	schedule_requests_end(world->schedule, world->intake->catalog, true);
	plan_free(plan);
}

static World
make_world(const Oid *sources)
{
	World	 world = world_create(1000000);
	Catalog *catalog = catalog_create();

	add_table(catalog, 1, "10:10:", sources);
	use_catalog(&world, catalog);
	put_relation(&world, 1, 500, 500);
	put_relation(&world, 2, 600, 600);
	return world;
}

/*
 * Into the spool: the frontier stays, the slot goes on, and what comes again from the stream is not wanted.  The refresh after it takes the rest.
 */
static void
test_spool(void)
{
	World		 world = make_world(source_500);
	StreamTable *table = world.intake->catalog->tables[0];
	Plan		*plan;

	send_transaction(&world, 11, 1); /* commits at 1000 */
	send_transaction(&world, 12, 1); /* 1100 */
	table->spools = true;
	plan = plan_at(&world, "12:12:");
	CHECK(plan->table_count == 1 && plan->tables[0].spools);
	CHECK(strncmp(plan->tables[0].action, "spool:", 6) == 0);
	CHECK(plan->sets[0].transaction_count == 1);
	CHECK(plan->ack_lsn == 1100);
	commit(&world, plan, 50);
	CHECK(!snapshot_sees(table->frontier, 11) && snapshot_sees(table->spooled, 11));
	CHECK(table->own_xid == XID_NONE);
	CHECK(!stream_table_wants(table, 11) && stream_table_wants(table, 12));

	table->spools = false;
	plan = plan_at(&world, "13:13:");
	CHECK(strcmp(plan->tables[0].action, "delta+spooled") == 0);
	CHECK(plan->sets[0].is_exclusive && plan->sets[0].transaction_count == 1);
	commit(&world, plan, 51);
	CHECK(table->spooled == NULL && snapshot_sees(table->frontier, 12));

	/* What was missed is noted with it, and then holds the slot no longer. */
	send_transaction(&world, 14, 1); /* 1200 */
	table->run.missed_changes = true;
	table->run.missed_lsn = 1150;
	table->run.missed_reason = "for a test";
	CHECK(plan_ack_lsn(NULL, world.intake) == 1150);
	table->spools = true;
	plan = plan_at(&world, "15:15:");
	CHECK(strstr(plan->tables[0].action, ":for a test") != NULL);
	CHECK(plan->sets[0].transaction_count == 0);
	commit(&world, plan, 52);
	CHECK(!table->run.missed_changes && plan_ack_lsn(NULL, world.intake) > 1200);
	table->spools = false;
	plan = plan_at(&world, "15:15:");
	CHECK(plan->table_count == 1);
	plan_free(plan);
	world_free(&world);
}

/* Received is not visible: such a transaction waits, and holds the slot. */
static void
test_deferred(void)
{
	World		 world = make_world(source_500);
	StreamTable *table = world.intake->catalog->tables[0];
	Plan		*plan;

	send_transaction(&world, 11, 1); /* commits at 1000 */
	send_transaction(&world, 12, 1); /* 1100 */
	send_transaction(&world, 13, 1); /* 1200 */
	CHECK(table->run.pending.count == 3);
	CHECK(plan_ack_lsn(NULL, world.intake) == 1000);

	plan = plan_at(&world, "12:14:12");
	CHECK(plan->table_count == 1 && plan->set_count == 1);
	CHECK(plan->sets[0].transaction_count == 2);
	CHECK(strcmp(plan->tables[0].action, "delta") == 0);
	CHECK(plan->ack_lsn == 1100);
	commit(&world, plan, 50);
	CHECK(table->run.pending.count == 1);
	CHECK(table->own_xid == 50 && snapshot_sees(table->frontier, 13));
	CHECK(world.buffer->count == 1);
	CHECK(plan_ack_lsn(NULL, world.intake) == 1100);

	/*
	 * Visible now; its tick's own transaction does not belong to it, even when the next snapshot
	 * sees it.
	 */
	send_transaction(&world, 50, 1); /* 1300 */
	CHECK(table->run.pending.count == 1);
	plan = plan_at(&world, "51:51:");
	CHECK(plan->sets[0].transaction_count == 1);
	CHECK(plan->ack_lsn == world.intake->stream_lsn);
	commit(&world, plan, 51);
	CHECK(world.buffer->count == 0);

	/* What a frontier sees is dropped when it is received again. */
	send_transaction(&world, 12, 1);
	CHECK(table->run.pending.count == 0);
	world_free(&world);
}

/* The refresh's own changes arrive before the applier knows that they are its own. */
static void
test_own_xid_arrives_early(void)
{
	World		 world = make_world(source_500);
	StreamTable *table = world.intake->catalog->tables[0];
	Plan		*plan;

	send_transaction(&world, 11, 1);
	plan = plan_at(&world, "12:12:");
	send_transaction(&world, 60, 1);
	CHECK(table->run.pending.count == 2);
	commit(&world, plan, 60);
	CHECK(table->run.pending.count == 0);
	world_free(&world);
}

/* One frontier, one set; another frontier, another set. */
static void
test_sets(void)
{
	World	 world = world_create(1000000);
	Catalog *catalog = catalog_create();
	Plan	*plan;

	add_table(catalog, 1, "10:10:", source_500);
	add_table(catalog, 2, "12:12:", source_500);
	add_table(catalog, 3, "10:10:", both_sources);
	add_table(catalog, 4, "10:10:", source_600);
	use_catalog(&world, catalog);
	put_relation(&world, 1, 500, 500);
	put_relation(&world, 2, 600, 600);
	send_transaction(&world, 11, 1);
	send_transaction(&world, 13, 1);
	CHECK(catalog_find(catalog, 2)->run.pending.count == 1);
	plan = plan_at(&world, "20:20:");
	CHECK(plan->table_count == 3); /* the fourth's source did not change */
	CHECK(plan->set_count == 2);
	CHECK(plan->tables[0].set == plan->tables[2].set && plan->tables[0].set != plan->tables[1].set);
	CHECK(plan->sets[0].transaction_count == 2 && plan->sets[1].transaction_count == 1);
	CHECK(plan->ack_lsn == world.intake->stream_lsn);
	commit(&world, plan, 99);
	CHECK(world.buffer->count == 0);
	world_free(&world);
}

/* A stream table that is not in the tick keeps what it needs, and the slot with it. */
static void
test_slow_consumer(void)
{
	World	  world = world_create(1000000);
	Catalog	 *catalog = catalog_create();
	Snapshot *snapshot = snapshot_of("20:20:");
	Plan	 *plan;

	add_table(catalog, 1, "10:10:", source_500);
	add_table(catalog, 2, "10:10:", source_500)->schedule = SCHEDULE_MANUAL;
	use_catalog(&world, catalog);
	put_relation(&world, 1, 500, 500);
	send_transaction(&world, 11, 1);
	intake_see_snapshot(world.intake, snapshot);
	catalog->tables[0]->in_tick = true;
	plan = plan_create(world.intake, snapshot, ++tick_number, 0);
	CHECK(plan->table_count == 1);
	CHECK(plan->ack_lsn == 1000);
	commit(&world, plan, 99);
	CHECK(world.buffer->count == 1);
	CHECK(plan_ack_lsn(NULL, world.intake) == 1000);
	snapshot_release(snapshot);
	world_free(&world);
}

static size_t
count_bytes(World *world, const Plan *plan, size_t *parts, size_t *rows)
{
	StageReader reader;
	size_t		total = 0;
	Error		error;

	*parts = *rows = 0;
	stage_reader_init(&reader, plan);
	for (;;)
	{
		const uint8_t *data;
		size_t		   length;
		int			   set = 0;
		BatchReader	   batch;
		RecordView	   record;

		CHECK(stage_reader_next(&reader, &set, &data, &length, &error));
		if (length == 0)
			break;
		total += length;
		(*parts)++;
		batch = batch_reader(data, length);
		while (batch_next_record(&batch, &record))
			*rows += record_is_row(&record);
		CHECK(batch.error == NULL);
	}
	stage_reader_free(&reader);
	return total;
}

/* Parts end between records, whatever the sizes, from memory and from disk. */
static void
test_staging(uint64_t memory_bytes_max)
{
	World  world = make_world(both_sources);
	size_t parts;
	size_t rows;
	Plan  *plan;

	world.buffer->memory_bytes_max = memory_bytes_max;
	put_begin(&world, 11);
	for (int i = 0; i < 3000; i++)
	{
		put_row(&world, 1, (size_t) (i * 13 % 5000));
		put_row(&world, 2, 3);
		if (i % 50 == 0)
			CHECK(world_send(&world));
	}
	put_row(&world, 1, 9 * 1024 * 1024); /* larger than a part */
	put_row(&world, 1, 10);
	put_truncate(&world, 600);
	put_commit(&world);
	CHECK(world_send(&world));
	send_transaction(&world, 12, 2);
	plan = plan_at(&world, "20:20:");
	CHECK(count_bytes(&world, plan, &parts, &rows) > 16 * 1024 * 1024);
	CHECK(rows == 6003);
	CHECK(parts >= 4);
	commit(&world, plan, 99);
	CHECK(buffer_total_bytes(world.buffer) < 10000);
	world_free(&world);
}

/* A set holds only relations that its stream tables read. */
static void
test_unwanted_relations(void)
{
	World  world = make_world(source_500);
	size_t parts;
	size_t rows;
	Plan  *plan;

	put_begin(&world, 11);
	put_row(&world, 1, 10);
	put_row(&world, 2, 10);
	put_truncate(&world, 600);
	put_commit(&world);
	CHECK(world_send(&world));
	plan = plan_at(&world, "20:20:");
	count_bytes(&world, plan, &parts, &rows);
	CHECK(rows == 1 && parts == 1);
	plan_free(plan);
	world_free(&world);
}

/* The transaction that created it: what came before the marker is in the fill. */
static void
test_filling_transaction(void)
{
	World		 world = world_create(1000000);
	Catalog		*catalog = catalog_create();
	StreamTable *table;
	StreamTable *neighbour;
	size_t		 parts;
	size_t		 rows;
	Plan		*plan;

	use_catalog(&world, catalog);
	put_relation(&world, 1, 500, 500);
	put_message(&world, false, 900, "interest 30 500,600");
	put_begin(&world, 30);
	put_row(&world, 1, 10);
	put_row(&world, 1, 10);
	put_message(&world, true, 950, "ddl 500");
	put_message(&world, true, 960, "filled 7");
	put_row(&world, 1, 10);
	put_message(&world, true, 970, "catalog");
	put_commit(&world); /* at 1000 */
	CHECK(world_send(&world));
	CHECK(world.buffer->count == 1); /* pinned */
	CHECK(world.intake->catalog_change_count == 1);
	CHECK(plan_ack_lsn(NULL, world.intake) == 0); /* before the interest message */

	/*
	 * The catalog as the creator left it; its own id is below the fill snapshot's xmax, as may be.
	 */
	catalog = catalog_create();
	catalog->snapshot = snapshot_of("40:40:");
	table = add_table(catalog, 7, "31:31:", source_500);
	table->filled_xid = table->own_xid = 30;
	neighbour = add_table(catalog, 8, "31:31:", source_500);
	neighbour->own_xid = 5;
	use_catalog(&world, catalog);
	CHECK(world.intake->catalog_change_count == 0);
	CHECK(table->run.pending.count == 1);
	CHECK(neighbour->run.pending.count == 0);

	plan = plan_at(&world, "41:41:");
	CHECK(world.settle->pin_count == 0);
	CHECK(plan->table_count == 1 && plan->sets[0].is_exclusive);
	CHECK(strcmp(plan->tables[0].action, "delta") == 0); /* the ddl was before the fill */
	count_bytes(&world, plan, &parts, &rows);
	CHECK(rows == 1);
	CHECK(plan->ack_lsn == world.intake->stream_lsn);
	commit(&world, plan, 41);
	CHECK(world.buffer->count == 0 && table->run.pending.count == 0);
	CHECK(!stream_table_wants(table, 30));
	world_free(&world);
}

/* Nothing after the fill: nothing is pending, no tick. */
static void
test_filling_transaction_without_news(void)
{
	World		 world = world_create(1000000);
	Catalog		*catalog = catalog_create();
	StreamTable *table;

	use_catalog(&world, catalog);
	put_relation(&world, 1, 500, 500);
	put_message(&world, false, 900, "interest 30 500");
	put_begin(&world, 30);
	put_row(&world, 1, 10);
	put_message(&world, true, 960, "filled 7");
	put_message(&world, true, 970, "catalog");
	put_commit(&world);
	CHECK(world_send(&world));
	catalog = catalog_create();
	catalog->snapshot = snapshot_of("40:40:");
	table = add_table(catalog, 7, "31:31:", source_500);
	table->filled_xid = table->own_xid = 30;
	use_catalog(&world, catalog);
	CHECK(table->run.pending.count == 0 && !table->run.missed_changes);
	world_free(&world);
}

/* What was skipped and cannot be in the fill leads to a full refresh; the slot waits for it. */
static void
test_missed(void)
{
	World		 world = world_create(1000000);
	Catalog		*catalog = catalog_create();
	StreamTable *table;
	Plan		*plan;

	use_catalog(&world, catalog);
	put_begin(&world, 20); /* commits at 1000, invisible for long */
	put_skipped(&world, 500);
	put_commit(&world);
	put_begin(&world, 21);
	put_skipped(&world, 500);
	put_commit(&world);
	put_message(&world, false, 1300, "interest 30 500");
	CHECK(world_send(&world));

	catalog = catalog_create();
	catalog->snapshot = snapshot_of("20:31:20");
	table = add_table(catalog, 7, "20:30:20", source_500); /* the fill did not see 20 */
	table->filled_xid = table->own_xid = 30;
	use_catalog(&world, catalog);
	CHECK(table->run.missed_changes && table->run.missed_lsn == 1000);
	CHECK(plan_ack_lsn(NULL, world.intake) == 1000);

	/* A full refresh that does not see it either is no cure. */
	plan = plan_at(&world, "20:40:20");
	CHECK(plan->table_count == 1 && plan->tables[0].is_full);
	CHECK(strncmp(plan->tables[0].action, "full:", 5) == 0);
	CHECK(plan->ack_lsn == 1000);
	commit(&world, plan, 41);
	CHECK(table->run.missed_changes && plan_ack_lsn(NULL, world.intake) == 1000);

	plan = plan_at(&world, "50:50:");
	CHECK(plan->tables[0].is_full && plan->ack_lsn == world.intake->stream_lsn);

	/* Settled by the snapshot, but not refreshed yet: still held without the plan. */
	CHECK(plan_ack_lsn(NULL, world.intake) == 1000);
	commit(&world, plan, 51);
	CHECK(!table->run.missed_changes);
	CHECK(plan_ack_lsn(NULL, world.intake) == world.intake->stream_lsn);
	world_free(&world);
}

/* A relation that is read is skipped all the same (the plugin did not know): noticed at once. */
static void
test_skipped_although_read(void)
{
	World		 world = make_world(source_500);
	StreamTable *table = world.intake->catalog->tables[0];

	put_begin(&world, 9); /* the frontier sees it */
	put_skipped(&world, 500);
	put_commit(&world);
	CHECK(world_send(&world) && !table->run.missed_changes);
	put_begin(&world, 20);
	put_skipped(&world, 500);
	put_commit(&world);
	CHECK(world_send(&world) && table->run.missed_changes);
	world_free(&world);
}

static void
test_ddl(void)
{
	World		 world = make_world(source_500);
	StreamTable *table = world.intake->catalog->tables[0];
	Plan		*plan;

	put_begin(&world, 20);
	put_message(&world, true, 1, "ddl 600,500");
	put_commit(&world);
	CHECK(world_send(&world));
	CHECK(table->run.pending.count == 1);
	plan = plan_at(&world, "15:21:20");
	CHECK(plan->table_count == 0);
	plan_free(plan);
	plan = plan_at(&world, "21:21:");
	CHECK(plan->table_count == 1);
	CHECK(strcmp(plan->tables[0].action, "full:source public.source changed") == 0);
	commit(&world, plan, 30);
	CHECK(table->run.pending.count == 0 && world.buffer->count == 0);
	world_free(&world);
}

static void
test_requests(void)
{
	World world = make_world(source_500);
	Plan *plan;

	put_message(&world, false, 1000, "refresh 1 abc");
	put_message(&world, false, 1010, "verify 1 first");
	put_message(&world, false, 1020, "verify 1 second");
	put_message(&world, false, 1030, "fence whatever");
	CHECK(world_send(&world));
	CHECK(world.intake->stream_lsn == 1030);
	CHECK(plan_ack_lsn(NULL, world.intake) == 0); /* unanswered, they are read again */

	/* Nothing pending, and yet it takes part. */
	plan = plan_at(&world, "20:20:");
	CHECK(plan->table_count == 1 && strcmp(plan->tables[0].action, "delta+verify:first") == 0);
	CHECK(plan->ack_lsn == 1010);
	commit(&world, plan, 30);
	plan = plan_at(&world, "31:31:");
	CHECK(plan->table_count == 1 && strcmp(plan->tables[0].action, "delta+verify:second") == 0);
	CHECK(plan->ack_lsn == 1030);
	commit(&world, plan, 31);
	plan = plan_at(&world, "32:32:");
	CHECK(plan->table_count == 0);
	plan_free(plan);
	world_free(&world);
}

static void
test_upstream_takes_part(void)
{
	World	 world = world_create(1000000);
	Catalog *catalog = catalog_create();
	Plan	*plan;

	add_table(catalog, 1, "10:10:", source_500);
	set_upstream(add_table(catalog, 2, "10:10:", reads_first), 1);
	set_upstream(add_table(catalog, 3, "10:10:", source_600), 1);
	use_catalog(&world, catalog);
	put_relation(&world, 1, 500, 500);
	put_relation(&world, 2, 600, 600);
	send_transaction(&world, 11, 1);
	plan = plan_at(&world, "20:20:");
	CHECK(plan->table_count == 3);
	CHECK(plan->tables[0].table->pgt_id == 1);
	plan_free(plan);

	/* Upstream must not go: nor may who reads it, even with changes of its own. */
	send_transaction(&world, 12, 2);
	catalog_find(catalog, 1)->run.retry_at = MICROS_NEVER;
	plan = plan_at(&world, "20:20:");
	CHECK(plan->table_count == 0);
	plan_free(plan);
	world_free(&world);
}

/* A full refresh sees nothing that it cannot: xmin has to have passed the slot's valid xid. */
static void
test_valid_xid(void)
{
	World world = make_world(source_500);
	Plan *plan;

	world.schedule->valid_xid = 15;
	plan = plan_at(&world, "14:30:14");
	CHECK(plan->table_count == 0);
	plan_free(plan);
	plan = plan_at(&world, "15:30:15");
	CHECK(plan->table_count == 1 && plan->tables[0].is_full);
	commit(&world, plan, 31);
	plan = plan_at(&world, "32:32:");
	CHECK(plan->table_count == 0);
	plan_free(plan);
	world_free(&world);
}

/* Upstream was refreshed, unsent, after the snapshot that the new stream table was filled with. */
static void
test_unsent_refresh(void)
{
	World		 world = world_create(1000000);
	Catalog		*catalog = catalog_create();
	StreamTable *table;

	add_table(catalog, 1, "10:10:", source_500)->own_xid = 40;
	use_catalog(&world, catalog);
	catalog = catalog_create();
	add_table(catalog, 1, "10:10:", source_500)->own_xid = 40;
	table = add_table(catalog, 2, "35:41:35,40", reads_first);
	table->own_xid = table->filled_xid = 35;
	set_upstream(table, 1);
	use_catalog(&world, catalog);
	CHECK(table->run.missed_changes);
	world_free(&world);
}

/* Too much for the buffer: a full refresh takes the place of what was given up. */
static void
test_pressure(void)
{
	World		 world = make_world(source_500);
	StreamTable *table = world.intake->catalog->tables[0];
	Plan		*plan;

	table->schedule = SCHEDULE_MANUAL;
	world.buffer->memory_bytes_max = 20000;
	for (Xid xid = 20; xid < 200; xid++)
		send_transaction(&world, xid, 1);
	CHECK(buffer_is_under_pressure(world.buffer));
	intake_relieve_pressure(world.intake);
	CHECK(table->run.pending.count == 0 && table->run.missed_changes);
	CHECK(plan_ack_lsn(NULL, world.intake) == 1000);
	plan = plan_at(&world, "20:200:20,30");
	CHECK(plan->table_count == 1 && plan->tables[0].is_full);
	CHECK(plan->ack_lsn == 1000); /* 20 was not seen */
	commit(&world, plan, 300);
	CHECK(table->run.missed_changes);
	plan = plan_at(&world, "301:301:");
	commit(&world, plan, 301);
	CHECK(!table->run.missed_changes && world.buffer->count == 0);
	world_free(&world);
}

static void
test_broken_streams(void)
{
	World world = make_world(source_500);

	CHECK(world_send(&world));
	put_row(&world, 1, 10);
	CHECK(!world_send(&world));
	put_begin(&world, 20);
	put_row(&world, 9, 10);
	CHECK(!world_send(&world));
	world_free(&world);
}

int
main(void)
{
	log_level_min = LEVEL_FATAL;
	test_deferred();
	test_spool();
	test_own_xid_arrives_early();
	test_sets();
	test_slow_consumer();
	test_staging(1000000000);
	test_staging(100000);
	test_unwanted_relations();
	test_filling_transaction();
	test_filling_transaction_without_news();
	test_missed();
	test_skipped_although_read();
	test_ddl();
	test_requests();
	test_upstream_takes_part();
	test_valid_xid();
	test_unsent_refresh();
	test_pressure();
	test_broken_streams();
	return testing_done("plan");
}
