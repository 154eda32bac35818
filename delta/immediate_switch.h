/*
 * delta/immediate_switch.h
 *     Stream tables become IMMEDIATE, cease to be, stop and go on.
 */
#ifndef PGTRICKLE_IMMEDIATE_SWITCH_H
#define PGTRICKLE_IMMEDIATE_SWITCH_H

#include "postgres.h"

#include "program.h"

/* Keeps writers away from the sources until the end of the transaction; those that are at work are waited for. */
extern void immediate_lock_sources(DeltaProgram *program);

/* The same for an IMMEDIATE stream table, and keeps others from maintaining it; nothing for others. */
extern void immediate_lock_stream_table(int64 pgt_id);

#endif							/* PGTRICKLE_IMMEDIATE_SWITCH_H */
