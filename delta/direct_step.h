/*
 * delta/direct_step.h
 *     Steps that are nothing but a projection or filter of one rowset, run without the executor.
 */
#ifndef PGTRICKLE_DIRECT_STEP_H
#define PGTRICKLE_DIRECT_STEP_H

#include "postgres.h"

#include "executor/spi.h"
#include "rowset.h"

/*
 * Adds the statement's rows to `output` if its plan reads `input` from beginning to end and no more; false: it does not, or only
 * with much work.  Inside the caller's SPI connection, where `input` is registered.
 */
extern bool direct_step_run(SPIPlanPtr plan, Rowset *input, Rowset *output);

#endif							/* PGTRICKLE_DIRECT_STEP_H */
