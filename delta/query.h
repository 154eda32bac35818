/*
 * delta/query.h
 *     From query text to a tree that the compiler's operators can work on.
 */
#ifndef PGTRICKLE_QUERY_H
#define PGTRICKLE_QUERY_H

#include "postgres.h"

#include "nodes/parsenodes.h"

/* Parses and analyses; errors unless it is one plain SELECT.  Views are not expanded. */
extern Query *query_analyze(const char *text);

/*
 * query_analyze, then orders completed (canonical.c), the server's rewriter (views become subqueries), and WITH queries put in
 * place.  `open_reason` (may be NULL) is set to why the answer still depends on an open order, or NULL.
 */
extern Query *query_analyze_and_expand(const char *text, char **open_reason);

/*
 * query_analyze, and orders completed (canonical.c): the query in the form in which it is run.  Views are expanded only if they leave orders
 * open.
 */
extern Query *query_analyze_to_run(const char *text);

/* view_rights.c: why statements that name what is in views would not read the same as the views do, or NULL. */
extern char *view_rights_reason(Query *query);

/* row_security.c: CURRENT_USER as a constant. */
extern Query *fold_current_user(Query *query);

/* Prints a tree with every name qualified, whatever the caller's search_path is. */
extern char *query_print(Query *query);

/*
 * Errors for what cannot define a stream table; the messages name the construct and the way out.  Returns the
 * reason why the query can only be refreshed in full, or NULL, as far as that can be seen from the functions it calls.
 */
extern char *query_check(Query *query);

#endif							/* PGTRICKLE_QUERY_H */
