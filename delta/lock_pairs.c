/*
 * delta/lock_pairs.c
 *     Finds the pairs of a block: inputs that both change, and the columns that the join equates between them.
 *
 * Two rows of two inputs are part of the same row of the result only if they fulfil all equalities between these inputs.  So a lock on the
 * values of the columns on either side meets a lock of the other side whenever it has to.  Values that are equal must have equal
 * hashes: an equality counts only if its operator is part of a hash operator family, whose functions for both types agree.  Only
 * plain columns count, since a lock is taken by looking at a delta's rows.  Equalities left out make a lock cover more than it must.
 *
 * Where two inputs are equated only by way of a third (a.k = b.k AND b.k = c.k), that counts as well, if the third one's column is hashed by the same
 * function in both.
 *
 * Numbers are given in the order in which blocks are compiled, which the query alone decides.
 */
#include "lock_pairs.h"

#include "nodes/nodeFuncs.h"
#include "nodes/primnodes.h"
#include "utils/lsyscache.h"

/* A column of the input as it is, whatever type it is called; NULL: something else. */
static Var *
plain_column(Node *node, int rtindex)
{
	while (node != NULL && IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	if (node != NULL && IsA(node, Var) && ((Var *) node)->varno == rtindex && ((Var *) node)->varlevelsup == 0 &&
		((Var *) node)->varattno > 0)
		return (Var *) node;
	return NULL;
}

static void
add_equality(LockPair *pair, AttrNumber attnos[2], Oid hash_functions[2], Oid collation)
{
	for (int side = 0; side < 2; side++)
	{
		LockColumn *column;

		pair->columns[side] = pair->ncolumns == 0 ? palloc(sizeof(LockColumn))
			: repalloc(pair->columns[side], sizeof(LockColumn) * (pair->ncolumns + 1));
		column = &pair->columns[side][pair->ncolumns];
		memset(column, 0, sizeof(LockColumn));
		column->attno = attnos[side];
		column->collation = collation;
		column->hash_function = hash_functions[side];
	}
	pair->ncolumns++;
}

static void
consider_condition(LockPair *pair, Node *condition, const int rtindexes[2])
{
	OpExpr	   *equality = (OpExpr *) condition;
	Oid			functions[2];
	Oid			exchanged[2];

	if (!IsA(condition, OpExpr) || list_length(equality->args) != 2 ||
		!op_hashjoinable(equality->opno, exprType(linitial(equality->args))) ||
		!get_op_hash_functions(equality->opno, &functions[0], &functions[1]))
		return;
	exchanged[0] = functions[1];
	exchanged[1] = functions[0];
	for (int turned = 0; turned < 2; turned++)
	{
		Var		   *first = plain_column(list_nth(equality->args, turned), rtindexes[0]);
		Var		   *second = plain_column(list_nth(equality->args, 1 - turned), rtindexes[1]);
		AttrNumber	attnos[2];

		if (first == NULL || second == NULL)
			continue;
		attnos[0] = first->varattno;
		attnos[1] = second->varattno;
		add_equality(pair, attnos, turned ? exchanged : functions, equality->inputcollid);
		return;
	}
}

/* Equalities of each of the two inputs with a third one, by the same column of that. */
static void
consider_third_input(LockPair *pair, QueryBlock *block, const int rtindexes[2], int third)
{
	LockPair	with_third[2] = {{0}, {0}};

	for (int side = 0; side < 2; side++)
	{
		int			both[2] = {rtindexes[side], third};
		ListCell   *lc;

		foreach(lc, block->quals)
			consider_condition(&with_third[side], lfirst(lc), both);
	}
	for (int i = 0; i < with_third[0].ncolumns; i++)
	{
		for (int j = 0; j < with_third[1].ncolumns; j++)
		{
			LockColumn *thirds[2] = {&with_third[0].columns[1][i], &with_third[1].columns[1][j]};
			AttrNumber	attnos[2] = {with_third[0].columns[0][i].attno, with_third[1].columns[0][j].attno};
			Oid			functions[2] = {with_third[0].columns[0][i].hash_function, with_third[1].columns[0][j].hash_function};

			if (thirds[0]->attno == thirds[1]->attno && thirds[0]->hash_function == thirds[1]->hash_function &&
				thirds[0]->collation == thirds[1]->collation)
				add_equality(pair, attnos, functions, thirds[0]->collation);
		}
	}
}

static LockPair *
make_pair(QueryBlock *block, int first, int second)
{
	LockPair   *pair = palloc0(sizeof(LockPair));
	BlockInput *inputs[2] = {list_nth(block->inputs, first), list_nth(block->inputs, second)};
	int			rtindexes[2] = {first + 1, second + 1};
	ListCell   *lc;

	pair->number = ++block->program->lock_pair_count;
	for (int side = 0; side < 2; side++)
		pair->rowsets[side] = inputs[side]->rowset;
	/* what concerns an anti input is in its own conditions; only the last input can be one */
	foreach(lc, inputs[1]->anti ? inputs[1]->unless : block->quals)
		consider_condition(pair, lfirst(lc), rtindexes);
	for (int third = 1; third <= list_length(block->inputs) && pair->ncolumns == 0 && !inputs[1]->anti; third++)
	{
		if (third != rtindexes[0] && third != rtindexes[1] && !((BlockInput *) list_nth(block->inputs, third - 1))->anti)
			consider_third_input(pair, block, rtindexes, third);
	}
	return pair;
}

static List *
find_pairs(QueryBlock *block)
{
	List	   *pairs = NIL;

	for (int second = 1; second < list_length(block->inputs); second++)
	{
		for (int first = 0; first < second; first++)
		{
			if (((BlockInput *) list_nth(block->inputs, first))->rowset >= 0 &&
				((BlockInput *) list_nth(block->inputs, second))->rowset >= 0)
				pairs = lappend(pairs, make_pair(block, first, second));
		}
	}
	return pairs;
}

void
step_lock_block(ProgramStep *step, QueryBlock *block)
{
	if (!block->has_lock_pairs)
	{
		block->lock_pairs = find_pairs(block);
		block->has_lock_pairs = true;
	}
	step->lock_pairs = list_concat_unique_ptr(step->lock_pairs, block->lock_pairs);
	step->has_fine_locks = true;
}
