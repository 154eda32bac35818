/*
 * applier/session.h
 *     One connection of the main loop: never blocks, and answers come in the order of the
 *     questions.
 *
 *     CLOSED -> CONNECTING -> OPEN        (a lost connection is an error; then session_close)
 *
 * Questions are sent in libpq's pipeline mode, so several can be under way; a sync ends each group,
 * and a failed question aborts the rest of its group.  The owner of a session asks for results in
 * the order of what it sent. The stream's connection leaves this once it streams (stream.c).
 */
#ifndef PGTRICKLE_APPLIER_SESSION_H
#define PGTRICKLE_APPLIER_SESSION_H

#include "connection.h"
#include "log.h"

typedef enum SessionState
{
	SESSION_CLOSED,
	SESSION_CONNECTING,
	SESSION_OPEN
} SessionState;

typedef struct Session
{
	const char	*name; /* for messages: "refresh" */
	SessionState state;
	PGconn		*conn;
	Micros		 connect_deadline;
	short		 connect_events; /* what poll should wait for while connecting */
	int			 outstanding; /* questions and syncs whose answer has not been read to its end */
	bool		 in_pipeline;
	bool		 has_unsent; /* PQflush could not send everything */
} Session;

/* Starts to connect. */
extern bool session_connect(Session *session, const char *name, const char *dbname,
							bool is_replication, Error *error) MUST_CHECK;
extern void session_close(Session *session);

/* What to wait for; 0 when closed. */
extern short session_events(const Session *session);
extern int	 session_socket(const Session *session);

/* Does what can be done without waiting: connects, reads, writes. */
extern bool session_service(Session *session, short events, Micros now, Error *error) MUST_CHECK;

/* Questions with text parameters (`values`; NULL elements are NULLs). */
extern bool session_query(Session *session, const char *sql, int value_count,
						  const char *const *values, Error *error) MUST_CHECK;
extern bool
session_prepare(Session *session, const char *name, const char *sql, Error *error) MUST_CHECK;

/* lengths and formats may be NULL when all parameters are text. */
extern bool
session_execute(Session *session, const char *name, int value_count, const char *const *values,
				const int *lengths, const int *formats, Error *error) MUST_CHECK;
extern bool session_sync(Session *session, Error *error) MUST_CHECK;

/*
 * The next result that has arrived completely, or NULL.  A sync comes as PGRES_PIPELINE_SYNC.  The
 * caller clears it.
 */
extern PGresult *session_next_result(Session *session);

/* Nothing sent is unanswered. */
static inline bool
session_is_idle(const Session *session)
{
	return session->state == SESSION_OPEN && session->outstanding == 0;
}

#endif /* PGTRICKLE_APPLIER_SESSION_H */
