/*
 * delta/direct_join.h
 *     Steps that look up the few rows of one rowset in one table, run without the executor.
 */
#ifndef PGTRICKLE_DIRECT_JOIN_H
#define PGTRICKLE_DIRECT_JOIN_H

#include "postgres.h"

#include "executor/spi.h"
#include "rowset.h"

/* What has been made of a plan, kept beside it; opaque. */
typedef struct DirectJoin DirectJoin;

/*
 * Adds the statement's rows to `output` if its plan joins `input` with one table whose rows an index finds, or reads no more than `input`; false: it
 * does not, or there are many rows.  Inside the caller's SPI connection, where `input` is registered.  `*kept` is made in `context`, and anew when the plan has changed;
 * both belong to the caller, who begins with NULL.
 */
extern bool direct_join_run(SPIPlanPtr plan, DirectJoin **kept, MemoryContext context, Rowset *input, Rowset *output);

#endif							/* PGTRICKLE_DIRECT_JOIN_H */
