/*
 * applier/attach.c
 *     From nothing to a running stream: who we are, who else is there, and whether anything was
 *     missed.
 *
 * The order matters.  The refresh session's lock comes first: after it no tick of a predecessor can
 * commit any more.  What was persisted is compared with the slot's position only after the slot is
 * ours, because until then another applier may move both.  And the catalog is read again after
 * streaming has begun, because the interest list had to be given before.
 */
#include "applier.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "memory.h"
#include "server.h"
#include "sql_text.h"

#define WAIT_FOR_OTHER MICROS_PER_SECOND

bool
attach_start(Applier *applier, Error *error)
{
	applier->epoch = EPOCH_ATTACHING;
	applier->step = ATTACH_CONNECT;
	applier->step_is_sent = false;
	applier->step_again_at = MICROS_NEVER;
	applier->gap_reason[0] = '\0';
	applier->settings_done[0] = applier->settings_done[1] = false;
	return session_connect(&applier->control.session, "fence", applier->options->dbname, false,
						   error) &&
		   session_connect(&applier->tick.session, "refresh", applier->options->dbname, false,
						   error);
}

static void
go_to(Applier *applier, AttachStep step)
{
	applier->step = step;
	applier->step_is_sent = false;
	applier->step_again_at = MICROS_NEVER;
}

static void
try_again_later(Applier *applier, Micros now)
{
	applier->step_is_sent = false;
	applier->step_again_at = now + retry_delay(1, WAIT_FOR_OTHER, WAIT_FOR_OTHER);
}

/* Said once, until we have got in. */
static void
say_waiting(Applier *applier, int pid)
{
	if (applier->said_waiting)
		return;
	applier->said_waiting = true;
	if (pid > 0)
		log_event(LEVEL_LOG, "waiting: replication slot \"%s\" is active for process %d",
				  applier->slot, pid);
	else
		log_event(LEVEL_LOG, "waiting: another applier is at work in this database");
}

/* ------------------------------------------------------------------------------------------------
 * What the server says
 */

static void
copy_field(char *target, size_t size, const PGresult *result, int column)
{
	snprintf(target, size, "%s", PQgetvalue(result, 0, column));
}

static bool
take_server_state(Applier *applier, const PGresult *result, Error *error)
{
	ServerState *server = &applier->server;

	if (PQntuples(result) != 1 || PQnfields(result) != 15)
		return error_set(error, FAIL_FATAL, "unexpected shape of the server's state");
	memset(server, 0, sizeof(*server));
	server->is_in_recovery = PQgetvalue(result, 0, 0)[0] == 't';
	copy_field(server->system_identifier, sizeof(server->system_identifier), result, 1);
	server->timeline = atoi(PQgetvalue(result, 0, 2));
	server->wal_segment_bytes = strtoull(PQgetvalue(result, 0, 3), NULL, 10);
	copy_field(server->persisted_system_identifier, sizeof(server->persisted_system_identifier),
			   result, 4);
	server->persisted_timeline = atoi(PQgetvalue(result, 0, 5));
	copy_field(server->persisted_slot, sizeof(server->persisted_slot), result, 6);
	(void) lsn_parse(PQgetvalue(result, 0, 7), &server->persisted_ack_lsn);
	server->valid_xid = strtoull(PQgetvalue(result, 0, 8), NULL, 10);
	server->slot_exists = PQgetvalue(result, 0, 9)[0] == 't';
	server->slot_is_ours = PQgetvalue(result, 0, 10)[0] == 't';
	server->slot_is_active = PQgetvalue(result, 0, 11)[0] == 't';
	server->slot_active_pid = atoi(PQgetvalue(result, 0, 12));
	server->slot_is_lost = strcmp(PQgetvalue(result, 0, 13), "lost") == 0;
	(void) lsn_parse(PQgetvalue(result, 0, 14), &server->confirmed_flush_lsn);
	if (server->wal_segment_bytes == 0)
		return error_set(error, FAIL_FATAL, "could not find out the size of WAL segments");
	return true;
}

/*
 * Does the stream continue where the frontiers are?  If not, changes are missing and every stream
 * table is filled again, once: applier_started() and the persisting after it make the present
 * position the one to compare with the next time.
 */
static void
find_gap(Applier *applier)
{
	const ServerState *server = &applier->server;
	char			  *reason = applier->gap_reason;
	size_t			   size = sizeof(applier->gap_reason);

	if (reason[0] != '\0') /* the slot had to be made */
		return;
	if (server->persisted_system_identifier[0] == '\0')
		snprintf(reason, size, "first start of the applier");
	else if (strcmp(server->persisted_system_identifier, server->system_identifier) != 0)
		snprintf(reason, size, "the system identifier was %s and is %s",
				 server->persisted_system_identifier, server->system_identifier);
	else if (server->persisted_timeline != server->timeline)
		snprintf(reason, size, "the timeline was %d and is %d", server->persisted_timeline,
				 server->timeline);
	else if (strcmp(server->persisted_slot, applier->slot) != 0)
		snprintf(reason, size, "the replication slot was \"%s\" and is \"%s\"",
				 server->persisted_slot, applier->slot);
	else if (server->persisted_ack_lsn == LSN_NONE)
		snprintf(reason, size, "no position of replication slot \"%s\" was persisted",
				 applier->slot);
	else if (server->confirmed_flush_lsn > server->persisted_ack_lsn)
		snprintf(reason, size, "replication slot \"%s\" stands at %s and not before %s",
				 applier->slot, lsn_text(server->confirmed_flush_lsn).text,
				 lsn_text(server->persisted_ack_lsn).text);
}

static bool
consider_server(Applier *applier, Micros now, Error *error)
{
	const ServerState *server = &applier->server;

	if (server->is_in_recovery)
	{
		error_set(error, FAIL_RETRY, "the server is a standby");
		error_hint(error,
				   "Connect to the primary; with several hosts in the connection string, add "
				   "target_session_attrs=read-write.");
		return false;
	}
	if (server->slot_exists && !server->slot_is_ours)
	{
		error_set(error, FAIL_FATAL,
				  "replication slot \"%s\" has another plugin or belongs to another database",
				  applier->slot);
		error_hint(error, "Name another one with --slot.");
		return false;
	}
	if (server->slot_exists && server->slot_is_lost)
		go_to(applier, ATTACH_DROP_SLOT);
	else if (!server->slot_exists)
		go_to(applier, ATTACH_CREATE_SLOT);
	else if (server->slot_is_active)
	{
		say_waiting(applier, server->slot_active_pid);
		try_again_later(applier, now);
	}
	else
		go_to(applier, ATTACH_CATALOG);
	return true;
}

/* ------------------------------------------------------------------------------------------------
 * Asking
 */

static Session *
session_of_step(Applier *applier)
{
	switch (applier->step)
	{
		case ATTACH_LOCK:
		case ATTACH_CATALOG:
		case ATTACH_CATALOG_AGAIN:
			return &applier->tick.session;
		default:
			return &applier->control.session;
	}
}

static bool
send_settings(Applier *applier, Error *error)
{
	char		lock_timeout[24];
	const char *values[1] = {lock_timeout};

	snprintf(lock_timeout, sizeof(lock_timeout), "%dms", applier->options->lock_timeout_ms);
	return session_query(&applier->tick.session, sql_refresh_session, 1, values, error) &&
		   tick_prepare_statements(&applier->tick, error) &&
		   session_query(&applier->control.session, sql_fence_session, 0, NULL, error) &&
		   session_sync(&applier->control.session, error);
}

/* The relations that the catalog wants, as the plugin's option; the caller frees the text. */
static char *
interest_option(const Applier *applier, Oid **relids, size_t *count)
{
	Text option = {0};

	*relids = catalog_interest(applier->catalog, count);
	text_append(&option, "\"proto_version\" '1', \"interest\" '");
	for (size_t i = 0; i < *count; i++)
		text_append_format(&option, "%s%u", i > 0 ? "," : "", (*relids)[i]);
	text_append(&option, "'");
	return option.data;
}

static bool
start_stream(Applier *applier, Error *error)
{
	size_t count;
	Oid	  *relids;
	char  *options = interest_option(applier, &relids, &count);
	bool   started;

	intake_note_carried(applier->intake, relids, count);
	free(relids);
	started = stream_connect(&applier->stream, applier->options->dbname, applier->slot, LSN_NONE,
							 options, error);
	free(options);
	return started;
}

static bool
send_step(Applier *applier, Error *error)
{
	const char *slot = applier->slot;
	const char *started[2] = {slot, applier->gap_reason[0] != '\0' ? applier->gap_reason : NULL};
	LsnText		position = lsn_text(applier->server.confirmed_flush_lsn);
	const char *positions[2] = {position.text, position.text};
	Session	   *session = session_of_step(applier);
	bool		sent;

	switch (applier->step)
	{
		case ATTACH_SETTINGS:
			return send_settings(applier, error);
		case ATTACH_STREAM:
			return start_stream(applier, error);
		case ATTACH_LOCK:
			sent = session_query(session, sql_applier_lock, 0, NULL, error);
			break;
		case ATTACH_LOOK:
		case ATTACH_LOOK_AGAIN:
		case ATTACH_LOOK_LAST:
			sent = session_query(session, sql_server_state, 1, &slot, error);
			break;
		case ATTACH_DROP_SLOT:
			sent = session_query(session, sql_drop_slot, 1, &slot, error);
			break;
		case ATTACH_CREATE_SLOT:
			log_event(LEVEL_LOG, "creating replication slot \"%s\"", slot);
			sent = session_query(session, sql_create_slot, 1, &slot, error);
			break;
		case ATTACH_CATALOG:
		case ATTACH_CATALOG_AGAIN:
			sent = session_query(session, sql_catalog, 0, NULL, error);
			break;
		case ATTACH_STARTED:
			sent = session_query(session, sql_applier_started, 2, started, error);
			break;
		case ATTACH_PERSIST:
			sent = session_query(session, sql_heartbeat, 2, positions, error);
			break;
		default:
			return true;
	}
	return sent && session_sync(session, error);
}

/* ------------------------------------------------------------------------------------------------
 * Answers
 */

/* The slot is ours and the stream runs. */
static void
start_from(Applier *applier, Lsn confirmed_flush_lsn)
{
	applier->ack.acknowledged_lsn = confirmed_flush_lsn;
	applier->stream.fed_back_flush_lsn = confirmed_flush_lsn;
	applier->persisted_ack_lsn = confirmed_flush_lsn;

	/* What commits before the slot's position is not sent: it counts as received. */
	intake_keepalive(applier->intake, confirmed_flush_lsn);
}

/*
 * Did stream tables appear between reading the catalog and streaming?  Then their sources are not
 * sent.
 */
static bool
check_interest(Applier *applier, Error *error)
{
	size_t count;
	Oid	  *relids;
	char  *options = interest_option(applier, &relids, &count);
	bool   same = strcmp(options, applier->stream.plugin_options) == 0;

	free(options);
	free(relids);
	return same ||
		   error_set(error, FAIL_RETRY, "stream tables changed while the stream was started");
}

static void
say_started(const Applier *applier)
{
	log_event(LEVEL_LOG,
			  "streaming from replication slot \"%s\" at %s on timeline %d, %zu stream tables",
			  applier->slot, lsn_text(applier->server.confirmed_flush_lsn).text,
			  applier->server.timeline, applier->catalog->count);
	if (applier->gap_reason[0] != '\0')
		log_event(LEVEL_WARNING, "all stream tables will be filled again: %s", applier->gap_reason);
}

/* The answer to the step is complete; where do we go from here? */
static bool
step_is_answered(Applier *applier, Micros now, Error *error)
{
	switch (applier->step)
	{
		case ATTACH_LOCK:
			if (applier->lock_is_ours)
				go_to(applier, ATTACH_LOOK);
			else
			{
				say_waiting(applier, 0);
				try_again_later(applier, now);
			}
			return true;
		case ATTACH_LOOK:
			return consider_server(applier, now, error);
		case ATTACH_DROP_SLOT:
			snprintf(applier->gap_reason, sizeof(applier->gap_reason),
					 "replication slot \"%s\" had been invalidated", applier->slot);
			go_to(applier, ATTACH_CREATE_SLOT);
			return true;
		case ATTACH_CREATE_SLOT:
			if (applier->gap_reason[0] == '\0')
				snprintf(applier->gap_reason, sizeof(applier->gap_reason),
						 "replication slot \"%s\" did not exist", applier->slot);
			go_to(applier, ATTACH_LOOK);
			return true;
		case ATTACH_CATALOG:
			go_to(applier, ATTACH_STREAM);
			return true;
		case ATTACH_LOOK_AGAIN:
			find_gap(applier);
			start_from(applier, applier->server.confirmed_flush_lsn);
			go_to(applier, ATTACH_STARTED);
			return true;
		case ATTACH_STARTED:
			go_to(applier, applier->gap_reason[0] != '\0' ? ATTACH_PERSIST : ATTACH_LOOK_LAST);
			return true;
		case ATTACH_PERSIST:
			go_to(applier, ATTACH_LOOK_LAST);
			return true;
		case ATTACH_LOOK_LAST:
			applier->schedule->valid_xid = applier->server.valid_xid;
			applier->tick.wal_segment_bytes = applier->server.wal_segment_bytes;
			go_to(applier, ATTACH_CATALOG_AGAIN);
			return true;
		case ATTACH_CATALOG_AGAIN:
			say_started(applier);
			go_to(applier, ATTACH_DONE);
			return check_interest(applier, error);
		default:
			return true;
	}
}

/* Missing functions and missing rights do not go away by waiting. */
static bool
step_failed(const Applier *applier, const PGresult *result, Error *error)
{
	static const char *const hopeless[] = {"42883", "3F000", "42501", "42P01"};

	error_from_result(error, FAIL_RETRY, result, NULL);
	for (size_t i = 0; i < sizeof(hopeless) / sizeof(hopeless[0]); i++)
	{
		if (!error_is(error, hopeless[i]))
			continue;
		error->kind = FAIL_FATAL;
		if (error->hint[0] == '\0')
			error_hint(error, "Run \"pgtrickle doctor\" to see what is missing.");
	}
	return error_context(error, "could not attach to replication slot \"%s\"", applier->slot);
}

static bool
take_answer(Applier *applier, const PGresult *result, Error *error)
{
	switch (PQresultStatus(result))
	{
		case PGRES_TUPLES_OK:
			break;
		case PGRES_COMMAND_OK: /* a prepared statement */
			return true;
		case PGRES_PIPELINE_SYNC:
			return true;
		default:
			return step_failed(applier, result, error);
	}
	switch (applier->step)
	{
		case ATTACH_LOCK:
			applier->lock_is_ours = PQgetvalue(result, 0, 0)[0] == 't';
			return true;
		case ATTACH_LOOK:
		case ATTACH_LOOK_AGAIN:
		case ATTACH_LOOK_LAST:
			return take_server_state(applier, result, error);
		case ATTACH_CATALOG:
		case ATTACH_CATALOG_AGAIN:
			return applier_take_catalog(applier, result, error);
		default:
			return true;
	}
}

/* Reads answers of one session; a step is over with its sync. */
static bool
read_answers(Applier *applier, Session *session, bool *synced, Error *error)
{
	PGresult *result;

	*synced = false;
	while (!*synced && (result = session_next_result(session)) != NULL)
	{
		bool taken = take_answer(applier, result, error);

		*synced = PQresultStatus(result) == PGRES_PIPELINE_SYNC;
		PQclear(result);
		if (!taken)
			return false;
	}
	return true;
}

/* ------------------------------------------------------------------------------------------------
 * The machine
 */

static bool
advance_connect(Applier *applier)
{
	if (applier->control.session.state != SESSION_OPEN ||
		applier->tick.session.state != SESSION_OPEN)
		return false;
	if (applier->slot[0] == '\0')
	{
		if (applier->options->slot != NULL)
			snprintf(applier->slot, sizeof(applier->slot), "%s", applier->options->slot);
		else
			server_default_slot(PQdb(applier->tick.session.conn), applier->slot);
	}
	go_to(applier, ATTACH_SETTINGS);
	return true;
}

static bool
advance_settings(Applier *applier, bool *moved, Error *error)
{
	Session *const sessions[2] = {&applier->tick.session, &applier->control.session};

	for (int i = 0; i < 2; i++)
	{
		bool synced;

		if (!read_answers(applier, sessions[i], &synced, error))
			return false;
		applier->settings_done[i] |= synced;
	}
	*moved = applier->settings_done[0] && applier->settings_done[1];
	if (*moved)
		go_to(applier, ATTACH_LOCK);
	return true;
}

static bool
advance_stream(Applier *applier, bool *moved, Error *error)
{
	if (!stream_start(&applier->stream, moved, error))
	{
		/* Somebody was faster between our look and our start. */
		if (error_is(error, "55006"))
		{
			say_waiting(applier, 0);
			error->kind = FAIL_RETRY;
		}
		return false;
	}
	if (*moved)
		go_to(applier, ATTACH_LOOK_AGAIN);
	return true;
}

static bool
advance_question(Applier *applier, Micros now, bool *moved, Error *error)
{
	if (!read_answers(applier, session_of_step(applier), moved, error))
		return false;
	return !*moved || step_is_answered(applier, now, error);
}

bool
attach_advance(Applier *applier, Micros now, Error *error)
{
	bool moved = true;

	while (moved && applier->step != ATTACH_DONE)
	{
		if (applier->step_again_at != MICROS_NEVER && now < applier->step_again_at)
			return true;
		if (!applier->step_is_sent && applier->step != ATTACH_CONNECT)
		{
			applier->step_again_at = MICROS_NEVER;
			applier->step_is_sent = true;
			if (!send_step(applier, error))
				return false;
		}
		switch (applier->step)
		{
			case ATTACH_CONNECT:
				moved = advance_connect(applier);
				break;
			case ATTACH_SETTINGS:
				if (!advance_settings(applier, &moved, error))
					return false;
				break;
			case ATTACH_STREAM:
				if (!advance_stream(applier, &moved, error))
					return false;
				break;
			default:
				if (!advance_question(applier, now, &moved, error))
					return false;
				break;
		}
	}
	return true;
}
