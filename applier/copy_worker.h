/*
 * applier/copy_worker.h
 *     The process that defines and fills the copies of one remote: `pgtrickle copy`, started when there is something for it to do.
 *
 *     none -> running -> none, after a while again if there is still something to do
 *
 * It is a process of its own because it may take hours and blocks; what it has done is in the target's catalog, so it may be
 * killed at any time.  It does not outlive the daemon.
 */
#ifndef PGTRICKLE_APPLIER_COPY_WORKER_H
#define PGTRICKLE_APPLIER_COPY_WORKER_H

#include <sys/types.h>

#include "log.h"

typedef struct CopyWorker
{
	/* What there is to do. */
	Micros work_at; /* a table to define or to copy; MICROS_NEVER: none */
	char  *schemas; /* those that are copied as a whole, or NULL */

	pid_t  pid; /* 0: not running */
	bool   is_stopped; /* by us */
	int	   failures; /* in a row */
	Micros start_at; /* not before */
	char  *schemas_seen; /* by the last one that did its work, or by the running one */
	Micros look_at; /* when the remote's catalogs are looked at again: nobody there tells of new or altered tables */
} CopyWorker;

/* Starts it if it is wanted; notes when it has ended.  True if it has just ended. */
extern bool copy_worker_turn(CopyWorker *worker, const char *dbname, const char *remote_name, Micros now);

/* When to look again, if nothing else happens (its end is a signal). */
extern Micros copy_worker_deadline(const CopyWorker *worker);

/* Whatever there is to do: no more. */
extern void copy_worker_stop(CopyWorker *worker);

/* After it was stopped. */
extern void copy_worker_release(CopyWorker *worker);

#endif /* PGTRICKLE_APPLIER_COPY_WORKER_H */
