/*
 * delta/key.c
 *     Which output columns identify a row of a join.
 *
 * A row of a join is identified by the keys of all its inputs.  An input whose whole key is equated with columns of other inputs
 * is determined by them and can be left out (orders joined with customers on the customers' key: the order's key is enough).
 * What remains must be visible in the output, as itself or as an equated column; else the result is a bag.
 *
 * A key only speeds up finding rows and lets updates happen in place; applying a delta checks the whole old row. So a key that stops
 * being one (a dropped primary key) costs time, not rows.
 */
#include "postgres.h"

#include "block.h"
#include "nodes/nodeFuncs.h"
#include "utils/lsyscache.h"

/* ANDed conditions of the form column = column. */
static List *
column_equalities(QueryBlock *block)
{
	List	   *pairs = NIL;
	ListCell   *lc;

	foreach(lc, block->quals)
	{
		OpExpr	   *condition = (OpExpr *) lfirst(lc);

		if (IsA(condition, OpExpr) && list_length(condition->args) == 2 &&
			IsA(linitial(condition->args), Var) && IsA(lsecond(condition->args), Var) &&
			op_mergejoinable(condition->opno, exprType(linitial(condition->args))))
			pairs = lappend(pairs, condition);
	}
	return pairs;
}

/* Is this column equated with a column of an input that is not in `left_out` nor `input_no` itself? */
static Var *
equated_elsewhere(List *equalities, int input_no, AttrNumber attno, Bitmapset *left_out)
{
	ListCell   *lc;

	foreach(lc, equalities)
	{
		OpExpr	   *condition = lfirst(lc);
		Var		   *sides[2] = {linitial(condition->args), lsecond(condition->args)};

		for (int side = 0; side < 2; side++)
		{
			Var		   *mine = sides[side];
			Var		   *other = sides[1 - side];

			if (mine->varno == input_no + 1 && mine->varattno == attno &&
				other->varno != mine->varno && !bms_is_member(other->varno - 1, left_out))
				return other;
		}
	}
	return NULL;
}

static Bitmapset *
determined_inputs(QueryBlock *block, List *equalities)
{
	Bitmapset  *left_out = NULL;

	for (int i = list_length(block->inputs) - 1; i >= 0; i--)
	{
		BlockInput *input = list_nth(block->inputs, i);
		ListCell   *lc;
		bool		determined = true;

		if (input->key == NIL)
			continue;
		foreach(lc, input->key)
			determined &= equated_elsewhere(equalities, i, lfirst_int(lc), left_out) != NULL;
		if (determined)
			left_out = bms_add_member(left_out, i);
	}
	return left_out;
}

int
output_column(List *targets, int input_no, AttrNumber attno)
{
	ListCell   *lc;

	foreach(lc, targets)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);
		Var		   *var = (Var *) target->expr;

		if (IsA(var, Var) && var->varno == input_no + 1 && var->varattno == attno)
			return target->resno;
	}
	return 0;
}

static int
visible_column(List *targets, List *equalities, int input_no, AttrNumber attno)
{
	int			resno = output_column(targets, input_no, attno);
	ListCell   *lc;

	if (resno > 0)
		return resno;
	foreach(lc, equalities)
	{
		OpExpr	   *condition = lfirst(lc);
		Var		   *left = linitial(condition->args);
		Var		   *right = lsecond(condition->args);

		if (left->varno == input_no + 1 && left->varattno == attno)
			resno = output_column(targets, right->varno - 1, right->varattno);
		else if (right->varno == input_no + 1 && right->varattno == attno)
			resno = output_column(targets, left->varno - 1, left->varattno);
		if (resno > 0)
			return resno;
	}
	return 0;
}

List *
join_key(QueryBlock *block, List *targets)
{
	List	   *equalities = column_equalities(block);
	Bitmapset  *left_out = determined_inputs(block, equalities);
	List	   *key = NIL;

	if (expression_returns_set((Node *) targets))
		return NIL;
	for (int i = 0; i < list_length(block->inputs); i++)
	{
		BlockInput *input = list_nth(block->inputs, i);
		ListCell   *lc;

		if (bms_is_member(i, left_out))
			continue;
		if (input->key == NIL)
			return NIL;
		foreach(lc, input->key)
		{
			int			resno = visible_column(targets, equalities, i, lfirst_int(lc));

			if (resno == 0)
				return NIL;
			key = list_append_unique_int(key, resno);
		}
	}
	return key;
}
