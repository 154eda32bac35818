/*
 * delta/tie_break.c
 *     What an order lacks to be total.
 *
 * A key of the rows, if one is known: the keys of all relations in FROM together, or the grouping columns.  Otherwise all columns that
 * matter: rows that agree in them can take each other's place without anybody noticing.  Agreeing means having equal images, and an
 * order often sees less than that (1.0 and 1.00, 'a' and 'A' under some collations) or is missing (json, point); then
 * pgtrickle.row_hash() of the columns decides, which differs for different images as surely as 64 bits can tell.
 */
#include "canonical.h"

#include "access/nbtree.h"
#include "block.h"
#include "catalog/pg_type_d.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parse_clause.h"
#include "parser/parse_func.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

/* ---- types ---- */

static bool
equal_means_identical(Node *expr)
{
	TypeCacheEntry *type = lookup_type_cache(exprType(expr), TYPECACHE_BTREE_OPFAMILY);
	Oid			procedure;

	if (!OidIsValid(type->btree_opf))
		return false;
	procedure = get_opfamily_proc(type->btree_opf, type->btree_opintype, type->btree_opintype, BTEQUALIMAGE_PROC);
	return OidIsValid(procedure) &&
		DatumGetBool(OidFunctionCall1Coll(procedure, exprCollation(expr), ObjectIdGetDatum(type->btree_opintype)));
}

static bool
has_order(Node *expr)
{
	/* a row has an order if all its columns do, which shows only when it is compared */
	return !(IsA(expr, Var) && ((Var *) expr)->varattno == 0) && exprType(expr) != RECORDOID &&
		OidIsValid(lookup_type_cache(exprType(expr), TYPECACHE_LT_OPR)->lt_opr);
}

/* ---- keys ---- */

typedef struct KeySearch
{
	Query	   *query;
	List	   *exprs;
	bool		failed;
} KeySearch;

static bool
key_walker(Node *node, KeySearch *search)
{
	RangeTblEntry *rte;
	List	   *key;
	ListCell   *lc;

	if (node == NULL)
		return false;
	/* the columns of a join with an alias have no other name */
	if (IsA(node, JoinExpr) && ((JoinExpr *) node)->alias != NULL)
		return search->failed = true;
	if (!IsA(node, RangeTblRef))
		return IsA(node, FromExpr) || IsA(node, JoinExpr) || IsA(node, List)
			? expression_tree_walker(node, key_walker, search) : false;
	rte = rt_fetch(((RangeTblRef *) node)->rtindex, search->query->rtable);
	key = rte->rtekind == RTE_RELATION ? relation_rte_key(rte) : NIL;
	foreach(lc, key)
	{
		Oid			type;
		int32		typmod;
		Oid			collation;

		get_atttypetypmodcoll(rte->relid, lfirst_int(lc), &type, &typmod, &collation);
		search->exprs = lappend(search->exprs, makeVar(((RangeTblRef *) node)->rtindex, lfirst_int(lc), type, typmod,
													   collation, 0));
	}
	search->failed |= key == NIL;
	return search->failed;
}

List *
input_key_exprs(Query *query)
{
	KeySearch	search = {query, NIL, false};

	if (query->setOperations != NULL)
		return NIL;
	(void) key_walker((Node *) query->jointree, &search);
	return search.failed ? NIL : search.exprs;
}

static List *
grouping_exprs(Query *query)
{
	List	   *exprs = NIL;
	ListCell   *lc;

	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (target->ressortgroupref > 0 &&
			get_sortgroupref_clause_noerr(target->ressortgroupref, query->groupClause) != NULL)
			exprs = lappend(exprs, target->expr);
	}
	return exprs;
}

/* Groups are distinct by equality, so what has an order needs nothing else. */
static List *
group_tie_breaks(List *exprs)
{
	ListCell   *lc;

	foreach(lc, exprs)
	{
		if (!has_order(lfirst(lc)))
			return ordered_tie_breaks(exprs);
	}
	return exprs;
}

List *
row_tie_breaks(Query *query)
{
	if (query->groupClause != NIL)
		return query->groupingSets == NIL ? group_tie_breaks(grouping_exprs(query)) : NIL;
	if (query->hasAggs || query->groupingSets != NIL || query->havingQual != NULL)
		return NIL;
	return input_key_exprs(query);
}

/* ---- all that windows see ---- */

typedef struct UsedContext
{
	List	   *group_exprs;
	List	   *used;
} UsedContext;

static bool
used_walker(Node *node, UsedContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Aggref) || IsA(node, GroupingFunc) || list_member(context->group_exprs, node))
	{
		context->used = list_append_unique(context->used, node);
		return false;
	}
	return expression_tree_walker(node, used_walker, context);
}

List *
window_tie_breaks(Query *query)
{
	List	   *exprs = row_tie_breaks(query);
	UsedContext context = {NIL, NIL};
	ListCell   *lc;

	if (exprs != NIL)
		return exprs;
	if (query->groupClause == NIL && query->groupingSets == NIL && (query->hasAggs || query->havingQual != NULL))
		return NIL;				/* one row */
	if (query->groupingSets != NIL)
	{
		context.group_exprs = grouping_exprs(query);
		(void) used_walker((Node *) query->targetList, &context);
		return ordered_tie_breaks(context.used);
	}
	foreach(lc, pull_vars_of_level((Node *) query->targetList, 0))
		exprs = list_append_unique(exprs, lfirst(lc));
	return ordered_tie_breaks(exprs);
}

/* ---- orders ---- */

bool
order_needs_hash(List *exprs)
{
	ListCell   *lc;

	foreach(lc, exprs)
	{
		if (!has_order(lfirst(lc)) || !equal_means_identical(lfirst(lc)))
			return true;
	}
	return false;
}

Expr *
row_hash_call(List *exprs)
{
	Oid			argument = RECORDOID;
	RowExpr    *row = makeNode(RowExpr);

	row->args = copyObject(exprs);
	row->row_typeid = RECORDOID;
	row->row_format = COERCE_EXPLICIT_CALL;
	for (int i = 1; i <= list_length(exprs); i++)
		row->colnames = lappend(row->colnames, makeString(psprintf("f%d", i)));
	return (Expr *) makeFuncExpr(LookupFuncName(list_make2(makeString("pgtrickle"), makeString("row_hash")), 1,
												&argument, false),
								 INT8OID, list_make1(row), InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
}

List *
ordered_tie_breaks(List *exprs)
{
	List	   *ordered = NIL;
	ListCell   *lc;

	foreach(lc, exprs)
	{
		if (has_order(lfirst(lc)))
			ordered = lappend(ordered, lfirst(lc));
	}
	if (order_needs_hash(exprs))
		ordered = lappend(ordered, row_hash_call(exprs));
	return ordered;
}

static TargetEntry *
sorted_target(Node *expr, List *clauses, List *targets)
{
	ListCell   *lc;

	foreach(lc, clauses)
	{
		TargetEntry *target = get_sortgroupclause_tle(lfirst(lc), targets);

		if (equal(target->expr, expr))
			return target;
	}
	return NULL;
}

bool
sorts_by_all(List *clauses, List *more_clauses, List *targets, List *exprs)
{
	ListCell   *lc;

	foreach(lc, exprs)
	{
		if (sorted_target(lfirst(lc), clauses, targets) == NULL &&
			sorted_target(lfirst(lc), more_clauses, targets) == NULL)
			return false;
	}
	return true;
}

static TargetEntry *
find_or_add_target(List **targets, Node *expr)
{
	TargetEntry *target;
	ListCell   *lc;

	foreach(lc, *targets)
	{
		if (equal(lfirst_node(TargetEntry, lc)->expr, expr))
			return lfirst_node(TargetEntry, lc);
	}
	target = makeTargetEntry(copyObject((Expr *) expr), list_length(*targets) + 1, NULL, true);
	*targets = lappend(*targets, target);
	return target;
}

bool
add_sort_exprs(List **clauses, List **targets, List *exprs)
{
	bool		added = false;
	ListCell   *lc;

	foreach(lc, exprs)
	{
		TargetEntry *target;
		TypeCacheEntry *type;
		SortGroupClause *clause;

		if (sorted_target(lfirst(lc), *clauses, *targets) != NULL)
			continue;
		target = find_or_add_target(targets, lfirst(lc));
		type = lookup_type_cache(exprType(lfirst(lc)), TYPECACHE_EQ_OPR | TYPECACHE_LT_OPR);
		clause = makeNode(SortGroupClause);
		clause->tleSortGroupRef = assignSortGroupRef(target, *targets);
		clause->eqop = type->eq_opr;
		clause->sortop = type->lt_opr;
		*clauses = lappend(*clauses, clause);
		added = true;
	}
	return added;
}
