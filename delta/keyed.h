/*
 * delta/keyed.h
 *     What runs over one compiled input, key by key.
 */
#ifndef PGTRICKLE_KEYED_H
#define PGTRICKLE_KEYED_H

#include "block.h"

/* A query over one input, of which the rows for a key depend on the input's rows with that key only. */
typedef struct KeyedLevel
{
	const char *operator_name;	/* for explain */
	Compiled   *input;			/* NULL: the query reads its tables itself, there are no keys */
	List	   *rowsets;		/* of int, without an input: when one of these is not empty, the query is computed again */
	Query	   *query;			/* range-table entry 1 is a subquery that stands for the input's rows */
	List	   *keys;			/* of int: columns of the input; NIL: all its rows belong together */
	List	   *output_key;		/* of int: visible columns that identify a row; NIL: none */
	bool		key_is_unique;
	bool		single_row;		/* at most one row */
} KeyedLevel;

/* keyed.c: a state with the query's rows, of which those for the keys in the input's delta are computed again. */
extern Compiled *compile_keyed(Compiler *compiler, KeyedLevel *level);

/* top_rows.c: a level that takes the first rows of an order, with `needed` rows skipped and taken. */
extern Compiled *compile_top_rows(Compiler *compiler, KeyedLevel *level, int64 needed);

/* recompute.c: keyed recompute of a whole level, for lack of a finer rule. */
extern Compiled *compile_recompute(Compiler *compiler, Query *query, const char *operator_name);
extern bool level_follows_time(Query *query);

/* Can rows be found by this expression: has its type an order, and is equality by it the server's default? */
extern bool keyed_type_is_usable(Oid type, Oid equality_operator);

/* level_split.c: taking a level apart into one that runs over the other. */

/*
 * A level that selects the visible columns of `inner`, whose targets become visible as far as `clauses` (SortGroupClauses that move
 * to the outer level) need them.  The outer targets keep their marks.
 */
extern Query *level_over(Query *inner, List *clauses);

/* The same column numbers where the input's key is visible as it is; NIL when some is not. */
extern List *visible_input_key(Compiled *input, List *targets);

extern bool contains_sublink(Node *node);

#endif							/* PGTRICKLE_KEYED_H */
