/*
 * applier/copy_define.c
 *     Makes the table of a copy on the target.
 *
 * Types, schema, table, key and the server's knowledge of it are one transaction, and nothing is copied before it has
 * committed: what the target cannot hold is refused here.
 */
#include "copy.h"
#include "copy_shape.h"
#include "sql_text.h"

static bool
refuse_taken(CopyRemote *work, const char *target, Error *error)
{
	error_set_sqlstate(error, FAIL_FATAL, "42P07", "table %s exists on the target", target);
	error_detail(error, "Only tables that the copying made are written.");
	error_hint(error,
			   "Drop it, or choose another table in copy_table() or another schema in the schema "
			   "map of remote \"%s\".",
			   work->name);
	return false;
}

static bool
check_free(CopyRemote *work, const char *target, Error *error)
{
	const char *values[1] = {target};
	bool		is_taken;

	if (!server_ask_bool(work->target, "SELECT pg_catalog.to_regclass($1) IS NOT NULL", 1, values,
						 &is_taken, error))
		return false;
	return !is_taken || refuse_taken(work, target, error);
}

static bool
create_schema(CopyRemote *work, const char *schema, Error *error)
{
	const char *values[1] = {schema};
	Text		statement = {0};
	bool		is_there;
	bool		done;

	if (!server_ask_bool(
			work->target,
			"SELECT pg_catalog.to_regnamespace(pg_catalog.quote_ident($1)) IS NOT NULL", 1, values,
			&is_there, error))
		return false;
	if (is_there)
		return true;
	text_append(&statement, "CREATE SCHEMA ");
	text_append_identifier(&statement, work->target, schema);
	done = server_execute(work->target, statement.data, 0, NULL, error);
	text_free(&statement);
	if (!done && error_is(error, "42501"))
		error_hint(error, "Run on the target: GRANT CREATE ON DATABASE \"%s\" TO \"%s\";",
				   PQdb(work->target), PQuser(work->target));
	return done;
}

static bool
create_table(CopyRemote *work, const CopyShape *shape, const char *target, Error *error)
{
	Text statement = {0};
	bool done;

	text_append_format(&statement, "CREATE TABLE %s (", target);
	for (int i = 0; i < shape->table.column_count; i++)
	{
		text_append(&statement, i > 0 ? ", " : "");
		copy_shape_append_column(work, shape, i, &statement);
		text_append(&statement, shape->table.columns[i].not_null ? " NOT NULL" : "");
	}
	text_append(&statement, ")");
	done = server_execute(work->target, statement.data, 0, NULL, error);
	text_free(&statement);
	return done;
}

static bool
define(CopyRemote *work, const Copy *copy, const char *schema, const char *target, Error *error)
{
	CopyShape	shape;
	const char *members[3] = {copy->copy_id, NULL, NULL};
	bool		done;

	done = copy_shape_load(work, copy, &shape, error);
	members[1] = shape.table.relid;
	members[2] = shape.table.members.data;
	done = done && create_schema(work, schema, error) &&
		   check_free(work, target, error) && create_table(work, &shape, target, error) &&
		   copy_shape_make_key(work, copy, &shape, target, error) &&
		   copy_shape_tell(work, copy, &shape, target, NULL, error) &&
		   server_execute(work->target, sql_copy_members, 3, members, error) &&
		   server_execute(work->target, "COMMIT", 0, NULL, error);
	copy_shape_free(&shape);
	return done;
}

bool
copy_define(CopyRemote *work, const Copy *copy, Error *error)
{
	Text target = {0};
	bool done;

	text_append_identifier(&target, work->target, copy->target_schema);
	text_append_char(&target, '.');
	text_append_identifier(&target, work->target, copy->target_table);
	done = server_execute(work->target, "BEGIN", 0, NULL, error) &&
		   define(work, copy, copy->target_schema, target.data, error);
	if (done)
		log_event(LEVEL_LOG, "made table %s for the copy of \"%s.%s\"", target.data,
				  copy->remote_schema, copy->remote_table);
	text_free(&target);
	return done;
}
