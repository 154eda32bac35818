/*
 * delta/shared_rows.c
 *     Lookups that several stream tables of a tick have in common, done once.
 *
 * Without an index, looking up the rows of a big table that match a small delta is a scan of it (near.c).  When ten stream tables join
 * the same two tables in the same way, that would be ten scans for the same rows.  What differs between them is which columns and
 * which of the rows they want.  So what is shared are the rows' places,
 *
 *     SELECT f.ctid AS tid FROM F f WHERE EXISTS (SELECT FROM dX d WHERE f.a = d.b)
 *
 * and each of them fetches from these places what it wants.  Two lookups are the same when their statements, their deltas (the same rowset
 * in memory, which stream tables with one frontier have) and their owners are.
 *
 * Right because nothing writes F between the first of them and the last: all read it at the tick's snapshot, and if F is a stream table of
 * the same tick, it comes before all that read it.  So a place is that of the same row for all of them, and the snapshot keeps vacuum from giving
 * it to another.  In an IMMEDIATE run, where snapshots move on within a run, nothing is shared.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "run.h"
#include "shared_rows.h"
#include "utils/memutils.h"

typedef struct SharedRows
{
	const char *sql;
	Rowset	   *delta;
	Oid			owner;
	Rowset	   *places;
} SharedRows;

static MemoryContext sharing_context;	/* NULL: nothing is shared now */
static List *found_rows;		/* of SharedRows */

static void
forget_sharing(void *arg)
{
	sharing_context = NULL;
	found_rows = NIL;
}

void
shared_rows_begin(void)
{
	MemoryContextCallback *callback = palloc0(sizeof(MemoryContextCallback));

	callback->func = forget_sharing;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, callback);
	sharing_context = CurrentMemoryContext;
	found_rows = NIL;
}

void
shared_rows_end(void)
{
	ListCell   *lc;

	foreach(lc, found_rows)
		rowset_free(((SharedRows *) lfirst(lc))->places);
	forget_sharing(NULL);
}

bool
shared_rows_serve(ProgramStep *step, uint64 nonempty)
{
	if (sharing_context == NULL || step->shared == NIL)
		return false;
	for (int i = 0; i < step->ninputs; i++)
	{
		if ((nonempty & (UINT64CONST(1) << i)) != 0 && list_nth(step->shared, i) == NULL)
			return false;
	}
	return true;
}

static SharedRows *
find_rows(const char *sql, Rowset *delta, Oid owner)
{
	ListCell   *lc;

	foreach(lc, found_rows)
	{
		SharedRows *rows = lfirst(lc);

		if (rows->delta == delta && rows->owner == owner && strcmp(rows->sql, sql) == 0)
			return rows;
	}
	return NULL;
}

bool
shared_rows_are_there(ProgramStep *step, uint64 nonempty, Rowset **rowsets, Oid owner)
{
	for (int i = 0; i < step->ninputs; i++)
	{
		if ((nonempty & (UINT64CONST(1) << i)) != 0 &&
			find_rows(list_nth(step->shared, i), rowsets[step->inputs[i]], owner) == NULL)
			return false;
	}
	return true;
}

static Rowset *
look_up(const char *sql, Rowset *delta, Oid owner)
{
	SharedRows *rows = find_rows(sql, delta, owner);
	MemoryContext oldcontext;

	if (rows != NULL)
	{
		ereport(DEBUG1, (errmsg_internal("using the lookup of another step or stream table: %s", sql)));
		return rows->places;
	}
	oldcontext = MemoryContextSwitchTo(sharing_context);
	rows = palloc(sizeof(SharedRows));
	rows->sql = pstrdup(sql);
	rows->delta = delta;
	rows->owner = owner;
	rows->places = rowset_from_sql(sql, SHARED_ROWS_NAME);
	MemoryContextSwitchTo(sharing_context);
	found_rows = lappend(found_rows, rows);
	MemoryContextSwitchTo(oldcontext);
	return rows->places;
}

static void
add_places(Rowset *all, Rowset *some)
{
	TupleTableSlot *slot = rowset_make_slot(some);

	rowset_rewind(some);
	while (rowset_next(some, slot))
		rowset_put_slot(all, slot);
	ExecDropSingleTupleTableSlot(slot);
}

Rowset *
shared_rows_register(ProgramStep *step, uint64 nonempty, Rowset **rowsets, Oid owner)
{
	Rowset	   *all = NULL;

	for (int i = 0; i < step->ninputs; i++)
	{
		Rowset	   *places;

		if ((nonempty & (UINT64CONST(1) << i)) == 0)
			continue;
		places = look_up(list_nth(step->shared, i), rowsets[step->inputs[i]], owner);
		if (all == NULL)
			all = rowset_create(SHARED_ROWS_NAME, places->tupdesc);
		add_places(all, places);
	}
	rowset_register(all);
	return all;
}

void
shared_rows_unregister(Rowset *places)
{
	rowset_unregister(places);
	rowset_free(places);
}
