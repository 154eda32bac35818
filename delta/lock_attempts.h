/*
 * delta/lock_attempts.h
 *     Locks tables of others without having everybody queue for long.
 */
#ifndef PGTRICKLE_LOCK_ATTEMPTS_H
#define PGTRICKLE_LOCK_ATTEMPTS_H

#include "postgres.h"

/* Takes some locks.  Called once per attempt, in a subtransaction with a lock timeout. */
typedef void (*LockTaker) (void *arg);

/*
 * One attempt, which may also do what it wants the locks for: NULL if it has succeeded, else the error 55P03, and everything is as it was.  Other
 * errors are raised.
 */
extern ErrorData *lock_attempt(LockTaker take, void *arg, int timeout_ms);

/*
 * Until an attempt succeeds: NULL.  When the session's lock_timeout is over: the error 55P03, in the current context; lock_in_attempts() raises
 * it.  The locks are held to the end of the transaction.
 */
extern ErrorData *try_in_attempts(LockTaker take, void *arg);
extern void lock_in_attempts(LockTaker take, void *arg);

#endif							/* PGTRICKLE_LOCK_ATTEMPTS_H */
