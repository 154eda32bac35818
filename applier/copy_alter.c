/*
 * applier/copy_alter.c
 *     Lets a copy follow what was done to the remote's table.
 *
 * There are no event triggers on the remote, so nobody tells what was done: the columns that the copy was made from are compared with
 * those that are there now.  A column is the same while its number is, whatever it is called.  The server stops before
 * the first transaction whose rows have another shape (status REDEFINE), so everything older is in the copy when its table is altered.
 *
 *     column added       ALTER TABLE; rows that were there have what the remote's catalog says that they have.  When it does not say (the remote has
 *                        written every row anew): copied again
 *     dropped, renamed   the same
 *     type changed       the same, and copied again: how the values were made is not known
 *     table made again   compared by name, and copied again
 *     partition attached, detached, dropped
 *                        copied again, since nothing of it is in the stream
 *
 * Whether all rows were written anew is also seen from the files that hold them, which are others then: a default that was taken away again before
 * anybody looked, or other values of the same type, leave no other trace.  From pgoutput nothing comes when a partition alone is truncated, which changes its file, too.
 */
#include "copy.h"
#include "copy_shape.h"
#include "sql_text.h"

typedef struct Follow
{
	CopyRemote *work;
	const Copy *copy;
	CopyShape	shape;
	PGresult   *columns; /* of the copy, as they were told last */
	int		   *matches; /* per column of the remote: row of `columns`, or -1 */
	Text		target;
	Text		recopy; /* why; empty: the rows stay right */
	int			changes;
	bool		must_tell;
} Follow;

static const char *
old_field(const Follow *follow, int row, const char *name)
{
	const char *value = server_field(follow->columns, row, name);

	return value != NULL ? value : "";
}

static bool
is_same(const char *one, const char *other)
{
	return strcmp(one != NULL ? one : "", other != NULL ? other : "") == 0;
}

static void
want_recopy(Follow *follow, const char *what, const char *name)
{
	if (follow->recopy.length == 0)
		text_append_format(&follow->recopy, "%s \"%s\"", what, name);
}

/* "ALTER TABLE target" and `what`, which is emptied. */
static bool
alter(Follow *follow, Text *what, Error *error)
{
	Text statement = {0};
	bool done;

	text_append_format(&statement, "ALTER TABLE %s %s", follow->target.data, what->data);
	done = server_execute(follow->work->target, statement.data, 0, NULL, error);
	if (done)
	{
		log_event(LEVEL_LOG, "followed the remote: %s", statement.data);
		follow->changes++;
	}
	text_free(&statement);
	text_reset(what);
	return done;
}

static void
append_name(Follow *follow, Text *text, const char *name)
{
	text_append_identifier(text, follow->work->target, name);
}

/* ------------------------------------------------------------------------------------------------
 * Columns
 */

static int
find_old_column(const Follow *follow, const RemoteColumn *column, bool by_number)
{
	for (int row = 0; row < PQntuples(follow->columns); row++)
	{
		if (by_number ? is_same(old_field(follow, row, "remote_attnum"), column->attnum)
					  : is_same(old_field(follow, row, "remote_column"), column->name))
			return row;
	}
	return -1;
}

static void
match_columns(Follow *follow)
{
	const RemoteTable *table = &follow->shape.table;
	bool			   is_same_table = is_same(table->relid, follow->copy->remote_relid);

	follow->matches = memory_take_zeroed((size_t) (table->column_count + 1) * sizeof(int));
	for (int i = 0; i < table->column_count; i++)
		follow->matches[i] = find_old_column(follow, &table->columns[i], is_same_table);
	if (!is_same_table)
	{
		text_append(&follow->recopy, "the remote has another table of this name");
		follow->must_tell = true;
	}
}

static bool
drop_columns(Follow *follow, Error *error)
{
	Text what = {0};
	bool done = true;

	for (int row = 0; done && row < PQntuples(follow->columns); row++)
	{
		bool is_there = false;

		for (int i = 0; i < follow->shape.table.column_count; i++)
			is_there = is_there || follow->matches[i] == row;
		if (is_there)
			continue;
		text_append(&what, "DROP COLUMN ");
		append_name(follow, &what, old_field(follow, row, "name"));
		done = alter(follow, &what, error);
	}
	text_free(&what);
	return done;
}

static bool
rename_column(Follow *follow, const char *from, const char *to, Error *error)
{
	Text what = {0};
	bool done;

	text_append(&what, "RENAME COLUMN ");
	append_name(follow, &what, from);
	text_append(&what, " TO ");
	append_name(follow, &what, to);
	done = alter(follow, &what, error);
	text_free(&what);
	return done;
}

/* In two rounds, since names may have been exchanged. */
static bool
rename_columns(Follow *follow, Error *error)
{
	const RemoteTable *table = &follow->shape.table;
	bool			   done = true;

	for (int round = 0; done && round < 2; round++)
	{
		for (int i = 0; done && i < table->column_count; i++)
		{
			const char *name = table->columns[i].name;
			const char *old =
				follow->matches[i] >= 0 ? old_field(follow, follow->matches[i], "name") : name;
			char between[32];

			snprintf(between, sizeof(between), "pgt_column_%s", table->columns[i].attnum);
			if (!is_same(old, name))
				done = round == 0 ? rename_column(follow, old, between, error)
								  : rename_column(follow, between, name, error);
		}
	}
	return done;
}

/*
 * What the rows that are there have in a column that was added: the value that the remote's catalog keeps for them, or nothing.  A NOT NULL or a default
 * without such a value means that the remote has written all rows, each with a value of its own maybe.
 */
static bool
add_column(Follow *follow, int column, Error *error)
{
	const RemoteColumn *new = &follow->shape.table.columns[column];
	Text what = {0};
	bool done;

	text_append(&what, "ADD COLUMN ");
	copy_shape_append_column(follow->work, &follow->shape, column, &what);
	if (new->missing != NULL)
	{
		text_append(&what, " DEFAULT ");
		text_append_literal(&what, follow->work->target, new->missing);
		text_append(&what, new->not_null ? " NOT NULL" : "");
	}
	else if (new->not_null || new->has_default)
		want_recopy(follow, "the remote has written all rows anew for the new column", new->name);
	done = alter(follow, &what, error);
	if (done && new->missing != NULL)
	{
		text_append(&what, "ALTER COLUMN ");
		append_name(follow, &what, new->name);
		text_append(&what, " DROP DEFAULT");
		done = alter(follow, &what, error);
	}
	text_free(&what);
	return done;
}

/*
 * The values are cast as well as it goes, for who reads until the rows have been copied again; a column whose values cannot be is empty until then.
 */
static bool
change_type(Follow *follow, int column, Error *error)
{
	const RemoteColumn *new = &follow->shape.table.columns[column];
	PGconn *target = follow->work->target;
	Text	what = {0};
	Error	failed = {0};
	bool	done;

	text_append(&what, "ALTER COLUMN ");
	append_name(follow, &what, new->name);
	text_append_format(&what, " TYPE %s", follow->shape.type_names[column]);
	if (follow->shape.collations[column] != NULL)
		text_append_format(&what, " COLLATE %s", follow->shape.collations[column]);
	text_append(&what, " USING ");
	append_name(follow, &what, new->name);
	text_append_format(&what, "::%s", follow->shape.type_names[column]);
	if (!server_execute(target, "SAVEPOINT cast_values", 0, NULL, error))
		return false;
	done = alter(follow, &what, &failed);
	if (!done && server_execute(target, "ROLLBACK TO cast_values", 0, NULL, error))
	{
		text_append(&what, "DROP COLUMN ");
		append_name(follow, &what, new->name);
		done = alter(follow, &what, error);
		if (done)
		{
			text_append(&what, "ADD COLUMN ");
			copy_shape_append_column(follow->work, &follow->shape, column, &what);
			done = alter(follow, &what, error);
		}
	}
	text_free(&what);
	return done;
}

static bool
set_not_null(Follow *follow, int column, bool not_null, Error *error)
{
	PGconn *target = follow->work->target;
	Text	what = {0};
	Error	failed = {0};
	bool	done;

	text_append(&what, "ALTER COLUMN ");
	append_name(follow, &what, follow->shape.table.columns[column].name);
	text_append(&what, not_null ? " SET NOT NULL" : " DROP NOT NULL");
	if (!not_null)
		done = alter(follow, &what, error);
	else
	{
		/* The copy may be older than the constraint: then a later comparison sets it. */
		done = server_execute(target, "SAVEPOINT not_null", 0, NULL, error) &&
			   (alter(follow, &what, &failed) ||
				server_execute(target, "ROLLBACK TO not_null", 0, NULL, error));
	}
	text_free(&what);
	return done;
}

static bool
follow_column(Follow *follow, int column, Error *error)
{
	const RemoteColumn *new = &follow->shape.table.columns[column];
	int	 row = follow->matches[column];
	bool was_not_null;

	if (row < 0)
		return add_column(follow, column, error);
	if (!is_same(old_field(follow, row, "remote_type"), new->type_name) ||
		!is_same(old_field(follow, row, "remote_typmod"), new->type_modifier))
	{
		want_recopy(follow, "the remote has changed the type of column", new->name);
		if (!change_type(follow, column, error))
			return false;
	}
	else if (!is_same(old_field(follow, row, "remote_collation"), follow->shape.collations[column]))
	{
		if (!change_type(follow, column, error))
			return false;
	}
	else if (!is_same(old_field(follow, row, "remote_type_oid"), new->type_oid) ||
			 !is_same(old_field(follow, row, "remote_column"), new->name))
		follow->must_tell = true;
	was_not_null = old_field(follow, row, "not_null")[0] == 't';
	if (was_not_null != new->not_null &&new->key_position < 0)
		return set_not_null(follow, column, new->not_null, error);
	return true;
}

/* ------------------------------------------------------------------------------------------------
 * Partitions
 */

static void
want_recopy_of_member(Follow *follow, const char *format, const char *name)
{
	if (name == NULL || follow->recopy.length > 0)
		return;
	text_append_format(&follow->recopy, format, name);
	follow->must_tell = true;
}

static bool
follow_members(Follow *follow, Error *error)
{
	const RemoteTable *table = &follow->shape.table;
	const char		  *values[3] = {follow->copy->copy_id, table->relid, table->members.data};
	PGresult		  *found = server_query(follow->work->target, sql_copy_members, 3, values, error);

	if (found == NULL)
		return false;
	want_recopy_of_member(follow, "%s", server_field(found, 0, "changed"));
	want_recopy_of_member(follow, "all rows of %s were written anew, and its columns altered",
						  server_field(found, 0, "altered"));
	if (table->is_partitioned && follow->work->publication != NULL)
		want_recopy_of_member(follow, "partition %s has been truncated or written anew",
							  server_field(found, 0, "rewritten"));
	PQclear(found);
	return true;
}

/* ------------------------------------------------------------------------------------------------
 * The key
 */

static bool
drop_key(Follow *follow, const PGresult *key, Error *error)
{
	Text what = {0};
	bool done;

	if (server_field_is_true(key, 0, "is_primary"))
	{
		text_append_format(&what, "DROP CONSTRAINT pgt_key_%s", follow->copy->copy_id);
		done = alter(follow, &what, error);
	}
	else
	{
		text_append_format(&what, "DROP INDEX %s", server_field(key, 0, "index"));
		done = server_execute(follow->work->target, what.data, 0, NULL, error);
	}
	text_free(&what);
	return done;
}

static bool
follow_key(Follow *follow, Error *error)
{
	const char *values[2] = {follow->copy->copy_id, follow->copy->relid};
	PGresult   *key = server_query(follow->work->target, sql_copy_key, 2, values, error);
	Text		columns = {0};
	bool		has_key;
	bool		done = key != NULL;

	if (!done)
		return false;
	has_key = PQntuples(key) > 0;
	copy_shape_append_key(follow->work, &follow->shape, &columns);
	if (!is_same(has_key ? server_field(key, 0, "columns") : NULL, columns.data) ||
		(has_key &&
		 server_field_is_true(key, 0, "is_primary") != follow->shape.table.key_is_primary))
	{
		follow->changes++;
		if (has_key)
			done = drop_key(follow, key, error);
		done = done && copy_shape_make_key(follow->work, follow->copy, &follow->shape,
										   follow->target.data, error);
	}
	text_free(&columns);
	PQclear(key);
	return done;
}

/* ------------------------------------------------------------------------------------------------
 * All of it
 */

static bool
follow_columns(Follow *follow, Error *error)
{
	match_columns(follow);
	if (!drop_columns(follow, error) || !rename_columns(follow, error))
		return false;
	for (int i = 0; i < follow->shape.table.column_count; i++)
	{
		if (!follow_column(follow, i, error))
			return false;
	}
	return follow_members(follow, error) && follow_key(follow, error);
}

static bool
tell(Follow *follow, Error *error)
{
	const char *status = follow->copy->status;
	bool		was_stopped = strcmp(status, "REDEFINE") == 0;
	bool		is_asked_for = strcmp(status, "REQUESTED") == 0 || strcmp(status, "ERROR") == 0;

	/* An error that comes from nothing we can see would come again. */
	if (was_stopped && follow->changes == 0 && !follow->must_tell &&
		follow->work->type_changes == 0)
		text_append(&follow->recopy, "rows did not fit, though the table is as it was");
	if (!was_stopped && follow->changes == 0 && !follow->must_tell && !is_asked_for)
		return true;
	if (follow->recopy.length > 0)
		log_event(LEVEL_LOG, "\"%s.%s\" will be copied again: %s", follow->copy->remote_schema,
				  follow->copy->remote_table, follow->recopy.data);
	return copy_shape_tell(follow->work, follow->copy, &follow->shape, follow->target.data,
						   follow->recopy.length > 0 ? follow->recopy.data : NULL, error);
}

static bool
find_target(Follow *follow, Error *error)
{
	const char *values[1] = {follow->copy->relid};
	bool		found;

	return server_ask(follow->work->target, "SELECT $1::oid::pg_catalog.regclass", 1, values,
					  &follow->target, &found, error);
}

bool
copy_follow(CopyRemote *work, const Copy *copy, Error *error)
{
	const char *values[2] = {copy->copy_id, copy->relid};
	Follow		follow = {.work = work, .copy = copy};
	bool		done;

	work->type_changes = 0;
	done = server_execute(work->target, "BEGIN", 0, NULL, error) && find_target(&follow, error) &&
		   copy_shape_load(work, copy, &follow.shape, error);
	if (done)
	{
		follow.columns = server_query(work->target, sql_copy_columns, 2, values, error);
		done = follow.columns != NULL && follow_columns(&follow, error) && tell(&follow, error) &&
			   server_execute(work->target, "COMMIT", 0, NULL, error);
	}
	copy_shape_free(&follow.shape);
	PQclear(follow.columns);
	free(follow.matches);
	text_free(&follow.target);
	text_free(&follow.recopy);
	return done;
}
