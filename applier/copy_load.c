/*
 * applier/copy_load.c
 *     Copies the rows of one table.
 *
 * With a key each part has a snapshot of its own, later than the position from which the stream carries the table: a row
 * that changed since is set by the stream to what it is, whichever of its states the part has found.  So parts can be copied in any order, at
 * any time, and nothing on the remote is held for longer than a part takes; what was done before the worker was killed stays done.
 *
 * Without a key a row is known by all of its values only.  Then one snapshot serves for everything, and the server skips what it has seen.
 *
 * The table is compared with its definition before and after: a change in between would mix two shapes.
 */
#include "copy.h"
#include "copy_finish.h"
#include "copy_jobs.h"
#include "sql_text.h"

static bool
has_column(const PGresult *columns, const RemoteColumn *column)
{
	for (int row = 0; row < PQntuples(columns); row++)
	{
		if (strcmp(server_field(columns, row, "remote_attnum"), column->attnum) == 0)
			return strcmp(server_field(columns, row, "remote_column"), column->name) == 0 &&
				   strcmp(server_field(columns, row, "remote_type"), column->type_name) == 0;
	}
	return false;
}

/* Is the table still what the copy was defined by?  Also finds out in which form its rows can come. */
static bool
check_definition(CopyRemote *work, const Copy *copy, RemoteTable *table, Error *error)
{
	const char *values[2] = {copy->copy_id, copy->relid};
	PGresult   *columns = server_query(work->target, sql_copy_columns, 2, values, error);
	bool		is_same;

	if (columns == NULL)
		return false;
	is_same =
		strcmp(table->relid, copy->remote_relid) == 0 && PQntuples(columns) == table->column_count;
	for (int i = 0; is_same && i < table->column_count; i++)
		is_same = has_column(columns, &table->columns[i]);
	table->is_binary = is_same;
	for (int row = 0; row < PQntuples(columns); row++)
		table->is_binary = table->is_binary && server_field_is_true(columns, row, "is_binary");
	PQclear(columns);
	if (!is_same)
		error_set_sqlstate(error, FAIL_RETRY, "55000",
						   "table \"%s.%s\" of the remote was altered while it was copied",
						   copy->remote_schema, copy->remote_table);
	return is_same;
}

static bool
load_table(CopyRemote *work, const Copy *copy, RemoteTable *table, Error *error)
{
	if (!remote_table_load(work->remote, copy->remote_schema, copy->remote_table,
						   copy->columns_wanted, work->publication == NULL, table, error))
		return false;
	if (check_definition(work, copy, table, error))
		return true;
	remote_table_free(table);
	return false;
}

bool
copy_load_check(CopyRemote *work, const Copy *copy, Error *error)
{
	RemoteTable table;

	if (!load_table(work, copy, &table, error))
		return false;
	remote_table_free(&table);
	return true;
}

static bool
begin(CopyRemote *work, const Copy *copy, Text *load_name, Error *error)
{
	const char *values[2] = {copy->copy_id, work->settled_lsn.data};
	bool		found;

	return server_ask(work->target, "SELECT pgtrickle.copy_begin($1, $2)", 2, values, load_name,
					  &found, error);
}

/* ------------------------------------------------------------------------------------------------
 * The two ways
 */

static bool
load_by_key(CopyRemote *work, const Copy *copy, const RemoteTable *table, Micros started_at,
			Text *load_name, Error *error)
{
	CopyParts parts = {0};
	CopyLoad  load = {.work = work, .copy = copy, .table = table, .parts = &parts};
	bool	  done = true;

	if (copy->load_table != NULL)
	{
		text_append(load_name, copy->load_table);
		done = copy_parts_load(work, copy, table, &parts, error);
	}
	if (done && parts.count == 0)
	{
		text_reset(load_name);
		done = begin(work, copy, load_name, error) && copy_parts_plan(work, copy, table, error) &&
			   copy_parts_load(work, copy, table, &parts, error);
	}
	load.load_table = load_name->data;
	done = done && copy_jobs_run(&load, error);
	if (done)
		copy_finish_start(work, copy, NULL, started_at);
	copy_parts_free(&parts);
	return done;
}

static bool
load_as_bag(CopyRemote *work, const Copy *copy, const RemoteTable *table, Micros started_at,
			Text *load_name, Error *error)
{
	CopyParts parts = {0};
	CopyLoad  load = {.work = work, .copy = copy, .table = table, .parts = &parts};
	PGresult *snapshot = NULL;
	PGconn	 *holder = copy_connect(work->remote_dbname, "pgtrickle copy", work->encoding, error);
	bool	  done;

	if (holder == NULL)
		return false;
	done =
		begin(work, copy, load_name, error) &&
		server_execute(holder, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", 0, NULL, error);
	if (done)
		snapshot = server_query(
			holder,
			"SELECT pg_catalog.pg_export_snapshot() AS name, pg_catalog.pg_current_snapshot() AS seen",
			0, NULL, error);
	if (snapshot != NULL)
	{
		copy_parts_by_place(work, table, &parts);
		load.load_table = load_name->data;
		load.snapshot = server_field(snapshot, 0, "name");
		done = copy_jobs_run(&load, error);
		if (done)
			copy_finish_start(work, copy, server_field(snapshot, 0, "seen"), started_at);
	}
	PQclear(snapshot);
	PQfinish(holder);
	copy_parts_free(&parts);
	return done && snapshot != NULL;
}

bool
copy_load(CopyRemote *work, const Copy *copy, Error *error)
{
	RemoteTable table;
	Text		load_name = {0};
	Micros		started_at = clock_now();
	bool		done;

	if (!load_table(work, copy, &table, error))
		return false;
	done = table.key_index != NULL
			   ? load_by_key(work, copy, &table, started_at, &load_name, error)
			   : load_as_bag(work, copy, &table, started_at, &load_name, error);
	remote_table_free(&table);
	text_free(&load_name);
	return done;
}
