/*
 * delta/immediate_capture.h
 *     From changed rows to deltas of sources.
 */
#ifndef PGTRICKLE_IMMEDIATE_CAPTURE_H
#define PGTRICKLE_IMMEDIATE_CAPTURE_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "commands/trigger.h"
#include "immediate_pending.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

/* Adds the rows of a statement (from its transition tables), or the one row of a row-level trigger, to the pending deltas. */
extern void immediate_capture(TriggerData *trigger);

/* Adds what has changed in a table, which is the delta's source or a part of it, between two snapshots (row_versions.h). */
extern void immediate_capture_versions(PendingDelta *delta, Relation relation, XLogRecPtr begin, Snapshot before, Snapshot after);

#endif							/* PGTRICKLE_IMMEDIATE_CAPTURE_H */
