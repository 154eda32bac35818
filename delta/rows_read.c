/*
 * delta/rows_read.c
 *     Of which sources a delta program reads rows, and of which only changes.
 *
 * A filter or an algebraic aggregate over one table computes its delta from the changes alone; a join looks rows of the other side up, a
 * minimum that went is looked for among those that are left.  Programs are texts, so the statements are asked: does one of them name the source?
 * Statements differ with the set of inputs that have changed; all of them one by one, and all together, name everything that any set does.
 * A full refresh reads all sources.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "privileged.h"
#include "rows_read.h"
#include "run.h"
#include "stream_table.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(pgtrickle_rows_read);

static bool
continues_name(char c)
{
	return c == '_' || c == '$' || c == '"' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		(c & 0x80) != 0;
}

static bool
names(const char *sql, const char *relation)
{
	size_t		length = strlen(relation);

	for (const char *found = strstr(sql, relation); found != NULL; found = strstr(found + 1, relation))
	{
		if (!continues_name(found[length]) && (found == sql || !continues_name(found[-1])))
			return true;
	}
	return false;
}

static bool
step_names(LoadedTable *table, int step_no, const char *relation)
{
	ProgramStep *step = list_nth(table->program->steps, step_no);

	if (step->kind == STEP_MERGE)
		return false;
	if (step->kind == STEP_REPLACE)
		return names(table_step_sql(table, step_no, 0), relation);
	for (int i = 0; i < step->ninputs; i++)
	{
		if (names(table_step_sql(table, step_no, UINT64CONST(1) << i), relation))
			return true;
	}
	return names(table_step_sql(table, step_no, (UINT64CONST(1) << step->ninputs) - 1), relation);
}

/* "join, aggregate": the operators whose steps read rows of the relation; empty: none does. */
static char *
operators_reading(LoadedTable *table, const char *relation)
{
	StringInfoData operators;

	initStringInfo(&operators);
	for (int i = 0; i < list_length(table->program->steps); i++)
	{
		ProgramStep *step = list_nth(table->program->steps, i);

		if (step_names(table, i, relation) && !names(operators.data, step->operator_name))
			appendStringInfo(&operators, "%s%s", operators.len > 0 ? ", " : "", step->operator_name);
	}
	return operators.data;
}

bool
program_reads_rows(LoadedTable *table, Oid relid)
{
	ListCell   *lc;

	if (table->program->full_reason != NULL)
		return true;
	foreach(lc, table->program->sources)
	{
		ProgramSource *source = lfirst(lc);

		if (source->relid == relid &&
			operators_reading(table, quote_qualified_identifier(source->schema_name, source->relation_name))[0] != '\0')
			return true;
	}
	return false;
}

/* pgtrickle.rows_read(name text) returns table (source_relid oid, operators text), for whoever may read the stream table. */
Datum
pgtrickle_rows_read(PG_FUNCTION_ARGS)
{
	StreamTableName found = stream_table_resolve(text_to_cstring(PG_GETARG_TEXT_PP(0)), STREAM_TABLE_SEE);
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	PrivilegedSection section;
	LoadedTable *table;
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	privileged_begin(&section);
	table = table_load(found.pgt_id);
	foreach(lc, table == NULL ? NIL : table->program->sources)
	{
		ProgramSource *source = lfirst(lc);
		char	   *operators = table->program->full_reason != NULL ? psprintf("full refresh: %s", table->program->full_reason)
			: operators_reading(table, quote_qualified_identifier(source->schema_name, source->relation_name));
		Datum		values[2] = {ObjectIdGetDatum(source->relid), CStringGetTextDatum(operators)};
		bool		nulls[2] = {false, false};

		if (operators[0] != '\0')
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	privileged_end(&section);
	return (Datum) 0;
}
