/*
 * applier/intake_parts.h
 *     What the parts of the intake share: intake.c, intake_route.c, intake_message.c, intake_catalog.c.
 */
#ifndef PGTRICKLE_APPLIER_INTAKE_PARTS_H
#define PGTRICKLE_APPLIER_INTAKE_PARTS_H

#include "intake.h"

/* Why a stream table cannot go on by delta. */
#define MISSED_SKIPPED "changes were not received"
#define MISSED_TOO_LARGE "more changes than the applier may keep"

/* ---- intake_route.c ---- */

/* A committed transaction goes to the pending list of every stream table that it belongs to. */
extern void route_transaction(Intake *intake, Transaction *transaction);

/* The stream table misses changes, those of this commit first; it is refreshed in full. */
extern void miss_changes(Intake *intake, StreamTable *table, Lsn commit_lsn, const char *reason);

/*
 * Rows of this relation did not come, or could not be kept: whoever reads it cannot go on by delta.
 * Does anybody?
 */
extern bool record_missed(Intake *intake, Xid xid, Oid relid, Lsn commit_lsn, const char *reason);

/* The plugin left out rows of a relation.  Should it have been told that somebody reads it? */
extern void take_skipped(Intake *intake, const Transaction *open, Oid relid);

/* ---- intake_message.c ---- */

extern void take_message(Intake *intake, const MessageView *message);

#endif /* PGTRICKLE_APPLIER_INTAKE_PARTS_H */
