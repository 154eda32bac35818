/*
 * applier/stream.h
 *     The replication protocol: starting the stream, its messages, feedback.
 *
 *     CONNECTING -> IDENTIFYING -> (ASKING_TIMELINE -> (ASKING_HISTORY ->)) STARTING -> STREAMING
 *
 * Reading is always going on, whatever the rest does; feedback goes out on a timer, so that the
 * server never waits for a slow tick.  Which position is fed back as flushed is decided elsewhere
 * (ack.h).
 */
#ifndef PGTRICKLE_APPLIER_STREAM_H
#define PGTRICKLE_APPLIER_STREAM_H

#include "lsn.h"
#include "session.h"

typedef enum StreamState
{
	STREAM_CLOSED,
	STREAM_CONNECTING,
	STREAM_IDENTIFYING,
	STREAM_ASKING_TIMELINE,
	STREAM_ASKING_HISTORY,
	STREAM_STARTING,
	STREAM_STREAMING
} StreamState;

typedef struct Stream
{
	Session		session;
	StreamState state;
	const char *slot;
	Lsn			start_lsn; /* what START_REPLICATION was given */
	char	   *plugin_options;
	const char *client_encoding; /* of what the plugin sends as text; NULL: as the connection has it */

	/* Of a server that may have been replaced by a standby of it; see stream_expect_timeline. */
	bool asks_timeline;
	int	 timeline; /* the server's */
	int	 timeline_before; /* on which start_lsn was reached; 0: not known */
	Lsn	 timeline_end_lsn; /* where that one was left; LSN_NONE: the present one does not descend from it */
	bool is_elsewhere; /* start_lsn is not in the history of this server: started at otherwise_lsn */
	Lsn	 otherwise_lsn;

	Micros feedback_interval_max; /* at most a third of wal_sender_timeout */
	Micros last_feedback_at;
	Micros last_receive_at;
	Micros silence_max; /* a server that says nothing for longer, although asked, is gone */
	Lsn	   fed_back_flush_lsn;
	Lsn	   fed_back_write_lsn;
	bool   reply_is_requested; /* by the server */
	bool   ping_is_sent; /* by us, after a long silence */
} Stream;

/*
 * Whom the stream hands over what it brings.  `server_time` is when the server sent it, in its clock (PostgreSQL's
 * epoch).
 */
typedef struct StreamSink
{
	bool (*take_batch)(void *context, const void *data, size_t length, int64_t server_time,
					   Error *error);
	void (*take_keepalive)(void *context, Lsn wal_end, int64_t server_time);
	void *context;
} StreamSink;

/*
 * Starts to connect; streams from the slot when it gets there: what commits at `start_lsn` or later, and not before the slot's own
 * position (LSN_NONE: from there).  `plugin_options` stand in the command as they are: "name" 'value', ...
 */
extern bool stream_connect(Stream *stream, const char *dbname, const char *slot, Lsn start_lsn,
						   const char *plugin_options, Error *error) MUST_CHECK;
extern void stream_close(Stream *stream);

/*
 * To be called before it is connected: `start_lsn` was reached on `timeline_before` (0: forget about it).  If the server is on
 * another timeline now, and that one was left before start_lsn, the stream starts at `otherwise_lsn`, and stream->is_elsewhere.
 */
extern void stream_expect_timeline(Stream *stream, int timeline_before, Lsn otherwise_lsn);

/*
 * Goes as far as it can without waiting; *is_done when it streams.  An active slot is SQLSTATE
 * 55006.
 */
extern bool stream_start(Stream *stream, bool *is_done, Error *error) MUST_CHECK;

/* Hands over what has arrived, up to a bound; *more when there may be more to read at once. */
extern bool
stream_receive(Stream *stream, const StreamSink *sink, Micros now, bool *more, Error *error) MUST_CHECK;

/* When feedback is due next. */
extern Micros stream_feedback_due(const Stream *stream, Lsn flush_lsn);

/* What a feedback message says. */
typedef struct Feedback
{
	Lsn write_lsn; /* received */
	Lsn flush_lsn; /* the slot may go on from here */
	Lsn apply_lsn; /* everything before it is in the stream tables, if not yet safe from a crash */
} Feedback;

/* Sends feedback when it is due, or `force`d. */
extern bool stream_feed_back(Stream *stream, const Feedback *feedback, Micros now, bool force,
							 Error *error) MUST_CHECK;

/* Says goodbye to the server, after the last feedback. */
extern void stream_finish(Stream *stream);

#endif /* PGTRICKLE_APPLIER_STREAM_H */
