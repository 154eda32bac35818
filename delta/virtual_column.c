/*
 * delta/virtual_column.c
 *     Rewrites tables with virtual generated columns (PostgreSQL 18) into subqueries that compute them.
 *
 * Such a column is nowhere: not in the table and not in its changes.  A table of which one is used becomes
 *
 *     (SELECT t.a, t.a * 2 AS b FROM t) t
 *
 * by the column's own expression, and is compiled as a level of its own, whose delta has the column.
 */
#include "postgres.h"

#include "access/table.h"
#include "block.h"
#include "nodes/makefuncs.h"
#include "rewrite/rewriteHandler.h"
#include "tree_build.h"
#include "utils/rel.h"

bool
compute_virtual_columns(RangeTblEntry *rte, Bitmapset *used_attnos)
{
	bool		is_used = false;
#if PG_VERSION_NUM >= 180000
	Relation	relation = table_open(rte->relid, AccessShareLock);
	TupleDesc	tupdesc = RelationGetDescr(relation);
	Query	   *query = NULL;

	for (int attno = 1; attno <= tupdesc->natts; attno++)
	{
		if (TupleDescAttr(tupdesc, attno - 1)->attgenerated != ATTRIBUTE_GENERATED_VIRTUAL)
			continue;
		is_used |= bms_is_member(attno, used_attnos);
		if (query == NULL)
			query = entry_as_query(rte, 1);
		list_nth_node(TargetEntry, query->targetList, attno - 1)->expr =
			(Expr *) build_generation_expression(relation, attno);
	}
	table_close(relation, NoLock);
	if (is_used)
		entry_becomes_subquery(rte, query);
#endif
	return is_used;
}
