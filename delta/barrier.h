/*
 * delta/barrier.h
 *     Waiting for the applier, for those who cannot do without its work.
 */
#ifndef PGTRICKLE_BARRIER_H
#define PGTRICKLE_BARRIER_H

#include "postgres.h"

/*
 * Has the applier refresh a stream table, and waits.  NULL when the frontier has moved and covers all that was committed before the call; else a sentence
 * that says why not, in the current context: nobody is there, the refresh has failed, pgtrickle.refresh_timeout is over.
 */
extern const char *barrier_bring_up_to_date(int64 pgt_id, Oid relid);

#endif							/* PGTRICKLE_BARRIER_H */
