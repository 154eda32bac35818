/*
 * delta/magic.c
 *     Any correlation: the subquery for all outer rows at once, as a join with them.
 *
 * When the conditions that connect a subquery with the level around it are not equalities, its answer for an outer row depends only on the values
 * v1 ... vn of that row that it refers to.  So it is computed for all combinations of these values that occur ("magic sets"; Seshadri et al.,
 * SIGMOD 1996):
 *
 *     EXISTS (SELECT FROM s WHERE c(o, s))          SELECT DISTINCT o.v1, o.v2, true FROM o, s WHERE c(o, s)
 *     (SELECT sum(x) FROM s WHERE c(o, s))          SELECT sum(x), o.v1, o.v2 FROM (SELECT DISTINCT v1, v2 FROM o) o, s WHERE c(o, s) GROUP BY v1, v2
 *
 * The outer row finds its answer by equality of the values.  A row with a NULL among them finds none, which is right when c is strict in them: it has no
 * match.  Equal values must mean the same to c; that is what equality is for.
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteManip.h"
#include "sublink.h"
#include "tree_build.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

typedef struct OuterContext
{
	int			level;
	int			rtindex;		/* which the outer row becomes */
	List	   *vars;			/* of Var, level 0: the outer columns that are referred to */
	bool		to_distinct;	/* number columns by their place in vars */
} OuterContext;

/* Outer columns become columns of a range-table entry of the subquery itself. */
static Node *
outer_mutator(Node *node, OuterContext *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
	{
		Query	   *result;

		context->level++;
		result = query_tree_mutator((Query *) node, outer_mutator, context, 0);
		context->level--;
		return (Node *) result;
	}
	if (IsA(node, Var) && ((Var *) node)->varlevelsup == (Index) context->level + 1)
	{
		Var		   *var = copyObject((Var *) node);
		Var		   *column = copyObject(var);
		int			place = 0;
		ListCell   *lc;

		column->varlevelsup = 0;
		column->varnosyn = 0;
		foreach(lc, context->vars)
		{
			if (((Var *) lfirst(lc))->varattno == var->varattno)
				place = foreach_current_index(lc) + 1;
		}
		if (place == 0)
		{
			context->vars = lappend(context->vars, column);
			place = list_length(context->vars);
		}
		var->varlevelsup = context->level;
		var->varno = context->rtindex;
		var->varattno = place;
		var->varnosyn = 0;
		return (Node *) var;
	}
	return expression_tree_mutator(node, outer_mutator, context);
}

static bool
values_have_equality(List *vars)
{
	ListCell   *lc;

	foreach(lc, vars)
	{
		TypeCacheEntry *type = lookup_type_cache(exprType(lfirst(lc)), TYPECACHE_EQ_OPR | TYPECACHE_LT_OPR);

		if (!OidIsValid(type->eq_opr) || !OidIsValid(type->lt_opr))
			return false;
	}
	return true;
}

/* Is a condition that refers to the level around strict, so that a NULL there means no match? */
static bool
correlation_is_strict(Query *subquery)
{
	List	   *quals;
	ListCell   *lc;

	if (subquery->jointree->quals == NULL)
		return false;
	quals = make_ands_implicit((Expr *) subquery->jointree->quals);
	foreach(lc, quals)
	{
		if (is_correlated(lfirst(lc), 1) && contain_nonstrict_functions(lfirst(lc)))
			return false;
	}
	/* each value must be in such a condition; what is elsewhere says nothing about rows */
	return !is_correlated((Node *) subquery->targetList, 1) && !is_correlated(subquery->havingQual, 1) &&
		!is_correlated((Node *) subquery->jointree->fromlist, 1);
}

/* SELECT DISTINCT the referred columns FROM outer */
static Query *
distinct_values_of(RangeTblEntry *outer, List *vars)
{
	List	   *targets = NIL;
	Query	   *query;
	ListCell   *lc;

	foreach(lc, vars)
	{
		Var		   *var = copyObject(lfirst_node(Var, lc));
		TargetEntry *target;

		var->varno = 1;
		target = makeTargetEntry((Expr *) var, list_length(targets) + 1, psprintf("v%d", list_length(targets) + 1), false);
		target->ressortgroupref = target->resno;
		targets = lappend(targets, target);
	}
	query = simple_query(list_make1(copyObject(outer)), NIL, targets);
	foreach(lc, targets)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);
		TypeCacheEntry *type = lookup_type_cache(exprType((Node *) target->expr), TYPECACHE_EQ_OPR | TYPECACHE_LT_OPR |
												 TYPECACHE_HASH_PROC);
		SortGroupClause *clause = makeNode(SortGroupClause);

		clause->tleSortGroupRef = target->ressortgroupref;
		clause->eqop = type->eq_opr;
		clause->sortop = type->lt_opr;
		clause->hashable = OidIsValid(type->hash_proc);
		query->distinctClause = lappend(query->distinctClause, clause);
	}
	return query;
}

/*
 * The subquery with the outer values as one more item in FROM, and each correlating condition turned into an equality with them for
 * detach_subquery: the values stand in FROM under `rtindex`, and the level around is asked for v = value.
 */
Detached *
detach_by_magic(RangeTblEntry *outer, Query *subquery)
{
	OuterContext context = {0, 0, NIL, true};
	RangeTblRef *reference = makeNode(RangeTblRef);
	Query	   *values;
	List	   *equalities = NIL;
	ListCell   *lc;
	int			place = 0;

	if (subquery->setOperations != NULL || subquery->cteList != NIL || subquery->groupingSets != NIL ||
		!correlation_is_strict(subquery))
		return NULL;
	context.rtindex = list_length(subquery->rtable) + 1;
	subquery = query_tree_mutator(subquery, outer_mutator, &context, 0);
	if (context.vars == NIL || !values_have_equality(context.vars))
		return NULL;
	values = distinct_values_of(outer, context.vars);
	/* one level further down than the level around: what that refers to above itself */
	IncrementVarSublevelsUp((Node *) values, 1, 1);
	subquery->rtable = lappend(subquery->rtable, subquery_rte(values, "outer_values"));
	reference->rtindex = context.rtindex;
	subquery->jointree->fromlist = lcons(reference, subquery->jointree->fromlist);

	/* the level around asks for its values */
	foreach(lc, context.vars)
	{
		Var		   *mine = copyObject(lfirst_node(Var, lc));
		Var		   *theirs = subquery_var(values, context.rtindex, ++place, 0);
		Oid			operator = lookup_type_cache(exprType((Node *) mine), TYPECACHE_EQ_OPR)->eq_opr;

		mine->varlevelsup = 1;
		equalities = lappend(equalities, make_opclause(operator, BOOLOID, false, (Expr *) mine, (Expr *) theirs,
													   InvalidOid, exprCollation((Node *) mine)));
	}
	equalities = list_concat(make_ands_implicit((Expr *) subquery->jointree->quals), equalities);
	subquery->jointree->quals = (Node *) make_ands_explicit(equalities);
	return detach_subquery(subquery);
}
