/*
 * delta/ddl_events.c
 *     What the event triggers in sql/45_ddl_events.sql cannot see from SQL.
 *
 * Two questions: does an ALTER TABLE change what a query over the table sees, or what a stream table is; and of which
 * tables was a table a partition or child that no longer is.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_inherits.h"
#include "fmgr.h"
#include "funcapi.h"
#include "nodes/parsenodes.h"
#include "tcop/deparse_utility.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"

#include "compat.h"

PG_FUNCTION_INFO_V1(pgtrickle_ddl_effect);
PG_FUNCTION_INFO_V1(pgtrickle_former_ancestors);

/* What a command means for those who read the table; the greatest of its subcommands counts. */
typedef enum DdlEffect
{
	DDL_HARMLESS, /* queries over the table give the same rows as before */
	DDL_RELATION, /* they may not */
	DDL_STREAM_TABLE /* nor could a stream table stand it: its columns or its guard change */
} DdlEffect;

static const char *const effect_names[] = {
	[DDL_HARMLESS] = "harmless",
	[DDL_RELATION] = "relation",
	[DDL_STREAM_TABLE] = "stream_table",
};

/*
 * Unknown subcommands count as changing the relation: a needless refresh is cheap, a missed one is wrong.
 */
static DdlEffect
subcommand_effect(AlterTableCmd *command)
{
	switch (compat_alter_table_type(command->subtype))
	{
		case AT_ColumnDefault:
		case AT_SetStatistics:
		case AT_SetOptions:
		case AT_ResetOptions:
		case AT_SetStorage:
		case AT_SetCompression:
		case AT_AddIndex:
		case AT_ReAddIndex:
		case AT_AddIndexConstraint:
		case AT_ValidateConstraint:
		case AT_SetNotNull:
		case AT_ClusterOn:
		case AT_DropCluster:
		case AT_SetRelOptions:
		case AT_ResetRelOptions:
		case AT_ReplaceRelOptions:
		case AT_ReplicaIdentity:
		case AT_ChangeOwner:
		case AT_SetTableSpace:
		case AT_SetLogged:
			return DDL_HARMLESS;

		case AT_AddConstraint:
			/* foreign keys act through triggers, which refreshes do not fire */
			if (command->def != NULL && IsA(command->def, Constraint) &&
				castNode(Constraint, command->def)->contype == CONSTR_FOREIGN)
				return DDL_STREAM_TABLE;
			return DDL_HARMLESS;

		case AT_EnableTrig:
		case AT_EnableAlwaysTrig:
		case AT_EnableReplicaTrig:
		case AT_EnableTrigAll:
		case AT_EnableTrigUser:
			return DDL_HARMLESS;

		case AT_AddColumn:
		case AT_DropColumn:
		case AT_AlterColumnType:
		case AT_AddInherit:
		case AT_DropInherit:
		case AT_AddOf:
		case AT_AttachPartition:
		case AT_DetachPartition:
		case AT_SetUnLogged:
			return DDL_STREAM_TABLE;

		default:
			return DDL_RELATION;
	}
}

/* Switching triggers off is harmless for readers of any other table, but not for a stream table. */
static bool
subcommand_disables_guard(AlterTableCmd *command)
{
	return command->subtype == AT_DisableTrig || command->subtype == AT_DisableTrigAll ||
		   command->subtype == AT_DisableTrigUser;
}

/*
 * pgtrickle.ddl_effect(command pg_ddl_command, on_stream_table boolean) returns text
 *
 * 'harmless', 'relation' or 'stream_table'.  Commands that are not ALTER TABLE with subcommands (renames, views, ...) are 'relation'.
 */
Datum
pgtrickle_ddl_effect(PG_FUNCTION_ARGS)
{
	CollectedCommand *command = (CollectedCommand *) PG_GETARG_POINTER(0);
	bool			  on_stream_table = PG_GETARG_BOOL(1);
	DdlEffect		  effect = DDL_RELATION;
	ListCell		 *lc;

	if (command->type == SCT_AlterTable)
	{
		effect = DDL_HARMLESS;
		foreach(lc, command->d.alterTable.subcmds)
		{
			CollectedATSubcmd *collected = (CollectedATSubcmd *) lfirst(lc);
			AlterTableCmd	  *subcommand = castNode(AlterTableCmd, collected->parsetree);
			DdlEffect		   its_effect = subcommand_effect(subcommand);

			if (subcommand_disables_guard(subcommand))
				its_effect = on_stream_table ? DDL_STREAM_TABLE : DDL_HARMLESS;
			effect = Max(effect, its_effect);
		}
	}
	PG_RETURN_TEXT_P(cstring_to_text(effect_names[effect]));
}

/* The parents that pg_inherits names for a table, or named before they were deleted. */
static List *
parents_of(Relation pg_inherits, Oid relid)
{
	List	   *parents = NIL;
	ScanKeyData key;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));

	SysScanDesc scan =
		systable_beginscan(pg_inherits, InheritsRelidSeqnoIndexId, true, SnapshotAny, 1, &key);

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		parents = list_append_unique_oid(parents, ((Form_pg_inherits) GETSTRUCT(tuple))->inhparent);
	systable_endscan(scan);
	return parents;
}

/*
 * pgtrickle.former_ancestors(relid oid) returns setof oid
 *
 * The tables of which a table is a partition or child, or was before the current command dropped it or took it out: then its
 * rows in pg_inherits are deleted, but cannot have been vacuumed.  SnapshotAny may find parents of an older time as
 * well; they are refreshed once without need.
 */
Datum
pgtrickle_former_ancestors(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	List		  *ancestors = list_make1_oid(PG_GETARG_OID(0));
	Relation	   pg_inherits;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	pg_inherits = table_open(InheritsRelationId, AccessShareLock);
	/* the list grows while we walk it */
	for (int i = 0; i < list_length(ancestors); i++)
		ancestors =
			list_concat_unique_oid(ancestors, parents_of(pg_inherits, list_nth_oid(ancestors, i)));
	table_close(pg_inherits, AccessShareLock);

	for (int i = 1; i < list_length(ancestors); i++)
	{
		Datum value = ObjectIdGetDatum(list_nth_oid(ancestors, i));
		bool  isnull = false;

		tuplestore_putvalues(result->setResult, result->setDesc, &value, &isnull);
	}
	return (Datum) 0;
}
