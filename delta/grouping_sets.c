/*
 * delta/grouping_sets.c
 *     Rewrites GROUPING SETS, CUBE and ROLLUP into plain GROUP BYs.
 *
 * By the SQL standard's definition, a level with grouping sets is the UNION ALL of one level per set, in which the grouping columns that
 * are not in the set are NULL and GROUPING(a, b) is a constant.  So
 *
 *     SELECT a, b, GROUPING(a, b), sum(x) + 1 FROM f WHERE w GROUP BY ROLLUP (a, b) HAVING h
 *
 * becomes three kinds of levels, from the outside:
 *
 *     SELECT k1, k2, g1, a1 + 1 FROM (branch UNION ALL ...) grouped WHERE h'     -- with what else the level has: windows, DISTINCT, LIMIT
 *     SELECT k1 AS k1, NULL AS k2, 1 AS g1, sum(c3) AS a1 FROM base GROUP BY k1  -- a branch, here that of the set (a)
 *     SELECT a AS c1, b AS c2, x AS c3 FROM f WHERE w                            -- the base
 *
 * The base is the same tree in each branch, so it is compiled once (memo.c).  The empty set is an aggregate without GROUP BY, and a set that
 * occurs twice is a branch that is read twice.  HAVING may filter outside, since it sees nothing but what a branch yields.
 *
 * The whole grouping expression is matched, outermost first, as the server does; inside of an aggregate's argument a grouping column is the
 * row's value and never NULL on account of the set.
 */
#include "postgres.h"

#include "block.h"
#include "catalog/pg_type_d.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parse_agg.h"
#include "rewrite/rewriteManip.h"
#include "tree_build.h"

#define BRANCHES_MAX 62			/* inputs of a step */

/* What a branch yields: a grouping expression, an aggregate call, a GROUPING(), or a column that depends on the grouping ones. */
typedef struct GroupedColumn
{
	Node	   *expr;			/* over the level's FROM */
	Index		key_ref;		/* the grouping expression's sort-group reference; 0: it is none */
} GroupedColumn;

typedef struct GroupingRewrite
{
	Query	   *query;			/* the level, aliases resolved */
	List	   *columns;		/* of GroupedColumn: the keys first */
	List	   *base_exprs;		/* of Node: what the base yields; the keys first */
	int			sublevels_up;	/* while walking: how far inside of subqueries we are */
} GroupingRewrite;

/* Is `node`, met `sublevels_up` levels further in, this expression of the level? */
static bool
is_expression_of_level(Node *node, Node *expr, int sublevels_up)
{
	if (sublevels_up > 0)
	{
		expr = copyObject(expr);
		IncrementVarSublevelsUp(expr, sublevels_up, 0);
	}
	return equal(node, expr);
}

/* The expression as it would stand in the level itself. */
static Node *
moved_to_level(Node *node, int sublevels_up)
{
	node = copyObject(node);
	if (sublevels_up > 0)
		IncrementVarSublevelsUp(node, -sublevels_up, sublevels_up);
	return node;
}

static Var *
column_var(Node *expr, int column, int sublevels_up)
{
	return makeVar(1, column, exprType(expr), exprTypmod(expr), exprCollation(expr), sublevels_up);
}

/* ---- the level above: what it needs from the branches ---- */

static Node *
grouped_column(GroupingRewrite *rewrite, Node *node)
{
	Node	   *expr = moved_to_level(node, rewrite->sublevels_up);
	GroupedColumn *column;
	ListCell   *lc;

	foreach(lc, rewrite->columns)
	{
		if (equal(((GroupedColumn *) lfirst(lc))->expr, expr))
			return (Node *) column_var(expr, foreach_current_index(lc) + 1, rewrite->sublevels_up);
	}
	column = palloc0(sizeof(GroupedColumn));
	column->expr = expr;
	rewrite->columns = lappend(rewrite->columns, column);
	return (Node *) column_var(expr, list_length(rewrite->columns), rewrite->sublevels_up);
}

static Node *
outer_mutator(Node *node, GroupingRewrite *rewrite)
{
	ListCell   *lc;

	if (node == NULL)
		return NULL;
	foreach(lc, rewrite->columns)
	{
		GroupedColumn *column = lfirst(lc);

		if (column->key_ref != 0 && is_expression_of_level(node, column->expr, rewrite->sublevels_up))
			return (Node *) column_var(column->expr, foreach_current_index(lc) + 1, rewrite->sublevels_up);
	}
	if ((IsA(node, Aggref) && ((Aggref *) node)->agglevelsup == (Index) rewrite->sublevels_up) ||
		(IsA(node, GroupingFunc) && ((GroupingFunc *) node)->agglevelsup == (Index) rewrite->sublevels_up) ||
		(IsA(node, Var) && ((Var *) node)->varlevelsup == (Index) rewrite->sublevels_up))
		return grouped_column(rewrite, node);
	if (IsA(node, Query))
	{
		Query	   *query;

		rewrite->sublevels_up++;
		query = query_tree_mutator((Query *) node, outer_mutator, rewrite, 0);
		rewrite->sublevels_up--;
		return (Node *) query;
	}
	return expression_tree_mutator(node, outer_mutator, rewrite);
}

/* ---- a branch: what it needs from the base ---- */

static Node *
base_column(GroupingRewrite *rewrite, Node *node)
{
	Node	   *expr = moved_to_level(node, rewrite->sublevels_up);
	ListCell   *lc;

	foreach(lc, rewrite->base_exprs)
	{
		if (equal(lfirst(lc), expr))
			return (Node *) column_var(expr, foreach_current_index(lc) + 1, rewrite->sublevels_up);
	}
	rewrite->base_exprs = lappend(rewrite->base_exprs, expr);
	return (Node *) column_var(expr, list_length(rewrite->base_exprs), rewrite->sublevels_up);
}

static Node *
base_mutator(Node *node, GroupingRewrite *rewrite)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Var) && ((Var *) node)->varlevelsup == (Index) rewrite->sublevels_up)
		return base_column(rewrite, node);
	if (IsA(node, Query))
	{
		Query	   *query;

		rewrite->sublevels_up++;
		query = query_tree_mutator((Query *) node, base_mutator, rewrite, 0);
		rewrite->sublevels_up--;
		return (Node *) query;
	}
	return expression_tree_mutator(node, base_mutator, rewrite);
}

typedef struct BranchContext
{
	GroupingRewrite *rewrite;
	List	   *set;			/* of int: the sort-group references in the set */
} BranchContext;

static Node *
key_in_branch(BranchContext *context, GroupedColumn *column)
{
	if (list_member_int(context->set, (int) column->key_ref))
		return base_column(context->rewrite, column->expr);
	return (Node *) makeNullConst(exprType(column->expr), exprTypmod(column->expr), exprCollation(column->expr));
}

/* Arguments in front of WITHIN GROUP are evaluated once per group and see its keys. */
static Node *
direct_argument_mutator(Node *node, BranchContext *context)
{
	ListCell   *lc;

	if (node == NULL)
		return NULL;
	foreach(lc, context->rewrite->columns)
	{
		GroupedColumn *column = lfirst(lc);

		if (column->key_ref != 0 && equal(node, column->expr))
			return key_in_branch(context, column);
	}
	if (IsA(node, Var))
		return base_column(context->rewrite, node);
	return expression_tree_mutator(node, direct_argument_mutator, context);
}

static Node *
aggregate_in_branch(BranchContext *context, Aggref *aggref)
{
	List	   *direct = aggref->aggdirectargs;
	Aggref	   *mapped;

	aggref->aggdirectargs = NIL;
	mapped = (Aggref *) base_mutator((Node *) aggref, context->rewrite);
	aggref->aggdirectargs = direct;
	mapped->aggdirectargs = (List *) direct_argument_mutator((Node *) direct, context);
	return (Node *) mapped;
}

/* GROUPING(a, b, ...): a bit for each argument, set when it is not grouped by, the last one lowest. */
static Node *
grouping_constant(BranchContext *context, GroupingFunc *call)
{
	uint32		bits = 0;
	ListCell   *lc;

	foreach(lc, call->refs)
		bits = (bits << 1) | (list_member_int(context->set, lfirst_int(lc)) ? 0 : 1);
	return (Node *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum((int32) bits), false, true);
}

static Node *
column_in_branch(BranchContext *context, GroupedColumn *column)
{
	if (column->key_ref != 0)
		return key_in_branch(context, column);
	if (IsA(column->expr, Aggref))
		return aggregate_in_branch(context, (Aggref *) column->expr);
	if (IsA(column->expr, GroupingFunc))
		return grouping_constant(context, (GroupingFunc *) column->expr);
	return base_column(context->rewrite, column->expr);
}

static const char *
column_name(GroupedColumn *column, int number)
{
	return psprintf("%s%d", column->key_ref != 0 ? "k" : IsA(column->expr, Aggref) ? "a" :
					IsA(column->expr, GroupingFunc) ? "g" : "d", number);
}

/* Its FROM is filled in when all branches have said what they need. */
static Query *
branch_query(GroupingRewrite *rewrite, List *set)
{
	BranchContext context = {rewrite, set};
	Query	   *branch = makeNode(Query);
	ListCell   *lc;

	branch->commandType = CMD_SELECT;
	branch->canSetTag = true;
	branch->hasAggs = rewrite->query->hasAggs;
	branch->hasSubLinks = rewrite->query->hasSubLinks;
	foreach(lc, rewrite->columns)
	{
		GroupedColumn *column = lfirst(lc);
		int			resno = foreach_current_index(lc) + 1;
		TargetEntry *target = makeTargetEntry((Expr *) column_in_branch(&context, column), resno,
											  pstrdup(column_name(column, resno)), false);

		if (list_member_int(set, (int) column->key_ref))
			target->ressortgroupref = column->key_ref;
		branch->targetList = lappend(branch->targetList, target);
	}
	foreach(lc, rewrite->query->groupClause)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);

		if (list_member_int(set, (int) clause->tleSortGroupRef))
			branch->groupClause = lappend(branch->groupClause, copyObject(clause));
	}
	/* one row even over nothing, and even without an aggregate call */
	if (set == NIL)
		branch->havingQual = makeBoolConst(true, false);
	return branch;
}

/* ---- the three kinds of levels ---- */

static Query *
base_query(GroupingRewrite *rewrite)
{
	/* grouping by nothing, computing nothing: only how many rows there are matters */
	if (rewrite->base_exprs == NIL)
		return rows_of_from(rewrite->query, list_make1(makeBoolConst(true, false)));
	return rows_of_from(rewrite->query, rewrite->base_exprs);
}

static FromExpr *
from_first_entry(Node *quals)
{
	return makeFromExpr(list_make1(reference_to(1)), quals);
}

static Query *
grouped_query(GroupingRewrite *rewrite, List *sets)
{
	List	   *branches = NIL;
	Query	   *base;
	ListCell   *lc;

	foreach(lc, sets)
		branches = lappend(branches, branch_query(rewrite, lfirst(lc)));
	base = base_query(rewrite);
	foreach(lc, branches)
	{
		Query	   *branch = lfirst_node(Query, lc);

		branch->rtable = list_make1(subquery_rte(copyObject(base), "base"));
		branch->jointree = from_first_entry(NULL);
	}
	return union_all_query(branches);
}

static void
collect_keys(GroupingRewrite *rewrite)
{
	Query	   *query = rewrite->query;
	ListCell   *lc;

	foreach(lc, query->groupClause)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);
		GroupedColumn *column = palloc0(sizeof(GroupedColumn));

		column->expr = get_sortgroupclause_expr(clause, query->targetList);
		column->key_ref = clause->tleSortGroupRef;
		rewrite->columns = lappend(rewrite->columns, column);
	}
}

/*
 * Before 18 the server shows a constant that is grouped by also where it is not in the set, which is a mistake, but the answer that
 * the stream table has to equal.
 */
static bool
groups_by_constant(GroupingRewrite *rewrite)
{
#if PG_VERSION_NUM < 180000
	ListCell   *lc;

	foreach(lc, rewrite->columns)
	{
		if (!contain_var_clause(((GroupedColumn *) lfirst(lc))->expr))
			return true;
	}
#endif
	return false;
}

static Query *
outer_query(GroupingRewrite *rewrite, List *targets, Node *having, List *sets)
{
	Query	   *outer = makeNode(Query);

	*outer = *rewrite->query;
	outer->targetList = targets;
	outer->jointree = from_first_entry(having);
	outer->rtable = list_make1(subquery_rte(grouped_query(rewrite, sets), "grouped"));
#if PG_VERSION_NUM >= 160000
	outer->rteperminfos = NIL;
#endif
#if PG_VERSION_NUM >= 180000
	outer->hasGroupRTE = false;
#endif
	outer->cteList = NIL;
	outer->hasRecursive = false;
	outer->hasAggs = false;
	outer->groupClause = NIL;
	outer->groupingSets = NIL;
	outer->groupDistinct = false;
	outer->havingQual = NULL;
	return outer;
}

static bool
grouping_call_walker(Node *node, void *context)
{
	if (node == NULL || IsA(node, Query))
		return false;
	return IsA(node, GroupingFunc) || expression_tree_walker(node, grouping_call_walker, context);
}

/* Lists of sort-group references.  A plain GROUP BY is one set; it is only looked at when GROUPING() asks for it. */
static List *
grouping_sets(Query *query)
{
	List	   *refs = NIL;
	ListCell   *lc;

	if (query->groupingSets != NIL)
		return expand_grouping_sets(query->groupingSets, query->groupDistinct, BRANCHES_MAX + 1);
	foreach(lc, query->groupClause)
		refs = lappend_int(refs, (int) lfirst_node(SortGroupClause, lc)->tleSortGroupRef);
	return list_make1(refs);
}

Query *
rewrite_grouping_sets(Compiler *compiler, Query *query)
{
	GroupingRewrite rewrite = {0};
	List	   *sets;
	List	   *targets;
	Node	   *having;

	if (query->groupingSets == NIL && !grouping_call_walker((Node *) query->targetList, NULL) &&
		!grouping_call_walker(query->havingQual, NULL))
		return query;
	sets = grouping_sets(query);
	if (sets == NIL || list_length(sets) > BRANCHES_MAX)
		return compile_cannot(compiler, "more than %d grouping sets have no delta rule", BRANCHES_MAX);

	rewrite.query = copyObject(query);
	rewrite.query->targetList = (List *) resolve_aliases(query, (Node *) rewrite.query->targetList);
	rewrite.query->havingQual = resolve_aliases(query, rewrite.query->havingQual);
	collect_keys(&rewrite);
	if (groups_by_constant(&rewrite))
		return compile_cannot(compiler, "a constant in GROUPING SETS has no delta rule");
#if PG_VERSION_NUM >= 180000
	rewrite.query->hasGroupRTE = false;
#endif
	targets = (List *) outer_mutator((Node *) rewrite.query->targetList, &rewrite);
	having = outer_mutator(rewrite.query->havingQual, &rewrite);
	return outer_query(&rewrite, targets, having, sets);
}
