/*
 * delta/sublink_lateral.c
 *     Rewrite: LATERAL subqueries become joins.
 *
 *     FROM o, LATERAL (S)               JOIN S' ON keys match; LEFT JOIN when S is an aggregate, which has a row where nothing matches
 *     FROM o LEFT JOIN LATERAL (S)      LEFT JOIN S' ON keys match
 *
 * Where S is correlated by other than equalities, what stands before it becomes one subquery first, whose rows are those that magic.c computes S for.
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "sublink.h"
#include "tree_build.h"

static bool
is_lateral_subquery(RangeTblEntry *rte)
{
	return rte->rtekind == RTE_SUBQUERY && rte->lateral && reads_tables((Node *) rte->subquery) &&
		is_correlated((Node *) rte->subquery, 1);
}

bool
sublink_has_lateral(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->rtable)
	{
		if (is_lateral_subquery(lfirst_node(RangeTblEntry, lc)))
			return true;
	}
	return false;
}

typedef struct ValuesContext
{
	Detached   *detached;
	int			rtindex;
	int			level;
} ValuesContext;

/* References to an aggregate's columns become "that, or what it shows over nothing". */
static Node *
values_mutator(Node *node, ValuesContext *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
	{
		Query	   *result;

		context->level++;
		result = query_tree_mutator((Query *) node, values_mutator, context, 0);
		context->level--;
		return (Node *) result;
	}
	if (IsA(node, Var) && ((Var *) node)->varno == context->rtindex &&
		((Var *) node)->varlevelsup == (Index) context->level)
	{
		Node	   *value = sublink_value_or_empty(context->detached, context->rtindex, ((Var *) node)->varattno);

		IncrementVarSublevelsUp(value, context->level, 0);
		return value;
	}
	return expression_tree_mutator(node, values_mutator, context);
}

/* A LATERAL subquery without its correlation; NULL, and noted, when there is no rule.  Its references are changed as is needed. */
static Detached *
detach_lateral(SublinkRewrite *rewrite, int rtindex, Node *before)
{
	RangeTblEntry *rte = rt_fetch(rtindex, rewrite->query->rtable);
	Detached   *detached = detach_subquery(copyObject(rte->subquery));
	char	   *alias = rte->eref->aliasname;

	if (detached == NULL && before != NULL && IsA(before, RangeTblRef))
		detached = detach_by_magic(rt_fetch(((RangeTblRef *) before)->rtindex, rewrite->query->rtable), copyObject(rte->subquery));
	if (detached == NULL)
	{
		rewrite->failed = true;
		return compile_cannot(rewrite->compiler, "a LATERAL subquery has no delta rule: it is correlated by other than equalities,"
							  " and by values, or in a place, for which there is no other rule");
	}
	lfirst(list_nth_cell(rewrite->query->rtable, rtindex - 1)) = subquery_rte(detached->query, alias);
	if (detached->one_row)
	{
		ValuesContext context = {detached, rtindex, 0};

		rewrite->quals = (List *) values_mutator((Node *) rewrite->quals, &context);
		rewrite->query->jointree = makeFromExpr(NIL, NULL);
		query_tree_mutator(rewrite->query, values_mutator, &context, QTW_DONT_COPY_QUERY | QTW_IGNORE_JOINALIASES);
	}
	return detached;
}

static bool
join_condition_is_true(JoinExpr *join)
{
	return join->quals == NULL || (IsA(join->quals, Const) && DatumGetBool(((Const *) join->quals)->constvalue));
}

/* The LATERAL subquery that an item of FROM is, or LEFT JOINs; 0: none */
static int
lateral_of_item(Query *query, Node *item)
{
	Node	   *side = IsA(item, JoinExpr) && ((JoinExpr *) item)->jointype == JOIN_LEFT ? ((JoinExpr *) item)->rarg : item;
	int			rtindex = IsA(side, RangeTblRef) ? ((RangeTblRef *) side)->rtindex : 0;

	return rtindex > 0 && is_lateral_subquery(rt_fetch(rtindex, query->rtable)) ? rtindex : 0;
}

/*
 * What stands before a LATERAL subquery becomes one subquery, whose rows are those that magic.c needs:
 *
 *     FROM a, b, LATERAL (S)                         FROM (a, b) o, LATERAL (S)
 *     FROM a, b LEFT JOIN LATERAL (S) ON c           FROM (a, b) o LEFT JOIN LATERAL (S) ON c
 */
static void
wrap_before_lateral(SublinkRewrite *rewrite, int position, List **conditions)
{
	Query	   *query = rewrite->query;
	Node	   *item = list_nth(rewrite->items, position);
	List	   *before = list_truncate(list_copy(rewrite->items), position);
	List	   *after = list_copy_tail(rewrite->items, position + 1);
	bool		joined = IsA(item, JoinExpr);
	Node	   *reference;
	FromExpr   *from;

	if (joined)
	{
		before = lappend(before, ((JoinExpr *) item)->larg);
		((JoinExpr *) item)->larg = NULL;
	}
	/* all that refers to what moves must be in the tree */
	query->jointree = makeFromExpr(lcons(item, after), (Node *) list_make2(rewrite->quals, *conditions));
	reference = move_into_subquery(query, (Node *) makeFromExpr(before, NULL), NIL);
	from = query->jointree;
	rewrite->quals = linitial((List *) from->quals);
	*conditions = lsecond((List *) from->quals);
	rewrite->items = from->fromlist;
	if (joined)
		((JoinExpr *) linitial(rewrite->items))->larg = reference;
	else
		rewrite->items = lcons(reference, rewrite->items);
}

void
sublink_wrap_for_lateral(SublinkRewrite *rewrite, List **conditions)
{
	for (int i = 0; i < list_length(rewrite->items); i++)
	{
		Node	   *item = list_nth(rewrite->items, i);
		int			rtindex = lateral_of_item(rewrite->query, item);

		if (rtindex == 0 || (i == 0 && !IsA(item, JoinExpr)) ||
			detach_subquery(copyObject(rt_fetch(rtindex, rewrite->query->rtable)->subquery)) != NULL)
			continue;
		wrap_before_lateral(rewrite, i, conditions);
		i = IsA(item, JoinExpr) ? 0 : 1;
	}
}

/* FROM ..., LATERAL (S), and ... LEFT JOIN LATERAL (S) ON ... */
void
sublink_rewrite_lateral(SublinkRewrite *rewrite)
{
	List	   *items = rewrite->items;
	List	   *lateral_quals = NIL;
	ListCell   *lc;

	rewrite->items = NIL;
	foreach(lc, items)
	{
		Node	   *item = lfirst(lc);
		JoinExpr   *join = IsA(item, JoinExpr) ? (JoinExpr *) item : NULL;
		int			rtindex = lateral_of_item(rewrite->query, item);
		Detached   *detached;

		if (rewrite->failed || rtindex == 0)
		{
			rewrite->items = lappend(rewrite->items, item);
			continue;
		}
		detached = detach_lateral(rewrite, rtindex, join != NULL ? join->larg : rewrite->items == NIL ? NULL : linitial(rewrite->items));
		if (detached == NULL)
			return;
		if (join != NULL)
		{
			if (detached->one_row && !join_condition_is_true(join))
			{
				rewrite->failed = true;
				compile_cannot(rewrite->compiler, "LEFT JOIN LATERAL to an aggregate with a condition has no delta rule");
				return;
			}
			join->quals = (Node *) make_ands_explicit(list_concat(detached_quals(detached, rtindex),
																  join_condition_is_true(join) ? NIL
																  : make_ands_implicit((Expr *) join->quals)));
			rewrite->items = lappend(rewrite->items, item);
		}
		else if (detached->one_row)
		{
			/* joined to all items so far, which hold what it refers to */
			JoinExpr   *left = makeNode(JoinExpr);

			left->jointype = JOIN_LEFT;
			left->larg = (Node *) makeFromExpr(rewrite->items, NULL);
			left->rarg = item;
			left->quals = (Node *) make_ands_explicit(detached_quals(detached, rtindex));
			rewrite->items = list_make1(left);
		}
		else
		{
			rewrite->items = lappend(rewrite->items, item);
			lateral_quals = list_concat(lateral_quals, detached_quals(detached, rtindex));
		}
	}
	rewrite->quals = list_concat(rewrite->quals, lateral_quals);
}
