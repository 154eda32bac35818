/*
 * applier/remote.c
 *     One remote: its turn of the main loop, its end, what it feeds back.
 */
#include "remote.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"
#include "remote_plan.h"
#include "sql_text.h"

#define CONNECT_DELAY_FIRST (200 * INT64_C(1000))
#define CONNECT_DELAY_MAX (30 * MICROS_PER_SECOND)

/* The target is told of the same failure only so often. */
#define SAME_FAILURE_INTERVAL (60 * MICROS_PER_SECOND)

/* Positions of a remote that writes what nobody reads are persisted no more often than this. */
#define HEARTBEAT_INTERVAL (100 * INT64_C(1000))

/* ------------------------------------------------------------------------------------------------
 * The end of an epoch
 */

void
remote_close(Remote *remote)
{
	stream_close(&remote->stream);
	session_close(&remote->control);
	if (remote->pgoutput != NULL)
		pgoutput_free(remote->pgoutput);
	remote->pgoutput = NULL;
	decompression_free(remote->decompression);
	remote->decompression = NULL;
	remote->state = REMOTE_CLOSED;
	remote->prefix.is_worth_it = false;
	remote_forget_transactions(remote);
}

static void
tell_failure(Remote *remote, Control *control, const Error *error, Micros now)
{
	RemoteAnswer from = {.remote_id = remote->remote_id, .epoch = remote->epoch, .call = REMOTE_CALL_FAILED};
	char		 id[16];
	const char	*values[3] = {id, error->sqlstate, error->message};
	Error		 ignored = {0};

	snprintf(id, sizeof(id), "%d", remote->remote_id);
	snprintf(remote->told_failure, sizeof(remote->told_failure), "%.255s", error->message);
	remote->told_failure_at = now;
	/* Should the connection to the target be lost, that is noticed by others. */
	if (control != NULL && control->session.state == SESSION_OPEN && control_has_room(control))
		(void) !control_send_remote(control, &from, sql_remote_failed, 3, values, &ignored);
}

void
remote_failed(Remote *remote, Control *control, const Error *error, Micros now)
{
	Error said = *error;
	bool  is_old = strncmp(remote->told_failure, error->message, sizeof(remote->told_failure) - 1) == 0 &&
				  now < remote->told_failure_at + SAME_FAILURE_INTERVAL;

	if (!is_old)
		tell_failure(remote, control, error, now);
	error_context(&said, "remote \"%s\"", remote->name);
	log_error(is_old ? LEVEL_DEBUG : LEVEL_WARNING, &said);
	remote_close(remote);
	remote->connect_failures++;
	remote->connect_at =
		now + retry_delay(remote->connect_failures, CONNECT_DELAY_FIRST, CONNECT_DELAY_MAX);
}

/* ------------------------------------------------------------------------------------------------
 * What the target answered
 */

static void
take_heartbeat(Remote *remote, const RemoteAnswer *answer, Micros now)
{
	remote->heartbeat_is_running = false;
	if (answer->has_failed)
	{
		remote->is_doubtful = true;
		return;
	}
	remote->position = lsn_max(remote->position, remote->heartbeat_lsn);
	remote->position_time = remote->heartbeat_time;
	remote->persisted_at = now;
	ack_flushed(&remote->ack, remote->heartbeat_lsn);
}

bool
remote_take_answer(Remote *remote, Remotes *remotes, Control *control, const RemoteAnswer *answer,
				   Micros now, Error *error)
{
	Error said = {0};

	if (answer->call == REMOTE_CALL_HEARTBEAT)
	{
		take_heartbeat(remote, answer, now);
		remotes->may_have_news = true; /* no tick could take anything meanwhile */
	}
	if (answer->call == REMOTE_CALL_STARTED)
	{
		remote->telling_is_running = false;
		/* Should there have been a gap, the target does not know of it; what we have noted is not what holds. */
		remote->is_doubtful |= answer->has_failed;
	}
	if (answer->has_failed && answer->epoch == remote->epoch && remote->state != REMOTE_CLOSED)
	{
		error_set_sqlstate(&said, FAIL_RETRY, answer->sqlstate, "the target answered: %s", answer->message);
		remotes->wants_catalog = true;
		remote_failed(remote, NULL, &said, now);
		return true;
	}
	if (answer->epoch != remote->epoch)
		return true;
	if (answer->call == REMOTE_CALL_GIVEN_UP)
	{
		remote->is_giving_up = false;
		/* Or nobody wants it any more, and it has been let go. */
		if (remote->intake != NULL && remote->intake->buffer->first != NULL &&
			remote->intake->buffer->first->commit_lsn == remote->giving_up_lsn)
			remote->intake->buffer->first->is_given_up = true;
		remotes->wants_catalog = true;
		remotes->may_have_news = true;
	}
	if (answer->call == REMOTE_CALL_STARTED && remote->state == REMOTE_TELLING)
		return remote_declare(remote, control, error);
	if (answer->call == REMOTE_CALL_STREAMS && remote->state == REMOTE_DECLARING)
	{
		remote->state = REMOTE_RELOADING;
		remote->reload_is_sent = false;
		remotes->wants_catalog = true;
	}
	return true;
}

/* ------------------------------------------------------------------------------------------------
 * Feedback and heartbeats
 */

bool
remote_feed_back(Remote *remote, Micros now, bool force, Error *error)
{
	Feedback feedback;

	if (remote->stream.state != STREAM_STREAMING || remote->intake == NULL)
		return true;
	/* A position may lie behind a page header that nothing has been read of. */
	feedback.write_lsn = remote->intake->stream_lsn;
	feedback.flush_lsn = lsn_min(remote->ack.acknowledged_lsn, feedback.write_lsn);
	feedback.apply_lsn = lsn_max(lsn_min(remote->position, feedback.write_lsn), feedback.flush_lsn);
	return stream_feed_back(&remote->stream, &feedback, now, force, error);
}

static Lsn
feedback_lsn(const Remote *remote)
{
	return remote->intake == NULL ? LSN_NONE
								  : lsn_min(remote->ack.acknowledged_lsn, remote->intake->stream_lsn);
}

/* When nothing waits in the buffer the stream's position is that of the copies as well. */
static Micros
heartbeat_due(const Remote *remote)
{
	Lsn reached;

	if (remote->state != REMOTE_RUNNING || remote->heartbeat_is_running || remote->in_tick)
		return MICROS_NEVER;
	reached = remote->intake->buffer->first != NULL ? remote->released_lsn
													: remote->intake->stream_lsn;
	return reached > remote->position ? remote->persisted_at + HEARTBEAT_INTERVAL : MICROS_NEVER;
}

static bool
consider_heartbeat(Remote *remote, Control *control, Micros now, Error *error)
{
	RemoteAnswer from = {.remote_id = remote->remote_id, .epoch = remote->epoch, .call = REMOTE_CALL_HEARTBEAT};
	char		 id[16];
	char		 moment[24];
	LsnText		 position;
	const char	*values[3] = {id, NULL, moment};

	if (heartbeat_due(remote) > now || !control_has_room(control))
		return true;
	remote->heartbeat_lsn = remote_skip_untouched(remote, &remote->heartbeat_time);
	if (remote->heartbeat_lsn <= remote->position)
	{
		remote->persisted_at = now; /* only a header's worth: look again later */
		return true;
	}
	remote->heartbeat_is_running = true;
	position = lsn_text(remote->heartbeat_lsn);
	values[1] = position.text;
	snprintf(id, sizeof(id), "%d", remote->remote_id);
	snprintf(moment, sizeof(moment), "%lld", (long long) remote->heartbeat_time);
	return control_send_remote(control, &from, sql_remote_heartbeat, 3, values, error);
}

/* ------------------------------------------------------------------------------------------------
 * Transactions that were too large
 */

static void
append_relid(Text *relids, Oid relid)
{
	text_append_format(relids, "%s%u", relids->length > 1 ? "," : "", relid);
}

/* What the transaction changed, as an array. */
static void
append_touched(const Remote *remote, const Transaction *transaction, Text *relids)
{
	text_append_char(relids, '{');
	for (size_t i = 0; i < transaction->relation_count; i++)
	{
		const Relation *relation =
			relations_find(remote->intake->buffer->relations, transaction->relations[i]);

		for (size_t j = 0; j < relation->publish_as_count; j++)
			append_relid(relids, relation->publish_as[j]);
	}
	for (size_t i = 0; i < transaction->truncated_count; i++)
		append_relid(relids, transaction->truncated[i]);
	text_append_char(relids, '}');
}

/*
 * A transaction of which only the relations are known is first in the buffer: what it touched is copied again.  Everything before it has been
 * applied, so no older change of a row comes after the copying, which sees the transaction's.
 */
bool
remote_give_up(Remote *remote, Control *control, Error *error)
{
	RemoteAnswer	   from = {.remote_id = remote->remote_id, .epoch = remote->epoch, .call = REMOTE_CALL_GIVEN_UP};
	const Transaction *first = remote->state == REMOTE_RUNNING ? remote->intake->buffer->first : NULL;
	char			   id[16];
	Text			   relids = {0};
	const char		  *values[3] = {id, NULL, "a transaction of the remote was larger than --spill-mb allows"};
	bool			   sent;

	if (first == NULL || !first->data_is_dropped || first->is_given_up || remote->is_giving_up ||
		remote->in_tick || remote->heartbeat_is_running || !control_has_room(control))
		return true;
	snprintf(id, sizeof(id), "%d", remote->remote_id);
	append_touched(remote, first, &relids);
	values[1] = relids.data;
	remote->is_giving_up = true;
	remote->giving_up_lsn = first->commit_lsn;
	sent = control_send_remote(control, &from, sql_remote_lost, 3, values, error);
	text_free(&relids);
	return sent;
}

/* ------------------------------------------------------------------------------------------------
 * One turn
 */

static bool
may_open(const Remote *remote, Micros now)
{
	/* What is under way may move the position from which the stream has to start. */
	return remote->state == REMOTE_CLOSED && !remote->is_paused && !remote->heartbeat_is_running &&
		   !remote->telling_is_running && !remote->in_tick && !remote->is_doubtful && now >= remote->connect_at;
}

static bool
take_batch(void *context, const void *data, size_t length, int64_t server_time, Error *error)
{
	Remote		  *remote = context;
	const uint8_t *batch = data;

	if (remote->decompression != NULL &&
		!decompression_read(remote->decompression, data, length, &batch, &length, error))
		return false;
	if (remote->pgoutput != NULL &&
		!pgoutput_convert(remote->pgoutput, data, length, &batch, &length, error))
		return false;
	return length == 0 || remote_intake_batch(remote->intake, batch, length, server_time, error);
}

static void
take_keepalive(void *context, Lsn wal_end, int64_t server_time)
{
	Error said; /* once more after the reading */

	(void) !remote_intake_keepalive(((Remote *) context)->intake, wal_end, server_time, &said);
}

/* The next attempt starts with all copies made anew. */
static bool
receive(Remote *remote, Micros now, bool *more, Error *error)
{
	const StreamSink sink = {take_batch, take_keepalive, remote};
	bool			 received = stream_receive(&remote->stream, &sink, now, more, error);

	if (remote->intake->other_history[0] == '\0')
		return received;
	snprintf(remote->other_history, sizeof(remote->other_history), "%s", remote->intake->other_history);
	return error_set(error, FAIL_RETRY, "the server was restored to an older state");
}

bool
remote_serve(Remote *remote, const struct pollfd *fds, Micros now, bool *more, Error *error)
{
	*more = false;
	if (!session_service(&remote->control, fds[0].revents, now, error) ||
		!session_service(&remote->stream.session, fds[1].revents, now, error))
		return false;
	if (remote->stream.state != STREAM_STREAMING)
		return true;
	remote->is_full = remote_intake_is_full(remote->intake);
	if (!remote->is_full)
		return receive(remote, now, more, error);
	/* It is we who do not listen. */
	remote->stream.last_receive_at = now;
	return true;
}

/* An error is one of the remote. */
bool
remote_turn(Remote *remote, Remotes *remotes, Control *control, Micros now, Error *error)
{
	if (may_open(remote, now) && !remote_attach_start(remote, error))
		return false;
	if (remote->state != REMOTE_CLOSED && remote->state < REMOTE_TELLING &&
		!remote_attach_advance(remote, remotes, control, now, error))
		return false;
	remote->must_turn = false;
	if (now >= remote->wake_at || (remote->retry_at != 0 && now >= remote->retry_at))
	{
		remote->wake_at = MICROS_NEVER;
		remote->retry_at = 0;
		remotes->may_have_news = true;
	}
	return remote_feed_back(remote, now, false, error);
}

/* An error is one of the target. */
bool
remote_report(Remote *remote, Control *control, Lsn stream_lsn, Micros now, Error *error)
{
	(void) ack_stream_reached(&remote->ack, stream_lsn);
	return consider_heartbeat(remote, control, now, error);
}

Micros
remote_deadline(const Remote *remote)
{
	Micros deadline = MICROS_NEVER;

	if (remote->must_turn)
		return 0;
	if (remote->state == REMOTE_RUNNING)
		deadline = copy_worker_deadline(&remote->worker);
	if (may_open(remote, MICROS_NEVER) && remote->connect_at < deadline)
		deadline = remote->connect_at;
	if (remote->control.state == SESSION_CONNECTING && remote->control.connect_deadline < deadline)
		deadline = remote->control.connect_deadline;
	if (remote->stream.session.state == SESSION_CONNECTING &&
		remote->stream.session.connect_deadline < deadline)
		deadline = remote->stream.session.connect_deadline;
	if (remote->state == REMOTE_LOOKING && remote->step_again_at < deadline)
		deadline = remote->step_again_at;
	if (remote->wake_at < deadline)
		deadline = remote->wake_at;
	if (remote->retry_at != 0 && remote->retry_at < deadline)
		deadline = remote->retry_at;
	if (heartbeat_due(remote) < deadline)
		deadline = heartbeat_due(remote);
	if (stream_feedback_due(&remote->stream, feedback_lsn(remote)) < deadline)
		deadline = stream_feedback_due(&remote->stream, feedback_lsn(remote));
	return deadline;
}
