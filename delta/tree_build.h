/*
 * delta/tree_build.h
 *     Small parts of query trees that rewrites put together.
 *
 * A rewrite turns one query level into others that mean the same; what comes out goes through compile_level like what a user wrote.
 */
#ifndef PGTRICKLE_TREE_BUILD_H
#define PGTRICKLE_TREE_BUILD_H

#include "postgres.h"

#include "nodes/parsenodes.h"

/* A subquery in FROM.  The query is not copied. */
extern RangeTblEntry *subquery_rte(Query *query, const char *alias);

/* Keeps the place of an entry that nothing refers to any more. */
extern RangeTblEntry *empty_rte(void);

/* What stands in FROM for the entry with this index. */
extern RangeTblRef *reference_to(int rtindex);

/*
 * The rows that a level groups: these expressions, named c1, c2 ..., over its FROM and WHERE, without its grouping.  The level is not copied, and must not be
 * used as a query any more.
 */
extern Query *rows_of_from(Query *level, List *exprs);

/*
 * SELECT ... UNION ALL SELECT ... of these queries, at least one, whose visible columns have the same types; a single query comes
 * back as it is.
 */
extern Query *union_all_query(List *queries);

/* A Var of the n-th visible column of a subquery that is range-table entry `rtindex`. */
extern Var *subquery_var(Query *query, int rtindex, int column, int sublevels_up);

/* Names and Vars of a range-table entry's columns; with dropped ones (as NULLs) the place is the attribute number. */
extern void entry_columns(RangeTblEntry *rte, int rtindex, int sublevels_up, bool include_dropped, List **names, List **vars);

/* SELECT all columns FROM a copy of the entry with this index, each under its attribute number. */
extern Query *entry_as_query(RangeTblEntry *rte, int rtindex);

/* Puts such a query, which may have more columns, in the place of the entry: references to its columns stay right. */
extern void entry_becomes_subquery(RangeTblEntry *rte, Query *query);

/*
 * set_operation.c: what a level with this operation on top means without INTERSECT and EXCEPT there.  Scribbles on the level.
 */
extern Query *set_operation_as_levels(Query *level, SetOperationStmt *operation);

/* Of INTERSECT and EXCEPT the grouping below: one row per value; with ALL also its counts l and r, and the copies over such rows. */
extern Query *set_operation_counts(Query *level, SetOperationStmt *operation);
extern Query *set_operation_copies(Query *counts, SetOperationStmt *operation);

#endif							/* PGTRICKLE_TREE_BUILD_H */
