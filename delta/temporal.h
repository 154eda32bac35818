/*
 * delta/temporal.h
 *     Conditions on the moment: rows that enter and leave as time passes.
 */
#ifndef PGTRICKLE_TEMPORAL_H
#define PGTRICKLE_TEMPORAL_H

#include "postgres.h"

#include "block.h"

/* A condition that becomes true or false by itself.  Lists are of Expr, ANDed; copies, except for `qual`. */
typedef struct TemporalQual
{
	Expr	   *qual;			/* now; an element of the block's quals */
	Expr	   *before;			/* the same at the previous refresh */
	List	   *left;			/* it held before and does not now */
	List	   *entered;		/* it holds now and did not before */
} TemporalQual;

/* ---- temporal_quals.c ---- */

/*
 * A copy of an analysed and expanded query in which the calls of now() and the like that the rule covers are constants: what
 * still looks at the clock in it has no rule.
 */
extern Query *temporal_without_time(Query *query);

/* Does an expression call now() or one of its like, at this query level? */
extern bool temporal_mentions_time(Node *node);

extern TemporalQual *temporal_qual(Expr *qual);

/* ---- temporal.c ---- */

/* Takes the block's conditions apart and notes in it which of them are conditions on the moment. */
extern void temporal_note_quals(QueryBlock *block);

/* The delta of a block with conditions on the moment, when time has passed and the inputs in `changed` have changed. */
extern char *temporal_delta_sql(QueryBlock *block, uint64 changed, List *targets);

/* ---- previous_now.c ---- */

/* What pgtrickle.previous_now() returns from now on; false if it is not known. */
extern bool previous_now_load(int64 pgt_id);
extern void previous_now_forget(void);

#endif							/* PGTRICKLE_TEMPORAL_H */
