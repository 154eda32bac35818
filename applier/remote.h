/*
 * applier/remote.h
 *     A remote: a database elsewhere whose tables have copies here.
 *
 *     CLOSED -> LOOKING -> (DROPPING, CREATING ->) STARTING -> LOOKING_AGAIN -> TELLING -> DECLARING -> RELOADING -> RUNNING
 *        ^                                                                                    ^                         |
 *        +--- an error, another list of relations, paused ---+                                +---- copies wanted ------+
 *
 * Each remote has connections of its own, which come and go by themselves: one that is down keeps nobody else waiting, and knows nothing
 * of the local stream.  What is durable is the position (pgt_remotes.position): everything that committed before it is in the
 * copies.  A new connection starts there, and the transactions behind it come again.
 *
 * What the target is told about a remote goes over the fence connection (control.h); what a tick takes from it is in remote_plan.h.
 */
#ifndef PGTRICKLE_APPLIER_REMOTE_H
#define PGTRICKLE_APPLIER_REMOTE_H

#include <poll.h>

#include "ack.h"
#include "catalog.h"
#include "control.h"
#include "copy_worker.h"
#include "decompression.h"
#include "options.h"
#include "pgoutput.h"
#include "remote_intake.h"
#include "stream.h"

typedef enum RemoteState
{
	REMOTE_CLOSED,
	REMOTE_LOOKING, /* at the server and the slot */
	REMOTE_DROPPING, /* the slot is invalid */
	REMOTE_CREATING, /* there is none */
	REMOTE_STARTING, /* the stream; from here on the slot is ours */
	REMOTE_LOOKING_AGAIN, /* is the slot where we left it? */
	REMOTE_TELLING, /* the target, from where on the stream runs */
	REMOTE_DECLARING, /* and which relations it carries */
	REMOTE_RELOADING, /* what the target has made of it */
	REMOTE_RUNNING
} RemoteState;

/* One row of sql/remote_look.sql. */
typedef struct RemoteServer
{
	bool	 is_in_recovery; /* a standby */
	char	 system_identifier[24];
	int		 timeline;
	uint64_t wal_segment_bytes;
	Lsn		 insert_lsn;
	Xid		 recent_xid;
	bool	 slot_exists;
	bool	 slot_is_ours; /* our plugin, this database */
	bool	 slot_is_active;
	int		 slot_active_pid;
	bool	 slot_is_lost;
	Lsn		 confirmed_flush_lsn;
} RemoteServer;

/* The front of a remote's buffer; see remote_plan.h. */
typedef struct Prefix
{
	Transaction *last; /* NULL: no transaction */
	size_t		 transaction_count;
	uint64_t	 bytes;
	Lsn			 position; /* what the target has when it is applied */
	int64_t		 position_time;
	bool		 is_worth_it; /* some copy is touched, or can be switched in */
} Prefix;

typedef struct Remote
{
	/* As the target has it. */
	int	  remote_id;
	char *name;
	char *conninfo;
	char *plugin;
	char *publication; /* NULL: none */
	char *compression; /* of the stream; "none" or "zstd" */
	char *slot;
	char *system_identifier; /* of what it followed last; NULL: nothing yet */
	int	  timeline;
	bool  is_paused;
	bool  is_listed; /* scratch of loading */

	/* Everything that committed before it is in the copies; LSN_NONE: nothing was ever followed. */
	Lsn		position;
	int64_t position_time; /* the remote's clock at that moment, 0: not known */

	/* The last transaction that was applied; 0: none is known. */
	Xid	 last_xid;
	Lsn	 last_commit_lsn;
	char other_history[128]; /* not empty: the server's history is another, and how that was seen */

	/* What outlives a connection. */
	int		   connect_failures;
	Micros	   connect_at;
	char	   told_failure[256]; /* what the target was told last, or empty */
	Micros	   told_failure_at;
	bool	   said_waiting; /* that somebody else has the slot, once */
	CopyWorker worker;

	/* Failures of ticks for which no copy is to blame. */
	int	   tick_failures;
	Micros retry_at;
	bool   is_doubtful; /* somebody else may have moved the position */

	/* The epoch. */
	RemoteState	  state;
	bool		  reload_is_sent; /* RELOADING: the answer on its way counts */
	Micros		  step_again_at; /* MICROS_NEVER: not waiting */
	Session		  control; /* only until the stream runs */
	Stream		  stream;
	RemoteIntake *intake; /* NULL before the stream is started */
	Pgoutput	 *pgoutput; /* turns what that plugin says into our records; NULL: the stream has them */
	Decompression *decompression; /* NULL: the stream is not compressed */
	RemoteServer  server;
	char		  database_name[64];
	Lsn			  start_lsn;
	char		  gap_reason[256]; /* empty: the stream continues where it was left */
	Ack			  ack;
	bool		  is_full; /* nothing is read, for now */
	bool		  telling_is_running; /* the target is being told where the stream has started, by this connection or one before */
	bool		  is_giving_up; /* the target is being told of a transaction that was too large */
	Lsn			  giving_up_lsn; /* its commit */
	bool		  heartbeat_is_running;
	Lsn			  heartbeat_lsn;
	int64_t		  heartbeat_time;
	Micros		  persisted_at;
	Lsn			  released_lsn; /* the end of the last transaction that left the buffer, and when it was committed */
	int64_t		  released_time;
	unsigned int  epoch; /* counts, so that late answers are known */

	/* What the next tick would take, or the running one takes. */
	Prefix prefix;
	bool   in_tick; /* the running one has a change set of it: its buffer must stay */
	bool   must_turn; /* something has happened since its last turn that it may have to act on */
	Micros wake_at; /* something that stopped the prefix may have gone; MICROS_NEVER: nothing has */

	/* Its copies in the loaded catalog, by remote_relid. */
	StreamTable **copies;
	size_t		  copy_count;
} Remote;

typedef struct Remotes
{
	const Options *options;
	Remote		 **items;
	size_t		   count;
	uint64_t	   prefix_bytes_max; /* of what a tick takes from one of them */
	bool		   wants_catalog; /* something was told that changes it */
	bool		   may_have_news; /* since the last look, a tick may have become possible */
} Remotes;

/* ------------------------------------------------------------------------------------------------
 * All of them (remotes.c)
 */

extern void remotes_init(Remotes *remotes, const Options *options);
extern void remotes_free(Remotes *remotes);

/* Ends all connections: those to the target are lost.  The remotes stay known. */
extern void remotes_close(Remotes *remotes);

/*
 * What the target lists (sql/remotes.sql), and the copies of the catalog that was loaded after it.  No tick may be running.
 */
extern bool remotes_use_rows(Remotes *remotes, const PGresult *result, Micros now, Error *error) MUST_CHECK;
extern void remotes_use_catalog(Remotes *remotes, const Catalog *catalog, Micros now);
extern void remotes_reload_is_sent(Remotes *remotes);

/* Serves sockets; `fds` are those that remotes_fill_pollfds() filled.  *more: there may be more to read at once. */
extern size_t remotes_pollfd_count(const Remotes *remotes);
extern void	  remotes_fill_pollfds(const Remotes *remotes, struct pollfd *fds);
extern void	  remotes_serve(Remotes *remotes, const struct pollfd *fds, size_t fd_count,
							Control *control, Micros now, bool *more);

/*
 * Everything that can be done without waiting.  `stream_lsn`: the position of the local stream, which says what is on disk.  An
 * error is one of the target's connection.
 */
extern bool remotes_turn(Remotes *remotes, Control *control, Lsn stream_lsn, Micros now,
						 Error *error) MUST_CHECK;

/* Before leaving: feedback; and no process that copies is left behind. */
extern void remotes_finish(Remotes *remotes, Micros now);
extern void remotes_stop_workers(Remotes *remotes);
extern bool remotes_have_workers(const Remotes *remotes);

extern Micros  remotes_deadline(const Remotes *remotes);
extern Remote *remotes_find(const Remotes *remotes, int remote_id);

/* ------------------------------------------------------------------------------------------------
 * One of them (remote.c)
 */

extern void remote_close(Remote *remote);

/* Failed, for whatever reason: said, told to the target (if there is a control), and tried again later. */
extern void remote_failed(Remote *remote, Control *control, const Error *error, Micros now);

/* Its transactions may be taken by a tick. */
static inline bool
remote_is_ready(const Remote *remote, Micros now)
{
	return remote->state == REMOTE_RUNNING && !remote->heartbeat_is_running && now >= remote->retry_at;
}

/* Errors of these three are the remote's own. */
extern bool remote_serve(Remote *remote, const struct pollfd *fds, Micros now, bool *more,
						 Error *error) MUST_CHECK;
extern bool remote_turn(Remote *remote, Remotes *remotes, Control *control, Micros now,
						Error *error) MUST_CHECK;
extern bool remote_feed_back(Remote *remote, Micros now, bool force, Error *error) MUST_CHECK;

/* Errors of these three are the target's. */
extern bool remote_take_answer(Remote *remote, Remotes *remotes, Control *control,
							   const RemoteAnswer *answer, Micros now, Error *error) MUST_CHECK;
extern bool remote_give_up(Remote *remote, Control *control, Error *error) MUST_CHECK;
extern bool remote_report(Remote *remote, Control *control, Lsn stream_lsn, Micros now,
						  Error *error) MUST_CHECK;

extern Micros remote_deadline(const Remote *remote);

/* ------------------------------------------------------------------------------------------------
 * Its copies (remote_copies.c)
 */

extern void remote_find_copies(Remote *remote, const Catalog *catalog);

/* The copies of one of its relations: the first of *count neighbours, or NULL. */
extern StreamTable *const *remote_copies_of(const Remote *remote, Oid relid, size_t *count);

/* ------------------------------------------------------------------------------------------------
 * From nothing to RELOADING (remote_attach.c); errors of the first two are the remote's own
 */

extern bool remote_attach_start(Remote *remote, Error *error) MUST_CHECK;
extern bool remote_declare(Remote *remote, Control *control, Error *error) MUST_CHECK;

/* Does the stream carry what the copies need, and nothing else? */
extern bool remote_stream_is_right(const Remote *remote);
extern bool remote_attach_advance(Remote *remote, Remotes *remotes, Control *control, Micros now,
								  Error *error) MUST_CHECK;

#endif /* PGTRICKLE_APPLIER_REMOTE_H */
