/*
 * applier/refresh.c
 *     What the refresh connection does next: it reads the catalog, or runs a tick, or has nothing to do.
 *
 * One thing at a time.  A tick uses the catalog as it was read, so it is never read while a tick runs; what a tick
 * comes to is outcome.c.
 */
#include "applier.h"

#include <assert.h>

#include "sql_text.h"

#define RELOAD_DELAY_FIRST INT64_C(1000)
#define RELOAD_DELAY_MAX (100 * INT64_C(1000))

/* Changes that hold back more WAL than this go into the spool at once. */
#define SPOOL_WAL_BYTES_MAX (UINT64_C(256) * 1024 * 1024)

/* ------------------------------------------------------------------------------------------------
 * The catalog
 */

void
applier_wish_catalog(Applier *applier, Micros at)
{
	if (at < applier->catalog_reload_at)
		applier->catalog_reload_at = at;
}

bool
applier_take_catalog(Applier *applier, const PGresult *result, Error *error)
{
	Catalog *catalog;
	Catalog *old = applier->catalog;

	assert(applier->tick.state == TICK_IDLE);
	if (!catalog_from_result(result, &catalog, error))
		return false;
	if (old != NULL)
	{
		catalog_take_over(catalog, old, clock_now());
		for (size_t i = 0; i < old->count; i++)
			pending_free(applier->buffer, &old->tables[i]->run.pending);
	}
	applier->catalog = catalog;
	applier_wish_catalog(applier, catalog->stale_at);
	/* Requests for what this answer was too early to show stay: see consider_tick(). */
	intake_use_catalog(applier->intake, catalog, old);
	remotes_use_catalog(&applier->remotes, catalog, clock_now());
	tick_forget_lock_lists(&applier->tick);
	catalog_free(old);
	return true;
}

static bool
load_catalog(Applier *applier, Error *error)
{
	applier->catalog_is_loading = true;
	applier->catalog_is_taken = false;
	applier->catalog_reload_at = MICROS_NEVER;
	remotes_reload_is_sent(&applier->remotes);
	return session_query(&applier->tick.session, sql_catalog, 0, NULL, error) &&
		   session_query(&applier->tick.session, sql_remotes, 0, NULL, error) &&
		   session_sync(&applier->tick.session, error);
}

/* A change may be received before anybody can see it: then the catalog is read again soon. */
static void
catalog_is_loaded(Applier *applier, Micros now)
{
	applier->catalog_is_loading = false;
	if (applier->intake->catalog_change_count == 0)
	{
		applier->catalog_reload_delay = 0;
		return;
	}
	applier->catalog_reload_delay *= 2;
	if (applier->catalog_reload_delay < RELOAD_DELAY_FIRST)
		applier->catalog_reload_delay = RELOAD_DELAY_FIRST;
	if (applier->catalog_reload_delay > RELOAD_DELAY_MAX)
		applier->catalog_reload_delay = RELOAD_DELAY_MAX;
	applier_wish_catalog(applier, now + applier->catalog_reload_delay);
}

/*
 * The remotes are read last: by the snapshot of the catalog it is decided whether a change that was received has been loaded, and
 * what came before it might lack that change.
 */
static bool
take_loaded(Applier *applier, const PGresult *result, Micros now, Error *error)
{
	if (!applier->catalog_is_taken)
	{
		applier->catalog_is_taken = true;
		return applier_take_catalog(applier, result, error);
	}
	if (!remotes_use_rows(&applier->remotes, result, now, error))
		return false;
	remotes_use_catalog(&applier->remotes, applier->catalog, now);
	return true;
}

static bool
advance_catalog(Applier *applier, Micros now, Error *error)
{
	PGresult *result;

	while (applier->catalog_is_loading &&
		   (result = session_next_result(&applier->tick.session)) != NULL)
	{
		bool taken = true;

		if (PQresultStatus(result) == PGRES_TUPLES_OK)
			taken = take_loaded(applier, result, now, error);
		else if (PQresultStatus(result) == PGRES_PIPELINE_SYNC)
			catalog_is_loaded(applier, now);
		else
			taken = error_from_result(error, FAIL_RETRY, result,
									  "could not read the catalog of stream tables");
		PQclear(result);
		if (!taken)
			return false;
	}
	return true;
}

/* ------------------------------------------------------------------------------------------------
 * Ticks
 */

/*
 * Is the stream still too far behind?  Waiting ends early when the buffer is full, since only ticks
 * can empty it; and at the latest after a while.
 */
static bool
must_wait_for_stream(Applier *applier, Micros now)
{
	if (applier->tick_when_reached == LSN_NONE ||
		applier->intake->stream_lsn >= applier->tick_when_reached ||
		buffer_is_under_pressure(applier->buffer) || now >= applier->tick_when_waited)
	{
		applier->tick_when_reached = LSN_NONE;
		return false;
	}
	return true;
}

/* Is it time to store what slow stream tables need, so that the slot can move on? */
static bool
choose_spool(Applier *applier, bool all, Micros now)
{
	if (now < applier->spool_not_before)
	{
		applier->spool_at = applier->spool_not_before;
		return false;
	}
	return schedule_choose_spool(applier->schedule, applier->catalog, applier->intake->stream_lsn,
								 applier->options->spool_after, SPOOL_WAL_BYTES_MAX, all, now,
								 &applier->spool_at) > 0;
}

static bool
consider_tick(Applier *applier, Micros now, Error *error)
{
	bool under_pressure = buffer_is_under_pressure(applier->buffer);
	size_t chosen;
	bool   may_wait_long =
		under_pressure || (applier->tick_when_waited != 0 && now >= applier->tick_when_waited);

	if (now < applier->tick_at || must_wait_for_stream(applier, now))
	{
		applier->next_due = now < applier->tick_at ? applier->tick_at : applier->tick_when_waited;
		applier->schedule->is_dirty = true;
		return true;
	}

	/*
	 * Requests for what does not exist would hold the slot; what is being made is in the catalog
	 * soon.
	 */
	if (applier->schedule->request_count > 0 && applier->intake->catalog_change_count == 0)
		schedule_drop_unknown(applier->schedule, applier->catalog);

	/* What has come from the remotes makes copies pending. */
	applier->schedule->is_dirty |= applier->remotes.may_have_news;

	/* Much wakes the loop that makes nothing due, such as what others write. */
	if (!applier->schedule->is_dirty && now < applier->next_due && now < applier->spool_at &&
		!under_pressure)
		return true;
	remotes_mark_prefixes(&applier->remotes, false, now);
	chosen = schedule_choose(applier->schedule, applier->catalog, now, under_pressure,
							 &applier->next_due);
	if (choose_spool(applier, under_pressure && chosen == 0 && applier->spool_helps, now))
		return tick_start_spool(&applier->tick, may_wait_long, now, error);
	if (chosen > 0)
		return tick_start(&applier->tick, may_wait_long, now, error);

	/* Nothing to refresh makes room: what slow ones wait with has to go. */
	if (under_pressure)
	{
		intake_relieve_pressure(applier->intake);
		applier->next_due = now;
	}
	return true;
}

/* The refresh connection does one thing at a time: a tick, or reading the catalog. */
bool
applier_use_refresh_connection(Applier *applier, Micros now, Error *error)
{
	TickState before = applier->tick.state;

	if (!advance_catalog(applier, now, error) || !tick_advance(&applier->tick, error))
		return false;
	if (before != TICK_IDLE && applier->tick.state == TICK_IDLE &&
		!applier_end_tick(applier, now, error))
		return false;
	if (applier->tick.state != TICK_IDLE || applier->catalog_is_loading || applier->stop_requested)
		return true;

	if (applier->intake->stream_lacks_relations)
		return error_set(error, FAIL_RETRY,
						 "stream tables read relations that the stream does not carry");

	if (applier->remotes.wants_catalog)
		applier_wish_catalog(applier, now);

	/* Failures must be recorded before they are read back. */
	if (applier->intake->catalog_change_count > 0 && applier->catalog_reload_delay == 0)
		applier_wish_catalog(applier, now);
	if (now >= applier->catalog_reload_at && applier->control.queue_length == 0)
		return load_catalog(applier, error);
	return consider_tick(applier, now, error);
}
