/*
 * applier/stream.c
 *     The replication protocol.
 *
 * The positions in a message's own header are not used: they are those of the plugin's write, not
 * of a commit.  A keepalive's position is the end of the last WAL record that the server has
 * decoded, and everything decoded before was sent before, so it moves the stream position like a
 * commit does.
 */
#include "stream.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "memory.h"
#include "stop_point.h"
#include "timeline.h"

#define RECEIVE_BYTES_PER_TURN (1024 * 1024)
#define FEEDBACK_INTERVAL_DEFAULT (10 * MICROS_PER_SECOND)

/*
 * A server that decodes one huge transaction may be silent for long.  A dead one is noticed by TCP;
 * this is for one that hangs.
 */
#define SILENCE_MAX (300 * MICROS_PER_SECOND)

/* News for the slot (a new flush position) may wait this long. */
#define FEEDBACK_NEWS_INTERVAL MICROS_PER_SECOND

/* Between PostgreSQL's epoch and Unix's. */
#define EPOCH_SECONDS INT64_C(946684800)

/* Message headers: kind, two LSNs and a time; kind, LSN, time, reply wanted. */
#define DATA_HEADER_BYTES 25
#define KEEPALIVE_BYTES 18
#define FEEDBACK_BYTES 34

bool
stream_connect(Stream *stream, const char *dbname, const char *slot, Lsn start_lsn,
			   const char *plugin_options, Error *error)
{
	memset(stream, 0, sizeof(*stream));
	if (!session_connect(&stream->session, "stream", dbname, true, error))
		return false;
	stream->state = STREAM_CONNECTING;
	stream->slot = slot;
	stream->start_lsn = start_lsn;
	stream->plugin_options = memory_copy_text(plugin_options);
	stream->feedback_interval_max = FEEDBACK_INTERVAL_DEFAULT;
	stream->silence_max = SILENCE_MAX;
	return true;
}

void
stream_expect_timeline(Stream *stream, int timeline_before, Lsn otherwise_lsn)
{
	stream->asks_timeline = true;
	stream->timeline_before = timeline_before;
	stream->otherwise_lsn = otherwise_lsn;
}

void
stream_close(Stream *stream)
{
	session_close(&stream->session);
	free(stream->plugin_options);
	stream->plugin_options = NULL;
	stream->state = STREAM_CLOSED;
}

/* ------------------------------------------------------------------------------------------------
 * Starting
 */

static bool
send_command(Stream *stream, const char *command, StreamState next, Error *error)
{
	if (!PQsendQuery(stream->session.conn, command))
		return error_from_connection(error, FAIL_RETRY, stream->session.conn,
									 "lost stream connection");
	stream->session.has_unsent = PQflush(stream->session.conn) > 0;
	stream->state = next;
	return true;
}

/*
 * One answer of one row, which says wal_sender_timeout first.  How text looks must not depend on what the connection string or the
 * role says.
 */
static bool
send_settings(Stream *stream, Error *error)
{
	Text  command = {0};
	char *encoding;
	bool  sent;

	text_append(&command, "SELECT pg_catalog.current_setting('wal_sender_timeout'), "
						  "pg_catalog.set_config('DateStyle', 'ISO', false), "
						  "pg_catalog.set_config('IntervalStyle', 'postgres', false), "
						  "pg_catalog.set_config('extra_float_digits', '3', false), "
						  "pg_catalog.set_config('bytea_output', 'hex', false)");
	if (stream->client_encoding != NULL)
	{
		encoding = PQescapeLiteral(stream->session.conn, stream->client_encoding,
								   strlen(stream->client_encoding));
		text_append_format(&command, ", pg_catalog.set_config('client_encoding', %s, false)", encoding);
		PQfreemem(encoding);
	}
	sent = send_command(stream, command.data, STREAM_IDENTIFYING, error);
	text_free(&command);
	return sent;
}

static bool
send_history_question(Stream *stream, Error *error)
{
	char command[64];

	snprintf(command, sizeof(command), "TIMELINE_HISTORY %d", stream->timeline);
	return send_command(stream, command, STREAM_ASKING_HISTORY, error);
}

static bool
send_start(Stream *stream, Error *error)
{
	Text  command = {0};
	char *slot = PQescapeIdentifier(stream->session.conn, stream->slot, strlen(stream->slot));
	bool  sent;

	text_append_format(&command, "START_REPLICATION SLOT %s LOGICAL %s (%s)", slot,
					   lsn_text(stream->start_lsn).text, stream->plugin_options);
	PQfreemem(slot);
	sent = send_command(stream, command.data, STREAM_STARTING, error);
	text_free(&command);
	return sent;
}

/* The answer to SHOW wal_sender_timeout: "1min", "500ms", "0". */
static void
take_timeout(Stream *stream, const char *timeout)
{
	char   unit[8] = "";
	long   number = 0;
	Micros micros = 0;

	if (sscanf(timeout, "%ld%7s", &number, unit) < 1 || number <= 0)
		return;
	if (strcmp(unit, "ms") == 0)
		micros = number * INT64_C(1000);
	else if (strcmp(unit, "s") == 0)
		micros = number * MICROS_PER_SECOND;
	else if (strcmp(unit, "min") == 0)
		micros = number * 60 * MICROS_PER_SECOND;
	else if (strcmp(unit, "h") == 0)
		micros = number * 3600 * MICROS_PER_SECOND;
	if (micros > 0 && micros / 3 < stream->feedback_interval_max)
		stream->feedback_interval_max = micros / 3;
}

/* The server has another timeline now, and this is its history (NULL: none that has to do with us). */
static void
take_history(Stream *stream, const char *history)
{
	if (history == NULL || !timeline_end(history, stream->timeline_before, &stream->timeline_end_lsn))
		stream->timeline_end_lsn = LSN_NONE;
	if (stream->start_lsn <= stream->timeline_end_lsn)
		return;
	stream->is_elsewhere = true;
	stream->start_lsn = stream->otherwise_lsn;
}

static void
take_timeline(Stream *stream, const PGresult *result)
{
	stream->timeline = atoi(PQgetvalue(result, 0, 1));
	if (stream->timeline < stream->timeline_before)
		take_history(stream, NULL);
}

static bool
take_start_result(Stream *stream, PGresult *result, Error *error)
{
	ExecStatusType status = PQresultStatus(result);

	if (status == PGRES_TUPLES_OK && PQntuples(result) == 1)
	{
		if (stream->state == STREAM_IDENTIFYING)
			take_timeout(stream, PQgetvalue(result, 0, 0));
		else if (stream->state == STREAM_ASKING_TIMELINE)
			take_timeline(stream, result);
		else if (stream->state == STREAM_ASKING_HISTORY)
			take_history(stream, PQgetvalue(result, 0, 1));
		return true;
	}
	if (stream->state == STREAM_STARTING && status == PGRES_COPY_BOTH)
	{
		stream->state = STREAM_STREAMING;
		stream->last_feedback_at = stream->last_receive_at = clock_now();
		return true;
	}
	error_from_result(error, FAIL_RETRY, result, NULL);
	return error_context(error, "could not start streaming from replication slot \"%s\"",
						 stream->slot);
}

/* The answer has been read to its end. */
static bool
send_next(Stream *stream, Error *error)
{
	if (stream->state == STREAM_IDENTIFYING && stream->asks_timeline)
		return send_command(stream, "IDENTIFY_SYSTEM", STREAM_ASKING_TIMELINE, error);
	if (stream->state == STREAM_ASKING_TIMELINE && stream->timeline_before != 0 &&
		stream->timeline > stream->timeline_before)
		return send_history_question(stream, error);
	return send_start(stream, error);
}

bool
stream_start(Stream *stream, bool *is_done, Error *error)
{
	Session *session = &stream->session;

	if (stream->state == STREAM_CONNECTING && session->state == SESSION_OPEN &&
		!send_settings(stream, error))
		return false;
	while (stream->state >= STREAM_IDENTIFYING && stream->state <= STREAM_STARTING &&
		   !PQisBusy(session->conn))
	{
		PGresult *result = PQgetResult(session->conn);
		bool	  taken;

		if (result == NULL)
		{
			if (!send_next(stream, error))
				return false;
			continue;
		}
		taken = take_start_result(stream, result, error);
		PQclear(result);
		if (!taken)
			return false;
	}
	*is_done = stream->state == STREAM_STREAMING;
	return true;
}

/* ------------------------------------------------------------------------------------------------
 * Receiving
 */

static uint64_t
read_uint64(const char *at)
{
	uint32_t high;
	uint32_t low;

	memcpy(&high, at, sizeof(high));
	memcpy(&low, at + sizeof(high), sizeof(low));
	return (uint64_t) ntohl(high) << 32 | ntohl(low);
}

static void
write_uint64(char *at, uint64_t value)
{
	uint32_t high = htonl((uint32_t) (value >> 32));
	uint32_t low = htonl((uint32_t) value);

	memcpy(at, &high, sizeof(high));
	memcpy(at + sizeof(high), &low, sizeof(low));
}

static bool
take_message(Stream *stream, const StreamSink *sink, const char *data, size_t length, Error *error)
{
	if (length >= DATA_HEADER_BYTES && data[0] == 'w')
		return sink->take_batch(sink->context, data + DATA_HEADER_BYTES, length - DATA_HEADER_BYTES,
								(int64_t) read_uint64(data + 17), error);
	if (length >= KEEPALIVE_BYTES && data[0] == 'k')
	{
		sink->take_keepalive(sink->context, read_uint64(data + 1), (int64_t) read_uint64(data + 9));
		if (data[17] != 0)
			stream->reply_is_requested = true;
		return true;
	}
	return error_set(error, FAIL_RETRY, "unexpected message of %zu bytes on the stream", length);
}

static bool
stream_ended(Stream *stream, Error *error)
{
	PGresult *result = PQgetResult(stream->session.conn);

	if (PQresultStatus(result) == PGRES_FATAL_ERROR)
		error_from_result(error, FAIL_RETRY, result, "the server ended the stream");
	else
		error_set(error, FAIL_RETRY, "the server ended the stream");
	PQclear(result);
	return false;
}

bool
stream_receive(Stream *stream, const StreamSink *sink, Micros now, bool *more, Error *error)
{
	PGconn *conn = stream->session.conn;
	size_t	received = 0;
	bool	is_drained = true; /* libpq's buffer, since it was filled the last time */

	*more = false;
	assert(stream->state == STREAM_STREAMING);
	while (received < RECEIVE_BYTES_PER_TURN)
	{
		char *data = NULL;
		int	  length = PQgetCopyData(conn, &data, 1);
		bool  taken;

		if (length == 0) /* nothing whole: ask the socket, unless it had nothing the last time */
		{
			if (is_drained)
				return true;
			is_drained = true;
			if (!PQconsumeInput(conn))
				return error_from_connection(error, FAIL_RETRY, conn, "lost stream connection");
			continue;
		}
		if (length < 0)
			return stream_ended(stream, error);
		is_drained = false;
		stream->last_receive_at = now;
		stream->ping_is_sent = false;
		received += (size_t) length;
		taken = take_message(stream, sink, data, (size_t) length, error);
		PQfreemem(data);
		if (!taken)
			return false;
	}
	*more = true;
	return true;
}

/* ------------------------------------------------------------------------------------------------
 * Feedback
 */

Micros
stream_feedback_due(const Stream *stream, Lsn flush_lsn)
{
	if (stream->state != STREAM_STREAMING)
		return MICROS_NEVER;
	if (stream->reply_is_requested)
		return 0;
	if (flush_lsn > stream->fed_back_flush_lsn)
		return stream->last_feedback_at + FEEDBACK_NEWS_INTERVAL;
	return stream->last_feedback_at + stream->feedback_interval_max;
}

static int64_t
server_epoch_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return ((int64_t) now.tv_sec - EPOCH_SECONDS) * MICROS_PER_SECOND + now.tv_nsec / 1000;
}

/*
 * Silence for as long as feedback may be late means that the server might be gone without a word:
 * ask for an answer, and believe it gone when none comes for very long.
 */
static bool
check_silence(Stream *stream, Micros now, bool *ask, Error *error)
{
	*ask = now - stream->last_receive_at >= stream->feedback_interval_max;
	if (!*ask || !stream->ping_is_sent)
		return true;
	if (now - stream->last_receive_at < stream->silence_max)
		return true;
	return error_set(error, FAIL_RETRY,
					 "the server has not answered on the stream for %lld seconds",
					 (long long) ((now - stream->last_receive_at) / MICROS_PER_SECOND));
}

bool
stream_feed_back(Stream *stream, const Feedback *feedback, Micros now, bool force, Error *error)
{
	Lsn	 write_lsn = feedback->write_lsn;
	Lsn	 flush_lsn = feedback->flush_lsn;
	char message[FEEDBACK_BYTES];
	bool is_news = flush_lsn > stream->fed_back_flush_lsn;
	bool ask;

	if (stream->state != STREAM_STREAMING ||
		(!force && stream_feedback_due(stream, flush_lsn) > now))
		return true;
	assert(flush_lsn <= write_lsn);
	assert(flush_lsn >= stream->fed_back_flush_lsn);
	if (!check_silence(stream, now, &ask, error))
		return false;
	if (is_news)
		stop_point_pass("before_feedback");

	message[0] = 'r';
	write_uint64(message + 1, write_lsn);
	write_uint64(message + 9, flush_lsn);
	write_uint64(message + 17, feedback->apply_lsn);
	write_uint64(message + 25, (uint64_t) server_epoch_now());
	message[33] = ask ? 1 : 0;
	if (PQputCopyData(stream->session.conn, message, sizeof(message)) < 0)
		return error_from_connection(error, FAIL_RETRY, stream->session.conn,
									 "lost stream connection");
	stream->session.has_unsent = PQflush(stream->session.conn) > 0;
	stream->ping_is_sent = ask;
	stream->reply_is_requested = false;
	stream->last_feedback_at = now;
	stream->fed_back_flush_lsn = flush_lsn;
	stream->fed_back_write_lsn = write_lsn;
	if (is_news)
		stop_point_pass("after_feedback");
	return true;
}

void
stream_finish(Stream *stream)
{
	if (stream->state != STREAM_STREAMING)
		return;
	PQputCopyEnd(stream->session.conn, NULL);
	/* What cannot be sent now is repeated by the server to whoever comes next. */
	PQsetnonblocking(stream->session.conn, 0);
	PQflush(stream->session.conn);
}
