/*
 * applier/copy_shape.c
 *     What a copy has to look like.
 *
 * A copy has the remote's columns with their types, collations and NOT NULL, and its key.  Nothing else: defaults, checks, foreign keys,
 * identity and triggers are for those who write, and nobody but the applier writes here.
 */
#include "copy_shape.h"

#include <stdio.h>

#include "remote_publication.h"
#include "sql_text.h"

/* Columns are told as parallel arrays. */
#define LISTS 6

static bool
map_collation(CopyRemote *work, const RemoteColumn *column, char **collation, Error *error)
{
	Text		schema = {0};
	Text		found_name = {0};
	bool		found = false;
	const char *values[2];
	bool		done;

	if (column->collation_name == NULL)
		return true;
	if (strcmp(column->collation_schema, "pg_catalog") == 0)
		text_append(&schema, "pg_catalog");
	else if (!copy_map_schema(work, column->collation_schema, &schema, error))
		return false;
	values[0] = schema.data;
	values[1] = column->collation_name;
	done = server_ask(work->target, sql_target_collation, 2, values, &found_name, &found, error);
	if (done && found)
		*collation = memory_copy_text(found_name.data);
	else if (done)
	{
		error_set_sqlstate(error, FAIL_FATAL, "42704",
						   "collation \"%s\" of column \"%s\" does not exist on the target",
						   column->collation_name, column->name);
		error_hint(
			error,
			"Run on the target: CREATE COLLATION \"%s\".\"%s\" (...); as it is defined on the "
			"remote, or copy the table without this column.",
			schema.data, column->collation_name);
		done = false;
	}
	text_free(&found_name);
	text_free(&schema);
	return done;
}

bool
copy_shape_load(CopyRemote *work, const Copy *copy, CopyShape *shape, Error *error)
{
	RemoteTable *table = &shape->table;

	memset(shape, 0, sizeof(*shape));
	if (!remote_table_load(work->remote, copy->remote_schema, copy->remote_table,
						   copy->columns_wanted, work->publication == NULL, table, error) ||
		(work->publication != NULL &&
		 !remote_publication_check(work->remote, work->publication, copy->remote_schema,
								   copy->remote_table, table, error)) ||
		!copy_types_map(work, table->relid, &shape->types, error))
		return false;
	shape->type_names = memory_take_zeroed((size_t) (table->column_count + 1) * sizeof(char *));
	shape->collations = memory_take_zeroed((size_t) (table->column_count + 1) * sizeof(char *));
	for (int i = 0; i < table->column_count; i++)
	{
		Text type = {0};

		type_map_substitute(&shape->types, table->columns[i].type_use, &type);
		shape->type_names[i] = type.data;
		if (!map_collation(work, &table->columns[i], &shape->collations[i], error))
			return false;
	}
	return true;
}

void
copy_shape_free(CopyShape *shape)
{
	for (int i = 0; shape->type_names != NULL && i < shape->table.column_count; i++)
	{
		free(shape->type_names[i]);
		free(shape->collations[i]);
	}
	free(shape->type_names);
	free(shape->collations);
	type_map_free(&shape->types);
	remote_table_free(&shape->table);
	memset(shape, 0, sizeof(*shape));
}

void
copy_shape_append_column(CopyRemote *work, const CopyShape *shape, int column, Text *text)
{
	text_append_identifier(text, work->target, shape->table.columns[column].name);
	text_append_format(text, " %s", shape->type_names[column]);
	if (shape->collations[column] != NULL)
		text_append_format(text, " COLLATE %s", shape->collations[column]);
}

void
copy_shape_append_key(CopyRemote *work, const CopyShape *shape, Text *text)
{
	bool is_first = true;

	for (int position = 0; position < shape->table.column_count; position++)
	{
		for (int i = 0; i < shape->table.column_count; i++)
		{
			if (shape->table.columns[i].key_position != position)
				continue;
			text_append(text, is_first ? "" : ", ");
			text_append_identifier(text, work->target, shape->table.columns[i].name);
			is_first = false;
		}
	}
}

/*
 * Its name tells it from indexes that users have made on the copy.  A primary key stays one: queries that group by it may use the other
 * columns.
 */
bool
copy_shape_make_key(CopyRemote *work, const Copy *copy, const CopyShape *shape, const char *target,
					Error *error)
{
	Text statement = {0};
	bool done;

	if (shape->table.key_index == NULL)
		return true;
	if (shape->table.key_is_primary)
		text_append_format(&statement, "ALTER TABLE %s ADD CONSTRAINT pgt_key_%s PRIMARY KEY (",
						   target, copy->copy_id);
	else
		text_append_format(&statement, "CREATE UNIQUE INDEX pgt_key_%s ON %s (", copy->copy_id,
						   target);
	copy_shape_append_key(work, shape, &statement);
	text_append(&statement, ")");
	done = server_execute(work->target, statement.data, 0, NULL, error);
	text_free(&statement);
	return done;
}

static bool
append_comment(CopyRemote *work, const char *target, const RemoteColumn *column,
			   const char *comment, Error *error)
{
	Text statement = {0};
	bool done;

	text_append_format(&statement, "COMMENT ON %s %s", column != NULL ? "COLUMN" : "TABLE", target);
	if (column != NULL)
	{
		text_append_char(&statement, '.');
		text_append_identifier(&statement, work->target, column->name);
	}
	text_append(&statement, " IS ");
	text_append_literal(&statement, work->target, comment);
	done = server_execute(work->target, statement.data, 0, NULL, error);
	text_free(&statement);
	return done;
}

bool
copy_shape_tell(CopyRemote *work, const Copy *copy, const CopyShape *shape, const char *target,
				const char *recopy, Error *error)
{
	const RemoteTable *table = &shape->table;
	Text			   lists[LISTS] = {{0}};
	const char		  *values[5 + LISTS];
	bool			   done = true;

	for (int list = 0; list < LISTS; list++)
		text_append_char(&lists[list], '{');
	for (int i = 0; i < table->column_count; i++)
	{
		const RemoteColumn *column = &table->columns[i];
		const char		   *entries[LISTS] = {column->name,			 column->attnum,
											  column->type_name,	 column->type_oid,
											  column->type_modifier, shape->collations[i]};

		for (int list = 0; list < LISTS; list++)
		{
			text_append(&lists[list], i > 0 ? "," : "");
			if (entries[list] != NULL)
				text_append_array_element(&lists[list], entries[list]);
			else
				text_append(&lists[list], "NULL");
		}
		if (done && column->comment != NULL)
			done = append_comment(work, target, column, column->comment, error);
	}
	if (done && table->comment != NULL)
		done = append_comment(work, target, NULL, table->comment, error);
	values[0] = copy->copy_id;
	values[1] = table->relid;
	values[2] = target;
	for (int list = 0; list < LISTS; list++)
	{
		text_append_char(&lists[list], '}');
		values[3 + list] = lists[list].data;
	}
	values[3 + LISTS] = recopy;
	values[4 + LISTS] = table->is_partitioned ? "true" : "false";
	done = done && server_execute(work->target, sql_copy_defined, 5 + LISTS, values, error);
	for (int list = 0; list < LISTS; list++)
		text_free(&lists[list]);
	return done;
}
