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
 * match.  Otherwise the values stand in arrays, whose equality takes NULL for equal to NULL.  And where equal values may mean different things to c (1.0 and
 * 1.00 as text), each image counts for itself: pgtrickle.row_hash(ROW(v)) is one more value.
 */
#include "postgres.h"

#include "canonical.h"
#include "compat.h"
#include "catalog/pg_operator_d.h"
#include "catalog/pg_type_d.h"
#include "equality.h"
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

/* ---- how an outer row finds its answer ---- */

static bool
values_have_equality(List *vars)
{
	ListCell   *lc;

	foreach(lc, vars)
	{
		TypeCacheEntry *type = lookup_type_cache(exprType(lfirst(lc)), TYPECACHE_EQ_OPR | TYPECACHE_LT_OPR);

		if (((Var *) lfirst(lc))->varattno <= 0 || !OidIsValid(type->eq_opr) || !OidIsValid(type->lt_opr))
			return false;
	}
	return true;
}

/* Does it refer to the level around it anywhere but in WHERE? */
static bool
is_correlated_elsewhere(Query *subquery)
{
	Node	   *quals = subquery->jointree->quals;
	bool		found;

	subquery->jointree->quals = NULL;
	found = is_correlated((Node *) subquery, 1);
	subquery->jointree->quals = quals;
	return found;
}

/* Is each condition that refers to the level around strict, so that a NULL there means no match?  Elsewhere a reference says nothing about rows. */
static bool
correlation_is_strict(Query *subquery)
{
	ListCell   *lc;

	foreach(lc, make_ands_implicit((Expr *) subquery->jointree->quals))
	{
		if (is_correlated(lfirst(lc), 1) && contain_nonstrict_functions(lfirst(lc)))
			return false;
	}
	return !is_correlated_elsewhere(subquery);
}

/* A join's own condition may be about its two sides only, so the values cannot stand beside an outer join whose ON asks for them. */
static bool
outer_join_is_correlated(Node *node)
{
	ListCell   *lc;

	if (IsA(node, FromExpr))
	{
		foreach(lc, ((FromExpr *) node)->fromlist)
		{
			if (outer_join_is_correlated(lfirst(lc)))
				return true;
		}
		return false;
	}
	if (!IsA(node, JoinExpr))
		return false;
	return outer_join_is_correlated(((JoinExpr *) node)->larg) || outer_join_is_correlated(((JoinExpr *) node)->rarg) ||
		(((JoinExpr *) node)->jointype != JOIN_INNER && is_correlated(((JoinExpr *) node)->quals, 1));
}

static Expr *
array_of(Expr *value)
{
	ArrayExpr  *array = makeNode(ArrayExpr);

	array->element_typeid = exprType((Node *) value);
	array->array_typeid = get_array_type(array->element_typeid);
	array->array_collid = exprCollation((Node *) value);
	array->elements = list_make1(value);
	array->location = -1;
	return (Expr *) array;
}

/* mine = theirs; NULL when that cannot be said. */
static Expr *
same_value(Expr *mine, Expr *theirs, bool nulls_match)
{
	Oid			type = exprType((Node *) mine);
	Oid			operator = lookup_type_cache(type, TYPECACHE_EQ_OPR)->eq_opr;

	if (nulls_match)
	{
		/* an array of arrays has more dimensions instead, and none for a NULL */
		if (!OidIsValid(get_array_type(type)) || OidIsValid(get_element_type(getBaseType(type))))
			return NULL;
		operator = ARRAY_EQ_OP;
		mine = array_of(mine);
		theirs = array_of(theirs);
	}
	return make_opclause(operator, BOOLOID, false, mine, theirs, InvalidOid, exprCollation((Node *) mine));
}

/* ---- the values ---- */

static SortGroupClause *
distinct_clause(TargetEntry *target)
{
	TypeCacheEntry *type = lookup_type_cache(exprType((Node *) target->expr), TYPECACHE_EQ_OPR | TYPECACHE_LT_OPR |
											 TYPECACHE_HASH_PROC);
	SortGroupClause *clause = makeNode(SortGroupClause);

	clause->tleSortGroupRef = target->ressortgroupref;
	clause->eqop = type->eq_opr;
	clause->sortop = type->lt_opr;
	clause->hashable = OidIsValid(type->hash_proc);
	return clause;
}

/* SELECT DISTINCT the referred columns, and hashes of those whose images matter, FROM outer */
static Query *
distinct_values_of(RangeTblEntry *outer, List *vars, List *hashed)
{
	List	   *targets = NIL;
	Query	   *query;
	ListCell   *lc;

	foreach(lc, list_concat_copy(vars, hashed))
	{
		Var		   *var = copyObject(lfirst_node(Var, lc));
		Expr	   *value = (Expr *) var;
		TargetEntry *target;

		var->varno = 1;
		if (foreach_current_index(lc) >= list_length(vars))
			value = row_hash_call(list_make1(var));
		target = makeTargetEntry(value, list_length(targets) + 1, psprintf("v%d", list_length(targets) + 1), false);
		target->ressortgroupref = target->resno;
		targets = lappend(targets, target);
	}
	query = simple_query(list_make1(copyObject(outer)), NIL, targets);
	foreach(lc, targets)
		query->distinctClause = lappend(query->distinctClause, distinct_clause(lfirst_node(TargetEntry, lc)));
	return query;
}

/* What the level around is asked for, as conditions of the subquery, where the values are entry `rtindex`; NIL when it cannot be said. */
static List *
equalities_with(Query *values, int rtindex, List *vars, List *hashed, bool nulls_match)
{
	List	   *equalities = NIL;
	int			place = 0;
	ListCell   *lc;

	foreach(lc, list_concat_copy(vars, hashed))
	{
		Var		   *mine = copyObject(lfirst_node(Var, lc));
		Expr	   *theirs = (Expr *) subquery_var(values, rtindex, ++place, 0);
		Expr	   *equality;

		mine->varlevelsup = 1;
		if (foreach_current_index(lc) < list_length(vars))
			equality = same_value((Expr *) mine, theirs, nulls_match);
		else
			equality = same_value(row_hash_call(list_make1(mine)), theirs, false);
		if (equality == NULL)
			return NIL;
		equalities = lappend(equalities, equality);
	}
	return equalities;
}

/* What the subquery reads may refer to the values now, which stand beside it. */
static void
mark_lateral(Query *subquery)
{
	ListCell   *lc;

	foreach(lc, subquery->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_SUBQUERY && is_correlated((Node *) rte->subquery, 1))
			rte->lateral = true;
		if (rte->rtekind == RTE_FUNCTION || rte->rtekind == RTE_TABLEFUNC || rte->rtekind == RTE_VALUES)
			rte->lateral = true;
	}
}

/*
 * The subquery with the outer values as one more item in FROM, and each correlating condition turned into an equality with them for
 * detach_subquery: the values stand in FROM under `rtindex`, and the level around is asked for v = value.
 */
Detached *
detach_by_magic(RangeTblEntry *outer, Query *subquery)
{
	OuterContext context = {0, 0, NIL};
	bool		strict = correlation_is_strict(subquery);
	bool		by_image = images_matter((Node *) subquery, 1);
	List	   *empty = values_over_nothing(subquery);
	List	   *hashed = NIL;
	List	   *equalities;
	Detached   *detached;
	Query	   *values;
	ListCell   *lc;

	if (subquery->setOperations != NULL || subquery->cteList != NIL || subquery->groupingSets != NIL ||
		outer_join_is_correlated((Node *) subquery->jointree))
		return NULL;
	context.rtindex = list_length(subquery->rtable) + 1;
	subquery = query_tree_mutator(subquery, outer_mutator, &context, 0);
	if (context.vars == NIL || !values_have_equality(context.vars))
		return NULL;
	mark_lateral(subquery);
	foreach(lc, context.vars)
	{
		if (by_image && order_needs_hash(list_make1(lfirst(lc))))
			hashed = lappend(hashed, lfirst(lc));
	}
	values = distinct_values_of(outer, context.vars, hashed);
	/* one level further down than the level around: what that refers to above itself */
	IncrementVarSublevelsUp((Node *) values, 1, 1);
	subquery->rtable = lappend(subquery->rtable, subquery_rte(values, "outer_values"));
	subquery->jointree->fromlist = lcons(reference_to(context.rtindex), subquery->jointree->fromlist);
	equalities = equalities_with(values, context.rtindex, context.vars, hashed, !strict);
	if (equalities == NIL)
		return NULL;
	subquery->jointree->quals = (Node *) make_ands_explicit(list_concat(make_ands_implicit((Expr *) subquery->jointree->quals),
																		equalities));
	detached = detach_subquery(subquery);
	/* over no rows, what is shown may be made of the outer row's columns */
	if (detached != NULL && detached->one_row)
		detached->empty = empty;
	return detached;
}
