/*
 * delta/outer_join_lookup.c
 *     Where a row of an outer join looks whether it has a match.
 *
 * "Without a match" is linear in the other side as long as a row finds one match at most (outer_join.c).  So it looks in one of these, R being
 * the other side and c the condition:
 *
 *  - R itself, when the columns that c equates contain a key of R;
 *  - otherwise, when c is equalities plus conditions on one side: the distinct values of R's side of the equalities (a state with counts,
 *    by distinct.c), of which one row of L can match only one (equality.c: distinct by the condition's own equality);
 *  - otherwise the distinct values that c uses of those rows of L that have a match, looked up by L's own columns.
 */
#include "postgres.h"

#include "block.h"
#include "canonical.h"
#include "catalog/pg_type_d.h"
#include "equality.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "outer_join.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

/* ---- the two sides ---- */

static bool
is_about(Node *node, int rtindex)
{
	Relids		used = pull_varnos(NULL, node);

	return bms_is_subset(used, bms_make_singleton(rtindex));
}

void *
sides_exchanged(void *node)
{
	Node	   *copy = copyObject((Node *) node);

	ChangeVarNodes(copy, LEFT_INPUT, RIGHT_INPUT + 1, 0);
	ChangeVarNodes(copy, RIGHT_INPUT, LEFT_INPUT, 0);
	ChangeVarNodes(copy, RIGHT_INPUT + 1, RIGHT_INPUT, 0);
	return copy;
}

static List *
targets_of(List *exprs)
{
	List	   *targets = NIL;
	ListCell   *lc;

	foreach(lc, exprs)
		targets = lappend(targets, makeTargetEntry(copyObject(lfirst(lc)), list_length(targets) + 1,
												   psprintf("k%d", list_length(targets) + 1), false));
	return targets;
}

/* SELECT DISTINCT exprs FROM inputs WHERE quals, as an input. */
static BlockInput *
distinct_values(Compiler *compiler, List *inputs, List *quals, List *exprs)
{
	Compiled   *compiled;

	if (exprs == NIL)			/* all that matters is whether there is a row */
		exprs = list_make1(makeBoolConst(true, false));
	compiled = compile_projection(compiler, outer_join_block(compiler, inputs, quals, targets_of(exprs)));
	if (compiled != NULL && compiled->rowset >= 0)
		compiled = compile_distinct(compiler, compiled);
	return compiled == NULL ? NULL : block_input_from_compiled(compiled, "matched");
}

/* ---- the condition of a lookup ---- */

typedef struct Lookup
{
	List	   *equalities;		/* of OpExpr: left expression = right expression */
	List	   *left;			/* conditions on the preserved side, or on nothing */
	List	   *right;			/* conditions on the side that is looked up */
	List	   *others;
} Lookup;

/* expression of input 1 = expression of input 2, turned round if necessary; NULL: not of this form */
static OpExpr *
equality_of_sides(Node *node)
{
	OpExpr	   *condition = (OpExpr *) node;
	Node	   *left;
	Node	   *right;

	if (!IsA(node, OpExpr) || list_length(condition->args) != 2)
		return NULL;
	left = linitial(condition->args);
	right = lsecond(condition->args);
	if (!op_mergejoinable(condition->opno, exprType(left)) || !contain_var_clause(left) || !contain_var_clause(right))
		return NULL;
	if (is_about(left, LEFT_INPUT) && is_about(right, RIGHT_INPUT) && is_usual_comparison(condition->opno, exprType(right)))
		return condition;
	if (is_about(left, RIGHT_INPUT) && is_about(right, LEFT_INPUT) && is_usual_comparison(condition->opno, exprType(left)) &&
		OidIsValid(get_commutator(condition->opno)))
	{
		condition = copyObject(condition);
		CommuteOpExpr(condition);
		return condition;
	}
	return NULL;
}

static void
sort_conditions(List *quals, Lookup *lookup)
{
	ListCell   *lc;

	foreach(lc, quals)
	{
		Node	   *qual = lfirst(lc);
		OpExpr	   *equality = equality_of_sides(qual);

		if (equality != NULL)
			lookup->equalities = lappend(lookup->equalities, equality);
		else if (is_about(qual, LEFT_INPUT))
			lookup->left = lappend(lookup->left, qual);
		else if (is_about(qual, RIGHT_INPUT))
			lookup->right = lappend(lookup->right, qual);
		else
			lookup->others = lappend(lookup->others, qual);
	}
}

/* Does some key of the input consist of columns that are equated? */
static bool
matches_at_most_once(BlockInput *input, List *equalities)
{
	ListCell   *lc;

	if (input->key == NIL)
		return false;
	foreach(lc, input->key)
	{
		bool		equated = false;
		ListCell   *other;

		foreach(other, equalities)
		{
			OpExpr	   *equality = lfirst_node(OpExpr, other);
			Var		   *side = lsecond(equality->args);

			equated |= IsA(side, Var) && side->varattno == lfirst_int(lc) &&
				collations_agree(equality->inputcollid, side->varcollid);
		}
		if (!equated)
			return false;
	}
	return true;
}

bool
outer_join_matches_once(BlockInput *right, List *on)
{
	Lookup		lookup = {NIL, NIL, NIL, NIL};

	sort_conditions(on, &lookup);
	return matches_at_most_once(right, lookup.equalities);
}

/* ---- what is looked up ---- */

static Var *
lookup_column(BlockInput *input, int attno)
{
	return makeVar(RIGHT_INPUT, attno, list_nth_oid(input->coltypes, attno - 1),
				   list_nth_int(input->coltypmods, attno - 1), list_nth_oid(input->colcollations, attno - 1), 0);
}

/* What of the other side decides about an equality; said of it as the left side. */
static Node *
equated_value(OpExpr *equality)
{
	return under_collation(sides_exchanged(lsecond(equality->args)), equality->inputcollid);
}

static Node *
is_not_null(Node *expr)
{
	NullTest   *test = makeNode(NullTest);

	test->arg = (Expr *) copyObject(expr);
	test->nulltesttype = IS_NOT_NULL;
	return (Node *) test;
}

/* The distinct right sides of the equalities, with the equalities over them as the condition. */
static BlockInput *
lookup_by_equality(Compiler *compiler, BlockInput *right, Lookup *lookup)
{
	List	   *values = NIL;
	List	   *quals = sides_exchanged(lookup->right);
	BlockInput *input;
	ListCell   *lc;

	foreach(lc, lookup->equalities)
	{
		Node	   *value = equated_value(lfirst_node(OpExpr, lc));

		values = list_append_unique(values, value);
		quals = lappend(quals, is_not_null(value));
	}
	input = distinct_values(compiler, list_make1(right), quals, values);
	if (input == NULL)
		return NULL;
	input->unless = copyObject(lookup->left);
	foreach(lc, lookup->equalities)
	{
		OpExpr	   *equality = copyObject(lfirst_node(OpExpr, lc));
		Node	   *value = equated_value(equality);

		for (int i = 0; i < list_length(values); i++)
		{
			if (equal(list_nth(values, i), value))
				equality->args = list_make2(linitial(equality->args), lookup_column(input, i + 1));
		}
		input->unless = lappend(input->unless, equality);
	}
	return input;
}

/* a = b, also true where both are NULL */
static Node *
null_safe_equality(Node *left, Node *right)
{
	TypeCacheEntry *type = lookup_type_cache(exprType(left), TYPECACHE_EQ_OPR);
	Node	   *equality = (Node *) make_opclause(type->eq_opr, BOOLOID, false, (Expr *) copyObject(left),
												  (Expr *) copyObject(right), InvalidOid, exprCollation(left));
	NullTest   *left_null = (NullTest *) is_not_null(left);
	NullTest   *right_null = (NullTest *) is_not_null(right);

	left_null->nulltesttype = right_null->nulltesttype = IS_NULL;
	return (Node *) makeBoolExpr(OR_EXPR,
								 list_make2(equality, makeBoolExpr(AND_EXPR, list_make2(left_null, right_null), -1)),
								 -1);
}

/* The values that a condition uses of its left side; where it could tell equal ones from each other, their hashes, too. */
static List *
values_used(List *on)
{
	List	   *values = NIL;
	List	   *hashes = NIL;
	ListCell   *lc;

	foreach(lc, pull_var_clause((Node *) on, 0))
	{
		if (((Var *) lfirst(lc))->varno == LEFT_INPUT)
			values = list_append_unique(values, lfirst(lc));
	}
	foreach(lc, values)
	{
		if (order_needs_hash(list_make1(lfirst(lc))))
			hashes = lappend(hashes, row_hash_call(list_make1(lfirst(lc))));
	}
	return images_matter((Node *) on, 0) ? list_concat(values, hashes) : values;
}

/*
 * The distinct values that the condition uses of those rows of the preserved side that have a match.  Rows with equal values have the same matches.
 */
static BlockInput *
lookup_by_values(Compiler *compiler, BlockInput *left, BlockInput *right, List *on)
{
	List	   *values = values_used(on);
	bool		strict = !contain_nonstrict_functions((Node *) on);
	BlockInput *input;
	ListCell   *lc;
	int			i = 0;

	foreach(lc, values)
	{
		if (!OidIsValid(lookup_type_cache(exprType(lfirst(lc)), TYPECACHE_EQ_OPR)->eq_opr))
			return compile_cannot(compiler, "an outer join whose condition uses type %s, which has no equality, has no delta rule",
								  format_type_be(exprType(lfirst(lc))));
	}
	input = distinct_values(compiler, list_make2(left, right), copyObject(on), values);
	if (input == NULL)
		return NULL;
	foreach(lc, values)
	{
		Node	   *mine = lfirst(lc);
		Var		   *theirs = lookup_column(input, ++i);

		if (strict)
			input->unless = lappend(input->unless,
									make_opclause(lookup_type_cache(exprType(mine), TYPECACHE_EQ_OPR)->eq_opr,
												  BOOLOID, false, (Expr *) copyObject(mine), (Expr *) theirs,
												  InvalidOid, exprCollation(mine)));
		else
			input->unless = lappend(input->unless, null_safe_equality(mine, (Node *) theirs));
	}
	return input;
}

BlockInput *
outer_join_lookup(Compiler *compiler, BlockInput *left, BlockInput *right, List *on)
{
	Lookup		lookup = {NIL, NIL, NIL, NIL};
	BlockInput *input;

	sort_conditions(on, &lookup);
	if (right->rowset < 0 || matches_at_most_once(right, lookup.equalities))
	{
		input = palloc(sizeof(BlockInput));
		*input = *right;
		input->unless = copyObject(on);
	}
	else if (lookup.others == NIL)
		input = lookup_by_equality(compiler, right, &lookup);
	else
		input = lookup_by_values(compiler, left, right, on);
	if (input != NULL)
		input->anti = true;
	return input;
}
