/*
 * delta/source_rights.c
 *     May the owner of a stream table read what its query reads?  Asked when its program is made, and at every refresh by delta.
 *
 * A full refresh runs the query, so the server asks.  A delta of a query over one table is computed from the staged changes alone: no statement names the table,
 * and a right that was revoked would be missed.  So the server's own check is made for all range tables of the query, views expanded: what stands in a view is
 * checked for the view's owner, as in any query.  As it is asked each time, the range tables are kept by themselves.
 */
#include "postgres.h"

#include "nodes/nodeFuncs.h"

#include "compat.h"
#include "query.h"
#include "source_rights.h"

/* A level's range table entries and rights, by themselves. */
static Query *
bare_level(Query *query)
{
	Query	   *level = makeNode(Query);
	ListCell   *lc;

	level->commandType = CMD_SELECT;
	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = palloc(sizeof(RangeTblEntry));

		if (!OidIsValid(((RangeTblEntry *) lfirst(lc))->relid))
			continue;
		memcpy(rte, lfirst(lc), sizeof(RangeTblEntry));
		rte->subquery = NULL;
		level->rtable = lappend(level->rtable, rte);
	}
#if PG_VERSION_NUM >= 160000
	level->rteperminfos = query->rteperminfos;
#endif
	return level;
}

static bool
collect_walker(Node *node, List **levels)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *level = bare_level((Query *) node);

		if (level->rtable != NIL)
			*levels = lappend(*levels, level);
		return query_tree_walker((Query *) node, collect_walker, levels, 0);
	}
	return expression_tree_walker(node, collect_walker, levels);
}

List *
source_rights_levels(const char *defining_query)
{
	List	   *levels = NIL;

	(void) collect_walker((Node *) query_analyze_and_expand(defining_query, NULL), &levels);
	return levels;
}

void
source_rights_check(List *levels)
{
	ListCell   *lc;

	foreach(lc, levels)
		compat_check_permissions((Query *) lfirst(lc));
}
