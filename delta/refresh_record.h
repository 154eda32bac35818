/*
 * delta/refresh_record.h
 *     Writes what a refresh did into the catalog: frontier, progress, history.
 */
#ifndef PGTRICKLE_REFRESH_RECORD_H
#define PGTRICKLE_REFRESH_RECORD_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "run.h"

/* What the refreshes of one tick share. */
typedef struct TickFrontier
{
	XLogRecPtr	stream_lsn;		/* the stream has been received up to here */
	XLogRecPtr	ack_lsn;		/* the slot will be told no more than this */
	bool		has_ack_lsn;
} TickFrontier;

typedef struct RefreshRecord
{
	LoadedTable *table;
	RefreshOutcome *outcome;
	const char *reason;			/* of a full refresh; NULL: by delta */
	const CostDecision *decision;
	TimestampTz started_at;
	TimestampTz ended_at;
} RefreshRecord;

/*
 * All need an SPI connection and the rights to write the extension's catalog; the frontier's snapshot is the transaction's.
 * record_begin() fixes what the tick's refreshes share.
 */
extern void record_begin(const TickFrontier *frontier, TimestampTz snapshot_taken_at);
extern void record_refresh(const RefreshRecord *record);
extern void record_progress(const TickFrontier *frontier);

/* Runs a statement that is prepared once per session; hidden from the stream.  Returns SPI's result. */
extern int	execute_kept(SPIPlanPtr *kept, const char *sql, int nargs, Oid *types, Datum *values, const char *nulls);

#endif							/* PGTRICKLE_REFRESH_RECORD_H */
