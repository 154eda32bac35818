/*
 * delta/run_full.c
 *     What is computed from the whole query: the first fill, a full refresh, a comparison.
 *
 * A full refresh computes states and stream table anew and writes only the difference to what they hold.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "consolidate.h"
#include "fill_progress.h"
#include "isolation.h"
#include "miscadmin.h"
#include "run_owner.h"
#include "run_steps.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

void
rowset_subtract_table(Rowset *rowset, Relation relation)
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
	rowset_subtract_table(now, relation);
	isolation_push_snapshot();
	rowset_subtract_table(then, relation);
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
	RowLocator	locator = table_state_locator(table, state);
	Rowset	   *difference = rowset_from_sql(table_state_fill_sql(table, state), "__pgt_refill");

	rowset_subtract_table(difference, relation);
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
	rowset_subtract_table(difference, relation);
	table_close(relation, NoLock);
	outcome = table_apply_result(table, difference, hidden, "FULL");
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
	rowset_subtract_table(difference, relation);
	table_close(relation, NoLock);
	net = consolidate(difference, "__pgt_difference");
	rowset_free(difference);
	owner_scope_leave(&scope);
	return net;
}
