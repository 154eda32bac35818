/*
 * delta/shared_rows.h
 *     Lookups that several stream tables of a tick have in common, done once.
 */
#ifndef PGTRICKLE_SHARED_ROWS_H
#define PGTRICKLE_SHARED_ROWS_H

#include "program.h"
#include "rowset.h"

/* What the statement of a step reads in its variant STEP_SHARED: the places (ctid) of rows, in column `tid`. */
#define SHARED_ROWS_NAME "__pgt_places"

/* From now on, until shared_rows_end() or until the current memory context goes away, steps share. */
extern void shared_rows_begin(void);
extern void shared_rows_end(void);

/* Can the step be run in its variant STEP_SHARED with these inputs not empty? */
extern bool shared_rows_serve(ProgramStep *step, uint64 nonempty);

/* Would that cost no lookup any more? */
extern bool shared_rows_are_there(ProgramStep *step, uint64 nonempty, Rowset **rowsets, Oid owner);

/*
 * The places of the rows that the step's not empty inputs are looking for, registered as SHARED_ROWS_NAME for SQL of the current SPI connection,
 * which must see the inputs under their names; the current user must be `owner`.  `rowsets`: by rowset number.
 */
extern Rowset *shared_rows_register(ProgramStep *step, uint64 nonempty, Rowset **rowsets, Oid owner);
extern void shared_rows_unregister(Rowset *places);

#endif							/* PGTRICKLE_SHARED_ROWS_H */
