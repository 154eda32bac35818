/*
 * delta/run.c
 *     Runs a delta program: step after step over named rowsets, then the apply step.
 *
 * Every statement reads the snapshot that the caller pushed (the tick's S, plus what this transaction has written); a merge or
 * replace moves its command id forward, so that statements above a state see the state's new rows.  Statements are prepared once
 * per program, set of non-empty inputs, and order of magnitude of each input: the planner knows the exact sizes of the
 * rowsets, so ten rows get index probes and a million a hash join, and neither pays for parsing and planning twice.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "direct_join.h"
#include "direct_step.h"
#include "executor/spi.h"
#include "executor/tstoreReceiver.h"
#include "fk_prune.h"
#include "immediate_locks.h"
#include "isolation.h"
#include "jit/jit.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "portability/instr_time.h"
#include "run.h"
#include "run_owner.h"
#include "run_steps.h"
#include "source_rights.h"
#include "shared_rows.h"
#include "fill_progress.h"
#include "utils/guc.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#define ROW_BY_ROW_MAX 16		/* rows of a step's inputs, and of its output as the planner expects */

/* ---- prepared statements ---- */

void
advance_active_snapshot(void)
{
	CommandCounterIncrement();
	UpdateActiveSnapshotCommandId();
}

Rowset *
run_into_rowset(SPIPlanPtr plan, const char *name, Rowset *rowset, bool has_deletes)
{
	SPIExecuteOptions options = {0};
	int			result;

	if (rowset == NULL)
	{
		CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(plan));

		rowset = rowset_create(name, source->resultDesc);
	}
	options.read_only = true;	/* use the active snapshot as it is */
	options.dest = CreateTuplestoreDestReceiver();
	SetTuplestoreDestReceiverParams(options.dest, rowset->store, CurrentMemoryContext, false, NULL, NULL);
	options.dest = fill_progress_receiver(options.dest, plan);
	result = SPI_execute_plan_extended(plan, &options);
	if (result != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute_plan_extended failed: %s", SPI_result_code_string(result));
	rowset->row_count += SPI_processed;
	rowset->has_deletes |= has_deletes;
	options.dest->rDestroy(options.dest);
	return rowset;
}

/* The same statement at the snapshot of a transaction that has only one, if that is another one. */
static void
compare_with_own_snapshot(SPIPlanPtr plan, Rowset *rowset, bool has_deletes)
{
	Rowset	   *then;

	if (isolation_older_snapshot() == NULL)
		return;
	isolation_push_snapshot();
	then = run_into_rowset(plan, rowset->name, NULL, has_deletes);
	PopActiveSnapshot();
	isolation_require_same(rowset, then);
	rowset_free(then);
}

Rowset *
rowset_from_sql(const char *sql, const char *name)
{
	SPIPlanPtr	plan = SPI_prepare(sql, 0, NULL);
	Rowset	   *rowset;

	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	rowset = run_into_rowset(plan, name, NULL, true);
	compare_with_own_snapshot(plan, rowset, true);
	SPI_freeplan(plan);
	return rowset;
}

char *
table_step_sql(LoadedTable *table, int step_no, uint64 variant)
{
	ProgramStep *step = list_nth(table->program->steps, step_no);

	/* the printer's scratch is thrown away with the caller's context */
	char	   *body = (variant & STEP_ROW_BY_ROW) != 0 ? step->print_rows(step, variant & ~STEP_ROW_BY_ROW)
		: step->kind == STEP_QUERY ? step->print(step, variant)
		: step->print_recompute(step, ((ProgramRowset *) list_nth(table->program->rowsets, step->inputs[0]))->name,
								variant);

	return psprintf("%s%s", program_state_binding(step->states_read, table->pgt_id), body);
}

static PlanEntry *
prepare_step(LoadedTable *table, int step_no, uint64 variant, uint64 magnitudes)
{
	PlanKey		key = {step_no, 0, variant, magnitudes};
	bool		found;
	PlanEntry  *entry = hash_search(table->plans, &key, HASH_FIND, NULL);
	SPIPlanPtr	plan;

	if (entry != NULL)
		return entry;
	plan = SPI_prepare(table_step_sql(table, step_no, variant), 0, NULL);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	entry = hash_search(table->plans, &key, HASH_ENTER, &found);
	entry->plan = plan;
	entry->is_indirect = entry->is_planned = false;
	entry->join = NULL;
	return entry;
}

SPIPlanPtr
table_prepare_step(LoadedTable *table, int step_no, uint64 variant, uint64 magnitudes)
{
	return prepare_step(table, step_no, variant, magnitudes)->plan;
}

/* ---- steps ---- */

bool
rowset_is_empty(Rowset *rowset)
{
	return rowset == NULL || rowset->row_count == 0;
}

void
run_keep_result(Run *run, int number, Rowset *rowset)
{
	run->rowsets[number] = rowset;
	if (!rowset_is_empty(rowset))
		rowset_register(rowset);
}

/* The statement's rows, if it only projects one rowset or looks its rows up in one table; else NULL. */
static Rowset *
run_directly(Run *run, ProgramStep *step, PlanEntry *entry, uint64 nonempty, const char *name)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(entry->plan));
	Rowset	   *input;
	Rowset	   *rowset;

	nonempty &= ~STEP_ROW_BY_ROW;
	if (entry->is_indirect || (nonempty & (nonempty - 1)) != 0 || nonempty >= STEP_SHARED)
		return NULL;
	input = run->rowsets[step->inputs[pg_rightmost_one_pos64(nonempty)]];
	rowset = rowset_create(name, source->resultDesc);
	if (direct_join_run(entry->plan, &entry->join, run->table->context, input, rowset) ||
		direct_step_run(entry->plan, input, rowset))
		return rowset;
	rowset_free(rowset);
	entry->is_indirect = isolation_older_snapshot() == NULL;
	return NULL;
}

/* Does the planner expect many rows? */
static bool
is_wide(PlanEntry *entry)
{
	CachedPlan *plan;

	if (entry->is_planned)
		return entry->is_wide;
	plan = SPI_plan_get_cached_plan(entry->plan);
	if (plan == NULL)
		return true;
	entry->is_wide = linitial_node(PlannedStmt, plan->stmt_list)->planTree->plan_rows > ROW_BY_ROW_MAX;
	entry->is_planned = true;
	ReleaseCachedPlan(plan, CurrentResourceOwner);
	return entry->is_wide;
}

/* Few rows of a writer are not grouped, if that is possible: starting to do so costs more than all the rest of a run. */
static PlanEntry *
prepare_query_step(Run *run, ProgramStep *step, int step_no, uint64 *variant, uint64 magnitudes, int64 input_rows)
{
	if (run->locks != NULL && step->print_rows != NULL && input_rows <= ROW_BY_ROW_MAX)
	{
		PlanEntry  *entry = prepare_step(run->table, step_no, *variant | STEP_ROW_BY_ROW, magnitudes);

		if (!is_wide(entry))
		{
			*variant |= STEP_ROW_BY_ROW;
			return entry;
		}
	}
	return prepare_step(run->table, step_no, *variant, magnitudes);
}

static void
run_query_step(Run *run, ProgramStep *step, int step_no)
{
	uint64		nonempty = step->follows_time ? STEP_TIME_PASSED : 0;
	uint64		magnitudes = 0;
	int64		input_rows = 0;
	bool		has_deletes = false;
	Rowset	   *places = NULL;
	const char *name = ((ProgramRowset *) list_nth(run->table->program->rowsets, step->output))->name;
	PlanEntry  *entry;
	Rowset	   *rowset;

	for (int i = 0; i < step->ninputs; i++)
	{
		Rowset	   *input = run->rowsets[step->inputs[i]];

		if (rowset_is_empty(input))
			continue;
		/* in the middle of a transaction a foreign key need not hold */
		if (run->locks == NULL && fk_step_ignores(run->table, step, i, run->rowsets))
			continue;
		nonempty |= UINT64CONST(1) << i;
		magnitudes = cost_magnitudes_add(magnitudes, (double) input->row_count);
		input_rows += input->row_count;
		has_deletes |= input->has_deletes;
	}
	if (nonempty == 0)
		return;
	/* with several changed inputs some terms are subtracted; and rows leave as time passes */
	has_deletes |= step->subtracts || step->follows_time || (nonempty & (nonempty - 1)) != 0;
	if (run->locks == NULL && shared_rows_serve(step, nonempty))
	{
		places = shared_rows_register(step, nonempty, run->rowsets, run->table->owner);
		nonempty |= STEP_SHARED;
		magnitudes = cost_magnitude((double) places->row_count);
	}
	entry = prepare_query_step(run, step, step_no, &nonempty, magnitudes, input_rows);
	rowset = run_directly(run, step, entry, nonempty, name);
	if (rowset == NULL)
	{
		rowset = run_into_rowset(entry->plan, name, NULL, has_deletes);
		compare_with_own_snapshot(entry->plan, rowset, has_deletes);
	}
	if (places != NULL)
		shared_rows_unregister(places);
	rowset->is_row_by_row = (nonempty & STEP_ROW_BY_ROW) != 0;
	run_keep_result(run, step->output, rowset);
}

static int64
rows_of(Run *run, int number)
{
	return rowset_is_empty(run->rowsets[number]) ? 0 : run->rowsets[number]->row_count;
}

static void
note_step(Run *run, ProgramStep *step, int step_no, instr_time started)
{
	StepRun    *noted = &run->table->step_runs[step_no];
	instr_time	ended;

	INSTR_TIME_SET_CURRENT(ended);
	INSTR_TIME_SUBTRACT(ended, started);
	noted->duration_ms = INSTR_TIME_GET_MILLISEC(ended);
	noted->rows_in = 0;
	for (int i = 0; i < step->ninputs; i++)
		noted->rows_in += rows_of(run, step->inputs[i]);
	noted->rows_out = rows_of(run, step->output);
	noted->ran = noted->rows_in > 0 || noted->rows_out > 0;
}

static void
run_step(Run *run, ProgramStep *step, int step_no)
{
	if (run->locks != NULL)
		run_locks_before_step(run->locks, step, run->rowsets);
	switch (step->kind)
	{
		case STEP_QUERY:
			run_query_step(run, step, step_no);
			break;
		case STEP_MERGE:
			run_merge_step(run, step);
			break;
		case STEP_REPLACE:
			run_replace_step(run, step, step_no);
			break;
	}
}

static void
run_steps(Run *run)
{
	ListCell   *lc;

	foreach(lc, run->table->program->steps)
	{
		instr_time	started;

		CHECK_FOR_INTERRUPTS();
		INSTR_TIME_SET_CURRENT(started);
		run_step(run, lfirst(lc), foreach_current_index(lc));
		note_step(run, lfirst(lc), foreach_current_index(lc), started);
	}
}

/* ---- the refresh ---- */

RefreshOutcome
table_apply_result(LoadedTable *table, Rowset *delta, bool hidden, const char *action)
{
	RefreshOutcome outcome = {0};
	Relation	relation = table_open(table->relid, RowExclusiveLock);

	outcome.action = action;
	outcome.counts = apply_delta(relation, &table->locator, delta, hidden,
								 table->consumer_ids != NIL || table->retains_history ? &outcome.net : NULL);
	table_close(relation, NoLock);
	advance_active_snapshot();
	return outcome;
}

RefreshOutcome
table_refresh_delta(LoadedTable *table, Rowset **source_rowsets, bool hidden, struct RunLocks *locks)
{
	DeltaProgram *program = table->program;
	int			nrowsets = list_length(program->rowsets);
	Run			run = {table, palloc0(sizeof(Rowset *) * nrowsets), locks};
	RefreshOutcome outcome = {0};
	OwnerScope	scope;
	Rowset	   *result;

	owner_scope_enter(&scope, table);
	source_rights_check(table->rights_levels);
	/* a delta's statements are short, whatever the planner thinks of recursion; compiling them takes longer than running them */
	if (jit_enabled)
		(void) set_config_option("jit", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	outcome.action = "NO_DATA";
	for (int i = 0; i < nrowsets; i++)
	{
		if (source_rowsets[i] == NULL)
			continue;
		run_keep_result(&run, i, source_rowsets[i]);
		outcome.delta_rows += source_rowsets[i]->row_count;
	}
	run_steps(&run);
	result = run.rowsets[program->result];
	if (!rowset_is_empty(result))
	{
		int64		delta_rows = outcome.delta_rows;

		if (locks != NULL)
			run_locks_before_apply(locks, result);
		outcome = table_apply_result(table, result, hidden, "DIFFERENTIAL");
		outcome.delta_rows = delta_rows;
	}
	for (int i = 0; i < nrowsets; i++)
	{
		if (rowset_is_empty(run.rowsets[i]))
			continue;
		rowset_unregister(run.rowsets[i]);
		if (source_rowsets[i] == NULL)
			rowset_free(run.rowsets[i]);
	}
	owner_scope_leave(&scope);
	return outcome;
}
