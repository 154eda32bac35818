/*
 * delta/copy_bag.c
 *     Changes of a table without a key: rows that came and rows that went.
 *
 * Needs the whole old row of every update and delete.  Which copy of equal rows goes does not matter, so the order of changes does not either: they are
 * collected as a delta and applied like one (apply.c), which fails if a row is not there that should go.
 */
#include "copy_target.h"

#include "access/table.h"
#include "copy_filter.h"
#include "utils/memutils.h"

static Rowset *
bag_of(CopyTarget *target)
{
	if (target->bag == NULL)
		target->bag = copy_target_make_rowset(target, "changes", rowset_tupdesc_for(target->columns));
	return target->bag;
}

static void
report_lacking(CopyTarget *target, const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_COPY_STREAM_LACKS),
			 errmsg("cannot follow table %s: %s", target->definition->remote_name, what),
			 errhint("%s", hint)));
}

static void
put_row(CopyTarget *target, const CopyChange *change, const TupleValue *row, const TupleValue *old_row, int32 weight)
{
	int			ncolumns = target->columns->natts;
	Datum	   *values = palloc0((ncolumns + 1) * sizeof(Datum));
	bool	   *nulls = palloc((ncolumns + 1) * sizeof(bool));

	memset(nulls, true, (ncolumns + 1) * sizeof(bool));
	for (int i = 0; i < change->nbound; i++)
	{
		BoundColumn *column = (BoundColumn *) &change->bound[i];
		const TupleValue *value = &row[column->source];

		if (value->kind == VALUE_UNCHANGED && old_row != NULL)
			value = &old_row[column->source];
		if (value->kind == VALUE_NOT_LOGGED || value->kind == VALUE_UNCHANGED)
			report_lacking(target, "a value is too large for the stream, or cannot be sent",
						   "Raise value_bytes_max of the program, or copy the table without this column.");
		nulls[column->target] = value->kind == VALUE_NULL;
		if (!nulls[column->target])
			values[column->target] = value_decode(&column->decoder, value->bytes, change->scratch);
	}
	if (target->filter == NULL || copy_filter_passes(target->filter, values, nulls))
		rowset_put_values(bag_of(target), values, nulls, weight);
}

void
copy_bag_change(CopyTarget *target, const CopyChange *change)
{
	if (change->kind != KIND_INSERT && (!change->has_old_row || change->old_row_is_key))
	{
		if (target->passes_through)
			report_lacking(target, "no rows are kept here, and a row was changed without its old values",
						   "Set the table's REPLICA IDENTITY to FULL, and call pgtrickle.recopy().");
		report_lacking(target, "it has no key, and a row was changed without its old values",
					   "Give the table a primary key, or set its REPLICA IDENTITY to FULL, and call pgtrickle.recopy().");
	}
	if (change->kind != KIND_INSERT)
		put_row(target, change, change->old_values, NULL, -1);
	if (change->kind != KIND_DELETE)
		put_row(target, change, change->new_values, change->has_old_row ? change->old_values : NULL, 1);
}

void
copy_bag_forget(CopyTarget *target)
{
	if (target->bag != NULL)
		rowset_free(target->bag);
	target->bag = NULL;
}

/* apply.c has made a delta of its own, in the table's layout. */
static void
take_net(CopyTarget *target, Rowset *net)
{
	if (target->net == NULL)
	{
		target->net = net;
		return;
	}
	rowset_append(target->net, net);
	rowset_free(net);
}

/* The changes are all that there is. */
static void
pass_on(CopyTarget *target)
{
	TupleTableSlot *slot = rowset_make_slot(target->bag);

	rowset_rewind(target->bag);
	while (rowset_next(target->bag, slot))
	{
		int32		weight = rowset_weight(target->bag, slot);

		slot_getallattrs(slot);
		copy_target_put_net(target, slot->tts_values, slot->tts_isnull, weight);
		target->counts.rows_inserted += Max(weight, 0);
		target->counts.rows_deleted += Max(-weight, 0);
	}
	ExecDropSingleTupleTableSlot(slot);
}

void
copy_bag_finish(CopyTarget *target)
{
	Relation	relation;
	Rowset	   *net = NULL;
	MemoryContext oldcontext;

	if (target->bag == NULL)
		return;
	if (target->passes_through)
	{
		pass_on(target);
		copy_bag_forget(target);
		return;
	}
	oldcontext = MemoryContextSwitchTo(target->context);
	relation = table_open(target->relid, NoLock);
	copy_target_count(target, apply_delta(relation, &target->locator, target->bag, target->hidden,
										  target->wants_net ? &net : NULL));
	table_close(relation, NoLock);
	if (net != NULL)
		take_net(target, net);
	copy_bag_forget(target);
	MemoryContextSwitchTo(oldcontext);
}
