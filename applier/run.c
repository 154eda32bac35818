/*
 * applier/run.c
 *     The daemon: one loop over three connections, and the only place that decides what a failure
 *     means.
 *
 * Each turn waits for sockets, signals or the nearest deadline, does everything that is possible
 * without waiting, and bounds how much it reads, so that feedback is never late.  With nothing
 * pending the nearest deadline is that of feedback: no ticks, no WAL, no work.
 */
#include "applier.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "memory.h"
#include "server.h"
#include "sql_text.h"
#include "stop_point.h"

#define CONNECT_DELAY_FIRST (200 * INT64_C(1000))
#define CONNECT_DELAY_MAX (30 * MICROS_PER_SECOND)

/* A failure with somebody to blame. */
#define REFRESH_DELAY_FIRST MICROS_PER_SECOND
#define REFRESH_DELAY_MAX (300 * MICROS_PER_SECOND)

/* Locks not got, deadlocks, serialization failures. */
#define SOFT_DELAY_FIRST (10 * INT64_C(1000))
#define SOFT_DELAY_MAX (5 * MICROS_PER_SECOND)

/* So often a relation may be missing before its stream table is blamed. */
#define MISSING_RETRIES_MAX 3

#define RELOAD_DELAY_FIRST INT64_C(1000)
#define RELOAD_DELAY_MAX (100 * INT64_C(1000))

/*
 * A heartbeat writes WAL itself (up to a page image or two after a checkpoint), which must not be
 * the reason for the next one.
 */
#define HEARTBEAT_WAL_BYTES_MIN (64 * 1024)

/* So many unsettled entries are worth a heartbeat before its time. */
#define UNSETTLED_MAX 100000

/* Changes that hold back more WAL than this go into the spool at once. */
#define SPOOL_WAL_BYTES_MAX (UINT64_C(256) * 1024 * 1024)
#define SPOOL_DELAY_AFTER_FAILURE (10 * MICROS_PER_SECOND)

/* A stream that stays far behind does not keep ticks from running for longer than this. */
#define TOO_FAR_BEHIND_MAX (30 * MICROS_PER_SECOND)

/* ------------------------------------------------------------------------------------------------
 * Signals
 */

static volatile sig_atomic_t got_sigterm;
static volatile sig_atomic_t got_sigint;
static volatile sig_atomic_t got_sighup;

static void
note_signal(int signal_number)
{
	if (signal_number == SIGTERM)
		got_sigterm++;
	else if (signal_number == SIGINT)
		got_sigint++;
	else
		got_sighup++;
}

/* They are blocked everywhere but in ppoll, so none is missed between looking and waiting. */
static void
catch_signals(sigset_t *while_waiting)
{
	struct sigaction action = {.sa_handler = note_signal};
	sigset_t		 ours;

	sigemptyset(&ours);
	sigaddset(&ours, SIGTERM);
	sigaddset(&ours, SIGINT);
	sigaddset(&ours, SIGHUP);
	sigprocmask(SIG_BLOCK, &ours, while_waiting);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	sigdelset(while_waiting, SIGTERM);
	sigdelset(while_waiting, SIGINT);
	sigdelset(while_waiting, SIGHUP);
}

/* ------------------------------------------------------------------------------------------------
 * Epochs
 */

static void
free_catalog(Applier *applier)
{
	for (size_t i = 0; applier->catalog != NULL && i < applier->catalog->count; i++)
		pending_free(applier->buffer, &applier->catalog->tables[i]->run.pending);
	catalog_free(applier->catalog);
	applier->catalog = NULL;
}

static void
close_epoch(Applier *applier)
{
	if (applier->epoch == EPOCH_CLOSED)
		return;
	/* The stream first: a server that shuts down waits for it. */
	stream_close(&applier->stream);
	tick_reset(&applier->tick);
	control_reset(&applier->control);
	free_catalog(applier);
	intake_free(applier->intake);
	schedule_free(applier->schedule);
	settle_free(applier->settle);
	buffer_free(applier->buffer);
	snapshot_release(applier->settle_snapshot);
	applier->settle_snapshot = NULL;
	applier->epoch = EPOCH_CLOSED;
}

static bool
open_epoch(Applier *applier, Error *error)
{
	const Options *options = applier->options;

	applier->buffer = buffer_create(options->buffer_bytes_max, options->spill_bytes_max,
									options->spill_directory);
	applier->settle = settle_create();
	applier->schedule = schedule_create();
	applier->intake = intake_create(applier->buffer, applier->settle, applier->schedule);
	memset(&applier->stream, 0, sizeof(applier->stream));
	memset(&applier->control, 0, sizeof(applier->control));
	memset(&applier->tick, 0, sizeof(applier->tick));
	memset(&applier->ack, 0, sizeof(applier->ack));
	tick_init(&applier->tick, &applier->control, applier->intake);
	applier->catalog_is_loading = false;
	applier->catalog_reload_at = MICROS_NEVER;
	applier->catalog_reload_delay = 0;
	applier->tick_at = 0;
	applier->tick_failures = 0;
	applier->tick_when_reached = LSN_NONE;
	applier->next_due = 0;
	applier->spool_at = MICROS_NEVER;
	applier->spool_not_before = 0;
	applier->spool_helps = true;
	applier->last_heartbeat_sent = false;
	return attach_start(applier, error);
}

/* What to say and do about an error that ended the epoch.  False: the process ends. */
static bool
survive(Applier *applier, const Error *error, Micros now)
{
	close_epoch(applier);
	if (applier->stop_requested)
		return false;
	if (error->kind == FAIL_FATAL)
	{
		log_error(LEVEL_FATAL, error);
		return false;
	}
	applier->connect_failures++;
	applier->connect_at =
		now + retry_delay(applier->connect_failures, CONNECT_DELAY_FIRST, CONNECT_DELAY_MAX);
	if (!error_is(error, "55006")) /* that we wait for another applier was said */
		log_error(LEVEL_WARNING, error);
	return true;
}

/* ------------------------------------------------------------------------------------------------
 * The catalog
 */

static void
wish_catalog(Applier *applier, Micros at)
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
	wish_catalog(applier, catalog->stale_at);
	/* Requests for what this answer was too early to show stay: see consider_tick(). */
	intake_use_catalog(applier->intake, catalog, old);
	tick_forget_lock_lists(&applier->tick);
	catalog_free(old);
	return true;
}

static bool
load_catalog(Applier *applier, Error *error)
{
	applier->catalog_is_loading = true;
	applier->catalog_reload_at = MICROS_NEVER;
	return session_query(&applier->tick.session, sql_catalog, 0, NULL, error) &&
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
	wish_catalog(applier, now + applier->catalog_reload_delay);
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
			taken = applier_take_catalog(applier, result, error);
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
 * After a tick
 */

static void
note_persisted(Applier *applier, Lsn ack_lsn, Lsn stream_lsn, Micros now)
{
	applier->persisted_ack_lsn = ack_lsn;
	applier->persisted_stream_lsn = stream_lsn;
	applier->persisted_at = now;
}

/*
 * Who was due and could not take part, or still has something pending that came before the
 * snapshot, could not be helped by it: look again later.
 */
static void
defer_those_waiting(Applier *applier, Micros now)
{
	for (size_t i = 0; i < applier->catalog->count; i++)
	{
		StreamTable *table = applier->catalog->tables[i];

		if (!table->in_tick)
			continue;
		if (table->takes_part && table->run.pending.count == 0)
			table->run.deferral_delay = 0;
		else if (!table->run.has_news && (table->is_due || table->run.pending.count > 0))
			schedule_defer(table, now);
	}
}

static void
tick_was_committed(Applier *applier, Micros now)
{
	Tick  *tick = &applier->tick;
	Micros duration = now - tick->started_at;

	applier->ticks_committed++;
	applier->tick_failures = 0;
	if (!tick->spools)
		applier->schedule->tick_duration = (3 * applier->schedule->tick_duration + duration) / 4;
	ack_persisted(&applier->ack, tick->persisted_ack_lsn, tick->commit_insert_lsn);
	note_persisted(applier, tick->persisted_ack_lsn, tick->persisted_stream_lsn, now);
	defer_those_waiting(applier, now);
	for (size_t i = 0; i < applier->catalog->count; i++)
	{
		const StreamTable *table = applier->catalog->tables[i];

		/* Its next time has to be asked for. */
		if (table->schedule == SCHEDULE_CRON && table->cron_at == MICROS_NEVER && table->is_active)
			wish_catalog(applier, now);
	}
}

static bool
is_one_of(const Error *error, const char *const *sqlstates)
{
	for (; *sqlstates != NULL; sqlstates++)
	{
		if (error_is(error, *sqlstates))
			return true;
	}
	return false;
}

/*
 * Failures that go away by themselves and say nothing about a stream table.  One of them is that
 * somebody has dropped a relation since our snapshot: with the catalog read again it is gone,
 * unless the fault lies elsewhere and stays.
 */
static bool
is_soft(const Error *error, int failures)
{
	static const char *const soft[] = {"40001", "40P01", "55P03", NULL};
	static const char *const missing[] = {"42P01", "42704", "XX000", NULL};

	return is_one_of(error, soft) || (failures <= MISSING_RETRIES_MAX && is_one_of(error, missing));
}

static size_t
count_due(const Catalog *catalog, StreamTable **last)
{
	size_t count = 0;

	for (size_t i = 0; i < catalog->count; i++)
	{
		if (!catalog->tables[i]->in_tick || !catalog->tables[i]->is_due)
			continue;
		*last = catalog->tables[i];
		count++;
	}
	return count;
}

/*
 * The tick failed, but because of whom?  From now on each of its stream tables, also those that only came along, goes alone until it
 * has succeeded, so that one that cannot be locked does not stop the others.
 */
static void
send_each_alone(const Catalog *catalog, Micros now)
{
	for (size_t i = 0; i < catalog->count; i++)
	{
		StreamTable *table = catalog->tables[i];

		if (!table->in_tick)
			continue;
		if (table->is_due && table->run.goes_alone)
		{
			table->run.soft_failures++;
			table->run.retry_at =
				now + retry_delay(table->run.soft_failures, SOFT_DELAY_FIRST, SOFT_DELAY_MAX);
		}
		table->run.goes_alone = true;
	}
}

static bool
blame(Applier *applier, StreamTable *table, const Error *failure, Micros now, Error *error)
{
	Micros delay;
	Error  said = *failure;

	table->run.failures++;
	delay = retry_delay(table->run.failures, REFRESH_DELAY_FIRST, REFRESH_DELAY_MAX);
	table->run.retry_at = now + delay;
	error_context(&said, "could not refresh stream table \"%s\"", table->name);
	log_error(LEVEL_WARNING, &said);
	return control_send_failed(&applier->control, table->pgt_id, failure->sqlstate,
							   failure->message, delay, error);
}

/* Nobody's rows are to blame; the slot waits until it works again. */
static void
spooling_has_failed(Applier *applier, Micros now)
{
	Error said = applier->tick.failure;

	error_context(&said, "could not put changes into the spool");
	log_error(LEVEL_WARNING, &said);
	applier->spool_not_before = now + SPOOL_DELAY_AFTER_FAILURE;
	wish_catalog(applier, now);
}

static bool
tick_has_failed(Applier *applier, Micros now, Error *error)
{
	const Error *failure = &applier->tick.failure;
	StreamTable *culprit = catalog_find(applier->catalog, applier->tick.culprit);
	StreamTable *last_due = NULL;
	size_t		 due = count_due(applier->catalog, &last_due);

	applier->tick_failures++;
	tick_forget_lock_lists(&applier->tick);
	/* Somebody else may have moved frontiers; after a failure nothing is taken for granted. */
	wish_catalog(applier, now);

	if (is_soft(failure, applier->tick_failures))
	{
		log_event(LEVEL_DEBUG, "tick will be tried again: %s", failure->message);
		if (applier->tick.failed_at_lock || applier->tick_failures > 3)
			send_each_alone(applier->catalog, now);
		applier->tick_at =
			now + retry_delay(applier->tick_failures, SOFT_DELAY_FIRST, SOFT_DELAY_MAX / 10);
		return true;
	}
	if (culprit == NULL && due == 1 && !applier->tick.failed_at_lock)
		culprit = last_due;
	if (culprit != NULL)
		return blame(applier, culprit, failure, now, error);

	log_error(LEVEL_WARNING, failure);
	send_each_alone(applier->catalog, now);
	applier->tick_at = now + retry_delay(applier->tick_failures, SOFT_DELAY_FIRST, SOFT_DELAY_MAX);
	return true;
}

/* No snapshot is held while the stream catches up; but not for ever either. */
static void
stream_is_far_behind(Applier *applier, Micros now)
{
	const Tick *tick = &applier->tick;
	bool		is_far = applier->intake->stream_lsn + TICK_DISTANCE_MAX < tick->insert_lsn;

	applier->tick_when_reached = tick->insert_lsn - (is_far ? TICK_DISTANCE_MAX / 4 : 0);
	if (applier->tick_when_waited == 0 || tick->may_wait_long)
		applier->tick_when_waited = now + TOO_FAR_BEHIND_MAX;
	log_event(LEVEL_LOG, "the stream is at %s: refreshes go on when it has reached %s",
			  lsn_text(applier->intake->stream_lsn).text,
			  lsn_text(applier->tick_when_reached).text);
}

static void
clear_tick_marks(Applier *applier)
{
	for (size_t i = 0; i < applier->catalog->count; i++)
		applier->catalog->tables[i]->in_tick = false;
}

static bool
tick_is_over(Applier *applier, Micros now, Error *error)
{
	TickOutcome outcome = applier->tick.outcome;
	bool		handled = true;

	applier->tick.outcome = TICK_NO_OUTCOME;
	applier->schedule->is_dirty = true;
	if (applier->tick.spools)
		applier->spool_helps = outcome == TICK_COMMITTED;
	else
		schedule_requests_end(applier->schedule, applier->catalog, outcome == TICK_COMMITTED);
	if (outcome != TICK_TOO_FAR_BEHIND)
		applier->tick_when_waited = 0;
	switch (outcome)
	{
		case TICK_COMMITTED:
			tick_was_committed(applier, now);
			break;
		case TICK_NOTHING_VISIBLE:
			defer_those_waiting(applier, now);
			break;
		case TICK_STALE_CATALOG:
			wish_catalog(applier, now);
			break;
		case TICK_TOO_FAR_BEHIND:
			stream_is_far_behind(applier, now);
			break;
		default:
			if (applier->tick.spools)
				spooling_has_failed(applier, now);
			else
				handled = tick_has_failed(applier, now, error);
			break;
	}
	clear_tick_marks(applier);
	return handled;
}

/* ------------------------------------------------------------------------------------------------
 * Before a tick
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

	/* Much wakes the loop that makes nothing due, such as what others write. */
	if (!applier->schedule->is_dirty && now < applier->next_due && now < applier->spool_at &&
		!under_pressure)
		return true;
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
static bool
use_refresh_connection(Applier *applier, Micros now, Error *error)
{
	TickState before = applier->tick.state;

	if (!advance_catalog(applier, now, error) || !tick_advance(&applier->tick, error))
		return false;
	if (before != TICK_IDLE && applier->tick.state == TICK_IDLE &&
		!tick_is_over(applier, now, error))
		return false;
	if (applier->tick.state != TICK_IDLE || applier->catalog_is_loading || applier->stop_requested)
		return true;

	if (applier->intake->stream_lacks_relations)
		return error_set(error, FAIL_RETRY,
						 "stream tables read relations that the stream does not carry");

	/* Failures must be recorded before they are read back. */
	if (applier->intake->catalog_change_count > 0 && applier->catalog_reload_delay == 0)
		wish_catalog(applier, now);
	if (now >= applier->catalog_reload_at && applier->control.queue_length == 0)
		return load_catalog(applier, error);
	return consider_tick(applier, now, error);
}

/* ------------------------------------------------------------------------------------------------
 * Heartbeats and settling
 */

/* A heartbeat's snapshot settles things when the stream has reached its position. */
static void
settle_by_heartbeat(Applier *applier)
{
	if (applier->settle_snapshot == NULL ||
		applier->intake->stream_lsn < applier->settle_insert_lsn)
		return;
	intake_see_snapshot(applier->intake, applier->settle_snapshot);
	snapshot_release(applier->settle_snapshot);
	applier->settle_snapshot = NULL;
}

static void
take_heartbeat(Applier *applier, Micros now)
{
	Control *control = &applier->control;

	if (!control->heartbeat_is_done)
		return;
	control->heartbeat_is_done = false;
	ack_flushed(&applier->ack, control->heartbeat_ack_lsn);
	note_persisted(applier, control->heartbeat_ack_lsn, control->heartbeat_stream_lsn, now);

	/*
	 * An earlier one that still waits is not replaced, or a busy stream would never settle
	 * anything.
	 */
	if (applier->settle_snapshot != NULL)
		return;
	applier->settle_snapshot = snapshot_share(control->heartbeat_snapshot);
	applier->settle_insert_lsn = lsn_before_page_header(control->heartbeat_snapshot_insert_lsn,
														applier->tick.wal_segment_bytes);
}

/*
 * Only when the WAL has moved by more than heartbeats move it, and when there is something to
 * persist or to settle.
 */
static Micros
heartbeat_due(const Applier *applier)
{
	const Intake *intake = applier->intake;

	if (applier->control.heartbeat_is_running || applier->tick.state != TICK_IDLE ||
		!control_has_room(&applier->control))
		return MICROS_NEVER;
	if (intake->stream_lsn < applier->persisted_stream_lsn + HEARTBEAT_WAL_BYTES_MIN)
		return MICROS_NEVER;
	if (applier->settle->entry_count > UNSETTLED_MAX && applier->settle_snapshot == NULL)
		return 0;
	return applier->persisted_at + applier->options->heartbeat_interval;
}

static bool
consider_heartbeat(Applier *applier, Micros now, Error *error)
{
	if (heartbeat_due(applier) > now)
		return true;
	return control_send_heartbeat(&applier->control, plan_ack_lsn(NULL, applier->intake),
								  applier->intake->stream_lsn, error);
}

/* ------------------------------------------------------------------------------------------------
 * One turn
 */

static bool
run_epoch(Applier *applier, Micros now, Error *error)
{
	take_heartbeat(applier, now);
	settle_by_heartbeat(applier);
	if (!use_refresh_connection(applier, now, error))
		return false;
	(void) ack_stream_reached(&applier->ack, applier->intake->stream_lsn);
	return applier->stop_requested || consider_heartbeat(applier, now, error);
}

static bool
take_batch(void *intake, const void *data, size_t length, int64_t server_time, Error *error)
{
	return intake_batch(intake, data, length, server_time, error);
}

static void
take_keepalive(void *intake, Lsn wal_end, int64_t server_time)
{
	(void) server_time;
	intake_keepalive(intake, wal_end);
}

static bool
serve_sockets(Applier *applier, const struct pollfd *fds, Micros now, bool *more, Error *error)
{
	const StreamSink sink = {take_batch, take_keepalive, applier->intake};

	*more = false;
	if (!session_service(&applier->stream.session, fds[0].revents, now, error) ||
		!session_service(&applier->tick.session, fds[1].revents, now, error) ||
		!session_service(&applier->control.session, fds[2].revents, now, error))
		return false;
	if (applier->stream.state == STREAM_STREAMING &&
		!stream_receive(&applier->stream, &sink, now, more, error))
		return false;
	return true;
}

/*
 * Applied is what the commits of ticks have made visible, whatever of it has been persisted: by that the server knows how fresh the
 * stream tables are while nothing happens that would be worth persisting.
 */
static bool
feed_back(Applier *applier, Micros now, bool force, Error *error)
{
	Feedback feedback = {applier->intake->stream_lsn, applier->ack.acknowledged_lsn,
						 applier->ack.acknowledged_lsn};

	if (!force && stream_feedback_due(&applier->stream, feedback.flush_lsn) > now)
		return true;
	if (applier->epoch == EPOCH_RUNNING)
		feedback.apply_lsn =
			lsn_max(feedback.flush_lsn, plan_ack_lsn(NULL, applier->intake));
	return stream_feed_back(&applier->stream, &feedback, now, force, error);
}

static bool
take_turn(Applier *applier, Micros now, Error *error)
{
	if (applier->epoch == EPOCH_CLOSED)
		return now < applier->connect_at || open_epoch(applier, error);
	if (applier->epoch == EPOCH_ATTACHING)
	{
		if (!attach_advance(applier, now, error))
			return false;
		if (applier->step == ATTACH_DONE)
		{
			applier->epoch = EPOCH_RUNNING;
			applier->connect_failures = 0;
			applier->said_waiting = false;
			note_persisted(applier, applier->persisted_ack_lsn, applier->intake->stream_lsn, now);
		}
	}
	if (applier->epoch == EPOCH_RUNNING &&
		(!control_advance(&applier->control, error) || !run_epoch(applier, now, error)))
		return false;
	return feed_back(applier, now, false, error);
}

/*
 * SIGTERM: the running tick ends, progress is persisted and fed back.  True when there is nothing
 * left to do.
 */
static bool
may_leave(Applier *applier, Micros now, Error *error)
{
	if (applier->epoch != EPOCH_RUNNING)
		return true;
	if (applier->tick.state != TICK_IDLE || applier->catalog_is_loading ||
		applier->control.heartbeat_is_running)
		return false;
	if (!applier->last_heartbeat_sent)
	{
		applier->last_heartbeat_sent = true;
		if (plan_ack_lsn(NULL, applier->intake) > applier->persisted_ack_lsn)
			return !control_send_heartbeat(&applier->control, plan_ack_lsn(NULL, applier->intake),
										   applier->intake->stream_lsn, error);
	}
	if (feed_back(applier, now, true, error))
		stream_finish(&applier->stream);
	return true;
}

/* ------------------------------------------------------------------------------------------------
 * Waiting
 */

static Micros
earlier(Micros a, Micros b)
{
	return a < b ? a : b;
}

static Micros
next_deadline(const Applier *applier)
{
	Micros deadline = MICROS_NEVER;

	if (applier->epoch == EPOCH_CLOSED)
		return applier->connect_at;
	if (applier->epoch == EPOCH_ATTACHING)
	{
		deadline = applier->step_again_at;
		if (applier->tick.session.state == SESSION_CONNECTING)
			deadline = earlier(deadline, applier->tick.session.connect_deadline);
		if (applier->control.session.state == SESSION_CONNECTING)
			deadline = earlier(deadline, applier->control.session.connect_deadline);
		if (applier->stream.session.state == SESSION_CONNECTING)
			deadline = earlier(deadline, applier->stream.session.connect_deadline);
	}
	else if (applier->tick.state == TICK_FENCE)
		deadline = applier->tick.give_up_at;
	else if (applier->tick.state == TICK_IDLE && !applier->catalog_is_loading)
	{
		deadline = earlier(applier->next_due, heartbeat_due(applier));
		deadline = earlier(deadline, applier->spool_at);
		if (applier->control.queue_length == 0)
			deadline = earlier(deadline, applier->catalog_reload_at);
	}
	return earlier(deadline, stream_feedback_due(&applier->stream, applier->ack.acknowledged_lsn));
}

static void
fill_pollfd(struct pollfd *fd, const Session *session)
{
	fd->fd = session_socket(session);
	fd->events = session_events(session);
	fd->revents = 0;
}

/* Waits for a socket, a signal or the deadline. */
static void
wait_for_something(const Applier *applier, struct pollfd *fds, bool at_once,
				   const sigset_t *while_waiting)
{
	Micros			deadline = at_once ? 0 : next_deadline(applier);
	Micros			left = deadline == MICROS_NEVER ? 0 : deadline - clock_now();
	struct timespec timeout = {0, 0};

	if (left > 0)
	{
		timeout.tv_sec = left / MICROS_PER_SECOND;
		timeout.tv_nsec = (left % MICROS_PER_SECOND) * 1000;
	}
	fill_pollfd(&fds[0], &applier->stream.session);
	fill_pollfd(&fds[1], &applier->tick.session);
	fill_pollfd(&fds[2], &applier->control.session);
	if (ppoll(fds, 3, deadline == MICROS_NEVER ? NULL : &timeout, while_waiting) < 0)
	{
		for (int i = 0; i < 3; i++)
			fds[i].revents = 0;
	}
}

/* ------------------------------------------------------------------------------------------------
 * The loop
 */

/* A backend that works for nobody is stopped, not waited for. */
static void
cancel_tick(Applier *applier)
{
	char	  message[256];
	PGcancel *cancel;

	if (applier->tick.state == TICK_IDLE)
		return;
	cancel = PQgetCancel(applier->tick.session.conn);
	if (cancel != NULL)
		(void) PQcancel(cancel, message, sizeof(message));
	PQfreeCancel(cancel);
}

static bool
obey_signals(Applier *applier)
{
	if (got_sigint || got_sigterm > 1)
	{
		log_event(LEVEL_LOG, "leaving at once");
		cancel_tick(applier);
		return false;
	}
	if (got_sigterm && !applier->stop_requested)
	{
		log_event(LEVEL_LOG, "received SIGTERM: finishing");
		applier->stop_requested = true;
	}
	if (got_sighup)
	{
		got_sighup = 0;
		log_event(LEVEL_LOG, "received SIGHUP: reading the catalog again");
		wish_catalog(applier, 0);
	}
	return true;
}

int
applier_run(const Options *options)
{
	Applier		  applier = {.options = options, .epoch = EPOCH_CLOSED};
	struct pollfd fds[3] = {0};
	sigset_t	  while_waiting;
	bool		  more = false;
	bool		  failed = false;

	catch_signals(&while_waiting);
	srandom((unsigned int) clock_now() ^ (unsigned int) getpid());
	log_event(LEVEL_LOG, "pgtrickle %s started", PGTRICKLE_VERSION);
	while (obey_signals(&applier))
	{
		Error  error = {0};
		Micros now = clock_now();
		bool   is_well =
			serve_sockets(&applier, fds, now, &more, &error) && take_turn(&applier, now, &error);

		if (is_well && applier.stop_requested && may_leave(&applier, now, &error))
			break;
		if ((!is_well || error.kind != FAIL_NONE) && !survive(&applier, &error, now))
		{
			failed = !applier.stop_requested;
			break;
		}
		wait_for_something(&applier, fds, more, &while_waiting);
	}
	close_epoch(&applier);
	log_event(LEVEL_LOG, "pgtrickle stopped");
	return failed ? 1 : 0;
}
