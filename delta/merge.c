/*
 * delta/merge.c
 *     Merges a group delta into a state table, and says how the state's rows changed.
 *
 * One probe per group, in the order of the index when there are many, or when the group delta was computed row by row and is grouped here.  Counts and sums are merged by
 * functions.  A smallest value can be merged as long as what went is larger than what is now known to be the
 * smallest: the smaller one of the stored value and of what came.  Comparing with both keeps this right when a value came and went again
 * within one delta.  Otherwise somebody has to look at the group's rows again: its key goes to `recompute`.
 *
 * All writes are hidden: state tables are nobody's source.
 */
#include "apply.h"

#include "compat.h"
#include "consolidate.h"
#include "key_order.h"
#include "miscadmin.h"
#include "row_finder.h"
#include "row_text.h"
#include "table_writer.h"
#include "utils/fmgrprotos.h"

#define SORT_GROUPS_MIN 256

typedef struct Merge
{
	MergeTarget *target;
	Rowset		*group_delta;
	Rowset		*out;
	Rowset		*recompute;

	TableWriter	 *writer;
	RowFinder	 *finder;
	MemoryContext group_context; /* reset after each group */
	int *column_of_attno; /* where an attribute of the state table is in live layout, from 0 */
	int	 rows_column;
	const AttrNumber *key_columns; /* in live layout, from 1 */

	/* The group's state row before and after, in live layout. */
	Datum	 *old_values;
	bool	 *old_nulls;
	Datum	 *new_values;
	bool	 *new_nulls;
	TupleDesc live_tupdesc;
} Merge;

typedef enum GroupResult
{
	GROUP_MERGED,
	GROUP_NEEDS_ROWS /* an extremum may be gone */
} GroupResult;

/* ------------------------------------------------------------------------------------------------
 * Merging columns
 */

/* A value and whether there is one. */
typedef struct NullableValue
{
	Datum value;
	bool  isnull;
} NullableValue;

static NullableValue
delta_value(TupleTableSlot *delta, AttrNumber attno)
{
	NullableValue result = {.value = delta->tts_values[attno - 1],
							.isnull = delta->tts_isnull[attno - 1]};

	return result;
}

static NullableValue
merge_by_function(MergeColumn *column, NullableValue old, NullableValue delta)
{
	if (old.isnull)
		return delta;
	if (delta.isnull)
		return old;

	LOCAL_FCINFO(fcinfo, 2);
	NullableValue result;

	InitFunctionCallInfoData(*fcinfo, &column->function, 2, column->collation, NULL, NULL);
	fcinfo->args[0].value = old.value;
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = delta.value;
	fcinfo->args[1].isnull = false;
	result.value = FunctionCallInvoke(fcinfo);
	result.isnull = fcinfo->isnull;
	return result;
}

/* Below 0 when `a` is the better extremum of the two. */
static int
compare_extrema(MergeColumn *column, NullableValue a, NullableValue b)
{
	int order =
		DatumGetInt32(FunctionCall2Coll(&column->function, column->collation, a.value, b.value));

	if (column->kind == MERGE_MIN)
		return order;
	return order < 0 ? 1 : order > 0 ? -1 : 0; /* not -order: INT_MIN has no opposite */
}

static GroupResult
merge_extremum(MergeColumn *column, NullableValue old, NullableValue came, NullableValue gone,
			   NullableValue *result)
{
	/* The stored value wins a tie: it is what the group has shown so far. */
	if (old.isnull || (!came.isnull && compare_extrema(column, came, old) < 0))
		*result = came;
	else
		*result = old;

	if (gone.isnull)
		return GROUP_MERGED;
	if (result->isnull || compare_extrema(column, gone, *result) <= 0)
		return GROUP_NEEDS_ROWS;
	return GROUP_MERGED;
}

static GroupResult
merge_column(Merge *merge, MergeColumn *column, TupleTableSlot *delta, bool has_old)
{
	int			  at = merge->column_of_attno[column->state_attno - 1];
	NullableValue old = {.isnull = true};
	NullableValue came = delta_value(delta, column->delta_attno);
	NullableValue result;
	GroupResult	  outcome = GROUP_MERGED;

	if (has_old)
	{
		old.value = merge->old_values[at];
		old.isnull = merge->old_nulls[at];
	}
	if (column->kind == MERGE_FUNCTION)
		result = merge_by_function(column, old, came);
	else
		outcome = merge_extremum(column, old, came, delta_value(delta, column->delta_gone_attno),
								 &result);
	merge->new_values[at] = result.value;
	merge->new_nulls[at] = result.isnull;
	return outcome;
}

/* Computes new_values.  A group without rows has no extremum, so none needs to be looked for. */
static GroupResult
merge_columns(Merge *merge, TupleTableSlot *delta, bool has_old, int64 rows)
{
	MergeTarget *target = merge->target;

	if (has_old)
	{
		memcpy(merge->new_values, merge->old_values, merge->writer->nlive * sizeof(Datum));
		memcpy(merge->new_nulls, merge->old_nulls, merge->writer->nlive * sizeof(bool));
	}
	else
	{
		memset(merge->new_nulls, true, merge->writer->nlive * sizeof(bool));
		for (int i = 0; i < target->locator.nkeys; i++)
		{
			merge->new_values[merge->key_columns[i] - 1] = delta->tts_values[i];
			merge->new_nulls[merge->key_columns[i] - 1] = delta->tts_isnull[i];
		}
	}
	merge->new_values[merge->rows_column] = Int64GetDatum(rows);
	merge->new_nulls[merge->rows_column] = false;

	for (int i = 0; i < target->ncolumns; i++)
	{
		MergeColumn *column = &target->columns[i];

		if (merge_column(merge, column, delta, has_old) == GROUP_NEEDS_ROWS)
		{
			if (rows > 0)
				return GROUP_NEEDS_ROWS;
			merge->new_nulls[merge->column_of_attno[column->state_attno - 1]] = true;
		}
	}
	return GROUP_MERGED;
}

/* ------------------------------------------------------------------------------------------------
 * Groups
 */

static void
group_was_inserted(Merge *merge)
{
	table_writer_insert(merge->writer, merge->new_values, merge->new_nulls, 1);
	rowset_put_values(merge->out, merge->new_values, merge->new_nulls, 1);
}

static void
group_was_deleted(Merge *merge, TupleTableSlot *found)
{
	rowset_put_values(merge->out, merge->old_values, merge->old_nulls, -1);
	table_writer_delete(merge->writer, found);
}

static void
group_was_changed(Merge *merge, TupleTableSlot *found)
{
	if (row_image_equal(merge->live_tupdesc, merge->writer->nlive, merge->old_values,
						merge->old_nulls, merge->new_values, merge->new_nulls))
		return;
	rowset_put_values(merge->out, merge->old_values, merge->old_nulls, -1);
	rowset_put_values(merge->out, merge->new_values, merge->new_nulls, 1);
	table_writer_update(merge->writer, found, merge->new_values, merge->new_nulls);
}

/* How many rows the group has now. */
static int64
merge_row_count(Merge *merge, TupleTableSlot *delta, bool has_old)
{
	MergeTarget	 *target = merge->target;
	NullableValue change = delta_value(delta, target->locator.nkeys + 1);
	int64		  rows = 0;

	if (has_old && !merge->old_nulls[merge->rows_column])
		rows = DatumGetInt64(merge->old_values[merge->rows_column]);
	if (!change.isnull)
		rows += DatumGetInt64(change.value);
	if (rows < 0)
		row_finder_report_missing(merge->finder, target->stream_table_name, -rows,
								  delta->tts_values, delta->tts_isnull, true);
	return rows;
}

static void
merge_group(Merge *merge, TupleTableSlot *delta)
{
	MergeTarget	   *target = merge->target;
	TupleTableSlot *found;

	slot_getallattrs(delta);
	row_finder_start_key(merge->finder, delta->tts_values, delta->tts_isnull);
	found = row_finder_next(merge->finder);
	if (found != NULL)
		table_writer_read(merge->writer, found, true, merge->old_values, merge->old_nulls);

	int64 rows = merge_row_count(merge, delta, found != NULL);

	if (rows == 0 && !target->keep_empty)
	{
		if (found != NULL)
			group_was_deleted(merge, found);
	}
	else if (merge_columns(merge, delta, found != NULL, rows) == GROUP_NEEDS_ROWS)
		rowset_put_values(merge->recompute, delta->tts_values, delta->tts_isnull, 1);
	else if (found != NULL)
		group_was_changed(merge, found);
	else
		group_was_inserted(merge);
}

/* A group's first row, in the group's memory, to which others are added. */
static void
begin_sum(TupleTableSlot *sum, TupleTableSlot *row)
{
	ExecStoreMinimalTuple(ExecCopySlotMinimalTuple(row), sum, false);
	slot_getallattrs(sum);
}

static void
add_to_sum(Merge *merge, TupleTableSlot *sum, TupleTableSlot *row)
{
	int rows_at = merge->target->locator.nkeys;

	slot_getallattrs(row);
	sum->tts_values[rows_at] =
		DirectFunctionCall2(int8pl, sum->tts_values[rows_at], row->tts_values[rows_at]);
	for (int i = 0; i < merge->target->ncolumns; i++)
	{
		MergeColumn	 *column = &merge->target->columns[i];
		NullableValue total = merge_by_function(column, delta_value(sum, column->delta_attno),
												delta_value(row, column->delta_attno));

		Assert(column->kind == MERGE_FUNCTION);
		sum->tts_values[column->delta_attno - 1] = total.value;
		sum->tts_isnull[column->delta_attno - 1] = total.isnull;
	}
}

/* Do all rows belong to the same group, by the looks of their keys?  An updated row does not often change its group. */
static bool
are_one_group(Merge *merge)
{
	int				nkeys = merge->target->locator.nkeys;
	TupleTableSlot *first = rowset_make_slot(merge->group_delta);
	TupleTableSlot *row = rowset_make_slot(merge->group_delta);
	bool			same = merge->group_delta->row_count <= KEYED_ROWS_FEW && rowset_in_memory(merge->group_delta);

	rowset_rewind(merge->group_delta);
	if (same && rowset_next(merge->group_delta, first))
		slot_getallattrs(first);
	while (same && rowset_next(merge->group_delta, row))
	{
		slot_getallattrs(row);
		same = row_image_equal(merge->group_delta->tupdesc, nkeys, first->tts_values, first->tts_isnull,
							   row->tts_values, row->tts_isnull);
	}
	ExecDropSingleTupleTableSlot(first);
	ExecDropSingleTupleTableSlot(row);
	return same;
}

static void
merge_one_group(Merge *merge)
{
	TupleTableSlot *sum = rowset_make_slot(merge->group_delta);
	TupleTableSlot *row = rowset_make_slot(merge->group_delta);
	MemoryContext	oldcontext = MemoryContextSwitchTo(merge->group_context);

	rowset_rewind(merge->group_delta);
	if (rowset_next(merge->group_delta, row))
		begin_sum(sum, row);
	while (rowset_next(merge->group_delta, row))
		add_to_sum(merge, sum, row);
	merge_group(merge, sum);
	MemoryContextSwitchTo(oldcontext);
	ExecDropSingleTupleTableSlot(sum);
	ExecDropSingleTupleTableSlot(row);
}

/* A group delta row by row: what has the same key is added up, as the statement that groups would have done. */
static void
merge_rows(Merge *merge)
{
	int				nkeys = merge->target->locator.nkeys;
	AttrNumber	   *attnos = palloc(nkeys * sizeof(AttrNumber));
	KeyOrder	   *order = key_order_of_index(row_finder_index(merge->finder), nkeys);
	TupleTableSlot *sum = rowset_make_slot(merge->group_delta);
	KeyedRows	   *rows;
	TupleTableSlot *row;

	for (int i = 0; i < nkeys; i++)
		attnos[i] = i + 1;
	rows = keyed_rows_begin(merge->group_delta, order, attnos);
	row = keyed_rows_next(rows);
	while (row != NULL)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(merge->group_context);

		CHECK_FOR_INTERRUPTS();
		begin_sum(sum, row);
		while ((row = keyed_rows_next(rows)) != NULL &&
			   key_order_compare(order, sum->tts_values, sum->tts_isnull, keyed_rows_keys(rows),
								 keyed_rows_key_nulls(rows)) == 0)
			add_to_sum(merge, sum, row);
		merge_group(merge, sum);
		ExecClearTuple(sum);
		MemoryContextSwitchTo(oldcontext);
		MemoryContextReset(merge->group_context);
	}
	keyed_rows_end(rows);
	ExecDropSingleTupleTableSlot(sum);
}

/* One after the other, each in a clean memory context. */
static void
merge_groups(Merge *merge)
{
	int				nkeys = merge->target->locator.nkeys;
	Relation		index = row_finder_index(merge->finder);
	KeyedRows	   *in_order = NULL;
	TupleTableSlot *slot = NULL;

	if (index != NULL && merge->group_delta->row_count >= SORT_GROUPS_MIN)
	{
		AttrNumber *attnos = palloc(Max(nkeys, 1) * sizeof(AttrNumber));

		for (int i = 0; i < nkeys; i++)
			attnos[i] = i + 1;
		in_order = keyed_rows_begin(merge->group_delta, key_order_of_index(index, nkeys), attnos);
	}
	else
	{
		slot = rowset_make_slot(merge->group_delta);
		rowset_rewind(merge->group_delta);
	}

	for (;;)
	{
		TupleTableSlot *delta = slot;

		CHECK_FOR_INTERRUPTS();
		if (in_order != NULL)
			delta = keyed_rows_next(in_order);
		else if (!rowset_next(merge->group_delta, slot))
			delta = NULL;
		if (delta == NULL)
			break;

		MemoryContext oldcontext = MemoryContextSwitchTo(merge->group_context);

		merge_group(merge, delta);
		MemoryContextSwitchTo(oldcontext);
		MemoryContextReset(merge->group_context);
	}

	if (in_order != NULL)
		keyed_rows_end(in_order);
	else
		ExecDropSingleTupleTableSlot(slot);
}

/* ------------------------------------------------------------------------------------------------
 * The whole
 */

static void
init_columns(Merge *merge)
{
	MergeTarget *target = merge->target;
	TupleDesc	 tupdesc = RelationGetDescr(target->relation);
	int			 nlive = 0;

	merge->column_of_attno = palloc(tupdesc->natts * sizeof(int));
	for (int i = 0; i < tupdesc->natts; i++)
	{
		merge->column_of_attno[i] = nlive;
		nlive += !TupleDescAttr(tupdesc, i)->attisdropped;
	}
	merge->rows_column = merge->column_of_attno[target->rows_attno - 1];
	merge->key_columns = row_finder_key_columns(merge->finder);
	merge->live_tupdesc = table_live_tupdesc(target->relation);
	merge->old_values = palloc(nlive * sizeof(Datum));
	merge->old_nulls = palloc(nlive * sizeof(bool));
	merge->new_values = palloc(nlive * sizeof(Datum));
	merge->new_nulls = palloc(nlive * sizeof(bool));
}

/* The rowsets are made elsewhere; a column too few would be read from beyond our arrays. */
static void
check_rowsets(Merge *merge)
{
	int nkeys = merge->target->locator.nkeys;

	if (merge->out->tupdesc->natts - 1 != merge->writer->nlive ||
		(merge->recompute != NULL && merge->recompute->tupdesc->natts - 1 != nkeys) ||
		merge->group_delta->tupdesc->natts - 1 <= nkeys)
		elog(ERROR, "rowset \"%s\" does not fit state table \"%s\"", merge->group_delta->name,
			 RelationGetRelationName(merge->target->relation));
}

static void
write_merge(void *argument)
{
	Merge		*merge = argument;
	MergeTarget *target = merge->target;

	merge->writer = table_writer_open(target->relation, merge->group_delta->row_count);
	merge->finder = row_finder_open(merge->writer, &target->locator);
	init_columns(merge);
	check_rowsets(merge);
	merge->group_context = AllocSetContextCreate(CurrentMemoryContext, "pgtrickle merge group",
												 ALLOCSET_DEFAULT_SIZES);
	if (merge->group_delta->is_row_by_row && merge->group_delta->row_count > 1)
	{
		if (are_one_group(merge))
			merge_one_group(merge);
		else
			merge_rows(merge);
	}
	else
		merge_groups(merge);
	row_finder_close(merge->finder);
	table_writer_close(merge->writer);
}

void
merge_group_delta(MergeTarget *target, Rowset *group_delta, Rowset *out, Rowset *recompute)
{
	if (group_delta->row_count == 0)
		return;

	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "pgtrickle merge", ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	Merge		  merge = {
				.target = target, .group_delta = group_delta, .out = out, .recompute = recompute};

	table_write_tagged(true, write_merge, &merge);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(context);
}
