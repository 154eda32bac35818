/*
 * delta/barrier_steps.h
 *     What the calls that wait behind the barrier share (barrier.c has the story).
 */
#ifndef PGTRICKLE_BARRIER_STEPS_H
#define PGTRICKLE_BARRIER_STEPS_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "executor/spi.h"
#include "privileged.h"
#include "stream_table.h"
#include "utils/timestamp.h"

/* What the repeated query tells; texts live in the memory context of the wait. */
typedef struct BarrierState
{
	bool	   exists;
	char	  *status;
	bool	   covers; /* the frontier covers the wanted snapshot */
	char	  *standing_upstream; /* a stopped one that it reads; NULL: none */
	bool	   waits_in_spool; /* the applier has let go of changes that are not in the rows */
	uint64	   own_xid; /* of the tick that moved the frontier last, 0: none */
	bool	   failed_since; /* a refresh has failed since the wait began */
	char	  *error_sqlstate;
	char	  *error_message;
	char	  *slot_name; /* NULL: no applier has ever been here */
	XLogRecPtr ack_lsn; /* persisted by the applier, 0: nothing */
	bool	   created_by_us; /* this transaction made the stream table */
	bool	   changed_by_us; /* this transaction changed its definition or state */
	char	  *answer; /* of verify, as JSON; NULL: not there yet */
} BarrierState;

typedef struct Barrier
{
	PrivilegedSection section;
	StreamTableName	  table;
	MemoryContext	  context; /* reset at each look */
	SPIPlanPtr		  plan;
	Datum			  wanted_snapshot; /* a pg_snapshot */
	char			 *nonce; /* of verify, else NULL */
	uint64			  own_xid_before;
	XLogRecPtr		  insert_lsn; /* above the commit record of all that the wanted snapshot sees */
	TimestampTz		  started_at;
	TimestampTz		  applier_seen_at;
	TimestampTz		  give_up_at; /* TIMESTAMP_INFINITY: never */
	BarrierState	  state;
} Barrier;

/*
 * One wait: begin (resolves the name with the caller's rights; the other one knows the table already), then look, check, sleep until it is over, end.
 */
extern void barrier_begin(Barrier *barrier, const char *name, StreamTableRight right, int64 timeout_ms);
extern void barrier_begin_for(Barrier *barrier, StreamTableName table, int64 timeout_ms);
extern void barrier_look(Barrier *barrier);
extern bool barrier_sleep(Barrier *barrier);	/* false: it is time to give up */
extern int64 barrier_waited_ms(Barrier *barrier);
extern void barrier_end(Barrier *barrier);

/* Errors: no tick will ever come; the refresh has failed since; nobody is there; only this transaction sees what it changed. */
extern void barrier_check_state(Barrier *barrier);
extern void barrier_check_failure(Barrier *barrier);
extern void barrier_check_applier(Barrier *barrier);
extern void barrier_refuse_own_change(Barrier *barrier);
extern void barrier_refuse_during_recovery(const char *what, const char *hint);
extern void barrier_raise_timeout(Barrier *barrier, const char *what);

/* Then nobody has to be waited for: writers have maintained it. */
extern bool barrier_is_immediate(Barrier *barrier);

/* Takes the wanted snapshot anew, and the position of the WAL after it. */
extern void barrier_take_snapshot(Barrier *barrier);

/* Asks the applier for a tick with this stream table, whatever its schedule and whether anything changed; the nonce, or NULL, comes back with the answer. */
extern void barrier_ask(Barrier *barrier, const char *verb, const char *nonce);
extern char *barrier_new_nonce(void);

/* Runs a query with a snapshot newer than all that the caller may hold. */
extern void barrier_execute_latest(SPIPlanPtr plan, Datum *arguments, const char *nulls);

#endif							/* PGTRICKLE_BARRIER_STEPS_H */
