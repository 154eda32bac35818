/*
 * delta/copy_keyed.c
 *     Changes of a table with a key: the last state of every row that changed, before one look at the table for each.
 *
 * In the order of the stream, each key is present with a row or absent; a change of the key makes the old one absent and the new one present.
 * Only the last state matters: it is compared with the row in the table, and what differs is written and handed to consumers.  A
 * row that changed a hundred times is looked up once.
 *
 * An update does not bring large values that it left alone.  They come from the state before, if there is one, else from the row in the
 * table: of the same key when rows are written, of the old key at once when the key changes.
 *
 * What the first change of a key says about the row before (it was there, or it was not) must be true of the table, or the copy does not equal
 * the remote's table, and is copied again.  Not so while it catches up: rows were loaded by snapshots that are younger than the changes, so
 * a row may be there already or be gone.  The state after all changes is right all the same, since it is set by the last of them, and rows that
 * were loaded after it did not change any more.  One case is left: a row that is in neither the table nor the stream with all its
 * values, because it was loaded by a snapshot after its key changed away and before it changed to.  It stays incomplete, waits for a change that
 * brings the value or takes the row away, and if there is none the table is copied again.
 *
 * States are kept within work_mem; when there are more, they are written and forgotten, and what comes next goes on from the table.
 */
#include "copy_states.h"

#include "copy_write.h"
#include "miscadmin.h"
#include "utils/datum.h"
#include "utils/memutils.h"

void
copy_keyed_init(CopyTarget *target)
{
	target->states = row_states_create(target);
}

/* ------------------------------------------------------------------------------------------------
 * From changes to rows
 */

/* A value of an update that was not changed may be in the old row. */
static const TupleValue *
find_value(const CopyChange *change, int source)
{
	const TupleValue *value = &change->new_values[source];

	if (value->kind == VALUE_UNCHANGED && change->has_old_row &&
		(change->old_values[source].kind == VALUE_PRESENT || change->old_values[source].kind == VALUE_NULL))
		return &change->old_values[source];
	return value;
}

static void
report_lacking(CopyTarget *target, const BoundColumn *column, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_COPY_STREAM_LACKS),
			 errmsg("cannot follow table %s: %s", target->definition->remote_name, what),
			 errdetail("Column \"%s\".", NameStr(TupleDescAttr(target->columns, column->target)->attname))));
}

static const BoundColumn *
find_bound(CopyTarget *target, const CopyChange *change, int column)
{
	for (int i = 0; i < change->nbound; i++)
	{
		if (change->bound[i].target == column)
			return &change->bound[i];
	}
	elog(ERROR, "a key column of copy %s is not copied", target->definition->name);
	return NULL;
}

/* The new row of an insert or update. */
static RowState *
decode_new_row(CopyTarget *target, const CopyChange *change)
{
	RowStates  *states = target->states;
	RowState   *row = row_state_create(states);

	row->is_present = true;
	for (int i = 0; i < change->nbound; i++)
	{
		BoundColumn *column = (BoundColumn *) &change->bound[i];
		const TupleValue *value = find_value(change, column->source);

		if (value->kind == VALUE_NOT_LOGGED)
			report_lacking(target, column, "a value is too large for the stream, or cannot be sent");
		if (value->kind == VALUE_UNCHANGED)
			row_state_set_missing(states, row, column->target);
		row->nulls[column->target] = value->kind != VALUE_PRESENT;
		if (value->kind == VALUE_PRESENT)
			row->values[column->target] = value_decode(&column->decoder, value->bytes, change->scratch);
	}
	for (int i = 0; i < states->nkeys; i++)
	{
		if (row->nulls[states->keys[i].column])
			report_lacking(target, find_bound(target, change, states->keys[i].column), "a value of its key is not there");
	}
	row_state_hash_key(states, row);
	return row;
}

/* The key of the old row, as an absent row. */
static RowState *
decode_old_key(CopyTarget *target, const CopyChange *change)
{
	RowStates  *states = target->states;
	RowState   *row = row_state_create(states);

	for (int i = 0; i < states->nkeys; i++)
	{
		BoundColumn *column = (BoundColumn *) find_bound(target, change, states->keys[i].column);
		const TupleValue *value = &change->old_values[column->source];

		if (value->kind != VALUE_PRESENT)
			report_lacking(target, column, "the replica identity does not have its key");
		row->nulls[column->target] = false;
		row->values[column->target] = value_decode(&column->decoder, value->bytes, change->scratch);
	}
	row_state_hash_key(states, row);
	return row;
}

/* The bytes of the key are the same in the old and the new row, or there is no old row, which says so. */
static bool
key_is_unchanged(CopyTarget *target, const CopyChange *change)
{
	RowStates  *states = target->states;

	if (!change->has_old_row)
		return true;
	for (int i = 0; i < states->nkeys; i++)
	{
		const BoundColumn *column = find_bound(target, change, states->keys[i].column);
		const TupleValue *old_value = &change->old_values[column->source];
		const TupleValue *new_value = find_value(change, column->source);

		if (old_value == new_value)
			continue;
		if (old_value->kind != VALUE_PRESENT || new_value->kind != VALUE_PRESENT ||
			old_value->bytes.length != new_value->bytes.length ||
			memcmp(old_value->bytes.data, new_value->bytes.data, old_value->bytes.length) != 0)
			return false;
	}
	return true;
}

static void
check_before(CopyTarget *target, RowState *row, bool is_there, bool should_be)
{
	if (is_there == should_be || target->catches_up)
		return;
	copy_target_report(target, should_be ? "lacks a row that was changed" : "has a row already that was inserted",
					   row->values, row->nulls);
}

static void
set_present(CopyTarget *target, RowState *row, BeforeState before)
{
	bool		is_new;
	RowState  **place = row_states_find(target->states, row, &is_new);

	if (is_new)
	{
		row->before = before;
		return;
	}
	check_before(target, row, (*place)->is_present, before == BEFORE_PRESENT);
	if ((*place)->is_present)
		row_state_complete(target->states, row, *place);
	row->before = (*place)->before;
	*place = row;
}

/* Returns the state before; NULL: it is in the table, if anywhere. */
static RowState *
set_absent(CopyTarget *target, RowState *key)
{
	bool		is_new;
	RowState  **place = row_states_find(target->states, key, &is_new);
	RowState   *before = is_new ? NULL : *place;

	if (is_new)
		key->before = BEFORE_PRESENT;
	else
	{
		check_before(target, key, before->is_present, true);
		key->before = before->before;
		*place = key;
	}
	return before;
}

/* A row that waits for a value moves on into the next lot. */
static void
move_on(CopyTarget *target, const RowState *state)
{
	RowStates  *states = target->states;
	RowState   *moved = row_state_create(states);
	bool		is_new;

	moved->hash = state->hash;
	moved->before = BEFORE_UNKNOWN;
	moved->is_present = true;
	for (int i = 0; i < states->ncolumns; i++)
	{
		Form_pg_attribute att = TupleDescAttr(target->columns, i);

		moved->nulls[i] = state->nulls[i];
		if (state->missing[i])
			row_state_set_missing(states, moved, i);
		else if (!state->nulls[i])
			moved->values[i] = datumCopy(state->values[i], att->attbyval, att->attlen);
	}
	(void) row_states_find(states, moved, &is_new);
}

static void
flush(CopyTarget *target)
{
	MemoryContext oldcontext;
	MemoryContext spent;
	List	   *incomplete;
	ListCell   *lc;

	if (row_states_count(target->states) == 0)
		return;
	oldcontext = MemoryContextSwitchTo(target->states->context);
	incomplete = copy_write_states(target);
	spent = row_states_detach(target->states);
	MemoryContextSwitchTo(target->states->context);
	foreach(lc, incomplete)
		move_on(target, lfirst(lc));
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(spent);
}

/* ------------------------------------------------------------------------------------------------
 * Changes
 */

static void
take_update(CopyTarget *target, const CopyChange *change)
{
	RowState   *row = decode_new_row(target, change);
	RowState   *key;
	RowState   *before;

	if (key_is_unchanged(target, change))
	{
		set_present(target, row, BEFORE_PRESENT);
		return;
	}
	key = decode_old_key(target, change);
	if (row->hash == key->hash && row_states_equal_keys(target->states, row, key))
	{
		/* other bytes, but equal: 1.0 and 1.00 */
		set_present(target, row, BEFORE_PRESENT);
		return;
	}
	before = set_absent(target, key);
	if (before != NULL && before->is_present)
		row_state_complete(target->states, row, before);
	if (row->is_incomplete && (before == NULL || before->is_present))
		copy_write_complete(target, row, key);
	set_present(target, row, BEFORE_ABSENT);
}

void
copy_keyed_change(CopyTarget *target, const CopyChange *change)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(target->states->context);

	if (change->kind == KIND_DELETE && !change->has_old_row)
		ereport(ERROR,
				(errcode(ERRCODE_COPY_STREAM_LACKS),
				 errmsg("cannot follow table %s: a row was deleted without its key", target->definition->remote_name),
				 errhint("Give it a replica identity.")));
	switch (change->kind)
	{
		case KIND_INSERT:
			set_present(target, decode_new_row(target, change), BEFORE_ABSENT);
			break;
		case KIND_UPDATE:
			take_update(target, change);
			break;
		default:
			(void) set_absent(target, decode_old_key(target, change));
			break;
	}
	MemoryContextSwitchTo(oldcontext);
	if (MemoryContextMemAllocated(target->states->context, true) > (Size) work_mem * 1024)
		flush(target);
}

/* All rows are going, whatever their state. */
void
copy_keyed_forget(CopyTarget *target)
{
	row_states_clear(target->states);
}

void
copy_keyed_finish(CopyTarget *target)
{
	RowState  **left;

	flush(target);
	if (row_states_count(target->states) == 0)
		return;
	left = palloc(row_states_count(target->states) * sizeof(RowState *));
	row_states_list(target->states, left);
	copy_target_report(target, "lacks a large value of a row whose key changed while it was copied", left[0]->values,
					   left[0]->nulls);
}
