/*
 * delta/replica_identity.h
 *     Makes sources log the old row of an update or delete.
 */
#ifndef PGTRICKLE_REPLICA_IDENTITY_H
#define PGTRICKLE_REPLICA_IDENTITY_H

#include "program.h"

/*
 * Looks at every source that the program reads by delta and that does not have REPLICA IDENTITY FULL.  Where the current user owns the table and
 * pgtrickle.replica_identity is 'auto' it is returned (oid list); else
 * warns ('auto') or refuses ('require') with the statement that its owner has to run.
 */
extern List *replica_identity_plan(DeltaProgram *program);

/* Sets it for these tables.  As late as possible: writers wait from here to the end of the transaction.  Needs an SPI connection. */
extern void replica_identity_set(List *relids);

#endif							/* PGTRICKLE_REPLICA_IDENTITY_H */
