/*
 * delta/immediate_install.c
 *     What IMMEDIATE stream tables may read, and the triggers on it.
 *
 * Every table among the sources of some IMMEDIATE stream table, with all its partitions and children, has one set of triggers: statement-level
 * triggers fire for the table that a statement names, whatever partitions the rows are in.  They are internal triggers: pg_dump
 * leaves them out, psql does not show them, and ALTER TABLE ... DISABLE TRIGGER USER does not reach them.  Their names begin with a
 * character that sorts before letters, so that AFTER triggers of users find the stream tables up to date.
 *
 * Which triggers there should be is always worked out from all definitions (immediate_sync_triggers), so whoever changes one
 * need not know what was before.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "immediate_graph.h"
#include "immediate_install.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_func.h"
#include "storage/lmgr.h"
#include "stream_table.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(pgtrickle_immediate_sync_triggers);
PG_FUNCTION_INFO_V1(pgtrickle_immediate_renew_triggers);

#define TRIGGERS_OLD_ROWS 1
#define TRIGGERS_NEW_ROWS 2

/* One of the triggers that a source has. */
typedef struct TriggerKind
{
	const char *name;
	bool		is_row;
	int16		timing;
	int16		events;
	int			transition_tables;
	char		fires;
} TriggerKind;

static const TriggerKind trigger_kinds[] = {
	{"!pgtrickle_before", false, TRIGGER_TYPE_BEFORE,
	TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE | TRIGGER_TYPE_TRUNCATE, 0, TRIGGER_FIRES_ALWAYS},
	{"!pgtrickle_inserted", false, TRIGGER_TYPE_AFTER, TRIGGER_TYPE_INSERT, TRIGGERS_NEW_ROWS, TRIGGER_FIRES_ALWAYS},
	{"!pgtrickle_updated", false, TRIGGER_TYPE_AFTER, TRIGGER_TYPE_UPDATE, TRIGGERS_OLD_ROWS | TRIGGERS_NEW_ROWS, TRIGGER_FIRES_ALWAYS},
	{"!pgtrickle_deleted", false, TRIGGER_TYPE_AFTER, TRIGGER_TYPE_DELETE, TRIGGERS_OLD_ROWS, TRIGGER_FIRES_ALWAYS},
	{"!pgtrickle_truncated", false, TRIGGER_TYPE_AFTER, TRIGGER_TYPE_TRUNCATE, 0, TRIGGER_FIRES_ALWAYS},
	{"!pgtrickle_applied", true, TRIGGER_TYPE_AFTER,
	TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE, 0, TRIGGER_FIRES_ON_REPLICA},
};

/* ---- what may be read ---- */

static void
refuse(const char *stream_table_name, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("stream table \"%s\" cannot be IMMEDIATE", stream_table_name),
			 errdetail_internal("%s", detail),
			 errhint("%s", hint)));
}

static const char *const schedule_hint = "Use refresh_mode => 'AUTO' with schedule => 'continuous'.";

static bool
has_parent(Oid relid)
{
	Relation	catalog = table_open(InheritsRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	bool		found;

	ScanKeyInit(&key, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(catalog, InheritsRelidSeqnoIndexId, true, NULL, 1, &key);
	found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return found;
}

/* Whoever maintains a stream table in a writer's statement can make that statement fail, or take long. */
static void
check_trigger_right(ProgramSource *source, const char *name, Oid role)
{
	if (pg_class_aclcheck(source->relid, role, ACL_TRIGGER) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s", source->relation_name),
				 errdetail("An IMMEDIATE stream table needs the privilege TRIGGER on its sources; \"%s\" is to be one.", name),
				 errhint("GRANT TRIGGER ON %s TO %s.",
						 quote_qualified_identifier(source->schema_name, source->relation_name),
						 quote_identifier(GetUserNameFromId(role, false)))));
}

static void
check_source(ProgramSource *source, const char *name, Oid role)
{
	char		relkind = get_rel_relkind(source->relid);
	int64		upstream_id;
	ListCell   *lc;

	if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE)
		refuse(name, psprintf("\"%s\" is not a table, so it has no triggers that could tell of its changes.", source->relation_name),
			   schedule_hint);
	upstream_id = stream_table_id_of_relation(source->relid);
	if (upstream_id != 0 && immediate_table(upstream_id) == NULL)
		refuse(name, psprintf("It reads stream table \"%s\", which is refreshed on schedule.", source->relation_name),
			   "Make that one IMMEDIATE first, or give this one a schedule.");
	if (upstream_id == 0)
		check_trigger_right(source, name, role);
	if (has_parent(source->relid))
		refuse(name, psprintf("\"%s\" is a partition or child of another table, through which its rows may be written.", source->relation_name),
			   "Read the table at the top, with a condition on the rows, or give the stream table a schedule.");
	foreach(lc, find_all_inheritors(source->relid, AccessShareLock, NULL))
	{
		if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_FOREIGN_TABLE)
			refuse(name, psprintf("\"%s\" has partitions on other servers.", source->relation_name), schedule_hint);
	}
}

void
immediate_check(DeltaProgram *program, const char *stream_table_name, Oid role)
{
	ListCell   *lc;

	if (program->full_reason != NULL)
		refuse(stream_table_name, psprintf("The defining query cannot be maintained by delta: %s.", program->full_reason),
			   "Use refresh_mode => 'AUTO' or 'FULL', or change the query.");
	if (program->clock_reason != NULL || program->follows_time)
		refuse(stream_table_name, psprintf("Its rows change without any change in its sources: %s.",
										   program->clock_reason ? program->clock_reason : "a condition on the moment"),
			   schedule_hint);
	foreach(lc, program->rowsets)
	{
		ProgramRowset *rowset = lfirst(lc);

		if (rowset->source_only)
			refuse(stream_table_name, psprintf("It reads ONLY \"%s\"; triggers cannot tell its rows from those of its children.",
											   get_rel_name(rowset->source_relid)), schedule_hint);
	}
	foreach(lc, program->sources)
		check_source(lfirst(lc), stream_table_name, role);
}

/* ---- triggers ---- */

static Oid
trigger_function(void)
{
	List	   *name = list_make2(makeString(pstrdup("pgtrickle")), makeString(pstrdup("immediate_trigger")));

	return LookupFuncName(name, 0, NULL, false);
}

static List *
transition_relations(int which)
{
	List	   *relations = NIL;

	for (int bit = TRIGGERS_OLD_ROWS; bit <= TRIGGERS_NEW_ROWS; bit <<= 1)
	{
		TriggerTransition *transition;

		if ((which & bit) == 0)
			continue;
		transition = makeNode(TriggerTransition);
		transition->name = pstrdup(bit == TRIGGERS_OLD_ROWS ? "pgtrickle_old" : "pgtrickle_new");
		transition->isNew = bit == TRIGGERS_NEW_ROWS;
		transition->isTable = true;
		relations = lappend(relations, transition);
	}
	return relations;
}

static void
create_trigger(Oid relid, const TriggerKind *kind)
{
	CreateTrigStmt *statement = makeNode(CreateTrigStmt);

	statement->trigname = pstrdup(kind->name);
	statement->relation = NULL;
	statement->funcname = list_make2(makeString(pstrdup("pgtrickle")), makeString(pstrdup("immediate_trigger")));
	statement->row = kind->is_row;
	statement->timing = kind->timing;
	statement->events = kind->events;
	statement->transitionRels = transition_relations(kind->transition_tables);
	(void) CreateTriggerFiringOn(statement, NULL, relid, InvalidOid, InvalidOid, InvalidOid, trigger_function(), InvalidOid,
								 NULL, true, false, kind->fires);
}

static void
create_triggers(Oid relid)
{
	for (int i = 0; i < (int) lengthof(trigger_kinds); i++)
	{
		/* a row-level trigger of a partitioned table would be copied to its partitions, which have their own */
		if (trigger_kinds[i].is_row && get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE)
			continue;
		create_trigger(relid, &trigger_kinds[i]);
	}
	CommandCounterIncrement();
}

/* The tables that have our triggers. */
static List *
relations_with_triggers(void)
{
	Relation	catalog = table_open(TriggerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(catalog, InvalidOid, false, NULL, 0, NULL);
	Oid			function = trigger_function();
	List	   *relids = NIL;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);

		if (trigger->tgfoid == function && trigger->tgisinternal)
			relids = list_append_unique_oid(relids, trigger->tgrelid);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return relids;
}

static void
drop_triggers(Oid relid)
{
	Relation	catalog;
	ScanKeyData key;
	SysScanDesc scan;
	Oid			function = trigger_function();
	ObjectAddresses *dropped = new_object_addresses();
	HeapTuple	tuple;

	/* before the catalog is read: it may be dropped at the moment */
	LockRelationOid(relid, AccessExclusiveLock);
	catalog = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(catalog, TriggerRelidNameIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_trigger trigger = (Form_pg_trigger) GETSTRUCT(tuple);
		ObjectAddress address;

		if (trigger->tgfoid != function || !trigger->tgisinternal)
			continue;
		ObjectAddressSet(address, TriggerRelationId, trigger->oid);
		add_exact_object_address(&address, dropped);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	performMultipleDeletions(dropped, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
	CommandCounterIncrement();
}

/* The tables that must have triggers: the sources, stream tables left out, with what is below them. */
static List *
relations_to_watch(void)
{
	List	   *tables = immediate_tables();
	List	   *stream_tables = NIL;
	List	   *relids = NIL;
	ListCell   *lc;

	foreach(lc, tables)
		stream_tables = lappend_oid(stream_tables, ((ImmediateTable *) lfirst(lc))->relid);
	foreach(lc, tables)
	{
		ListCell   *source_cell;

		foreach(source_cell, ((ImmediateTable *) lfirst(lc))->source_relids)
		{
			Oid			relid = lfirst_oid(source_cell);

			/* a source that was dropped is still in the catalog */
			if (!list_member_oid(stream_tables, relid) && get_rel_name(relid) != NULL)
				relids = list_concat_unique_oid(relids, find_all_inheritors(relid, AccessShareLock, NULL));
		}
	}
	list_sort(relids, list_oid_cmp);
	return relids;
}

List *
immediate_triggers_to_drop(void)
{
	return list_difference_oid(relations_with_triggers(), relations_to_watch());
}

void
immediate_sync_triggers(void)
{
	List	   *wanted = relations_to_watch();
	List	   *have = relations_with_triggers();
	ListCell   *lc;

	foreach(lc, wanted)
	{
		if (!list_member_oid(have, lfirst_oid(lc)))
			create_triggers(lfirst_oid(lc));
	}
	foreach(lc, have)
	{
		if (!list_member_oid(wanted, lfirst_oid(lc)))
			drop_triggers(lfirst_oid(lc));
	}
}

/*
 * pgtrickle.immediate_renew_triggers(relid oid) returns void
 *
 * For a table of which somebody has disabled all triggers, or enabled them in another way.
 */
Datum
pgtrickle_immediate_renew_triggers(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);

	drop_triggers(relid);
	create_triggers(relid);
	PG_RETURN_VOID();
}

/* pgtrickle.immediate_sync_triggers() returns void */
Datum
pgtrickle_immediate_sync_triggers(PG_FUNCTION_ARGS)
{
	CommandCounterIncrement();
	immediate_sync_triggers();
	PG_RETURN_VOID();
}
