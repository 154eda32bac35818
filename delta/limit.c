/*
 * delta/limit.c
 *     Rule for ORDER BY ... LIMIT, OFFSET and FETCH FIRST ... WITH TIES.
 *
 * Here the level is taken apart.  A constant number of first rows is maintained with a reserve behind them (top_rows.c).  For the rest (WITH TIES,
 * OFFSET without LIMIT, large numbers) there is one partition: the rows are computed again from the new state
 * and compared with those that the state holds (keyed.c without keys).  A number from a subquery is a condition on row_number().  The order is total by then (canonical.c), so there is one answer.
 */
#include "keyed.h"

#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "sublink.h"

#define TOP_ROWS_MAX 10000		/* rows that are sorted at each refresh */

static bool
is_null_constant(Node *node)
{
	return node == NULL || (IsA(node, Const) && ((Const *) node)->constisnull);
}

/* The number that a LIMIT or OFFSET is; -1: none that is known now. */
static int64
constant_rows(Node *node, int64 if_missing)
{
	node = eval_const_expressions(NULL, node);
	if (is_null_constant(node))
		return if_missing;
	return IsA(node, Const) ? DatumGetInt64(((Const *) node)->constvalue) : -1;
}

/* How many rows of the order are skipped and taken; -1: all, or unknown. */
static int64
rows_needed(Query *query)
{
	int64		count = constant_rows(query->limitCount, -1);
	int64		offset = constant_rows(query->limitOffset, 0);

	if (count < 0 || offset < 0 || count > TOP_ROWS_MAX || offset > TOP_ROWS_MAX)
		return -1;
	return count + offset;
}

/* The level without ORDER BY and LIMIT, and these over it. */
static Query *
split_limit(Query *query)
{
	Query	   *outer = level_over(query, query->sortClause);

	outer->sortClause = query->sortClause;
	outer->limitCount = query->limitCount;
	outer->limitOffset = query->limitOffset;
	outer->limitOption = query->limitOption;
	/* DISTINCT ON takes the first row of the same order */
	if (!query->hasDistinctOn)
		query->sortClause = NIL;
	query->limitCount = query->limitOffset = NULL;
	query->limitOption = LIMIT_OPTION_COUNT;
	return outer;
}

Compiled *
compile_limit(Compiler *compiler, Query *query)
{
	KeyedLevel *level = palloc0(sizeof(KeyedLevel));
	int64		needed;

	if (is_null_constant(query->limitCount) && is_null_constant(query->limitOffset))
	{
		query->limitCount = query->limitOffset = NULL;
		return compile_level(compiler, query);
	}
	query = copyObject(query);	/* the caller still looks at its targets */
	if (contains_sublink(query->limitCount) || contains_sublink(query->limitOffset))
		return compile_level(compiler, limit_by_number(split_limit(query), NIL));
	level->operator_name = "limit";
	level->query = split_limit(query);
	level->single_row = constant_rows(level->query->limitCount, -1) == 1 &&
		level->query->limitOption != LIMIT_OPTION_WITH_TIES;
	level->input = compile_level(compiler, query);
	if (level->input == NULL)
		return NULL;
	level->output_key = visible_input_key(level->input, level->query->targetList);
	level->key_is_unique = level->input->key_is_unique;
	needed = rows_needed(level->query);
	if (needed < 0 || level->query->limitOption == LIMIT_OPTION_WITH_TIES)
		return compile_keyed(compiler, level);
	return compile_top_rows(compiler, level, needed);
}
