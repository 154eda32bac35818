/*
 * delta/limit.c
 *     Rule for ORDER BY ... LIMIT, OFFSET and FETCH FIRST ... WITH TIES.
 *
 * The first rows of an order may be any rows of the input, so there is one partition: the rows are computed again from the new state
 * and compared with those that the state holds (keyed.c without keys).  The state is as small as the result.  The order is
 * total by then (canonical.c), so there is one answer.
 */
#include "keyed.h"

#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"

static bool
is_null_constant(Node *node)
{
	return node == NULL || (IsA(node, Const) && ((Const *) node)->constisnull);
}

static bool
is_one(Node *node)
{
	node = eval_const_expressions(NULL, node);
	return node != NULL && IsA(node, Const) && !((Const *) node)->constisnull &&
		DatumGetInt64(((Const *) node)->constvalue) == 1;
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

	if (is_null_constant(query->limitCount) && is_null_constant(query->limitOffset))
	{
		query->limitCount = query->limitOffset = NULL;
		return compile_level(compiler, query);
	}
	if (contains_sublink(query->limitCount) || contains_sublink(query->limitOffset))
	{
		note_all_sources(compiler, query);
		return compile_cannot(compiler, "a subquery in LIMIT or OFFSET has no delta rule");
	}
	query = copyObject(query);	/* the caller still looks at its targets */
	level->operator_name = "limit";
	level->query = split_limit(query);
	level->single_row = is_one(level->query->limitCount) && level->query->limitOption != LIMIT_OPTION_WITH_TIES;
	level->input = compile_level(compiler, query);
	if (level->input == NULL)
		return NULL;
	level->output_key = visible_input_key(level->input, level->query->targetList);
	level->key_is_unique = level->input->key_is_unique;
	return compile_keyed(compiler, level);
}
