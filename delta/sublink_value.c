/*
 * delta/sublink_value.c
 *     Rewrite: the values of subqueries in expressions.
 *
 *     (S), an aggregate                 LEFT JOIN (SELECT aggregate, keys ... GROUP BY keys) d, and d.value; joined without condition when not correlated
 *     (S), other                        the same over only_element(array_agg(value)), which raises the server's error for a second row,
 *                                       unless the keys hold a primary key of S's table, or LIMIT 1 says that there is one row
 *     ARRAY (S)                         the same over array_agg(value ORDER BY what S's rows are sorted by), or an empty array
 *     (a, b) = (S)                      the comparison with the columns of S's row
 *
 * A LEFT JOIN's NULLs are what an aggregate shows over nothing, or a CASE says what it shows.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "keyed.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "parser/parse_func.h"
#include "parser/parsetree.h"
#include "sublink.h"
#include "tree_build.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"

/* ---- (SELECT ...) ---- */

/* Is there one row at most for each combination of the keys, because they hold a primary key? */
static bool
keys_are_unique(Detached *detached)
{
	Query	   *query = detached->query;
	RangeTblEntry *rte;
	Relation	relation;
	List	   *key;
	ListCell   *lc;
	bool		unique = true;

	if (list_length(query->jointree->fromlist) != 1 || !IsA(linitial(query->jointree->fromlist), RangeTblRef) ||
		query->setOperations != NULL || query->hasTargetSRFs || query->hasAggs || query->groupClause != NIL)
		return false;
	rte = rt_fetch(((RangeTblRef *) linitial(query->jointree->fromlist))->rtindex, query->rtable);
	if (rte->rtekind != RTE_RELATION || rte->relkind != RELKIND_RELATION || has_subclass(rte->relid))
		return false;
	relation = table_open(rte->relid, AccessShareLock);
	key = relation_key(relation);
	table_close(relation, NoLock);
	foreach(lc, key)
	{
		bool		found = false;

		for (int i = 1; i <= list_length(detached->outer); i++)
		{
			Var		   *var = (Var *) list_nth_node(TargetEntry, query->targetList, detached->ncolumns + i - 1)->expr;

			found |= IsA(var, Var) && var->varattno == lfirst_int(lc);
		}
		unique &= found;
	}
	return key != NIL && unique;
}

static bool
limit_is_one(Query *query)
{
	Const	   *limit;

	if (query->limitCount == NULL || query->limitOption == LIMIT_OPTION_WITH_TIES)
		return false;
	limit = (Const *) eval_const_expressions(NULL, query->limitCount);
	return IsA(limit, Const) && !limit->constisnull && DatumGetInt64(limit->constvalue) == 1;
}

static Expr *
only_element(Expr *value)
{
	Oid			type = exprType((Node *) value);
	Oid			array_type = get_array_type(type);
	Aggref	   *collect = makeNode(Aggref);
	Oid			any_array = ANYARRAYOID;

	if (!OidIsValid(array_type) || type_is_array(type))
		return NULL;
	collect->aggfnoid = F_ARRAY_AGG_ANYNONARRAY;
	collect->aggtype = array_type;
	collect->aggcollid = exprCollation((Node *) value);
	collect->inputcollid = exprCollation((Node *) value);
	collect->aggargtypes = list_make1_oid(type);
	collect->args = list_make1(makeTargetEntry(value, 1, NULL, false));
	collect->aggkind = 'n';
	collect->location = -1;
	return (Expr *) makeFuncExpr(LookupFuncName(list_make2(makeString("pgtrickle"), makeString("only_element")), 1,
												&any_array, false), type, list_make1(collect),
								 exprCollation((Node *) value), exprCollation((Node *) value), COERCE_EXPLICIT_CALL);
}

/* SELECT value, keys FROM the rows GROUP BY keys, where `value` holds an aggregate over the subquery as entry 1 */
static Detached *
with_aggregate(Detached *detached, Expr *value)
{
	Detached   *single = palloc(sizeof(Detached));
	List	   *targets;
	Query	   *query;

	targets = list_make1(makeTargetEntry(value, 1, pstrdup("value"), false));
	for (int i = 1; i <= list_length(detached->outer); i++)
	{
		TargetEntry *target = makeTargetEntry((Expr *) subquery_var(detached->query, 1, detached->ncolumns + i, 0), i + 1,
											  psprintf("k%d", i), false);

		target->ressortgroupref = i;
		targets = lappend(targets, target);
	}
	query = simple_query(list_make1(subquery_rte(detached->query, "rows")), NIL, targets);
	query->hasAggs = true;
	for (int i = 1; i <= list_length(detached->outer); i++)
	{
		SortGroupClause *clause = makeNode(SortGroupClause);
		TypeCacheEntry *type = lookup_type_cache(exprType((Node *) list_nth_node(TargetEntry, targets, i)->expr),
												 TYPECACHE_EQ_OPR | TYPECACHE_LT_OPR | TYPECACHE_HASH_PROC);

		clause->tleSortGroupRef = i;
		clause->eqop = type->eq_opr;
		clause->sortop = type->lt_opr;
		clause->hashable = OidIsValid(type->hash_proc);
		query->groupClause = lappend(query->groupClause, clause);
	}
	*single = *detached;
	single->query = query;
	single->ncolumns = 1;
	single->one_row = true;
	single->empty = NIL;		/* NULL */
	return single;
}

/* SELECT only_element(array_agg(value)), keys ... GROUP BY keys; NULL when the value's type has no arrays. */
static Detached *
with_one_row(Detached *detached)
{
	Expr	   *value = only_element((Expr *) subquery_var(detached->query, 1, 1, 0));

	return value == NULL ? NULL : with_aggregate(detached, value);
}

/* Does the aggregate show NULL over nothing, whatever it is made of?  Then a LEFT JOIN's NULLs are right as they are. */
static Node *
nothing_is_null_mutator(Node *node, void *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Aggref))
	{
		Aggref	   *aggref = (Aggref *) node;
		char	   *name = get_func_name(aggref->aggfnoid);

		if (get_func_namespace(aggref->aggfnoid) == PG_CATALOG_NAMESPACE && name != NULL &&
			(strcmp(name, "sum") == 0 || strcmp(name, "avg") == 0 || strcmp(name, "min") == 0 || strcmp(name, "max") == 0))
			return (Node *) makeNullConst(aggref->aggtype, -1, aggref->aggcollid);
		return copyObject(node);
	}
	return expression_tree_mutator(node, nothing_is_null_mutator, context);
}

static bool
shows_null_over_nothing(Query *query)
{
	Expr	   *value = linitial_node(TargetEntry, query->targetList)->expr;
	Node	   *folded;

	if (contains_sublink((Node *) value))
		return false;
	folded = eval_const_expressions(NULL, nothing_is_null_mutator((Node *) value, NULL));
	return IsA(folded, Const) && ((Const *) folded)->constisnull;
}

static Node *
scalar_value(SublinkRewrite *rewrite, SubLink *sublink)
{
	Query	   *subquery = (Query *) sublink->subselect;
	bool		unique = limit_is_one(subquery);
	bool		null_if_empty = shows_null_over_nothing(subquery);
	Detached   *detached = sublink_detach(rewrite, sublink);

	if (detached == NULL)
		return NULL;
	if (detached->one_row && null_if_empty)
		detached->empty = NIL;
	if (!detached->one_row && !unique && !keys_are_unique(detached))
	{
		detached = with_one_row(detached);
		if (detached == NULL)
			return sublink_no_rule(rewrite, "its value is of a type without arrays, and there may be more than one");
	}
	if (detached->one_row && detached->outer == NIL)
		return (Node *) subquery_var(detached->query, sublink_inner_join(rewrite, detached, "value"), 1, 0);
	return sublink_value_or_empty(detached, sublink_left_join(rewrite, detached, "value"), 1);
}

/* ---- ARRAY(SELECT ...), (a, b) = (SELECT ...) ---- */

/* What the rows are sorted by, as columns that stay when the subquery is put into another one; their sort clauses refer to these then. */
static void
show_sort_columns(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->sortClause)
		get_sortgroupref_tle(lfirst_node(SortGroupClause, lc)->tleSortGroupRef, query->targetList)->resjunk = false;
	rename_targets(query->targetList, target_column_names(query->targetList));
}

/* array_agg(the first column ORDER BY those that the rows were sorted by), over the rows of `query` in FROM; NULL when it has no arrays. */
static Expr *
collected(Query *query, List *sort_columns, List *sort_clauses)
{
	Expr	   *value = (Expr *) subquery_var(query, 1, 1, 0);
	Oid			type = exprType((Node *) value);
	bool		of_arrays = type_is_array(type);
	Aggref	   *collect = makeNode(Aggref);
	ListCell   *lc;

	collect->aggfnoid = of_arrays ? F_ARRAY_AGG_ANYARRAY : F_ARRAY_AGG_ANYNONARRAY;
	collect->aggtype = of_arrays ? type : get_array_type(type);
	if (!OidIsValid(collect->aggtype))
		return NULL;
	collect->aggcollid = collect->inputcollid = exprCollation((Node *) value);
	collect->aggargtypes = list_make1_oid(type);
	collect->args = list_make1(makeTargetEntry(value, 1, NULL, false));
	collect->aggkind = 'n';
	collect->location = -1;
	foreach(lc, sort_clauses)
	{
		SortGroupClause *clause = copyObject(lfirst_node(SortGroupClause, lc));
		int			column = list_nth_int(sort_columns, foreach_current_index(lc));
		TargetEntry *target = column == 1 ? linitial_node(TargetEntry, collect->args)
			: makeTargetEntry((Expr *) subquery_var(query, 1, column, 0), list_length(collect->args) + 1, NULL, true);

		if (target->ressortgroupref != 0)
			continue;			/* sorted by it already */
		clause->tleSortGroupRef = target->ressortgroupref = foreach_current_index(lc) + 1;
		if (column != 1)
			collect->args = lappend(collect->args, target);
		collect->aggorder = lappend(collect->aggorder, clause);
	}
	return (Expr *) collect;
}

static Node *
array_value(SublinkRewrite *rewrite, SubLink *sublink)
{
	Query	   *subquery;
	List	   *columns = NIL;
	List	   *clauses;
	Detached   *detached;
	Expr	   *array;
	CoalesceExpr *or_empty = makeNode(CoalesceExpr);
	ListCell   *lc;

	sublink = copyObject(sublink);
	subquery = (Query *) sublink->subselect;
	clauses = subquery->sortClause;
	show_sort_columns(subquery);
	foreach(lc, clauses)
		columns = lappend_int(columns, get_sortgroupref_tle(lfirst_node(SortGroupClause, lc)->tleSortGroupRef,
															subquery->targetList)->resno);
	if (subquery->limitCount == NULL && subquery->limitOffset == NULL && !subquery->hasDistinctOn)
		subquery->sortClause = NIL;
	detached = sublink_detach(rewrite, sublink);
	if (detached == NULL)
		return NULL;
	array = collected(detached->query, columns, clauses);
	if (array == NULL)
		return sublink_no_rule(rewrite, "its value is of a type without arrays");
	detached = with_aggregate(detached, array);
	or_empty->coalescetype = exprType((Node *) array);
	or_empty->coalescecollid = exprCollation((Node *) array);
	or_empty->location = -1;
	or_empty->args = list_make2(subquery_var(detached->query, detached->outer == NIL
											 ? sublink_inner_join(rewrite, detached, "collected")
											 : sublink_left_join(rewrite, detached, "collected"), 1, 0),
								makeConst(or_empty->coalescetype, -1, or_empty->coalescecollid, -1,
										  PointerGetDatum(construct_empty_array(get_element_type(or_empty->coalescetype))),
										  false, false));
	return (Node *) or_empty;
}

typedef struct ColumnsContext
{
	Detached   *detached;
	int			rtindex;
} ColumnsContext;

static Node *
columns_mutator(Node *node, ColumnsContext *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_SUBLINK)
		return sublink_value_or_empty(context->detached, context->rtindex, ((Param *) node)->paramid);
	return expression_tree_mutator(node, columns_mutator, context);
}

/* No row is a row of NULLs here. */
static Node *
row_comparison(SublinkRewrite *rewrite, SubLink *sublink)
{
	bool		unique = limit_is_one((Query *) sublink->subselect);
	Detached   *detached = sublink_detach(rewrite, sublink);
	ColumnsContext context = {detached, 0};

	if (detached == NULL)
		return NULL;
	if (!detached->one_row && !unique && !keys_are_unique(detached))
		return sublink_no_rule(rewrite, "a row is compared with it, and there may be more than one");
	context.rtindex = sublink_left_join(rewrite, detached, "row");
	return columns_mutator(sublink->testexpr, &context);
}

/* ---- any expression ---- */

static Node *
sublink_value(SublinkRewrite *rewrite, SubLink *sublink)
{
	switch (sublink->subLinkType)
	{
		case EXISTS_SUBLINK:
			return sublink_exists_value(rewrite, sublink);
		case EXPR_SUBLINK:
			return scalar_value(rewrite, sublink);
		case ANY_SUBLINK:
		case ALL_SUBLINK:
			return sublink_replace_all(comparison_as_exists(sublink), rewrite);
		case ARRAY_SUBLINK:
			return array_value(rewrite, sublink);
		case ROWCOMPARE_SUBLINK:
			return row_comparison(rewrite, sublink);
		default:
			return sublink_no_rule(rewrite, "its kind is not known");
	}
}

Node *
sublink_replace_all(Node *node, SublinkRewrite *rewrite)
{
	if (node == NULL || rewrite->failed)
		return node;
	if (IsA(node, SubLink) && reads_tables(((SubLink *) node)->subselect))
		return sublink_value(rewrite, (SubLink *) node);
	return expression_tree_mutator(node, sublink_replace_all, rewrite);
}
