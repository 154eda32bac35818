/*
 * delta/copy_write.c
 *     From the last states of rows to the table: one look for each, and what differs is written.
 *
 * Rows are looked up in the order of the index, so that each of its pages is touched once.  What the first change of a key said about the row
 * before must be true of the table, unless it catches up or a filter may have left the row out (copy_keyed.c tells why).
 *
 * Rows may have exchanged the values of a unique index besides the key's.  Where there is one, rows that change are deleted first and inserted anew when
 * all others have been seen; earlier, when large values that have not changed would take too much memory.
 *
 * The WAL of many rows is put on its way to disk while they are still being written.  The commit of a tick does not wait for its WAL, but
 * the next tick waits until the stream of this database has passed it, and that stream gets only what has been flushed: so
 * it is decoded meanwhile, by the other process, and there is no more left to wait for than the end.
 */
#include "copy_write.h"

#include "access/table.h"
#include "access/xlog.h"
#include "consolidate.h"
#include "copy_filter.h"
#include "key_order.h"
#include "miscadmin.h"
#include "row_finder.h"
#include "table_writer.h"
#include "utils/datum.h"
#include "utils/memutils.h"

/* So often the process that writes WAL is told how far it may go: some 100 kB. */
#define ROWS_BETWEEN_HINTS 512

typedef struct Work
{
	CopyTarget *target;
	Relation	relation;
	TableWriter *writer;
	RowFinder  *finder;
	KeyOrder   *order;
	Datum	   *found_values;
	bool	   *found_nulls;
	bool		inserts_last;	/* there is another unique index */
	MemoryContext due_context;	/* of what was found of rows that are due */
	RowState  **states;			/* to be written, in the order of the index */
	int			nstates;
} Work;

static void
open_table(Work *work, int64 rows_expected)
{
	CopyTarget *target = work->target;

	work->relation = table_open(target->relid, NoLock);
	work->writer = table_writer_open(work->relation, rows_expected);
	work->finder = row_finder_open(work->writer, &target->locator);
	work->found_values = palloc0((target->columns->natts + 1) * sizeof(Datum));
	work->found_nulls = palloc0((target->columns->natts + 1) * sizeof(bool));
}

static void
close_table(Work *work)
{
	row_finder_close(work->finder);
	table_writer_close(work->writer);
	copy_target_count(work->target, table_writer_counts(work->writer));
	table_close(work->relation, NoLock);
}

static TupleTableSlot *
find_row(Work *work, const RowState *state, bool flatten)
{
	RowStates  *states = work->target->states;
	Datum		keys[INDEX_MAX_KEYS];
	TupleTableSlot *found;

	for (int i = 0; i < states->nkeys; i++)
		keys[i] = state->values[states->keys[i].column];
	row_finder_start_key(work->finder, keys, NULL);
	found = row_finder_next(work->finder);
	if (found != NULL)
		table_writer_read(work->writer, found, flatten, work->found_values, work->found_nulls);
	return found;
}

/* ------------------------------------------------------------------------------------------------
 * Missing values
 */

/* What is stored in the page goes when the page does. */
static void
keep_found_values(const Work *work, RowState *state)
{
	CopyTarget *target = work->target;

	for (int i = 0; i < target->columns->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(target->columns, i);

		if (!state->nulls[i] && state->values[i] == work->found_values[i])
			state->values[i] = datumCopy(state->values[i], att->attbyval, att->attlen);
	}
}

void
copy_write_complete(CopyTarget *target, RowState *state, const RowState *key)
{
	Work		work = {.target = target};
	RowState	before = {0};

	open_table(&work, 0);
	if (find_row(&work, key, true) != NULL)
	{
		before.values = work.found_values;
		before.nulls = work.found_nulls;
		row_state_complete(target->states, state, &before);
		keep_found_values(&work, state);
	}
	close_table(&work);
}

/* ------------------------------------------------------------------------------------------------
 * One row
 */

static bool
passes_filter(CopyTarget *target, const RowState *state)
{
	return target->filter == NULL || copy_filter_passes(target->filter, state->values, state->nulls);
}

static void
insert_row(Work *work, const RowState *state)
{
	table_writer_insert(work->writer, state->values, state->nulls, 1);
	copy_target_put_net(work->target, state->values, state->nulls, 1);
}

/* Deletes the row that was found, if its state is to be inserted later. */
static bool
replace_later(Work *work, RowState *state, TupleTableSlot *found)
{
	if (!work->inserts_last)
		return false;
	table_writer_delete(work->writer, found);
	copy_target_put_net(work->target, work->found_values, work->found_nulls, -1);
	state->is_due = true;
	return true;
}

static void
write_found(Work *work, RowState *state, TupleTableSlot *found)
{
	CopyTarget *target = work->target;

	if (state->before == BEFORE_ABSENT && !target->catches_up)
		copy_target_report(target, "has a row already that was inserted", state->values, state->nulls);
	if (state->is_present && state->is_incomplete)
	{
		RowState	stored = {.values = work->found_values, .nulls = work->found_nulls};

		row_state_complete(target->states, state, &stored);
		if (work->inserts_last)
		{
			MemoryContext oldcontext = MemoryContextSwitchTo(work->due_context);

			keep_found_values(work, state);
			MemoryContextSwitchTo(oldcontext);
		}
	}
	if (state->is_present && passes_filter(target, state))
	{
		if (row_image_equal(target->columns, target->columns->natts, state->values, state->nulls,
							work->found_values, work->found_nulls) || replace_later(work, state, found))
			return;
		table_writer_update(work->writer, found, state->values, state->nulls);
		copy_target_put_net(target, work->found_values, work->found_nulls, -1);
		copy_target_put_net(target, state->values, state->nulls, 1);
		return;
	}
	table_writer_delete(work->writer, found);
	copy_target_put_net(target, work->found_values, work->found_nulls, -1);
}

/* With a filter, what was there before may have been left out. */
static void
write_not_found(Work *work, RowState *state)
{
	CopyTarget *target = work->target;

	if (state->before == BEFORE_PRESENT && !target->catches_up && target->filter == NULL)
		copy_target_report(target, "lacks a row that was changed", state->values, state->nulls);
	if (!state->is_present)
		return;
	if (state->is_incomplete)
	{
		if (!target->catches_up)
			copy_target_report(target, "lacks a large value of a row that was changed", state->values, state->nulls);
		return;
	}
	if (!passes_filter(target, state))
		return;
	state->is_due = work->inserts_last;
	if (!state->is_due)
		insert_row(work, state);
}

/* ------------------------------------------------------------------------------------------------
 * All of them
 */

static int
compare_states(const void *a, const void *b, void *argument)
{
	const RowState *state1 = *(RowState *const *) a;
	const RowState *state2 = *(RowState *const *) b;
	Work	   *work = argument;
	KeyColumn  *keys = work->target->states->keys;

	for (int i = 0; i < work->order->nkeys; i++)
	{
		int			result = ApplySortComparator(state1->values[keys[i].column], false, state2->values[keys[i].column], false,
												 &work->order->comparators[i]);

		if (result != 0)
			return result;
	}
	return 0;
}

static void
sort_states(Work *work)
{
	RowStates  *states = work->target->states;

	work->nstates = row_states_count(states);
	work->states = MemoryContextAllocHuge(CurrentMemoryContext, (work->nstates + 1) * sizeof(RowState *));
	row_states_list(states, work->states);
	work->order = key_order_of_index(row_finder_index(work->finder), states->nkeys);
	qsort_arg(work->states, work->nstates, sizeof(RowState *), compare_states, work);
}

static bool
has_other_unique_index(const TableWriter *writer)
{
	int			count = 0;

	for (int i = 0; i < writer->rri->ri_NumIndices; i++)
		count += writer->rri->ri_IndexRelationDescs[i]->rd_index->indisunique || writer->rri->ri_IndexRelationDescs[i]->rd_index->indisexclusion;
	return count > 1;
}

/* Those among the first so many states. */
static void
insert_due(Work *work, int count)
{
	for (int i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!work->states[i]->is_due)
			continue;
		insert_row(work, work->states[i]);
		work->states[i]->is_due = false;
	}
	MemoryContextReset(work->due_context);
}

static void
write_all(void *argument)
{
	Work	   *work = argument;
	MemoryContext oldcontext = CurrentMemoryContext;
	MemoryContext row_context = AllocSetContextCreate(oldcontext, "pgtrickle written row", ALLOCSET_DEFAULT_SIZES);

	open_table(work, row_states_count(work->target->states));
	work->due_context = AllocSetContextCreate(oldcontext, "pgtrickle rows to be inserted", ALLOCSET_DEFAULT_SIZES);
	work->inserts_last = has_other_unique_index(work->writer);
	sort_states(work);
	for (int i = 0; i < work->nstates; i++)
	{
		TupleTableSlot *found;

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(row_context);
		found = find_row(work, work->states[i], work->inserts_last && work->states[i]->is_incomplete);
		if (found != NULL)
			write_found(work, work->states[i], found);
		else
			write_not_found(work, work->states[i]);
		MemoryContextSwitchTo(oldcontext);
		MemoryContextReset(row_context);
		if ((i + 1) % ROWS_BETWEEN_HINTS == 0)
			XLogSetAsyncXactLSN(XactLastRecEnd);
		if (MemoryContextMemAllocated(work->due_context, false) > (Size) work_mem * 1024)
			insert_due(work, i + 1);
	}
	insert_due(work, work->nstates);
	close_table(work);
	MemoryContextDelete(row_context);
}

List *
copy_write_states(CopyTarget *target)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	MemoryContext work_context = AllocSetContextCreate(oldcontext, "pgtrickle write rows", ALLOCSET_DEFAULT_SIZES);
	Work		work = {.target = target};
	List	   *incomplete = NIL;

	MemoryContextSwitchTo(work_context);
	table_write_tagged(target->hidden, write_all, &work);
	MemoryContextSwitchTo(oldcontext);
	for (int i = 0; i < work.nstates; i++)
	{
		if (work.states[i]->is_present && work.states[i]->is_incomplete)
			incomplete = lappend(incomplete, work.states[i]);
	}
	MemoryContextDelete(work_context);
	return incomplete;
}
