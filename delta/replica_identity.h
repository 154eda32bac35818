/*
 * delta/replica_identity.h
 *     Makes sources log the old row of an update or delete.
 */
#ifndef PGTRICKLE_REPLICA_IDENTITY_H
#define PGTRICKLE_REPLICA_IDENTITY_H

#include "program.h"

/*
 * For every source that the program reads by delta and that does not have REPLICA IDENTITY FULL: sets it where the current user owns the table
 * and pgtrickle.replica_identity is 'auto'; else warns ('auto') or refuses ('require') with the statement that
 * its owner has to run.  Needs an SPI connection.
 */
extern void replica_identity_require(DeltaProgram *program);

#endif							/* PGTRICKLE_REPLICA_IDENTITY_H */
