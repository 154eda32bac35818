/*
 * delta/guard.c
 *     The triggers that keep everybody but the delta programs from writing to a stream table, and everybody but ticks to a copy.
 *
 * BEFORE INSERT, UPDATE, DELETE and TRUNCATE, FOR EACH STATEMENT, ENABLE ALWAYS.  Refreshes write through the table
 * access method, which fires no triggers (apply.c), so this needs no exception for ourselves.
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(pgtrickle_guard);
PG_FUNCTION_INFO_V1(pgtrickle_guard_copies);

static const char *
guarded_command(TriggerEvent event)
{
	if (TRIGGER_FIRED_BY_INSERT(event))
		return "INSERT";
	if (TRIGGER_FIRED_BY_UPDATE(event))
		return "UPDATE";
	if (TRIGGER_FIRED_BY_DELETE(event))
		return "DELETE";
	return "TRUNCATE";
}

Datum
pgtrickle_guard(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function pgtrickle.guard() must be called as a trigger")));

	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	Relation	 relation = trigdata->tg_relation;
	char		*name = psprintf("%s.%s", get_namespace_name(RelationGetNamespace(relation)),
								 RelationGetRelationName(relation));

	ereport(
		ERROR,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		 errmsg("cannot change stream table \"%s\" directly", name),
		 errdetail("%s was refused: the rows of a stream table are those of its defining query.",
				   guarded_command(trigdata->tg_event)),
		 errhint(
			 "Change the tables that its query reads, or drop it with pgtrickle.drop_stream_table(%s)."
			 " An incremental model of dbt replaces it when run with --full-refresh.",
			 quote_literal_cstr(name)),
		 errtable(relation)));
	PG_RETURN_NULL();
}

Datum
pgtrickle_guard_copies(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("function pgtrickle.guard_copies() must be called as a trigger")));

	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	Relation	 relation = trigdata->tg_relation;

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot change table \"%s.%s\": pgtrickle copies are read-only",
					get_namespace_name(RelationGetNamespace(relation)), RelationGetRelationName(relation)),
			 errdetail("%s was refused: the rows are those of a table of another database.",
					   guarded_command(trigdata->tg_event)),
			 errhint("Change the table there, or give the copy up with pgtrickle.drop_copy()."),
			 errtable(relation)));
	PG_RETURN_NULL();
}
