/*
 * applier/remote_table.c
 *     Reading the definition of a table on a remote, and refusing what cannot be copied.
 *
 * Only tables whose rows are in the WAL can be followed, and only rows that this role may read can be copied: what
 * fails here would otherwise fail after hours of copying, or be missing without a word.
 */
#include "remote_table.h"

#include <stdio.h>

#include "sql_text.h"

/* Types whose values mean nothing outside of their server, or cannot be read in at all. */
static const char *const types_without_input[] = {"pg_node_tree",
												  "pg_ndistinct",
												  "pg_dependencies",
												  "pg_mcv_list",
												  "pg_brin_bloom_summary",
												  "pg_brin_minmax_multi_summary",
												  "aclitem",
												  NULL};

const char *
remote_table_describe(const char *schema, const char *name)
{
	static char description[160];

	snprintf(description, sizeof(description), "%s.%s", schema, name);
	return description;
}

static bool
refuse_kind(const char *kind, const char *schema, const char *name, Error *error)
{
	const char *what = kind[0] == 'v'	? "a view"
					   : kind[0] == 'm' ? "a materialized view"
					   : kind[0] == 'f' ? "a foreign table"
										: "not a table";

	error_set_sqlstate(error, FAIL_FATAL, "42809", "cannot copy \"%s.%s\": it is %s", schema, name,
					   what);
	error_detail(error, "Only tables have their changes in the WAL.");
	error_hint(error, "Copy the tables behind it, and make it again on the target.");
	return false;
}

static bool
check_rights(PGconn *remote, const PGresult *found, const char *schema, const char *name,
			 bool may_select, Error *error)
{
	Text table = {0};
	Text role = {0};
	bool good = false;

	text_append_identifier(&table, remote, schema);
	text_append_char(&table, '.');
	text_append_identifier(&table, remote, name);
	text_append_identifier(&role, remote, PQuser(remote));
	if (!server_field_is_true(found, 0, "may_use_schema"))
	{
		error_set_sqlstate(error, FAIL_FATAL, "42501",
						   "role \"%s\" may not use schema \"%s\" of the remote", PQuser(remote),
						   schema);
		table.length = strlen(table.data);
		error_hint(error, "Run on the remote: GRANT USAGE ON SCHEMA %s TO %s;", schema, role.data);
	}
	else if (!may_select)
	{
		error_set_sqlstate(error, FAIL_FATAL, "42501",
						   "role \"%s\" may not read table \"%s.%s\" of the remote", PQuser(remote),
						   schema, name);
		error_hint(error, "Run on the remote: GRANT SELECT ON %s TO %s;", table.data, role.data);
	}
	else if (server_field_is_true(found, 0, "row_security"))
	{
		error_set_sqlstate(
			error, FAIL_FATAL, "42501",
			"row-level security hides rows of table \"%s.%s\" of the remote from role \"%s\"",
			schema, name, PQuser(remote));
		error_hint(error, "Run on the remote: ALTER ROLE %s BYPASSRLS;", role.data);
	}
	else
		good = true;
	text_free(&table);
	text_free(&role);
	return good;
}

static bool
check_kind(const PGresult *found, const char *schema, const char *name, Error *error)
{
	const char *kind = server_field(found, 0, "relkind");
	const char *persistence = server_field(found, 0, "relpersistence");

	if (strcmp(schema, "pg_catalog") == 0 || strcmp(schema, "information_schema") == 0)
		return error_set_sqlstate(error, FAIL_FATAL, "42809",
								  "cannot copy \"%s.%s\": it belongs to the server", schema, name);
	if (kind[0] != 'r' && kind[0] != 'p')
		return refuse_kind(kind, schema, name, error);
	if (persistence[0] != 'p')
	{
		error_set_sqlstate(error, FAIL_FATAL, "42809", "cannot copy table \"%s.%s\": it is %s",
						   schema, name, persistence[0] == 'u' ? "unlogged" : "temporary");
		error_detail(error, "Its changes are not in the WAL.");
		error_hint(error, "Run on the remote: ALTER TABLE %s.%s SET LOGGED;", schema, name);
		return false;
	}
	if (server_field_is_true(found, 0, "is_ours"))
	{
		error_set_sqlstate(error, FAIL_FATAL, "42809",
						   "cannot copy \"%s.%s\": it is a stream table or a copy itself", schema,
						   name);
		error_detail(error, "What the applier writes there may be left out of the stream.");
		error_hint(error, "Copy the tables that it reads, and make it again on the target.");
		return false;
	}
	return true;
}

/* Rows without a key need a snapshot that lists what was running: that of a standby does not. */
static bool
check_standby(const RemoteTable *table, const char *schema, const char *name, Error *error)
{
	if (table->key_index != NULL || !server_field_is_true(table->table, 0, "is_standby"))
		return true;
	error_set_sqlstate(error, FAIL_FATAL, "0A000",
					   "cannot copy table \"%s.%s\" from a standby: it has no key", schema, name);
	error_hint(error, "Give it a primary key, or let the remote's connection go to the primary.");
	return false;
}

static bool
check_type(const RemoteColumn *column, const char *schema, const char *name, Error *error)
{
	if (column->builtin == NULL)
		return true;
	for (const char *const *type = types_without_input; *type != NULL; type++)
	{
		if (strcmp(column->builtin, *type) != 0)
			continue;
		error_set_sqlstate(error, FAIL_FATAL, "0A000",
						   "cannot copy column \"%s\" of table \"%s.%s\": it has type %s",
						   column->name, schema, name, column->type);
		error_detail(error, "Values of this type mean nothing on another server.");
		error_hint(error, "Name the columns to copy, without this one, in copy_table().");
		return false;
	}
	return true;
}

static void
take_column(const PGresult *result, int row, RemoteColumn *column)
{
	const char *generated = server_field(result, row, "generated");
	const char *position = server_field(result, row, "key_position");

	column->attnum = server_field(result, row, "attnum");
	column->name = server_field(result, row, "attname");
	column->type = server_field(result, row, "type");
	column->type_name = server_field(result, row, "type_name");
	column->type_oid = server_field(result, row, "type_oid");
	column->type_modifier = server_field(result, row, "type_modifier");
	column->type_use = server_field(result, row, "type_use");
	column->builtin = server_field(result, row, "builtin");
	column->collation_schema = server_field(result, row, "collation_schema");
	column->collation_name = server_field(result, row, "collation_name");
	column->missing = server_field(result, row, "missing");
	column->comment = server_field(result, row, "comment");
	column->not_null = server_field_is_true(result, row, "not_null");
	column->key_position = position != NULL ? atoi(position) : -1;
	column->has_default = server_field_is_true(result, row, "has_default");
	column->may_select = server_field_is_true(result, row, "may_select");
	column->generated = generated != NULL ? generated[0] : 0;
}

/* Columns that the copy does not have: not wanted, or not in the stream. */
static bool
takes_column(const RemoteColumn *column, bool is_wanted, bool with_generated)
{
	return is_wanted && column->generated != 'v' && (column->generated == 0 || with_generated);
}

static bool
take_columns(RemoteTable *table, const char *schema, const char *name, bool with_generated,
			 Error *error)
{
	int	 count = PQntuples(table->columns_result);
	bool explicit_wish = server_field(table->table, 0, "wishes") != NULL;
	int	 wishes = explicit_wish ? atoi(server_field(table->table, 0, "wishes")) : 0;

	table->columns = memory_take_zeroed((size_t) (count + 1) * sizeof(RemoteColumn));
	for (int row = 0; row < count; row++)
	{
		RemoteColumn *column = &table->columns[table->column_count];
		bool		  is_wanted = server_field_is_true(table->columns_result, row, "wanted");

		take_column(table->columns_result, row, column);
		if (takes_column(column, is_wanted, with_generated))
		{
			if (!check_type(column, schema, name, error))
				return false;
			table->column_count++;
			continue;
		}
		if (column->key_position >= 0)
		{
			error_set_sqlstate(error, FAIL_FATAL, "42P16",
							   "cannot copy table \"%s.%s\" without column \"%s\" of its key",
							   schema, name, column->name);
			error_hint(error, "Add it to the columns in copy_table().");
			return false;
		}
	}
	if (explicit_wish && wishes != table->column_count)
	{
		error_set_sqlstate(
			error, FAIL_FATAL, "42703",
			"table \"%s.%s\" of the remote has only %d of the %d columns that are to be copied",
			schema, name, table->column_count, wishes);
		error_detail(error, "Generated columns that the stream does not have do not count.");
		error_hint(error, "Drop the copy, and call copy_table() with columns that are there.");
		return false;
	}
	return true;
}

static bool
load(PGconn *remote, const char *schema, const char *name, const char *columns_wanted,
	 bool with_generated, RemoteTable *table, Error *error)
{
	const char *table_values[3] = {schema, name, columns_wanted};
	const char *column_values[3];
	bool		may_select;
	bool		found;

	table->table = server_query(remote, sql_remote_table, 3, table_values, error);
	if (table->table == NULL)
		return false;
	if (PQntuples(table->table) == 0)
	{
		error_set_sqlstate(error, FAIL_FATAL, "42P01", "the remote has no table \"%s.%s\"", schema,
						   name);
		error_hint(
			error,
			"If it has been renamed, drop the copy and copy it under its new name; if it comes back, it is copied again.");
		return false;
	}
	table->relid = server_field(table->table, 0, "relid");
	table->key_index = server_field(table->table, 0, "key_index");
	column_values[0] = table->relid;
	column_values[1] = table->key_index;
	column_values[2] = columns_wanted;
	table->columns_result = server_query(remote, sql_remote_columns, 3, column_values, error);
	if (table->columns_result == NULL ||
		!server_ask(remote, sql_remote_members, 1, column_values, &table->members, &found, error) ||
		!check_kind(table->table, schema, name, error) ||
		!check_standby(table, schema, name, error) ||
		!take_columns(table, schema, name, with_generated, error))
		return false;
	may_select = server_field_is_true(table->table, 0, "may_select");
	if (!may_select)
	{
		may_select = table->column_count > 0;
		for (int i = 0; i < table->column_count; i++)
			may_select = may_select && table->columns[i].may_select;
	}
	return check_rights(remote, table->table, schema, name, may_select, error);
}

/* Columns and files are compared with those of another time, so they have to be of one moment. */
static bool
load_by_one_snapshot(PGconn *remote, const char *schema, const char *name,
					 const char *columns_wanted, bool with_generated, RemoteTable *table, Error *error)
{
	bool loaded;

	if (!server_execute(remote, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", 0, NULL, error))
		return false;
	loaded = load(remote, schema, name, columns_wanted, with_generated, table, error);
	if (loaded)
		return server_execute(remote, "COMMIT", 0, NULL, error);
	PQclear(PQexec(remote, "ROLLBACK"));
	return false;
}

bool
remote_table_load(PGconn *remote, const char *schema, const char *name, const char *columns_wanted,
				  bool with_generated, RemoteTable *table, Error *error)
{
	const char *bytes;

	memset(table, 0, sizeof(*table));
	if (!load_by_one_snapshot(remote, schema, name, columns_wanted, with_generated, table, error))
	{
		remote_table_free(table);
		return false;
	}
	table->comment = server_field(table->table, 0, "comment");
	table->rows_expected = server_field(table->table, 0, "rows_expected");
	bytes = server_field(table->table, 0, "bytes");
	table->bytes = bytes != NULL ? strtoull(bytes, NULL, 10) : 0;
	table->key_is_primary = server_field_is_true(table->table, 0, "key_is_primary");
	table->key_is_scattered = server_field_is_true(table->table, 0, "key_is_scattered");
	table->is_partitioned = server_field(table->table, 0, "relkind")[0] == 'p';
	table->is_on_standby = server_field_is_true(table->table, 0, "is_standby");
	table->replica_identity = server_field(table->table, 0, "relreplident")[0];
	return true;
}

void
remote_table_free(RemoteTable *table)
{
	PQclear(table->table);
	PQclear(table->columns_result);
	text_free(&table->members);
	free(table->columns);
	memset(table, 0, sizeof(*table));
}
