/*
 * delta/sublink.c
 *     Rewrite: subqueries in expressions and LATERAL subqueries become joins.
 *
 * Nothing in the algebra of deltas knows subqueries in expressions; joins, DISTINCT and GROUP BY it knows.  So a level with subqueries is turned
 * into one without, innermost levels by their own turn later.  With S' the subquery without its correlation (decorrelate.c, magic.c):
 *
 *     WHERE EXISTS (S)                  JOIN (SELECT DISTINCT keys FROM S') d ON keys match
 *     WHERE NOT EXISTS (S)              LEFT JOIN (SELECT DISTINCT true AS found, keys ...) d ON ... WHERE d.found IS NULL
 *     WHERE x IN (S), NOT IN, ANY, ALL  what these say in terms of EXISTS (sublink_forms.c)
 *     EXISTS (S) in an expression       LEFT JOIN as above, and d.found IS NOT NULL in its place
 *     (S), an aggregate                 LEFT JOIN (SELECT aggregate, keys ... GROUP BY keys) d, and d.value; joined without condition when not correlated
 *     (S), other                        the same over only_element(array_agg(value)), which raises the server's error for a second row,
 *                                       unless the keys hold a primary key of S's table, or LIMIT 1 says that there is one row
 *     FROM o, LATERAL (S)               JOIN S' ON keys match; LEFT JOIN when S is an aggregate, which has a row where nothing matches
 *
 * A DISTINCT side matches a row at most once, so joins keep the multiplicity of the level's rows.  LEFT JOINs whose NULL-extended rows a condition
 * rejects become inner ones in isolate.c.  In a level that groups, subqueries over the groups move to a level of their own above.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type_d.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parse_func.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "keyed.h"
#include "sublink.h"
#include "tree_build.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"

/* A LEFT JOIN to be put on top of FROM. */
typedef struct AddedJoin
{
	int			rtindex;
	List	   *on;				/* of Expr */
} AddedJoin;

typedef struct SublinkRewrite
{
	Compiler   *compiler;
	Query	   *query;
	List	   *items;			/* of FROM */
	List	   *quals;			/* conditions on the items */
	List	   *joins;			/* of AddedJoin */
	List	   *outer_quals;	/* conditions on what the added joins bring */
	bool		is_wrapped;		/* the items are one subquery */
	bool		failed;
} SublinkRewrite;

static Node *replace_sublinks(Node *node, SublinkRewrite *rewrite);

static void *
no_rule(SublinkRewrite *rewrite, const char *what)
{
	rewrite->failed = true;
	return compile_cannot(rewrite->compiler, "a subquery in an expression has no delta rule: %s", what);
}

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

static bool
has_sublink_to_rewrite(Node *node)
{
	return reading_sublink_walker(node, NULL);
}

static bool
is_lateral_subquery(RangeTblEntry *rte)
{
	return rte->rtekind == RTE_SUBQUERY && rte->lateral && reads_tables((Node *) rte->subquery) &&
		is_correlated((Node *) rte->subquery, 1);
}

static bool
has_lateral_subquery(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->rtable)
	{
		if (is_lateral_subquery(lfirst_node(RangeTblEntry, lc)))
			return true;
	}
	return false;
}

/* ---- detaching ---- */

static SubLink *
sublink_of(Node *node, SubLinkType type)
{
	return IsA(node, SubLink) && ((SubLink *) node)->subLinkType == type ? (SubLink *) node : NULL;
}

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

/* The subquery without references to this level; NULL, and noted, when there is no rule. */
static Detached *
detach(SublinkRewrite *rewrite, SubLink *sublink)
{
	Detached   *detached = detach_subquery(copyObject((Query *) sublink->subselect));

	if (detached == NULL && rewrite->is_wrapped)
		detached = detach_by_magic(rt_fetch(((RangeTblRef *) linitial(rewrite->items))->rtindex, rewrite->query->rtable),
								   copyObject((Query *) sublink->subselect));
	if (detached == NULL)
		return no_rule(rewrite, "it is correlated by other than equalities, and by values, or in a place, for which there is no other rule");
	return detached;
}

static int
add_entry(SublinkRewrite *rewrite, Query *query, const char *alias)
{
	rewrite->query->rtable = lappend(rewrite->query->rtable, subquery_rte(query, alias));
	return list_length(rewrite->query->rtable);
}

static Node *
reference_to(int rtindex)
{
	RangeTblRef *reference = makeNode(RangeTblRef);

	reference->rtindex = rtindex;
	return (Node *) reference;
}

static int
add_left_join(SublinkRewrite *rewrite, Detached *detached, const char *alias)
{
	AddedJoin  *join = palloc0(sizeof(AddedJoin));

	join->rtindex = add_entry(rewrite, detached->query, alias);
	join->on = detached_quals(detached, join->rtindex);
	rewrite->joins = lappend(rewrite->joins, join);
	return join->rtindex;
}

static int
add_inner_join(SublinkRewrite *rewrite, Detached *detached, const char *alias)
{
	int			rtindex = add_entry(rewrite, detached->query, alias);

	rewrite->items = lappend(rewrite->items, reference_to(rtindex));
	rewrite->quals = list_concat(rewrite->quals, detached_quals(detached, rtindex));
	return rtindex;
}

/* ---- EXISTS ---- */

/* What of a subquery does not matter when only the existence of its rows does. */
static void
simplify_exists(Query *query)
{
	query->sortClause = NIL;
	if (query->setOperations != NULL || query->hasWindowFuncs || query->hasTargetSRFs || query->limitOffset != NULL ||
		query->havingQual != NULL || query->groupingSets != NIL || (query->hasAggs && query->groupClause == NIL))
		return;
	if (query->limitCount != NULL)
	{
		Const	   *limit = (Const *) eval_const_expressions(NULL, query->limitCount);

		if (!IsA(limit, Const) || (!limit->constisnull && DatumGetInt64(limit->constvalue) <= 0))
			return;
		query->limitCount = NULL;
	}
	query->targetList = list_make1(makeTargetEntry((Expr *) makeBoolConst(true, false), 1, pstrdup("found"), false));
	query->distinctClause = query->groupClause = NIL;
	query->hasDistinctOn = query->hasAggs = false;
}

/* An aggregate without GROUP BY has its row even over nothing. */
static bool
always_has_a_row(SubLink *exists)
{
	Query	   *query = (Query *) exists->subselect;

	return query->hasAggs && query->groupClause == NIL && query->groupingSets == NIL && query->havingQual == NULL &&
		query->limitCount == NULL && query->limitOffset == NULL && query->setOperations == NULL &&
		!expression_returns_set((Node *) query->targetList);
}

/* SELECT DISTINCT true AS found, keys */
static Detached *
found_keys(Detached *detached)
{
	Detached   *found = palloc(sizeof(Detached));
	List	   *targets = list_make1(makeTargetEntry((Expr *) makeBoolConst(true, false), 1, pstrdup("found"), false));
	Query	   *query;
	ListCell   *lc;

	for (int i = 1; i <= list_length(detached->outer); i++)
		targets = lappend(targets, makeTargetEntry((Expr *) subquery_var(detached->query, 1, detached->ncolumns + i, 0),
												   i + 1, psprintf("k%d", i), false));
	query = simple_query(list_make1(subquery_rte(detached->query, "matches")), NIL, targets);
	foreach(lc, targets)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);
		SortGroupClause *clause = makeNode(SortGroupClause);
		TypeCacheEntry *type = lookup_type_cache(exprType((Node *) target->expr),
												 TYPECACHE_EQ_OPR | TYPECACHE_LT_OPR | TYPECACHE_HASH_PROC);

		clause->tleSortGroupRef = target->ressortgroupref = target->resno;
		clause->eqop = type->eq_opr;
		clause->sortop = type->lt_opr;
		clause->hashable = OidIsValid(type->hash_proc);
		query->distinctClause = lappend(query->distinctClause, clause);
	}
	*found = *detached;
	found->query = query;
	found->ncolumns = 1;
	return found;
}

static Detached *
detach_exists(SublinkRewrite *rewrite, SubLink *exists)
{
	Detached   *detached;

	exists = copyObject(exists);
	simplify_exists((Query *) exists->subselect);
	detached = detach(rewrite, exists);
	return detached == NULL ? NULL : found_keys(detached);
}

static Node *
found_test(SublinkRewrite *rewrite, int rtindex, NullTestType type)
{
	NullTest   *test = makeNode(NullTest);

	test->arg = (Expr *) subquery_var(rt_fetch(rtindex, rewrite->query->rtable)->subquery, rtindex, 1, 0);
	test->nulltesttype = type;
	return (Node *) test;
}

/* ---- scalar subqueries ---- */

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

/* A column of an aggregate's row, or what it shows over nothing where the row is missing. */
static Node *
value_or_empty(Detached *detached, int rtindex, int column)
{
	Var		   *value = subquery_var(detached->query, rtindex, column, 0);
	NullTest   *matched;
	CaseExpr   *choice;
	CaseWhen   *when;

	if (detached->outer == NIL || detached->empty == NIL)
		return (Node *) value;
	matched = makeNode(NullTest);
	matched->arg = (Expr *) subquery_var(detached->query, rtindex, detached->ncolumns + 1, 0);
	matched->nulltesttype = IS_NOT_NULL;
	when = makeNode(CaseWhen);
	when->expr = (Expr *) matched;
	when->result = (Expr *) value;
	choice = makeNode(CaseExpr);
	choice->casetype = value->vartype;
	choice->casecollid = value->varcollid;
	choice->args = list_make1(when);
	choice->defresult = copyObject(list_nth(detached->empty, column - 1));
	return (Node *) choice;
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
	Detached   *detached = detach(rewrite, sublink);

	if (detached == NULL)
		return NULL;
	if (detached->one_row && null_if_empty)
		detached->empty = NIL;
	if (!detached->one_row && !unique && !keys_are_unique(detached))
	{
		detached = with_one_row(detached);
		if (detached == NULL)
			return no_rule(rewrite, "its value is of a type without arrays, and there may be more than one");
	}
	if (detached->one_row && detached->outer == NIL)
		return (Node *) subquery_var(detached->query, add_inner_join(rewrite, detached, "value"), 1, 0);
	return value_or_empty(detached, add_left_join(rewrite, detached, "value"), 1);
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
	detached = detach(rewrite, sublink);
	if (detached == NULL)
		return NULL;
	array = collected(detached->query, columns, clauses);
	if (array == NULL)
		return no_rule(rewrite, "its value is of a type without arrays");
	detached = with_aggregate(detached, array);
	or_empty->coalescetype = exprType((Node *) array);
	or_empty->coalescecollid = exprCollation((Node *) array);
	or_empty->location = -1;
	or_empty->args = list_make2(subquery_var(detached->query, detached->outer == NIL
											 ? add_inner_join(rewrite, detached, "collected")
											 : add_left_join(rewrite, detached, "collected"), 1, 0),
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
		return value_or_empty(context->detached, context->rtindex, ((Param *) node)->paramid);
	return expression_tree_mutator(node, columns_mutator, context);
}

/* No row is a row of NULLs here. */
static Node *
row_comparison(SublinkRewrite *rewrite, SubLink *sublink)
{
	bool		unique = limit_is_one((Query *) sublink->subselect);
	Detached   *detached = detach(rewrite, sublink);
	ColumnsContext context = {detached, 0};

	if (detached == NULL)
		return NULL;
	if (!detached->one_row && !unique && !keys_are_unique(detached))
		return no_rule(rewrite, "a row is compared with it, and there may be more than one");
	context.rtindex = add_left_join(rewrite, detached, "row");
	return columns_mutator(sublink->testexpr, &context);
}

/* ---- expressions ---- */

static Node *
exists_value(SublinkRewrite *rewrite, SubLink *exists)
{
	Detached   *detached;

	if (always_has_a_row(exists))
		return makeBoolConst(true, false);
	detached = detach_exists(rewrite, exists);
	return detached == NULL ? NULL : found_test(rewrite, add_left_join(rewrite, detached, "found"), IS_NOT_NULL);
}

static Node *
sublink_value(SublinkRewrite *rewrite, SubLink *sublink)
{
	switch (sublink->subLinkType)
	{
		case EXISTS_SUBLINK:
			return exists_value(rewrite, sublink);
		case EXPR_SUBLINK:
			return scalar_value(rewrite, sublink);
		case ANY_SUBLINK:
		case ALL_SUBLINK:
			return replace_sublinks(comparison_as_exists(sublink), rewrite);
		case ARRAY_SUBLINK:
			return array_value(rewrite, sublink);
		case ROWCOMPARE_SUBLINK:
			return row_comparison(rewrite, sublink);
		default:
			return no_rule(rewrite, "its kind is not known");
	}
}

static Node *
replace_sublinks(Node *node, SublinkRewrite *rewrite)
{
	if (node == NULL || rewrite->failed)
		return node;
	if (IsA(node, SubLink) && reads_tables(((SubLink *) node)->subselect))
		return sublink_value(rewrite, (SubLink *) node);
	return expression_tree_mutator(node, replace_sublinks, rewrite);
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

/* A row stays when the subquery has a row (or when it has none). */
static void
rewrite_exists(SublinkRewrite *rewrite, SubLink *exists, bool wanted)
{
	Detached   *detached;

	if (always_has_a_row(exists))
	{
		rewrite->quals = lappend(rewrite->quals, makeBoolConst(wanted, false));
		return;
	}
	detached = detach_exists(rewrite, exists);
	if (detached == NULL)
		return;
	if (wanted)
		(void) add_inner_join(rewrite, detached, "found");
	else
		rewrite->outer_quals = lappend(rewrite->outer_quals,
									   found_test(rewrite, add_left_join(rewrite, detached, "missing"), IS_NULL));
}

static void
rewrite_condition(SublinkRewrite *rewrite, Node *condition)
{
	Node	   *negated = is_notclause(condition) ? (Node *) get_notclausearg((Expr *) condition) : NULL;
	SubLink    *any = sublink_of(condition, ANY_SUBLINK);

	if (is_andclause(condition))
		rewrite_conditions(rewrite, ((BoolExpr *) condition)->args);
	else if (sublink_of(condition, EXISTS_SUBLINK) != NULL)
		rewrite_exists(rewrite, (SubLink *) condition, true);
	else if (negated != NULL && sublink_of(negated, EXISTS_SUBLINK) != NULL)
		rewrite_exists(rewrite, (SubLink *) negated, false);
	else if (any != NULL && !has_sublink_to_rewrite(any->testexpr))
		rewrite_exists(rewrite, any_as_exists(any), true);
	else if (negated != NULL && sublink_of(negated, ANY_SUBLINK) != NULL &&
			 !has_sublink_to_rewrite(((SubLink *) negated)->testexpr))
		rewrite_conditions(rewrite, not_any_as_conditions((SubLink *) negated));
	else if (sublink_of(condition, ALL_SUBLINK) != NULL && !has_sublink_to_rewrite(((SubLink *) condition)->testexpr))
		rewrite_conditions(rewrite, all_as_conditions((SubLink *) condition));
	else if (has_sublink_to_rewrite(condition))
		rewrite->outer_quals = lappend(rewrite->outer_quals, replace_sublinks(condition, rewrite));
	else
		rewrite->outer_quals = lappend(rewrite->outer_quals, condition);
}

/* ---- LATERAL ---- */

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
		Node	   *value = value_or_empty(context->detached, context->rtindex, ((Var *) node)->varattno);

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

static void
wrap_for_lateral(SublinkRewrite *rewrite, List **conditions)
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
static void
rewrite_lateral(SublinkRewrite *rewrite)
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

/* ---- levels that group ---- */

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
static Query *
split_grouping(Query *query)
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
	outer->jointree->fromlist = list_make1(reference_to(1));
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

static bool
has_sublink_over_groups(Query *query)
{
	return (query->hasAggs || query->groupClause != NIL || query->havingQual != NULL) &&
		(group_sublink_walker((Node *) query->targetList, NULL) || group_sublink_walker(query->havingQual, NULL));
}

/* ---- the pass ---- */

static void
build_from(SublinkRewrite *rewrite)
{
	FromExpr   *from = makeFromExpr(rewrite->items, rewrite->quals == NIL ? NULL
									: (Node *) make_ands_explicit(rewrite->quals));
	ListCell   *lc;

	foreach(lc, rewrite->joins)
	{
		AddedJoin  *added = lfirst(lc);
		JoinExpr   *join = makeNode(JoinExpr);

		join->jointype = JOIN_LEFT;
		join->larg = (Node *) from;
		join->rarg = reference_to(added->rtindex);
		join->quals = added->on == NIL ? makeBoolConst(true, false) : (Node *) make_ands_explicit(added->on);
		from = makeFromExpr(list_make1(join), NULL);
	}
	if (rewrite->outer_quals != NIL)
		from->quals = (Node *) make_ands_explicit(list_concat(make_ands_implicit((Expr *) from->quals),
															  rewrite->outer_quals));
	rewrite->query->jointree = from;
}

Query *
rewrite_sublinks(Compiler *compiler, Query *query)
{
	SublinkRewrite rewrite = {compiler, query, NIL, NIL, NIL, NIL, false, false};
	List	   *hard = NIL;
	List	   *quals = NIL;
	ListCell   *lc;

	if (!has_sublink_to_rewrite((Node *) query->targetList) && !has_sublink_to_rewrite((Node *) query->jointree) &&
		!has_sublink_to_rewrite(query->havingQual) && !has_lateral_subquery(query))
		return query;
	resolve_all_aliases(query);
	if (has_sublink_over_groups(query))
	{
		query = split_grouping(query);
		rewrite.query = query;
	}
	collect_from_items((Node *) query->jointree, &rewrite.items, &quals);
	foreach(lc, quals)
	{
		if (has_sublink_to_rewrite(lfirst(lc)))
			hard = lappend(hard, lfirst(lc));
		else
			rewrite.quals = lappend(rewrite.quals, lfirst(lc));
	}
	wrap_for_lateral(&rewrite, &hard);
	rewrite_lateral(&rewrite);
	if (!rewrite.failed && some_need_magic(hard, query->targetList))
		wrap_items(&rewrite, &hard);
	rewrite_conditions(&rewrite, hard);
	if (!rewrite.failed)
		query->targetList = (List *) replace_sublinks((Node *) query->targetList, &rewrite);
	if (rewrite.failed)
	{
		note_all_sources(compiler, query);
		return NULL;
	}
	build_from(&rewrite);
	return query;
}
