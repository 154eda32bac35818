/*
 * delta/sublink.h
 *     Subqueries in expressions, and LATERAL subqueries, as joins: what the files of that rewrite share.
 */
#ifndef PGTRICKLE_SUBLINK_H
#define PGTRICKLE_SUBLINK_H

#include "block.h"

/*
 * A subquery without references to the level around it: its rows for an outer row are those whose columns equal the outer row's
 * expressions.  With keys NIL it never had such references.
 */
typedef struct Detached
{
	Query	   *query;			/* its visible columns first, then one for each key */
	int			ncolumns;		/* how many of them are the subquery's own */
	List	   *outer;			/* of Expr, over the level around: what the key columns equal */
	List	   *operators;		/* oid list beside outer: the equality, outer type on the left */
	List	   *collations;		/* oid list: the input collation of each equality */
	bool		one_row;		/* an aggregate without GROUP BY: one row for each outer row, also where there is no match */
	List	   *empty;			/* one_row: of Expr, the visible columns over no rows; may not read tables */
} Detached;

/* decorrelate.c.  Scribbles on the subquery; NULL when its correlation is not made of equalities. */
extern Detached *detach_subquery(Query *subquery);

/* Does it refer to the level around it (`levels` further up)? */
extern bool is_correlated(Node *node, int levels);

/* The key columns' equalities with the outer expressions, where the detached query is range-table entry `rtindex`. */
extern List *detached_quals(Detached *detached, int rtindex);

/*
 * ORDER BY ... LIMIT as a condition on the rows' numbers, for each combination of the keys, which are columns of the query (NIL: for all).  Has the
 * query's visible columns.
 */
extern Query *limit_by_number(Query *query, List *keys);

/* What the visible columns show over no rows, as seen from the level around; NIL when that would be no row at all. */
extern List *values_over_nothing(Query *subquery);

/*
 * magic.c: the same for any correlation, by computing the subquery for all rows of `outer`, the range-table entry of the level around it
 * that holds all that it refers to.  NULL when that has no rule.
 */
extern Detached *detach_by_magic(RangeTblEntry *outer, Query *subquery);

/* sublink_forms.c: what IN, ANY, ALL and EXISTS mean, in terms of EXISTS. */

/* EXISTS (SELECT FROM subquery WHERE the test holds) */
extern SubLink *any_as_exists(SubLink *any);

/* The three-valued result of ANY or ALL as an expression over EXISTS. */
extern Node *comparison_as_exists(SubLink *sublink);

/* Conditions, ANDed, that hold exactly when NOT (x op ANY (...)) does. */
extern List *not_any_as_conditions(SubLink *any);

/* Conditions, ANDed, that hold exactly when x op ALL (...) does. */
extern List *all_as_conditions(SubLink *all);

/* ---- a level while its subqueries are rewritten ---- */

/* A LEFT JOIN to be put on top of FROM. */
typedef struct AddedJoin
{
	int			rtindex;
	List	   *on;				/* of Expr */
} AddedJoin;

typedef struct SublinkRewrite
{
	Compiler   *compiler;
	Query	   *query;
	List	   *items;			/* of FROM */
	List	   *quals;			/* conditions on the items */
	List	   *joins;			/* of AddedJoin */
	List	   *outer_quals;	/* conditions on what the added joins bring */
	bool		is_wrapped;		/* the items are one subquery */
	bool		failed;
} SublinkRewrite;

/* sublink_join.c */

/* Notes that a subquery has no rule; NULL. */
extern void *sublink_no_rule(SublinkRewrite *rewrite, const char *what);

/* The subquery without references to this level; NULL, and noted, when there is no rule. */
extern Detached *sublink_detach(SublinkRewrite *rewrite, SubLink *sublink);

/* Puts it into the range table and joins it; its index. */
extern int	sublink_left_join(SublinkRewrite *rewrite, Detached *detached, const char *alias);
extern int	sublink_inner_join(SublinkRewrite *rewrite, Detached *detached, const char *alias);

/* A column of an aggregate's row, or what it shows over nothing where the row is missing. */
extern Node *sublink_value_or_empty(Detached *detached, int rtindex, int column);

/* The level's FROM and WHERE out of the items, joins and conditions. */
extern void sublink_build_from(SublinkRewrite *rewrite);

/* sublink_exists.c: as a condition, which a row keeps when the subquery has a row (or when it has none); as a value. */
extern void sublink_exists_condition(SublinkRewrite *rewrite, SubLink *exists, bool wanted);
extern Node *sublink_exists_value(SublinkRewrite *rewrite, SubLink *exists);

/* sublink_value.c: an expression with values in the place of its subqueries. */
extern Node *sublink_replace_all(Node *node, SublinkRewrite *rewrite);

/* sublink_lateral.c */
extern bool sublink_has_lateral(Query *query);

/* Before the rewrite: what stands before LATERAL subqueries without keys becomes one subquery, in `conditions` too. */
extern void sublink_wrap_for_lateral(SublinkRewrite *rewrite, List **conditions);
extern void sublink_rewrite_lateral(SublinkRewrite *rewrite);

/* sublink_groups.c: are there subqueries about groups?  SELECT ... FROM (the groups) WHERE having */
extern bool sublink_is_over_groups(Query *query);
extern Query *sublink_split_grouping(Query *query);

/* sublink.c: does the expression hold a subquery that reads tables? */
extern bool sublink_is_within(Node *node);

/* The pass.  NULL when something has no rule, which is then noted. */
extern Query *rewrite_sublinks(Compiler *compiler, Query *query);

#endif							/* PGTRICKLE_SUBLINK_H */
