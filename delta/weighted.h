/*
 * delta/weighted.h
 *     What the state of a weighted numeric sum says, for functions that need more than one of them.
 */
#ifndef PGTRICKLE_WEIGHTED_H
#define PGTRICKLE_WEIGHTED_H

#include "postgres.h"

#include "utils/numeric.h"

/*
 * What sum() shows for a packed state, NULL over no rows; *rows: how many values there are; *is_finite: none of them is NaN or infinite.
 */
extern Numeric numeric_state_read(bytea *packed, int64 *rows, bool *is_finite);

#endif							/* PGTRICKLE_WEIGHTED_H */
