/*
 * applier/tick.c
 *     One tick on the refresh connection.
 *
 * Three round trips at most: BEGIN with LOCK TABLE and the snapshot; the fence, on another
 * connection; all the rest. LOCK TABLE is the first statement of the transaction, because TRUNCATE
 * and rewriting ALTER TABLE are not MVCC-safe: a snapshot taken before the lock could read a table
 * that was emptied in between.
 */
#include "tick.h"

#include <assert.h>
#include <stdio.h>
#include <unistd.h>

#include "memory.h"
#include "sql_text.h"
#include "stop_point.h"

void
tick_init(Tick *tick, Control *control, Intake *intake, Remotes *remotes)
{
	tick->control = control;
	tick->intake = intake;
	tick->remotes = remotes;
	snprintf(tick->fence_prefix, sizeof(tick->fence_prefix), "%d-%08lx", (int) getpid(),
			 (unsigned long) clock_now() & 0xffffffff);
}

static void
finish(Tick *tick, TickOutcome outcome)
{
	tick->state = TICK_IDLE;
	tick->outcome = outcome;
	stage_reader_free(&tick->stage);
	plan_free(tick->plan);
	tick->plan = NULL;
	snapshot_release(tick->snapshot);
	tick->snapshot = NULL;
	free(tick->pgt_ids);
	tick->pgt_ids = NULL;
}

void
tick_forget_lock_lists(Tick *tick)
{
	for (size_t i = 0; i < tick->lock_list_count; i++)
	{
		free(tick->lock_lists[i].pgt_ids);
		free(tick->lock_lists[i].tables);
	}
	tick->lock_list_count = 0;
}

void
tick_reset(Tick *tick)
{
	session_close(&tick->session);
	tick_forget_lock_lists(tick);
	if (tick->intake != NULL)
		finish(tick, TICK_NO_OUTCOME);
	tick->state = TICK_IDLE;
}

bool
tick_prepare_statements(Tick *tick, Error *error)
{
	static const char *const statements[][2] = {{"tick_begin", sql_tick_begin},
												{"tick_plan", sql_tick_plan},
												{"tick_stage", sql_tick_stage},
												{"tick_execute", sql_tick_execute},
												{"insert_lsn", sql_insert_lsn}};

	for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]); i++)
	{
		if (!session_prepare(&tick->session, statements[i][0], statements[i][1], error))
			return false;
	}
	return session_sync(&tick->session, error);
}

/* ------------------------------------------------------------------------------------------------
 * Giving up
 */

static bool
roll_back(Tick *tick, TickOutcome outcome, Error *error)
{
	tick->state = TICK_ROLLBACK;
	tick->outcome = outcome;
	tick->culprit = 0;
	if (!session_query(&tick->session, "ROLLBACK", 0, NULL, error))
		return false;
	/* Before the plan was sent, the answer would be that of an earlier tick. */
	if (outcome == TICK_FAILED && tick->plan != NULL &&
		!session_query(&tick->session, sql_tick_failed_id, 0, NULL, error))
		return false;
	return session_sync(&tick->session, error);
}

/* What follows a failed statement until the sync is of no interest. */
static void
note_failure(Tick *tick, const PGresult *result)
{
	if (tick->outcome == TICK_FAILED || PQresultStatus(result) != PGRES_FATAL_ERROR)
		return;
	error_from_result(&tick->failure, FAIL_RETRY, result, NULL);
	tick->outcome = TICK_FAILED;
	tick->failed_at_lock = tick->snapshot == NULL;
}

static bool
take_rollback_result(Tick *tick, const PGresult *result, Error *error)
{
	switch (PQresultStatus(result))
	{
		case PGRES_PIPELINE_SYNC:
			finish(tick, tick->outcome);
			return true;
		case PGRES_TUPLES_OK:
			tick->culprit = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
			return true;
		case PGRES_COMMAND_OK:
			return true;
		default:
			return error_from_result(error, FAIL_RETRY, result, "could not roll back");
	}
}

/* ------------------------------------------------------------------------------------------------
 * Snapshot
 */

static const char *
find_lock_list(const Tick *tick)
{
	for (size_t i = 0; i < tick->lock_list_count; i++)
	{
		if (strcmp(tick->lock_lists[i].pgt_ids, tick->pgt_ids) == 0)
			return tick->lock_lists[i].tables;
	}
	return NULL;
}

static void
remember_lock_list(Tick *tick, const char *tables)
{
	LockList *list;

	if (tick->lock_list_count == LOCK_LISTS_MAX)
		tick_forget_lock_lists(tick);
	list = &tick->lock_lists[tick->lock_list_count++];
	list->pgt_ids = memory_copy_text(tick->pgt_ids);
	list->tables = memory_copy_text(tables);
}

static bool
send_begin(Tick *tick, const char *tables, Error *error)
{
	Text lock = {0};
	bool sent =
		session_query(&tick->session, "BEGIN ISOLATION LEVEL REPEATABLE READ", 0, NULL, error);

	if (sent && tables[0] != '\0')
	{
		text_append_format(&lock, "LOCK TABLE %s IN ACCESS SHARE MODE", tables);
		sent = session_query(&tick->session, lock.data, 0, NULL, error);
		text_free(&lock);
	}
	tick->state = TICK_BEGIN;
	return sent && session_execute(&tick->session, "tick_begin", 0, NULL, NULL, NULL, error) &&
		   session_sync(&tick->session, error);
}

static char *
chosen_ids(const Catalog *catalog)
{
	Text ids = {0};

	text_append_char(&ids, '{');
	for (size_t i = 0; i < catalog->count; i++)
	{
		if (catalog->tables[i]->in_tick)
			text_append_format(&ids, "%s%lld", ids.length > 1 ? "," : "",
							   (long long) catalog->tables[i]->pgt_id);
	}
	text_append_char(&ids, '}');
	return ids.data;
}

static void
reset(Tick *tick, bool spools, bool may_wait_long, Micros now)
{
	assert(tick->state == TICK_IDLE && session_is_idle(&tick->session));
	tick->number++;
	tick->started_at = now;
	tick->spools = spools;
	tick->may_wait_long = may_wait_long;
	tick->outcome = TICK_NO_OUTCOME;
	tick->failed_at_lock = false;
	tick->all_is_sent = tick->commit_is_sent = tick->is_committed = false;
	tick->own_xid = XID_NONE;
}

/* Nothing is read from the sources, so nothing has to be locked. */
bool
tick_start_spool(Tick *tick, bool may_wait_long, Micros now, Error *error)
{
	reset(tick, true, may_wait_long, now);
	return send_begin(tick, "", error);
}

bool
tick_start(Tick *tick, bool may_wait_long, Micros now, Error *error)
{
	const Catalog *catalog = tick->intake->catalog;
	const char	  *tables;

	reset(tick, false, may_wait_long, now);
	for (size_t i = 0; i < catalog->count; i++)
	{
		if (catalog->tables[i]->in_tick)
			catalog->tables[i]->run.has_news = false;
	}
	schedule_requests_begin(tick->intake->schedule, catalog);

	tick->pgt_ids = chosen_ids(catalog);
	tables = find_lock_list(tick);
	if (tables != NULL)
		return send_begin(tick, tables, error);

	const char *values[1] = {tick->pgt_ids};

	tick->state = TICK_LOCK_LIST;
	return session_query(&tick->session, sql_tick_lock_list, 1, values, error) &&
		   session_sync(&tick->session, error);
}

static bool
take_lock_list_result(Tick *tick, const PGresult *result, Error *error)
{
	switch (PQresultStatus(result))
	{
		case PGRES_TUPLES_OK:
			remember_lock_list(tick, PQgetvalue(result, 0, 0));
			return true;
		case PGRES_PIPELINE_SYNC:
			return send_begin(tick, find_lock_list(tick), error);
		default:
			return error_from_result(error, FAIL_RETRY, result, "could not find out what to lock");
	}
}

static bool
send_fence(Tick *tick, Error *error)
{
	char nonce[64];

	stop_point_pass("before_fence");
	snprintf(nonce, sizeof(nonce), "%s-%llu", tick->fence_prefix,
			 (unsigned long long) tick->number);
	return control_send_fence(tick->control, nonce, error);
}

/* Snapshot and insert position are known: is it worth going on, and how far has the stream come? */
static bool
consider_snapshot(Tick *tick, Error *error)
{
	const Intake *intake = tick->intake;

	remotes_mark_prefixes(tick->remotes, true, clock_now());
	if (!plan_is_worth_it(intake->schedule, intake->catalog, tick->snapshot))
		return roll_back(tick, TICK_NOTHING_VISIBLE, error);
	if (intake->stream_lsn + TICK_DISTANCE_MAX < tick->insert_lsn && !tick->may_wait_long)
		return roll_back(tick, TICK_TOO_FAR_BEHIND, error);

	/*
	 * A transaction that the snapshot sees had written its commit record before the insert position
	 * was read, so once the stream has passed that position all of them have been received.
	 */
	tick->state = TICK_FENCE;
	tick->give_up_at =
		tick->snapshot_at + (tick->may_wait_long ? FENCE_WAIT_LONG_MAX : FENCE_WAIT_MAX);
	return intake->stream_lsn >= tick->insert_lsn || send_fence(tick, error);
}

static bool
take_begin_result(Tick *tick, const PGresult *result, Error *error)
{
	switch (PQresultStatus(result))
	{
		case PGRES_COMMAND_OK: /* BEGIN, LOCK TABLE */
			return true;
		case PGRES_TUPLES_OK:
			if (!snapshot_parse(PQgetvalue(result, 0, 0), &tick->snapshot, error))
				return false;
			tick->snapshot_at = clock_now();
			if (!lsn_parse(PQgetvalue(result, 0, 1), &tick->insert_lsn))
				return error_set(error, FAIL_FATAL, "unexpected insert position \"%s\"",
								 PQgetvalue(result, 0, 1));
			tick->insert_lsn = lsn_before_page_header(tick->insert_lsn, tick->wal_segment_bytes);
			return true;
		case PGRES_PIPELINE_SYNC:
			return tick->outcome == TICK_FAILED ? roll_back(tick, TICK_FAILED, error)
												: consider_snapshot(tick, error);
		default:
			note_failure(tick, result);
			return true;
	}
}

/* ------------------------------------------------------------------------------------------------
 * Plan, stage, execute
 */

static bool
send_plan(Tick *tick, Error *error)
{
	const Plan *plan = tick->plan;
	Text		ids = {0};
	Text		sets = {0};
	Text		actions = {0};
	bool		sent;

	for (size_t i = 0; i < plan->table_count; i++)
	{
		const char *separator = i == 0 ? "{" : ",";

		text_append_format(&ids, "%s%lld", separator, (long long) plan->tables[i].table->pgt_id);
		text_append_format(&sets, "%s%d", separator, plan->tables[i].set);
		text_append(&actions, separator);
		text_append_array_element(&actions, plan->tables[i].action);
	}
	text_append_char(&ids, '}');
	text_append_char(&sets, '}');
	text_append_char(&actions, '}');

	const char *values[3] = {ids.data, sets.data, actions.data};

	sent = session_execute(&tick->session, "tick_plan", 3, values, NULL, NULL, error);
	text_free(&ids);
	text_free(&sets);
	text_free(&actions);
	return sent;
}

/* From where to where each remote's change set goes. */
static bool
send_remote(Tick *tick, const ChangeSet *set, Error *error)
{
	const Remote *remote = set->remote;
	char		  number[16];
	char		  id[16];
	char		  moment[24];
	LsnText		  expected = lsn_text(remote->position);
	LsnText		  position = lsn_text(remote->prefix.position);
	const char	 *values[5] = {number, id, expected.text, position.text, moment};

	snprintf(number, sizeof(number), "%d", set->number);
	snprintf(id, sizeof(id), "%d", remote->remote_id);
	snprintf(moment, sizeof(moment), "%lld", (long long) remote->prefix.position_time);
	return session_query(&tick->session, sql_tick_remote, 5, values, error);
}

static bool
send_remotes(Tick *tick, Error *error)
{
	for (size_t i = 0; i < tick->plan->set_count; i++)
	{
		if (tick->plan->sets[i].remote != NULL && !send_remote(tick, &tick->plan->sets[i], error))
			return false;
	}
	return true;
}

static bool
send_part(Tick *tick, int set, const uint8_t *data, size_t length, Error *error)
{
	char		set_text[16];
	const char *values[2] = {set_text, (const char *) data};
	const int	lengths[2] = {0, (int) length};
	const int	formats[2] = {0, 1};

	snprintf(set_text, sizeof(set_text), "%d", set);
	return session_execute(&tick->session, "tick_stage", 2, values, lengths, formats, error);
}

static bool
send_commit(Tick *tick, Error *error)
{
	stop_point_pass("before_commit");
	tick->commit_is_sent = true;
	return session_query(&tick->session, "COMMIT", 0, NULL, error) &&
		   session_execute(&tick->session, "insert_lsn", 0, NULL, NULL, NULL, error) &&
		   session_sync(&tick->session, error);
}

static bool
send_execute(Tick *tick, Error *error)
{
	LsnText		ack_text = lsn_text(tick->plan->ack_lsn);
	LsnText		stream_text = lsn_text(tick->plan->stream_lsn);
	const char *values[2] = {ack_text.text, stream_text.text};

	stop_point_pass("before_execute");
	tick->all_is_sent = true;
	tick->state = TICK_EXECUTE;
	if (!session_execute(&tick->session, "tick_execute", 2, values, NULL, NULL, error))
		return false;

	/* To be killed between the two, the answer to the first must have come. */
	return stop_point_is_armed("before_commit") ? session_sync(&tick->session, error)
												: send_commit(tick, error);
}

/* One part after the other, each when libpq has got rid of the one before: memory stays bounded. */
static bool
send_parts(Tick *tick, Error *error)
{
	while (tick->state == TICK_STAGE)
	{
		const uint8_t *data;
		size_t		   length;
		int			   set;

		if (PQflush(tick->session.conn) > 0)
		{
			tick->session.has_unsent = true;
			return true;
		}
		if (!stage_reader_next(&tick->stage, &set, &data, &length, error))
			return false;
		if (length == 0)
			return send_execute(tick, error);
		if (!send_part(tick, set, data, length, error))
			return false;
	}
	return true;
}

/*
 * The stream has passed the insert position.  From here on the snapshot counts as seen, whether the
 * tick succeeds or not.
 */
static bool
make_plan(Tick *tick, Error *error)
{
	Intake *intake = tick->intake;

	stop_point_pass("after_fence");
	tick->fence_at = clock_now();

	/*
	 * Definitions, sources and frontiers are those of the loaded catalog.  If the snapshot sees a
	 * later one, the server would run programs that we have not staged for.
	 */
	if (!intake_catalog_is_current(intake, tick->snapshot))
		return roll_back(tick, TICK_STALE_CATALOG, error);
	intake_see_snapshot(intake, tick->snapshot);
	/* What has arrived from the remotes since then may come along. */
	remotes_mark_prefixes(tick->remotes, true, clock_now());
	tick->plan = plan_create(intake, tick->snapshot, tick->number, clock_now());
	if (tick->plan->table_count == 0)
		return roll_back(tick, TICK_NOTHING_VISIBLE, error);
	remotes_add_sets(tick->remotes, tick->plan);
	stage_reader_init(&tick->stage, tick->plan);
	tick->state = TICK_STAGE;
	return send_remotes(tick, error) && send_plan(tick, error) && send_parts(tick, error);
}

static bool
take_execute_row(Tick *tick, const PGresult *result, int row)
{
	int64_t		 pgt_id = strtoll(PQgetvalue(result, row, 0), NULL, 10);
	StreamTable *table;

	if (pgt_id == 0)
	{
		tick->own_xid = strtoull(PQgetvalue(result, row, 5), NULL, 10);
		return true;
	}
	table = catalog_find(tick->intake->catalog, pgt_id);
	if (table != NULL && !tick->spools)
		table->run.refresh_cost = (Micros) (strtod(PQgetvalue(result, row, 4), NULL) * 1000);
	if (log_is_wanted(LEVEL_DEBUG))
	{
		log_event(LEVEL_DEBUG, "refreshed stream table \"%s\": %s, +%s -%s rows in %s ms%s%s",
				  table != NULL ? table->name : "", PQgetvalue(result, row, 1),
				  PQgetvalue(result, row, 2), PQgetvalue(result, row, 3),
				  PQgetvalue(result, row, 4), PQgetisnull(result, row, 5) ? "" : ", ",
				  PQgetvalue(result, row, 5));
	}
	return true;
}

/* Times in milliseconds: until the snapshot, the fence, the commit; and since the oldest change. */
static void
log_committed(const Tick *tick)
{
	const Plan *plan = tick->plan;
	Micros		now = clock_now();
	Micros		oldest = now;
	size_t		transactions = 0;

	for (size_t i = 0; i < plan->set_count; i++)
	{
		const ChangeSet *set = &plan->sets[i];

		transactions += set->transaction_count;
		if (set->transaction_count > 0 && set->transactions[0]->committed_at < oldest)
			oldest = set->transactions[0]->committed_at;
	}
	log_event(LEVEL_DEBUG,
			  "tick %llu: %zu stream tables, %zu transactions; snapshot %.2f, fence %.2f, commit "
			  "%.2f, oldest change %.2f ms",
			  (unsigned long long) tick->number, plan->table_count, transactions,
			  (double) (tick->snapshot_at - tick->started_at) / 1000,
			  (double) (tick->fence_at - tick->snapshot_at) / 1000,
			  (double) (now - tick->fence_at) / 1000, (double) (now - oldest) / 1000);
}

static bool
finish_committed(Tick *tick, Error *error)
{
	stop_point_pass("after_commit");
	if (tick->own_xid == XID_NONE)
		return error_set(error, FAIL_FATAL, "tick_execute() did not tell its transaction id");
	if (log_is_wanted(LEVEL_DEBUG))
		log_committed(tick);
	plan_committed(tick->plan, tick->intake, tick->own_xid);
	for (size_t i = 0; !tick->spools && i < tick->plan->table_count; i++)
		stream_table_was_refreshed(tick->plan->tables[i].table, tick->started_at);
	tick->persisted_ack_lsn = tick->plan->ack_lsn;
	tick->persisted_stream_lsn = tick->plan->stream_lsn;
	finish(tick, TICK_COMMITTED);
	return true;
}

static bool
take_execute_sync(Tick *tick, Error *error)
{
	if (tick->outcome == TICK_FAILED)
		return roll_back(tick, TICK_FAILED, error);
	if (!tick->commit_is_sent)
		return send_commit(tick, error);
	if (!tick->is_committed)
		return error_set(error, FAIL_RETRY, "the server did not commit a tick");
	return finish_committed(tick, error);
}

static bool
take_execute_result(Tick *tick, const PGresult *result, Error *error)
{
	switch (PQresultStatus(result))
	{
		case PGRES_COMMAND_OK:
			tick->is_committed = strcmp(PQcmdStatus((PGresult *) result), "COMMIT") == 0;
			return true;
		case PGRES_TUPLES_OK:
			/* tick_plan and tick_stage return one void; only the commit's neighbour one LSN. */
			if (PQnfields(result) == 1 && tick->is_committed)
			{
				if (!lsn_parse(PQgetvalue(result, 0, 0), &tick->commit_insert_lsn))
					return error_set(error, FAIL_FATAL, "unexpected insert position \"%s\"",
									 PQgetvalue(result, 0, 0));
				tick->commit_insert_lsn =
					lsn_before_page_header(tick->commit_insert_lsn, tick->wal_segment_bytes);
			}
			for (int row = 0; PQnfields(result) == 6 && row < PQntuples(result); row++)
				take_execute_row(tick, result, row);
			return true;
		case PGRES_PIPELINE_SYNC:
			return take_execute_sync(tick, error);
		default:
			note_failure(tick, result);
			return true;
	}
}

/* ------------------------------------------------------------------------------------------------
 * The machine
 */

static bool
take_result(Tick *tick, const PGresult *result, Error *error)
{
	switch (tick->state)
	{
		case TICK_LOCK_LIST:
			return take_lock_list_result(tick, result, error);
		case TICK_BEGIN:
			return take_begin_result(tick, result, error);
		case TICK_STAGE:
		case TICK_EXECUTE:
			return take_execute_result(tick, result, error);
		case TICK_ROLLBACK:
			return take_rollback_result(tick, result, error);
		default:
			return error_from_result(error, FAIL_RETRY, result,
									 "unexpected answer on the refresh connection");
	}
}

/*
 * A part was refused while others are still to be sent: end the group, so that the server reads on
 * from there.
 */
static bool
stop_sending(Tick *tick, Error *error)
{
	tick->all_is_sent = true;
	tick->state = TICK_EXECUTE;
	return session_sync(&tick->session, error);
}

bool
tick_advance(Tick *tick, Error *error)
{
	PGresult *result;

	if (tick->state == TICK_IDLE)
		return true;
	while (tick->state != TICK_IDLE && (result = session_next_result(&tick->session)) != NULL)
	{
		bool taken = take_result(tick, result, error);

		PQclear(result);
		if (!taken)
			return false;
	}
	if (tick->state == TICK_FENCE && tick->intake->stream_lsn >= tick->insert_lsn)
		return make_plan(tick, error);
	if (tick->state == TICK_FENCE && clock_now() >= tick->give_up_at)
		return roll_back(tick, TICK_TOO_FAR_BEHIND, error);
	if (tick->state == TICK_STAGE)
		return tick->outcome == TICK_FAILED ? stop_sending(tick, error) : send_parts(tick, error);
	return true;
}
