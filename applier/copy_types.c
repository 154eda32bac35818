/*
 * applier/copy_types.c
 *     The remote's types on the target: found by name, made when they are missing, refused when they differ.
 *
 * The server's own types have the same name everywhere.  A type of an extension is the type of that name in the
 * same extension, wherever it was installed.  A user's type is the one of that name in the schema that the schema map says; when it
 * is there already its definition must be the remote's, except that an enum may get further labels.  A
 * domain is made without its constraints: the remote has checked every value, and they may call functions that only
 * the remote has.
 */
#include "copy_types.h"

#include <string.h>

#include "sql_text.h"

#define OID_BEGIN '\001' /* as sql/remote_columns.sql and sql/copy_types.sql write it */
#define OID_END '\002'

#define BACK_TO_OWN_PATH "SET LOCAL search_path = pg_catalog, pg_temp"

typedef struct RemoteType
{
	const char *oid;
	const char *schema;
	const char *name;
	const char *printed;
	const char *extension;
	const char *definition;
	const char *labels;
	char		kind;
	bool		is_special; /* a table's row type, a range with functions of its own */
} RemoteType;

static void
type_map_add(TypeMap *map, const char *oid, const char *name)
{
	TypeMapEntry *entry;

	map->entries = memory_grow_array(map->entries, map->count, &map->capacity, sizeof(*entry));
	entry = &map->entries[map->count++];
	entry->oid = memory_copy_text(oid);
	entry->name = memory_copy_text(name);
}

static const char *
type_map_find(const TypeMap *map, const char *oid, size_t length)
{
	for (size_t i = 0; i < map->count; i++)
	{
		if (strlen(map->entries[i].oid) == length && strncmp(map->entries[i].oid, oid, length) == 0)
			return map->entries[i].name;
	}
	return "";
}

void
type_map_substitute(const TypeMap *map, const char *use, Text *text)
{
	for (const char *c = use; *c != '\0'; c++)
	{
		if (*c == OID_BEGIN)
		{
			const char *end = strchr(c, OID_END);

			text_append(text, type_map_find(map, c + 1, (size_t) (end - c - 1)));
			c = end;
		}
		else
			text_append_char(text, *c);
	}
}

void
type_map_free(TypeMap *map)
{
	for (size_t i = 0; i < map->count; i++)
	{
		free(map->entries[i].oid);
		free(map->entries[i].name);
	}
	free(map->entries);
	memset(map, 0, sizeof(*map));
}

/* ------------------------------------------------------------------------------------------------
 * What is missing
 */

static bool
refuse_extension(const RemoteType *type, const PGresult *found, Error *error)
{
	const char *installed = server_field(found, 0, "installed_version");

	error_set_sqlstate(error, FAIL_FATAL, "42704",
					   "type %s of extension \"%s\" does not exist on the target", type->printed,
					   type->extension);
	if (installed != NULL)
		error_hint(error, "Run on the target: ALTER EXTENSION \"%s\" UPDATE;", type->extension);
	else if (server_field(found, 0, "available_version") != NULL)
		error_hint(error, "Run on the target, as a superuser: CREATE EXTENSION \"%s\";",
				   type->extension);
	else
		error_hint(
			error,
			"Install the extension on the target's machine, and run CREATE EXTENSION \"%s\"; there.",
			type->extension);
	return false;
}

/* What is made without naming a schema goes to this one. */
static void
append_schema(CopyRemote *work, const char *schema, Text *statement)
{
	text_append(statement, "CREATE SCHEMA IF NOT EXISTS ");
	text_append_identifier(statement, work->target, schema);
	text_append(statement, "; SET LOCAL search_path = ");
	text_append_identifier(statement, work->target, schema);
	text_append(statement, "; ");
}

static bool
create_extension(CopyRemote *work, const RemoteType *type, const PGresult *found,
				 const char *schema, Error *error)
{
	Text  statement = {0};
	Error refused = {0};
	bool  done;

	if (server_field(found, 0, "available_version") == NULL ||
		server_field(found, 0, "installed_version") != NULL)
		return refuse_extension(type, found, error);
	append_schema(work, schema, &statement);
	text_append(&statement, "CREATE EXTENSION ");
	text_append_identifier(&statement, work->target, type->extension);
	text_append(&statement, "; " BACK_TO_OWN_PATH);
	done = server_script(work->target, statement.data, &refused);
	text_free(&statement);
	if (done)
	{
		log_event(LEVEL_LOG, "created extension \"%s\" on the target", type->extension);
		return true;
	}
	refuse_extension(type, found, error);
	error_detail(error, "%s", refused.message);
	return false;
}

static bool
refuse_special(const RemoteType *type, const char *schema, Error *error)
{
	error_set_sqlstate(error, FAIL_FATAL, "42704", "type %s does not exist on the target",
					   type->printed);
	if (type->kind == 'c')
	{
		error_detail(error, "It is the row type of a table.");
		error_hint(error, "Copy that table first.");
	}
	else if (type->kind == 'r')
	{
		error_detail(error, "It is a range with functions of its own.");
		error_hint(error, "Create it on the target, in schema \"%s\".", schema);
	}
	else
	{
		error_detail(error, "It is not made of other types, and no extension brings it.");
		error_hint(error, "Create it on the target, in schema \"%s\".", schema);
	}
	return false;
}

/* Ranges make a second type in the same go, which lands in the first schema of the search path. */
static bool
create_type(CopyRemote *work, const TypeMap *map, const RemoteType *type, const char *schema,
			Error *error)
{
	Text statement = {0};
	bool done;

	append_schema(work, schema, &statement);
	text_append(&statement, type->kind == 'd' ? "CREATE DOMAIN " : "CREATE TYPE ");
	text_append_identifier(&statement, work->target, schema);
	text_append_char(&statement, '.');
	text_append_identifier(&statement, work->target, type->name);
	text_append(&statement, " AS ");
	type_map_substitute(map, type->definition, &statement);
	text_append(&statement, "; " BACK_TO_OWN_PATH);
	done = server_script(work->target, statement.data, error);
	text_free(&statement);
	if (!done)
	{
		error_context(error, "could not create type %s on the target", type->printed);
		if (error->hint[0] == '\0')
			error_hint(error, "Create it on the target, in schema \"%s\".", schema);
		return false;
	}
	log_event(LEVEL_LOG, "created type %s on the target", type->printed);
	return true;
}

/* ------------------------------------------------------------------------------------------------
 * What is there
 */

static bool
follow_labels(CopyRemote *work, const RemoteType *type, const char *target_oid, Error *error)
{
	const char *values[2] = {target_oid, type->labels != NULL ? type->labels : "{}"};
	PGresult   *result = server_query(work->target, sql_enum_changes, 2, values, error);
	bool		done = result != NULL;

	for (int row = 0; done && row < PQntuples(result); row++)
	{
		done = server_execute(work->target, PQgetvalue(result, row, 0), 0, NULL, error);
		if (done)
		{
			log_event(LEVEL_LOG, "followed the remote: %s", PQgetvalue(result, row, 0));
			work->type_changes++;
		}
	}
	PQclear(result);
	return done;
}

static bool
check_type(CopyRemote *work, const TypeMap *map, const RemoteType *type, const char *target_oid,
		   Error *error)
{
	const char *values[3] = {"0", target_oid, "true"};
	Text		wanted = {0};
	PGresult   *result;
	const char *definition;
	bool		is_same;

	if (type->kind == 'e')
		return follow_labels(work, type, target_oid, error);
	if (type->definition == NULL)
		return true;
	result = server_query(work->target, sql_copy_types, 3, values, error);
	if (result == NULL)
		return false;
	type_map_substitute(map, type->definition, &wanted);
	definition = PQntuples(result) > 0 ? server_field(result, 0, "definition") : NULL;
	is_same = definition != NULL && strcmp(definition, wanted.data) == 0;
	if (!is_same)
	{
		error_set_sqlstate(error, FAIL_FATAL, "42710",
						   "type %s is not the same on remote and target", type->printed);
		error_detail(error, "On the remote it is %s, on the target %s.", wanted.data,
					 definition != NULL ? definition : "of another kind");
		error_hint(
			error,
			"Make it the same, or let the schema map of the remote put copies into another schema.");
	}
	text_free(&wanted);
	PQclear(result);
	return is_same;
}

static PGresult *
find_on_target(CopyRemote *work, const RemoteType *type, const char *schema, Error *error)
{
	const char *values[3] = {schema, type->name, type->extension};

	return server_query(work->target, sql_target_type, 3, values, error);
}

static bool
map_type(CopyRemote *work, TypeMap *map, const RemoteType *type, const char *schema, Error *error)
{
	PGresult   *found = find_on_target(work, type, schema, error);
	const char *target_oid;
	bool		done;

	if (found == NULL)
		return false;
	target_oid = server_field(found, 0, "oid");
	if (target_oid != NULL)
		done = type->extension != NULL || check_type(work, map, type, target_oid, error);
	else
	{
		if (type->extension != NULL)
			done = create_extension(work, type, found, schema, error);
		else if (type->definition == NULL || type->is_special)
			done = refuse_special(type, schema, error);
		else
			done = create_type(work, map, type, schema, error);
		PQclear(found);
		found = done ? find_on_target(work, type, schema, error) : NULL;
		done = found != NULL &&
			   (server_field(found, 0, "oid") != NULL || refuse_extension(type, found, error));
	}
	if (done)
		type_map_add(map, type->oid, server_field(found, 0, "printed"));
	PQclear(found);
	return done;
}

bool
copy_types_map(CopyRemote *work, const char *relid, TypeMap *map, Error *error)
{
	const char *values[3] = {relid, "0", "false"};
	PGresult   *result = server_query(work->remote, sql_copy_types, 3, values, error);
	Text		schema = {0};
	bool		done = result != NULL;

	for (int row = 0; done && row < PQntuples(result); row++)
	{
		RemoteType type = {.oid = server_field(result, row, "oid"),
						   .schema = server_field(result, row, "schema"),
						   .name = server_field(result, row, "name"),
						   .printed = server_field(result, row, "printed"),
						   .extension = server_field(result, row, "extension"),
						   .definition = server_field(result, row, "definition"),
						   .labels = server_field(result, row, "labels"),
						   .kind = server_field(result, row, "kind")[0],
						   .is_special = server_field_is_true(result, row, "is_special")};

		done = copy_map_schema(work, type.schema, &schema, error) &&
			   map_type(work, map, &type, schema.data, error);
	}
	text_free(&schema);
	PQclear(result);
	return done;
}
