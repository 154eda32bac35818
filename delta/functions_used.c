/*
 * delta/functions_used.c
 *     Which of the users' functions a defining query calls.
 *
 * A function that is replaced changes rows without a change of any source.  The server tells nobody which queries that concerns, so each stream
 * table has a list: functions, operators' functions, those behind aggregates, casts and views.  What a function calls inside its body
 * is not known: the documents say so.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_aggregate.h"
#include "functions_used.h"
#include "nodes/nodeFuncs.h"
#include "utils/syscache.h"

static void
add_aggregate(Oid function_id, List **functions)
{
	HeapTuple	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(function_id));
	Form_pg_aggregate form;

	if (!HeapTupleIsValid(tuple))
		return;
	form = (Form_pg_aggregate) GETSTRUCT(tuple);
	*functions = list_append_unique_oid(*functions, form->aggtransfn);
	*functions = list_append_unique_oid(*functions, form->aggfinalfn);
	ReleaseSysCache(tuple);
}

static bool
add_function(Oid function_id, void *context)
{
	List	  **functions = context;

	if (function_id < FirstNormalObjectId)
		return false;
	*functions = list_append_unique_oid(*functions, function_id);
	add_aggregate(function_id, functions);
	return false;
}

static bool
function_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	(void) check_functions_in_node(node, add_function, context);
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, function_walker, context, 0);
	return expression_tree_walker(node, function_walker, context);
}

List *
functions_used(Query *query)
{
	List	   *functions = NIL;
	List	   *of_users = NIL;
	ListCell   *lc;

	(void) function_walker((Node *) query, &functions);
	foreach(lc, functions)
	{
		if (lfirst_oid(lc) >= FirstNormalObjectId)
			of_users = lappend_oid(of_users, lfirst_oid(lc));
	}
	return of_users;
}
