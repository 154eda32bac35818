/*
 * delta/temporal_quals.c
 *     Conditions on the moment: where they may stand, and what it means that one has become true or false.
 *
 * Only functions that give one value per transaction count (now(), current_date, localtimestamp ...), since all of a refresh is one
 * transaction.  They may stand in WHERE and in the conditions of inner joins, at any level of subqueries in FROM; there temporal.c has a
 * rule.  Anywhere else (SELECT list, HAVING, ON of an outer join, subqueries in expressions, WITH RECURSIVE) the query is refreshed in full.
 *
 * With c0 and c1 for an expression of the moment, before and now, a comparison "x > c" held before and does not now iff
 *
 *     x > c0  and  x <= c1  and  c1 > c0
 *
 * and it holds now and did not before iff the same holds with c0 and c1 exchanged; likewise for <, <=, >=.  Both bounds can be looked
 * up in an index on x.  The last part follows from the others and refers to no row, so the planner makes it a filter that is evaluated
 * once: of the two directions one costs nothing, and neither costs anything while c stays the same (current_date, until midnight).
 * Nothing here assumes that time moves forward or that c grows with it.  For "x = c" it is  x = c0 and c0 <> c1.
 *
 * Every other condition is taken as it is:  p(then) and p(now) is not true, and the other way round.  That is as right, but no index helps.
 *
 * The rewriting of comparisons supposes that c is not NULL, hence the narrow idea of what an expression of the moment is: functions and
 * operators of the server over dates, times, intervals and numbers.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type_d.h"
#include "compat.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/value.h"
#include "parser/parse_func.h"
#include "rewrite/rewriteManip.h"
#include "temporal.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

/* ---- what looks at the clock ---- */

static bool
is_time_call(Node *node)
{
	if (IsA(node, FuncExpr))
		return ((FuncExpr *) node)->funcid == F_NOW || ((FuncExpr *) node)->funcid == F_TRANSACTION_TIMESTAMP;
	return IsA(node, SQLValueFunction) && ((SQLValueFunction *) node)->op <= SVFOP_LOCALTIMESTAMP_N;
}

static bool
mentions_time_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (is_time_call(node))
		return true;
	if (IsA(node, Query))
		return false;
	return expression_tree_walker(node, mentions_time_walker, context);
}

bool
temporal_mentions_time(Node *node)
{
	return mentions_time_walker(node, NULL);
}

/* ---- the same expression at the previous refresh ---- */

static Expr *
call(Oid function, Oid result_type, List *arguments)
{
	return (Expr *) makeFuncExpr(function, result_type, arguments, InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
}

static Expr *
previous_now_call(void)
{
	List	   *name = list_make2(makeString("pgtrickle"), makeString("previous_now"));

	return call(LookupFuncName(name, 0, NULL, false), TIMESTAMPTZOID, NIL);
}

/* To the precision that was asked for: current_timestamp(3). */
static Expr *
with_precision(Expr *value, Oid function, Oid type, int32 typmod)
{
	if (typmod < 0)
		return value;
	return call(function, type,
				list_make2(value, makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum(typmod), false, true)));
}

static Expr *
previous_value(SQLValueFunction *function)
{
	Expr	   *moment = previous_now_call();

	switch (function->op)
	{
		case SVFOP_CURRENT_DATE:
			return call(F_DATE_TIMESTAMPTZ, DATEOID, list_make1(moment));
		case SVFOP_CURRENT_TIME:
		case SVFOP_CURRENT_TIME_N:
			return with_precision(call(F_TIMETZ_TIMESTAMPTZ, TIMETZOID, list_make1(moment)),
								  F_TIMETZ_TIMETZ_INT4, TIMETZOID, function->typmod);
		case SVFOP_LOCALTIME:
		case SVFOP_LOCALTIME_N:
			return with_precision(call(F_TIME_TIMESTAMPTZ, TIMEOID, list_make1(moment)),
								  F_TIME_TIME_INT4, TIMEOID, function->typmod);
		case SVFOP_LOCALTIMESTAMP:
		case SVFOP_LOCALTIMESTAMP_N:
			return with_precision(call(F_TIMESTAMP_TIMESTAMPTZ, TIMESTAMPOID, list_make1(moment)),
								  F_TIMESTAMP_TIMESTAMP_INT4, TIMESTAMPOID, function->typmod);
		default:
			return with_precision(moment, F_TIMESTAMPTZ_TIMESTAMPTZ_INT4, TIMESTAMPTZOID, function->typmod);
	}
}

static Node *
before_mutator(Node *node, void *context)
{
	if (node == NULL)
		return NULL;
	if (is_time_call(node))
		return IsA(node, FuncExpr) ? (Node *) previous_now_call() : (Node *) previous_value((SQLValueFunction *) node);
	return expression_tree_mutator(node, before_mutator, context);
}

static Node *
before(Node *node)
{
	return before_mutator(node, NULL);
}

/* ---- comparisons of a column with the moment ---- */

static bool
is_date_time_or_number(Oid type)
{
	char		category;
	bool		is_preferred;

	get_type_category_preferred(type, &category, &is_preferred);
	return category == TYPCATEGORY_DATETIME || category == TYPCATEGORY_TIMESPAN || category == TYPCATEGORY_NUMERIC;
}

static bool
is_plain_function(Oid function, void *context)
{
	return get_func_namespace(function) == PG_CATALOG_NAMESPACE && func_strict(function);
}

/* True for what is not part of an expression of the moment. */
static bool
not_moment_walker(Node *node, void *context)
{
	if (node == NULL || is_time_call(node))
		return false;
	switch (nodeTag(node))
	{
		case T_List:
			return expression_tree_walker(node, not_moment_walker, context);
		case T_Const:
			return ((Const *) node)->constisnull;
		case T_FuncExpr:
			return !is_plain_function(((FuncExpr *) node)->funcid, NULL) ||
				!is_date_time_or_number(((FuncExpr *) node)->funcresulttype) ||
				expression_tree_walker(node, not_moment_walker, context);
		case T_OpExpr:
			return !is_plain_function(get_opcode(((OpExpr *) node)->opno), NULL) ||
				!is_date_time_or_number(((OpExpr *) node)->opresulttype) ||
				expression_tree_walker(node, not_moment_walker, context);
		case T_RelabelType:
			return expression_tree_walker(node, not_moment_walker, context);
		default:
			return true;
	}
}

static bool
is_moment(Node *node)
{
	return temporal_mentions_time(node) && is_date_time_or_number(exprType(node)) && !not_moment_walker(node, NULL);
}

/* "x op moment" out of a comparison written in either direction. */
static bool
read_comparison(Expr *qual, Node **x, Node **moment, Oid *opno)
{
	OpExpr	   *comparison = (OpExpr *) qual;
	Node	   *left;
	Node	   *right;

	if (!IsA(qual, OpExpr) || list_length(comparison->args) != 2)
		return false;
	left = linitial(comparison->args);
	right = lsecond(comparison->args);
	if (is_moment(right) && !temporal_mentions_time(left))
	{
		*x = left;
		*moment = right;
		*opno = comparison->opno;
	}
	else if (is_moment(left) && !temporal_mentions_time(right))
	{
		*x = right;
		*moment = left;
		*opno = get_commutator(comparison->opno);
	}
	else
		return false;
	return OidIsValid(*opno) && !checkExprHasSubLink(*x);
}

static Expr *
compare(Oid opno, Node *left, Node *right)
{
	return make_opclause(opno, BOOLOID, false, (Expr *) copyObject(left), (Expr *) copyObject(right), InvalidOid, InvalidOid);
}

static Expr *
not_equal(Oid equality, Node *left, Node *right)
{
	return makeBoolExpr(NOT_EXPR, list_make1(compare(equality, left, right)), -1);
}

/* What the btree's operators say about it.  False: they do not know the operator. */
static bool
split_comparison(TemporalQual *temporal, Node *x, Node *moment, Oid opno)
{
	static const StrategyNumber opposite[] = {0, BTGreaterEqualStrategyNumber, BTGreaterStrategyNumber, 0,
	BTLessStrategyNumber, BTLessEqualStrategyNumber};
	static const StrategyNumber strict[] = {0, BTLessStrategyNumber, BTLessStrategyNumber, BTEqualStrategyNumber,
	BTGreaterStrategyNumber, BTGreaterStrategyNumber};
	Node	   *now = moment;
	Node	   *then = before(moment);
	ListCell   *lc;

	foreach(lc, compat_btree_interpretation(opno))
	{
		OpBtreeInterpretation *meaning = lfirst(lc);
		int			strategy = compat_strategy(meaning);
		Oid			negation;
		Oid			between_moments;

		if (strategy < BTLessStrategyNumber || strategy > BTGreaterStrategyNumber)
			continue;
		between_moments = get_opfamily_member(meaning->opfamily_id, meaning->oprighttype, meaning->oprighttype,
											  strict[strategy]);
		if (!OidIsValid(between_moments))
			continue;
		if (strategy == BTEqualStrategyNumber)
		{
			temporal->left = list_make2(compare(opno, x, then), not_equal(between_moments, then, now));
			temporal->entered = list_make2(compare(opno, x, now), not_equal(between_moments, then, now));
			return true;
		}
		negation = get_opfamily_member(meaning->opfamily_id, meaning->oplefttype, meaning->oprighttype, opposite[strategy]);
		if (!OidIsValid(negation))
			continue;
		temporal->left = list_make3(compare(opno, x, then), compare(negation, x, now), compare(between_moments, now, then));
		temporal->entered = list_make3(compare(opno, x, now), compare(negation, x, then), compare(between_moments, then, now));
		return true;
	}
	return false;
}

static Expr *
is_not_true(Expr *condition)
{
	BooleanTest *test = makeNode(BooleanTest);

	test->arg = copyObject(condition);
	test->booltesttype = IS_NOT_TRUE;
	test->location = -1;
	return (Expr *) test;
}

TemporalQual *
temporal_qual(Expr *qual)
{
	TemporalQual *temporal = palloc0(sizeof(TemporalQual));
	Node	   *x;
	Node	   *moment;
	Oid			opno;

	temporal->qual = qual;
	temporal->before = (Expr *) before((Node *) qual);
	if (read_comparison(qual, &x, &moment, &opno) && split_comparison(temporal, x, moment, opno))
		return temporal;
	temporal->left = list_make2(copyObject(temporal->before), is_not_true(qual));
	temporal->entered = list_make2(copyObject(qual), is_not_true(temporal->before));
	return temporal;
}

/* ---- where they may stand ---- */

static Node *
constant_mutator(Node *node, void *context)
{
	if (node == NULL || IsA(node, SubLink))
		return node;
	if (is_time_call(node))
		return (Node *) makeNullConst(exprType(node), exprTypmod(node), InvalidOid);
	return expression_tree_mutator(node, constant_mutator, context);
}

static void
make_conditions_constant(Node *node)
{
	ListCell   *lc;

	if (node == NULL)
		return;
	if (IsA(node, FromExpr))
	{
		foreach(lc, ((FromExpr *) node)->fromlist)
			make_conditions_constant(lfirst(lc));
		((FromExpr *) node)->quals = constant_mutator(((FromExpr *) node)->quals, NULL);
	}
	else if (IsA(node, JoinExpr) && ((JoinExpr *) node)->jointype == JOIN_INNER)
	{
		make_conditions_constant(((JoinExpr *) node)->larg);
		make_conditions_constant(((JoinExpr *) node)->rarg);
		((JoinExpr *) node)->quals = constant_mutator(((JoinExpr *) node)->quals, NULL);
	}
}

static void
make_levels_constant(Query *query)
{
	ListCell   *lc;

	make_conditions_constant((Node *) query->jointree);
	foreach(lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		/* the conditions of a LATERAL subquery become those of a join of whatever kind */
		if (rte->rtekind == RTE_SUBQUERY && !rte->lateral)
			make_levels_constant(rte->subquery);
	}
}

Query *
temporal_without_time(Query *query)
{
	query = copyObject(query);
	make_levels_constant(query);
	return query;
}
