/*
 * delta/row_security.c
 *     Rewrites tables whose rows the owner sees only in part (row-level security).
 *
 * A stream table shows what its owner may see.  Statements that read the table itself run as the owner, and the server adds its policies; the
 * delta knows nothing of them.  So the table becomes a subquery that applies the policies, as the server's rewriter has found them,
 *
 *     (SELECT t.a, t.b FROM t WHERE policies) t
 *
 * which is compiled as a level of its own: rows that the owner may not see are gone before any condition of the query looks at
 * them, leaky or not.
 *
 * A policy that reads other tables has no rule.  When such a table changes, a delta asks for rows of the guarded one that the owner could
 * see before and cannot see now; but to statements that run as the owner the server applies the policy as it is now.
 *
 * Policies ask for CURRENT_USER, which for refreshes is always the owner: a constant, so that such conditions need no full refreshes.
 *
 * When policies or the owner change, the program does; the rows follow by a full refresh, like after any change of what the query means.
 */
#include "postgres.h"

#include "block.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "query.h"
#include "rewrite/rewriteManip.h"
#include "tree_build.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

Query *
rewrite_row_security(Compiler *compiler, Query *query)
{
	ListCell   *lc;

	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_RELATION && checkExprHasSubLink((Node *) rte->securityQuals))
		{
			note_all_sources(compiler, query);
			return compile_cannot(compiler, "a policy on table %s reads other tables", get_rel_name(rte->relid));
		}
	}

	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		Query	   *visible;
		RangeTblEntry *table;

		if (rte->rtekind != RTE_RELATION || rte->securityQuals == NIL)
			continue;
		visible = entry_as_query(rte, foreach_current_index(lc) + 1);
		table = linitial_node(RangeTblEntry, visible->rtable);
		/* of a partition or child its parent's policies count, and these are here */
		visible->jointree->quals = (Node *) make_ands_explicit(table->securityQuals);
		visible->hasSubLinks = query->hasSubLinks;
		table->securityQuals = NIL;
		entry_becomes_subquery(rte, visible);
	}
	return query;
}

static Node *
current_user_mutator(Node *node, void *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, SQLValueFunction))
	{
		SQLValueFunctionOp op = ((SQLValueFunction *) node)->op;

		if (op == SVFOP_CURRENT_USER || op == SVFOP_USER || op == SVFOP_CURRENT_ROLE)
		{
			Name		name = palloc0(NAMEDATALEN);

			namestrcpy(name, GetUserNameFromId(GetUserId(), false));
			return (Node *) makeConst(NAMEOID, -1, C_COLLATION_OID, NAMEDATALEN, NameGetDatum(name), false, false);
		}
	}
	if (IsA(node, Query))
		return (Node *) query_tree_mutator((Query *) node, current_user_mutator, context, 0);
	return expression_tree_mutator(node, current_user_mutator, context);
}

Query *
fold_current_user(Query *query)
{
	return query_tree_mutator(query, current_user_mutator, NULL, 0);
}
