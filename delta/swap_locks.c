/*
 * delta/swap_locks.c
 *     Everybody out, for the moment in which schemas change places.
 *
 * A statement looks up one name after the other.  Of two names in swapped schemas it must not find one in the old version and the other in the new.  What
 * it has found it holds locked to the end of its transaction, and what it finds while somebody else has it locked it looks up once more after the wait.
 * So whoever swaps locks every relation in the schemas first, against readers, too.  A statement that has found one of them before is waited
 * for; any other waits, and finds everything in the new version.  The same holds for views outside that are made anew to read it: what reads
 * through them has them locked.
 *
 * The schemas are locked before that, so that nothing is put into them: what is listed then is all, and all that is being created has been committed.
 * Once everything in them is locked nobody can begin to read it from outside either, so what does is listed after that.  Stream tables outside are kept
 * from being refreshed, readers of them are not.
 *
 * LOCK TABLE would not do: it leaves out materialized views and foreign tables, and goes on from views to what they read.
 *
 * The order.  Readers and refreshes come in any order, and none of them may lose a deadlock for us.  Whoever waits looks for deadlocks after
 * deadlock_timeout, so no attempt holds something and waits for something else as long as that.  What was waited for last comes first in the next attempt,
 * when nothing else is held: that wait may be longer, as lock_in_attempts() makes it, to send autovacuum away, and a deadlock that it finds is one with what
 * the caller had locked before.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type_d.h"
#include "commands/dbcommands.h"
#include "compat.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lock_attempts.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(pgtrickle_lock_for_swap);

typedef struct SwapLock
{
	Oid			classid;		/* pg_namespace or pg_class */
	Oid			objid;
	LOCKMODE	mode;
} SwapLock;

typedef struct SwapLocks
{
	Datum		names;			/* text[]: the schemas */
	SwapLock	waited_for;		/* by the attempt that has failed; no objid: there was none */
	TimestampTz until;			/* when this attempt has to be over */
} SwapLocks;

static LOCKTAG
lock_tag(SwapLock wanted)
{
	LOCKTAG		tag;

	if (wanted.classid == RelationRelationId)
		SET_LOCKTAG_RELATION(tag, MyDatabaseId, wanted.objid);
	else
		SET_LOCKTAG_OBJECT(tag, MyDatabaseId, wanted.classid, wanted.objid, 0);
	return tag;
}

static void
limit_wait(TimestampTz until)
{
	long		left_ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

	(void) set_config_option("lock_timeout", psprintf("%ldms", Max(left_ms, 1)), PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

static void
take_one(SwapLocks *locks, SwapLock wanted)
{
	LOCKTAG		tag = lock_tag(wanted);

	if (LockAcquire(&tag, wanted.mode, false, true) == LOCKACQUIRE_NOT_AVAIL)
	{
		locks->waited_for = wanted;
		limit_wait(locks->until);
		(void) LockAcquire(&tag, wanted.mode, false, false);
	}
}

/* The only wait with empty hands, and so the only one that may take as long as lock_in_attempts() says. */
static void
take_what_was_waited_for(SwapLocks *locks)
{
	LOCKTAG		tag = lock_tag(locks->waited_for);

	if (OidIsValid(locks->waited_for.objid))
		(void) LockAcquire(&tag, locks->waited_for.mode, false, false);
}

static void
take_all(SwapLocks *locks, List *oids, Oid classid, LOCKMODE mode)
{
	ListCell   *lc;

	list_sort(oids, list_oid_cmp);
	foreach(lc, oids)
	{
		SwapLock	wanted = {classid, lfirst_oid(lc), mode};

		take_one(locks, wanted);
	}
	AcceptInvalidationMessages();
}

/* ---- what there is to lock ---- */

static List *
schema_oids(Datum names)
{
	List	   *oids = NIL;
	Datum	   *elements;
	int			count;

	deconstruct_array(DatumGetArrayTypeP(names), TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, &count);
	for (int i = 0; i < count; i++)
		oids = lappend_oid(oids, get_namespace_oid(TextDatumGetCString(elements[i]), false));
	return oids;
}

/* What a statement can name.  Indexes and row types are locked by way of these, or not at all. */
static bool
can_be_read(char relkind)
{
	return relkind == RELKIND_RELATION || relkind == RELKIND_PARTITIONED_TABLE || relkind == RELKIND_VIEW ||
		relkind == RELKIND_MATVIEW || relkind == RELKIND_FOREIGN_TABLE || relkind == RELKIND_SEQUENCE;
}

static List *
relations_in(List *schemas)
{
	Relation	catalog = table_open(RelationRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(catalog, InvalidOid, false, NULL, 0, NULL);
	List	   *relids = NIL;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_class relation = (Form_pg_class) GETSTRUCT(tuple);

		if (list_member_oid(schemas, relation->relnamespace) && can_be_read(relation->relkind))
			relids = lappend_oid(relids, relation->oid);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return relids;
}

static List *
relations_outside(Datum names, const char *kind)
{
	Oid			types[2] = {TEXTARRAYOID, TEXTOID};
	Datum		values[2] = {names, CStringGetTextDatum(kind)};
	List	   *relids = NIL;

	if (SPI_execute_with_args("SELECT relid FROM pgtrickle.bound_anew($1) WHERE kind = $2", 2, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not list what reads from swapped schemas");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;

		relids = lappend_oid(relids, DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull)));
	}
	return relids;
}

/* ---- the attempt ---- */

static void
take_locks(void *arg)
{
	SwapLocks  *locks = arg;
	int			limit_ms = Min(LockTimeout, DeadlockTimeout / 2);
	List	   *schemas;

	take_what_was_waited_for(locks);
	locks->until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), limit_ms);
	AcceptInvalidationMessages();
	schemas = schema_oids(locks->names);
	take_all(locks, schemas, NamespaceRelationId, AccessExclusiveLock);
	take_all(locks, relations_in(schemas), RelationRelationId, AccessExclusiveLock);
	take_all(locks, relations_outside(locks->names, "view"), RelationRelationId, AccessExclusiveLock);
	take_all(locks, relations_outside(locks->names, "stream table"), RelationRelationId, ShareRowExclusiveLock);
	take_all(locks, relations_outside(locks->names, "source"), RelationRelationId, ShareRowExclusiveLock);
}

static void
report_failure(SwapLock missing, int limit_ms)
{
	bool		is_schema = missing.classid == NamespaceRelationId;
	char	   *name = is_schema ? get_namespace_name(missing.objid) : get_rel_name(missing.objid);

	if (!is_schema && name != NULL)
		name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(missing.objid)), name);
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("could not lock %s %s within %d ms", is_schema ? "schema" : "relation", name == NULL ? "that is gone" : name, limit_ms),
			 is_schema ? errdetail("Transactions that create relations in it have not ended.")
			 : errdetail("Transactions that have used it have not ended."),
			 errhint("Nothing was swapped. Wait for them or end them, the view pg_locks shows which they are, and try again, or set a longer lock_timeout.")));
}

/* What ALTER SCHEMA ... RENAME asks for. */
static void
check_rights(List *schemas)
{
	AclResult	may_create = compat_database_aclcheck(MyDatabaseId, GetUserId(), ACL_CREATE);
	ListCell   *lc;

	foreach(lc, schemas)
	{
		if (!compat_owns_schema(lfirst_oid(lc), GetUserId()))
			aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_SCHEMA, get_namespace_name(lfirst_oid(lc)));
	}
	if (may_create != ACLCHECK_OK)
		aclcheck_error(may_create, OBJECT_DATABASE, get_database_name(MyDatabaseId));
}

/*
 * pgtrickle.lock_for_swap(schemas text[]) returns void
 *
 * With the caller's rights, to the end of the transaction.
 */
Datum
pgtrickle_lock_for_swap(PG_FUNCTION_ARGS)
{
	SwapLocks	locks = {.names = PG_GETARG_DATUM(0)};
	ErrorData  *error;

	check_rights(schema_oids(locks.names));
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot swap schemas in a transaction with one snapshot"),
				 errdetail("It would not see what has begun to read from them since."),
				 errhint("Use the isolation level READ COMMITTED.")));
	SPI_connect();
	error = try_in_attempts(take_locks, &locks);
	SPI_finish();
	if (error != NULL)
		report_failure(locks.waited_for, LockTimeout);
	PG_RETURN_VOID();
}
