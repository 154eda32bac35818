/*
 * delta/copy_write.h
 *     From the last states of rows to the table: one look for each, and what differs is written.
 */
#ifndef PGTRICKLE_COPY_WRITE_H
#define PGTRICKLE_COPY_WRITE_H

#include "copy_states.h"

/*
 * Writes all states, in the order of the key, and puts what has changed into the target's net.  States that stay incomplete are
 * returned: a list in the current context.
 */
extern List *copy_write_states(CopyTarget *target);

/* Takes missing values from the row of another key, which stays as it is: the row before its key changed. */
extern void copy_write_complete(CopyTarget *target, RowState *state, const RowState *key);

#endif							/* PGTRICKLE_COPY_WRITE_H */
