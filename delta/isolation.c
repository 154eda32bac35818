/*
 * delta/isolation.c
 *     IMMEDIATE runs in transactions with one snapshot.
 *
 * A REPEATABLE READ transaction reads everything at its snapshot S0, while maintenance has to build upon what has been committed last
 * (immediate_locks.c).  If both agree on all that a run reads (the results of its statements, and the rows of states that belong to the
 * keys it changes), the rows that it writes are those that the transaction would compute at S0 as well.  If not, somebody has committed a
 * change that matters and that S0 does not see: a serialization failure, as the server raises it for a row that both update.
 *
 * In a tick the active snapshot is the transaction's own one, so nothing is compared.
 */
#include "postgres.h"

#include "access/xact.h"
#include "consolidate.h"
#include "isolation.h"
#include "utils/snapmgr.h"

Snapshot
isolation_older_snapshot(void)
{
	Snapshot	own;
	Snapshot	active;

	if (!IsolationUsesXactSnapshot())
		return NULL;
	own = GetTransactionSnapshot();
	active = GetActiveSnapshot();
	if (own->xmin == active->xmin && own->xmax == active->xmax && own->xcnt == active->xcnt && own->subxcnt == active->subxcnt)
		return NULL;
	return own;
}

void
isolation_push_snapshot(void)
{
	PushCopiedSnapshot(GetTransactionSnapshot());
	UpdateActiveSnapshotCommandId();
}

void
isolation_fail(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not serialize access due to concurrent update"),
			 errdetail("Another transaction has changed rows that an IMMEDIATE stream table combines with those of this one."),
			 errhint("Try the transaction again.")));
	pg_unreachable();
}

static void
add_rows(Rowset *all, Rowset *rows, int sign)
{
	TupleTableSlot *slot = rowset_make_slot(rows);

	rowset_rewind(rows);
	while (rowset_next(rows, slot))
		rowset_put_slot_weighted(all, slot, sign * (int64) rowset_weight(rows, slot));
	ExecDropSingleTupleTableSlot(slot);
}

void
isolation_require_same(Rowset *now, Rowset *then)
{
	Rowset	   *all = rowset_create("compared", now->tupdesc);
	Rowset	   *difference;
	bool		same;

	add_rows(all, now, 1);
	add_rows(all, then, -1);
	difference = consolidate(all, "difference");
	same = difference->row_count == 0;
	rowset_free(difference);
	rowset_free(all);
	if (!same)
		isolation_fail();
}
