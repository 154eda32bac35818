/*
 * delta/tree_build.c
 *     Small parts of query trees that rewrites put together.
 */
#include "postgres.h"

#include "block.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/tlist.h"
#include "parser/parse_relation.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "tree_build.h"

RangeTblEntry *
subquery_rte(Query *query, const char *alias)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);

	rte->rtekind = RTE_SUBQUERY;
	rte->subquery = query;
	rte->alias = makeAlias(alias, NIL);
	rte->eref = makeAlias(alias, target_column_names(query->targetList));
	rte->inFromCl = true;
	return rte;
}

RangeTblEntry *
empty_rte(void)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);

	rte->rtekind = RTE_RESULT;
	rte->eref = makeAlias("*RESULT*", NIL);
	return rte;
}

RangeTblRef *
reference_to(int rtindex)
{
	RangeTblRef *reference = makeNode(RangeTblRef);

	reference->rtindex = rtindex;
	return reference;
}

Var *
subquery_var(Query *query, int rtindex, int column, int sublevels_up)
{
	Node	   *expr = (Node *) get_tle_by_resno(query->targetList, column)->expr;

	return makeVar(rtindex, column, exprType(expr), exprTypmod(expr), exprCollation(expr), sublevels_up);
}

Query *
rows_of_from(Query *level, List *exprs)
{
	Query	   *rows = makeNode(Query);
	ListCell   *lc;

	rows->commandType = CMD_SELECT;
	rows->canSetTag = true;
	rows->rtable = level->rtable;
#if PG_VERSION_NUM >= 160000
	rows->rteperminfos = level->rteperminfos;
#endif
	rows->jointree = level->jointree;
	rows->cteList = level->cteList;
	rows->hasRecursive = level->hasRecursive;
	rows->hasSubLinks = level->hasSubLinks;
	foreach(lc, exprs)
	{
		int			number = list_length(rows->targetList) + 1;

		rows->targetList = lappend(rows->targetList, makeTargetEntry(lfirst(lc), number, psprintf("c%d", number), false));
	}
	return rows;
}

/* One more branch to the right of the tree. */
static Node *
add_branch(Node *tree, int rtindex, Query *first)
{
	RangeTblRef *leaf = makeNode(RangeTblRef);
	SetOperationStmt *operation;

	leaf->rtindex = rtindex;
	if (tree == NULL)
		return (Node *) leaf;
	operation = makeNode(SetOperationStmt);
	operation->op = SETOP_UNION;
	operation->all = true;
	operation->larg = tree;
	operation->rarg = (Node *) leaf;
	target_column_types(first->targetList, &operation->colTypes, &operation->colTypmods, &operation->colCollations);
	return (Node *) operation;
}

Query *
union_all_query(List *queries)
{
	Query	   *first = linitial_node(Query, queries);
	Query	   *query = makeNode(Query);
	Node	   *tree = NULL;
	List	   *names = target_column_names(first->targetList);
	ListCell   *lc;

	if (list_length(queries) == 1)
		return first;
	foreach(lc, queries)
	{
		query->rtable = lappend(query->rtable,
								subquery_rte(lfirst_node(Query, lc), psprintf("branch_%d", foreach_current_index(lc) + 1)));
		tree = add_branch(tree, list_length(query->rtable), first);
	}
	query->commandType = CMD_SELECT;
	query->canSetTag = true;
	query->setOperations = tree;
	query->jointree = makeFromExpr(NIL, NULL);
	for (int column = 1; column <= list_length(names); column++)
		query->targetList = lappend(query->targetList,
									makeTargetEntry((Expr *) subquery_var(first, 1, column, 0), column,
													pstrdup(strVal(list_nth(names, column - 1))), false));
	return query;
}

void
entry_columns(RangeTblEntry *rte, int rtindex, int sublevels_up, bool include_dropped, List **names, List **vars)
{
#if PG_VERSION_NUM >= 180000
	expandRTE(rte, rtindex, sublevels_up, VAR_RETURNING_DEFAULT, -1, include_dropped, names, vars);
#else
	expandRTE(rte, rtindex, sublevels_up, -1, include_dropped, names, vars);
#endif
}

Query *
entry_as_query(RangeTblEntry *rte, int rtindex)
{
	RangeTblEntry *inner = copyObject(rte);
	List	   *targets = NIL;
	List	   *names;
	List	   *vars;
	ListCell   *lc;

	inner->lateral = false;
	ChangeVarNodes((Node *) inner->securityQuals, rtindex, 1, 0);
#if PG_VERSION_NUM >= 160000
	inner->perminfoindex = 0;
#endif
	entry_columns(inner, 1, 0, true, &names, &vars);
	foreach(lc, vars)
		targets = lappend(targets, makeTargetEntry(lfirst(lc), list_length(targets) + 1,
												   psprintf("c%d", list_length(targets) + 1), false));
	return simple_query(list_make1(inner), NIL, targets);
}

void
entry_becomes_subquery(RangeTblEntry *rte, Query *query)
{
	rte->rtekind = RTE_SUBQUERY;
	rte->subquery = query;
	rte->relid = InvalidOid;
	rte->relkind = 0;
	rte->rellockmode = 0;
	rte->inh = false;
	rte->securityQuals = NIL;
#if PG_VERSION_NUM >= 160000
	rte->perminfoindex = 0;
#endif
	rte->alias = makeAlias(rte->eref->aliasname, NIL);
	/* dropped columns have empty names, and the query may have columns of its own */
	for (int column = list_length(rte->eref->colnames) + 1; column <= list_length(query->targetList); column++)
		rte->eref->colnames = lappend(rte->eref->colnames,
									  makeString(pstrdup(list_nth_node(TargetEntry, query->targetList, column - 1)->resname)));
}
