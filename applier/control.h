/*
 * applier/control.h
 *     The fence connection: fences, heartbeats, failures.  Everything there commits at once.
 *
 * Commands are sent as they are asked for, whatever is under way, and answered in order.  An error
 * of any of them is an error of the connection: they do nothing that could fail for a reason of its
 * own.  What is said about a remote is the exception.
 */
#ifndef PGTRICKLE_APPLIER_CONTROL_H
#define PGTRICKLE_APPLIER_CONTROL_H

#include "intake.h"
#include "session.h"

#define CONTROL_QUEUE_MAX 64

typedef enum ControlCommand
{
	CONTROL_FENCE,
	CONTROL_HEARTBEAT,
	CONTROL_FAILED,
	CONTROL_REMOTE
} ControlCommand;

/* What the target is told about a remote. */
typedef enum RemoteCall
{
	REMOTE_CALL_STARTED,
	REMOTE_CALL_STREAMS,
	REMOTE_CALL_HEARTBEAT,
	REMOTE_CALL_GIVEN_UP,
	REMOTE_CALL_FAILED
} RemoteCall;

/* From whom it came, and what has become of it: unlike the others these may fail without the connection being lost. */
typedef struct RemoteAnswer
{
	int			 remote_id;
	unsigned int epoch; /* Remote.epoch */
	RemoteCall	 call;
	bool		 has_failed;
	char		 sqlstate[6];
	char		 message[256];
} RemoteAnswer;

typedef struct Control
{
	Session		   session;
	ControlCommand queue[CONTROL_QUEUE_MAX]; /* sent, not answered */
	RemoteAnswer   queue_remote[CONTROL_QUEUE_MAX]; /* beside those that are CONTROL_REMOTE */
	int			   queue_length;
	RemoteAnswer   answers[CONTROL_QUEUE_MAX]; /* whoever uses them resets answer_count */
	int			   answer_count;

	/* The heartbeat under way, or the answer to the last one. */
	bool	  heartbeat_is_running;
	bool	  heartbeat_is_done; /* whoever uses the answer resets this */
	Lsn		  heartbeat_ack_lsn;
	Lsn		  heartbeat_stream_lsn;
	Snapshot *heartbeat_snapshot;
	Lsn		  heartbeat_snapshot_insert_lsn; /* read after the snapshot */
} Control;

extern void control_reset(Control *control);

extern bool control_send_fence(Control *control, const char *nonce, Error *error) MUST_CHECK;
extern bool
control_send_heartbeat(Control *control, Lsn ack_lsn, Lsn stream_lsn, Error *error) MUST_CHECK;
extern bool control_send_failed(Control *control, int64_t pgt_id, const char *sqlstate,
								const char *message, Micros retry_delay, Error *error) MUST_CHECK;


/* The answer comes in `answers`. */
extern bool control_send_remote(Control *control, const RemoteAnswer *from, const char *sql,
								int value_count, const char *const *values, Error *error) MUST_CHECK;

/* Reads what answers have arrived. */
extern bool control_advance(Control *control, Error *error) MUST_CHECK;

/* Can another command be sent? */
static inline bool
control_has_room(const Control *control)
{
	return control->queue_length < CONTROL_QUEUE_MAX;
}

#endif /* PGTRICKLE_APPLIER_CONTROL_H */
