/*
 * delta/distinct_aggregate.c
 *     Rewrites DISTINCT inside of aggregates, count(DISTINCT x) and its like, into grouping over distinct rows.
 *
 *     SELECT g, count(DISTINCT x), sum(y) FROM f WHERE w GROUP BY g
 *
 * becomes one grouping over the rows and, beside them, over the distinct pairs of key and x:
 *
 *     SELECT k1, count(x1), sum(v1) FROM (SELECT k1, NULL AS x1, v1, true AS is_row FROM base
 *                                         UNION ALL SELECT k1, x1, NULL, NULL FROM (SELECT DISTINCT k1, x1 FROM base)) GROUP BY k1
 *     base: SELECT g AS k1, x AS x1, y AS v1 FROM f WHERE w
 *
 * Aggregates leave out NULLs, so each sees only the rows that are meant for it; where that is not enough (count(*), expressions) is_row is asked for.
 * The distinct pairs have a state of their own, with counts, and so nothing is read again when a value goes.
 *
 * Only when every aggregate of the level follows weighted deltas by itself then; otherwise the level's groups are computed again anyway, and
 * this would only be work.  Sums only of types in which equal values are identical.
 */
#include "postgres.h"

#include "aggregate_rules.h"
#include "block.h"
#include "canonical.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_type_d.h"
#include "keyed.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "tree_build.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#define DISTINCT_COLUMNS_MAX 32

typedef struct DistinctRewrite
{
	Query	   *query;			/* the level, aliases resolved */
	List	   *keys;			/* of Node over the level's FROM, columns that depend on keys included */
	List	   *arguments;		/* of Node: what is distinct, its FILTER included */
	List	   *calls;			/* of Aggref */
	List	   *values;			/* of Var: what the other calls need */
	bool		has_plain_calls;
	bool		is_possible;
} DistinctRewrite;

/* ---- can we? ---- */

/* min(DISTINCT x) and its like have a rule as they are. */
static bool
is_distinct_call(Aggref *call)
{
	return call->aggdistinct != NIL && aggregate_rule(call) == AGGREGATE_RECOMPUTE;
}

static bool
distinct_call_has_rule(Aggref *call)
{
	Aggref	   *plain = copyObject(call);
	Node	   *argument;
	AggregateRule rule;

	plain->aggdistinct = NIL;
	rule = aggregate_rule(plain);
	if (rule == AGGREGATE_RECOMPUTE || list_length(call->args) != 1)
		return false;
	argument = (Node *) linitial_node(TargetEntry, call->args)->expr;
	return get_typtype(exprType(argument)) != TYPTYPE_PSEUDO &&
		OidIsValid(lookup_type_cache(exprType(argument), TYPECACHE_LT_OPR)->lt_opr) &&
		(rule == AGGREGATE_COUNT || !has_open_image(argument));
}

static bool
collect_walker(Node *node, DistinctRewrite *rewrite)
{
	if (node == NULL || list_member(rewrite->keys, node))
		return false;
	if (IsA(node, Aggref))
	{
		Aggref	   *call = (Aggref *) node;

		rewrite->calls = list_append_unique(rewrite->calls, call);
		if (is_distinct_call(call))
			rewrite->is_possible &= distinct_call_has_rule(call);
		else
		{
			rewrite->is_possible &= aggregate_rule(call) != AGGREGATE_RECOMPUTE;
			rewrite->has_plain_calls = true;
		}
		return false;
	}
	if (IsA(node, Var))
	{
		rewrite->keys = lappend(rewrite->keys, node);
		return false;
	}
	return expression_tree_walker(node, collect_walker, rewrite);
}

static bool
has_distinct_call(DistinctRewrite *rewrite)
{
	ListCell   *lc;

	foreach(lc, rewrite->calls)
	{
		if (is_distinct_call(lfirst(lc)))
			return true;
	}
	return false;
}

/* ---- the columns of the base ---- */

static Node *
distinct_argument(Aggref *call)
{
	Expr	   *argument = linitial_node(TargetEntry, call->args)->expr;
	CaseExpr   *choice;
	CaseWhen   *when;

	if (call->aggfilter == NULL)
		return (Node *) argument;
	choice = makeNode(CaseExpr);
	when = makeNode(CaseWhen);
	when->expr = call->aggfilter;
	when->result = argument;
	when->location = choice->location = -1;
	choice->casetype = exprType((Node *) argument);
	choice->casecollid = exprCollation((Node *) argument);
	choice->args = list_make1(when);
	choice->defresult = (Expr *) makeNullConst(choice->casetype, exprTypmod((Node *) argument), choice->casecollid);
	return (Node *) choice;
}

static bool
values_walker(Node *node, DistinctRewrite *rewrite)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		rewrite->values = list_append_unique(rewrite->values, node);
		return false;
	}
	return expression_tree_walker(node, values_walker, rewrite);
}

static void
collect_columns(DistinctRewrite *rewrite)
{
	ListCell   *lc;

	foreach(lc, rewrite->calls)
	{
		Aggref	   *call = lfirst(lc);

		if (is_distinct_call(call))
			rewrite->arguments = list_append_unique(rewrite->arguments, distinct_argument(call));
		else
			(void) values_walker((Node *) call, rewrite);
	}
}

static List *
all_columns(DistinctRewrite *rewrite)
{
	return list_concat(list_concat_copy(rewrite->keys, rewrite->arguments), rewrite->values);
}

/* ---- the branches ---- */

/* The branch's columns: the n-th one of `from` is column shown[n] (0: none), the others are NULL; and whether these are rows. */
static Query *
branch_query(DistinctRewrite *rewrite, Query *from, List *shown, bool is_rows)
{
	List	   *targets = NIL;
	ListCell   *lc;

	foreach(lc, all_columns(rewrite))
	{
		Node	   *expr = lfirst(lc);
		int			column = foreach_current_index(lc) + 1;
		int			place = 0;
		ListCell   *shown_cell;
		Expr	   *value;

		foreach(shown_cell, shown)
		{
			if (lfirst_int(shown_cell) == column)
				place = foreach_current_index(shown_cell) + 1;
		}
		value = place > 0 ? (Expr *) subquery_var(from, 1, place, 0)
			: (Expr *) makeNullConst(exprType(expr), exprTypmod(expr), exprCollation(expr));
		targets = lappend(targets, makeTargetEntry(value, column, psprintf("c%d", column), false));
	}
	targets = lappend(targets, makeTargetEntry((Expr *) makeBoolConst(true, !is_rows), list_length(targets) + 1,
											   pstrdup("is_row"), false));
	return simple_query(list_make1(subquery_rte(from, is_rows ? "base" : "pairs")), NIL, targets);
}

static List *
column_range(int first, int count)
{
	List	   *columns = NIL;

	for (int i = 0; i < count; i++)
		columns = lappend_int(columns, first + i);
	return columns;
}

/* SELECT DISTINCT keys, the argument FROM base */
static Query *
pairs_query(DistinctRewrite *rewrite, Query *base, List *columns)
{
	Query	   *pairs = simple_query(list_make1(subquery_rte(copyObject(base), "base")), NIL, NIL);
	ListCell   *lc;

	foreach(lc, columns)
	{
		Var		   *var = subquery_var(base, 1, lfirst_int(lc), 0);
		TypeCacheEntry *type = lookup_type_cache(var->vartype, TYPECACHE_EQ_OPR | TYPECACHE_LT_OPR);
		TargetEntry *target = makeTargetEntry((Expr *) var, foreach_current_index(lc) + 1,
											  psprintf("c%d", lfirst_int(lc)), false);
		SortGroupClause *clause = makeNode(SortGroupClause);

		clause->tleSortGroupRef = target->ressortgroupref = target->resno;
		clause->eqop = type->eq_opr;
		clause->sortop = type->lt_opr;
		pairs->targetList = lappend(pairs->targetList, target);
		pairs->distinctClause = lappend(pairs->distinctClause, clause);
	}
	return pairs;
}

static Query *
rows_and_pairs(DistinctRewrite *rewrite)
{
	Query	   *base = rows_of_from(rewrite->query, copyObject(all_columns(rewrite)));
	int			nkeys = list_length(rewrite->keys);
	int			narguments = list_length(rewrite->arguments);
	List	   *key_columns = column_range(1, nkeys);
	List	   *branches = NIL;

	if (rewrite->has_plain_calls)
	{
		/* everything but the distinct arguments */
		List	   *shown = column_range(1, list_length(all_columns(rewrite)));

		for (int i = 0; i < narguments; i++)
			list_nth_cell(shown, nkeys + i)->int_value = 0;
		branches = lappend(branches, branch_query(rewrite, copyObject(base), shown, true));
	}
	for (int i = 0; i < narguments; i++)
	{
		List	   *columns = lappend_int(list_copy(key_columns), nkeys + i + 1);

		branches = lappend(branches, branch_query(rewrite, pairs_query(rewrite, base, columns), columns, false));
	}
	return union_all_query(branches);
}

/* ---- the level over them ---- */

typedef struct OuterContext
{
	DistinctRewrite *rewrite;
	Query	   *input;
} OuterContext;

static Var *
input_column(OuterContext *context, int column)
{
	return subquery_var(context->input, 1, column, 0);
}

static Var *
is_row_column(OuterContext *context)
{
	return input_column(context, list_length(context->input->targetList));
}

static int
position_in(List *list, Node *node)
{
	ListCell   *lc;

	foreach(lc, list)
	{
		if (equal(lfirst(lc), node))
			return foreach_current_index(lc) + 1;
	}
	return 0;
}

static Node *
values_mutator(Node *node, OuterContext *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
		return (Node *) input_column(context, list_length(context->rewrite->keys) + list_length(context->rewrite->arguments) +
									 position_in(context->rewrite->values, node));
	return expression_tree_mutator(node, values_mutator, context);
}

static Node *
distinct_call_outside(OuterContext *context, Aggref *call)
{
	int			place = list_length(context->rewrite->keys) + position_in(context->rewrite->arguments, distinct_argument(call));
	Aggref	   *outer = makeNode(Aggref);

	*outer = *call;
	outer->aggdistinct = NIL;
	outer->aggfilter = NULL;
	outer->args = list_make1(makeTargetEntry((Expr *) input_column(context, place), 1, NULL, false));
	return (Node *) outer;
}

static Node *
plain_call_outside(OuterContext *context, Aggref *call)
{
	Aggref	   *outer = (Aggref *) expression_tree_mutator((Node *) call, values_mutator, context);
	bool		is_bare = !outer->aggstar && IsA(linitial_node(TargetEntry, outer->args)->expr, Var);

	outer->aggdistinct = NIL;		/* has a rule with it, as without */
	if (call->aggfilter == NULL && is_bare)
		return (Node *) outer;
	if (outer->aggstar && call->aggfilter == NULL)
	{
		outer->aggfnoid = F_COUNT_ANY;
		outer->aggstar = false;
		outer->aggargtypes = list_make1_oid(BOOLOID);
		outer->args = list_make1(makeTargetEntry((Expr *) is_row_column(context), 1, NULL, false));
		return (Node *) outer;
	}
	outer->aggfilter = outer->aggfilter == NULL ? (Expr *) is_row_column(context)
		: makeBoolExpr(AND_EXPR, list_make2(is_row_column(context), outer->aggfilter), -1);
	return (Node *) outer;
}

static Node *
outer_mutator(Node *node, OuterContext *context)
{
	int			key;

	if (node == NULL)
		return NULL;
	key = position_in(context->rewrite->keys, node);
	if (key > 0)
		return (Node *) input_column(context, key);
	if (IsA(node, Aggref))
		return is_distinct_call((Aggref *) node) ? distinct_call_outside(context, (Aggref *) node)
			: plain_call_outside(context, (Aggref *) node);
	return expression_tree_mutator(node, outer_mutator, context);
}

static Query *
outer_query(DistinctRewrite *rewrite)
{
	OuterContext context = {rewrite, rows_and_pairs(rewrite)};
	Query	   *outer = simple_query(list_make1(subquery_rte(context.input, "rows_and_pairs")), NIL,
									 (List *) outer_mutator((Node *) rewrite->query->targetList, &context));

	outer->hasAggs = true;
	outer->hasTargetSRFs = rewrite->query->hasTargetSRFs;
	outer->groupClause = rewrite->query->groupClause;
	outer->havingQual = outer_mutator(rewrite->query->havingQual, &context);
	outer->distinctClause = rewrite->query->distinctClause;
	outer->sortClause = rewrite->query->sortClause;
	return outer;
}

Query *
rewrite_distinct_aggregates(Query *query)
{
	DistinctRewrite rewrite = {0};
	ListCell   *lc;

	if (!query->hasAggs || query->cteList != NIL || contains_sublink((Node *) query->targetList) ||
		contains_sublink(query->havingQual))
		return query;
	rewrite.is_possible = true;
	rewrite.query = copyObject(query);
	rewrite.query->targetList = (List *) resolve_aliases(query, (Node *) rewrite.query->targetList);
	rewrite.query->havingQual = resolve_aliases(query, rewrite.query->havingQual);
#if PG_VERSION_NUM >= 180000
	rewrite.query->hasGroupRTE = false;
#endif
	foreach(lc, query->groupClause)
		rewrite.keys = list_append_unique(rewrite.keys,
										  get_sortgroupclause_expr(lfirst_node(SortGroupClause, lc), rewrite.query->targetList));
	(void) collect_walker((Node *) rewrite.query->targetList, &rewrite);
	(void) collect_walker(rewrite.query->havingQual, &rewrite);
	if (!rewrite.is_possible || !has_distinct_call(&rewrite) || list_length(rewrite.keys) >= DISTINCT_COLUMNS_MAX)
		return query;
	foreach(lc, rewrite.keys)
	{
		if (!OidIsValid(lookup_type_cache(exprType(lfirst(lc)), TYPECACHE_LT_OPR)->lt_opr))
			return query;
	}
	collect_columns(&rewrite);
	return outer_query(&rewrite);
}
