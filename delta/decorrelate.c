/*
 * delta/decorrelate.c
 *     Takes a subquery's references to the level around it out of it.
 *
 * A condition `outer expression = inner expression` says for which outer row a row of the subquery counts.  Without that
 * condition, and with the inner expression as one more column, the subquery says it for all outer rows at once:
 *
 *     SELECT x FROM s WHERE s.k = o.k            becomes   SELECT x, k FROM s                        rows where k = o.k
 *     SELECT sum(x) FROM s WHERE s.k = o.k                 SELECT sum(x), k FROM s GROUP BY k        that row, else the sum of nothing
 *     SELECT k2, sum(x) ... GROUP BY k2                    ... GROUP BY k2, k
 *     SELECT DISTINCT x ...                                SELECT DISTINCT x, k
 *     ... row_number() OVER (PARTITION BY p ...)           ... PARTITION BY p, k
 *     SELECT x ... ORDER BY y LIMIT 3                      rows of SELECT x, k, row_number() OVER (PARTITION BY k ORDER BY y) up to 3
 *
 * (Kim, TODS 1982; that an aggregate without GROUP BY has a row where nothing matches, Kim missed: the "count bug", Ganski and Wong, SIGMOD
 * 1987.)  What an aggregate shows over nothing is computed by the server itself, by running it over nothing.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type_d.h"
#include "equality.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "rewrite/rewriteManip.h"
#include "keyed.h"
#include "sublink.h"
#include "tree_build.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

/* ---- which level an expression is about ---- */

typedef struct LevelContext
{
	int			level;			/* that a Var has, seen from here */
	bool		found;
} LevelContext;

static bool
level_walker(Node *node, LevelContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
		return ((Var *) node)->varlevelsup == (Index) context->level;
	if (IsA(node, Aggref) && ((Aggref *) node)->agglevelsup == (Index) context->level)
		return true;
	if (IsA(node, Query))
	{
		bool		found;

		context->level++;
		found = query_tree_walker((Query *) node, level_walker, context, 0);
		context->level--;
		return found;
	}
	return expression_tree_walker(node, level_walker, context);
}

bool
is_correlated(Node *node, int levels)
{
	LevelContext context = {levels, false};

	/* a query's own Vars have level 0 */
	if (node != NULL && IsA(node, Query))
		return query_tree_walker((Query *) node, level_walker, &context, 0);
	return level_walker(node, &context);
}

/* ---- conditions ---- */

typedef struct Correlation
{
	List	   *outer;			/* of Expr, as seen by the level around */
	List	   *inner;			/* of Expr, as seen by the subquery */
	List	   *operators;
	List	   *collations;
} Correlation;

/* outer = inner, either way round: notes it and returns true */
static bool
take_equality(Node *qual, Correlation *correlation)
{
	OpExpr	   *condition = (OpExpr *) qual;
	Oid			operator;
	Node	   *sides[2];

	if (!IsA(qual, OpExpr) || list_length(condition->args) != 2)
		return false;
	operator = condition->opno;
	sides[0] = linitial(condition->args);
	sides[1] = lsecond(condition->args);
	if (!op_mergejoinable(operator, exprType(sides[0])))
		return false;
	if (!is_correlated(sides[0], 1))
	{
		Node	   *swapped = sides[0];

		sides[0] = sides[1];
		sides[1] = swapped;
		operator = get_commutator(operator);
	}
	if (!OidIsValid(operator) || is_correlated(sides[0], 0) || !is_correlated(sides[0], 1) ||
		is_correlated(sides[1], 1) || contain_agg_clause(sides[1]) || !is_usual_comparison(operator, exprType(sides[1])))
		return false;
	sides[0] = copyObject(sides[0]);
	IncrementVarSublevelsUp(sides[0], -1, 1);
	correlation->outer = lappend(correlation->outer, sides[0]);
	/* the subquery is grouped by it: for a row of the level around there must be one group */
	correlation->inner = lappend(correlation->inner, under_collation(sides[1], condition->inputcollid));
	correlation->operators = lappend_oid(correlation->operators, operator);
	correlation->collations = lappend_oid(correlation->collations, condition->inputcollid);
	return true;
}

/* Takes the equalities out of WHERE and of inner joins' ON. */
static void
take_equalities(Node *node, Correlation *correlation)
{
	Node	  **quals;
	List	   *kept = NIL;
	ListCell   *lc;

	if (node == NULL || IsA(node, RangeTblRef))
		return;
	if (IsA(node, FromExpr))
	{
		foreach(lc, ((FromExpr *) node)->fromlist)
			take_equalities(lfirst(lc), correlation);
		quals = &((FromExpr *) node)->quals;
	}
	else
	{
		JoinExpr   *join = castNode(JoinExpr, node);

		/* below an outer join a condition is not one on the result */
		if (join->jointype != JOIN_INNER)
			return;
		take_equalities(join->larg, correlation);
		take_equalities(join->rarg, correlation);
		quals = &join->quals;
	}
	foreach(lc, make_ands_implicit((Expr *) *quals))
	{
		if (!take_equality(lfirst(lc), correlation))
			kept = lappend(kept, lfirst(lc));
	}
	*quals = kept == NIL ? NULL : (Node *) make_ands_explicit(kept);
	if (*quals == NULL && IsA(node, JoinExpr))
		*quals = makeBoolConst(true, false);
}

/* ---- what an aggregate shows over nothing ---- */

/*
 * Columns of the subquery are NULL there; in an aggregate's arguments, of which there are none, all columns are, lest it is taken for an aggregate of the
 * level whose columns alone are left.
 */
static Node *
null_columns_mutator(Node *node, void *context)
{
	bool		in_aggregate = context != NULL;

	if (node == NULL)
		return NULL;
	if (IsA(node, Aggref))
		context = node;
	if (IsA(node, Var) && (((Var *) node)->varlevelsup == 0 || in_aggregate))
	{
		Var		   *var = (Var *) node;

		return (Node *) makeNullConst(var->vartype, var->vartypmod, var->varcollid);
	}
	return expression_tree_mutator(node, null_columns_mutator, context);
}

/* (SELECT expression over no rows): a subquery that reads nothing. */
static Expr *
over_nothing(Expr *expr)
{
	Query	   *query;
	SubLink    *sublink = makeNode(SubLink);
	Expr	   *value = (Expr *) null_columns_mutator((Node *) expr, NULL);

	query = simple_query(NIL, list_make1(makeBoolConst(false, false)),
						 list_make1(makeTargetEntry(value, 1, pstrdup("value"), false)));
	query->hasAggs = true;
	query->hasSubLinks = contains_sublink((Node *) value);
	sublink->subLinkType = EXPR_SUBLINK;
	sublink->subselect = (Node *) query;
	return (Expr *) sublink;
}

/* ---- key columns ---- */

static Index
next_sortgroupref(List *targets)
{
	Index		last = 0;
	ListCell   *lc;

	foreach(lc, targets)
		last = Max(last, lfirst_node(TargetEntry, lc)->ressortgroupref);
	return last + 1;
}

static SortGroupClause *
sort_group_clause(Node *expr, Index reference)
{
	SortGroupClause *clause = makeNode(SortGroupClause);
	TypeCacheEntry *type = lookup_type_cache(exprType(expr), TYPECACHE_EQ_OPR | TYPECACHE_LT_OPR | TYPECACHE_HASH_PROC);

	clause->tleSortGroupRef = reference;
	clause->eqop = type->eq_opr;
	clause->sortop = type->lt_opr;
	clause->hashable = OidIsValid(type->hash_proc);
	return clause;
}

/* Adds the inner expressions as visible columns behind the others; junk comes last. */
static List *
add_key_columns(Query *query, List *inner)
{
	List	   *visible = NIL;
	List	   *junk = NIL;
	List	   *keys = NIL;
	Index		reference = next_sortgroupref(query->targetList);
	ListCell   *lc;

	foreach(lc, query->targetList)
	{
		if (lfirst_node(TargetEntry, lc)->resjunk)
			junk = lappend(junk, lfirst(lc));
		else
			visible = lappend(visible, lfirst(lc));
	}
	foreach(lc, inner)
	{
		TargetEntry *target = makeTargetEntry(lfirst(lc), 0, psprintf("__key%d", foreach_current_index(lc) + 1), false);

		target->ressortgroupref = reference++;
		visible = lappend(visible, target);
		keys = lappend(keys, target);
	}
	query->targetList = list_concat(visible, junk);
	foreach(lc, query->targetList)
		lfirst_node(TargetEntry, lc)->resno = foreach_current_index(lc) + 1;
	return keys;
}

static List *
clauses_of(List *keys)
{
	List	   *clauses = NIL;
	ListCell   *lc;

	foreach(lc, keys)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		clauses = lappend(clauses, sort_group_clause((Node *) target->expr, target->ressortgroupref));
	}
	return clauses;
}

static int
count_visible(Query *query)
{
	int			count = 0;
	ListCell   *lc;

	foreach(lc, query->targetList)
		count += !lfirst_node(TargetEntry, lc)->resjunk;
	return count;
}

/* ---- LIMIT for each outer row ---- */

static Expr *
int8_operation(const char *name, Expr *left, Expr *right)
{
	Oid			operator = OpernameGetOprid(list_make1(makeString(pstrdup(name))), INT8OID, INT8OID);

	return make_opclause(operator, get_op_rettype(operator), false, left, right, InvalidOid, InvalidOid);
}

/* No limit is no condition: what is NULL takes nothing away. */
static Node *
unless_false(Expr *condition)
{
	BooleanTest *test = makeNode(BooleanTest);

	test->arg = condition;
	test->booltesttype = IS_NOT_FALSE;
	return (Node *) test;
}

static Expr *
zero_if_null(Expr *number)
{
	CoalesceExpr *coalesce = makeNode(CoalesceExpr);

	coalesce->coalescetype = INT8OID;
	coalesce->args = list_make2(number, makeConst(INT8OID, -1, InvalidOid, sizeof(int64), Int64GetDatum(0), false, true));
	coalesce->location = -1;
	return (Expr *) coalesce;
}

/* A column with the number of each row in the order of the query, within the combination of the keys. */
static void
add_row_numbers(Query *query, List *keys)
{
	WindowClause *window = makeNode(WindowClause);
	WindowFunc *call = makeNode(WindowFunc);

	window->winref = list_length(query->windowClause) + 1;
	window->partitionClause = clauses_of(keys);
	window->orderClause = query->sortClause;
	window->frameOptions = FRAMEOPTION_DEFAULTS;
	call->winfnoid = query->limitOption == LIMIT_OPTION_WITH_TIES ? F_RANK_ : F_ROW_NUMBER;
	call->wintype = INT8OID;
	call->winref = window->winref;
	query->windowClause = lappend(query->windowClause, window);
	query->hasWindowFuncs = true;
	query->sortClause = NIL;
	(void) add_key_columns(query, list_make1(call));
}

Query *
limit_by_number(Query *query, List *keys)
{
	Expr	   *limit = (Expr *) query->limitCount;
	Expr	   *offset = (Expr *) query->limitOffset;
	int			ncolumns = count_visible(query);
	List	   *quals = NIL;
	List	   *targets = NIL;
	List	   *names;
	Expr	   *number;
	Query	   *result;

	add_row_numbers(query, keys);
	query->limitCount = query->limitOffset = NULL;
	query->limitOption = LIMIT_OPTION_COUNT;

	number = (Expr *) subquery_var(query, 1, ncolumns + 1, 0);
	if (offset != NULL)
		quals = lappend(quals, unless_false(int8_operation(">", number, offset)));
	if (limit != NULL)
		quals = lappend(quals, unless_false(int8_operation("<=", copyObject(number), offset == NULL ? limit
														   : int8_operation("+", zero_if_null(copyObject(offset)), limit))));
	names = target_column_names(query->targetList);
	for (int i = 1; i <= ncolumns; i++)
		targets = lappend(targets, makeTargetEntry((Expr *) subquery_var(query, 1, i, 0), i, strVal(list_nth(names, i - 1)), false));
	result = simple_query(list_make1(subquery_rte(query, "numbered")), quals, targets);
	result->hasSubLinks = contains_sublink((Node *) quals);
	return result;
}

/* ---- the whole ---- */

static void
add_to_grouping(Query *query, List *keys)
{
	ListCell   *lc;

	if (query->hasAggs || query->groupClause != NIL || query->havingQual != NULL)
		query->groupClause = list_concat(query->groupClause, clauses_of(keys));
	if (query->distinctClause != NIL)
	{
		if (query->hasDistinctOn)
			query->distinctClause = list_concat(clauses_of(keys), query->distinctClause);
		else
			query->distinctClause = list_concat(query->distinctClause, clauses_of(keys));
	}
	if (query->hasDistinctOn)
		query->sortClause = list_concat(clauses_of(keys), query->sortClause);
	foreach(lc, query->windowClause)
	{
		WindowClause *window = lfirst_node(WindowClause, lc);

		window->partitionClause = list_concat(window->partitionClause, clauses_of(keys));
	}
}

static bool
keys_can_be_grouped(List *inner)
{
	ListCell   *lc;

	foreach(lc, inner)
	{
		if (!OidIsValid(lookup_type_cache(exprType(lfirst(lc)), TYPECACHE_LT_OPR)->lt_opr))
			return false;
	}
	return true;
}

/* An aggregate without GROUP BY and whatever could take its row away. */
static bool
has_one_row(Query *query)
{
	return query->hasAggs && query->groupClause == NIL && query->groupingSets == NIL &&
		query->havingQual == NULL && query->limitCount == NULL && query->limitOffset == NULL &&
		!expression_returns_set((Node *) query->targetList);
}

List *
values_over_nothing(Query *query)
{
	List	   *values = NIL;
	ListCell   *lc;

	if (!has_one_row(query))
		return NIL;
	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (!target->resjunk)
			values = lappend(values, over_nothing(target->expr));
	}
	return values;
}

Detached *
detach_subquery(Query *query)
{
	Detached   *detached = palloc0(sizeof(Detached));
	Correlation correlation = {NIL, NIL, NIL, NIL};
	List	   *keys;

	detached->query = query;
	detached->ncolumns = count_visible(query);
	detached->one_row = has_one_row(query);
	if (!is_correlated((Node *) query, 1))
		return detached;

	if (query->setOperations != NULL || query->groupingSets != NIL || query->cteList != NIL ||
		(query->hasAggs && query->groupClause == NIL && !detached->one_row))
		return NULL;
	take_equalities((Node *) query->jointree, &correlation);
	if (correlation.inner == NIL || !keys_can_be_grouped(correlation.inner))
		return NULL;
	if (is_correlated((Node *) query, 1))
		return NULL;			/* some reference is elsewhere */
	detached->empty = values_over_nothing(query);

	keys = add_key_columns(query, correlation.inner);
	add_to_grouping(query, keys);
	if (query->limitCount != NULL || query->limitOffset != NULL)
	{
		if (query->distinctClause != NIL)
			return NULL;
		detached->query = limit_by_number(query, keys);
	}
	detached->outer = correlation.outer;
	detached->operators = correlation.operators;
	detached->collations = correlation.collations;
	return detached;
}

List *
detached_quals(Detached *detached, int rtindex)
{
	List	   *quals = NIL;

	for (int i = 0; i < list_length(detached->outer); i++)
	{
		Oid			operator = list_nth_oid(detached->operators, i);

		quals = lappend(quals, make_opclause(operator, BOOLOID, false, copyObject(list_nth(detached->outer, i)),
											 (Expr *) subquery_var(detached->query, rtindex, detached->ncolumns + i + 1, 0),
											 InvalidOid, list_nth_oid(detached->collations, i)));
	}
	return quals;
}
