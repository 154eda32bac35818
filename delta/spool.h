/*
 * delta/spool.h
 *     Changes that wait for a slow schedule, kept in the database in place of the WAL.
 */
#ifndef PGTRICKLE_SPOOL_H
#define PGTRICKLE_SPOOL_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "stage.h"

/* What one tick writes into the spool. */
typedef struct SpoolPart
{
	int			set;
	int64		spool_id;
} SpoolPart;

/* Stores records of a change set; the part is added to `parts` (of SpoolPart), in the current context. */
extern List *spool_store(List *parts, int set, const char *data, size_t length);

/*
 * The parts of this set are what the stream table needs of all that the transaction's snapshot sees.  `since`: the oldest of them; `reason`: why
 * its next refresh has to be a full one, or NULL.
 */
extern void spool_give(List *parts, int set, int64 pgt_id, TimestampTz since, const char *reason);

/*
 * Lays what the stream table has in the spool into a change set.  Returns the reason, in the current context, if it has to be refreshed in
 * full in place of that; else NULL.
 */
extern char *spool_take(Stage *stage, int set, int64 pgt_id);

/* The stream table was refreshed: forgets what it had there, and what nobody else has. */
extern void spool_forget(int64 pgt_id);

#endif							/* PGTRICKLE_SPOOL_H */
