/*
 * delta/canonical.c
 *     One answer for queries that leave an order open: LIMIT, DISTINCT ON, row_number(), array_agg() and their like.
 *
 * `SELECT * FROM t ORDER BY d LIMIT 3` has several right answers when rows tie on d, and which one the server gives depends on its
 * plan.  A stream table has one.  So before a defining query is run, in whatever way (compiled into a program, for a first fill, in full, by
 * verify()), the orders that it leaves open are completed here, always in the same way (tie_break.c).  The result is one of the answers
 * that the query allows.  A query whose orders are total is left as it is; so is the text that users see.
 *
 *     LIMIT, OFFSET       ORDER BY gets a key of the rows, or all visible columns: rows that agree in these are the same row to a
 *                         reader.  FETCH FIRST ... WITH TIES needs nothing, but with OFFSET it leaves open which of equal rows are skipped.
 *     DISTINCT ON         the same behind its expressions.
 *     ARRAY(SELECT ...)   the same: the order of the rows is that of the elements.
 *     array_agg() ...     an aggregate that looks at the order of its rows gets ORDER BY a key of the input, or its arguments.
 *     windows             canonical_window.c
 *
 *     GROUP BY, DISTINCT, UNION ..., min() and max(): canonical_image.c
 *
 * Not touched: the digits of float sums.
 */
#include "canonical.h"

#include "catalog/namespace.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_namespace_d.h"
#include "keyed.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "rewrite/rewriteManip.h"
#include "utils/lsyscache.h"

/* ---- aggregates ---- */

bool
aggregate_sees_order(Oid function)
{
	static const char *const blind[] = {
		"count", "sum", "avg", "min", "max", "bool_and", "bool_or", "every", "bit_and", "bit_or", "bit_xor",
		"stddev", "stddev_pop", "stddev_samp", "variance", "var_pop", "var_samp", "corr", "covar_pop", "covar_samp",
		"regr_avgx", "regr_avgy", "regr_count", "regr_intercept", "regr_r2", "regr_slope", "regr_sxx", "regr_sxy",
		"regr_syy", "range_agg", "range_intersect_agg", NULL
	};
	const char *name = get_func_name(function);

	if (get_func_namespace(function) == get_namespace_oid("pgtrickle", true))
		return false;
	if (get_func_namespace(function) != PG_CATALOG_NAMESPACE)
		return true;
	for (int i = 0; blind[i] != NULL; i++)
	{
		if (strcmp(name, blind[i]) == 0)
			return false;
	}
	return true;
}

typedef struct AggregateContext
{
	Canonical  *canonical;
	List	   *input_key;
} AggregateContext;

static bool
aggregate_walker(Node *node, AggregateContext *context)
{
	Aggref	   *aggref = (Aggref *) node;

	if (node == NULL)
		return false;
	if (IsA(node, Aggref) && aggref->agglevelsup == 0 && aggref->aggkind == AGGKIND_NORMAL && aggref->args != NIL &&
		aggref->aggdistinct == NIL && aggregate_sees_order(aggref->aggfnoid))
	{
		List	   *exprs = context->input_key;
		List	   *arguments = NIL;
		ListCell   *lc;

		foreach(lc, aggref->args)
		{
			TargetEntry *argument = lfirst_node(TargetEntry, lc);

			if (!argument->resjunk && !IsA(argument->expr, Const))
				arguments = lappend(arguments, argument->expr);
		}
		if (exprs == NIL)
			exprs = ordered_tie_breaks(arguments);
		if (arguments != NIL && add_sort_exprs(&aggref->aggorder, &aggref->args, exprs))
			context->canonical->changed = true;
		return false;
	}
	return expression_tree_walker(node, aggregate_walker, context);
}

static void
canonicalize_aggregates(Query *query, Canonical *canonical)
{
	AggregateContext context = {canonical, NIL};

	if (!query->hasAggs)
		return;
	context.input_key = input_key_exprs(query);
	(void) aggregate_walker((Node *) query->targetList, &context);
	(void) aggregate_walker(query->havingQual, &context);
}

/* ---- LIMIT and DISTINCT ON ---- */

static List *
visible_exprs(Query *query)
{
	List	   *exprs = NIL;
	ListCell   *lc;

	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (!target->resjunk && !IsA(target->expr, Const))
			exprs = list_append_unique(exprs, target->expr);
	}
	return exprs;
}

/* Turns the level into `SELECT its columns FROM (the rest)` with DISTINCT ON, ORDER BY and LIMIT outside. */
static void
put_order_outside(Query *query)
{
	Query	   *inner = makeNode(Query);
	Query	   *outer;

	*inner = *query;
	outer = level_over(inner, list_concat_copy(query->sortClause, query->hasDistinctOn ? query->distinctClause : NIL));
	outer->sortClause = query->sortClause;
	outer->limitCount = query->limitCount;
	outer->limitOffset = query->limitOffset;
	outer->limitOption = query->limitOption;
	outer->querySource = query->querySource;
	outer->hasDistinctOn = query->hasDistinctOn;
	if (query->hasDistinctOn)
	{
		outer->distinctClause = query->distinctClause;
		inner->distinctClause = NIL;
		inner->hasDistinctOn = false;
	}
	inner->sortClause = NIL;
	inner->limitCount = inner->limitOffset = NULL;
	inner->limitOption = LIMIT_OPTION_COUNT;
	*query = *outer;
}

/* DISTINCT ON must be sorted by its expressions first. */
static void
sort_by_distinct_exprs(Query *query, Canonical *canonical)
{
	ListCell   *lc;

	foreach(lc, query->distinctClause)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);

		if (get_sortgroupref_clause_noerr(clause->tleSortGroupRef, query->sortClause) != NULL)
			continue;
		query->sortClause = lappend(query->sortClause, copyObject(clause));
		canonical->changed = true;
	}
}

static bool
is_zero_or_null(Node *node)
{
	node = eval_const_expressions(NULL, node);
	return node == NULL ||
		(IsA(node, Const) && (((Const *) node)->constisnull || DatumGetInt64(((Const *) node)->constvalue) == 0));
}

static void
canonicalize_rows(Query *query, Canonical *canonical, bool is_collected)
{
	bool		only_visible = query->setOperations != NULL || (query->distinctClause != NIL && !query->hasDistinctOn);
	List	   *exprs = NIL;

	if (query->limitCount == NULL && query->limitOffset == NULL && !query->hasDistinctOn && !is_collected)
		return;
	if (query->limitOption == LIMIT_OPTION_WITH_TIES && !query->hasDistinctOn && is_zero_or_null(query->limitOffset))
		return;
	if (query->hasAggs && query->groupClause == NIL && query->groupingSets == NIL && !query->hasTargetSRFs)
		return;					/* one row */
	if (query->hasDistinctOn)
		sort_by_distinct_exprs(query, canonical);
	if (!only_visible && !query->hasTargetSRFs)
		exprs = row_tie_breaks(query);
	if (exprs == NIL)
	{
		exprs = visible_exprs(query);
		if (order_needs_hash(exprs) && !sorts_by_all(query->sortClause, NIL, query->targetList, ordered_tie_breaks(exprs)))
		{
			put_order_outside(query);
			canonical->changed = true;
			exprs = visible_exprs(query);
		}
		exprs = ordered_tie_breaks(exprs);
	}
	if (query->limitOption == LIMIT_OPTION_WITH_TIES)
	{
		if (!sorts_by_all(query->sortClause, NIL, query->targetList, exprs) && canonical->open_reason == NULL)
			canonical->open_reason = "OFFSET with WITH TIES leaves open which of equal rows are skipped";
		return;
	}
	canonical->changed |= add_sort_exprs(&query->sortClause, &query->targetList, exprs);
}

/* ---- all levels ---- */

static bool
self_reference_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
		return ((RangeTblEntry *) node)->rtekind == RTE_CTE && ((RangeTblEntry *) node)->self_reference;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, self_reference_walker, context,
								 QTW_EXAMINE_RTES_BEFORE | QTW_IGNORE_CTE_SUBQUERIES);
	return expression_tree_walker(node, self_reference_walker, context);
}

/* A recursive query, or its term: the server takes no grouping there. */
static bool
is_recursive(Query *query)
{
	return self_reference_walker((Node *) query, NULL);
}

static bool
level_walker(Node *node, Canonical *canonical)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubLink) && ((SubLink *) node)->subLinkType == EXISTS_SUBLINK)
		canonical->unordered = castNode(Query, ((SubLink *) node)->subselect);
	if (IsA(node, SubLink) && ((SubLink *) node)->subLinkType == ARRAY_SUBLINK)
		canonical->collected = castNode(Query, ((SubLink *) node)->subselect);
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;
		bool		is_unordered = query == canonical->unordered;
		bool		is_collected = query == canonical->collected;

		(void) query_tree_walker(query, level_walker, canonical, 0);
		canonicalize_aggregates(query, canonical);
		if (query->hasWindowFuncs)
			canonicalize_windows(query, canonical);
		if (!is_recursive(query))
			canonicalize_images(query, canonical);
		if (!is_unordered)
			canonicalize_rows(query, canonical, is_collected);
		return false;
	}
	return expression_tree_walker(node, level_walker, canonical);
}

void
canonicalize(Query *query, Canonical *canonical)
{
	(void) level_walker((Node *) query, canonical);
}
