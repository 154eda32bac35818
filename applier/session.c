/*
 * applier/session.c
 *     One connection of the main loop.
 */
#include "session.h"

#include <assert.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#define CONNECT_TIMEOUT (15 * MICROS_PER_SECOND)

bool
session_connect(Session *session, const char *name, const char *dbname, bool is_replication,
				Error *error)
{
	ConnectionParameters parameters;
	char				 application_name[64];

	memset(session, 0, sizeof(*session));
	session->name = name;
	snprintf(application_name, sizeof(application_name), "pgtrickle %s", name);
	connection_parameters(&parameters, dbname, application_name, is_replication);
	session->conn = PQconnectStartParams(parameters.keywords, parameters.values, 1);
	if (session->conn == NULL || PQstatus(session->conn) == CONNECTION_BAD)
	{
		error_from_connection(error, FAIL_RETRY, session->conn, "could not connect");
		session_close(session);
		return false;
	}
	session->state = SESSION_CONNECTING;
	session->connect_deadline = clock_now() + CONNECT_TIMEOUT;
	session->connect_events = POLLOUT;
	return true;
}

void
session_close(Session *session)
{
	PQfinish(session->conn);
	session->conn = NULL;
	session->state = SESSION_CLOSED;
	session->outstanding = 0;
	session->in_pipeline = false;
	session->has_unsent = false;
}

int
session_socket(const Session *session)
{
	return session->state == SESSION_CLOSED ? -1 : PQsocket(session->conn);
}

short
session_events(const Session *session)
{
	switch (session->state)
	{
		case SESSION_CLOSED:
			return 0;
		case SESSION_CONNECTING:
			return session->connect_events;
		default:
			return POLLIN | (session->has_unsent ? POLLOUT : 0);
	}
}

/* Servers say things nobody asked about. */
static void
log_notice(void *context, const char *message)
{
	log_event(LEVEL_DEBUG, "server: %.*s", (int) strcspn(message, "\n"), message);
}

static bool
continue_connecting(Session *session, Micros now, Error *error)
{
	switch (PQconnectPoll(session->conn))
	{
		case PGRES_POLLING_OK:
			session->state = SESSION_OPEN;
			PQsetNoticeProcessor(session->conn, log_notice, NULL);
			if (PQsetnonblocking(session->conn, 1) != 0)
				return error_from_connection(error, FAIL_RETRY, session->conn, NULL);
			return true;
		case PGRES_POLLING_FAILED:
			return error_from_connection(error, FAIL_RETRY, session->conn, "could not connect");
		case PGRES_POLLING_READING:
			session->connect_events = POLLIN;
			break;
		default:
			session->connect_events = POLLOUT;
			break;
	}
	if (now > session->connect_deadline)
		return error_set(error, FAIL_RETRY, "could not connect: timeout expired");
	return true;
}

static bool
connection_lost(Session *session, Error *error)
{
	error_from_connection(error, FAIL_RETRY, session->conn, NULL);
	return error_context(error, "lost %s connection", session->name);
}

static bool
flush(Session *session, Error *error)
{
	int unsent = PQflush(session->conn);

	if (unsent < 0)
		return connection_lost(session, error);
	session->has_unsent = unsent > 0;
	return true;
}

bool
session_service(Session *session, short events, Micros now, Error *error)
{
	if (session->state == SESSION_CLOSED)
		return true;
	if (session->state == SESSION_CONNECTING)
	{
		if (events == 0 && now <= session->connect_deadline)
			return true;
		return continue_connecting(session, now, error);
	}
	if (events & (POLLIN | POLLHUP | POLLERR))
	{
		if (!PQconsumeInput(session->conn))
			return connection_lost(session, error);
	}
	return session->has_unsent ? flush(session, error) : true;
}

static bool
enter_pipeline(Session *session, Error *error)
{
	assert(session->state == SESSION_OPEN);
	if (!session->in_pipeline && !PQenterPipelineMode(session->conn))
		return connection_lost(session, error);
	session->in_pipeline = true;
	return true;
}

static bool
sent(Session *session, int ok, Error *error)
{
	if (!ok)
		return connection_lost(session, error);
	session->outstanding++;
	return true;
}

bool
session_query(Session *session, const char *sql, int value_count, const char *const *values,
			  Error *error)
{
	return enter_pipeline(session, error) &&
		   sent(session,
				PQsendQueryParams(session->conn, sql, value_count, NULL, values, NULL, NULL, 0),
				error);
}

bool
session_prepare(Session *session, const char *name, const char *sql, Error *error)
{
	return enter_pipeline(session, error) &&
		   sent(session, PQsendPrepare(session->conn, name, sql, 0, NULL), error);
}

bool
session_execute(Session *session, const char *name, int value_count, const char *const *values,
				const int *lengths, const int *formats, Error *error)
{
	return enter_pipeline(session, error) &&
		   sent(session,
				PQsendQueryPrepared(session->conn, name, value_count, values, lengths, formats, 0),
				error);
}

bool
session_sync(Session *session, Error *error)
{
	return enter_pipeline(session, error) && sent(session, PQpipelineSync(session->conn), error) &&
		   flush(session, error);
}

PGresult *
session_next_result(Session *session)
{
	while (session->state == SESSION_OPEN && session->outstanding > 0 && !PQisBusy(session->conn))
	{
		PGresult *result = PQgetResult(session->conn);

		if (result == NULL) /* one answer has been read to its end */
		{
			session->outstanding--;
			continue;
		}
		if (PQresultStatus(result) == PGRES_PIPELINE_SYNC)
			session->outstanding--; /* nothing follows a sync */
		return result;
	}
	return NULL;
}
