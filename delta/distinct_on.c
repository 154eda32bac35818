/*
 * delta/distinct_on.c
 *     Rule for DISTINCT ON: the first row, in the level's order, of each value of its expressions.
 *
 * Which row that is depends only on the rows with the same value, so the expressions are the key (keyed.c).  The order is total
 * within a value by then (canonical.c).  An expression whose type has no order that the server would group by is left out of the key:
 * fewer columns make larger partitions, which is as right.
 */
#include "keyed.h"

#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"

/* The level without DISTINCT ON and its order, and these over it. */
static Query *
split_distinct_on(Query *query)
{
	List	   *clauses = list_concat_copy(query->distinctClause, query->sortClause);
	Query	   *outer = level_over(query, clauses);

	outer->distinctClause = query->distinctClause;
	outer->hasDistinctOn = true;
	outer->sortClause = query->sortClause;
	query->distinctClause = NIL;
	query->hasDistinctOn = false;
	query->sortClause = NIL;
	return outer;
}

Compiled *
compile_distinct_on(Compiler *compiler, Query *query)
{
	KeyedLevel *level = palloc0(sizeof(KeyedLevel));
	ListCell   *lc;

	query = copyObject(query);	/* the caller still looks at its targets */
	level->operator_name = "distinct on";
	level->query = split_distinct_on(query);
	level->input = compile_level(compiler, query);
	if (level->input == NULL)
		return NULL;
	level->key_is_unique = true;
	foreach(lc, level->query->distinctClause)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);
		TargetEntry *target = get_sortgroupclause_tle(clause, level->query->targetList);

		/* all of them together are unique, if all are visible */
		if (keyed_type_is_usable(exprType((Node *) target->expr), clause->eqop))
			level->keys = lappend_int(level->keys, castNode(Var, target->expr)->varattno);
		else
			level->key_is_unique = false;
		if (target->resjunk)
			level->key_is_unique = false;
	}
	if (level->key_is_unique)
		foreach(lc, level->query->distinctClause)
			level->output_key = list_append_unique_int(level->output_key,
													   get_sortgroupclause_tle(lfirst(lc), level->query->targetList)->resno);
	else
		level->output_key = visible_input_key(level->input, level->query->targetList);
	return compile_keyed(compiler, level);
}
