/*
 * delta/cost.c
 *     Delta or full: what a refresh of a stream table in mode AUTO would cost either way, and which way to go.
 *
 * The planner is asked.  A delta's cost is the sum over the steps whose inputs are not empty of what the planner says at their true
 * sizes, where a later step's input is as large as the planner expects the step before to make it, and constants per row for what is
 * not SQL: merging into states and applying.  The full query's cost is that of the statements that fill the states and the table, and
 * of comparing the result with what is there.  No statement is run, and none is planned twice: plans are those that the refresh itself
 * keeps, per set of non-empty inputs and order of magnitude; sums are kept by the orders of magnitude of the sources' deltas.  So
 * a tick like those before it decides by one look into a hash table.
 *
 * The planner errs, and not in the same way about deltas and about the whole query.  So each of the two sums is multiplied by a
 * factor of its own, a mean of observed / estimated over the refreshes that went this way (in logarithms, so that one outlier does not
 * count for all).  A factor that was never observed is 1.  The planner thinks worse of deltas than they are, since it knows little of rows that
 * no table holds, and a delta that is never run is never learned from: so the first one is tried unless it is expected to be COST_TRY times as dear.  With
 * deltas far slower than estimated, the full query gets its try, after which its factor is known, too.  While the full query is chosen the
 * delta's factor fades, so that one bad day (cold cache, a lock) is not for ever.
 *
 * Hysteresis: to leave the way that was chosen last, the other one must be cheaper by a margin.  A delta below COST_WEIGHED_MIN is
 * not weighed: whatever the whole query costs, there is nothing to gain that anybody would notice.
 */
#include "postgres.h"

#include <math.h>

#include "access/table.h"
#include "common/hashfn.h"
#include "cost.h"
#include "executor/spi.h"
#include "fk_prune.h"
#include "nodes/plannodes.h"
#include "run.h"
#include "miscadmin.h"
#include "run_owner.h"
#include "shared_rows.h"
#include "temporal.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/rel.h"

/*
 * An estimate: bench/cost.py measured between 0.0006 and 0.1 ms by the kind of query, on a machine with much else to do (bench/results/cost.txt).  It sets the scale of
 * what nobody has observed yet, no more: the factors correct it.
 */
#define MS_PER_COST_UNIT 0.005

#define COST_WEIGHED_MIN 2000.0 /* a delta of some 10 ms */
#define COST_MARGIN 1.2			/* to change one's mind */
#define COST_TRY 3.0			/* to leave a delta untried */

/*
 * What is not SQL, in the planner's units: estimates, on the dear side.  bench/cost.py found 0.2 for a step, 0.5 and 0.4 for a row merged or applied, and 0.1 for one
 * that is compared.
 */
#define COST_PER_STEP 5.0		/* starting the executor */
#define COST_PER_MERGED_ROW 1.0 /* a probe, an update of a state row */
#define COST_PER_APPLIED_ROW 1.0
#define COST_PER_COMPARED_ROW 0.2	/* hashed, against the row that is there */
#define RECOMPUTED_GROUPS 0.1	/* of the touched ones: their extremum went; a guess */

#define LEARNING_RATE 0.3		/* weight of the newest observation */
#define FADING_RATE 0.1
#define FACTOR_MAX 100.0		/* of one observation; and its inverse */

typedef struct DeltaEstimate
{
	uint64		key;
	double		cost;
} DeltaEstimate;

/* A rowset while costs are summed up: made, or expected. */
typedef struct ExpectedRowset
{
	double		rows;			/* 0: empty */
	bool		is_registered;	/* under its name, by us, without rows */
	EphemeralNamedRelationData enr;
} ExpectedRowset;

typedef struct Estimate
{
	LoadedTable *table;
	ExpectedRowset *rowsets;	/* by rowset number */
	MemoryContext context;		/* SPI leaves other ones current */
	double		cost;
	Rowset	  **sources;		/* by rowset number; NULL: they are imagined */
	PlanVisitor visit;			/* or NULL */
	void	   *visit_arg;
} Estimate;

void
cost_model_init(CostModel *model, double delta_factor, double full_factor, MemoryContext context)
{
	HASHCTL		control = {0};

	memset(model, 0, sizeof(CostModel));
	model->delta_factor = delta_factor;
	model->full_factor = full_factor;
	model->full_cost = -1;
	control.keysize = sizeof(uint64);
	control.entrysize = sizeof(DeltaEstimate);
	control.hcxt = context;
	model->estimates = hash_create("costs of deltas", 16, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* ---- orders of magnitude ---- */

/* Powers of ten up to a thousand rows, powers of two above, where the choice may hang on it. */
uint64
cost_magnitude(double row_count)
{
	if (row_count < 1)
		return 0;
	if (row_count < 1000)
		return 1 + (row_count >= 10) + (row_count >= 100);
	return Min(4 + (uint64) log2(row_count / 1000), 63);
}

uint64
cost_magnitudes_add(uint64 magnitudes, double row_count)
{
	return (magnitudes << 6 | magnitudes >> 58) ^ cost_magnitude(row_count);
}

/* ---- what the planner says ---- */

static void
plan_cost(SPIPlanPtr plan, double *cost, double *rows)
{
	CachedPlan *cached = SPI_plan_get_cached_plan(plan);
	PlannedStmt *statement;

	if (cached == NULL)
		elog(ERROR, "a step of a delta program has no single plan");
	statement = linitial_node(PlannedStmt, cached->stmt_list);
	*cost = statement->planTree->total_cost;
	*rows = statement->planTree->plan_rows;
	ReleaseCachedPlan(cached, CurrentResourceOwner);
}

/* Lets the parser find a rowset that nobody has made. */
static void
expect_rowset(Estimate *estimate, int number, TupleDesc tupdesc, double rows)
{
	ProgramRowset *described = list_nth(estimate->table->program->rowsets, number);
	ExpectedRowset *expected = &estimate->rowsets[number];
	MemoryContext oldcontext = MemoryContextSwitchTo(estimate->context);

	expected->rows = rows;
	expected->enr.md.name = described->name;
	expected->enr.md.reliddesc = InvalidOid;
	expected->enr.md.tupdesc = CreateTupleDescCopy(tupdesc);
	expected->enr.md.enrtype = ENR_NAMED_TUPLESTORE;
	expected->enr.md.enrtuples = ceil(rows);
	/* who looks at a plan may have it explained, for which the executor opens it */
	if (estimate->visit != NULL)
		expected->enr.reldata = tuplestore_begin_heap(false, false, work_mem);
	expected->is_registered = SPI_register_relation(&expected->enr) == SPI_OK_REL_REGISTER;
	if (!expected->is_registered)
		elog(ERROR, "could not register rowset \"%s\"", described->name);
	MemoryContextSwitchTo(oldcontext);
}

static TupleDesc
state_rowset_tupdesc(LoadedTable *table, ProgramState *state)
{
	Relation	relation = table_open_state(table, state);
	TupleDesc	tupdesc = rowset_tupdesc_for(RelationGetDescr(relation));

	table_close(relation, NoLock);
	return tupdesc;
}

/* ---- steps ---- */

static SPIPlanPtr
planned_step(Estimate *estimate, int step_no, uint64 variant, uint64 magnitudes, double *cost, double *rows)
{
	SPIPlanPtr	plan = table_prepare_step(estimate->table, step_no, variant, magnitudes);

	plan_cost(plan, cost, rows);
	if (estimate->visit != NULL)
	{
		CachedPlan *cached = SPI_plan_get_cached_plan(plan);

		estimate->visit(estimate->visit_arg, estimate->table, step_no, variant,
						linitial_node(PlannedStmt, cached->stmt_list));
		ReleaseCachedPlan(cached, CurrentResourceOwner);
	}
	return plan;
}

static void
add_query_step(Estimate *estimate, ProgramStep *step, int step_no)
{
	uint64		nonempty = step->follows_time ? STEP_TIME_PASSED : 0;
	uint64		magnitudes = 0;
	Rowset	   *places = NULL;
	SPIPlanPtr	plan;
	double		cost;
	double		rows;

	for (int i = 0; i < step->ninputs; i++)
	{
		double		input_rows = estimate->rowsets[step->inputs[i]].rows;

		if (input_rows == 0 ||
			(estimate->sources != NULL && fk_step_ignores(estimate->table, step, i, estimate->sources)))
			continue;
		nonempty |= UINT64CONST(1) << i;
		magnitudes = cost_magnitudes_add(magnitudes, input_rows);
	}
	if (nonempty == 0)
		return;
	if (estimate->sources != NULL && shared_rows_serve(step, nonempty) &&
		shared_rows_are_there(step, nonempty, estimate->sources, estimate->table->owner))
	{
		places = shared_rows_register(step, nonempty, estimate->sources, estimate->table->owner);
		MemoryContextSwitchTo(estimate->context);
		nonempty |= STEP_SHARED;
		magnitudes = cost_magnitude((double) places->row_count);
	}
	plan = planned_step(estimate, step_no, nonempty, magnitudes, &cost, &rows);
	if (places != NULL)
		shared_rows_unregister(places);
	estimate->cost += COST_PER_STEP + cost;
	expect_rowset(estimate, step->output,
				  ((CachedPlanSource *) linitial(SPI_plan_get_plan_sources(plan)))->resultDesc, rows);
}

/* Without, no group can have lost its extremum. */
static bool
some_rows_went(Estimate *estimate)
{
	for (int i = 0; estimate->sources != NULL && i < list_length(estimate->table->program->rowsets); i++)
	{
		if (estimate->sources[i] != NULL && estimate->sources[i]->has_deletes)
			return true;
	}
	return estimate->sources == NULL;
}

static void
add_merge_step(Estimate *estimate, ProgramStep *step)
{
	double		rows = estimate->rowsets[step->inputs[0]].rows;
	TupleDesc	tupdesc;

	if (rows == 0)
		return;
	estimate->cost += COST_PER_STEP + rows * COST_PER_MERGED_ROW;
	tupdesc = state_rowset_tupdesc(estimate->table, step->state);
	expect_rowset(estimate, step->output, tupdesc, 2 * rows);	/* old and new */
	if (step->recompute_output >= 0 && some_rows_went(estimate))
		expect_rowset(estimate, step->recompute_output, rowset_tupdesc_for(table_key_tupdesc(tupdesc, step->state->nkeys)),
					  Max(1, rows * RECOMPUTED_GROUPS));
}

static void
add_replace_step(Estimate *estimate, ProgramStep *step, int step_no)
{
	double		keys = estimate->rowsets[step->inputs[0]].rows;
	double		cost;
	double		rows;

	if (keys == 0)
		return;
	/* as if no key were NULL: the patterns of NULLs are known only to the run */
	(void) planned_step(estimate, step_no, 0, cost_magnitude(keys), &cost, &rows);
	estimate->cost += COST_PER_STEP + cost + 2 * rows * COST_PER_MERGED_ROW;
	expect_rowset(estimate, step->output, state_rowset_tupdesc(estimate->table, step->state), 2 * rows);
}

static void
add_steps(Estimate *estimate)
{
	DeltaProgram *program = estimate->table->program;
	ListCell   *lc;

	foreach(lc, program->steps)
	{
		ProgramStep *step = lfirst(lc);

		switch (step->kind)
		{
			case STEP_QUERY:
				add_query_step(estimate, step, foreach_current_index(lc));
				break;
			case STEP_MERGE:
				add_merge_step(estimate, step);
				break;
			case STEP_REPLACE:
				add_replace_step(estimate, step, foreach_current_index(lc));
				break;
		}
	}
	estimate->cost += estimate->rowsets[program->result].rows * COST_PER_APPLIED_ROW;
}

static void
forget_expected(Estimate *estimate)
{
	for (int i = 0; i < list_length(estimate->table->program->rowsets); i++)
	{
		if (estimate->rowsets[i].is_registered)
			(void) SPI_unregister_relation(estimate->rowsets[i].enr.md.name);
	}
	MemoryContextSwitchTo(estimate->context);
}

/* The cost of all steps, given the deltas of the sources, which are registered. */
static double
cost_of_steps(LoadedTable *table, Rowset **rowsets)
{
	int			nrowsets = list_length(table->program->rowsets);
	Estimate	estimate = {table, NULL, CurrentMemoryContext, 0, rowsets, NULL, NULL};

	estimate.rowsets = palloc0(sizeof(ExpectedRowset) * nrowsets);
	for (int i = 0; i < nrowsets; i++)
		estimate.rowsets[i].rows = rowsets[i] == NULL ? 0 : (double) rowsets[i]->row_count;
	add_steps(&estimate);
	forget_expected(&estimate);
	return estimate.cost;
}

void
cost_visit_plans(LoadedTable *table, const double *source_rows, PlanVisitor visit, void *arg)
{
	Estimate	estimate = {table, NULL, CurrentMemoryContext, 0, NULL, visit, arg};
	ListCell   *lc;

	estimate.rowsets = palloc0(sizeof(ExpectedRowset) * list_length(table->program->rowsets));
	foreach(lc, table->program->rowsets)
	{
		ProgramRowset *rowset = lfirst(lc);
		int			number = foreach_current_index(lc);
		Relation	relation;

		if (!OidIsValid(rowset->source_relid) || source_rows[number] == 0)
			continue;
		relation = table_open(rowset->source_relid, AccessShareLock);
		expect_rowset(&estimate, number, rowset_tupdesc_for(RelationGetDescr(relation)), source_rows[number]);
		table_close(relation, NoLock);
	}
	add_steps(&estimate);
	forget_expected(&estimate);
}

#define CHANGED_SHARE 0.001
#define CHANGED_ROWS_MIN 10.0

static double
changed_rows(Oid relid)
{
	Relation	relation = table_open(relid, AccessShareLock);
	double		rows = relation->rd_rel->reltuples;

	table_close(relation, NoLock);
	return Max(rows * CHANGED_SHARE, CHANGED_ROWS_MIN);
}

void
cost_visit_each_source(LoadedTable *table, PlanVisitor visit, void *arg, Oid *changed_relid)
{
	DeltaProgram *program = table->program;
	double	   *rows = palloc0(sizeof(double) * list_length(program->rowsets));
	OwnerScope	scope;
	ListCell   *lc;

	if (program->full_reason != NULL)
		return;
	if (program->follows_time && !previous_now_load(table->pgt_id))
		return;
	owner_scope_enter(&scope, table);
	foreach(lc, program->rowsets)
	{
		ProgramRowset *rowset = lfirst(lc);
		int			number = foreach_current_index(lc);

		if (!OidIsValid(rowset->source_relid))
			continue;
		rows[number] = changed_rows(rowset->source_relid);
		*changed_relid = rowset->source_relid;
		cost_visit_plans(table, rows, visit, arg);
		rows[number] = 0;
	}
	owner_scope_leave(&scope);
	previous_now_forget();
}

/* ---- the two sums ---- */

/* Which of the steps find their lookups done already. */
static uint64
lookups_key(LoadedTable *table, Rowset **rowsets)
{
	uint64		key = 0;
	ListCell   *lc;

	foreach(lc, table->program->steps)
	{
		ProgramStep *step = lfirst(lc);
		uint64		nonempty = 0;

		if (step->shared == NIL)
			continue;
		for (int i = 0; i < step->ninputs; i++)
		{
			Rowset	   *input = rowsets[step->inputs[i]];

			if (input != NULL && input->row_count > 0)
				nonempty |= UINT64CONST(1) << i;
		}
		key = key << 1 | (nonempty != 0 && shared_rows_serve(step, nonempty) &&
						  shared_rows_are_there(step, nonempty, rowsets, table->owner));
	}
	return key;
}

static uint64
estimate_key(Rowset **rowsets, int nrowsets)
{
	uint64		key = 0;

	for (int i = 0; i < nrowsets; i++)
	{
		if (rowsets[i] != NULL && rowsets[i]->row_count > 0)
			key = hash_combine64(key, hash_combine64((uint64) i << 2 | rowsets[i]->has_deletes << 1 | rowsets[i]->has_inserts,
													 cost_magnitude((double) rowsets[i]->row_count)));
	}
	return key;
}

static double
delta_cost(LoadedTable *table, Rowset **rowsets)
{
	int			nrowsets = list_length(table->program->rowsets);
	uint64		key = hash_combine64(estimate_key(rowsets, nrowsets), lookups_key(table, rowsets));
	DeltaEstimate *entry = hash_search(table->cost.estimates, &key, HASH_FIND, NULL);
	OwnerScope	scope;
	double		cost;

	if (entry != NULL)
		return entry->cost;
	owner_scope_enter(&scope, table);
	for (int i = 0; i < nrowsets; i++)
	{
		if (rowsets[i] != NULL && rowsets[i]->row_count > 0)
			rowset_register(rowsets[i]);
	}
	cost = cost_of_steps(table, rowsets);
	for (int i = 0; i < nrowsets; i++)
	{
		if (rowsets[i] != NULL && rowsets[i]->row_count > 0)
			rowset_unregister(rowsets[i]);
	}
	owner_scope_leave(&scope);
	entry = hash_search(table->cost.estimates, &key, HASH_ENTER, NULL);
	entry->cost = cost;
	return cost;
}

static double
fill_cost(const char *sql)
{
	SPIPlanPtr	plan = SPI_prepare(sql, 0, NULL);
	double		cost;
	double		rows;

	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);			/* only of saved ones does a resource owner know */
	plan_cost(plan, &cost, &rows);
	SPI_freeplan(plan);
	/* what is there is supposed to be as large */
	return COST_PER_STEP + cost + 2 * rows * COST_PER_COMPARED_ROW;
}

static double
full_cost(LoadedTable *table)
{
	OwnerScope	scope;
	double		cost;
	ListCell   *lc;

	if (table->cost.full_cost >= 0)
		return table->cost.full_cost;
	owner_scope_enter(&scope, table);
	cost = fill_cost(table_fill_sql(table));
	foreach(lc, table->program->states)
		cost += fill_cost(table_state_fill_sql(table, lfirst(lc)));
	owner_scope_leave(&scope);
	table->cost.full_cost = cost;
	return cost;
}

/* ---- choosing ---- */

static double
corrected_ms(double cost, double factor)
{
	return cost * MS_PER_COST_UNIT * (factor > 0 ? factor : 1);
}

void
cost_decide(LoadedTable *table, Rowset **source_rowsets, CostDecision *decision)
{
	CostModel  *model = &table->cost;
	MemoryContext oldcontext = CurrentMemoryContext;

	decision->choice = COST_NOT_WEIGHED;
	decision->full_cost = decision->full_ms = -1;
	decision->delta_cost = delta_cost(table, source_rowsets);
	decision->delta_ms = corrected_ms(decision->delta_cost, model->delta_factor);
	if (decision->delta_cost >= COST_WEIGHED_MIN)
	{
		double		margin = model->delta_factor <= 0 ? COST_TRY : model->full_was_last ? 1 / COST_MARGIN : COST_MARGIN;

		decision->full_cost = full_cost(table);
		decision->full_ms = corrected_ms(decision->full_cost, model->full_factor);
		model->full_was_last = decision->delta_ms > decision->full_ms * margin;
		decision->choice = model->full_was_last ? COST_FULL : COST_DELTA;
	}
	MemoryContextSwitchTo(oldcontext);
}

/* ---- learning ---- */

/* A mean of logarithms, so that ten times and a tenth make one. */
static double
mixed(double old_factor, double new_factor, double rate)
{
	return exp((1 - rate) * log(old_factor) + rate * log(new_factor));
}

static void
observe(double *factor, double cost, double duration_ms)
{
	double		observed = duration_ms / (cost * MS_PER_COST_UNIT);

	observed = Min(Max(observed, 1 / FACTOR_MAX), FACTOR_MAX);
	*factor = *factor > 0 ? mixed(*factor, observed, LEARNING_RATE) : observed;
}

void
cost_learn(LoadedTable *table, const CostDecision *decision, double duration_ms)
{
	CostModel  *model = &table->cost;

	switch (decision->choice)
	{
		case COST_NOT_WEIGHED:
			break;
		case COST_DELTA:
			observe(&model->delta_factor, decision->delta_cost, duration_ms);
			break;
		case COST_FULL:
			observe(&model->full_factor, decision->full_cost, duration_ms);
			if (model->delta_factor > 0)
				model->delta_factor = mixed(model->delta_factor, model->full_factor, FADING_RATE);
			break;
	}
}

/* ---- telling ---- */

char *
cost_reason(const CostDecision *decision)
{
	return psprintf("cheaper than by delta: %.0f ms against %.0f ms expected", decision->full_ms, decision->delta_ms);
}

const char *
cost_choice_name(CostChoice choice)
{
	switch (choice)
	{
		case COST_NOT_WEIGHED:
			return NULL;
		case COST_DELTA:
			return "DELTA";
		case COST_FULL:
			return "FULL";
	}
	return NULL;
}
