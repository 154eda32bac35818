/*
 * delta/immediate_switch.h
 *     Stream tables become IMMEDIATE, cease to be, stop and go on.
 */
#ifndef PGTRICKLE_IMMEDIATE_SWITCH_H
#define PGTRICKLE_IMMEDIATE_SWITCH_H

#include "postgres.h"

#include "program.h"
#include "utils/snapshot.h"

/* Keeps writers away from the sources until the end of the transaction; those that are at work are waited for. */
extern void immediate_lock_sources(DeltaProgram *program);

/* The same for an IMMEDIATE stream table, and keeps others from maintaining it; nothing for others. */
extern void immediate_lock_stream_table(int64 pgt_id);

/*
 * Around the first fill of a stream table that is made IMMEDIATE.  At the end, with its definition in the catalog, writers are kept away, what they have
 * changed since the snapshot of the fill is added, and the triggers are made.
 */
typedef struct ImmediateCreation ImmediateCreation;

extern ImmediateCreation *immediate_creation_begin(DeltaProgram *program);
extern void immediate_creation_end(ImmediateCreation *creation, int64 pgt_id, Snapshot filled);

#endif							/* PGTRICKLE_IMMEDIATE_SWITCH_H */
