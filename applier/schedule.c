/*
 * applier/schedule.c
 *     What is to be refreshed, and when.
 */
#include "schedule.h"

#include "memory.h"

/*
 * Until somebody looks again at what no snapshot could see; and at what has to wait for an old
 * transaction to end before it can be filled.
 */
#define DEFERRAL_DELAY_FIRST INT64_C(1000) /* microseconds */
#define INVISIBLE_DELAY_MAX INT64_C(100000)
#define BLOCKED_DELAY_MAX MICROS_PER_SECOND

/*
 * How much earlier than an interval demands: a tenth of it, but at most this, and what ticks take.
 * Late by a millisecond would be a broken promise, early costs little.
 */
#define INTERVAL_MARGIN_MAX MICROS_PER_SECOND

/*
 * A continuous stream table that follows the clock sees it move in steps of this length; in longer ones if a refresh takes long,
 * so that refreshes by the clock cost at most one part in so many of the time.
 */
#define CLOCK_STEP_MIN MICROS_PER_SECOND
#define CLOCK_COST_PARTS 10
#define CLOCK_EARLY_PARTS 4 /* early by at most one in so many of its time */

Schedule *
schedule_create(void)
{
	return memory_take_zeroed(sizeof(Schedule));
}

void
schedule_free(Schedule *schedule)
{
	for (size_t i = 0; i < schedule->request_count; i++)
		free(schedule->requests[i].nonce);
	free(schedule->requests);
	free(schedule);
}

Micros
retry_delay(int failures, Micros first, Micros max)
{
	Micros delay = first;

	for (int i = 1; i < failures && delay < max; i++)
		delay *= 2;
	if (delay > max)
		delay = max;

	/*
	 * Between three and five quarters, so that many who failed together do not come back together.
	 */
	return delay * 3 / 4 + delay / 2 * (random() % 1024) / 1024;
}

void
schedule_defer(StreamTable *table, Micros now)
{
	Micros delay = table->run.deferral_delay * 2;
	Micros delay_max = table->run.pending.count > 0 ? INVISIBLE_DELAY_MAX : BLOCKED_DELAY_MAX;

	if (delay < DEFERRAL_DELAY_FIRST)
		delay = DEFERRAL_DELAY_FIRST;
	if (delay > delay_max)
		delay = delay_max;
	table->run.deferral_delay = delay;
	table->run.deferred_until = now + delay;
}

/* ------------------------------------------------------------------------------------------------
 * Requests
 */

void
schedule_request(Schedule *schedule, int64_t pgt_id, const char *nonce, Lsn hold_lsn)
{
	Request *request;

	schedule->requests = memory_grow_array(schedule->requests, schedule->request_count,
										   &schedule->request_capacity, sizeof(Request));
	request = &schedule->requests[schedule->request_count++];
	request->pgt_id = pgt_id;
	request->nonce = nonce != NULL ? memory_copy_text(nonce) : NULL;
	request->hold_lsn = hold_lsn;
	request->in_tick = false;
	request->is_new = true;
	schedule->is_dirty = true;
}

static bool
request_names(const Request *request, const StreamTable *table)
{
	return request->pgt_id == table->pgt_id || request->pgt_id == SCHEDULE_ALL;
}

bool
schedule_is_requested(const Schedule *schedule, const StreamTable *table)
{
	if (stream_table_is_copy(table)) /* it gets what has arrived in any case */
		return false;
	for (size_t i = 0; i < schedule->request_count; i++)
	{
		if (request_names(&schedule->requests[i], table))
			return true;
	}
	return false;
}

const Request *
schedule_verification(const Schedule *schedule, const StreamTable *table)
{
	for (size_t i = 0; i < schedule->request_count; i++)
	{
		const Request *request = &schedule->requests[i];

		if (request->in_tick && request->nonce != NULL && request_names(request, table))
			return request;
	}
	return NULL;
}

/* An earlier verification of the same stream table: one tick answers one of them. */
static bool
is_second_verification(const Schedule *schedule, const Request *request)
{
	for (const Request *other = schedule->requests; other < request; other++)
	{
		if (other->in_tick && other->nonce != NULL &&
			(other->pgt_id == request->pgt_id || other->pgt_id == SCHEDULE_ALL ||
			 request->pgt_id == SCHEDULE_ALL))
			return true;
	}
	return false;
}

void
schedule_requests_begin(Schedule *schedule, const Catalog *catalog)
{
	for (size_t i = 0; i < schedule->request_count; i++)
	{
		Request			  *request = &schedule->requests[i];
		const StreamTable *table = catalog_find(catalog, request->pgt_id);

		request->in_tick = request->pgt_id == SCHEDULE_ALL || (table != NULL && table->in_tick);
		if (request->nonce != NULL && is_second_verification(schedule, request))
			request->in_tick = false;
	}
}

static void
drop_requests(Schedule	 *schedule, bool (*is_dropped)(const Request *, const void *),
			  const void *context)
{
	size_t kept = 0;

	for (size_t i = 0; i < schedule->request_count; i++)
	{
		if (is_dropped(&schedule->requests[i], context))
			free(schedule->requests[i].nonce);
		else
			schedule->requests[kept++] = schedule->requests[i];
	}
	schedule->request_count = kept;
}

bool
request_is_answered(const Request *request, const Catalog *catalog)
{
	const StreamTable *table;

	if (!request->in_tick)
		return false;
	table = catalog_find(catalog, request->pgt_id);
	return table == NULL || table->takes_part;
}

static bool
test_answered(const Request *request, const void *context)
{
	return request_is_answered(request, context);
}

void
schedule_requests_end(Schedule *schedule, const Catalog *catalog, bool committed)
{
	if (committed)
		drop_requests(schedule, test_answered, catalog);
	for (size_t i = 0; i < schedule->request_count; i++)
		schedule->requests[i].in_tick = false;
}

static bool
request_is_unknown(const Request *request, const void *context)
{
	const StreamTable *table;

	if (request->pgt_id == SCHEDULE_ALL)
		return ((const Catalog *) context)->reader_count == 0;
	table = catalog_find(context, request->pgt_id);
	return table == NULL || !table->is_active || table->schedule == SCHEDULE_IMMEDIATE;
}

void
schedule_drop_unknown(Schedule *schedule, const Catalog *catalog)
{
	drop_requests(schedule, request_is_unknown, catalog);
}

Lsn
schedule_needed_lsn(const Schedule *schedule)
{
	Lsn needed = LSN_MAX;

	for (size_t i = 0; i < schedule->request_count; i++)
		needed = lsn_min(needed, schedule->requests[i].hold_lsn);
	return needed;
}

/* Somebody who asks now does not want to wait until a failure is forgiven, here or upstream. */
static void
forget_failures(StreamTable *table)
{
	table->run.retry_at = 0;
	table->run.deferred_until = 0;
	for (size_t i = 0; i < table->upstream_count; i++)
		forget_failures(table->upstream[i]);
}

static void
wake_requested(Schedule *schedule, Catalog *catalog)
{
	for (size_t i = 0; i < schedule->request_count; i++)
	{
		Request *request = &schedule->requests[i];

		if (!request->is_new)
			continue;
		request->is_new = false;
		for (size_t j = 0; j < catalog->count; j++)
		{
			if (request_names(request, catalog->tables[j]))
				forget_failures(catalog->tables[j]);
		}
	}
}

/* ------------------------------------------------------------------------------------------------
 * What is due
 */

const char *
schedule_refill_reason(const Schedule *schedule, const StreamTable *table)
{
	if (stream_table_is_copy(table)) /* it is copied anew, which is no refresh */
		return NULL;
	if (table->needs_refill)
		return table->refill_reason != NULL ? table->refill_reason : "first fill";
	if (table->frontier == NULL)
		return "first fill";
	if (table->frontier->xmin < schedule->valid_xid)
		return "filled before the replication slot could be relied on";
	if (table->run.missed_changes)
		return table->run.missed_reason;
	return NULL;
}

/* Upstream comes first in the catalog, so one pass is enough. */
static void
look_at_pending(const Schedule *schedule, StreamTable *table)
{
	const PendingList *pending = &table->run.pending;

	table->pending_since = MICROS_NEVER;
	table->ready_at = MICROS_NEVER;
	table->available_at =
		table->is_active || copy_is_followed(table) ? table->run.retry_at : MICROS_NEVER;
	if (pending->count > 0)
	{
		table->pending_since = pending->items[0]->committed_at;
		table->ready_at = table->run.deferred_until;
	}
	if (table->copy.in_prefix)
	{
		table->pending_since = table->copy.pending_since;
		table->ready_at = 0;
	}
	if (table->spooled != NULL)
	{
		if (table->spooled_since < table->pending_since)
			table->pending_since = table->spooled_since;
		table->ready_at = table->run.deferred_until;
	}
	if (table->is_active && schedule_refill_reason(schedule, table) != NULL)
	{
		table->pending_since = 0;
		table->ready_at = table->run.deferred_until;
	}
	for (size_t i = 0; i < table->upstream_count; i++)
	{
		const StreamTable *upstream = table->upstream[i];

		if (upstream->pending_since < table->pending_since)
			table->pending_since = upstream->pending_since;
		if (upstream->ready_at < table->ready_at)
			table->ready_at = upstream->ready_at;
		/*
		 * One that is not pending equals its query as it is, whatever happened to it; but nothing
		 * is known of inactive ones.
		 */
		if ((!upstream->is_active || upstream->pending_since != MICROS_NEVER) &&
			upstream->available_at > table->available_at)
			table->available_at = upstream->available_at;
	}
}

static bool
is_in_group_of(const StreamTable *table, const StreamTable *other)
{
	return other->group_id != 0 && table->group_id == other->group_id && table->is_active &&
		   table->schedule != SCHEDULE_IMMEDIATE;
}

/*
 * A group is refreshed together or not at all: all wait for one that has failed.  Not for one that is stopped, or was suspended after many
 * failures.
 */
static void
wait_for_groups(Catalog *catalog)
{
	for (size_t i = 0; i < catalog->count; i++)
	{
		StreamTable *table = catalog->tables[i];

		for (size_t j = 0; table->group_id != 0 && j < catalog->count; j++)
		{
			const StreamTable *other = catalog->tables[j];

			if (is_in_group_of(other, table) && other->pending_since != MICROS_NEVER &&
				other->available_at > table->available_at)
				table->available_at = other->available_at;
		}
	}
}

static Micros
interval_margin(const Schedule *schedule, const StreamTable *table)
{
	Micros margin = table->interval / 10;

	if (margin > INTERVAL_MARGIN_MAX)
		margin = INTERVAL_MARGIN_MAX;
	margin += 2 * schedule->tick_duration;
	return margin < table->interval / 4 ? margin : table->interval / 4;
}

/*
 * Does a full refresh have to come at once, whatever the schedule?  One that missed changes is
 * right at its frontier; only its next refresh has to be a full one.
 */
static bool
refill_is_urgent(const Schedule *schedule, const StreamTable *table)
{
	return !stream_table_is_copy(table) &&
		   (table->needs_refill || table->frontier == NULL ||
			table->frontier->xmin < schedule->valid_xid);
}

/* When its schedule wants it, failures and invisible transactions left aside. */
static Micros
scheduled_at(const Schedule *schedule, const StreamTable *table, bool under_pressure)
{
	if (table->pending_since == MICROS_NEVER)
		return MICROS_NEVER;
	if (refill_is_urgent(schedule, table))
		return table->ready_at;
	switch (table->schedule)
	{
		case SCHEDULE_CONTINUOUS:
		case SCHEDULE_COPY:
			return table->ready_at;
		case SCHEDULE_INTERVAL:
		{
			Micros due_at =
				table->pending_since + table->interval - interval_margin(schedule, table);

			return under_pressure || due_at < table->ready_at ? table->ready_at : due_at;
		}
		default:
			return MICROS_NEVER;
	}
}

/*
 * When its schedule wants it although nothing has arrived.  At the time of a cron expression a stream table takes part in any case: a
 * change that was committed just before may not have arrived.
 */
static Micros
clock_due_at(const Schedule *schedule, const StreamTable *table)
{
	Micros step = CLOCK_COST_PARTS * table->run.refresh_cost;

	if (!table->is_active)
		return MICROS_NEVER;
	if (table->schedule == SCHEDULE_CRON)
		return table->cron_at;
	if (table->clock == CLOCK_NONE)
		return MICROS_NEVER;
	switch (table->schedule)
	{
		case SCHEDULE_CONTINUOUS:
			return table->refreshed_at + (step > CLOCK_STEP_MIN ? step : CLOCK_STEP_MIN);
		case SCHEDULE_INTERVAL:
			return table->refreshed_at + table->interval - interval_margin(schedule, table);
		default:
			return MICROS_NEVER;
	}
}

/*
 * Those who follow the clock would each make ticks of their own.  Who is due before long goes with the first of them, and stays with it
 * from then on.
 */
static void
choose_clocks_together(const Schedule *schedule, const Catalog *catalog, Micros now)
{
	bool some_due = false;

	for (size_t i = 0; i < catalog->count; i++)
		some_due |= catalog->tables[i]->is_due && clock_due_at(schedule, catalog->tables[i]) <= now;
	for (size_t i = 0; some_due && i < catalog->count; i++)
	{
		StreamTable *table = catalog->tables[i];
		Micros		 at = clock_due_at(schedule, table);

		if (at != MICROS_NEVER && table->schedule != SCHEDULE_CRON && at - (at - table->refreshed_at) / CLOCK_EARLY_PARTS <= now &&
			table->available_at <= now && table->run.deferred_until <= now && !table->run.goes_alone)
			table->is_due = table->moves_by_clock = true;
	}
}

static Micros
due_at(const Schedule *schedule, const StreamTable *table, bool under_pressure)
{
	Micros at = scheduled_at(schedule, table, under_pressure);
	Micros by_clock = clock_due_at(schedule, table);

	/* Whom the clock or a request wants may have to wait for somebody, too: then it is deferred as well. */
	if (schedule_is_requested(schedule, table))
		by_clock = 0;
	if (by_clock < table->run.deferred_until)
		by_clock = table->run.deferred_until;
	if (by_clock < at)
		at = by_clock;
	return at > table->available_at ? at : table->available_at;
}

/*
 * What the clock alone changes in stream tables that are refreshed now: those whose own time has come, and those where it is a small
 * delta.  A full refresh just because of a consumer with a faster schedule would make that schedule its own; but who asks for a
 * refresh, or for one at a certain time, means everything upstream.
 */
static void
move_clocks(StreamTable *table, bool all)
{
	if (table->clock == CLOCK_DELTA || (table->clock == CLOCK_FULL && all))
		table->moves_by_clock = true;
	for (size_t i = 0; i < table->upstream_count; i++)
		move_clocks(table->upstream[i], all);
}

/* With all that it reads, and with its group. */
static size_t
choose_with_others(Catalog *catalog, StreamTable *table)
{
	size_t chosen = 1;

	if (table->in_tick)
		return 0;
	table->in_tick = true;
	for (size_t i = 0; i < table->upstream_count; i++)
		chosen += choose_with_others(catalog, table->upstream[i]);
	for (size_t i = 0; table->group_id != 0 && i < catalog->count; i++)
	{
		if (is_in_group_of(catalog->tables[i], table))
			chosen += choose_with_others(catalog, catalog->tables[i]);
	}
	return chosen;
}

static size_t
choose_due(const Schedule *schedule, Catalog *catalog, StreamTable *table, Micros now)
{
	move_clocks(table, schedule_is_requested(schedule, table) || table->schedule == SCHEDULE_CRON);
	if (clock_due_at(schedule, table) <= now)
		table->moves_by_clock = true;
	for (size_t i = 0; table->group_id != 0 && i < catalog->count; i++)
	{
		if (is_in_group_of(catalog->tables[i], table))
			move_clocks(catalog->tables[i], false);
	}
	return choose_with_others(catalog, table);
}

/*
 * A transaction that arrives between the choice and the fence may concern a continuous stream table that had nothing pending.  It
 * must take part then, or readers would see it older than its neighbours; so all of them are chosen, and locked for,
 * and those without changes stay out when the plan is made.  So it is with copies: whatever transactions of a remote the tick
 * takes, all copies that they touch have to be in it.
 */
static bool
comes_along(const StreamTable *table, Micros now)
{
	if (stream_table_is_copy(table))
		return copy_is_followed(table);
	return table->schedule == SCHEDULE_CONTINUOUS && table->is_active && !table->run.goes_alone &&
		   table->available_at <= now;
}

size_t
schedule_choose(Schedule *schedule, Catalog *catalog, Micros now, bool under_pressure,
				Micros *next_due)
{
	StreamTable *alone = NULL;
	bool		 some_together = false;
	size_t		 chosen = 0;

	*next_due = MICROS_NEVER;
	schedule->is_dirty = false;
	wake_requested(schedule, catalog);
	for (size_t i = 0; i < catalog->count; i++)
		look_at_pending(schedule, catalog->tables[i]);
	wait_for_groups(catalog);
	for (size_t i = 0; i < catalog->count; i++)
	{
		StreamTable *table = catalog->tables[i];
		Micros		 at;

		table->in_tick = false;
		table->spools = false;
		table->is_due = false;
		table->moves_by_clock = false;
		if (table->schedule == SCHEDULE_IMMEDIATE)
			continue;
		at = due_at(schedule, table, under_pressure);
		if (at > now)
		{
			if (at < *next_due)
				*next_due = at;
			continue;
		}
		table->is_due = true;
		if (!table->run.goes_alone)
			some_together = true;
		else if (alone == NULL || table->run.retry_at < alone->run.retry_at)
			alone = table;
	}

	choose_clocks_together(schedule, catalog, now);

	/* Turn and turn about, so that neither kind waits for ever. */
	schedule->chose_alone = alone != NULL && (!some_together || !schedule->chose_alone);
	if (schedule->chose_alone)
		return choose_due(schedule, catalog, alone, now);
	for (size_t i = 0; i < catalog->count; i++)
	{
		if (catalog->tables[i]->is_due && !catalog->tables[i]->run.goes_alone)
			chosen += choose_due(schedule, catalog, catalog->tables[i], now);
	}
	for (size_t i = 0; chosen > 0 && i < catalog->count; i++)
	{
		if (comes_along(catalog->tables[i], now))
			chosen += choose_with_others(catalog, catalog->tables[i]);
	}
	return chosen;
}

/* ------------------------------------------------------------------------------------------------
 * What has to wait elsewhere
 */

/* Who is refreshed now, or filled again, needs no spool; nor does it help who waits for an old transaction. */
static bool
may_spool(const Schedule *schedule, const StreamTable *table, Micros now)
{
	return table->is_active && table->schedule != SCHEDULE_IMMEDIATE && !table->is_due &&
		   table->run.pending.count > 0 && !refill_is_urgent(schedule, table) &&
		   !schedule_is_requested(schedule, table) && table->run.deferred_until <= now &&
		   !(stream_table_is_at_fill(table) &&
			 table->run.pending.items[0]->xid == table->filled_xid);
}

size_t
schedule_choose_spool(const Schedule *schedule, Catalog *catalog, Lsn stream_lsn, Micros wait,
					  uint64_t wal_bytes_max, bool all, Micros now, Micros *next)
{
	size_t chosen = 0;

	*next = MICROS_NEVER;
	for (size_t i = 0; i < catalog->count; i++)
	{
		StreamTable		  *table = catalog->tables[i];
		const Transaction *oldest;

		if (!may_spool(schedule, table, now))
			continue;
		oldest = table->run.pending.items[0];
		table->spools = all || oldest->committed_at + wait <= now ||
						oldest->commit_lsn + wal_bytes_max < stream_lsn;
		chosen += table->spools;
		if (!table->spools && oldest->committed_at + wait < *next)
			*next = oldest->committed_at + wait;
	}

	/* Those who are due have their turn after it. */
	for (size_t i = 0; chosen > 0 && i < catalog->count; i++)
		catalog->tables[i]->in_tick = catalog->tables[i]->spools;
	return chosen;
}
