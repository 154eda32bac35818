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
#include "access/tableam.h"
#include "access/xact.h"
#include "block.h"
#include "catalog/namespace.h"
#include "catalog/pg_type_d.h"
#include "consolidate.h"
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
#include "nodes/makefuncs.h"
#include "query.h"
#include "run.h"
#include "run_owner.h"
#include "source_rights.h"
#include "shared_rows.h"
#include "fill_progress.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* ---- prepared statements ---- */

void
advance_active_snapshot(void)
{
	CommandCounterIncrement();
	UpdateActiveSnapshotCommandId();
}

static Rowset *
execute_into_rowset(SPIPlanPtr plan, const char *name, Rowset *rowset, bool has_deletes)
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
	then = execute_into_rowset(plan, rowset->name, NULL, has_deletes);
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
	rowset = execute_into_rowset(plan, name, NULL, true);
	compare_with_own_snapshot(plan, rowset, true);
	SPI_freeplan(plan);
	return rowset;
}

char *
table_step_sql(LoadedTable *table, int step_no, uint64 variant)
{
	ProgramStep *step = list_nth(table->program->steps, step_no);

	/* the printer's scratch is thrown away with the caller's context */
	char	   *body = step->kind == STEP_QUERY ? step->print(step, variant)
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
	entry->is_indirect = false;
	return entry;
}

SPIPlanPtr
table_prepare_step(LoadedTable *table, int step_no, uint64 variant, uint64 magnitudes)
{
	return prepare_step(table, step_no, variant, magnitudes)->plan;
}

/* ---- steps ---- */

typedef struct Run
{
	LoadedTable *table;
	Rowset	  **rowsets;		/* by rowset number; NULL: empty */
	struct RunLocks *locks;		/* IMMEDIATE; NULL: in a tick */
} Run;

static bool
rowset_is_empty(Rowset *rowset)
{
	return rowset == NULL || rowset->row_count == 0;
}

static void
keep_result(Run *run, int number, Rowset *rowset)
{
	run->rowsets[number] = rowset;
	if (!rowset_is_empty(rowset))
		rowset_register(rowset);
}

/* The statement's rows, if it only projects one rowset; else NULL. */
static Rowset *
run_directly(Run *run, ProgramStep *step, PlanEntry *entry, uint64 nonempty, const char *name)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(entry->plan));
	Rowset	   *rowset;

	if (entry->is_indirect || (nonempty & (nonempty - 1)) != 0 || nonempty >= STEP_SHARED)
		return NULL;
	rowset = rowset_create(name, source->resultDesc);
	if (direct_step_run(entry->plan, run->rowsets[step->inputs[pg_rightmost_one_pos64(nonempty)]], rowset))
		return rowset;
	rowset_free(rowset);
	entry->is_indirect = true;
	return NULL;
}

static void
run_query_step(Run *run, ProgramStep *step, int step_no)
{
	uint64		nonempty = step->follows_time ? STEP_TIME_PASSED : 0;
	uint64		magnitudes = 0;
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
	entry = prepare_step(run->table, step_no, nonempty, magnitudes);
	rowset = run_directly(run, step, entry, nonempty, name);
	if (rowset == NULL)
	{
		rowset = execute_into_rowset(entry->plan, name, NULL, has_deletes);
		compare_with_own_snapshot(entry->plan, rowset, has_deletes);
	}
	if (places != NULL)
		shared_rows_unregister(places);
	keep_result(run, step->output, rowset);
}

static int
state_index(LoadedTable *table, ProgramState *state)
{
	ListCell   *lc;

	foreach(lc, table->program->states)
	{
		if (lfirst(lc) == state)
			return foreach_current_index(lc);
	}
	elog(ERROR, "state \"%s\" is not in its program", state->name);
	return -1;
}

static RowLocator
state_locator(LoadedTable *table, ProgramState *state)
{
	RowLocator	locator = {InvalidOid, false, state->nkeys, NULL};

	locator.index_oid = list_nth_oid(table->state_indexes, state_index(table, state));
	locator.by_row_hash = state->is_bag && state->nkeys == 0;
	locator.key_attnos = palloc(sizeof(AttrNumber) * Max(state->nkeys, 1));
	for (int i = 0; i < state->nkeys; i++)
		locator.key_attnos[i] = i + 1;
	return locator;
}

Relation
table_open_state(LoadedTable *table, ProgramState *state)
{
	return table_open(list_nth_oid(table->state_relids, state_index(table, state)),
					  RowExclusiveLock);
}

static AttrNumber
rowset_column(Rowset *rowset, const char *name)
{
	for (int i = 0; i < rowset->tupdesc->natts; i++)
	{
		if (strcmp(NameStr(TupleDescAttr(rowset->tupdesc, i)->attname), name) == 0)
			return i + 1;
	}
	elog(ERROR, "rowset \"%s\" has no column \"%s\"", rowset->name, name);
	return InvalidAttrNumber;
}

/* A polymorphic comparison learns its arguments' type from the expression that it is called in. */
static void
tell_argument_types(FmgrInfo *function, StateColumn *column)
{
	Const	   *value = makeNullConst(column->type, column->typmod, column->collation);
	FuncExpr   *call = makeFuncExpr(function->fn_oid, INT4OID, list_make2(value, value), InvalidOid, column->collation,
									COERCE_EXPLICIT_CALL);

	fmgr_info_set_expr((Node *) call, function);
}

static MergeTarget
merge_target(LoadedTable *table, ProgramState *state, Relation relation, Rowset *delta)
{
	MergeTarget target = {0};
	ListCell   *lc;
	int			attno = 0;

	target.relation = relation;
	target.locator = state_locator(table, state);
	target.rows_attno = state->nkeys + 1;
	target.columns = palloc0(sizeof(MergeColumn) * list_length(state->columns));
	target.keep_empty = state->is_global;
	target.stream_table_name = table->qualified_name;
	foreach(lc, state->columns)
	{
		StateColumn *column = lfirst(lc);
		MergeColumn *merge;

		if (++attno <= target.rows_attno)
			continue;
		merge = &target.columns[target.ncolumns++];
		merge->kind = !column->is_minmax ? MERGE_FUNCTION : column->is_max ? MERGE_MAX : MERGE_MIN;
		merge->state_attno = attno;
		merge->delta_attno = rowset_column(delta, column->delta_name);
		if (column->is_minmax)
			merge->delta_gone_attno = rowset_column(delta, column->delta_gone_name);
		fmgr_info(column->is_minmax ? column->compare_function : column->merge_function, &merge->function);
		if (column->is_minmax)
			tell_argument_types(&merge->function, column);
		merge->collation = column->collation;
	}
	return target;
}

static Rowset *
new_state_rowset(Run *run, int number, TupleDesc columns)
{
	ProgramRowset *rowset = list_nth(run->table->program->rowsets, number);

	return rowset_create(rowset->name, rowset_tupdesc_for(columns));
}

TupleDesc
table_key_tupdesc(TupleDesc state_columns, int nkeys)
{
	TupleDesc	keys = CreateTemplateTupleDesc(nkeys);

	for (int i = 1; i <= nkeys; i++)
		TupleDescCopyEntry(keys, i, state_columns, i);
	return keys;
}

static void
run_merge_step(Run *run, ProgramStep *step)
{
	Rowset	   *delta = run->rowsets[step->inputs[0]];
	Relation	relation;
	MergeTarget target;
	Rowset	   *out;
	Rowset	   *recompute = NULL;

	if (rowset_is_empty(delta))
		return;
	relation = table_open_state(run->table, step->state);
	target = merge_target(run->table, step->state, relation, delta);
	out = new_state_rowset(run, step->output, RelationGetDescr(relation));
	if (step->recompute_output >= 0)
		recompute = new_state_rowset(run, step->recompute_output,
									 table_key_tupdesc(RelationGetDescr(relation), step->state->nkeys));
	merge_group_delta(&target, delta, out, recompute);
	table_close(relation, NoLock);
	advance_active_snapshot();
	keep_result(run, step->output, out);
	if (recompute != NULL)
		keep_result(run, step->recompute_output, recompute);
}

/* Which patterns of NULLs occur in the keys; returns how many. */
static int
null_patterns(Rowset *keys, int nkeys, uint64 *patterns, int max)
{
	TupleTableSlot *slot = rowset_make_slot(keys);
	int			count = 0;

	rowset_rewind(keys);
	while (rowset_next(keys, slot))
	{
		uint64		pattern = 0;
		int			i;

		slot_getallattrs(slot);
		for (i = 0; i < nkeys; i++)
			pattern |= (uint64) slot->tts_isnull[i] << i;
		for (i = 0; i < count && patterns[i] != pattern; i++)
			;
		if (i < count)
			continue;
		if (count == max)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("more than %d patterns of NULLs among the changed group keys", max)));
		patterns[count++] = pattern;
	}
	ExecDropSingleTupleTableSlot(slot);
	return count;
}

#define NULL_PATTERNS_MAX 1024

static void subtract_table(Rowset *rowset, Relation relation);

/* Without keys all rows are replaced; what differs is written, and is the step's output. */
static void
replace_all_rows(Run *run, ProgramStep *step, Rowset *rows)
{
	Relation	relation = table_open_state(run->table, step->state);
	RowLocator	locator = state_locator(run->table, step->state);
	ProgramRowset *output = list_nth(run->table->program->rowsets, step->output);
	Rowset	   *difference;

	subtract_table(rows, relation);
	difference = consolidate(rows, output->name);
	difference->has_deletes = true;
	(void) apply_delta(relation, &locator, difference, true, NULL);
	table_close(relation, NoLock);
	advance_active_snapshot();
	keep_result(run, step->output, difference);
}

static void
run_replace_step(Run *run, ProgramStep *step, int step_no)
{
	Rowset	   *keys = run->rowsets[step->inputs[0]];
	LoadedTable *table = run->table;
	Relation	relation;
	RowLocator	locator;
	uint64	   *patterns;
	int			npatterns;
	uint64		magnitude;
	Rowset	   *rows = NULL;
	Rowset	   *out;

	if (rowset_is_empty(keys))
		return;
	magnitude = cost_magnitude((double) keys->row_count);
	patterns = palloc(sizeof(uint64) * NULL_PATTERNS_MAX);
	npatterns = null_patterns(keys, step->state->nkeys, patterns, NULL_PATTERNS_MAX);
	for (int i = 0; i < npatterns; i++)
		rows = execute_into_rowset(table_prepare_step(table, step_no, patterns[i], magnitude), "__pgt_recomputed", rows, false);
	if (isolation_older_snapshot() != NULL)
	{
		Rowset	   *then = NULL;

		isolation_push_snapshot();
		for (int i = 0; i < npatterns; i++)
			then = execute_into_rowset(table_prepare_step(table, step_no, patterns[i], magnitude), "__pgt_recomputed", then, false);
		PopActiveSnapshot();
		isolation_require_same(rows, then);
		rowset_free(then);
	}
	if (step->state->is_bag && step->state->nkeys == 0)
	{
		replace_all_rows(run, step, rows);
		rowset_free(rows);
		return;
	}
	relation = table_open_state(table, step->state);
	locator = state_locator(table, step->state);
	out = new_state_rowset(run, step->output, RelationGetDescr(relation));
	(void) replace_by_key(relation, &locator, keys, rows, true, out, table->qualified_name);
	table_close(relation, NoLock);
	rowset_free(rows);
	advance_active_snapshot();
	keep_result(run, step->output, out);
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

/* ---- refreshes ---- */

static RefreshOutcome
apply_result(LoadedTable *table, Rowset *delta, bool hidden, const char *action)
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
		keep_result(&run, i, source_rowsets[i]);
		outcome.delta_rows += source_rowsets[i]->row_count;
	}
	run_steps(&run);
	result = run.rowsets[program->result];
	if (!rowset_is_empty(result))
	{
		int64		delta_rows = outcome.delta_rows;

		if (locks != NULL)
			run_locks_before_apply(locks, result);
		outcome = apply_result(table, result, hidden, "DIFFERENTIAL");
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

/* Adds the rows that a table has now, with weight -1. */
static void
subtract_table(Rowset *rowset, Relation relation)
{
	TupleTableSlot *slot = table_slot_create(relation, NULL);
	TableScanDesc scan = table_beginscan(relation, GetActiveSnapshot(), 0, NULL);
	TupleDesc	tupdesc = RelationGetDescr(relation);
	Datum	   *values = palloc(sizeof(Datum) * tupdesc->natts);
	bool	   *nulls = palloc(sizeof(bool) * tupdesc->natts);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		int			live = 0;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		for (int i = 0; i < tupdesc->natts; i++)
		{
			if (TupleDescAttr(tupdesc, i)->attisdropped)
				continue;
			values[live] = slot->tts_values[i];
			nulls[live++] = slot->tts_isnull[i];
		}
		rowset_put_values(rowset, values, nulls, -1);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
}

/* Does a transaction that has only one snapshot see the table's last rows? */
static void
compare_table_with_own_snapshot(Relation relation, TupleDesc tupdesc)
{
	Rowset	   *now;
	Rowset	   *then;

	if (isolation_older_snapshot() == NULL)
		return;
	now = rowset_create("now", tupdesc);
	then = rowset_create("then", tupdesc);
	subtract_table(now, relation);
	isolation_push_snapshot();
	subtract_table(then, relation);
	PopActiveSnapshot();
	isolation_require_same(now, then);
	rowset_free(now);
	rowset_free(then);
}

static char *
weighted_select(LoadedTable *table, const char *sql, List *states)
{
	return psprintf("%sSELECT q.*, 1 AS " ROWSET_WEIGHT_COLUMN " FROM (%s) q",
					program_state_binding(states, table->pgt_id), sql);
}

char *
table_state_fill_sql(LoadedTable *table, ProgramState *state)
{
	return weighted_select(table, state->fill_sql, state->reads);
}

char *
table_fill_sql(LoadedTable *table)
{
	const char *sql = table->program->full_reason == NULL ? table->program->new_sql : table->program->run_query;

	return weighted_select(table, sql, table->program->new_sql_states);
}

static void
refill_state(LoadedTable *table, ProgramState *state)
{
	Relation	relation = table_open_state(table, state);
	RowLocator	locator = state_locator(table, state);
	Rowset	   *difference = rowset_from_sql(table_state_fill_sql(table, state), "__pgt_refill");

	subtract_table(difference, relation);
	(void) apply_delta(relation, &locator, difference, true, NULL);
	table_close(relation, NoLock);
	rowset_free(difference);
	advance_active_snapshot();
}

RefreshOutcome
table_refresh_full(LoadedTable *table, bool hidden)
{
	OwnerScope	scope;
	Relation	relation;
	Rowset	   *difference;
	RefreshOutcome outcome;
	ListCell   *lc;

	owner_scope_enter(&scope, table);
	foreach(lc, table->program->states)
		refill_state(table, lfirst(lc));
	difference = rowset_from_sql(table_fill_sql(table), "__pgt_refill");
	relation = table_open(table->relid, RowExclusiveLock);
	compare_table_with_own_snapshot(relation, difference->tupdesc);
	subtract_table(difference, relation);
	table_close(relation, NoLock);
	outcome = apply_result(table, difference, hidden, "FULL");
	rowset_free(difference);
	owner_scope_leave(&scope);
	return outcome;
}

int64
table_first_fill(LoadedTable *table)
{
	OwnerScope	scope;
	Relation	relation;
	Rowset	   *rows;
	int64		count;
	ListCell   *lc;

	owner_scope_enter(&scope, table);
	fill_progress_begin(table->relid);
	fill_progress_phase(FILL_STATES, 0);
	foreach(lc, table->program->states)
		refill_state(table, lfirst(lc));
	fill_progress_phase(FILL_QUERY, 0);
	rows = rowset_from_sql(table_fill_sql(table), "__pgt_fill");
	rows->has_deletes = false;
	fill_progress_phase(FILL_WRITE, rows->row_count);
	relation = table_open(table->relid, RowExclusiveLock);
	count = apply_fill(relation, rows, true);
	table_close(relation, NoLock);
	rowset_free(rows);
	advance_active_snapshot();
	fill_progress_end();
	owner_scope_leave(&scope);
	return count;
}

Rowset *
table_compare(LoadedTable *table, int64 *row_count)
{
	OwnerScope	scope;
	char	   *expanded;
	Rowset	   *difference;
	Relation	relation;
	Rowset	   *net;

	owner_scope_enter(&scope, table);
	expanded = query_expand_stream_tables(table->defining_query);
	difference = rowset_from_sql(weighted_select(table, expanded, NIL), "__pgt_compare");
	relation = table_open(table->relid, AccessShareLock);
	*row_count = difference->row_count;
	subtract_table(difference, relation);
	table_close(relation, NoLock);
	net = consolidate(difference, "__pgt_difference");
	rowset_free(difference);
	owner_scope_leave(&scope);
	return net;
}
