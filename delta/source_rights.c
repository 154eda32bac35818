/*
 * delta/source_rights.c
 *     May the owner of a stream table read what its query reads?  Asked when its program is made, and at every refresh by delta.
 *
 * A full refresh runs the query, so the server asks.  A delta of a query over one table is computed from the staged changes alone: no statement names the table,
 * and a right that was revoked would be missed.  So the server's own check is made for all range tables of the query, views expanded: what stands in a view is
 * checked for the view's owner, as in any query.
 */
#include "postgres.h"

#include "nodes/nodeFuncs.h"

#include "compat.h"
#include "query.h"
#include "source_rights.h"

Query *
source_rights_query(const char *defining_query)
{
	return query_analyze_and_expand(defining_query, NULL);
}

static bool
check_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;

		compat_check_permissions(query);
		return query_tree_walker(query, check_walker, context, 0);
	}
	return expression_tree_walker(node, check_walker, context);
}

void
source_rights_check(Query *query)
{
	(void) check_walker((Node *) query, NULL);
}
