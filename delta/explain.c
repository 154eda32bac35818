/*
 * delta/explain.c
 *     Shows what a query or a stream table's program is made of.
 *
 * Statements are printed as they run, for the case that all inputs have changed; a tick leaves out the terms whose inputs are empty.
 */
#include "postgres.h"

#include "block.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "program.h"
#include "run.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(pgtrickle_analyze_query);
PG_FUNCTION_INFO_V1(pgtrickle_normalize_query);
PG_FUNCTION_INFO_V1(pgtrickle_program_report);

static void
add_row(ReturnSetInfo *rsinfo, int natts, const char *first, const char *second, const char *third)
{
	Datum		values[3] = {0};
	bool		nulls[3] = {true, true, true};
	const char *texts[3] = {first, second, third};

	for (int i = 0; i < natts; i++)
	{
		nulls[i] = texts[i] == NULL;
		if (!nulls[i])
			values[i] = CStringGetTextDatum(texts[i]);
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static char *
column_names(DeltaProgram *program, List *attnos)
{
	StringInfoData text;
	ListCell   *lc;

	initStringInfo(&text);
	foreach(lc, attnos)
		appendStringInfo(&text, "%s%s", text.len > 0 ? ", " : "",
						 quote_identifier(NameStr(TupleDescAttr(program->tupdesc, lfirst_int(lc) - 1)->attname)));
	return text.data;
}

static char *
key_description(DeltaProgram *program)
{
	if (program->single_row)
		return pstrdup("one row");
	if (program->key == NIL)
		return pstrdup("the whole row (a bag, found by its hash)");
	return column_names(program, program->key);
}

Datum
pgtrickle_analyze_query(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char	   *query = text_to_cstring(PG_GETARG_TEXT_PP(0));
	DeltaProgram *program;
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	program = program_compile(query, CurrentMemoryContext);
	add_row(rsinfo, 3, "syntax", "valid", "INFO");
	add_row(rsinfo, 3, "refresh_mode", program->full_reason ? "FULL" : "DIFFERENTIAL",
			program->full_reason ? "WARNING" : "INFO");
	if (program->full_reason != NULL)
		add_row(rsinfo, 3, "full_refresh_reason", program->full_reason, "WARNING");
	foreach(lc, program->sources)
	{
		ProgramSource *source = lfirst(lc);

		add_row(rsinfo, 3, "source", quote_qualified_identifier(source->schema_name, source->relation_name), "INFO");
	}
	if (program->full_reason == NULL)
	{
		add_row(rsinfo, 3, "row_identity", key_description(program), "INFO");
		add_row(rsinfo, 3, "state_tables", psprintf("%d", list_length(program->states)), "INFO");
	}
	return (Datum) 0;
}

Datum
pgtrickle_normalize_query(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(query_normalize(text_to_cstring(PG_GETARG_TEXT_PP(0)))));
}

static char *
step_sql(LoadedTable *table, ProgramStep *step)
{
	char	   *body;

	if (step->kind == STEP_MERGE)
		return psprintf("(merges %s into pgtrickle.%s)",
						((ProgramRowset *) list_nth(table->program->rowsets, step->inputs[0]))->name,
						program_state_table_name(table->pgt_id, step->state->number));
	if (step->kind == STEP_QUERY)
		body = step->print(step, ((UINT64CONST(1) << step->ninputs) - 1) | (step->follows_time ? STEP_TIME_PASSED : 0));
	else
		body = step->print_recompute(step, ((ProgramRowset *) list_nth(table->program->rowsets, step->inputs[0]))->name, 0);
	return psprintf("%s%s", program_state_binding(step->states_read, table->pgt_id), body);
}

static void
report_program(ReturnSetInfo *rsinfo, LoadedTable *table)
{
	DeltaProgram *program = table->program;
	ListCell   *lc;

	foreach(lc, program->sources)
	{
		ProgramSource *source = lfirst(lc);

		add_row(rsinfo, 2, "source", quote_qualified_identifier(source->schema_name, source->relation_name), NULL);
	}
	if (program->full_reason != NULL)
	{
		add_row(rsinfo, 2, "strategy", "full refresh, difference applied", NULL);
		add_row(rsinfo, 2, "full_refresh_reason", program->full_reason, NULL);
		return;
	}
	add_row(rsinfo, 2, "row_identity", key_description(program), NULL);
	foreach(lc, program->states)
		add_row(rsinfo, 2, "state_table",
				psprintf("pgtrickle.%s", program_state_table_name(table->pgt_id, ((ProgramState *) lfirst(lc))->number)),
				NULL);
	foreach(lc, program->steps)
	{
		ProgramStep *step = lfirst(lc);
		int			number = foreach_current_index(lc) + 1;

		add_row(rsinfo, 2, psprintf("step %d", number),
				psprintf("%s: %s -> %s", step->operator_name, step->strategy,
						 ((ProgramRowset *) list_nth(program->rowsets, step->output))->name), NULL);
		add_row(rsinfo, 2, psprintf("step %d sql", number), step_sql(table, step), NULL);
	}
	add_row(rsinfo, 2, "apply", psprintf("%s by %s",
										 ((ProgramRowset *) list_nth(program->rowsets, program->result))->name,
										 key_description(program)), NULL);
}

Datum
pgtrickle_program_report(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	LoadedTable *table;

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	table = table_load(PG_GETARG_INT64(0));
	if (table == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("stream table " INT64_FORMAT " does not exist", PG_GETARG_INT64(0))));
	add_row(rsinfo, 2, "name", table->qualified_name, NULL);
	add_row(rsinfo, 2, "defining_query", table->defining_query, NULL);
	if (strcmp(table->program->run_query, table->program->defining_query) != 0)
		add_row(rsinfo, 2, "runs_as", table->program->run_query, NULL);
	report_program(rsinfo, table);
	SPI_finish();
	return (Datum) 0;
}
