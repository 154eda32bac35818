/*
 * applier/control.c
 *     The fence connection: fences, heartbeats, failures.
 */
#include "control.h"

#include <stdio.h>
#include <string.h>

#include "sql_text.h"

void
control_reset(Control *control)
{
	session_close(&control->session);
	snapshot_release(control->heartbeat_snapshot);
	memset(control, 0, sizeof(*control));
}

static bool
enqueue(Control *control, ControlCommand command, const char *sql, int value_count,
		const char *const *values, Error *error)
{
	if (!control_has_room(control))
		return error_set(error, FAIL_RETRY, "the fence connection does not answer");
	control->queue[control->queue_length++] = command;
	return session_query(&control->session, sql, value_count, values, error) &&
		   session_sync(&control->session, error);
}

bool
control_send_fence(Control *control, const char *nonce, Error *error)
{
	return enqueue(control, CONTROL_FENCE, sql_fence, 1, &nonce, error);
}

bool
control_send_heartbeat(Control *control, Lsn ack_lsn, Lsn stream_lsn, Error *error)
{
	LsnText		ack_text = lsn_text(ack_lsn);
	LsnText		stream_text = lsn_text(stream_lsn);
	const char *values[2] = {ack_text.text, stream_text.text};

	control->heartbeat_is_running = true;
	control->heartbeat_is_done = false;
	control->heartbeat_ack_lsn = ack_lsn;
	control->heartbeat_stream_lsn = stream_lsn;

	return enqueue(control, CONTROL_HEARTBEAT, sql_heartbeat, 2, values, error);
}

bool
control_send_failed(Control *control, int64_t pgt_id, const char *sqlstate, const char *message,
					Micros retry_delay, Error *error)
{
	char		id_text[24];
	char		delay_text[24];
	const char *values[4] = {id_text, sqlstate, message, delay_text};

	snprintf(id_text, sizeof(id_text), "%lld", (long long) pgt_id);
	snprintf(delay_text, sizeof(delay_text), "%lld", (long long) (retry_delay / 1000));
	return enqueue(control, CONTROL_FAILED, sql_failed, 4, values, error);
}

bool
control_send_remote(Control *control, const RemoteAnswer *from, const char *sql, int value_count,
					const char *const *values, Error *error)
{
	if (control_has_room(control))
		control->queue_remote[control->queue_length] = *from;
	return enqueue(control, CONTROL_REMOTE, sql, value_count, values, error);
}

static void
take_remote_answer(Control *control, const PGresult *result)
{
	RemoteAnswer *answer = &control->queue_remote[0];

	if (PQresultStatus(result) == PGRES_PIPELINE_SYNC)
	{
		if (control->answer_count < CONTROL_QUEUE_MAX)
			control->answers[control->answer_count++] = *answer;
	}
	else if (PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		Error said = {0};

		error_from_result(&said, FAIL_RETRY, result, NULL);
		answer->has_failed = true;
		snprintf(answer->sqlstate, sizeof(answer->sqlstate), "%s", said.sqlstate);
		snprintf(answer->message, sizeof(answer->message), "%.255s", said.message);
	}
}

static bool
take_heartbeat(Control *control, const PGresult *result, Error *error)
{
	snapshot_release(control->heartbeat_snapshot);
	control->heartbeat_snapshot = NULL;
	if (!snapshot_parse(PQgetvalue(result, 0, 0), &control->heartbeat_snapshot, error))
		return false;
	if (!lsn_parse(PQgetvalue(result, 0, 1), &control->heartbeat_snapshot_insert_lsn))
		return error_set(error, FAIL_FATAL, "heartbeat returned \"%s\" in place of an LSN",
						 PQgetvalue(result, 0, 1));
	return true;
}

static bool
take_answer(Control *control, const PGresult *result, Error *error)
{
	static const char *const what[] = {"could not write a fence", "could not persist progress",
									   "could not record a failure"};
	ControlCommand			 command = control->queue[0];

	if (command == CONTROL_REMOTE)
		take_remote_answer(control, result);
	if (PQresultStatus(result) == PGRES_PIPELINE_SYNC)
	{
		/* The commit came with the sync, not with the answer. */
		if (command == CONTROL_HEARTBEAT)
		{
			control->heartbeat_is_running = false;
			control->heartbeat_is_done = true;
		}
		control->queue_length--;
		memmove(control->queue, control->queue + 1,
				(size_t) control->queue_length * sizeof(control->queue[0]));
		memmove(control->queue_remote, control->queue_remote + 1,
				(size_t) control->queue_length * sizeof(control->queue_remote[0]));
		return true;
	}
	if (command == CONTROL_REMOTE)
		return true;
	if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
		return error_from_result(error, FAIL_RETRY, result, what[command]);
	return command == CONTROL_HEARTBEAT ? take_heartbeat(control, result, error) : true;
}

bool
control_advance(Control *control, Error *error)
{
	PGresult *result;

	while ((result = session_next_result(&control->session)) != NULL)
	{
		bool taken = take_answer(control, result, error);

		PQclear(result);
		if (!taken)
			return false;
	}
	return true;
}
