/*
 * delta/replica_identity.c
 *     Makes sources log the old row of an update or delete.
 *
 * A delta is -old +new, and the WAL has the old row only with REPLICA IDENTITY FULL.  Without it nothing goes wrong: the first update or delete
 * comes without its old row and the stream table is filled again, at the cost of a full refresh each time.
 *
 * ALTER TABLE takes an exclusive lock until the transaction ends.  So it comes after the fill, which may take hours: only the end of the transaction stands
 * between it and the writers.  What is written without old rows during the fill leads to one full refresh after it.  The lock is tried for moments with
 * pauses in between: who queues for an exclusive lock stops all who come after.
 *
 * Replica identity is not inherited, so every leaf of a partitioned source gets its own.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "compat.h"
#include "executor/spi.h"
#include "lock_attempts.h"
#include "miscadmin.h"
#include "replica_identity.h"
#include "settings.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

static bool
logs_old_rows(Oid relid)
{
	Relation	relation = table_open(relid, AccessShareLock);
	bool		full = relation->rd_rel->relreplident == REPLICA_IDENTITY_FULL ||
		relation->rd_rel->relkind != RELKIND_RELATION;

	table_close(relation, NoLock);
	return full;
}

static char *
alter_statement(Oid relid)
{
	return psprintf("ALTER TABLE %s REPLICA IDENTITY FULL",
					quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid)));
}

#define LOCK_ATTEMPT_MS 100
#define LOCK_PAUSE_MS 100

static void
set_identity(void *relid)
{
	if (SPI_execute(alter_statement(*(Oid *) relid), false, 0) < 0)
		elog(ERROR, "could not set the replica identity of \"%s\"", get_rel_name(*(Oid *) relid));
}

static void
warn_about(Oid relid, const char *reason)
{
	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("source \"%s\" does not log old rows", get_rel_name(relid)),
			 errdetail("%sEach tick with an update or delete of it will refresh the stream table in full.", reason),
			 errhint("Let its owner run: %s;", alter_statement(relid))));
}

/*
 * Several who create stream tables over one source at a time all hold it ACCESS SHARE, so each would wait for the others.  One is enough, the one
 * that comes first: the others leave that source alone and commit soon, without insisting on their other sources, which the first one may read as
 * well.  If it is rolled back in the end, nothing is lost but speed.
 */
static bool
is_ours_to_set(Oid relid)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0x70677472, relid, 2);
	return LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

static bool
set_in_time(Oid relid, TimestampTz started_at, int timeout_ms)
{
	while (lock_attempt(set_identity, &relid, LOCK_ATTEMPT_MS) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		if (timeout_ms > 0 && TimestampDifferenceExceeds(started_at, GetCurrentTimestamp(), timeout_ms))
			return false;
		pg_usleep(LOCK_PAUSE_MS * 1000L);
	}
	return true;
}

void
replica_identity_set(List *relids)
{
	TimestampTz started_at = GetCurrentTimestamp();
	bool		others_are_at_it = false;
	ListCell   *lc;

	list_sort(relids, list_oid_cmp);
	foreach(lc, relids)
	{
		Oid			relid = lfirst_oid(lc);

		if (!is_ours_to_set(relid))
			others_are_at_it = true;
		else if (!logs_old_rows(relid) &&
				 !set_in_time(relid, started_at, others_are_at_it ? LOCK_ATTEMPT_MS : pgtrickle_replica_identity_lock_timeout_ms) &&
				 !others_are_at_it)
			warn_about(relid, "Its lock could not be had in time. ");
	}
}

/* Adds the table to those that are set in the end, or says what has to be done about it. */
static List *
plan_one(List *relids, Oid relid)
{
	if (logs_old_rows(relid) || pgtrickle_replica_identity == REPLICA_IDENTITY_OFF)
		return relids;
	if (pgtrickle_replica_identity == REPLICA_IDENTITY_REQUIRE)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("source \"%s\" does not log old rows", get_rel_name(relid)),
				 errdetail("pgtrickle.replica_identity is \"require\"."),
				 errhint("Let its owner run: %s;", alter_statement(relid))));
	if (compat_owns_relation(relid, GetUserId()))
		return list_append_unique_oid(relids, relid);
	warn_about(relid, "");
	return relids;
}

List *
replica_identity_plan(DeltaProgram *program)
{
	List	   *relids = NIL;
	ListCell   *lc;

	if (program->full_reason != NULL)
		return NIL;
	foreach(lc, program->sources)
	{
		ProgramSource *source = lfirst(lc);
		ListCell   *child;

		if (!source->by_delta)
			continue;
		foreach(child, find_all_inheritors(source->relid, AccessShareLock, NULL))
			relids = plan_one(relids, lfirst_oid(child));
	}
	return relids;
}
