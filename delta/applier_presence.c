/*
 * delta/applier_presence.c
 *     Is the applier there, and how far is it?  The walsender of its slot tells.
 */
#include "postgres.h"

#include "replication/slot.h"
#include "replication/walsender_private.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"

#include "applier_presence.h"

PG_FUNCTION_INFO_V1(pgtrickle_consumed_lsn);

/*
 * The process that serves the applier's slot, 0 if there is none.  Reads shared memory, so this may be asked often.
 */
static pid_t
walsender_of_slot(const char *slot_name)
{
	pid_t			 pid = 0;
	ReplicationSlot *slot;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	slot = SearchNamedReplicationSlot(slot_name, false);
	if (slot != NULL)
	{
		SpinLockAcquire(&slot->mutex);
		pid = slot->active_pid;
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(ReplicationSlotControlLock);
	return pid;
}

bool
applier_is_connected(const char *slot_name)
{
	return walsender_of_slot(slot_name) != 0;
}

/*
 * The position that the applier reports as applied: no stream table needs anything that was committed below.  It is never ahead of
 * what has been committed, but need not be persisted.  Invalid when no applier is connected.
 */
XLogRecPtr
applier_consumed_lsn(const char *slot_name)
{
	pid_t	   pid = slot_name == NULL ? 0 : walsender_of_slot(slot_name);
	XLogRecPtr consumed_lsn = InvalidXLogRecPtr;

	for (int i = 0; pid != 0 && i < max_wal_senders; i++)
	{
		WalSnd *walsender = &WalSndCtl->walsnds[i];

		SpinLockAcquire(&walsender->mutex);
		if (walsender->pid == pid)
			consumed_lsn = walsender->apply;
		SpinLockRelease(&walsender->mutex);
	}
	return consumed_lsn;
}

/* pgtrickle.consumed_lsn(slot_name text) returns pg_lsn: null when no applier is connected. */
Datum
pgtrickle_consumed_lsn(PG_FUNCTION_ARGS)
{
	XLogRecPtr consumed_lsn = applier_consumed_lsn(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	if (consumed_lsn == InvalidXLogRecPtr)
		PG_RETURN_NULL();
	PG_RETURN_LSN(consumed_lsn);
}
