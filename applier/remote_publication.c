/*
 * applier/remote_publication.c
 *     Does a publication carry what a copy needs?
 *
 * The plugin pgoutput sends what the publication says, and nothing tells the reader what it leaves out: kinds of changes, rows, columns,
 * whole tables.  So it is looked at before anything is copied.
 */
#include "remote_publication.h"

#include "sql_text.h"

static bool
refuse(PGconn *remote, const char *publication, const char *schema, const char *name,
	   const char *why, const char *repair, Error *error)
{
	Text table = {0};
	Text quoted = {0};

	text_append_identifier(&table, remote, schema);
	text_append_char(&table, '.');
	text_append_identifier(&table, remote, name);
	text_append_identifier(&quoted, remote, publication);
	error_set_sqlstate(error, FAIL_FATAL, "42704",
					   "cannot copy table \"%s.%s\": publication \"%s\" %s", schema, name,
					   publication, why);
	error_hint(error, "Run on the remote: ALTER PUBLICATION %s %s%s;", quoted.data, repair,
			   strcmp(repair, "ADD TABLE ") == 0 || strcmp(repair, "SET TABLE ") == 0 ? table.data
																					  : "");
	text_free(&quoted);
	text_free(&table);
	return false;
}

/* With pgoutput the remote's own writers fail on a table that is published without saying what its rows are known by. */
static bool
check_identity(const RemoteTable *table, const char *schema, const char *name, Error *error)
{
	if (table->key_index != NULL || table->replica_identity == 'f')
		return true;
	error_set_sqlstate(error, FAIL_FATAL, "42704",
					   "cannot copy table \"%s.%s\": it has no key, and no REPLICA IDENTITY FULL",
					   schema, name);
	error_detail(error, "Updates and deletes of a published table fail without.");
	error_hint(error, "Run on the remote: ALTER TABLE \"%s\".\"%s\" REPLICA IDENTITY FULL;", schema,
			   name);
	return false;
}

static PGresult *
ask(PGconn *remote, const char *publication, const RemoteTable *table, Error *error)
{
	Text		columns = {0};
	const char *values[3] = {publication, table->relid, NULL};
	PGresult   *result;

	text_append_char(&columns, '{');
	for (int i = 0; i < table->column_count; i++)
	{
		text_append(&columns, i > 0 ? "," : "");
		text_append_array_element(&columns, table->columns[i].name);
	}
	text_append_char(&columns, '}');
	values[2] = columns.data;
	result = server_query(remote, sql_remote_publication, 3, values, error);
	text_free(&columns);
	return result;
}

bool
remote_publication_check(PGconn *remote, const char *publication, const char *schema,
						 const char *name, const RemoteTable *table, Error *error)
{
	PGresult *found;
	bool	  good = false;

	if (!check_identity(table, schema, name, error))
		return false;
	found = ask(remote, publication, table, error);
	if (found == NULL)
		return false;
	if (PQntuples(found) == 0)
	{
		error_set_sqlstate(error, FAIL_FATAL, "42704", "the remote has no publication \"%s\"",
						   publication);
		error_hint(error,
				   "Run on the remote: CREATE PUBLICATION \"%s\" FOR TABLE \"%s\".\"%s\" WITH "
				   "(publish_via_partition_root = true);",
				   publication, schema, name);
	}
	else if (!server_field_is_true(found, 0, "has_all_changes"))
		refuse(remote, publication, schema, name, "does not publish all changes",
			   "SET (publish = 'insert, update, delete, truncate')", error);
	else if (!server_field_is_true(found, 0, "names_root"))
		refuse(remote, publication, schema, name, "publishes partitions by their own names",
			   "SET (publish_via_partition_root = true)", error);
	else if (!server_field_is_true(found, 0, "has_table"))
		refuse(remote, publication, schema, name, "does not have it", "ADD TABLE ", error);
	else if (server_field_is_true(found, 0, "has_filter"))
		refuse(remote, publication, schema, name, "has only some of its rows", "SET TABLE ", error);
	else if (server_field(found, 0, "missing_columns") != NULL)
	{
		refuse(remote, publication, schema, name, "does not have all columns", "SET TABLE ", error);
		error_detail(error, "It lacks %s.", server_field(found, 0, "missing_columns"));
	}
	else
		good = true;
	PQclear(found);
	return good;
}
