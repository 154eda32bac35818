/*
 * delta/view_rights.c
 *     Does the query read tables with rights that its owner does not have?
 *
 * What stands in a view is read with the rights of the view's owner, and with the policies that hold for that one.  The statements of a delta program
 * name the tables behind the views, and run as the owner of the stream table.  That comes to the same where this owner may read the tables, and
 * no policy applies to either of the two.  Elsewhere the server would refuse the statements, or, worse, show them other rows.  Then the stream table
 * is refreshed in full: that runs the query as it is, views as views.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"

#include "compat.h"
#include "query.h"

static bool
differs_for(Oid relid, Oid view_owner)
{
	return pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK ||
		   check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED ||
		   check_enable_rls(relid, view_owner, true) == RLS_ENABLED;
}

/* Stops at the first such table, and leaves its OID in the context. */
static bool
rights_walker(Node *node, Oid *found)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	 *query = (Query *) node;
		ListCell *lc;

		foreach(lc, query->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
			Oid			   view_owner;

			if (rte->rtekind != RTE_RELATION || rte->relkind == RELKIND_VIEW)
				continue;
			view_owner = compat_check_as_user(query, rte);
			if (!OidIsValid(view_owner) || view_owner == GetUserId() || !differs_for(rte->relid, view_owner))
				continue;
			*found = rte->relid;
			return true;
		}
		return query_tree_walker(query, rights_walker, found, 0);
	}
	return expression_tree_walker(node, rights_walker, found);
}

char *
view_rights_reason(Query *query)
{
	Oid relid = InvalidOid;

	if (!rights_walker((Node *) query, &relid))
		return NULL;
	return psprintf("a view reads table %s with rights of the view's owner", get_rel_name(relid));
}
