/*
 * applier/outcome.c
 *     What a tick has come to: what is noted when it was committed, who is blamed when it failed, and when to try again.
 *
 * A failure is soft (it goes away by itself and says nothing about a stream table), or it has a culprit, which waits alone while the others go
 * on, or nobody knows: then each stream table goes alone until it has succeeded.
 */
#include "applier.h"

#include "server.h"

/* A failure with somebody to blame. */
#define REFRESH_DELAY_FIRST MICROS_PER_SECOND
#define REFRESH_DELAY_MAX (300 * MICROS_PER_SECOND)

/* Locks not got, deadlocks, serialization failures. */
#define SOFT_DELAY_FIRST (10 * INT64_C(1000))
#define SOFT_DELAY_MAX (5 * MICROS_PER_SECOND)

/* So often a relation may be missing before its stream table is blamed. */
#define MISSING_RETRIES_MAX 3

#define SPOOL_DELAY_AFTER_FAILURE (10 * MICROS_PER_SECOND)

/* A stream that stays far behind does not keep ticks from running for longer than this. */
#define TOO_FAR_BEHIND_MAX (30 * MICROS_PER_SECOND)

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
	applier_note_persisted(applier, tick->persisted_ack_lsn, tick->persisted_stream_lsn, now);
	applier->persisted_by_tick = true;
	remotes_committed(&applier->remotes, tick->commit_insert_lsn, duration, now);
	defer_those_waiting(applier, now);
	for (size_t i = 0; i < applier->catalog->count; i++)
	{
		const StreamTable *table = applier->catalog->tables[i];

		/* Its next time has to be asked for. */
		if (table->schedule == SCHEDULE_CRON && table->cron_at == MICROS_NEVER && table->is_active)
			applier_wish_catalog(applier, now);
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

		/* What a remote has sent concerns all its copies together: see remotes_tick_failed(). */
		if (!table->in_tick || stream_table_is_copy(table))
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
	error_context(&said, stream_table_is_copy(table) ? "could not write copy \"%s\""
													 : "could not refresh stream table \"%s\"",
				  table->name);
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
	applier_wish_catalog(applier, now);
}

static bool
tick_has_failed(Applier *applier, Micros now, Error *error)
{
	const Error *failure = &applier->tick.failure;
	StreamTable *culprit = catalog_find(applier->catalog, applier->tick.culprit);
	StreamTable *last_due = NULL;
	size_t		 due = count_due(applier->catalog, &last_due);
	bool		 soft;

	applier->tick_failures++;
	tick_forget_lock_lists(&applier->tick);
	/* Somebody else may have moved frontiers; after a failure nothing is taken for granted. */
	applier_wish_catalog(applier, now);

	soft = is_soft(failure, applier->tick_failures);
	remotes_tick_failed(&applier->remotes,
						soft ? applier->tick_failures > 3 || error_is(failure, "55P03")
							 : culprit == NULL,
						now);
	if (soft)
	{
		log_event(LEVEL_DEBUG, "tick will be tried again: %s", failure->message);
		if (applier->tick.failed_at_lock || applier->tick_failures > 3)
			send_each_alone(applier->catalog, now);
		applier->tick_at =
			now + retry_delay(applier->tick_failures, SOFT_DELAY_FIRST, SOFT_DELAY_MAX / 10);
		return true;
	}
	if (culprit == NULL && due == 1 && !applier->tick.failed_at_lock &&
		!stream_table_is_copy(last_due))
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

bool
applier_end_tick(Applier *applier, Micros now, Error *error)
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
			applier_wish_catalog(applier, now);
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
