/*
 * delta/sublink_groups.c
 *     Rewrite: subqueries over the groups of a level move to a level of their own above.
 *
 *     SELECT g, (S), count(*) FROM t GROUP BY g HAVING EXISTS (S2)
 *     SELECT g, (S), n FROM (SELECT g, count(*) AS n FROM t GROUP BY g) WHERE EXISTS (S2)
 *
 * There they are subqueries over rows.  What they refer to, group columns and aggregates, are columns of the level below.
 */
#include "postgres.h"

#include "keyed.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteManip.h"
#include "sublink.h"
#include "tree_build.h"

typedef struct GroupSplit
{
	Query	   *inner;
	List	   *targets;		/* of the inner level */
	int			level;
} GroupSplit;

static Node *
split_output(GroupSplit *split, Expr *expr)
{
	ListCell   *lc;
	TargetEntry *target;

	foreach(lc, split->targets)
	{
		target = lfirst_node(TargetEntry, lc);
		if (equal(target->expr, expr))
			return (Node *) makeVar(1, target->resno, exprType((Node *) expr), exprTypmod((Node *) expr),
									exprCollation((Node *) expr), split->level);
	}
	target = makeTargetEntry(expr, list_length(split->targets) + 1, psprintf("g%d", list_length(split->targets) + 1), false);
	split->targets = lappend(split->targets, target);
	return (Node *) makeVar(1, target->resno, exprType((Node *) expr), exprTypmod((Node *) expr),
							exprCollation((Node *) expr), split->level);
}

static Node *
split_mutator(Node *node, GroupSplit *split)
{
	ListCell   *lc;

	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
	{
		Query	   *result;

		split->level++;
		result = query_tree_mutator((Query *) node, split_mutator, split, 0);
		split->level--;
		return (Node *) result;
	}
	if (split->level == 0)
	{
		/* as many as the level groups by, before others join them */
		foreach(lc, split->targets)
		{
			TargetEntry *target = lfirst_node(TargetEntry, lc);

			if (target->ressortgroupref > 0 && equal(target->expr, node))
				return split_output(split, target->expr);
		}
	}
	if ((IsA(node, Aggref) && ((Aggref *) node)->agglevelsup == (Index) split->level) ||
		(IsA(node, Var) && ((Var *) node)->varlevelsup == (Index) split->level))
	{
		Node	   *copy = copyObject(node);

		IncrementVarSublevelsUp(copy, -split->level, split->level);
		return split_output(split, (Expr *) copy);
	}
	return expression_tree_mutator(node, split_mutator, split);
}

/* SELECT ... FROM (the groups) WHERE having */
Query *
sublink_split_grouping(Query *query)
{
	Query	   *inner = query;
	GroupSplit	split = {inner, NIL, 0};
	List	   *targets = NIL;
	Node	   *having = query->havingQual;
	Query	   *outer;
	ListCell   *lc;

	foreach(lc, query->groupClause)
	{
		TargetEntry *target = copyObject(get_sortgroupref_tle(lfirst_node(SortGroupClause, lc)->tleSortGroupRef,
															  query->targetList));

		target->resno = list_length(split.targets) + 1;
		target->resjunk = false;
		target->resname = psprintf("g%d", target->resno);
		split.targets = lappend(split.targets, target);
	}
	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);
		TargetEntry *moved;

		if (target->resjunk)
			continue;
		moved = makeTargetEntry((Expr *) split_mutator((Node *) target->expr, &split), list_length(targets) + 1,
								target->resname, false);
		moved->ressortgroupref = target->ressortgroupref;
		targets = lappend(targets, moved);
	}
	having = split_mutator(having, &split);

	outer = simple_query(NIL, make_ands_implicit((Expr *) having), targets);
	outer->distinctClause = query->distinctClause;
	inner->distinctClause = NIL;
	inner->havingQual = NULL;
	inner->targetList = split.targets;
	/* what it refers to above itself is one level further up now */
	IncrementVarSublevelsUp((Node *) inner, 1, 1);
	outer->rtable = list_make1(subquery_rte(inner, "groups"));
	outer->jointree->fromlist = list_make1((Node *) reference_to(1));
	outer->hasSubLinks = true;
	return outer;
}

/* A subquery outside of the aggregates' arguments is about groups, not about rows. */
static bool
group_sublink_walker(Node *node, void *context)
{
	if (node == NULL || IsA(node, Aggref))
		return false;
	if (IsA(node, SubLink))
		return reads_tables(((SubLink *) node)->subselect);
	return expression_tree_walker(node, group_sublink_walker, context);
}

bool
sublink_is_over_groups(Query *query)
{
	return (query->hasAggs || query->groupClause != NIL || query->havingQual != NULL) &&
		(group_sublink_walker((Node *) query->targetList, NULL) || group_sublink_walker(query->havingQual, NULL));
}
