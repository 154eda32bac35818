/*
 * delta/sublink_forms.c
 *     What IN, ANY and ALL say, in terms of EXISTS.
 *
 *     x op ANY (S)     is true   iff some row of S fulfils x op y
 *                      is NULL   iff none does, and for some x op y is NULL
 *                      is false  otherwise
 *     x op ALL (S)     =  NOT (x op' ANY (S)), op' the negator of op; so NOT IN, which is <> ALL, is NOT (x = ANY (S))
 *
 * For a strict operator on single columns, x op y is NULL iff x or y is: "some is NULL" is then EXISTS (a row of S whose y is NULL), or that x is
 * NULL and S has a row at all.  A comparison of rows is an AND of such: NULL only for rows with a NULL among their columns, in S or outside.  For all
 * other tests it is EXISTS (a row of S for which the test is NULL).
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteManip.h"
#include "sublink.h"
#include "tree_build.h"
#include "utils/lsyscache.h"

/* ---- a subquery with a condition on its columns ---- */

typedef struct ParamContext
{
	Query	   *query;			/* the subquery in FROM, range-table entry 1 */
} ParamContext;

static Node *
params_mutator(Node *node, ParamContext *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_SUBLINK)
		return (Node *) subquery_var(context->query, 1, ((Param *) node)->paramid, 0);
	return expression_tree_mutator(node, params_mutator, context);
}

/* EXISTS (SELECT FROM (subquery) s WHERE conditions), which has the conditions' columns of the level around one level up. */
static SubLink *
exists_with(Query *subquery, List *conditions)
{
	SubLink    *exists = makeNode(SubLink);
	TargetEntry *found = makeTargetEntry((Expr *) makeBoolConst(true, false), 1, pstrdup("found"), false);
	RangeTblEntry *rte = subquery_rte(subquery, "s");

	/* what the subquery refers to is one level further up now */
	IncrementVarSublevelsUp((Node *) subquery, 1, 1);
	rte->lateral = is_correlated((Node *) subquery, 2);
	exists->subLinkType = EXISTS_SUBLINK;
	exists->subselect = (Node *) simple_query(list_make1(rte), conditions, list_make1(found));
	return exists;
}

/* The test of IN, ANY over the columns of `subquery` in FROM, as seen from inside of it. */
static Node *
test_inside(SubLink *any, Query *subquery)
{
	ParamContext context = {subquery};
	Node	   *test = copyObject(any->testexpr);

	IncrementVarSublevelsUp(test, 1, 0);
	return params_mutator(test, &context);
}

/* Can the condition simply stand in the subquery's WHERE?  Then its columns are put for the parameters. */
static bool
is_plain(Query *query)
{
	return query->setOperations == NULL && !query->hasAggs && query->groupClause == NIL && query->groupingSets == NIL &&
		query->havingQual == NULL && query->distinctClause == NIL && !query->hasWindowFuncs && query->limitCount == NULL &&
		query->limitOffset == NULL && !query->hasTargetSRFs && query->cteList == NIL;
}

static Node *
targets_mutator(Node *node, List *targets)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_SUBLINK)
		return copyObject((Node *) list_nth_node(TargetEntry, targets, ((Param *) node)->paramid - 1)->expr);
	return expression_tree_mutator(node, targets_mutator, targets);
}

static SubLink *
exists_where(Query *subquery, Node *condition)
{
	SubLink    *exists = makeNode(SubLink);
	List	   *quals = make_ands_implicit((Expr *) subquery->jointree->quals);

	quals = list_concat(list_copy(quals), make_ands_implicit((Expr *) condition));
	subquery->jointree->quals = quals == NIL ? NULL : (Node *) make_ands_explicit(quals);
	exists->subLinkType = EXISTS_SUBLINK;
	exists->subselect = (Node *) subquery;
	return exists;
}

SubLink *
any_as_exists(SubLink *any)
{
	Query	   *subquery = copyObject((Query *) any->subselect);
	Node	   *test;

	if (!is_plain(subquery))
	{
		test = test_inside(any, subquery);
		return exists_with(subquery, make_ands_implicit((Expr *) test));
	}
	test = copyObject(any->testexpr);
	IncrementVarSublevelsUp(test, 1, 0);
	return exists_where(subquery, targets_mutator(test, subquery->targetList));
}

/* ---- NULLs ---- */

static Node *
null_test(Node *arg, NullTestType type)
{
	NullTest   *test = makeNode(NullTest);

	test->arg = (Expr *) arg;
	test->nulltesttype = type;
	return (Node *) test;
}

/* The one comparison of a single-column test whose operator is strict; NULL: it is another test. */
static OpExpr *
strict_comparison(SubLink *any)
{
	OpExpr	   *test = (OpExpr *) any->testexpr;

	if (test == NULL || !IsA(test, OpExpr) || list_length(test->args) != 2 || !op_strict(test->opno) ||
		contain_nonstrict_functions((Node *) lsecond(test->args)))
		return NULL;
	return test;
}

/* The sublink as one of another kind, with another test. */
static SubLink *
with_test(SubLink *sublink, Node *test)
{
	SubLink    *other = makeNode(SubLink);

	other->subLinkType = ANY_SUBLINK;
	other->testexpr = copyObject(test);
	other->subselect = sublink->subselect;
	return other;
}

/* EXISTS (a row whose column is NULL) */
static SubLink *
exists_null(SubLink *any, OpExpr *test)
{
	return any_as_exists(with_test(any, null_test(lsecond(test->args), IS_NULL)));
}

static SubLink *
exists_any(SubLink *any)
{
	Query	   *subquery = copyObject((Query *) any->subselect);

	return is_plain(subquery) ? exists_where(subquery, NULL) : exists_with(subquery, NIL);
}

/* The operands of a test that is an AND of strict comparisons, on one side; false: it is another test, or the operands may not be NULL anyway. */
static bool
operands_of(Node *test, bool inner, List **operands)
{
	ListCell   *lc;

	foreach(lc, make_ands_implicit((Expr *) test))
	{
		OpExpr	   *comparison = lfirst(lc);
		Node	   *operand;

		if (!IsA(comparison, OpExpr) || list_length(comparison->args) != 2 || !op_strict(comparison->opno))
			return false;
		operand = inner ? lsecond(comparison->args) : linitial(comparison->args);
		if (!IsA(operand, Const) || ((Const *) operand)->constisnull)
			*operands = lappend(*operands, operand);
	}
	return true;
}

/* test IS NULL AND (one of the operands IS NULL): the same, in a form in which few rows have to be looked at */
static Node *
test_is_null_because(Node *test, List *operands)
{
	List	   *nulls = NIL;
	ListCell   *lc;

	foreach(lc, operands)
		nulls = lappend(nulls, null_test(copyObject(lfirst(lc)), IS_NULL));
	return (Node *) makeBoolExpr(AND_EXPR, list_make2(list_length(nulls) == 1 ? linitial(nulls)
													  : (Node *) makeBoolExpr(OR_EXPR, nulls, -1),
													  null_test(copyObject(test), IS_NULL)), -1);
}

/*
 * Conditions of which one is true iff for some row of the subquery the test is NULL.  Three ways to say it, from the one that is found by equality to the
 * one that compares each with each.
 */
static List *
some_test_is_null(SubLink *any)
{
	OpExpr	   *comparison = strict_comparison(any);
	List	   *conditions = NIL;
	List	   *inner = NIL;
	List	   *outer = NIL;

	if (comparison != NULL)
		return list_make2(exists_null(any, comparison),
						  makeBoolExpr(AND_EXPR, list_make2(null_test(copyObject(linitial(comparison->args)), IS_NULL),
															exists_any(any)), -1));
	if (!operands_of(any->testexpr, true, &inner) || !operands_of(any->testexpr, false, &outer))
		return list_make1(any_as_exists(with_test(any, null_test(any->testexpr, IS_NULL))));
	if (inner != NIL)
		conditions = lappend(conditions, any_as_exists(with_test(any, test_is_null_because(any->testexpr, inner))));
	if (outer != NIL)
		conditions = lappend(conditions, any_as_exists(with_test(any, test_is_null_because(any->testexpr, outer))));
	return conditions;
}

/* ---- ANY and ALL ---- */

/* x op ALL (S): NOT (x op' ANY (S)), or with NOT (x op y) where the operator has no negator. */
static SubLink *
negated_any(SubLink *all)
{
	SubLink    *any = with_test(all, all->testexpr);
	OpExpr	   *test = (OpExpr *) any->testexpr;
	Oid			negator = IsA(test, OpExpr) ? get_negator(test->opno) : InvalidOid;

	if (OidIsValid(negator))
	{
		test->opno = negator;
		test->opfuncid = get_opcode(negator);
	}
	else
		any->testexpr = (Node *) makeBoolExpr(NOT_EXPR, list_make1(test), -1);
	return any;
}

static CaseWhen *
case_when(List *conditions, Node *result)
{
	CaseWhen   *when = makeNode(CaseWhen);

	when->expr = list_length(conditions) == 1 ? linitial(conditions) : makeBoolExpr(OR_EXPR, conditions, -1);
	when->result = (Expr *) result;
	return when;
}

static Node *
comparison_of_any(SubLink *any)
{
	CaseExpr   *choice = makeNode(CaseExpr);
	List	   *unknown = some_test_is_null(any);

	choice->casetype = BOOLOID;
	choice->args = list_make1(case_when(list_make1(any_as_exists(any)), makeBoolConst(true, false)));
	if (unknown != NIL)
		choice->args = lappend(choice->args, case_when(unknown, makeBoolConst(false, true)));
	choice->defresult = (Expr *) makeBoolConst(false, false);
	return (Node *) choice;
}

Node *
comparison_as_exists(SubLink *sublink)
{
	if (sublink->subLinkType == ALL_SUBLINK)
		return (Node *) makeBoolExpr(NOT_EXPR, list_make1(comparison_of_any(negated_any(sublink))), -1);
	return comparison_of_any(sublink);
}

List *
not_any_as_conditions(SubLink *any)
{
	OpExpr	   *test = strict_comparison(any);
	List	   *conditions = list_make1(makeBoolExpr(NOT_EXPR, list_make1(any_as_exists(any)), -1));
	ListCell   *lc;

	if (test != NULL)
	{
		conditions = lappend(conditions, makeBoolExpr(NOT_EXPR, list_make1(exists_null(any, test)), -1));
		return lappend(conditions,
					   makeBoolExpr(OR_EXPR, list_make2(null_test(copyObject(linitial(test->args)), IS_NOT_NULL),
														makeBoolExpr(NOT_EXPR, list_make1(exists_any(any)), -1)), -1));
	}
	foreach(lc, some_test_is_null(any))
		conditions = lappend(conditions, makeBoolExpr(NOT_EXPR, list_make1(lfirst(lc)), -1));
	return conditions;
}

List *
all_as_conditions(SubLink *all)
{
	return not_any_as_conditions(negated_any(all));
}
