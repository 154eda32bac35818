/*
 * delta/canonical.h
 *     Gives queries whose answer depends on an order that they leave open one answer.
 */
#ifndef PGTRICKLE_CANONICAL_H
#define PGTRICKLE_CANONICAL_H

#include "postgres.h"

#include "nodes/parsenodes.h"

typedef struct Canonical
{
	bool		changed;		/* some order was completed */
	char	   *open_reason;	/* what still leaves the answer open, and so cannot be maintained by delta; NULL: nothing */
	Query	   *unordered;		/* while walking: a subquery of EXISTS, for which no order matters */
	Query	   *collected;		/* and this one into an array */
} Canonical;

/*
 * Completes the orders of all levels of an analysed query, in place.  Columns stay the same in name, type and number.  A second
 * call changes nothing.
 */
extern void canonicalize(Query *query, Canonical *canonical);

/* Does the aggregate's result depend on the order of its rows? */
extern bool aggregate_sees_order(Oid function);

/*
 * canonical_image.c: which of several equal values one level shows.  show_least_images does it for GROUP BY alone; of the rows for which
 * `filter` holds (NULL: all).
 */
extern void canonicalize_images(Query *query, Canonical *canonical);
extern bool show_least_images(Query *query, Expr *filter);

/* Can two values of the expression be equal and not identical? */
extern bool has_open_image(Node *expr);

/* canonical_window.c: the windows of one level. */
extern void canonicalize_windows(Query *query, Canonical *canonical);

/* tie_break.c: what makes an order total. */

/* Columns that identify a row of FROM and WHERE; NIL: none are known. */
extern List *input_key_exprs(Query *query);

/* Expressions that identify what windows see: a row of the level's input or a group, as far as the level can tell them apart. */
extern List *window_tie_breaks(Query *query);

/* Those that identify a row after grouping, or NIL when only the output's columns can. */
extern List *row_tie_breaks(Query *query);

/*
 * What to sort by so that rows in which these expressions have different images are in a defined order: those that have an order,
 * and a hash of all of them when that is not enough.
 */
extern List *ordered_tie_breaks(List *exprs);
extern bool order_needs_hash(List *exprs);

/* pgtrickle.row_hash(ROW(exprs)) */
extern Expr *row_hash_call(List *exprs);

/*
 * Adds the expressions that are not yet there to a list of SortGroupClauses over `targets` (new targets are junk).  Returns whether
 * something was added.
 */
extern bool add_sort_exprs(List **clauses, List **targets, List *exprs);

/* Are all of them there? */
extern bool sorts_by_all(List *clauses, List *more_clauses, List *targets, List *exprs);

#endif							/* PGTRICKLE_CANONICAL_H */
