/*
 * delta/lock_pairs.h
 *     Which inputs of a join must not change in two transactions at once, and by which of their values that can be told.
 *
 * Part of a program, for IMMEDIATE runs (docs/explanation/immediate.md, section 3); ticks have no use for it.
 */
#ifndef PGTRICKLE_LOCK_PAIRS_H
#define PGTRICKLE_LOCK_PAIRS_H

#include "postgres.h"

#include "block.h"
#include "fmgr.h"

/* One side of an equality between two inputs: the column of the input's delta, and a hash that is equal for equal values. */
typedef struct LockColumn
{
	AttrNumber	attno;
	Oid			collation;
	FmgrInfo	hash;			/* looked up at first use; its memory is the program's */
	Oid			hash_function;
} LockColumn;

/* Two inputs of a join that can both change; [0] is the one that comes first. */
typedef struct LockPair
{
	int			number;			/* the same in every session that compiles the query */
	int			rowsets[2];		/* the inputs' deltas */
	int			ncolumns;		/* 0: all rows count as having the same value */
	LockColumn *columns[2];
} LockPair;

/* Notes the pairs of the block in a step that reads its deltas and new states; the step then has fine locks. */
extern void step_lock_block(ProgramStep *step, QueryBlock *block);

#endif							/* PGTRICKLE_LOCK_PAIRS_H */
