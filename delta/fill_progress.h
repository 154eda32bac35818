/*
 * delta/fill_progress.h
 *     How far a first fill has come, for others to see.
 */
#ifndef PGTRICKLE_FILL_PROGRESS_H
#define PGTRICKLE_FILL_PROGRESS_H

#include "postgres.h"

#include "executor/spi.h"
#include "tcop/dest.h"

/* The numbers are those that the view pgtrickle.pgt_fill_progress translates. */
typedef enum FillPhase
{
	FILL_STATES = 1,
	FILL_QUERY = 2,
	FILL_WRITE = 3
} FillPhase;

extern PGDLLIMPORT bool fill_in_progress;

/* From begin to end, or to an error, the phases and rows below are reported; outside of that nothing is. */
extern void fill_progress_begin(Oid relid);
extern void fill_progress_phase(FillPhase phase, double rows_estimated);
extern void fill_progress_count_row(void);
extern void fill_progress_end(void);

/* During a fill: a receiver that counts rows on their way to `inner`, and announces how many the plan expects.  Else `inner`. */
extern DestReceiver *fill_progress_receiver(DestReceiver *inner, SPIPlanPtr plan);

#endif							/* PGTRICKLE_FILL_PROGRESS_H */
