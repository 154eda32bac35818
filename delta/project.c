/*
 * delta/project.c
 *     Delta rule for projection and filter: both are linear.
 *
 * d(project(filter(X))) = project(filter(dX)), weights unchanged.  Over a join the terms of join.c carry the projection and the
 * filter themselves.  Set-returning functions in the target list are linear as well: each row brings its own rows.
 */
#include "postgres.h"

#include "block.h"
#include "fk_prune.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "query.h"
#include "rowset.h"
#include "catalog/pg_type_d.h"

/* ---- over a block ---- */

typedef struct ProjectionBuild
{
	QueryBlock *block;
	List	   *targets;
} ProjectionBuild;

static char *
print_projection(ProgramStep *step, uint64 nonempty)
{
	ProjectionBuild *build = step->build;

	return join_delta_sql(build->block, join_changed_inputs(build->block, step, nonempty), build->targets);
}

/* The visible targets, with distinct names and without marks of sorting. */
static List *
visible_targets(List *targets)
{
	List	   *visible = NIL;
	ListCell   *lc;

	foreach(lc, targets)
	{
		TargetEntry *target = lfirst_node(TargetEntry, lc);

		if (target->resjunk)
			continue;
		target = copyObject(target);
		target->resno = list_length(visible) + 1;
		target->ressortgroupref = 0;
		visible = lappend(visible, target);
	}
	rename_targets(visible, target_column_names(visible));
	return visible;
}

Compiled *
compile_projection(Compiler *compiler, QueryBlock *block)
{
	Compiled   *compiled = palloc0(sizeof(Compiled));
	ProjectionBuild *build = palloc0(sizeof(ProjectionBuild));
	List	   *rtable = NIL;
	ListCell   *lc;
	bool		changes = block->temporal != NIL;

	build->block = block;
	build->targets = visible_targets(block->query->targetList);
	foreach(lc, block->inputs)
	{
		BlockInput *input = lfirst(lc);

		rtable = lappend(rtable, copyObject(input->rte));
		changes |= input->rowset >= 0;
	}
	compiled->new_query = simple_query(rtable, copyObject(block->quals), copyObject(build->targets));
	compiled->states = block->states;
	compiled->key = join_key(block, build->targets);
	compiled->rowset = -1;
	if (changes)
	{
		ProgramStep *step = program_add_step(compiler, STEP_QUERY,
											 list_length(block->inputs) > 1 ? "join" : "filter and projection",
											 list_length(block->inputs) > 1 ? "inclusion and exclusion of deltas" : "linear");

		join_add_inputs(block, step);
		fk_prune_step(block, step);
		step->print = print_projection;
		step->build = build;
		step->states_read = block->states;
		step->output = compiled->rowset =
			program_add_rowset(compiler, program_new_rowset_name(compiler, "rows"), InvalidOid);
	}
	return compiled;
}

/* ---- over a state ---- */

typedef struct StateProjectionBuild
{
	ProgramState *state;
	DeltaProgram *program;
	List	   *targets;
	List	   *quals;
} StateProjectionBuild;

RangeTblEntry *
state_rte(ProgramState *state, const char *name, bool with_weight)
{
	List	   *names = NIL;
	List	   *types = NIL;
	List	   *typmods = NIL;
	List	   *collations = NIL;
	ListCell   *lc;

	foreach(lc, state->columns)
	{
		StateColumn *column = lfirst(lc);

		names = lappend(names, makeString(pstrdup(column->name)));
		types = lappend_oid(types, column->type);
		typmods = lappend_int(typmods, column->typmod);
		collations = lappend_oid(collations, column->collation);
	}
	if (with_weight)
	{
		names = lappend(names, makeString(ROWSET_WEIGHT_COLUMN));
		types = lappend_oid(types, INT4OID);
		typmods = lappend_int(typmods, -1);
		collations = lappend_oid(collations, InvalidOid);
	}
	return named_rte(name, name, names, types, typmods, collations);
}

static char *
print_state_projection(ProgramStep *step, uint64 nonempty)
{
	StateProjectionBuild *build = step->build;
	StringInfoData sql;

	initStringInfo(&sql);
	for (int i = 0; i < step->ninputs; i++)
	{
		ProgramRowset *rowset = list_nth(build->program->rowsets, step->inputs[i]);
		List	   *targets;
		Var		   *weight;

		if ((nonempty & (UINT64CONST(1) << i)) == 0)
			continue;
		weight = makeVar(1, list_length(build->state->columns) + 1, INT4OID, -1, InvalidOid, 0);
		targets = lappend(copyObject(build->targets),
						  makeTargetEntry((Expr *) weight, list_length(build->targets) + 1,
										  pstrdup(ROWSET_WEIGHT_COLUMN), false));
		if (sql.len > 0)
			appendStringInfoString(&sql, "\nUNION ALL\n");
		appendStringInfoString(&sql,
							   query_print(simple_query(list_make1(state_rte(build->state, rowset->name, true)),
														copyObject(build->quals), targets)));
	}
	return sql.data;
}

Compiled *
project_state(Compiler *compiler, ProgramState *state, const char *operator_name,
			  List *rowsets, List *targets, List *quals)
{
	Compiled   *compiled = palloc0(sizeof(Compiled));
	StateProjectionBuild *build = palloc0(sizeof(StateProjectionBuild));
	ProgramStep *step = program_add_step(compiler, STEP_QUERY, operator_name, "linear");
	ListCell   *lc;

	build->state = state;
	build->program = compiler->program;
	build->targets = targets;
	build->quals = quals;
	foreach(lc, rowsets)
		step_add_input(step, lfirst_int(lc));
	step->has_fine_locks = true;
	step->print = print_state_projection;
	step->build = build;
	step->output = compiled->rowset =
		program_add_rowset(compiler, program_new_rowset_name(compiler, "rows"), InvalidOid);

	compiled->new_query = simple_query(list_make1(state_rte(state, state->name, false)),
									   copyObject(quals), copyObject(targets));
	compiled->states = list_make1(state);
	return compiled;
}
