/*
 * delta/immediate_run.c
 *     One round of maintenance inside a writer's transaction.
 *
 *     pending deltas --> for each IMMEDIATE stream table that reads one of them, upstream ones first:
 *                        lock -> new snapshot -> delta program (run.c), or full refresh -> its own delta, for those that read it
 *
 * The order is the same in all sessions (immediate_graph.c), so that two rounds cannot wait for each other across stream tables.  A
 * stream table is run once, with the deltas of all its sources: those of tables, and those of stream tables run before.
 *
 * A stream table that becomes IMMEDIATE, or is resumed, has a round of its own (immediate_refill): it alone has missed something, and what reads it follows.
 *
 * The rows of stream tables are written so that they appear in the stream: others may read them on schedule.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "immediate_graph.h"
#include "immediate_locks.h"
#include "immediate_pending.h"
#include "immediate_run.h"
#include "settings.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* What a stream table of this round did. */
typedef struct AppliedDelta
{
	Oid			relid;
	Rowset	   *net;
} AppliedDelta;

typedef struct Round
{
	List	   *deltas;			/* of PendingDelta */
	int64		deltas_for;		/* 0: for all that read the sources; else only for this stream table */
	int64		refill_id;		/* the stream table to be filled again; 0: none */
	List	   *applied;		/* of AppliedDelta */
	List	   *made_rowsets;	/* to be freed */
	MemoryContext context;
} Round;

/* ---- the deltas of one stream table ---- */

static List *
deltas_for(Round *round, int64 pgt_id)
{
	return round->deltas_for == 0 || round->deltas_for == pgt_id ? round->deltas : NIL;
}

static bool
reads_changed_source(Round *round, ImmediateTable *table, bool *is_unknown)
{
	bool		changed;
	ListCell   *lc;

	*is_unknown = changed = table->pgt_id == round->refill_id;
	foreach(lc, deltas_for(round, table->pgt_id))
	{
		PendingDelta *delta = lfirst(lc);

		if (!list_member_oid(table->source_relids, delta->source_relid))
			continue;
		changed |= delta->is_unknown || delta->rowset->row_count > 0;
		*is_unknown |= delta->is_unknown;
	}
	foreach(lc, round->applied)
		changed |= list_member_oid(table->source_relids, ((AppliedDelta *) lfirst(lc))->relid);
	return changed;
}

static const Bitmapset *
used_columns_of(DeltaProgram *program, Oid relid)
{
	ListCell   *lc;

	foreach(lc, program->sources)
	{
		if (((ProgramSource *) lfirst(lc))->relid == relid)
			return ((ProgramSource *) lfirst(lc))->used_attnos;
	}
	elog(ERROR, "relation %u is not a source of its program", relid);
	return NULL;
}

/* The rowsets with changes of a source. */
static List *
rowsets_of_source(Round *round, LoadedTable *table, Oid relid)
{
	const Bitmapset *used = used_columns_of(table->program, relid);
	List	   *rowsets = NIL;
	bool		others = false;
	ListCell   *lc;

	foreach(lc, deltas_for(round, table->pgt_id))
	{
		PendingDelta *delta = lfirst(lc);

		if (delta->source_relid != relid || delta->is_unknown)
			continue;
		if (bms_equal(delta->used_attnos, used))
			rowsets = lappend(rowsets, delta->rowset);
		else
			others = true;
	}
	if (others && rowsets == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the definition of a stream table changed while a statement wrote one of its sources")));
	foreach(lc, round->applied)
	{
		AppliedDelta *applied = lfirst(lc);

		if (applied->relid == relid)
			rowsets = lappend(rowsets, applied->net);
	}
	return rowsets;
}

/* Several rowsets of the same columns as one. */
static Rowset *
put_together(Round *round, List *rowsets)
{
	Rowset	   *first;
	Rowset	   *all;
	ListCell   *lc;

	if (list_length(rowsets) < 2)
		return rowsets == NIL ? NULL : linitial(rowsets);
	first = linitial(rowsets);
	all = rowset_create(first->name, first->tupdesc);
	round->made_rowsets = lappend(round->made_rowsets, all);
	foreach(lc, rowsets)
	{
		Rowset	   *part = lfirst(lc);
		TupleTableSlot *slot = rowset_make_slot(part);

		rowset_rewind(part);
		while (rowset_next(part, slot))
			rowset_put_slot(all, slot);
		ExecDropSingleTupleTableSlot(slot);
	}
	return all;
}

/* By rowset number; the number of rows altogether into *row_count. */
static Rowset **
collect_rowsets(Round *round, LoadedTable *table, int64 *row_count)
{
	DeltaProgram *program = table->program;
	Rowset	  **rowsets = palloc0(sizeof(Rowset *) * list_length(program->rowsets));
	ListCell   *lc;

	*row_count = 0;
	foreach(lc, program->rowsets)
	{
		ProgramRowset *described = lfirst(lc);
		Rowset	   *rowset;

		if (!OidIsValid(described->source_relid))
			continue;
		rowset = put_together(round, rowsets_of_source(round, table, described->source_relid));
		rowsets[foreach_current_index(lc)] = rowset;
		*row_count += rowset != NULL ? rowset->row_count : 0;
	}
	return rowsets;
}

/* ---- one stream table ---- */

static void
check_runnable(LoadedTable *table)
{
	if (!table->is_populated || !table_states_fit(table) ||
		list_length(table->state_relids) != list_length(table->program->states))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("stream table \"%s\" does not fit its sources any more", table->qualified_name),
				 errdetail("A source has changed what its query means."),
				 errhint("Pause the stream table and resume it.")));
}

static void
name_statement(void *arg)
{
	const char *name = arg;

	errcontext("IMMEDIATE maintenance of stream table \"%s\"; pgtrickle.pause_stream_table() stops it", name);
}

static void
run_locked(Round *round, LoadedTable *table, RunLocks *locks, Rowset **rowsets, bool in_full)
{
	RefreshOutcome outcome;
	ErrorContextCallback context = {error_context_stack, name_statement, table->qualified_name};

	error_context_stack = &context;
	if (!table->states_checked)
		check_runnable(table);
	table->states_checked = true;
	if (in_full)
		outcome = table_refresh_full(table, false);
	else
		outcome = table_refresh_delta(table, rowsets, false, locks);
	error_context_stack = context.previous;
	MemoryContextSwitchTo(round->context);
	if (outcome.net != NULL)
	{
		AppliedDelta *applied = palloc(sizeof(AppliedDelta));

		applied->relid = table->relid;
		applied->net = outcome.net;
		round->applied = lappend(round->applied, applied);
		round->made_rowsets = lappend(round->made_rowsets, outcome.net);
	}
}

/* False: its definition has changed while we waited for its lock. */
static bool
run_table(Round *round, ImmediateTable *described, bool is_unknown)
{
	LoadedTable *table = immediate_load(described->pgt_id);
	RunLocks   *locks;
	Rowset	  **rowsets;
	int64		row_count;
	bool		in_full;

	if (table == NULL || !table->is_immediate)
		return true;
	MemoryContextSwitchTo(round->context);
	rowsets = collect_rowsets(round, table, &row_count);
	in_full = is_unknown || table->program->full_reason != NULL;
	if (row_count == 0 && !in_full)
		return true;
	locks = run_locks_begin(table, in_full || row_count > pgtrickle_immediate_keys_max);
	if (locks == NULL)
		return false;
	run_locked(round, table, locks, rowsets, in_full);
	return true;
}

/* ---- the round ---- */

/* The ids of the stream tables, in the order in which they are to be run. */
static List *
ids_in_order(MemoryContext context)
{
	List	   *ids = NIL;
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	ListCell   *lc;

	foreach(lc, immediate_tables())
	{
		int64	   *id = palloc(sizeof(int64));

		*id = ((ImmediateTable *) lfirst(lc))->pgt_id;
		ids = lappend(ids, id);
	}
	MemoryContextSwitchTo(oldcontext);
	return ids;
}

static void
run_one(Round *round, int64 pgt_id)
{
	for (;;)
	{
		ImmediateTable *table = immediate_table(pgt_id);
		bool		is_unknown;

		if (table == NULL || !table->is_active || !reads_changed_source(round, table, &is_unknown))
			return;
		if (run_table(round, table, is_unknown))
			return;
	}
}

static void
begin_round(Round *round)
{
	SPI_connect();
	round->context = AllocSetContextCreate(CurrentMemoryContext, "IMMEDIATE round", ALLOCSET_SMALL_SIZES);
	PushCopiedSnapshot(GetLatestSnapshot());
	UpdateActiveSnapshotCommandId();
}

static void
run_all(Round *round)
{
	ListCell   *lc;

	foreach(lc, ids_in_order(round->context))
		run_one(round, *(int64 *) lfirst(lc));
}

static void
end_round(Round *round)
{
	ListCell   *lc;

	PopActiveSnapshot();
	foreach(lc, round->made_rowsets)
		rowset_free(lfirst(lc));
	MemoryContextDelete(round->context);
	SPI_finish();
}

void
immediate_run(List *deltas)
{
	Round		round = {0};

	round.deltas = deltas;
	begin_round(&round);
	run_all(&round);
	end_round(&round);
}

void
immediate_refill(int64 pgt_id, bool in_full, ImmediateChanges changes, void *arg)
{
	Round		round = {0};
	Snapshot	before = NULL;

	round.deltas_for = pgt_id;
	begin_round(&round);
	if (in_full)
	{
		round.refill_id = pgt_id;
		run_one(&round, pgt_id);
		round.refill_id = 0;
	}
	if (changes != NULL)
	{
		if (in_full)
			before = RegisterSnapshot(GetActiveSnapshot());
		MemoryContextSwitchTo(round.context);
		round.deltas = changes(arg, before);
	}
	run_all(&round);
	if (before != NULL)
		UnregisterSnapshot(before);
	end_round(&round);
}
