/*
 * delta/run_steps.h
 *     What the files that run programs share.
 */
#ifndef PGTRICKLE_RUN_STEPS_H
#define PGTRICKLE_RUN_STEPS_H

#include "run.h"

typedef struct Run
{
	LoadedTable *table;
	Rowset	  **rowsets;		/* by rowset number; NULL: empty */
	struct RunLocks *locks;		/* IMMEDIATE; NULL: in a tick */
} Run;

/* ---- run.c ---- */

extern bool rowset_is_empty(Rowset *rowset);

/* The rowset with this number; statements of later steps find it under its name. */
extern void run_keep_result(Run *run, int number, Rowset *rowset);

/* Appends what the statement yields to a rowset, or to a new one (NULL). */
extern Rowset *run_into_rowset(SPIPlanPtr plan, const char *name, Rowset *rowset, bool has_deletes);

/* Writes a delta into the stream table. */
extern RefreshOutcome table_apply_result(LoadedTable *table, Rowset *delta, bool hidden, const char *action);

/* ---- run_states.c ---- */

extern RowLocator table_state_locator(LoadedTable *table, ProgramState *state);
extern void run_merge_step(Run *run, ProgramStep *step);
extern void run_replace_step(Run *run, ProgramStep *step, int step_no);

/* ---- run_full.c ---- */

/* Adds the rows that a table has now, with weight -1. */
extern void rowset_subtract_table(Rowset *rowset, Relation relation);

#endif							/* PGTRICKLE_RUN_STEPS_H */
