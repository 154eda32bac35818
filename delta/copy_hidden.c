/*
 * delta/copy_hidden.c
 *     Rows that are loaded are nobody's changes.
 *
 * A load table is read by nobody, but its rows are in the WAL, and the stream of this database would take all of them apart only to drop them.
 * Marked as what a tick writes is marked, they are passed over.  The mark is taken off before the commit is recorded: what else the transaction did is
 * to be seen.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "replication/origin.h"

PG_FUNCTION_INFO_V1(pgtrickle_copy_hide_rows);

static RepOriginId origin_before = InvalidRepOriginId;
static bool is_hiding = false;

/* Session-wide, so it has to be put back however the transaction ends. */
static void
end_hiding(XactEvent event, void *argument)
{
	if (!is_hiding || event == XACT_EVENT_PARALLEL_PRE_COMMIT || event == XACT_EVENT_PARALLEL_COMMIT ||
		event == XACT_EVENT_PARALLEL_ABORT)
		return;
	replorigin_session_origin = origin_before;
	is_hiding = false;
}

Datum
pgtrickle_copy_hide_rows(PG_FUNCTION_ARGS)
{
	static bool is_registered = false;

	if (!is_registered)
	{
		RegisterXactCallback(end_hiding, NULL);
		is_registered = true;
	}
	if (!is_hiding)
	{
		origin_before = replorigin_session_origin;
		replorigin_session_origin = DoNotReplicateId;
		is_hiding = true;
	}
	PG_RETURN_VOID();
}
