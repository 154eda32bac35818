/*
 * applier/remote_checks.c
 *     What a remote must offer.
 *
 * Asked for with the role that the applier will have there: nothing here needs more than that role has.  So the library of the output plugin is
 * not looked for; making the slot finds out.
 */
#include "remote_checks.h"

#include <stdarg.h>
#include <stdio.h>

#include "options.h"
#include "preconditions.h"
#include "remote_publication.h"
#include "sql_text.h"

static void __attribute__((format(printf, 4, 5)))
report(const RemoteChecks *checks, Verdict verdict, const char *repair, const char *format, ...)
{
	char	finding[1200];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(finding, sizeof(finding), format, arguments);
	va_end(arguments);
	checks->report(checks->context, verdict, finding, repair);
}

static int
number(const PGresult *found, const char *name)
{
	const char *value = server_field(found, 0, name);

	return value != NULL ? atoi(value) : 0;
}

static const char *
plugin_of(const RemoteChecks *checks)
{
	return checks->publication != NULL ? "pgoutput" : PGTRICKLE_PLUGIN;
}

/* ------------------------------------------------------------------------------------------------
 * The server
 */

static void
check_version(const RemoteChecks *checks, const PGresult *found)
{
	int			needed = server_field_is_true(found, 0, "is_standby") ? 160000 : 150000;
	const char *version = server_field(found, 0, "version");

	if (number(found, "version_number") >= needed)
		report(checks, VERDICT_FINE, NULL, "server version %s", version);
	else if (needed == 160000)
		report(
			checks, VERDICT_FAILURE,
			"connect to its primary: add target_session_attrs=read-write to the connection string",
			"the server is a standby of version %s, whose WAL cannot be decoded", version);
	else
		report(checks, VERDICT_FAILURE, "upgrade that server to version 15 or later",
			   "server version %s is too old", version);
}

static void
check_wal(const RemoteChecks *checks, const PGresult *found)
{
	const char *wal_level = server_field(found, 0, "wal_level");
	const char *keep_size = server_field(found, 0, "max_slot_wal_keep_size");
	const char *standbys = server_field(found, 0, "synchronous_standby_names");

	if (strcmp(wal_level, "logical") == 0)
		report(checks, VERDICT_FINE, NULL, "wal_level is logical");
	else
		report(checks, VERDICT_FAILURE,
			   "ALTER SYSTEM SET wal_level = 'logical'; then restart that server",
			   "wal_level is %s", wal_level);
	if (strchr(standbys, '*') != NULL || strstr(standbys, "pgtrickle") != NULL)
		report(
			checks, VERDICT_FAILURE,
			"ALTER SYSTEM SET synchronous_standby_names = '...'; with the names of the standbys only; "
			"SELECT pg_reload_conf();",
			"synchronous_standby_names = '%s' includes the applier", standbys);
	if (strcmp(keep_size, "-1") == 0)
		report(checks, VERDICT_WARNING,
			   "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf();",
			   "max_slot_wal_keep_size sets no limit to the WAL that a stopped applier holds");
	else
		report(checks, VERDICT_FINE, NULL, "max_slot_wal_keep_size is %s", keep_size);
}

static void
check_room(const RemoteChecks *checks, const PGresult *found)
{
	char repair[200];
	int	 max_slots = number(found, "max_replication_slots");
	int	 max_senders = number(found, "max_wal_senders");
	int	 used_slots = number(found, "used_replication_slots");
	int	 used_senders = number(found, "used_wal_senders");

	if (server_field_is_true(found, 0, "slot_exists") || used_slots < max_slots)
		report(checks, VERDICT_FINE, NULL, "%d of %d replication slots are in use", used_slots,
			   max_slots);
	else
	{
		snprintf(repair, sizeof(repair),
				 "ALTER SYSTEM SET max_replication_slots = %d; then restart that server",
				 max_slots + 10);
		report(checks, VERDICT_FAILURE, repair, "all %d replication slots are in use", max_slots);
	}
	if (server_field_is_true(found, 0, "slot_is_active") || used_senders < max_senders)
		report(checks, VERDICT_FINE, NULL, "%d of %d walsenders are in use", used_senders,
			   max_senders);
	else
	{
		snprintf(repair, sizeof(repair),
				 "ALTER SYSTEM SET max_wal_senders = %d; then restart that server",
				 max_senders + 10);
		report(checks, VERDICT_FAILURE, repair, "all %d walsenders are in use", max_senders);
	}
}

static void
check_plugin(const RemoteChecks *checks, const PGresult *found)
{
	const char *libraries = server_field(found, 0, "output_plugin_libraries");
	Text		statement = {0};

	if (libraries == NULL)
		return;
	if (list_contains(libraries, plugin_of(checks)))
		report(checks, VERDICT_FINE, NULL, "output_plugin_libraries names %s", plugin_of(checks));
	else
	{
		append_plugin_statement(&statement, checks->remote, libraries);
		text_append(&statement, "; SELECT pg_reload_conf();");
		report(checks, VERDICT_FAILURE, statement.data, "output_plugin_libraries does not name %s",
			   plugin_of(checks));
		text_free(&statement);
	}
}

static void
check_encoding(const RemoteChecks *checks, const PGresult *found)
{
	const char *encoding = server_field(found, 0, "encoding");

	if (strcmp(encoding, checks->target_encoding) == 0)
		report(checks, VERDICT_FINE, NULL, "both databases have encoding %s", encoding);
	else if (strcmp(encoding, "SQL_ASCII") == 0)
		report(
			checks, VERDICT_WARNING,
			"make sure that its texts are valid in the target's encoding: rows that are not cannot be copied",
			"the database has encoding SQL_ASCII, which says nothing about its texts");
	else
		report(checks, VERDICT_FINE, NULL, "texts are converted from %s to %s", encoding,
			   checks->target_encoding);
}

/* ------------------------------------------------------------------------------------------------
 * The role and the slot
 */

static void
check_role(const RemoteChecks *checks, const PGresult *found)
{
	const char *role = PQuser(checks->remote);
	char		repair[400];
	Error		error = {0};
	PGconn	   *stream;

	if (!server_field_is_true(found, 0, "may_replicate"))
	{
		snprintf(repair, sizeof(repair), "ALTER ROLE \"%s\" REPLICATION;", role);
		report(checks, VERDICT_FAILURE, repair, "role \"%s\" may not replicate", role);
		return;
	}
	stream = connection_open(checks->dbname, "pgtrickle doctor", true, &error);
	if (stream != NULL)
		report(checks, VERDICT_FINE, NULL, "role \"%s\" can make a replication connection", role);
	else
		report(checks, VERDICT_FAILURE,
			   "allow the role in pg_hba.conf of that server, with the database's name",
			   "no replication connection: %s", error.message);
	PQfinish(stream);
}

static void
check_slot(const RemoteChecks *checks, const PGresult *found)
{
	const char *plugin = server_field(found, 0, "slot_plugin");
	const char *database = server_field(found, 0, "slot_database");
	const char *wal_status = server_field(found, 0, "slot_wal_status");

	if (checks->slot == NULL || !server_field_is_true(found, 0, "slot_exists"))
		return;
	if (plugin == NULL || strcmp(plugin, plugin_of(checks)) != 0 || database == NULL ||
		strcmp(database, server_field(found, 0, "database")) != 0)
		report(checks, VERDICT_FAILURE, "choose another name with pgtrickle.alter_remote()",
			   "replication slot \"%s\" has another plugin or another database", checks->slot);
	else if (wal_status != NULL && strcmp(wal_status, "lost") == 0)
		report(checks, VERDICT_FAILURE,
			   "start the applier: it makes a new one and copies everything again",
			   "replication slot \"%s\" has been invalidated", checks->slot);
	else
		report(checks, VERDICT_FINE, NULL, "replication slot \"%s\" is %s", checks->slot,
			   server_field_is_true(found, 0, "slot_is_active") ? "in use" : "there");
}

bool
remote_checks_server(const RemoteChecks *checks, Error *error)
{
	const char *values[1] = {checks->slot};
	PGresult   *found = server_query(checks->remote, sql_remote_preconditions, 1, values, error);

	if (found == NULL)
		return false;
	check_version(checks, found);
	check_wal(checks, found);
	check_room(checks, found);
	check_plugin(checks, found);
	check_encoding(checks, found);
	check_role(checks, found);
	check_slot(checks, found);
	PQclear(found);
	return true;
}

/* ------------------------------------------------------------------------------------------------
 * Tables
 */

static void
check_identity(const RemoteChecks *checks, const char *schema, const char *name,
			   const RemoteTable *table)
{
	char repair[400];

	if (table->replica_identity == 'f' ||
		(table->key_index != NULL && table->replica_identity != 'n'))
	{
		report(checks, VERDICT_FINE, NULL, "table \"%s.%s\" can be copied", schema, name);
		return;
	}
	snprintf(repair, sizeof(repair), "ALTER TABLE \"%s\".\"%s\" REPLICA IDENTITY %s;", schema, name,
			 table->key_index != NULL ? "DEFAULT" : "FULL");
	report(
		checks, VERDICT_WARNING, repair,
		"table \"%s.%s\" can be copied as long as its rows are neither updated nor deleted: the WAL "
		"does not say which",
		schema, name);
}

void
remote_checks_table(const RemoteChecks *checks, const char *schema, const char *name,
					const char *columns_wanted)
{
	RemoteTable table;
	Error		error = {0};
	bool		good;

	if (!remote_table_load(checks->remote, schema, name, columns_wanted,
						   checks->publication == NULL, &table, &error))
	{
		report(checks, VERDICT_FAILURE, error.hint[0] != '\0' ? error.hint : NULL, "%s",
			   error.message);
		return;
	}
	good =
		checks->publication == NULL ||
		remote_publication_check(checks->remote, checks->publication, schema, name, &table, &error);
	if (good)
		check_identity(checks, schema, name, &table);
	else
		report(checks, VERDICT_FAILURE, error.hint[0] != '\0' ? error.hint : NULL, "%s",
			   error.message);
	remote_table_free(&table);
}
