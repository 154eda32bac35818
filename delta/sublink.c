/*
 * delta/sublink.c
 *     Rewrite: subqueries in expressions and LATERAL subqueries become joins.
 *
 * Nothing in the algebra of deltas knows subqueries in expressions; joins, DISTINCT and GROUP BY it knows.  So a level with subqueries is turned
 * into one without, innermost levels by their own turn later.  Each subquery loses its correlation (decorrelate.c, magic.c) and is joined to the level's
 * FROM (sublink_join.c):
 *
 *     EXISTS, NOT EXISTS                sublink_exists.c
 *     x IN (S), NOT IN, ANY, ALL        what these say in terms of EXISTS: sublink_forms.c
 *     (S), ARRAY (S), (a, b) = (S)      sublink_value.c
 *     FROM o, LATERAL (S)               sublink_lateral.c
 *     (S) over groups                   first a level of their own above the groups: sublink_groups.c
 *
 * LEFT JOINs whose NULL-extended rows a condition rejects become inner ones in isolate.c.  Here is the pass, what it has to do for the conditions of
 * WHERE, and when magic.c is needed.
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "parser/parsetree.h"
#include "sublink.h"

/* ---- what there is to do ---- */

static bool
reading_sublink_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubLink))
		return reads_tables(((SubLink *) node)->subselect);
	return expression_tree_walker(node, reading_sublink_walker, context);
}

bool
sublink_is_within(Node *node)
{
	return reading_sublink_walker(node, NULL);
}

static SubLink *
sublink_of(Node *node, SubLinkType type)
{
	return IsA(node, SubLink) && ((SubLink *) node)->subLinkType == type ? (SubLink *) node : NULL;
}

/* ---- when magic.c is needed ---- */

/* Takes any EXISTS, ANY or ALL as what it is rewritten to. */
static bool
magic_walker(Node *node, void *context)
{
	SubLink    *sublink = (SubLink *) node;

	if (node == NULL)
		return false;
	if (!IsA(node, SubLink) || !reads_tables(sublink->subselect))
		return expression_tree_walker(node, magic_walker, context);
	if (sublink->subLinkType == ANY_SUBLINK || sublink->subLinkType == ALL_SUBLINK)
		return magic_walker(comparison_as_exists(sublink), context);
	return detach_subquery(copyObject((Query *) sublink->subselect)) == NULL;
}

/* Is some subquery of an expression correlated by other things than equalities? */
static bool
needs_magic(Node *node)
{
	return magic_walker(node, NULL);
}

/* The same for a condition, in which an unknown result is as good as false. */
static bool
condition_needs_magic(Node *condition)
{
	Node	   *negated = is_notclause(condition) ? (Node *) get_notclausearg((Expr *) condition) : NULL;
	List	   *conditions = NIL;
	ListCell   *lc;

	if (is_andclause(condition))
		conditions = ((BoolExpr *) condition)->args;
	else if (sublink_of(condition, ANY_SUBLINK) != NULL)
		return needs_magic((Node *) any_as_exists((SubLink *) condition));
	else if (negated != NULL && sublink_of(negated, ANY_SUBLINK) != NULL)
		conditions = not_any_as_conditions((SubLink *) negated);
	else if (sublink_of(condition, ALL_SUBLINK) != NULL)
		conditions = all_as_conditions((SubLink *) condition);
	else
		return needs_magic(condition);
	foreach(lc, conditions)
	{
		if (condition_needs_magic(lfirst(lc)))
			return true;
	}
	return false;
}

static bool
some_need_magic(List *conditions, List *targets)
{
	ListCell   *lc;

	foreach(lc, conditions)
	{
		if (condition_needs_magic(lfirst(lc)))
			return true;
	}
	return needs_magic((Node *) targets);
}

/*
 * FROM and the conditions without subqueries as one subquery, whose rows are those that magic.c needs.  Its columns are put in the place of the
 * tables' everywhere in the level, and in `conditions`, which are still to be rewritten.
 */
static void
wrap_items(SublinkRewrite *rewrite, List **conditions)
{
	Query	   *query = rewrite->query;
	Node	   *item = (Node *) makeFromExpr(rewrite->items, NULL);

	query->jointree = makeFromExpr(NIL, (Node *) *conditions);
	rewrite->items = list_make1(move_into_subquery(query, item, rewrite->quals));
	*conditions = (List *) query->jointree->quals;
	rewrite->quals = NIL;
	rewrite->is_wrapped = true;
}

/* ---- conditions ---- */

static void rewrite_condition(SublinkRewrite *rewrite, Node *condition);

static void
rewrite_conditions(SublinkRewrite *rewrite, List *conditions)
{
	ListCell   *lc;

	foreach(lc, conditions)
	{
		if (!rewrite->failed)
			rewrite_condition(rewrite, lfirst(lc));
	}
}

static void
rewrite_condition(SublinkRewrite *rewrite, Node *condition)
{
	Node	   *negated = is_notclause(condition) ? (Node *) get_notclausearg((Expr *) condition) : NULL;
	SubLink    *any = sublink_of(condition, ANY_SUBLINK);

	if (is_andclause(condition))
		rewrite_conditions(rewrite, ((BoolExpr *) condition)->args);
	else if (sublink_of(condition, EXISTS_SUBLINK) != NULL)
		sublink_exists_condition(rewrite, (SubLink *) condition, true);
	else if (negated != NULL && sublink_of(negated, EXISTS_SUBLINK) != NULL)
		sublink_exists_condition(rewrite, (SubLink *) negated, false);
	else if (any != NULL && !sublink_is_within(any->testexpr))
		sublink_exists_condition(rewrite, any_as_exists(any), true);
	else if (negated != NULL && sublink_of(negated, ANY_SUBLINK) != NULL &&
			 !sublink_is_within(((SubLink *) negated)->testexpr))
		rewrite_conditions(rewrite, not_any_as_conditions((SubLink *) negated));
	else if (sublink_of(condition, ALL_SUBLINK) != NULL && !sublink_is_within(((SubLink *) condition)->testexpr))
		rewrite_conditions(rewrite, all_as_conditions((SubLink *) condition));
	else if (sublink_is_within(condition))
		rewrite->outer_quals = lappend(rewrite->outer_quals, sublink_replace_all(condition, rewrite));
	else
		rewrite->outer_quals = lappend(rewrite->outer_quals, condition);
}

/* ---- the pass ---- */

Query *
rewrite_sublinks(Compiler *compiler, Query *query)
{
	SublinkRewrite rewrite = {compiler, query, NIL, NIL, NIL, NIL, false, false};
	List	   *hard = NIL;
	List	   *quals = NIL;
	ListCell   *lc;

	if (!sublink_is_within((Node *) query->targetList) && !sublink_is_within((Node *) query->jointree) &&
		!sublink_is_within(query->havingQual) && !sublink_has_lateral(query))
		return query;
	resolve_all_aliases(query);
	if (sublink_is_over_groups(query))
	{
		query = sublink_split_grouping(query);
		rewrite.query = query;
	}
	collect_from_items((Node *) query->jointree, &rewrite.items, &quals);
	foreach(lc, quals)
	{
		if (sublink_is_within(lfirst(lc)))
			hard = lappend(hard, lfirst(lc));
		else
			rewrite.quals = lappend(rewrite.quals, lfirst(lc));
	}
	sublink_wrap_for_lateral(&rewrite, &hard);
	sublink_rewrite_lateral(&rewrite);
	if (!rewrite.failed && some_need_magic(hard, query->targetList))
		wrap_items(&rewrite, &hard);
	rewrite_conditions(&rewrite, hard);
	if (!rewrite.failed)
		query->targetList = (List *) sublink_replace_all((Node *) query->targetList, &rewrite);
	if (rewrite.failed)
	{
		note_all_sources(compiler, query);
		return NULL;
	}
	sublink_build_from(&rewrite);
	return query;
}
