/*
 * delta/query_check.c
 *     What can never define a stream table, and which functions force full refreshes.
 *
 * The defining query must have one answer for one snapshot of the sources, or there would be nothing to equal.  So volatile
 * functions are refused.  STABLE functions fall into three kinds:
 *
 *  - those of pg_catalog whose result depends on settings only (date_trunc of timestamptz, to_char, casts between text and
 *    dates ...): allowed, because a stream table keeps the settings of its creation (TimeZone, DateStyle ...);
 *  - those that depend on the moment, the session or the state of the system (now, current_user, pg_...): the answer changes
 *    without any change in a source, so only a full refresh follows it;
 *  - functions of users marked STABLE: they may read tables that we do not watch, so full refreshes, too.
 *
 * clock.c tells them apart.  Conditions on the moment that temporal.c can follow are not in the query that is checked here.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "clock.h"
#include "nodes/nodeFuncs.h"
#include "query.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

typedef struct CheckContext
{
	char	   *full_reason;
} CheckContext;

static bool check_walker(Node *node, CheckContext *context);

static void
note_full_reason(CheckContext *context, char *reason)
{
	if (context->full_reason == NULL)
		context->full_reason = reason;
}

static bool
check_function(Oid function, void *arg)
{
	CheckContext *context = (CheckContext *) arg;
	char		volatility = func_volatile(function);

	if (volatility == PROVOLATILE_VOLATILE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a defining query cannot use the volatile function %s()", get_func_name(function)),
				 errdetail("Its result may differ from one evaluation to the next, so there is no single answer that the stream table could equal."),
				 errhint("Remove the call, compute the value in the source, or mark the function STABLE or IMMUTABLE if it is.")));

	note_full_reason(context, clock_function_reason(function));
	return false;
}

static void
check_range_table_entry(RangeTblEntry *rte, CheckContext *context)
{
	if (rte->tablesample != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a defining query cannot use TABLESAMPLE"),
				 errdetail("A sample has no single answer that the stream table could equal.")));
}

static void
check_query_level(Query *query, CheckContext *context)
{
	ListCell   *lc;

	if (query->rowMarks != NIL || query->hasForUpdate)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a defining query cannot have FOR UPDATE or FOR SHARE"),
				 errhint("Remove the locking clause.")));
	if (query->hasModifyingCTE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a defining query cannot modify data in a WITH query")));
	foreach(lc, query->rtable)
		check_range_table_entry(lfirst_node(RangeTblEntry, lc), context);
}

static bool
check_walker(Node *node, CheckContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		check_query_level((Query *) node, context);
		return query_tree_walker((Query *) node, check_walker, context, 0);
	}
	if (IsA(node, SQLValueFunction))
	{
		note_full_reason(context, "the current date, time or user changes without any change in a source");
		return false;
	}
	if (IsA(node, NextValueExpr))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a defining query cannot use the volatile function nextval()")));
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		if (var->varattno < 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a defining query cannot use system columns"),
					 errdetail("Columns such as ctid, xmin and tableoid are not part of a row's value.")));
	}
	(void) check_functions_in_node(node, check_function, context);
	return expression_tree_walker(node, check_walker, context);
}

char *
query_check(Query *query)
{
	CheckContext context = {NULL};

	(void) check_walker((Node *) query, &context);
	return context.full_reason;
}
