/*
 * applier/applier.h
 *     The daemon's state: one connection epoch, and what outlives it.
 *
 *     CLOSED -> ATTACHING (attach.c) -> RUNNING (run.c) -> CLOSED, after an error, and again
 *
 * All three connections are made and lost together.  An epoch starts from what the database has
 * persisted and from the slot's position; nothing of it is carried over to the next one.
 */
#ifndef PGTRICKLE_APPLIER_APPLIER_H
#define PGTRICKLE_APPLIER_APPLIER_H

#include "ack.h"
#include "control.h"
#include "options.h"
#include "stream.h"
#include "tick.h"

typedef enum EpochState
{
	EPOCH_CLOSED,
	EPOCH_ATTACHING,
	EPOCH_RUNNING
} EpochState;

/* The steps of attaching, in order. */
typedef enum AttachStep
{
	ATTACH_CONNECT, /* fence and refresh connection */
	ATTACH_SETTINGS, /* of both */
	ATTACH_LOCK, /* no other applier's refresh session is left */
	ATTACH_LOOK, /* at the server, the slot, what was persisted */
	ATTACH_DROP_SLOT, /* it is invalid */
	ATTACH_CREATE_SLOT, /* there is none */
	ATTACH_CATALOG, /* for the interest list */
	ATTACH_STREAM, /* from here on the slot is ours */
	ATTACH_LOOK_AGAIN, /* is the slot where we left it? */
	ATTACH_STARTED, /* tell the database, with the reason if not */
	ATTACH_PERSIST, /* then also the slot's position */
	ATTACH_LOOK_LAST, /* what applier_started() decided */
	ATTACH_CATALOG_AGAIN, /* and about which stream tables */
	ATTACH_DONE
} AttachStep;

/* One row of sql/server_state.sql. */
typedef struct ServerState
{
	bool	 is_in_recovery;
	char	 system_identifier[24];
	int		 timeline;
	uint64_t wal_segment_bytes;
	char	 persisted_system_identifier[24]; /* empty: never started */
	int		 persisted_timeline;
	char	 persisted_slot[64];
	Lsn		 persisted_ack_lsn; /* LSN_NONE: none */
	Xid		 valid_xid;
	bool	 slot_exists;
	bool	 slot_is_ours; /* our plugin, this database */
	bool	 slot_is_active;
	int		 slot_active_pid;
	bool	 slot_is_lost;
	Lsn		 confirmed_flush_lsn;
} ServerState;

typedef struct Applier
{
	const Options *options;
	char		   slot[64]; /* empty until the database's name is known */

	/* What outlives a connection. */
	int	   connect_failures;
	Micros connect_at;
	bool   said_waiting; /* that another applier is at work, once */
	bool   stop_requested;

	/* The epoch. */
	EpochState epoch;
	Buffer	  *buffer;
	Settle	  *settle;
	Schedule  *schedule;
	Intake	  *intake;
	Catalog	  *catalog;
	Stream	   stream;
	Control	   control;
	Tick	   tick;
	Ack		   ack;
	Remotes	   remotes; /* known as long as the process lives; their connections belong to the epoch */

	/* Attaching. */
	AttachStep	step;
	bool		step_is_sent;
	bool		settings_done[2]; /* refresh, fence */
	Micros		step_again_at; /* MICROS_NEVER: not waiting */
	bool		lock_is_ours;
	ServerState server;
	char		gap_reason[256]; /* empty: the stream continues where it was left */

	/* Running. */
	bool	  catalog_is_loading;
	bool	  catalog_is_taken; /* its part of the answer has come; that of the remotes follows */
	Micros	  catalog_reload_at; /* MICROS_NEVER: no need */
	Micros	  catalog_reload_delay;
	Micros	  tick_at; /* not before */
	int		  tick_failures; /* in a row, without blame */
	Lsn		  tick_when_reached; /* LSN_NONE: the stream is not too far behind */
	Micros	  tick_when_waited;
	Micros	  next_due;
	Micros	  spool_at; /* when changes have waited long enough */
	Micros	  spool_not_before; /* after a failure */
	bool	  spool_helps; /* the last time it made room */
	Lsn		  persisted_ack_lsn;
	Lsn		  persisted_stream_lsn; /* the stream position at the last persisting */
	Micros	  persisted_at;
	bool	  persisted_by_tick; /* and not by a heartbeat after it */
	Snapshot *settle_snapshot; /* of a heartbeat; waits until the stream has reached its position */
	Lsn		  settle_insert_lsn;
	bool	  last_heartbeat_sent; /* while stopping */
	uint64_t  ticks_committed;
} Applier;

/* attach.c */
extern bool attach_start(Applier *applier, Error *error) MUST_CHECK;
extern bool attach_advance(Applier *applier, Micros now, Error *error) MUST_CHECK;

/* refresh.c */
extern bool applier_use_refresh_connection(Applier *applier, Micros now, Error *error) MUST_CHECK;
extern void applier_wish_catalog(Applier *applier, Micros at);
/* also used while attaching */
extern bool applier_take_catalog(Applier *applier, const PGresult *result, Error *error) MUST_CHECK;

/* outcome.c: false when not even that could be said. */
extern bool applier_end_tick(Applier *applier, Micros now, Error *error) MUST_CHECK;

/* heartbeat.c */
extern void	  applier_note_persisted(Applier *applier, Lsn ack_lsn, Lsn stream_lsn, Micros now);
extern void	  applier_take_heartbeat(Applier *applier, Micros now);
extern void	  applier_settle_by_heartbeat(Applier *applier);
extern Micros applier_heartbeat_due(const Applier *applier);
extern bool applier_consider_heartbeat(Applier *applier, Micros now, Error *error) MUST_CHECK;

/* run.c */
extern int applier_run(const Options *options);

#endif /* PGTRICKLE_APPLIER_APPLIER_H */
