/*
 * delta/level_split.c
 *     Takes a query level apart: what runs last becomes a level of its own over the rest.
 *
 * SQL's order within a level is FROM, WHERE, GROUP BY, HAVING, window functions, DISTINCT, ORDER BY, LIMIT.  The operators handle one of
 * these each, so a level that has several is cut from the end: LIMIT over DISTINCT over windows over the rest.
 */
#include "keyed.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "rewrite/rewriteManip.h"
#include "tree_build.h"

static bool
sublink_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubLink))
		return true;
	return expression_tree_walker(node, sublink_walker, context);
}

bool
contains_sublink(Node *node)
{
	return sublink_walker(node, NULL);
}

Query *
level_over(Query *inner, List *clauses)
{
	List	   *targets = NIL;
	List	   *visible = NIL;
	List	   *junk = NIL;
	List	   *names;
	ListCell   *lc;

	foreach(lc, inner->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);
		bool		is_needed = !target->resjunk ||
			(target->ressortgroupref > 0 && get_sortgroupref_clause_noerr(target->ressortgroupref, clauses) != NULL);

		if (!is_needed)
		{
			junk = lappend(junk, target);
			continue;
		}

		Var		   *var = makeVar(1, list_length(visible) + 1, exprType((Node *) target->expr),
								  exprTypmod((Node *) target->expr), exprCollation((Node *) target->expr), 0);
		TargetEntry *outer = makeTargetEntry((Expr *) var, list_length(visible) + 1,
											 target->resname ? pstrdup(target->resname) : NULL, target->resjunk);

		outer->ressortgroupref = target->ressortgroupref;
		targets = lappend(targets, outer);
		target->resjunk = false;
		target->resno = list_length(visible) + 1;
		visible = lappend(visible, target);
	}
	foreach(lc, junk)
		lfirst_node(TargetEntry, lc)->resno = list_length(visible) + foreach_current_index(lc) + 1;
	inner->targetList = list_concat(list_copy(visible), junk);
	/* what it refers to above itself is one level further up now */
	IncrementVarSublevelsUp((Node *) inner, 1, 1);
	names = target_column_names(inner->targetList);
	rename_targets(inner->targetList, names);
	return simple_query(list_make1(subquery_rte(inner, "input")), NIL, targets);
}
