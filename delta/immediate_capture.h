/*
 * delta/immediate_capture.h
 *     From what a trigger is shown of a statement to pending deltas.
 */
#ifndef PGTRICKLE_IMMEDIATE_CAPTURE_H
#define PGTRICKLE_IMMEDIATE_CAPTURE_H

#include "postgres.h"

#include "commands/trigger.h"

/* Adds the rows of a statement (from its transition tables), or the one row of a row-level trigger, to the pending deltas. */
extern void immediate_capture(TriggerData *trigger);

#endif							/* PGTRICKLE_IMMEDIATE_CAPTURE_H */
