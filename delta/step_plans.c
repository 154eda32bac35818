/*
 * delta/step_plans.c
 *     The plans by which the steps of a stream table's program would run.
 *
 * For each source in turn, as if a thousandth of it had changed and nothing else: the same plans that index_advice.c looks at, here shown to people.
 * EXPLAIN is a statement like any other to SPI, and finds the rowsets under their names as the steps themselves do; nothing is run.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "privileged.h"
#include "run.h"
#include "stream_table.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(pgtrickle_step_plans);

typedef struct PlanReport
{
	ReturnSetInfo *rsinfo;
	Oid			changed_relid;
} PlanReport;

static char *
explain(const char *sql)
{
	StringInfoData text;

	initStringInfo(&text);
	if (SPI_execute(psprintf("EXPLAIN %s", sql), false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not explain a step");
	for (uint64 i = 0; i < SPI_processed; i++)
		appendStringInfo(&text, "%s%s", i > 0 ? "\n" : "", SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
	return text.data;
}

/* changed, step, plan */
static void
report_step(void *arg, LoadedTable *table, int step_no, uint64 variant, PlannedStmt *plan)
{
	PlanReport *report = arg;
	MemoryContext oldcontext = CurrentMemoryContext;
	Datum		values[3];
	bool		nulls[3] = {false};

	values[0] = CStringGetTextDatum(quote_qualified_identifier(get_namespace_name(get_rel_namespace(report->changed_relid)),
															   get_rel_name(report->changed_relid)));
	values[1] = Int32GetDatum(step_no + 1);
	values[2] = CStringGetTextDatum(explain(table_step_sql(table, step_no, variant)));
	tuplestore_putvalues(report->rsinfo->setResult, report->rsinfo->setDesc, values, nulls);
	MemoryContextSwitchTo(oldcontext);
}

/* pgtrickle.step_plans(name text): for whoever may read the stream table. */
Datum
pgtrickle_step_plans(PG_FUNCTION_ARGS)
{
	StreamTableName found = stream_table_resolve(text_to_cstring(PG_GETARG_TEXT_PP(0)), STREAM_TABLE_SEE);
	PlanReport	report = {(ReturnSetInfo *) fcinfo->resultinfo, InvalidOid};
	PrivilegedSection section;
	LoadedTable *table;

	InitMaterializedSRF(fcinfo, 0);
	privileged_begin(&section);
	table = table_load(found.pgt_id);
	if (table != NULL)
		cost_visit_each_source(table, report_step, &report, &report.changed_relid);
	privileged_end(&section);
	return (Datum) 0;
}
