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
 * NULL and S has a row at all.
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

static Node *
null_test(Node *arg, NullTestType type)
{
	NullTest   *test = makeNode(NullTest);

	test->arg = (Expr *) arg;
	test->nulltesttype = type;
	return (Node *) test;
}

/* EXISTS (a row whose column is NULL) */
static SubLink *
exists_null(SubLink *any, OpExpr *test)
{
	Query	   *subquery = copyObject((Query *) any->subselect);

	if (is_plain(subquery))
		return exists_where(subquery, null_test(targets_mutator(copyObject(lsecond(test->args)), subquery->targetList), IS_NULL));
	else
	{
		ParamContext context = {subquery};

		return exists_with(subquery, list_make1(null_test(params_mutator(copyObject(lsecond(test->args)), &context), IS_NULL)));
	}
}

static SubLink *
exists_any(SubLink *any)
{
	Query	   *subquery = copyObject((Query *) any->subselect);

	return is_plain(subquery) ? exists_where(subquery, NULL) : exists_with(subquery, NIL);
}

static Node *
comparison_of_any(SubLink *any)
{
	OpExpr	   *test = strict_comparison(any);
	CaseExpr   *choice = makeNode(CaseExpr);
	CaseWhen   *is_true = makeNode(CaseWhen);
	CaseWhen   *is_null = makeNode(CaseWhen);
	Node	   *unknown;

	if (test == NULL)
		return NULL;
	unknown = (Node *) makeBoolExpr(AND_EXPR, list_make2(null_test(copyObject(linitial(test->args)), IS_NULL),
														 exists_any(any)), -1);
	is_true->expr = (Expr *) any_as_exists(any);
	is_true->result = (Expr *) makeBoolConst(true, false);
	is_null->expr = makeBoolExpr(OR_EXPR, list_make2(exists_null(any, test), unknown), -1);
	is_null->result = (Expr *) makeBoolConst(false, true);
	choice->casetype = BOOLOID;
	choice->args = list_make2(is_true, is_null);
	choice->defresult = (Expr *) makeBoolConst(false, false);
	return (Node *) choice;
}

SubLink *
all_as_negated_any(SubLink *all)
{
	SubLink    *any = copyObject(all);
	OpExpr	   *test = (OpExpr *) any->testexpr;
	Oid			negator;

	if (test == NULL || !IsA(test, OpExpr))
		return NULL;
	negator = get_negator(test->opno);
	if (!OidIsValid(negator))
		return NULL;
	test->opno = negator;
	test->opfuncid = get_opcode(negator);
	any->subLinkType = ANY_SUBLINK;
	return any;
}

Node *
comparison_as_exists(SubLink *sublink)
{
	SubLink    *any = sublink;
	Node	   *result;

	if (sublink->subLinkType == ALL_SUBLINK)
		any = all_as_negated_any(sublink);
	if (any == NULL)
		return NULL;
	result = comparison_of_any(any);
	if (result == NULL || any == sublink)
		return result;
	return (Node *) makeBoolExpr(NOT_EXPR, list_make1(result), -1);
}

List *
not_in_as_conditions(SubLink *any)
{
	OpExpr	   *test = strict_comparison(any);
	List	   *conditions;

	if (test == NULL)
		return NIL;
	conditions = list_make2(makeBoolExpr(NOT_EXPR, list_make1(any_as_exists(any)), -1),
							makeBoolExpr(NOT_EXPR, list_make1(exists_null(any, test)), -1));
	return lappend(conditions,
				   makeBoolExpr(OR_EXPR, list_make2(null_test(copyObject(linitial(test->args)), IS_NOT_NULL),
													makeBoolExpr(NOT_EXPR, list_make1(exists_any(any)), -1)), -1));
}
