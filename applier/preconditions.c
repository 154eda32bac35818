/*
 * applier/preconditions.c
 *     What the server must offer, looked at once.
 */
#include "preconditions.h"

#include <string.h>

#include "server.h"
#include "sql_text.h"

static const char *
field(const PGresult *result, const char *name)
{
	int column = PQfnumber(result, name);

	return column < 0 || PQgetisnull(result, 0, column) ? NULL : PQgetvalue(result, 0, column);
}

static bool
yes(const PGresult *result, const char *name)
{
	const char *value = field(result, name);

	return value != NULL && value[0] == 't';
}

static int
number(const PGresult *result, const char *name)
{
	const char *value = field(result, name);

	return value != NULL ? atoi(value) : 0;
}

bool
preconditions_load(PGconn *conn, const char *role, const char *slot, Preconditions *preconditions,
				   Error *error)
{
	const char *values[2] = {role, slot};
	PGresult   *result = server_query(conn, sql_preconditions, 2, values, error);

	if (result == NULL)
		return false;
	preconditions->result = result;
	preconditions->version_number = number(result, "version_number");
	preconditions->version = field(result, "version");
	preconditions->is_in_recovery = yes(result, "is_in_recovery");
	preconditions->wal_level = field(result, "wal_level");
	preconditions->max_replication_slots = number(result, "max_replication_slots");
	preconditions->used_replication_slots = number(result, "used_replication_slots");
	preconditions->max_wal_senders = number(result, "max_wal_senders");
	preconditions->used_wal_senders = number(result, "used_wal_senders");
	preconditions->output_plugin_libraries = field(result, "output_plugin_libraries");
	preconditions->may_see_settings = yes(result, "may_see_settings");
	preconditions->synchronous_standby_names = field(result, "synchronous_standby_names");
	preconditions->max_slot_wal_keep_size = field(result, "max_slot_wal_keep_size");
	preconditions->idle_replication_slot_timeout = field(result, "idle_replication_slot_timeout");
	preconditions->is_superuser = yes(result, "is_superuser");
	preconditions->available_version = field(result, "available_version");
	preconditions->installed_version = field(result, "installed_version");
	preconditions->role_exists = yes(result, "role_exists");
	preconditions->role_is_superuser = yes(result, "role_is_superuser");
	preconditions->role_can_login = yes(result, "role_can_login");
	preconditions->role_can_replicate = yes(result, "role_can_replicate");
	preconditions->role_reads_all_data = yes(result, "role_reads_all_data");
	preconditions->role_can_connect = yes(result, "role_can_connect");
	preconditions->slot_exists = yes(result, "slot_exists");
	preconditions->slot_plugin = field(result, "slot_plugin");
	preconditions->slot_database = field(result, "slot_database");
	preconditions->slot_is_active = yes(result, "slot_is_active");
	preconditions->slot_wal_status = field(result, "slot_wal_status");
	preconditions->database = field(result, "database");
	return true;
}

void
preconditions_free(Preconditions *preconditions)
{
	PQclear(preconditions->result);
	memset(preconditions, 0, sizeof(*preconditions));
}

/* The next name of a list, without blanks and quotes around it; false at the end. */
static bool
next_name(const char **list, const char **name, size_t *length)
{
	const char *end;

	*list += strspn(*list, ", \"");
	if (**list == '\0')
		return false;
	*name = *list;
	end = *list + strcspn(*list, ",");
	*list = end;
	while (end > *name && (end[-1] == ' ' || end[-1] == '"'))
		end--;
	*length = (size_t) (end - *name);
	return true;
}

bool
list_contains(const char *list, const char *name)
{
	const char *candidate;
	size_t		length;

	while (next_name(&list, &candidate, &length))
	{
		if (strlen(name) == length && strncmp(candidate, name, length) == 0)
			return true;
	}
	return false;
}

void
append_plugin_statement(Text *statement, PGconn *conn, const char *present)
{
	const char *name;
	size_t		length;

	text_append(statement, "ALTER SYSTEM SET output_plugin_libraries = ");
	while (next_name(&present, &name, &length))
	{
		char *quoted = PQescapeLiteral(conn, name, length);

		text_append_format(statement, "%s, ", quoted);
		PQfreemem(quoted);
	}
	text_append(statement, "'" PGTRICKLE_PLUGIN "'");
}
