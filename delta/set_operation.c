/*
 * delta/set_operation.c
 *     Rewrites INTERSECT and EXCEPT into counts, and trees of set operations into levels.
 *
 * For each value v let l and r be the numbers of its copies in L and R.  By the SQL standard
 *
 *     L INTERSECT R        shows v once     if l > 0 and r > 0
 *     L EXCEPT R           shows v once     if l > 0 and r = 0
 *     L INTERSECT ALL R    shows v min(l, r) times
 *     L EXCEPT ALL R       shows v max(l - r, 0) times
 *
 * and both counts come from one grouping, which is maintained like any other (count() leaves out NULLs):
 *
 *     SELECT c.. FROM (SELECT c.., true AS l, NULL AS r FROM L UNION ALL SELECT c.., NULL, true FROM R) GROUP BY c..
 *     HAVING count(l) > 0 AND NOT count(r) > 0
 *
 * With ALL the grouping is a subquery, and generate_series(1, l - r) makes the copies; copies.c knows how a delta does without.  Values
 * that are not visible stay in the state.
 *
 * UNION and UNION ALL are union.c's; here, a branch of one that is another operation becomes a subquery, so that union.c only meets branches
 * that it can take as they are.  LIMIT over a set operation becomes a level above it.
 */
#include "postgres.h"

#include "block.h"
#include "canonical.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_operator_d.h"
#include "catalog/pg_type_d.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "tree_build.h"
#include "utils/fmgroids.h"

/* ---- a part of the tree as a query of its own ---- */

static Node *
copy_operation(Query *level, Node *node, Query *into)
{
	RangeTblRef *leaf;

	if (IsA(node, SetOperationStmt))
	{
		SetOperationStmt *copy = makeNode(SetOperationStmt);

		*copy = *(SetOperationStmt *) node;
		copy->larg = copy_operation(level, copy->larg, into);
		copy->rarg = copy_operation(level, copy->rarg, into);
		return (Node *) copy;
	}
	into->rtable = lappend(into->rtable, copyObject(rt_fetch(castNode(RangeTblRef, node)->rtindex, level->rtable)));
	leaf = makeNode(RangeTblRef);
	leaf->rtindex = list_length(into->rtable);
	return (Node *) leaf;
}

/* What such a query shows: the operation's columns, under the names of its leftmost branch. */
static List *
operation_targets(SetOperationStmt *operation, List *names)
{
	List	   *targets = NIL;

	for (int i = 0; i < list_length(operation->colTypes); i++)
	{
		Var		   *var = makeVar(1, i + 1, list_nth_oid(operation->colTypes, i), list_nth_int(operation->colTypmods, i),
								  list_nth_oid(operation->colCollations, i), 0);

		targets = lappend(targets, makeTargetEntry((Expr *) var, i + 1, pstrdup(strVal(list_nth(names, i))), false));
	}
	return targets;
}

/*
 * `depth`: how many levels below the level's successor it will stand.  What a branch refers to outside of itself (a WITH query, when orders
 * and images are settled; later there is nothing left) is that much further up.
 */
static Query *
query_of_part(Query *level, Node *node, int depth)
{
	Query	   *query;
	RangeTblEntry *first;
	ListCell   *lc;

	if (IsA(node, RangeTblRef))
	{
		query = copyObject(rt_fetch(((RangeTblRef *) node)->rtindex, level->rtable)->subquery);
		IncrementVarSublevelsUp((Node *) query, depth - 1, 1);
		return query;
	}
	query = makeNode(Query);
	query->commandType = CMD_SELECT;
	query->canSetTag = true;
	query->jointree = makeFromExpr(NIL, NULL);
	query->setOperations = copy_operation(level, node, query);
	foreach(lc, query->rtable)
		IncrementVarSublevelsUp((Node *) lfirst_node(RangeTblEntry, lc)->subquery, depth, 1);
	first = linitial_node(RangeTblEntry, query->rtable);
	query->targetList = operation_targets((SetOperationStmt *) node, target_column_names(first->subquery->targetList));
	return query;
}

/* ---- UNION ---- */

/* Can union.c take it as branches of the operation above? */
static bool
is_flat(SetOperationStmt *operation, bool below_distinct)
{
	return operation->op == SETOP_UNION && (operation->all || below_distinct);
}

static void
branches_into_subqueries(Query *level, Node **place, bool below_distinct)
{
	Node	   *node = *place;
	RangeTblRef *reference;

	if (IsA(node, RangeTblRef))
		return;
	if (is_flat((SetOperationStmt *) node, below_distinct))
	{
		branches_into_subqueries(level, &((SetOperationStmt *) node)->larg, below_distinct);
		branches_into_subqueries(level, &((SetOperationStmt *) node)->rarg, below_distinct);
		return;
	}
	reference = makeNode(RangeTblRef);
	reference->rtindex = list_length(level->rtable) + 1;
	level->rtable = lappend(level->rtable,
							subquery_rte(query_of_part(level, node, 1), psprintf("part_%d", reference->rtindex)));
	*place = (Node *) reference;
}

/* ---- INTERSECT and EXCEPT ---- */

static Expr *
side_mark(bool is_here)
{
	return (Expr *) (is_here ? makeBoolConst(true, false) : makeBoolConst(false, true));
}

/* SELECT the columns as the operation's types, and which side it is. */
static Query *
marked_side(Query *side, SetOperationStmt *operation, bool is_left)
{
	List	   *targets = NIL;
	int			ncolumns = list_length(operation->colTypes);

	for (int column = 1; column <= ncolumns; column++)
	{
		Node	   *expr = (Node *) subquery_var(side, 1, column, 0);
		Oid			type = list_nth_oid(operation->colTypes, column - 1);

		if (exprType(expr) != type)
			expr = coerce_to_target_type(NULL, expr, exprType(expr), type, -1, COERCION_IMPLICIT, COERCE_IMPLICIT_CAST, -1);
		if (expr == NULL)
			elog(ERROR, "column %d of a set operation cannot be made the operation's type", column);
		targets = lappend(targets, makeTargetEntry((Expr *) expr, column, psprintf("c%d", column), false));
	}
	targets = lappend(targets, makeTargetEntry(side_mark(is_left), ncolumns + 1, pstrdup("l"), false));
	targets = lappend(targets, makeTargetEntry(side_mark(!is_left), ncolumns + 2, pstrdup("r"), false));
	return simple_query(list_make1(subquery_rte(side, is_left ? "left_side" : "right_side")), NIL, targets);
}

static Expr *
count_of_side(int column)
{
	Aggref	   *count = makeNode(Aggref);
	Var		   *mark = makeVar(1, column, BOOLOID, -1, InvalidOid, 0);

	count->aggfnoid = F_COUNT_ANY;
	count->aggtype = INT8OID;
	count->aggkind = AGGKIND_NORMAL;
	count->aggargtypes = list_make1_oid(BOOLOID);
	count->args = list_make1(makeTargetEntry((Expr *) mark, 1, NULL, false));
	count->aggno = count->aggtransno = -1;
	count->location = -1;
	return (Expr *) count;
}

static Const *
bigint_constant(int64 value)
{
	return makeConst(INT8OID, -1, InvalidOid, sizeof(int64), Int64GetDatum(value), false, FLOAT8PASSBYVAL);
}

static Expr *
is_positive(Expr *count)
{
	return make_opclause(Int8LessOperator, BOOLOID, false, (Expr *) bigint_constant(0), count, InvalidOid, InvalidOid);
}

static Node *
visible_condition(SetOperationStmt *operation, Expr *left, Expr *right)
{
	Expr	   *on_right = is_positive(right);

	if (operation->op == SETOP_EXCEPT)
		on_right = makeBoolExpr(NOT_EXPR, list_make1(on_right), -1);
	return (Node *) makeBoolExpr(AND_EXPR, list_make2(is_positive(left), on_right), -1);
}

/* One row per value; with ALL also its counts, as two more columns. */
Query *
set_operation_counts(Query *level, SetOperationStmt *operation)
{
	/* below it: the union, a marked side, the part; with ALL all that is one level down */
	int			depth = operation->all ? 4 : 3;
	Query	   *left_side = marked_side(query_of_part(level, operation->larg, depth), operation, true);
	Query	   *right_side = marked_side(query_of_part(level, operation->rarg, depth), operation, false);
	Query	   *marked = union_all_query(list_make2(left_side, right_side));
	Query	   *counted = simple_query(list_make1(subquery_rte(marked, "sides")), NIL, NIL);
	int			ncolumns = list_length(operation->colTypes);
	Expr	   *left = count_of_side(ncolumns + 1);
	Expr	   *right = count_of_side(ncolumns + 2);
	ListCell   *lc;

	counted->hasAggs = true;
	foreach(lc, operation->groupClauses)
	{
		SortGroupClause *clause = copyObject(lfirst_node(SortGroupClause, lc));
		int			column = foreach_current_index(lc) + 1;
		TargetEntry *target = makeTargetEntry((Expr *) subquery_var(marked, 1, column, 0), column, psprintf("c%d", column), false);

		clause->tleSortGroupRef = target->ressortgroupref = column;
		counted->groupClause = lappend(counted->groupClause, clause);
		counted->targetList = lappend(counted->targetList, target);
	}
	if (operation->all)
	{
		counted->targetList = lappend(counted->targetList, makeTargetEntry(left, ncolumns + 1, pstrdup("l"), false));
		counted->targetList = lappend(counted->targetList, makeTargetEntry(right, ncolumns + 2, pstrdup("r"), false));
	}
	else
		counted->havingQual = visible_condition(operation, left, right);
	/* equal values that differ: those of the left side count */
	(void) show_least_images(counted, (Expr *) subquery_var(marked, 1, ncolumns + 1, 0));
	return counted;
}

/* LATERAL generate_series(1, copies) */
static RangeTblEntry *
copies_rte(Expr *copies)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	RangeTblFunction *function = makeNode(RangeTblFunction);
	FuncExpr   *call = makeFuncExpr(F_GENERATE_SERIES_INT8_INT8, INT8OID, list_make2(bigint_constant(1), copies),
									InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);

	call->funcretset = true;
	function->funcexpr = (Node *) call;
	function->funccolcount = 1;
	rte->rtekind = RTE_FUNCTION;
	rte->functions = list_make1(function);
	rte->lateral = true;
	rte->alias = makeAlias("copies", NIL);
	rte->eref = makeAlias("copies", list_make1(makeString(pstrdup("copy"))));
	rte->inFromCl = true;
	return rte;
}

static Expr *
number_of_copies(SetOperationStmt *operation, Expr *left, Expr *right)
{
	MinMaxExpr *smaller;

	if (operation->op == SETOP_EXCEPT)
		return (Expr *) makeFuncExpr(F_INT8MI, INT8OID, list_make2(left, right), InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
	smaller = makeNode(MinMaxExpr);
	smaller->minmaxtype = INT8OID;
	smaller->op = IS_LEAST;
	smaller->args = list_make2(left, right);
	smaller->location = -1;
	return (Expr *) smaller;
}

Query *
set_operation_copies(Query *counted, SetOperationStmt *operation)
{
	int			ncolumns = list_length(operation->colTypes);
	Expr	   *copies = number_of_copies(operation, (Expr *) subquery_var(counted, 1, ncolumns + 1, 0),
										  (Expr *) subquery_var(counted, 1, ncolumns + 2, 0));
	List	   *targets = NIL;

	for (int column = 1; column <= ncolumns; column++)
		targets = lappend(targets, makeTargetEntry((Expr *) subquery_var(counted, 1, column, 0), column,
												   psprintf("c%d", column), false));
	return simple_query(list_make2(subquery_rte(counted, "counted"), copies_rte(copies)), NIL, targets);
}

/* ---- the level ---- */

Query *
set_operation_as_levels(Query *level, SetOperationStmt *operation)
{
	Query	   *query;

	if (operation->op == SETOP_UNION)
	{
		branches_into_subqueries(level, &level->setOperations, !operation->all);
		return level;
	}
	query = set_operation_counts(level, operation);
	if (operation->all)
		query = set_operation_copies(query, operation);
	query->cteList = level->cteList;
	query->hasRecursive = level->hasRecursive;
	rename_targets(query->targetList, target_column_names(level->targetList));
	return query;
}

/* SELECT columns FROM (the set operation) ORDER BY ... LIMIT ... */
static Query *
limited_query(Query *level)
{
	Query	   *inner = copyObject(level);
	Query	   *outer;
	List	   *targets = NIL;
	ListCell   *lc;

	inner->sortClause = NIL;
	inner->limitCount = inner->limitOffset = NULL;
	inner->limitOption = LIMIT_OPTION_COUNT;
	foreach(lc, level->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);
		TargetEntry *shown = makeTargetEntry((Expr *) subquery_var(inner, 1, target->resno, 0), target->resno,
											 target->resname, false);

		shown->ressortgroupref = target->ressortgroupref;
		targets = lappend(targets, shown);
	}
	outer = simple_query(list_make1(subquery_rte(inner, "operation")), NIL, targets);
	outer->sortClause = level->sortClause;
	outer->limitCount = level->limitCount;
	outer->limitOffset = level->limitOffset;
	outer->limitOption = level->limitOption;
	outer->hasSubLinks = level->hasSubLinks;
	return outer;
}

bool
is_bag_operation(Query *query)
{
	SetOperationStmt *operation = (SetOperationStmt *) query->setOperations;

	return operation != NULL && operation->op != SETOP_UNION && operation->all;
}

Query *
rewrite_set_operations(Compiler *compiler, Query *query)
{
	if (query->setOperations == NULL)
		return query;
	if (query->cteList != NIL)
		return compile_cannot(compiler, "WITH RECURSIVE over a set operation has no delta rule");
	if (query->limitCount != NULL || query->limitOffset != NULL)
		return limited_query(query);
	query = copyObject(query);
	if (is_bag_operation(query))
		return query;			/* copies.c */
	return set_operation_as_levels(query, castNode(SetOperationStmt, query->setOperations));
}
