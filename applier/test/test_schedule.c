/*
 * applier/test/test_schedule.c
 *     What is due, and when: kinds of schedules, upstream, failures, requests, deferral.
 */
#include "stream_builder.h"

#define SECOND MICROS_PER_SECOND
#define NOW (1000 * SECOND)

static const Oid source_500[] = {500, 0};

/* One stream table over relation 500 with a transaction pending since `since`. */
static StreamTable *
make_pending(World *world, ScheduleKind schedule, Micros since)
{
	Catalog		*catalog = catalog_create();
	StreamTable *table = add_table(catalog, 1, "10:10:", source_500);

	table->schedule = schedule;
	table->interval = 5 * SECOND;
	use_catalog(world, catalog);
	put_relation(world, 1, 500, 500);
	send_transaction(world, 20, 1);
	CHECK(table->run.pending.count == 1);
	table->run.pending.items[0]->committed_at = since;
	return table;
}

static void
test_kinds(void)
{
	Micros		 next;
	World		 world = world_create(1000000);
	StreamTable *table = make_pending(&world, SCHEDULE_CONTINUOUS, NOW);
	Catalog		*catalog = world.intake->catalog;

	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 1);
	CHECK(table->in_tick && next == MICROS_NEVER);

	/* Never staler than the interval: due a little before it is over. */
	table->schedule = SCHEDULE_INTERVAL;
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 0);
	CHECK(next > NOW + 4 * SECOND && next < NOW + 5 * SECOND);
	CHECK(schedule_choose(world.schedule, catalog, next, false, &next) == 1);
	CHECK(schedule_choose(world.schedule, catalog, NOW, true, &next) == 1);

	table->schedule = SCHEDULE_MANUAL;
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 0);
	CHECK(next == MICROS_NEVER);
	world_free(&world);
}

/* Answered only when the stream table took part; what comes during the tick is for the next one. */
static void
test_requests(void)
{
	Micros		 next;
	World		 world = world_create(1000000);
	StreamTable *table = make_pending(&world, SCHEDULE_MANUAL, NOW);
	Catalog		*catalog = world.intake->catalog;

	schedule_request(world.schedule, 1, NULL, 100);
	CHECK(schedule_needed_lsn(world.schedule) == 100);
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 1);

	schedule_requests_begin(world.schedule, catalog);
	schedule_request(world.schedule, 1, "later", 200);
	table->takes_part = false;
	schedule_requests_end(world.schedule, catalog, true);
	CHECK(world.schedule->request_count == 2);
	schedule_requests_begin(world.schedule, catalog);
	CHECK(schedule_verification(world.schedule, table) != NULL);
	schedule_requests_end(world.schedule, catalog, false);
	CHECK(schedule_verification(world.schedule, table) == NULL);
	schedule_requests_begin(world.schedule, catalog);
	table->takes_part = true;
	schedule_requests_end(world.schedule, catalog, true);
	CHECK(world.schedule->request_count == 0);

	schedule_request(world.schedule, 99, NULL, 300);
	schedule_drop_unknown(world.schedule, catalog);
	CHECK(world.schedule->request_count == 0);
	world_free(&world);
}

/* Nothing pending: nothing due, no deadline. */
static void
test_idle(void)
{
	Micros			 next;
	World			 world = world_create(1000000);
	Catalog			*catalog = catalog_create();
	static const Oid other[] = {501, 0};

	add_table(catalog, 1, "10:10:", source_500);
	add_table(catalog, 2, "10:10:", other)->schedule = SCHEDULE_INTERVAL;
	use_catalog(&world, catalog);
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 0);
	CHECK(next == MICROS_NEVER);

	/* A transaction that touches only what nobody reads changes nothing about that. */
	put_relation(&world, 1, 502, 502);
	send_transaction(&world, 20, 1);
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 0);
	CHECK(next == MICROS_NEVER);
	world_free(&world);
}

static Catalog *
make_chain(void)
{
	Catalog			*catalog = catalog_create();
	static const Oid upstream_only[] = {100001, 0};

	/* Listed against the grain: the catalog sorts them. */
	set_upstream(add_table(catalog, 2, "10:10:", upstream_only), 1);
	add_table(catalog, 1, "10:10:", source_500);
	return catalog;
}

static void
test_upstream(void)
{
	Micros		 next;
	World		 world = world_create(1000000);
	Catalog		*catalog = make_chain();
	StreamTable *first;
	StreamTable *second;

	use_catalog(&world, catalog);
	first = catalog_find(catalog, 1);
	second = catalog_find(catalog, 2);
	CHECK(catalog->tables[0] == first && catalog->tables[1] == second);
	first->schedule = SCHEDULE_MANUAL;
	put_relation(&world, 1, 500, 500);
	send_transaction(&world, 20, 1);
	CHECK(first->run.pending.count == 1 && second->run.pending.count == 0);

	/* The consumer is pending through its upstream, and takes it along. */
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 2);
	CHECK(first->in_tick && second->in_tick && !first->is_due && second->is_due);

	/* Upstream waits after a failure: so does the consumer, and then both go. */
	first->run.retry_at = NOW + 7 * SECOND;
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 0);
	CHECK(next == NOW + 7 * SECOND);
	CHECK(schedule_choose(world.schedule, catalog, next, false, &next) == 2);

	/* Unless somebody asks. */
	schedule_request(world.schedule, 2, NULL, 100);
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 2);
	CHECK(first->run.retry_at == 0);
	world_free(&world);
}

static void
test_group(void)
{
	Micros		 next;
	World		 world = world_create(1000000);
	Catalog		*catalog = catalog_create();
	StreamTable *quick = add_table(catalog, 1, "10:10:", source_500);
	StreamTable *slow = add_table(catalog, 2, "10:10:", source_500);
	StreamTable *other = add_table(catalog, 3, "10:10:", source_500);

	quick->group_id = slow->group_id = 7;
	slow->schedule = other->schedule = SCHEDULE_MANUAL;
	use_catalog(&world, catalog);
	put_relation(&world, 1, 500, 500);
	send_transaction(&world, 20, 1);

	/* One is due: its group comes along, and nobody else. */
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 2);
	CHECK(quick->in_tick && slow->in_tick && !other->in_tick);

	/* One has failed: all wait for it, but not when it is given up. */
	slow->run.retry_at = NOW + 7 * SECOND;
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 0);
	CHECK(next == NOW + 7 * SECOND);
	slow->is_active = false;
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 1);
	CHECK(quick->in_tick && !slow->in_tick);
	world_free(&world);
}

static void
test_deferral(void)
{
	Micros		 next;
	World		 world = world_create(1000000);
	StreamTable *table = make_pending(&world, SCHEDULE_CONTINUOUS, NOW);
	Catalog		*catalog = world.intake->catalog;

	schedule_defer(table, NOW);
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 0);
	CHECK(next == NOW + 1000);
	for (int i = 0; i < 20; i++)
		schedule_defer(table, NOW);
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 0);
	CHECK(next == NOW + 100000);

	/* News do not wait for what cannot be seen. */
	send_transaction(&world, 21, 1);
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 1);
	world_free(&world);
}

static void
test_refill(void)
{
	Micros		 next;
	World		 world = world_create(1000000);
	Catalog		*catalog = catalog_create();
	StreamTable *table = add_table(catalog, 1, "10:10:", source_500);

	table->schedule = SCHEDULE_MANUAL;
	use_catalog(&world, catalog);
	CHECK(schedule_refill_reason(world.schedule, table) == NULL);
	world.schedule->valid_xid = 11;
	CHECK(schedule_refill_reason(world.schedule, table) != NULL);
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 1);
	world.schedule->valid_xid = 10;
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 0);
	table->needs_refill = true;
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 1);
	table->is_active = false;
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 0);
	CHECK(next == MICROS_NEVER);
	world_free(&world);
}

/* Those who go alone take turns with the others. */
static void
test_going_alone(void)
{
	Micros		 next;
	World		 world = world_create(1000000);
	Catalog		*catalog = catalog_create();
	StreamTable *tables[3];

	for (int i = 0; i < 3; i++)
		tables[i] = add_table(catalog, i + 1, "10:10:", source_500);
	use_catalog(&world, catalog);
	put_relation(&world, 1, 500, 500);
	send_transaction(&world, 20, 1);
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 3);
	tables[0]->run.goes_alone = tables[1]->run.goes_alone = true;
	tables[0]->run.retry_at = 2;
	tables[1]->run.retry_at = 1;
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 1 && tables[1]->in_tick);
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 1 && tables[2]->in_tick);
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 1 && tables[1]->in_tick);
	world_free(&world);
}

/* Who follows the clock is due without anything pending; what that means for those above and below. */
static void
test_clock(void)
{
	Micros		 next;
	World		 world = world_create(1000000);
	Catalog		*catalog = make_chain();
	StreamTable *first;
	StreamTable *second;

	use_catalog(&world, catalog);
	first = catalog_find(catalog, 1);
	second = catalog_find(catalog, 2);
	first->clock = CLOCK_FULL;
	first->refreshed_at = NOW;

	/* Continuous: a step after the last one, and a longer one after a long refresh. */
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 0);
	CHECK(next == NOW + SECOND);
	first->run.refresh_cost = 3 * SECOND;
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 0);
	CHECK(next == NOW + 30 * SECOND);

	/* An interval is kept whatever it costs; the one above has nothing to do with it. */
	first->run.refresh_cost = 0;
	first->schedule = SCHEDULE_INTERVAL;
	first->interval = 5 * SECOND;
	second->schedule = SCHEDULE_MANUAL;
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 0);
	CHECK(next > NOW + 4 * SECOND && next < NOW + 5 * SECOND);
	CHECK(schedule_choose(world.schedule, catalog, next, false, &next) == 1);
	CHECK(first->in_tick && first->moves_by_clock && !second->in_tick);

	/* After a failure it waits, and deferred it waits, too. */
	first->run.retry_at = NOW + 9 * SECOND;
	CHECK(schedule_choose(world.schedule, catalog, NOW + 6 * SECOND, false, &next) == 0);
	CHECK(next == NOW + 9 * SECOND);
	first->run.retry_at = 0;
	first->run.deferred_until = NOW + 8 * SECOND;
	CHECK(schedule_choose(world.schedule, catalog, NOW + 6 * SECOND, false, &next) == 0);
	CHECK(next == NOW + 8 * SECOND);
	first->run.deferred_until = 0;

	/* Before its time, one that is brought along is computed anew only if somebody asked. */
	second->schedule = SCHEDULE_CONTINUOUS;
	second->clock = CLOCK_DELTA;
	second->refreshed_at = NOW - SECOND;
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 2);
	CHECK(second->moves_by_clock && !first->moves_by_clock);
	schedule_request(world.schedule, 2, NULL, 100);
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 2);
	CHECK(second->moves_by_clock && first->moves_by_clock);

	/* Small deltas come along always. */
	schedule_requests_begin(world.schedule, catalog);
	second->takes_part = true;
	schedule_requests_end(world.schedule, catalog, true);
	first->clock = CLOCK_DELTA;
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 2);
	CHECK(second->moves_by_clock && first->moves_by_clock);

	/* Who is due before long goes with the one whose time has come. */
	first->schedule = SCHEDULE_INTERVAL;
	first->interval = 8 * SECOND;
	first->refreshed_at = NOW - 6 * SECOND;
	second->refreshed_at = NOW;
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 0);
	second->refreshed_at = NOW - SECOND;
	second->upstream_count = 0;
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 2);
	first->refreshed_at = NOW - 5 * SECOND;
	CHECK(schedule_choose(world.schedule, catalog, NOW, false, &next) == 1);

	/* Nobody follows the clock of a manual one. */
	first->schedule = second->schedule = SCHEDULE_MANUAL;
	CHECK(schedule_choose(world.schedule, catalog, NOW + 100 * SECOND, false, &next) == 0);
	CHECK(next == MICROS_NEVER);
	world_free(&world);
}

/* Only what nobody is about to refresh goes into the spool, after it has waited. */
static void
test_spool(void)
{
	Micros		 next;
	World		 world = world_create(1000000);
	StreamTable *table = make_pending(&world, SCHEDULE_MANUAL, NOW);
	Catalog		*catalog = world.intake->catalog;
	Lsn			 behind = table->run.pending.items[0]->commit_lsn + 1000;

#define CHOOSE_SPOOL(all, at)                                                                      \
	(schedule_choose(world.schedule, catalog, at, false, &next),                                   \
	 schedule_choose_spool(world.schedule, catalog, behind, 60 * SECOND, 5000, all, at, &next))

	CHECK(CHOOSE_SPOOL(false, NOW) == 0);
	CHECK(next == NOW + 60 * SECOND && !table->spools);
	CHECK(CHOOSE_SPOOL(false, next) == 1);
	CHECK(table->in_tick && table->spools);
	CHECK(CHOOSE_SPOOL(true, NOW) == 1);
	behind += 5000;
	CHECK(CHOOSE_SPOOL(false, NOW) == 1);

	/* One that is due is refreshed. */
	table->schedule = SCHEDULE_CONTINUOUS;
	CHECK(CHOOSE_SPOOL(true, NOW) == 0);
	CHECK(table->in_tick && !table->spools);

	/* One that waits after a failure is not. */
	table->run.retry_at = NOW + 100 * SECOND;
	CHECK(CHOOSE_SPOOL(false, NOW) == 1);

	/* Nor is one that is not active, or that somebody asked for. */
	table->run.retry_at = 0;
	table->schedule = SCHEDULE_MANUAL;
	schedule_request(world.schedule, 1, NULL, 100);
	CHECK(CHOOSE_SPOOL(true, NOW) == 0);
	table->is_active = false;
	CHECK(CHOOSE_SPOOL(true, NOW) == 0);
	world_free(&world);
}

static void
test_delays(void)
{
	for (int failures = 1; failures < 40; failures++)
	{
		Micros delay = retry_delay(failures, 1000, 60000);

		CHECK(delay >= 750 && delay <= 75000);
		CHECK(failures < 10 || delay >= 45000);
	}
}

int
main(void)
{
	test_kinds();
	test_requests();
	test_idle();
	test_upstream();
	test_group();
	test_deferral();
	test_refill();
	test_going_alone();
	test_clock();
	test_spool();
	test_delays();
	return testing_done("schedule");
}
