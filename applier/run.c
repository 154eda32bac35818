/*
 * applier/run.c
 *     The daemon: one loop over three connections, and what a failure of one of them means.
 *
 * Each turn waits for sockets, signals or the nearest deadline, does everything that is possible
 * without waiting, and bounds how much it reads, so that feedback is never late.  With nothing
 * pending the nearest deadline is that of feedback: no ticks, no WAL, no work.
 */
#include "applier.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "memory.h"
#include "server.h"

#define CONNECT_DELAY_FIRST (200 * INT64_C(1000))
#define CONNECT_DELAY_MAX (30 * MICROS_PER_SECOND)

/* ------------------------------------------------------------------------------------------------
 * Signals
 */

static volatile sig_atomic_t got_sigterm;
static volatile sig_atomic_t got_sigint;
static volatile sig_atomic_t got_sighup;

static void
note_signal(int signal_number)
{
	if (signal_number == SIGTERM)
		got_sigterm++;
	else if (signal_number == SIGINT)
		got_sigint++;
	else if (signal_number == SIGHUP)
		got_sighup++;
}

/*
 * They are blocked everywhere but in ppoll, so none is missed between looking and waiting.  The end of a child (copy_worker.h) has
 * only to end the waiting.
 */
static void
catch_signals(sigset_t *while_waiting)
{
	struct sigaction action = {.sa_handler = note_signal};
	sigset_t		 ours;

	sigemptyset(&ours);
	sigaddset(&ours, SIGTERM);
	sigaddset(&ours, SIGINT);
	sigaddset(&ours, SIGHUP);
	sigaddset(&ours, SIGCHLD);
	sigprocmask(SIG_BLOCK, &ours, while_waiting);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	sigaction(SIGCHLD, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	sigdelset(while_waiting, SIGTERM);
	sigdelset(while_waiting, SIGINT);
	sigdelset(while_waiting, SIGHUP);
	sigdelset(while_waiting, SIGCHLD);
}

/* ------------------------------------------------------------------------------------------------
 * Epochs
 */

static void
free_catalog(Applier *applier)
{
	for (size_t i = 0; applier->catalog != NULL && i < applier->catalog->count; i++)
		pending_free(applier->buffer, &applier->catalog->tables[i]->run.pending);
	catalog_free(applier->catalog);
	applier->catalog = NULL;
}

static void
close_epoch(Applier *applier)
{
	if (applier->epoch == EPOCH_CLOSED)
		return;
	/* The stream first: a server that shuts down waits for it. */
	stream_close(&applier->stream);
	tick_reset(&applier->tick);
	remotes_close(&applier->remotes);
	control_reset(&applier->control);
	free_catalog(applier);
	intake_free(applier->intake);
	schedule_free(applier->schedule);
	settle_free(applier->settle);
	buffer_free(applier->buffer);
	snapshot_release(applier->settle_snapshot);
	applier->settle_snapshot = NULL;
	applier->epoch = EPOCH_CLOSED;
}

static bool
open_epoch(Applier *applier, Error *error)
{
	const Options *options = applier->options;

	applier->buffer = buffer_create(options->buffer_bytes_max, options->spill_bytes_max,
									options->spill_directory);
	applier->settle = settle_create();
	applier->schedule = schedule_create();
	applier->intake = intake_create(applier->buffer, applier->settle, applier->schedule);
	memset(&applier->stream, 0, sizeof(applier->stream));
	memset(&applier->control, 0, sizeof(applier->control));
	memset(&applier->tick, 0, sizeof(applier->tick));
	memset(&applier->ack, 0, sizeof(applier->ack));
	tick_init(&applier->tick, &applier->control, applier->intake, &applier->remotes);
	applier->catalog_is_loading = false;
	applier->catalog_reload_at = MICROS_NEVER;
	applier->catalog_reload_delay = 0;
	applier->tick_at = 0;
	applier->tick_failures = 0;
	applier->tick_when_reached = LSN_NONE;
	applier->next_due = 0;
	applier->spool_at = MICROS_NEVER;
	applier->spool_not_before = 0;
	applier->spool_helps = true;
	applier->last_heartbeat_sent = false;
	return attach_start(applier, error);
}

/* What to say and do about an error that ended the epoch.  False: the process ends. */
static bool
survive(Applier *applier, const Error *error, Micros now)
{
	close_epoch(applier);
	if (applier->stop_requested)
		return false;
	if (error->kind == FAIL_FATAL)
	{
		log_error(LEVEL_FATAL, error);
		return false;
	}
	applier->connect_failures++;
	applier->connect_at =
		now + retry_delay(applier->connect_failures, CONNECT_DELAY_FIRST, CONNECT_DELAY_MAX);
	if (!error_is(error, "55006")) /* that we wait for another applier was said */
		log_error(LEVEL_WARNING, error);
	return true;
}

/* ------------------------------------------------------------------------------------------------
 * One turn
 */

static bool
run_epoch(Applier *applier, Micros now, Error *error)
{
	applier_take_heartbeat(applier, now);
	applier_settle_by_heartbeat(applier);
	/* The remotes first: they make ticks and reading the catalog due. */
	if (!remotes_turn(&applier->remotes, &applier->control, applier->intake->stream_lsn, now, error) ||
		!applier_use_refresh_connection(applier, now, error))
		return false;
	(void) ack_stream_reached(&applier->ack, applier->intake->stream_lsn);
	return applier->stop_requested || applier_consider_heartbeat(applier, now, error);
}

/* What the loop waits for: three connections of the target, and those of the remotes. */
#define FDS_OF_TARGET 3

typedef struct Waiting
{
	struct pollfd *fds;
	size_t		   count;
} Waiting;

static bool
take_batch(void *intake, const void *data, size_t length, int64_t server_time, Error *error)
{
	return intake_batch(intake, data, length, server_time, error);
}

static void
take_keepalive(void *intake, Lsn wal_end, int64_t server_time)
{
	(void) server_time;
	intake_keepalive(intake, wal_end);
}

static bool
serve_sockets(Applier *applier, const Waiting *waiting, Micros now, bool *more, Error *error)
{
	const struct pollfd *fds = waiting->fds;
	const StreamSink	 sink = {take_batch, take_keepalive, applier->intake};
	bool				 has_more = false;

	*more = false;
	remotes_serve(&applier->remotes, fds + FDS_OF_TARGET, waiting->count - FDS_OF_TARGET,
				  &applier->control, now, more);
	if (!session_service(&applier->stream.session, fds[0].revents, now, error) ||
		!session_service(&applier->tick.session, fds[1].revents, now, error) ||
		!session_service(&applier->control.session, fds[2].revents, now, error))
		return false;
	if (applier->stream.state == STREAM_STREAMING &&
		!stream_receive(&applier->stream, &sink, now, &has_more, error))
		return false;
	*more |= has_more;
	return true;
}

/*
 * Applied is what the commits of ticks have made visible, whatever of it has been persisted: by that the server knows how fresh the
 * stream tables are while nothing happens that would be worth persisting.
 */
static bool
feed_back(Applier *applier, Micros now, bool force, Error *error)
{
	Feedback feedback = {applier->intake->stream_lsn, applier->ack.acknowledged_lsn,
						 applier->ack.acknowledged_lsn};

	if (!force && stream_feedback_due(&applier->stream, feedback.flush_lsn) > now)
		return true;
	if (applier->epoch == EPOCH_RUNNING)
		feedback.apply_lsn =
			lsn_max(feedback.flush_lsn, plan_ack_lsn(NULL, applier->intake));
	return stream_feed_back(&applier->stream, &feedback, now, force, error);
}

static bool
take_turn(Applier *applier, Micros now, Error *error)
{
	if (applier->epoch == EPOCH_CLOSED)
		return now < applier->connect_at || open_epoch(applier, error);
	if (applier->epoch == EPOCH_ATTACHING)
	{
		if (!attach_advance(applier, now, error))
			return false;
		if (applier->step == ATTACH_DONE)
		{
			applier->epoch = EPOCH_RUNNING;
			applier->connect_failures = 0;
			applier->said_waiting = false;
			applier_note_persisted(applier, applier->persisted_ack_lsn, applier->intake->stream_lsn, now);
			applier_wish_catalog(applier, now); /* for the remotes */
		}
	}
	if (applier->epoch == EPOCH_RUNNING &&
		(!control_advance(&applier->control, error) || !run_epoch(applier, now, error)))
		return false;
	return feed_back(applier, now, false, error);
}

/*
 * SIGTERM: the running tick ends, progress is persisted and fed back.  True when there is nothing
 * left to do.
 */
static bool
may_leave(Applier *applier, Micros now, Error *error)
{
	if (applier->epoch != EPOCH_RUNNING)
		return true;
	remotes_stop_workers(&applier->remotes);
	if (applier->tick.state != TICK_IDLE || applier->catalog_is_loading ||
		applier->control.heartbeat_is_running || remotes_have_workers(&applier->remotes))
		return false;
	if (!applier->last_heartbeat_sent)
	{
		applier->last_heartbeat_sent = true;
		if (plan_ack_lsn(NULL, applier->intake) > applier->persisted_ack_lsn)
			return !control_send_heartbeat(&applier->control, plan_ack_lsn(NULL, applier->intake),
										   applier->intake->stream_lsn, error);
	}
	if (feed_back(applier, now, true, error))
		stream_finish(&applier->stream);
	remotes_finish(&applier->remotes, now);
	return true;
}

/* ------------------------------------------------------------------------------------------------
 * Waiting
 */

static Micros
earlier(Micros a, Micros b)
{
	return a < b ? a : b;
}

static Micros
next_deadline(const Applier *applier)
{
	Micros deadline = MICROS_NEVER;

	if (applier->epoch == EPOCH_CLOSED)
		return applier->connect_at;
	if (applier->epoch == EPOCH_ATTACHING)
	{
		deadline = applier->step_again_at;
		if (applier->tick.session.state == SESSION_CONNECTING)
			deadline = earlier(deadline, applier->tick.session.connect_deadline);
		if (applier->control.session.state == SESSION_CONNECTING)
			deadline = earlier(deadline, applier->control.session.connect_deadline);
		if (applier->stream.session.state == SESSION_CONNECTING)
			deadline = earlier(deadline, applier->stream.session.connect_deadline);
	}
	else if (applier->tick.state == TICK_FENCE)
		deadline = applier->tick.give_up_at;
	else if (applier->tick.state == TICK_IDLE && !applier->catalog_is_loading)
	{
		deadline = earlier(applier->next_due, applier_heartbeat_due(applier));
		deadline = earlier(deadline, applier->spool_at);
		if (applier->control.queue_length == 0)
			deadline = earlier(deadline, applier->catalog_reload_at);
	}
	if (applier->epoch == EPOCH_RUNNING)
		deadline = earlier(deadline, remotes_deadline(&applier->remotes));
	return earlier(deadline, stream_feedback_due(&applier->stream, applier->ack.acknowledged_lsn));
}

static void
fill_pollfd(struct pollfd *fd, const Session *session)
{
	fd->fd = session_socket(session);
	fd->events = session_events(session);
	fd->revents = 0;
}

/* Waits for a socket, a signal or the deadline. */
static void
wait_for_something(const Applier *applier, Waiting *waiting, bool at_once,
				   const sigset_t *while_waiting)
{
	size_t			count = FDS_OF_TARGET + remotes_pollfd_count(&applier->remotes);
	Micros			deadline = at_once ? 0 : next_deadline(applier);
	Micros			left = deadline == MICROS_NEVER ? 0 : deadline - clock_now();
	struct timespec timeout = {0, 0};

	if (left > 0)
	{
		timeout.tv_sec = left / MICROS_PER_SECOND;
		timeout.tv_nsec = (left % MICROS_PER_SECOND) * 1000;
	}
	waiting->fds = memory_resize(waiting->fds, count * sizeof(struct pollfd));
	waiting->count = count;
	fill_pollfd(&waiting->fds[0], &applier->stream.session);
	fill_pollfd(&waiting->fds[1], &applier->tick.session);
	fill_pollfd(&waiting->fds[2], &applier->control.session);
	remotes_fill_pollfds(&applier->remotes, waiting->fds + FDS_OF_TARGET);
	if (ppoll(waiting->fds, count, deadline == MICROS_NEVER ? NULL : &timeout, while_waiting) < 0)
	{
		for (size_t i = 0; i < count; i++)
			waiting->fds[i].revents = 0;
	}
}

/* ------------------------------------------------------------------------------------------------
 * The loop
 */

/* A backend that works for nobody is stopped, not waited for. */
static void
cancel_tick(Applier *applier)
{
	char	  message[256];
	PGcancel *cancel;

	if (applier->tick.state == TICK_IDLE)
		return;
	cancel = PQgetCancel(applier->tick.session.conn);
	if (cancel != NULL)
		(void) PQcancel(cancel, message, sizeof(message));
	PQfreeCancel(cancel);
}

static bool
obey_signals(Applier *applier)
{
	if (got_sigint || got_sigterm > 1)
	{
		log_event(LEVEL_LOG, "leaving at once");
		cancel_tick(applier);
		return false;
	}
	if (got_sigterm && !applier->stop_requested)
	{
		log_event(LEVEL_LOG, "received SIGTERM: finishing");
		applier->stop_requested = true;
	}
	if (got_sighup)
	{
		got_sighup = 0;
		log_event(LEVEL_LOG, "received SIGHUP: reading the catalog again");
		applier_wish_catalog(applier, 0);
	}
	return true;
}

int
applier_run(const Options *options)
{
	Applier		  applier = {.options = options, .epoch = EPOCH_CLOSED};
	Waiting		  waiting = {memory_take_zeroed(FDS_OF_TARGET * sizeof(struct pollfd)), FDS_OF_TARGET};
	sigset_t	  while_waiting;
	bool		  more = false;
	bool		  failed = false;

	remotes_init(&applier.remotes, options);
	catch_signals(&while_waiting);
	srandom((unsigned int) clock_now() ^ (unsigned int) getpid());
	log_event(LEVEL_LOG, "pgtrickle %s started", PGTRICKLE_VERSION);
	while (obey_signals(&applier))
	{
		Error  error = {0};
		Micros now = clock_now();
		bool   is_well =
			serve_sockets(&applier, &waiting, now, &more, &error) && take_turn(&applier, now, &error);

		if (is_well && applier.stop_requested && may_leave(&applier, now, &error))
			break;
		if ((!is_well || error.kind != FAIL_NONE) && !survive(&applier, &error, now))
		{
			failed = !applier.stop_requested;
			break;
		}
		wait_for_something(&applier, &waiting, more, &while_waiting);
	}
	remotes_stop_workers(&applier.remotes);
	close_epoch(&applier);
	remotes_free(&applier.remotes);
	free(waiting.fds);
	log_event(LEVEL_LOG, "pgtrickle stopped");
	return failed ? 1 : 0;
}
