/*
 * delta/outer_join.h
 *     What the files of outer joins share.
 */
#ifndef PGTRICKLE_OUTER_JOIN_H
#define PGTRICKLE_OUTER_JOIN_H

#include "block.h"

/* The places of the sides in the range table, and so in conditions. */
#define LEFT_INPUT 1
#define RIGHT_INPUT 2

/* outer_join.c: these inputs as a block of their own. */
extern QueryBlock *outer_join_block(Compiler *compiler, List *inputs, List *quals, List *targets);

/* outer_join_lookup.c: a copy of an expression in which the two sides have changed places. */
extern void *sides_exchanged(void *node);

/* Does a row of the left side match one row of `right` at most, by a key of it? */
extern bool outer_join_matches_once(BlockInput *right, List *on);

/*
 * An anti input that holds at most one row for each row of `left`, and one exactly if the row has a match.  In `on` the row is the left side.  NULL
 * when there is no rule.
 */
extern BlockInput *outer_join_lookup(Compiler *compiler, BlockInput *left, BlockInput *right, List *on);

#endif							/* PGTRICKLE_OUTER_JOIN_H */
