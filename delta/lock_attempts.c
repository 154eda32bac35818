/*
 * delta/lock_attempts.c
 *     Locks tables of others without having everybody queue for long.
 *
 * Who waits for a lock that keeps writers away has all writers wait that come later, for as long as some transaction from before goes on.  So
 * each attempt ends after a moment, gives back what it has got (it is a subtransaction), and lets the others go on for as long.  Attempts become longer,
 * up to where the server looks for deadlocks and sends autovacuum away.
 */
#include "postgres.h"

#include "access/xact.h"
#include "lock_attempts.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#define FIRST_ATTEMPT_MS 100
#define AFTER_DEADLOCK_TIMEOUT_MS 200

ErrorData *
lock_attempt(LockTaker take, void *arg, int timeout_ms)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		int			nest_level = NewGUCNestLevel();

		(void) set_config_option("lock_timeout", psprintf("%dms", timeout_ms), PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
		take(arg);
		AtEOXact_GUC(false, nest_level);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			ReThrowError(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

static void
pause_for(int ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

ErrorData *
try_in_attempts(LockTaker take, void *arg)
{
	TimestampTz started_at = GetCurrentTimestamp();
	int			limit_ms = LockTimeout;
	int			attempt_ms = FIRST_ATTEMPT_MS;

	for (;;)
	{
		ErrorData  *error = lock_attempt(take, arg, limit_ms > 0 ? Min(attempt_ms, limit_ms) : attempt_ms);

		if (error == NULL || (limit_ms > 0 && TimestampDifferenceExceeds(started_at, GetCurrentTimestamp(), limit_ms)))
			return error;
		pause_for(attempt_ms);
		attempt_ms = Min(2 * attempt_ms, Max(DeadlockTimeout, FIRST_ATTEMPT_MS) + AFTER_DEADLOCK_TIMEOUT_MS);
	}
}

void
lock_in_attempts(LockTaker take, void *arg)
{
	ErrorData  *error = try_in_attempts(take, arg);

	if (error != NULL)
		ReThrowError(error);
}
