/*
 * delta/run_states.c
 *     The steps of a program that write state tables: a group delta merged into one, and rows computed again in place of those of some keys.
 *
 * What they write is hidden from the stream of changes, and visible to the statements of later steps.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type_d.h"
#include "consolidate.h"
#include "executor/executor.h"
#include "isolation.h"
#include "nodes/makefuncs.h"
#include "run_steps.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* ---- state tables ---- */

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

RowLocator
table_state_locator(LoadedTable *table, ProgramState *state)
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

/* ---- merging ---- */

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
	target.locator = table_state_locator(table, state);
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

void
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
	run_keep_result(run, step->output, out);
	if (recompute != NULL)
		run_keep_result(run, step->recompute_output, recompute);
}

/* ---- replacing ---- */

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

/* Without keys all rows are replaced; what differs is written, and is the step's output. */
static void
replace_all_rows(Run *run, ProgramStep *step, Rowset *rows)
{
	Relation	relation = table_open_state(run->table, step->state);
	RowLocator	locator = table_state_locator(run->table, step->state);
	ProgramRowset *output = list_nth(run->table->program->rowsets, step->output);
	Rowset	   *difference;

	rowset_subtract_table(rows, relation);
	difference = consolidate(rows, output->name);
	difference->has_deletes = true;
	(void) apply_delta(relation, &locator, difference, true, NULL);
	table_close(relation, NoLock);
	advance_active_snapshot();
	run_keep_result(run, step->output, difference);
}

void
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
		rows = run_into_rowset(table_prepare_step(table, step_no, patterns[i], magnitude), "__pgt_recomputed", rows, false);
	if (isolation_older_snapshot() != NULL)
	{
		Rowset	   *then = NULL;

		isolation_push_snapshot();
		for (int i = 0; i < npatterns; i++)
			then = run_into_rowset(table_prepare_step(table, step_no, patterns[i], magnitude), "__pgt_recomputed", then, false);
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
	locator = table_state_locator(table, step->state);
	out = new_state_rowset(run, step->output, RelationGetDescr(relation));
	(void) replace_by_key(relation, &locator, keys, rows, true, out, table->qualified_name);
	table_close(relation, NoLock);
	rowset_free(rows);
	advance_active_snapshot();
	run_keep_result(run, step->output, out);
}
