/*
 * delta/aggregate.c
 *     Delta rule for GROUP BY.
 *
 * The node keeps one row per group in a state table: the keys, the number of input rows (`rows`), and what its aggregates need.
 *
 * Algebraic: every aggregate has a rule (aggregate_rules.h).  The group delta, one statement over the terms of the join's delta,
 *
 *     SELECT keys, sum(weight) AS rows, sum(weight * x) ... FROM (terms) t GROUP BY keys
 *
 * is merged into the state (STEP_MERGE): new = old + delta; a group without rows goes.  For few rows the statement does not group, which costs more than
 * all the rest, and merging adds up (row by row: sums only, since a sum of one row is an expression).  A group that lost its min or max is computed again
 * from the new state of the inputs, restricted to its key (STEP_REPLACE).
 *
 * Otherwise, affected keys: K = the keys that occur in the join's delta; all groups in K are computed again and replace what
 * the state holds for K (STEP_REPLACE).
 *
 * Both yield -old +new state rows, from which a projection makes the visible columns, HAVING included: a group below the threshold
 * stays in the state, so that it can come up later.  Correct because a group's row is a function of the bag of its input rows, and that bag changes
 * only for keys in the input's delta.
 *
 * NULL keys: groups compare keys by IS NOT DISTINCT FROM, which no join can hash or probe an index with; so a
 * recomputing statement is printed per pattern of NULLs, with `=` for the others.
 */
#include "aggregate.h"
#include "fk_prune.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "utils/builtins.h"
#include "utils/typcache.h"

#define GROUP_KEYS_MAX 32		/* columns of an index, and bits of a pattern of NULLs */

/* ---- what the level groups by and computes ---- */

static bool
is_key(AggregateBuild *build, Node *node)
{
	return list_member(build->keys, node);
}

/*
 * Collects aggregate calls; a column outside of them that is not part of a key depends on the keys (GROUP BY a primary key) and
 * becomes one more key, which makes no other groups.
 */
static bool
collect_walker(Node *node, AggregateBuild *build)
{
	if (node == NULL || is_key(build, node))
		return false;
	if (IsA(node, Aggref))
	{
		ListCell   *lc;
		AggregateCall *call;

		foreach(lc, build->calls)
		{
			if (equal(((AggregateCall *) lfirst(lc))->aggref, node))
				return false;
		}
		call = palloc0(sizeof(AggregateCall));
		call->aggref = (Aggref *) node;
		call->rule = aggregate_rule(call->aggref);
		build->calls = lappend(build->calls, call);
		return false;
	}
	if (IsA(node, Var))
	{
		build->keys = lappend(build->keys, node);
		return false;
	}
	return expression_tree_walker(node, collect_walker, build);
}

static bool
collect_keys_and_calls(AggregateBuild *build)
{
	Query	   *query = build->block->query;
	ListCell   *lc;

	build->algebraic = true;
	foreach(lc, query->groupClause)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);

		build->keys = list_append_unique(build->keys,
										 get_sortgroupclause_expr(clause, query->targetList));
	}
	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (!target->resjunk)
			(void) collect_walker((Node *) target->expr, build);
	}
	(void) collect_walker(query->havingQual, build);
	if (list_length(build->keys) > GROUP_KEYS_MAX)
		return compile_cannot(build->compiler, "GROUP BY with more than %d columns has no delta rule",
							  GROUP_KEYS_MAX) != NULL;
	foreach(lc, build->keys)
	{
		Oid			type = exprType(lfirst(lc));

		if (!OidIsValid(lookup_type_cache(type, TYPECACHE_LT_OPR)->lt_opr))
			return compile_cannot(build->compiler, "grouping by type %s, which has no order, has no delta rule",
								  format_type_be(type)) != NULL;
	}
	foreach(lc, build->calls)
		build->algebraic &= ((AggregateCall *) lfirst(lc))->rule != AGGREGATE_RECOMPUTE;
	return true;
}

/* ---- steps ---- */

static int
add_rowset(AggregateBuild *build, const char *what)
{
	return program_add_rowset(build->compiler, program_new_rowset_name(build->compiler, what), InvalidOid);
}

static ProgramStep *
add_step(AggregateBuild *build, StepKind kind, const char *strategy)
{
	ProgramStep *step = program_add_step(build->compiler, kind, "aggregate", strategy);

	step->build = build;
	step->state = build->state;
	step->states_read = build->block->states;
	step->has_fine_locks = true;
	return step;
}

static int
add_replace_step(AggregateBuild *build, int keys_rowset)
{
	ProgramStep *step = add_step(build, STEP_REPLACE, "recompute affected groups");

	step_add_input(step, keys_rowset);
	step->print_recompute = aggregate_print_recompute;
	return step->output = add_rowset(build, "groups");
}

/* Returns the rowsets with the state's -old +new rows. */
static List *
add_algebraic_steps(AggregateBuild *build)
{
	ProgramStep *delta = add_step(build, STEP_QUERY, "algebraic");
	ProgramStep *merge;
	bool		has_minmax = false;
	ListCell   *lc;

	join_add_inputs(build->block, delta);
	fk_prune_step(build->block, delta);
	delta->print = aggregate_print_group_delta;
	if (aggregate_has_row_deltas(build))
		delta->print_rows = aggregate_print_row_deltas;
	delta->output = add_rowset(build, "group_delta");

	merge = add_step(build, STEP_MERGE, "algebraic");
	step_add_input(merge, delta->output);
	merge->output = add_rowset(build, "groups");
	foreach(lc, build->state->columns)
		has_minmax |= ((StateColumn *) lfirst(lc))->is_minmax;
	if (!has_minmax)
		return list_make1_int(merge->output);
	merge->recompute_output = add_rowset(build, "lost_extremum");
	return list_make2_int(merge->output, add_replace_step(build, merge->recompute_output));
}

static List *
add_affected_keys_steps(AggregateBuild *build)
{
	ProgramStep *keys = add_step(build, STEP_QUERY, "affected keys");

	join_add_inputs(build->block, keys);
	fk_prune_step(build->block, keys);
	keys->print = aggregate_print_affected_keys;
	keys->output = add_rowset(build, "affected");
	return list_make1_int(add_replace_step(build, keys->output));
}

/* ---- the visible columns ---- */

static Node *
finals_mutator(Node *node, AggregateBuild *build)
{
	ListCell   *lc;
	int			i = 0;

	if (node == NULL)
		return NULL;
	foreach(lc, build->keys)
	{
		if (equal(lfirst(lc), node))
			return (Node *) aggregate_state_var(build, list_nth(build->key_columns, i));
		i++;
	}
	if (IsA(node, Aggref))
	{
		foreach(lc, build->calls)
		{
			AggregateCall *call = lfirst(lc);

			if (equal(call->aggref, node))
				return copyObject((Node *) call->final);
		}
		elog(ERROR, "aggregate call is not among those of its level");
	}
	return expression_tree_mutator(node, finals_mutator, build);
}

/* Does a target show the key, as it is or as one of the group's values that are equal to it? */
static bool
shows_key(Expr *target, Node *key)
{
	Aggref	   *call = (Aggref *) target;

	return equal(target, key) ||
		(IsA(call, Aggref) && aggregate_rule(call) == AGGREGATE_LEAST_IMAGE && call->aggfilter == NULL &&
		 equal(linitial_node(TargetEntry, call->args)->expr, key));
}

/* The key of the output: the columns that show the keys. */
static List *
visible_key(AggregateBuild *build)
{
	List	   *key = NIL;
	ListCell   *key_cell;

	foreach(key_cell, build->keys)
	{
		ListCell   *lc;
		int			found = 0;
		int			column = 0;

		foreach(lc, build->block->query->targetList)
		{
			TargetEntry *target = lfirst_node(TargetEntry, lc);

			if (target->resjunk)
				continue;
			column++;
			if (found == 0 && shows_key(target->expr, lfirst(key_cell)))
				found = column;
		}
		if (found == 0)
			return NIL;
		key = lappend_int(key, found);
	}
	return key;
}

static Compiled *
add_output(AggregateBuild *build, List *rowsets)
{
	Query	   *query = build->block->query;
	List	   *targets = NIL;
	ListCell   *lc;
	Compiled   *compiled;

	foreach(lc, query->targetList)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (target->resjunk)
			continue;
		targets = lappend(targets,
						  makeTargetEntry((Expr *) finals_mutator((Node *) target->expr, build),
										  list_length(targets) + 1, target->resname, false));
	}
	rename_targets(targets, target_column_names(targets));
	compiled = project_state(build->compiler, build->state, "aggregate output", rowsets, targets,
							 make_ands_implicit((Expr *) finals_mutator(query->havingQual, build)));
	compiled->key = visible_key(build);
	compiled->key_is_unique = compiled->key != NIL && !expression_returns_set((Node *) targets);
	if (!compiled->key_is_unique)
		compiled->key = NIL;
	compiled->single_row = build->keys == NIL && !expression_returns_set((Node *) targets);
	return compiled;
}

Compiled *
compile_aggregate(Compiler *compiler, QueryBlock *block)
{
	AggregateBuild *build = palloc0(sizeof(AggregateBuild));
	ListCell   *lc;
	bool		changes = block->temporal != NIL;

	build->compiler = compiler;
	build->block = block;
	if (!collect_keys_and_calls(build))
		return NULL;
	foreach(lc, block->inputs)
		changes |= ((BlockInput *) lfirst(lc))->rowset >= 0;
	if (!changes)
		return compile_cannot(compiler, "grouping rows that never change has no delta rule");

	build->state = palloc0(sizeof(ProgramState));
	build->state->number = list_length(compiler->program->states) + 1;
	build->state->name = psprintf("__pgt_state_%d", build->state->number);
	build->state->nkeys = list_length(build->keys);
	build->state->is_global = build->keys == NIL;
	build->state->merges = build->algebraic;
	build->state->reads = block->states;
	aggregate_add_keys(build);
	foreach(lc, build->calls)
		aggregate_add_call(build, lfirst(lc));
	build->state->fill_sql = aggregate_fill_sql(build);
	compiler->program->states = lappend(compiler->program->states, build->state);
	return add_output(build, build->algebraic ? add_algebraic_steps(build) : add_affected_keys_steps(build));
}
