/*
 * delta/sublink_exists.c
 *     Rewrite: EXISTS (S), as a condition and as a value.
 *
 *     WHERE EXISTS (S)                  JOIN (SELECT DISTINCT keys FROM S') d ON keys match
 *     WHERE NOT EXISTS (S)              LEFT JOIN (SELECT DISTINCT true AS found, keys ...) d ON ... WHERE d.found IS NULL
 *     EXISTS (S) in an expression       LEFT JOIN as above, and d.found IS NOT NULL in its place
 *
 * A DISTINCT side matches a row at most once, so joins keep the multiplicity of the level's rows.
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "sublink.h"
#include "tree_build.h"
#include "utils/typcache.h"

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
	detached = sublink_detach(rewrite, exists);
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

/* A row stays when the subquery has a row (or when it has none). */
void
sublink_exists_condition(SublinkRewrite *rewrite, SubLink *exists, bool wanted)
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
		(void) sublink_inner_join(rewrite, detached, "found");
	else
		rewrite->outer_quals = lappend(rewrite->outer_quals,
									   found_test(rewrite, sublink_left_join(rewrite, detached, "missing"), IS_NULL));
}

Node *
sublink_exists_value(SublinkRewrite *rewrite, SubLink *exists)
{
	Detached   *detached;

	if (always_has_a_row(exists))
		return makeBoolConst(true, false);
	detached = detach_exists(rewrite, exists);
	return detached == NULL ? NULL : found_test(rewrite, sublink_left_join(rewrite, detached, "found"), IS_NOT_NULL);
}

