/*
 * delta/replica_identity.c
 *     Makes sources log the old row of an update or delete.
 *
 * A delta is -old +new, and the WAL has the old row only with REPLICA IDENTITY FULL.  Without it nothing goes wrong: the first update or delete
 * comes without its old row and the stream table is filled again, at the cost of a full refresh each time.
 *
 * ALTER TABLE takes an exclusive lock until the caller commits; a lock timeout keeps it from queueing behind a long transaction.
 * Replica identity is not inherited, so every leaf of a partitioned source gets its own.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "compat.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "replica_identity.h"
#include "settings.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

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

static void
set_identity(Oid relid)
{
	int			nest_level = NewGUCNestLevel();

	if (pgtrickle_replica_identity_lock_timeout_ms > 0)
		(void) set_config_option("lock_timeout", psprintf("%dms", pgtrickle_replica_identity_lock_timeout_ms),
								 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	if (SPI_execute(alter_statement(relid), false, 0) < 0)
		elog(ERROR, "could not set the replica identity of \"%s\"", get_rel_name(relid));
	AtEOXact_GUC(false, nest_level);
}

static void
require_one(Oid relid)
{
	if (logs_old_rows(relid) || pgtrickle_replica_identity == REPLICA_IDENTITY_OFF)
		return;
	if (pgtrickle_replica_identity == REPLICA_IDENTITY_REQUIRE)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("source \"%s\" does not log old rows", get_rel_name(relid)),
				 errdetail("pgtrickle.replica_identity is \"require\"."),
				 errhint("Let its owner run: %s;", alter_statement(relid))));
	if (compat_owns_relation(relid, GetUserId()))
		set_identity(relid);
	else
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("source \"%s\" does not log old rows", get_rel_name(relid)),
				 errdetail("Each tick with an update or delete of it will refresh the stream table in full."),
				 errhint("Let its owner run: %s;", alter_statement(relid))));
}

void
replica_identity_require(DeltaProgram *program)
{
	ListCell   *lc;

	if (program->full_reason != NULL)
		return;
	foreach(lc, program->sources)
	{
		ProgramSource *source = lfirst(lc);
		ListCell   *child;

		if (!source->by_delta)
			continue;
		foreach(child, find_all_inheritors(source->relid, AccessShareLock, NULL))
			require_one(lfirst_oid(child));
	}
}
