/*
 * delta/immediate_trigger.c
 *     The triggers on sources of IMMEDIATE stream tables.
 *
 * One function for all of them; immediate_install.c says which there are.  Statement-level ones, which fire ALWAYS:
 *
 *     BEFORE                            the statement is open; a MERGE that may move rows to other partitions makes its table unknown
 *     AFTER INSERT, UPDATE, DELETE      its rows are added to the pending deltas, and it is closed
 *     AFTER TRUNCATE                    the source has changed in an unknown way, and it is closed
 *
 * and when nothing is open any more, the pending deltas are used up.  Workers of logical replication apply changes row by row without any
 * statement.  For them there is a row-level trigger that fires only where session_replication_role is `replica`, and does nothing
 * when a statement is open.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "immediate_capture.h"
#include "immediate_graph.h"
#include "immediate_merge.h"
#include "immediate_pending.h"
#include "immediate_run.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(pgtrickle_immediate_trigger);

static void
note_unknown(Relation relation)
{
	ListCell   *lc;

	foreach(lc, immediate_sources_of(RelationGetRelid(relation)))
		pending_note_unknown(lfirst_oid(lc));
}

static void
maintain(void)
{
	List	   *deltas;

	if (pending_is_open())
		return;
	deltas = pending_take();
	if (deltas == NIL)
		return;
	immediate_run(deltas);
	pending_done();
}

static void
before_statement(TriggerData *trigger)
{
	Relation	relation = trigger->tg_relation;

	pending_open(RelationGetRelid(relation), trigger->tg_event);
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) && relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE &&
		immediate_may_be_merge())
		note_unknown(relation);
}

static void
after_statement(TriggerData *trigger)
{
	if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
		note_unknown(trigger->tg_relation);
	else
		immediate_capture(trigger);
	pending_close(RelationGetRelid(trigger->tg_relation), trigger->tg_event);
	maintain();
}

/* pgtrickle.immediate_trigger() returns trigger */
Datum
pgtrickle_immediate_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	/* whoever makes a trigger with this function would show us rows that are none of the source's */
	if (!CALLED_AS_TRIGGER(fcinfo) || !trigger->tg_trigger->tgisinternal)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function pgtrickle.immediate_trigger() must be called by the extension's own triggers")));
	if (TRIGGER_FIRED_BEFORE(trigger->tg_event))
		before_statement(trigger);
	else if (TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event))
		after_statement(trigger);
	else if (!pending_is_open())
	{
		immediate_capture(trigger);
		maintain();
	}
	PG_RETURN_POINTER(NULL);
}
