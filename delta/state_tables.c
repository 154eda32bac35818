/*
 * delta/state_tables.c
 *     The internal tables behind a program's grouping nodes.
 *
 * One table per node: the group's keys, its number of rows, and what its aggregates need.  They belong to the extension's owner, in
 * its schema, readable by the stream table's owner, whose statements name them.
 */
#include "postgres.h"

#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "state_tables.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

static void
execute(const char *sql)
{
	int			result = SPI_execute(sql, false, 0);

	if (result < 0)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(result));
}

static char *
qualified_state(int64 pgt_id, ProgramState *state)
{
	return psprintf("pgtrickle.%s", quote_identifier(program_state_table_name(pgt_id, state->number)));
}

static char *
column_list(ProgramState *state)
{
	StringInfoData columns;
	ListCell   *lc;

	initStringInfo(&columns);
	foreach(lc, state->columns)
	{
		StateColumn *column = lfirst(lc);

		appendStringInfo(&columns, "%s%s %s", columns.len > 0 ? ", " : "", quote_identifier(column->name),
						 format_type_extended(column->type, column->typmod,
											  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
		if (OidIsValid(column->collation))
			appendStringInfo(&columns, " COLLATE %s", generate_collation_name(column->collation));
	}
	return columns.data;
}

/* DROP EXTENSION takes the table along, although it is no member (pg_dump would skip those, and nobody could drop one alone). */
static void
tie_to_extension(const char *table_name)
{
	ObjectAddress table;
	ObjectAddress extension;

	ObjectAddressSet(table, RelationRelationId, get_relname_relid(table_name, get_namespace_oid("pgtrickle", false)));
	ObjectAddressSet(extension, ExtensionRelationId, get_extension_oid("pgtrickle", false));
	recordDependencyOn(&table, &extension, DEPENDENCY_AUTO);
}

static void
create_one(ProgramState *state, int64 pgt_id, const char *reader)
{
	char	   *table = qualified_state(pgt_id, state);

	execute(psprintf("CREATE TABLE %s (%s) WITH (fillfactor = 80)", table, column_list(state)));
	tie_to_extension(program_state_table_name(pgt_id, state->number));
	execute(psprintf("REVOKE ALL ON %s FROM PUBLIC", table));
	execute(psprintf("GRANT SELECT ON %s TO %s", table, reader));
	execute(psprintf("INSERT INTO pgtrickle.pgt_state_tables (pgt_id, node_no, relid, fingerprint)"
					 " VALUES (" INT64_FORMAT ", %d, %s::pg_catalog.regclass, '')",
					 pgt_id, state->number, quote_literal_cstr(table)));
}

void
state_tables_create(DeltaProgram *program, int64 pgt_id, Oid reader)
{
	ListCell   *lc;

	foreach(lc, program->states)
		create_one(lfirst(lc), pgt_id, quote_identifier(GetUserNameFromId(reader, false)));
}

static char *
column_names(ProgramState *state, int count)
{
	StringInfoData columns;

	initStringInfo(&columns);
	for (int i = 0; i < count; i++)
		appendStringInfo(&columns, "%s%s", i > 0 ? ", " : "",
						 quote_identifier(((StateColumn *) list_nth(state->columns, i))->name));
	return columns.data;
}

void
state_tables_create_indexes(DeltaProgram *program, int64 pgt_id)
{
	ListCell   *lc;

	foreach(lc, program->states)
	{
		ProgramState *state = lfirst(lc);
		char	   *index_name;
		Oid			index;
		ListCell   *column;

		foreach(column, state->probe_columns)
			execute(psprintf("CREATE INDEX ON %s (%s)", qualified_state(pgt_id, state),
							 quote_identifier(((StateColumn *) list_nth(state->columns, lfirst_int(column) - 1))->name)));
		if (state->nkeys == 0 && !state->is_bag)
			continue;
		index_name = psprintf("%s_key", program_state_table_name(pgt_id, state->number));
		if (state->is_bag && state->nkeys == 0)
			execute(psprintf("CREATE INDEX %s ON %s (pgtrickle.row_hash(ROW(%s)))", quote_identifier(index_name),
							 qualified_state(pgt_id, state), column_names(state, list_length(state->columns))));
		else
			execute(psprintf("CREATE %sINDEX %s ON %s (%s)%s", state->is_bag ? "" : "UNIQUE ",
							 quote_identifier(index_name), qualified_state(pgt_id, state),
							 column_names(state, state->nkeys), state->is_bag ? "" : " NULLS NOT DISTINCT"));
		index = get_relname_relid(index_name, get_namespace_oid("pgtrickle", false));
		execute(psprintf("UPDATE pgtrickle.pgt_state_tables SET key_index = %u WHERE pgt_id = " INT64_FORMAT
						 " AND node_no = %d", index, pgt_id, state->number));
		execute(psprintf("ANALYZE %s", qualified_state(pgt_id, state)));
	}
}

void
state_tables_drop(int64 pgt_id)
{
	int			count;
	char	  **names;

	if (SPI_execute(psprintf("SELECT relid::pg_catalog.regclass::pg_catalog.text FROM pgtrickle.pgt_state_tables WHERE pgt_id = "
							 INT64_FORMAT, pgt_id), true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read pgtrickle.pgt_state_tables");
	count = (int) SPI_processed;
	names = palloc(sizeof(char *) * Max(count, 1));
	for (int i = 0; i < count; i++)
		names[i] = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
	for (int i = 0; i < count; i++)
		execute(psprintf("DROP TABLE IF EXISTS %s", names[i]));
	execute(psprintf("DELETE FROM pgtrickle.pgt_state_tables WHERE pgt_id = " INT64_FORMAT, pgt_id));
}
