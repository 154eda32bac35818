/*
 * delta/temporal.c
 *     Delta rule for conditions on the moment: rows enter and leave as time passes, without any write.
 *
 * Let F(X, t) be the rows of a join X whose conditions hold at the moment t, t0 the moment of the previous refresh (stored with the frontier)
 * and t1 that of this one (now(), the same in all of a tick).  Then
 *
 *     F(X', t1) - F(X, t0)  =  [F(X', t0) - F(X, t0)]  +  [F(X', t1) - F(X', t0)]
 *
 * The first part is the delta of the join as join.c has it, with the conditions as they were at t0: pgtrickle.previous_now() in the place
 * of now().  The second reads only the new state: rows of X' whose conditions hold at t1 and did not at t0, less those the other way round.  With
 * conditions p1 ... pm a row has left iff all of them held at t0 and some does not at t1; so that no row is counted twice, the i-th term
 * takes those for which p1 ... p(i-1) still hold and pi does not.  That is 2m terms; temporal_quals.c says what each looks
 * for, and why most cost nothing.
 *
 * Correct whatever t0 and t1 are, so a clock that was set back takes rows out and in again like any other step.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "query.h"
#include "temporal.h"

/* Conditions that are ANDed, also where AND is nested: BETWEEN is. */
static List *
flat_conditions(List *quals)
{
	List	   *flat = NIL;
	ListCell   *lc;

	foreach(lc, quals)
	{
		Expr	   *qual = lfirst(lc);

		if (is_andclause(qual))
			flat = list_concat(flat, flat_conditions(((BoolExpr *) qual)->args));
		else
			flat = lappend(flat, qual);
	}
	return flat;
}

void
temporal_note_quals(QueryBlock *block)
{
	ListCell   *lc;

	if (!temporal_mentions_time((Node *) block->quals))
		return;
	block->quals = flat_conditions(block->quals);
	foreach(lc, block->quals)
	{
		if (temporal_mentions_time(lfirst(lc)))
			block->temporal = lappend(block->temporal, temporal_qual(lfirst(lc)));
	}
}

/* The conditions that do not look at the clock. */
static List *
steady_quals(QueryBlock *block)
{
	List	   *steady = list_copy(block->quals);
	ListCell   *lc;

	foreach(lc, block->temporal)
		steady = list_delete_ptr(steady, ((TemporalQual *) lfirst(lc))->qual);
	return steady;
}

/* The block with other conditions, none of which makes anything enter or leave. */
static QueryBlock *
block_with(QueryBlock *block, List *quals)
{
	QueryBlock *other = palloc(sizeof(QueryBlock));

	*other = *block;
	other->quals = quals;
	other->temporal = NIL;
	return other;
}

/* Those whose i-th condition is the first that has left (entered), and that did (do) fulfil all of them. */
static List *
moving_quals(QueryBlock *block, int moving, bool leaving)
{
	List	   *quals = steady_quals(block);
	ListCell   *lc;

	foreach(lc, block->temporal)
	{
		TemporalQual *temporal = lfirst(lc);
		int			i = foreach_current_index(lc);

		if (i == moving)
			quals = list_concat(quals, leaving ? temporal->left : temporal->entered);
		else
		{
			quals = lappend(quals, leaving ? temporal->before : temporal->qual);
			if (i < moving)
				quals = lappend(quals, leaving ? temporal->qual : temporal->before);
		}
	}
	return quals;
}

static void
append_term(StringInfo sql, QueryBlock *block, List *quals, int weight, List *targets)
{
	Query	   *term = join_term(block_with(block, quals), 0, targets);
	TargetEntry *weight_target = llast_node(TargetEntry, term->targetList);

	castNode(Const, weight_target->expr)->constvalue = Int32GetDatum(weight);
	appendStringInfo(sql, "%s%s", sql->len > 0 ? "\nUNION ALL\n" : "", query_print(term));
}

char *
temporal_delta_sql(QueryBlock *block, uint64 changed, List *targets)
{
	StringInfoData sql;
	ListCell   *lc;

	initStringInfo(&sql);
	if (changed != 0)
	{
		List	   *before = steady_quals(block);

		foreach(lc, block->temporal)
			before = lappend(before, ((TemporalQual *) lfirst(lc))->before);
		appendStringInfoString(&sql, join_delta_sql(block_with(block, before), changed, targets));
	}
	foreach(lc, block->temporal)
	{
		append_term(&sql, block, moving_quals(block, foreach_current_index(lc), true), -1, targets);
		append_term(&sql, block, moving_quals(block, foreach_current_index(lc), false), 1, targets);
	}
	return sql.data;
}
