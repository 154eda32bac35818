/*
 * applier/remote_attach.c
 *     From nothing to a remote's stream: who it is, what became of the slot, and whether anything was missed.
 *
 * As for the local slot (attach.c), the slot is looked at once more after it has become ours: until then somebody else may move
 * it.  What is different: the target, which has the position, is another server, and whatever goes wrong here ends this attempt and
 * nothing else.
 */
#include "remote.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"
#include "sql_text.h"

#define WAIT_FOR_OTHER MICROS_PER_SECOND

bool
remote_attach_start(Remote *remote, Error *error)
{
	assert(remote->state == REMOTE_CLOSED && remote->intake == NULL);
	remote->epoch++;
	remote->gap_reason[0] = '\0';
	remote->step_again_at = MICROS_NEVER;
	memset(&remote->ack, 0, sizeof(remote->ack));
	memset(&remote->server, 0, sizeof(remote->server));
	remote->is_full = false;
	remote->is_giving_up = false;
	if (!session_connect(&remote->control, "remote", remote->conninfo, false, error))
		return false;
	remote->state = REMOTE_LOOKING;
	return true;
}

/* ------------------------------------------------------------------------------------------------
 * What the remote says
 */

static bool
take_look(Remote *remote, const PGresult *result, Error *error)
{
	RemoteServer *server = &remote->server;

	if (PQntuples(result) != 1 || PQnfields(result) != 14)
		return error_set(error, FAIL_RETRY, "unexpected shape of the server's state");
	memset(server, 0, sizeof(*server));
	server->is_in_recovery = PQgetvalue(result, 0, 0)[0] == 't';
	snprintf(server->system_identifier, sizeof(server->system_identifier), "%s",
			 PQgetvalue(result, 0, 1));
	server->timeline = atoi(PQgetvalue(result, 0, 2));
	server->wal_segment_bytes = strtoull(PQgetvalue(result, 0, 3), NULL, 10);
	(void) lsn_parse(PQgetvalue(result, 0, 4), &server->insert_lsn);
	server->slot_exists = PQgetvalue(result, 0, 5)[0] == 't';
	server->slot_is_ours = PQgetvalue(result, 0, 6)[0] == 't' &&
						   strcmp(PQgetvalue(result, 0, 7), remote->plugin) == 0;
	server->slot_is_active = PQgetvalue(result, 0, 8)[0] == 't';
	server->slot_active_pid = atoi(PQgetvalue(result, 0, 9));
	server->slot_is_lost = strcmp(PQgetvalue(result, 0, 10), "lost") == 0;
	(void) lsn_parse(PQgetvalue(result, 0, 11), &server->confirmed_flush_lsn);
	server->recent_xid = strtoull(PQgetvalue(result, 0, 13), NULL, 10);
	if (server->wal_segment_bytes == 0)
		return error_set(error, FAIL_RETRY, "could not find out the size of WAL segments");
	if (strcmp(PQgetvalue(result, 0, 12), "logical") != 0)
	{
		error_set(error, FAIL_RETRY, "wal_level of the remote is \"%s\"", PQgetvalue(result, 0, 12));
		error_hint(error, "Set wal_level to logical there, and restart that server.");
		return false;
	}
	return true;
}

/*
 * Does the stream continue where the copies are?  If not, all of them are copied anew, and the differences applied.  Whether the
 * server has the position in its history at all, the stream asks (check_timeline).
 */
static void
find_gap(Remote *remote)
{
	const RemoteServer *server = &remote->server;
	char			   *reason = remote->gap_reason;
	size_t				size = sizeof(remote->gap_reason);
	LsnText				position = lsn_text(remote->position);

	if (reason[0] != '\0') /* the slot had to be made */
		return;
	if (remote->system_identifier == NULL || remote->position == LSN_NONE)
		snprintf(reason, size, "first start");
	else if (strcmp(remote->system_identifier, server->system_identifier) != 0)
		snprintf(reason, size, "the system identifier was %s and is %s", remote->system_identifier,
				 server->system_identifier);
	else if (remote->other_history[0] != '\0')
		snprintf(reason, size, "%s, which was restored to an older state", remote->other_history);
	else if (server->confirmed_flush_lsn > remote->position)
		snprintf(reason, size, "replication slot \"%s\" stands at %s and not before %s", remote->slot,
				 lsn_text(server->confirmed_flush_lsn).text, position.text);
	else if (lsn_behind_page_header(server->insert_lsn, server->wal_segment_bytes) < remote->position)
		snprintf(reason, size, "the server's WAL ends at %s and not behind %s",
				 lsn_text(server->insert_lsn).text, position.text);
}

/* ------------------------------------------------------------------------------------------------
 * Asking
 */

static bool
ask(Remote *remote, RemoteState next, const char *sql, int value_count, const char *const *values,
	Error *error)
{
	remote->state = next;
	return session_query(&remote->control, sql, value_count, values, error) &&
		   session_sync(&remote->control, error);
}

static bool
look(Remote *remote, RemoteState next, Error *error)
{
	const char *values[1] = {remote->slot};

	return ask(remote, next, sql_remote_look, 1, values, error);
}

static bool
create_slot(Remote *remote, Error *error)
{
	const char *values[2] = {remote->slot, remote->plugin};
	bool		may_fail_over =
		PQserverVersion(remote->control.conn) >= 170000 && !remote->server.is_in_recovery;

	if (remote->gap_reason[0] == '\0')
		snprintf(remote->gap_reason, sizeof(remote->gap_reason),
				 "replication slot \"%s\" did not exist", remote->slot);
	log_event(LEVEL_LOG, "creating replication slot \"%s\" on remote \"%s\"", remote->slot,
			  remote->name);
	if (remote->server.is_in_recovery)
		log_event(LEVEL_LOG, "that waits for the primary of that server to note its running transactions: "
							 "\"SELECT pg_log_standby_snapshot()\" there makes it do so");
	return ask(remote, REMOTE_CREATING,
			   may_fail_over ? sql_remote_create_failover_slot : sql_remote_create_slot, 2, values, error);
}

static int
compare_oids(const void *a, const void *b)
{
	Oid left = *(const Oid *) a;
	Oid right = *(const Oid *) b;

	return left < right ? -1 : left > right;
}

/* What the followed copies need, ascending; the caller owns it. */
static Oid *
wanted_relids(const Remote *remote, size_t *count)
{
	Oid	  *relids = memory_take((remote->copy_count + 1) * sizeof(Oid));
	size_t all = 0;

	for (size_t i = 0; i < remote->copy_count; i++)
	{
		if (copy_is_followed(remote->copies[i]) && remote->copies[i]->copy.remote_relid != 0)
			relids[all++] = remote->copies[i]->copy.remote_relid;
	}
	qsort(relids, all, sizeof(Oid), compare_oids);
	*count = 0;
	for (size_t i = 0; i < all; i++)
	{
		if (*count == 0 || relids[*count - 1] != relids[i])
			relids[(*count)++] = relids[i];
	}
	return relids;
}

bool
remote_stream_is_right(const Remote *remote)
{
	size_t count;
	Oid	  *relids = wanted_relids(remote, &count);
	bool   is_right = count == remote->intake->carried_count &&
					memcmp(relids, remote->intake->carried, count * sizeof(Oid)) == 0;

	free(relids);
	return is_right;
}

/* Values of types that have other OIDs here come as text, and all text in the encoding of the target. */
static char *
plugin_options(const Remote *remote, const Oid *relids, size_t count, const char *encoding)
{
	Text options = {0};

	if (remote->pgoutput != NULL)
	{
		pgoutput_append_options(&options, remote->publication);
		return options.data;
	}
	text_append(&options, "\"proto_version\" '1', \"interest\" '");
	for (size_t i = 0; i < count; i++)
		text_append_format(&options, "%s%u", i > 0 ? "," : "", relids[i]);
	text_append_format(&options, "', \"text_types\" 'user', \"encoding\" '%s'", encoding);
	if (remote->decompression != NULL)
		text_append_format(&options, ", \"compression\" '%s'", remote->compression);
	return options.data;
}

/* What has been followed up to the position; what was committed before its copying may not have been applied. */
static Witness *
find_witnesses(const Remote *remote, size_t *count)
{
	Witness *witnesses = memory_take((remote->copy_count + 1) * sizeof(Witness));

	*count = 0;
	for (size_t i = 0; i < remote->copy_count; i++)
	{
		const CopyState *copy = &remote->copies[i]->copy;

		if (copy_is_followed(remote->copies[i]) && copy->status != COPY_WANTED && copy->copied_from != LSN_NONE)
			witnesses[(*count)++] = (Witness){copy->remote_relid, copy->copied_from};
	}
	return witnesses;
}

/*
 * A server that was restored from a copy of its files, slot and all, and has written so much since that its WAL reaches the position again, shows
 * that by the transactions in it alone.  Its slot stands where it stood when the copy was taken, or before.  So the stream starts there.  It
 * has to bring the last transaction that was applied, unless that is in the copy as well, since it is before the slot; and
 * between that one and the position it must not bring any that would have been applied, too.
 */
static Lsn
recognizable_lsn(Remote *remote)
{
	Lsn		 slot_lsn = remote->server.confirmed_flush_lsn;
	bool	 must_come = remote->last_xid != 0 && slot_lsn <= remote->last_commit_lsn;
	size_t	 count;
	Witness *witnesses;

	if (remote->gap_reason[0] != '\0' || slot_lsn >= remote->start_lsn ||
		remote->server.timeline != remote->timeline)
		return remote->start_lsn;
	witnesses = find_witnesses(remote, &count);
	remote_intake_expect(remote->intake, must_come ? remote->last_xid : 0, remote->last_commit_lsn,
						 witnesses, count);
	if (remote->pgoutput != NULL && must_come)
		pgoutput_tell_all(remote->pgoutput);
	return slot_lsn;
}

static bool
start_stream(Remote *remote, const Options *options, const Control *control, Error *error)
{
	size_t		count;
	Oid		   *relids = wanted_relids(remote, &count);
	const char *encoding = PQparameterStatus(control->session.conn, "server_encoding");
	Buffer	   *buffer = buffer_create(options->buffer_bytes_max, options->spill_bytes_max,
									   options->spill_directory);
	char	   *plugin;
	bool		started;

	if (strcmp(remote->plugin, "pgoutput") == 0)
		remote->pgoutput = pgoutput_create(relids, count, remote->server.recent_xid);
	else if (strcmp(remote->compression, "zstd") == 0)
		remote->decompression = decompression_create(DECOMPRESSED_BATCH_BYTES_MAX);
	plugin = plugin_options(remote, relids, count, encoding);
	find_gap(remote);
	remote->start_lsn =
		remote->gap_reason[0] != '\0' ? remote->server.confirmed_flush_lsn : remote->position;
	remote->intake = remote_intake_create(buffer, relids, count, remote->start_lsn);
	remote->released_lsn = remote->start_lsn;
	remote->released_time = 0;
	remote->state = REMOTE_STARTING;
	started = stream_connect(&remote->stream, remote->conninfo, remote->slot,
							 recognizable_lsn(remote), plugin, error);
	remote->stream.silence_max = options->remote_timeout;
	stream_expect_timeline(&remote->stream, remote->gap_reason[0] != '\0' ? 0 : remote->timeline,
						   remote->server.confirmed_flush_lsn);
	if (remote->pgoutput != NULL)
		remote->stream.client_encoding = encoding;
	free(plugin);
	return started;
}

static bool
consider_slot(Remote *remote, const Options *options, const Control *control, Micros now,
			  Error *error)
{
	const RemoteServer *server = &remote->server;
	const char		   *values[1] = {remote->slot};

	if (server->slot_exists && !server->slot_is_ours)
	{
		error_set(error, FAIL_RETRY,
				  "replication slot \"%s\" has another plugin than %s or belongs to another database",
				  remote->slot, remote->plugin);
		error_hint(error, "Choose another name for the slot with pgtrickle.alter_remote().");
		return false;
	}
	if (server->slot_exists && server->slot_is_lost)
		return ask(remote, REMOTE_DROPPING, sql_drop_slot, 1, values, error);
	if (!server->slot_exists)
		return create_slot(remote, error);
	if (server->is_in_recovery && server->insert_lsn < remote->position)
		return error_set(error, FAIL_RETRY, "the standby has replayed its WAL up to %s and not to %s yet",
						 lsn_text(server->insert_lsn).text, lsn_text(remote->position).text);
	if (!server->slot_is_active)
		return start_stream(remote, options, control, error);
	log_event(remote->said_waiting ? LEVEL_DEBUG : LEVEL_LOG, "waiting: replication slot \"%s\" of remote \"%s\" is active for process %d",
			  remote->slot, remote->name, server->slot_active_pid);
	remote->said_waiting = true;
	remote->step_again_at = now + retry_delay(1, WAIT_FOR_OTHER, WAIT_FOR_OTHER);
	return true;
}

/* ------------------------------------------------------------------------------------------------
 * Telling the target
 */

static bool
tell_started(Remote *remote, Control *control, Error *error)
{
	RemoteAnswer from = {.remote_id = remote->remote_id, .epoch = remote->epoch, .call = REMOTE_CALL_STARTED};
	char		 id[16];
	char		 timeline[16];
	LsnText		 position = lsn_text(remote->start_lsn);
	const char	*values[6] = {id, remote->server.system_identifier, timeline,
							  remote->database_name, position.text,
							  remote->gap_reason[0] != '\0' ? remote->gap_reason : NULL};

	snprintf(id, sizeof(id), "%d", remote->remote_id);
	snprintf(timeline, sizeof(timeline), "%d", remote->server.timeline);
	remote->state = REMOTE_TELLING;
	remote->telling_is_running = true;
	return control_send_remote(control, &from, sql_remote_started, 6, values, error);
}

bool
remote_declare(Remote *remote, Control *control, Error *error)
{
	RemoteAnswer from = {.remote_id = remote->remote_id, .epoch = remote->epoch, .call = REMOTE_CALL_STREAMS};
	char		 id[16];
	Text		 relids = {0};
	LsnText		 position = lsn_text(remote->position);
	const char	*values[3] = {id, NULL, position.text};
	bool		 sent;

	snprintf(id, sizeof(id), "%d", remote->remote_id);
	text_append(&relids, "{");
	for (size_t i = 0; i < remote->intake->carried_count; i++)
		text_append_format(&relids, "%s%u", i > 0 ? "," : "", remote->intake->carried[i]);
	text_append(&relids, "}");
	values[1] = relids.data;
	remote->state = REMOTE_DECLARING;
	sent = control_send_remote(control, &from, sql_remote_streams, 3, values, error);
	text_free(&relids);
	return sent;
}

static void
say_started(const Remote *remote, bool is_first)
{
	log_event(LEVEL_LOG,
			  "streaming from replication slot \"%s\" of remote \"%s\" at %s on timeline %d, %zu tables",
			  remote->slot, remote->name, lsn_text(remote->start_lsn).text, remote->server.timeline,
			  remote->intake->carried_count);
	if (remote->gap_reason[0] != '\0' && !is_first)
		log_event(LEVEL_WARNING, "all copies of remote \"%s\" will be made anew: %s", remote->name,
				  remote->gap_reason);
}

/*
 * A standby that took over has the transactions that had reached it.  Those behind, which the copies may have, are undone by copying
 * anew; if the copies were not further than it was, they go on.
 */
static void
check_timeline(Remote *remote)
{
	const Stream *stream = &remote->stream;

	remote->server.timeline = stream->timeline;
	if (!stream->is_elsewhere)
	{
		if (remote->gap_reason[0] == '\0' && remote->timeline != stream->timeline)
			log_event(LEVEL_LOG, "remote \"%s\" goes on with timeline %d, which left timeline %d at %s",
					  remote->name, stream->timeline, remote->timeline,
					  lsn_text(stream->timeline_end_lsn).text);
		return;
	}
	if (stream->timeline_end_lsn == LSN_NONE)
		snprintf(remote->gap_reason, sizeof(remote->gap_reason),
				 "timeline %d does not descend from timeline %d", stream->timeline, remote->timeline);
	else
		snprintf(remote->gap_reason, sizeof(remote->gap_reason),
				 "timeline %d left timeline %d at %s, and the copies are at %s", stream->timeline,
				 remote->timeline, lsn_text(stream->timeline_end_lsn).text,
				 lsn_text(remote->position).text);
	remote->start_lsn = stream->start_lsn;
	remote->intake->stream_lsn = stream->start_lsn;
	remote->released_lsn = stream->start_lsn;
}

/* The slot is ours, and it is where we thought it was. */
static bool
begin_following(Remote *remote, Control *control, Error *error)
{
	const RemoteServer *server = &remote->server;
	bool				is_first = remote->position == LSN_NONE;

	check_timeline(remote);
	if (!server->slot_exists || server->confirmed_flush_lsn > remote->start_lsn)
		return error_set(error, FAIL_RETRY, "replication slot \"%s\" was moved by somebody else",
						 remote->slot);
	snprintf(remote->database_name, sizeof(remote->database_name), "%s", PQdb(remote->control.conn));
	session_close(&remote->control);
	remote->ack.acknowledged_lsn = server->confirmed_flush_lsn;
	remote->stream.fed_back_flush_lsn = server->confirmed_flush_lsn;
	remote->position = remote->start_lsn;
	if (remote->gap_reason[0] != '\0')
		remote->last_xid = 0;
	remote->other_history[0] = '\0';
	free(remote->system_identifier);
	remote->system_identifier = memory_copy_text(server->system_identifier);
	remote->timeline = server->timeline;
	say_started(remote, is_first);
	return tell_started(remote, control, error);
}

/* ------------------------------------------------------------------------------------------------
 * The machine
 */

/* *done: the answer to the question is complete. */
static bool
read_answer(Remote *remote, bool *done, Error *error)
{
	PGresult *result;

	*done = false;
	while (!*done && (result = session_next_result(&remote->control)) != NULL)
	{
		bool taken = true;

		if (PQresultStatus(result) == PGRES_PIPELINE_SYNC)
			*done = true;
		else if (PQresultStatus(result) != PGRES_TUPLES_OK)
			taken = error_from_result(error, FAIL_RETRY, result, NULL);
		else if (remote->state == REMOTE_LOOKING || remote->state == REMOTE_LOOKING_AGAIN)
			taken = take_look(remote, result, error);
		PQclear(result);
		if (!taken)
			return false;
	}
	return true;
}

static bool
advance_question(Remote *remote, const Options *options, Control *control, Micros now, bool *moved,
				 Error *error)
{
	if (!read_answer(remote, moved, error))
		return false;
	if (!*moved)
		return true;
	switch (remote->state)
	{
		case REMOTE_LOOKING:
			return consider_slot(remote, options, control, now, error);
		case REMOTE_DROPPING:
			snprintf(remote->gap_reason, sizeof(remote->gap_reason),
					 "replication slot \"%s\" had been invalidated", remote->slot);
			return create_slot(remote, error);
		case REMOTE_CREATING:
			return look(remote, REMOTE_LOOKING, error);
		default:
			return begin_following(remote, control, error);
	}
}

/* Connected, and nothing has been asked yet; or waited for long enough to ask again. */
static bool
must_look(Remote *remote, Micros now)
{
	return remote->state == REMOTE_LOOKING && session_is_idle(&remote->control) &&
		   (remote->step_again_at == MICROS_NEVER || now >= remote->step_again_at);
}

bool
remote_attach_advance(Remote *remote, Remotes *remotes, Control *control, Micros now, Error *error)
{
	bool moved = true;

	while (moved && remote->state < REMOTE_TELLING)
	{
		if (must_look(remote, now))
		{
			remote->step_again_at = MICROS_NEVER;
			if (!look(remote, REMOTE_LOOKING, error))
				return false;
		}
		if (remote->state == REMOTE_STARTING)
		{
			if (!stream_start(&remote->stream, &moved, error) ||
				(moved && !look(remote, REMOTE_LOOKING_AGAIN, error)))
				return false;
		}
		else if (!advance_question(remote, remotes->options, control, now, &moved, error))
			return false;
	}
	return true;
}
