/*
 * delta/canonical_image.c
 *     One answer for queries that show one of several equal values: GROUP BY, DISTINCT, UNION, INTERSECT, EXCEPT, min() and max().
 *
 * 1.0 and 1.00 are one group; which of them it shows depends on the plan.  Like the orders in canonical.c this is settled in the query
 * itself, before it is run in whatever way, and always alike: the value whose bytes come first (exact_image.c), of those that are there.
 *
 *     SELECT n, n + 1 FROM t GROUP BY n      SELECT least_image(n), least_image(n) + 1 FROM t GROUP BY n
 *     SELECT DISTINCT a, n FROM t            SELECT a, least_image(n) FROM t GROUP BY a, n
 *     L UNION R                              the same over L UNION ALL R
 *     L EXCEPT R, L INTERSECT R              the grouping of set_operation.c, with the least image of the left side
 *     max(n)                                 max_exact(n)
 *
 * Only for types that have equal values with different images: numeric (without a fixed scale), interval, jsonb, citext, text
 * under a nondeterministic collation, floats, and arrays and ranges of these.  Where equal means identical (most columns) nothing changes.
 * For floats min() and max() are left alone: only -0 and 0 are equal there, and an index can be used.
 */
#include "canonical.h"

#include "access/htup_details.h"
#include "access/nbtree.h"
#include "block.h"
#include "catalog/namespace.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_operator_d.h"
#include "catalog/pg_type_d.h"
#include "keyed.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parse_func.h"
#include "rewrite/rewriteManip.h"
#include "tree_build.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* ---- types ---- */

static bool
type_has_open_images(Oid type, int32 typmod, Oid collation)
{
	TypeCacheEntry *entry;
	Oid			procedure;
	Oid			part;

	type = getBaseTypeAndTypmod(type, &typmod);
	if (type == NUMERICOID)
		return typmod < 0;		/* with a scale of its own every value has one image */
	if (OidIsValid(part = get_element_type(type)))
		return type_has_open_images(part, typmod, collation);
	if (OidIsValid(part = get_range_subtype(type)) ||
		(OidIsValid(get_multirange_range(type)) && OidIsValid(part = get_range_subtype(get_multirange_range(type)))))
		return type_has_open_images(part, -1, get_range_collation(type));
	if (type_is_rowtype(type) || type == TSVECTOROID || type == TSQUERYOID)
		return false;			/* rows: not looked into */
	entry = lookup_type_cache(type, TYPECACHE_BTREE_OPFAMILY);
	if (!OidIsValid(entry->btree_opf))
		return false;
	procedure = get_opfamily_proc(entry->btree_opf, entry->btree_opintype, entry->btree_opintype, BTEQUALIMAGE_PROC);
	return !OidIsValid(procedure) ||
		!DatumGetBool(OidFunctionCall1Coll(procedure, collation, ObjectIdGetDatum(entry->btree_opintype)));
}

/* extract(field FROM x) gives each value in one scale only. */
static bool
is_extract(Node *expr)
{
	FuncExpr   *call = (FuncExpr *) expr;

	return IsA(call, FuncExpr) && call->funcformat == COERCE_SQL_SYNTAX && IsA(linitial(call->args), Const) &&
		call->funcresulttype == NUMERICOID && strcmp(get_func_name(call->funcid), "extract") == 0;
}

bool
has_open_image(Node *expr)
{
	return !is_extract(expr) && type_has_open_images(exprType(expr), exprTypmod(expr), exprCollation(expr));
}

/* ---- the aggregates ---- */

static Oid
exact_function(const char *name)
{
	Oid			argument = ANYELEMENTOID;

	return LookupFuncName(list_make2(makeString("pgtrickle"), makeString(pstrdup(name))), 1, &argument, false);
}

static Node *
least_image(Node *expr, Expr *filter)
{
	Aggref	   *call = makeNode(Aggref);

	call->aggfnoid = exact_function("least_image");
	call->aggtype = exprType(expr);
	call->aggcollid = call->inputcollid = exprCollation(expr);
	call->aggargtypes = list_make1_oid(exprType(expr));
	call->args = list_make1(makeTargetEntry(copyObject((Expr *) expr), 1, NULL, false));
	call->aggfilter = copyObject(filter);
	call->aggkind = AGGKIND_NORMAL;
	call->aggno = call->aggtransno = -1;
	call->location = -1;
	if (exprTypmod(expr) < 0)
		return (Node *) call;
	return (Node *) makeRelabelType((Expr *) call, exprType(expr), exprTypmod(expr), exprCollation(expr), COERCE_EXPLICIT_CAST);
}

/* With grouping sets: CASE WHEN GROUPING(expr) = 0 THEN value END */
static Node *
if_grouped(Node *value, Node *expr, Index ref)
{
	GroupingFunc *grouping = makeNode(GroupingFunc);
	CaseExpr   *choice = makeNode(CaseExpr);
	CaseWhen   *when = makeNode(CaseWhen);

	grouping->args = list_make1(copyObject(expr));
	grouping->refs = list_make1_int((int) ref);
	grouping->location = -1;
	when->expr = make_opclause(Int4EqualOperator, BOOLOID, false, (Expr *) grouping,
							   (Expr *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum(0), false, true),
							   InvalidOid, InvalidOid);
	when->result = (Expr *) value;
	when->location = -1;
	choice->casetype = exprType(value);
	choice->casecollid = exprCollation(value);
	choice->args = list_make1(when);
	choice->defresult = (Expr *) makeNullConst(exprType(value), exprTypmod(value), exprCollation(value));
	choice->location = -1;
	return (Node *) choice;
}

/* ---- GROUP BY ---- */

typedef struct OpenKey
{
	Node	   *expr;
	Node	   *shown;			/* what stands for it outside of aggregates */
	Index		old_ref;
	Index		ref;
} OpenKey;

typedef struct ShowContext
{
	List	   *keys;			/* of OpenKey */
	int			sublevels_up;
} ShowContext;

static Node *
moved_inside(Node *node, int sublevels_up)
{
	node = copyObject(node);
	if (sublevels_up > 0)
		IncrementVarSublevelsUp(node, sublevels_up, 0);
	return node;
}

static Node *
show_mutator(Node *node, ShowContext *context)
{
	ListCell   *lc;

	if (node == NULL)
		return NULL;
	if (IsA(node, Aggref) && ((Aggref *) node)->agglevelsup == (Index) context->sublevels_up)
		return node;
	if (IsA(node, GroupingFunc) && ((GroupingFunc *) node)->agglevelsup == (Index) context->sublevels_up)
	{
		GroupingFunc *grouping = copyObject((GroupingFunc *) node);

		foreach(lc, context->keys)
		{
			OpenKey    *key = lfirst(lc);
			ListCell   *ref_cell;

			foreach(ref_cell, grouping->refs)
			{
				if (lfirst_int(ref_cell) == (int) key->old_ref)
					lfirst_int(ref_cell) = (int) key->ref;
			}
		}
		return (Node *) grouping;
	}
	foreach(lc, context->keys)
	{
		OpenKey    *key = lfirst(lc);

		if (equal(node, moved_inside(key->expr, context->sublevels_up)))
			return moved_inside(key->shown, context->sublevels_up);
	}
	if (IsA(node, Query))
	{
		Query	   *query;

		context->sublevels_up++;
		query = query_tree_mutator((Query *) node, show_mutator, context, 0);
		context->sublevels_up--;
		return (Node *) query;
	}
	return expression_tree_mutator(node, show_mutator, context);
}

static Index
next_ref(Query *query)
{
	Index		highest = 0;
	ListCell   *lc;

	foreach(lc, query->targetList)
		highest = Max(highest, lfirst_node(TargetEntry, lc)->ressortgroupref);
	return highest + 1;
}

static void
rename_ref_in_sets(List *sets, Index old_ref, Index ref)
{
	ListCell   *lc;

	foreach(lc, sets)
	{
		GroupingSet *set = lfirst_node(GroupingSet, lc);
		ListCell   *content_cell;

		if (set->kind != GROUPING_SET_SIMPLE)
		{
			rename_ref_in_sets(set->content, old_ref, ref);
			continue;
		}
		foreach(content_cell, set->content)
		{
			if (lfirst_int(content_cell) == (int) old_ref)
				lfirst_int(content_cell) = (int) ref;
		}
	}
}

/* A visible column that is grouped by will show something else, so that a hidden one has to take its part in GROUP BY. */
static OpenKey *
open_key(Query *query, SortGroupClause *clause, Expr *filter)
{
	TargetEntry *target = get_sortgroupclause_tle(clause, query->targetList);
	OpenKey    *key = palloc0(sizeof(OpenKey));

	key->expr = copyObject((Node *) target->expr);
	key->old_ref = key->ref = clause->tleSortGroupRef;
	if (!target->resjunk)
	{
		TargetEntry *hidden = makeTargetEntry(copyObject(target->expr), list_length(query->targetList) + 1, NULL, true);

		key->ref = hidden->ressortgroupref = next_ref(query);
		query->targetList = lappend(query->targetList, hidden);
		clause->tleSortGroupRef = key->ref;
		rename_ref_in_sets(query->groupingSets, key->old_ref, key->ref);
	}
	key->shown = least_image(key->expr, filter);
	if (query->groupingSets != NIL)
		key->shown = if_grouped(key->shown, key->expr, key->ref);
	return key;
}

static bool
is_grouped_by(Query *query, TargetEntry *target)
{
	return target->ressortgroupref > 0 && get_sortgroupref_clause_noerr(target->ressortgroupref, query->groupClause) != NULL;
}

bool
show_least_images(Query *query, Expr *filter)
{
	ShowContext context = {NIL, 0};
	ListCell   *lc;

#if PG_VERSION_NUM >= 180000
	if (query->hasGroupRTE)
	{
		query->targetList = (List *) flatten_group_exprs(NULL, query, (Node *) query->targetList);
		query->havingQual = flatten_group_exprs(NULL, query, query->havingQual);
		query->hasGroupRTE = false;
	}
#endif
	foreach(lc, query->groupClause)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);
		TargetEntry *target = get_sortgroupclause_tle(clause, query->targetList);

		if (has_open_image((Node *) target->expr) && contain_var_clause((Node *) target->expr))
			context.keys = lappend(context.keys, open_key(query, clause, filter));
	}
	if (context.keys == NIL)
		return false;
	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (!is_grouped_by(query, target))
			target->expr = (Expr *) show_mutator((Node *) target->expr, &context);
	}
	query->havingQual = show_mutator(query->havingQual, &context);
	query->hasAggs = true;
	return true;
}

/* Is the key shown, other than through an aggregate?  An earlier call has left none that is. */
static bool
key_is_shown(Query *query, Node *expr)
{
	OpenKey		key = {expr, makeBoolConst(true, false), 0, 0};
	ShowContext context = {list_make1(&key), 0};
	ListCell   *lc;

	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (!(is_grouped_by(query, target) && target->resjunk) &&
			!equal(show_mutator((Node *) target->expr, &context), target->expr))
			return true;
	}
	return !equal(show_mutator(query->havingQual, &context), query->havingQual);
}

static bool
shows_open_key(Query *query)
{
	ListCell   *lc;

	foreach(lc, query->groupClause)
	{
		Node	   *expr = get_sortgroupclause_expr(lfirst_node(SortGroupClause, lc), query->targetList);

		if (has_open_image(expr) && key_is_shown(query, expr))
			return true;
	}
	return false;
}

/* ---- min and max ---- */

static bool
finds_extremum(Aggref *call)
{
	HeapTuple	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(call->aggfnoid));
	bool		result;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", call->aggfnoid);
	result = OidIsValid(((Form_pg_aggregate) GETSTRUCT(tuple))->aggsortop);
	ReleaseSysCache(tuple);
	return result;
}

static bool
extrema_walker(Node *node, Canonical *canonical)
{
	Aggref	   *call = (Aggref *) node;
	Oid			type;
	const char *name;

	if (node == NULL || IsA(node, Query))
		return false;
	if (!IsA(node, Aggref))
		return expression_tree_walker(node, extrema_walker, canonical);
	if (call->agglevelsup > 0 || list_length(call->args) != 1 || call->aggkind != AGGKIND_NORMAL || !finds_extremum(call))
		return false;
	type = exprType((Node *) linitial_node(TargetEntry, call->args)->expr);
	name = get_func_name(call->aggfnoid);
	if (type == call->aggtype && getBaseType(type) != FLOAT4OID && getBaseType(type) != FLOAT8OID &&
		has_open_image((Node *) linitial_node(TargetEntry, call->args)->expr) &&
		(strcmp(name, "min") == 0 || strcmp(name, "max") == 0))
	{
		call->aggfnoid = exact_function(name[1] == 'i' ? "min_exact" : "max_exact");
		call->aggargtypes = list_make1_oid(type);
		call->aggdistinct = NIL;
		canonical->changed = true;
	}
	return false;
}

/* ---- DISTINCT and set operations ---- */

static bool
any_open(List *types, List *typmods, List *collations)
{
	for (int i = 0; i < list_length(types); i++)
	{
		if (type_has_open_images(list_nth_oid(types, i), list_nth_int(typmods, i), list_nth_oid(collations, i)))
			return true;
	}
	return false;
}

/* Puts DISTINCT into a level of its own, as GROUP BY all its columns. */
static void
group_instead_of_distinct(Query *query)
{
	Query	   *inner = makeNode(Query);
	Query	   *outer;

	*inner = *query;
	outer = level_over(inner, list_concat_copy(query->sortClause, query->distinctClause));
	outer->querySource = query->querySource;
	outer->groupClause = query->distinctClause;
	outer->sortClause = copyObject(query->sortClause);
	outer->limitCount = query->limitCount;
	outer->limitOffset = query->limitOffset;
	outer->limitOption = query->limitOption;
	inner->distinctClause = inner->sortClause = NIL;
	inner->limitCount = inner->limitOffset = NULL;
	inner->limitOption = LIMIT_OPTION_COUNT;
	(void) show_least_images(outer, NULL);
	*query = *outer;
}

/* Is there an operation that takes equal values together, over columns for which that matters? */
static bool
operation_is_open(Node *node)
{
	SetOperationStmt *operation = (SetOperationStmt *) node;

	if (!IsA(node, SetOperationStmt))
		return false;
	if ((operation->op != SETOP_UNION || !operation->all) &&
		any_open(operation->colTypes, operation->colTypmods, operation->colCollations))
		return true;
	return operation_is_open(operation->larg) || operation_is_open(operation->rarg);
}

/* SELECT columns FROM (L UNION ALL R) GROUP BY columns */
static Query *
grouped_union(Query *level, SetOperationStmt *operation)
{
	List	   *clauses = operation->groupClauses;
	Query	   *outer;
	ListCell   *lc;

	operation->all = true;
	operation->groupClauses = NIL;
	outer = level_over(level, NIL);
	foreach(lc, clauses)
	{
		SortGroupClause *clause = copyObject(lfirst_node(SortGroupClause, lc));
		TargetEntry *target = list_nth_node(TargetEntry, outer->targetList, foreach_current_index(lc));

		clause->tleSortGroupRef = target->ressortgroupref = foreach_current_index(lc) + 1;
		outer->groupClause = lappend(outer->groupClause, clause);
	}
	(void) show_least_images(outer, NULL);
	return outer;
}

static void
close_set_operation(Query *query, Canonical *canonical)
{
	Query	   *inner = makeNode(Query);
	Query	   *outer;
	SetOperationStmt *operation = castNode(SetOperationStmt, query->setOperations);
	List	   *sort_refs = NIL;
	ListCell   *lc;

	*inner = *query;
	inner->sortClause = NIL;
	inner->limitCount = inner->limitOffset = NULL;
	inner->limitOption = LIMIT_OPTION_COUNT;
	foreach(lc, query->targetList)
	{
		sort_refs = lappend_int(sort_refs, (int) lfirst_node(TargetEntry, lc)->ressortgroupref);
		lfirst_node(TargetEntry, lc)->ressortgroupref = 0;
	}
	if (operation->op == SETOP_UNION && !operation->all)
		inner = grouped_union(inner, operation);
	else
		inner = set_operation_as_levels(inner, operation);
	/* the parts are levels of their own now, and operations again in places */
	canonicalize(inner, canonical);

	outer = level_over(inner, NIL);
	foreach(lc, outer->targetList)
		lfirst_node(TargetEntry, lc)->ressortgroupref = (Index) list_nth_int(sort_refs, foreach_current_index(lc));
	outer->querySource = query->querySource;
	outer->sortClause = query->sortClause;
	outer->limitCount = query->limitCount;
	outer->limitOffset = query->limitOffset;
	outer->limitOption = query->limitOption;
	*query = *outer;
}

void
canonicalize_images(Query *query, Canonical *canonical)
{
	List	   *types;
	List	   *typmods;
	List	   *collations;

	if (query->setOperations != NULL)
	{
		if (operation_is_open(query->setOperations))
		{
			close_set_operation(query, canonical);
			canonical->changed = true;
		}
		return;
	}
	if (query->hasAggs)
	{
		(void) extrema_walker((Node *) query->targetList, canonical);
		(void) extrema_walker(query->havingQual, canonical);
	}
	if (query->groupClause != NIL && shows_open_key(query))
		canonical->changed |= show_least_images(query, NULL);
	target_column_types(query->targetList, &types, &typmods, &collations);
	if (query->distinctClause != NIL && !query->hasDistinctOn && any_open(types, typmods, collations))
	{
		group_instead_of_distinct(query);
		canonical->changed = true;
	}
}
