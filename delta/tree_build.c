/*
 * delta/tree_build.c
 *     Small parts of query trees that rewrites put together.
 */
#include "postgres.h"

#include "block.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
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

Var *
subquery_var(Query *query, int rtindex, int column, int sublevels_up)
{
	Node	   *expr = (Node *) get_tle_by_resno(query->targetList, column)->expr;

	return makeVar(rtindex, column, exprType(expr), exprTypmod(expr), exprCollation(expr), sublevels_up);
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
