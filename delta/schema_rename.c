/*
 * delta/schema_rename.c
 *     A schema gets another name: the queries of stream tables that name it.
 *
 * Sources are known by name, so after ALTER SCHEMA ... RENAME a query means what then stands under the old name, as after ALTER TABLE ...
 * RENAME.  But a stream table that is itself in that schema moves with everything around it, and its query with it: the event trigger
 * calls rename_schema_in_query() for those.  Owners call it, through follow_schema(), for the others.
 *
 * A query is kept as text, and in a text "a." may be a schema, an alias or part of a string.  So it is the server that reads and prints
 * it.  To be read, the schema needs its old name, to be printed the new one: it is called by the old one for a moment, in our own
 * transaction, where nobody else sees it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/schemacmds.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/deparse_utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/resowner.h"

#include "compat.h"
#include "privileged.h"
#include "query.h"
#include "run.h"
#include "run_owner.h"
#include "sources.h"

PG_FUNCTION_INFO_V1(pgtrickle_renamed_schema);
PG_FUNCTION_INFO_V1(pgtrickle_rename_schema_in_query);

/*
 * pgtrickle.renamed_schema(command pg_ddl_command) returns text
 *
 * The name that a schema had before the command, null if the command is about something else.
 */
Datum
pgtrickle_renamed_schema(PG_FUNCTION_ARGS)
{
	CollectedCommand *command = (CollectedCommand *) PG_GETARG_POINTER(0);
	RenameStmt		 *rename;

	if (command->type != SCT_Simple || !IsA(command->parsetree, RenameStmt))
		PG_RETURN_NULL();
	rename = castNode(RenameStmt, command->parsetree);
	if (rename->renameType != OBJECT_SCHEMA)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(rename->subname));
}

static LoadedTable *
read_definition_of_owner(int64 pgt_id)
{
	LoadedTable *table = table_definition(pgt_id);

	if (!compat_owns_relation(table->relid, GetUserId()))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("must be owner of stream table \"%s\"", table->qualified_name)));
	return table;
}

static void
check_schemas(const char *old_name, const char *new_name)
{
	Oid new_id = get_namespace_oid(new_name, false);

	if (compat_schema_aclcheck(new_id, GetUserId(), ACL_USAGE) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_SCHEMA, new_name);
	if (strncmp(new_name, "pg_", 3) == 0 || strcmp(new_name, "pgtrickle") == 0 || strcmp(new_name, "information_schema") == 0)
		ereport(ERROR, (errcode(ERRCODE_RESERVED_NAME), errmsg("schema \"%s\" cannot have had another name", new_name)));
	if (OidIsValid(get_namespace_oid(old_name, true)))
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_SCHEMA),
						errmsg("schema \"%s\" exists", old_name),
						errdetail("Queries that name it read what is in it."),
						errhint("Give the stream table another query with pgtrickle.alter_stream_table().")));
}

static void
call_schema(const char *old_name, const char *new_name)
{
	PrivilegedSection section;

	privileged_begin(&section);
	(void) RenameSchema(old_name, new_name);
	CommandCounterIncrement();
	privileged_end(&section);
}

/* Then it does not name the schema by its old name, whatever its text looks like. */
static bool
can_be_read_as_it_is(LoadedTable *table)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool can = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		OwnerScope scope;

		owner_scope_enter(&scope, table);
		(void) query_analyze(table->defining_query);
		owner_scope_leave(&scope);
		can = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		FlushErrorState();
	}
	PG_END_TRY();
	/* also lets go of locks, and puts the user back after an error */
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return can;
}

static char *
query_with_new_name(LoadedTable *table, const char *old_name, const char *new_name)
{
	OwnerScope scope;
	Query	  *query;
	char	  *text;

	call_schema(new_name, old_name);
	owner_scope_enter(&scope, table);
	query = query_analyze(table->defining_query);
	owner_scope_leave(&scope);
	call_schema(old_name, new_name);
	owner_scope_enter(&scope, table);
	text = query_normalize(query_print(query));
	owner_scope_leave(&scope);
	return text;
}

static void
store_query(int64 pgt_id, const char *text)
{
	Oid	  types[] = {INT8OID, TEXTOID};
	Datum values[] = {Int64GetDatum(pgt_id), CStringGetTextDatum(text)};

	if (SPI_execute_with_args("UPDATE pgtrickle.pgt_definitions SET defining_query = $2, updated_at = pg_catalog.clock_timestamp()"
							  " WHERE pgt_id = $1",
							  2, types, values, NULL, false, 0) != SPI_OK_UPDATE ||
		SPI_execute("SELECT pgtrickle.definitions_changed()", false, 0) != SPI_OK_SELECT ||
		SPI_execute_with_args("SELECT pgtrickle.rebind_sources($1)", 1, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not change the query of stream table %lld", (long long) pgt_id);
}

/*
 * pgtrickle.rename_schema_in_query(pgt_id bigint, old_name text, new_name text) returns boolean
 *
 * False: the query of the stream table does not name the schema.  Its rows stay; they are compared with the query once, since the program is
 * another one.
 */
Datum
pgtrickle_rename_schema_in_query(PG_FUNCTION_ARGS)
{
	int64			  pgt_id = PG_GETARG_INT64(0);
	char			 *old_name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	char			 *new_name = text_to_cstring(PG_GETARG_TEXT_PP(2));
	PrivilegedSection section;
	LoadedTable		 *table;
	char			 *text;

	SPI_connect();
	table = read_definition_of_owner(pgt_id);
	check_schemas(old_name, new_name);
	if (strstr(table->defining_query, psprintf("%s.", quote_identifier(old_name))) == NULL || can_be_read_as_it_is(table))
	{
		SPI_finish();
		PG_RETURN_BOOL(false);
	}
	text = query_with_new_name(table, old_name, new_name);
	privileged_begin(&section);
	store_query(pgt_id, text);
	privileged_end(&section);
	SPI_finish();
	PG_RETURN_BOOL(true);
}
