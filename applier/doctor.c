/*
 * applier/doctor.c
 *     pgtrickle doctor: every precondition, and for each that is not met the command that repairs
 *     it.
 *
 * Looks at everything, also after the first failure, and changes nothing.  A warning is something
 * that works but can hurt; only failures make the exit code.
 */
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "connection.h"
#include "preconditions.h"
#include "remote_checks.h"
#include "remote_setup.h"
#include "server.h"
#include "sql_text.h"

#define REPAIR_INDENT "         repair: "

typedef struct Doctor
{
	const Options *options;
	PGconn		  *conn;
	const char	  *role;
	char		   slot[64];
	Preconditions  found;
	int			   failures;
	int			   warnings;
} Doctor;

static void
say(const char *verdict, const char *format, va_list arguments)
{
	printf("%-8s ", verdict);
	vprintf(format, arguments);
	puts("");
}

static void __attribute__((format(printf, 1, 2))) fine(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	say("ok", format, arguments);
	va_end(arguments);
}

static void __attribute__((format(printf, 2, 3))) fail(Doctor *doctor, const char *format, ...)
{
	va_list arguments;

	doctor->failures++;
	va_start(arguments, format);
	say("FAILED", format, arguments);
	va_end(arguments);
}

static void __attribute__((format(printf, 2, 3))) warn(Doctor *doctor, const char *format, ...)
{
	va_list arguments;

	doctor->warnings++;
	va_start(arguments, format);
	say("warning", format, arguments);
	va_end(arguments);
}

static void __attribute__((format(printf, 1, 2))) repair(const char *format, ...)
{
	va_list arguments;

	fputs(REPAIR_INDENT, stdout);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	puts("");
}

/* ------------------------------------------------------------------------------------------------
 * The server
 */

static void
check_server(Doctor *doctor)
{
	const Preconditions *found = &doctor->found;

	if (found->version_number >= 150000)
		fine("server version %s", found->version);
	else
	{
		fail(doctor, "server version %s is too old", found->version);
		repair("upgrade the server to version 15 or later");
	}
	if (found->is_in_recovery)
	{
		fail(doctor, "the server is a standby");
		repair(
			"connect to its primary: add target_session_attrs=read-write to the connection string");
	}
	if (strcmp(found->wal_level, "logical") == 0)
		fine("wal_level is logical");
	else
	{
		fail(doctor, "wal_level is %s", found->wal_level);
		repair("ALTER SYSTEM SET wal_level = 'logical'; then restart the server");
	}
	if (found->slot_exists || found->used_replication_slots < found->max_replication_slots)
		fine("%d of %d replication slots are in use", found->used_replication_slots,
			 found->max_replication_slots);
	else
	{
		fail(doctor, "all %d replication slots are in use", found->max_replication_slots);
		repair("ALTER SYSTEM SET max_replication_slots = %d; then restart the server",
			   found->max_replication_slots + 10);
	}
	if (found->slot_is_active || found->used_wal_senders < found->max_wal_senders)
		fine("%d of %d walsenders are in use", found->used_wal_senders, found->max_wal_senders);
	else
	{
		fail(doctor, "all %d walsenders are in use", found->max_wal_senders);
		repair("ALTER SYSTEM SET max_wal_senders = %d; then restart the server",
			   found->max_wal_senders + 10);
	}
}

static void
check_plugin_library(Doctor *doctor)
{
	Error error = {0};
	bool  is_there;

	if (!server_ask_bool(doctor->conn, sql_plugin_library, 0, NULL, &is_there, &error))
	{
		fine("the output plugin's library was not looked for (that needs a superuser)");
		return;
	}
	if (is_there)
		fine("output plugin " PGTRICKLE_PLUGIN " is installed");
	else
	{
		fail(doctor, "output plugin " PGTRICKLE_PLUGIN " is not installed");
		repair("make install, on the server's machine and with this server's pg_config");
	}
}

static void
check_plugin(Doctor *doctor)
{
	const char *libraries = doctor->found.output_plugin_libraries;

	if (!doctor->found.may_see_settings)
		fine("output_plugin_libraries was not looked at (that needs pg_read_all_settings)");
	else if (libraries == NULL)
		fine("this server loads every output plugin");
	else if (list_contains(libraries, PGTRICKLE_PLUGIN))
		fine("output_plugin_libraries names " PGTRICKLE_PLUGIN);
	else
	{
		Text statement = {0};

		fail(doctor, "output_plugin_libraries does not name " PGTRICKLE_PLUGIN);
		append_plugin_statement(&statement, doctor->conn, libraries);
		repair("%s; SELECT pg_reload_conf();", statement.data);
		text_free(&statement);
	}
	check_plugin_library(doctor);
}

static void
check_settings(Doctor *doctor)
{
	const Preconditions *found = &doctor->found;
	const char			*standbys = found->synchronous_standby_names;

	/* A commit would wait for the applier, which waits until the commit is visible. */
	if (strchr(standbys, '*') != NULL || strstr(standbys, "pgtrickle") != NULL)
	{
		fail(doctor, "synchronous_standby_names = '%s' includes the applier", standbys);
		repair(
			"ALTER SYSTEM SET synchronous_standby_names = '...'; with the names of the standbys only; "
			"SELECT pg_reload_conf();");
	}
	else
		fine("synchronous_standby_names does not include the applier");
	if (strcmp(found->max_slot_wal_keep_size, "-1") == 0)
	{
		warn(doctor,
			 "max_slot_wal_keep_size sets no limit to the WAL that a stopped applier holds");
		repair("ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf();");
	}
	else
		fine("max_slot_wal_keep_size is %s", found->max_slot_wal_keep_size);
	if (found->idle_replication_slot_timeout != NULL &&
		strcmp(found->idle_replication_slot_timeout, "0") != 0)
	{
		warn(doctor,
			 "idle_replication_slot_timeout = '%s' invalidates the slot when the applier is "
			 "stopped for so long",
			 found->idle_replication_slot_timeout);
		repair("ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf();");
	}
}

/* ------------------------------------------------------------------------------------------------
 * The database and the role
 */

static void
check_extension(Doctor *doctor)
{
	const Preconditions *found = &doctor->found;

	if (found->available_version == NULL)
	{
		fail(doctor, "extension pgtrickle is not installed on the server's machine");
		repair("make install, there and with this server's pg_config");
	}
	else if (found->installed_version == NULL)
	{
		fail(doctor, "database %s has no extension pgtrickle", found->database);
		repair("pgtrickle setup --dbname='dbname=%s'", found->database);
	}
	else if (strcmp(found->installed_version, found->available_version) != 0)
	{
		warn(doctor, "extension pgtrickle has version %s, installed is %s",
			 found->installed_version, found->available_version);
		repair("ALTER EXTENSION pgtrickle UPDATE;");
	}
	else
		fine("extension pgtrickle has version %s", found->installed_version);
}

static void
check_role(Doctor *doctor)
{
	const Preconditions *found = &doctor->found;

	if (!found->role_exists)
	{
		fail(doctor, "role %s does not exist", doctor->role);
		repair("pgtrickle setup --role=%s", doctor->role);
		return;
	}
	if (found->role_is_superuser || (found->role_can_replicate && found->role_can_login))
		fine("role %s may log in and replicate", doctor->role);
	else
	{
		fail(doctor, "role %s may not log in and replicate", doctor->role);
		repair("ALTER ROLE %s LOGIN REPLICATION;", doctor->role);
	}
	if (found->role_reads_all_data)
		fine("role %s may lock every source", doctor->role);
	else
	{
		fail(doctor, "role %s does not have the rights of pg_read_all_data", doctor->role);
		repair("GRANT pg_read_all_data TO %s;", doctor->role);
	}
	if (!found->role_can_connect)
	{
		fail(doctor, "role %s may not connect to database %s", doctor->role, found->database);
		repair("GRANT CONNECT ON DATABASE %s TO %s;", found->database, doctor->role);
	}
}

static void
check_grants(Doctor *doctor)
{
	const char *values[1] = {doctor->role};
	Error		error = {0};
	PGresult   *result;

	if (doctor->found.installed_version == NULL || !doctor->found.role_exists)
		return;
	result = server_query(doctor->conn, sql_missing_grants, 1, values, &error);
	if (result == NULL)
		fail(doctor, "could not check the rights of role %s: %s", doctor->role, error.message);
	else if (PQntuples(result) == 0)
		fine("role %s may call the functions of the applier", doctor->role);
	else
	{
		fail(doctor, "role %s may not call %d functions of the applier, such as %s", doctor->role,
			 PQntuples(result), PQgetvalue(result, 0, 0));
		repair("SELECT pgtrickle.grant_applier('%s');", doctor->role);
	}
	PQclear(result);
}

static void
check_replication_connection(Doctor *doctor)
{
	Error	error = {0};
	PGconn *conn = connection_open(doctor->options->dbname, "pgtrickle doctor", true, &error);

	if (conn != NULL)
		fine("a replication connection can be made");
	else
	{
		fail(doctor, "%s", error.message);
		repair(
			"allow the role in pg_hba.conf (with the database's name: \"replication\" is for physical "
			"replication), and let it replicate: ALTER ROLE %s REPLICATION;",
			doctor->role);
	}
	PQfinish(conn);
}

/* ------------------------------------------------------------------------------------------------
 * The slot and the stream tables
 */

static void
check_slot(Doctor *doctor)
{
	const Preconditions *found = &doctor->found;

	if (!found->slot_exists)
	{
		fail(doctor, "replication slot %s does not exist", doctor->slot);
		repair("pgtrickle setup --slot=%s (or start the applier, which makes it)", doctor->slot);
	}
	else if (found->slot_plugin == NULL || strcmp(found->slot_plugin, PGTRICKLE_PLUGIN) != 0 ||
			 strcmp(found->slot_database, found->database) != 0)
	{
		fail(doctor, "replication slot %s has another plugin or another database", doctor->slot);
		repair("use another name with --slot, in setup and in run");
	}
	else if (found->slot_wal_status != NULL && strcmp(found->slot_wal_status, "lost") == 0)
	{
		fail(doctor, "replication slot %s has been invalidated", doctor->slot);
		repair("start the applier: it makes a new one and fills all stream tables again");
	}
	else if (!found->slot_is_active)
	{
		fail(doctor, "nobody streams from replication slot %s", doctor->slot);
		repair("start the applier: pgtrickle run");
	}
	else
		fine("replication slot %s is in use", doctor->slot);
}

static void
check_stopped_tables(Doctor *doctor)
{
	Error	  error = {0};
	PGresult *result = server_query(doctor->conn, sql_stopped_tables, 0, NULL, &error);

	if (result == NULL)
	{
		fail(doctor, "could not look at the stream tables: %s", error.message);
		return;
	}
	if (PQntuples(result) == 0)
		fine("no stream table has been stopped by failures");
	for (int row = 0; row < PQntuples(result); row++)
	{
		fail(doctor, "stream table %s has status %s", PQgetvalue(result, row, 0),
			 PQgetvalue(result, row, 1));
		repair(
			"remove the cause (its last_error_message in pgtrickle.pgt_stream_tables), then SELECT "
			"pgtrickle.resume_stream_table('%s');",
			PQgetvalue(result, row, 0));
	}
	PQclear(result);
}

static void
check_identities(Doctor *doctor)
{
	Error	  error = {0};
	PGresult *result = server_query(doctor->conn, sql_sources_without_identity, 0, NULL, &error);

	if (result == NULL)
	{
		fail(doctor, "could not look at the sources: %s", error.message);
		return;
	}
	if (PQntuples(result) == 0)
		fine("updates and deletes of every source carry the old row");
	for (int row = 0; row < PQntuples(result); row++)
	{
		const char *source = PQgetvalue(result, row, 0);

		warn(doctor,
			 "updates and deletes of %s may not carry the old row: they cause full refreshes",
			 source);
		repair("ALTER TABLE %s REPLICA IDENTITY FULL;", source);
	}
	PQclear(result);
}

/* They have no limit: whatever is thrown away there has to be read again from whole tables. */
static void
check_spools(Doctor *doctor)
{
	Error	  error = {0};
	PGresult *large = server_query(doctor->conn, sql_large_spools, 0, NULL, &error);

	if (large == NULL)
	{
		fail(doctor, "could not look at the spools: %s", error.message);
		return;
	}
	if (PQntuples(large) == 0)
		fine("less than 1 GB of changes waits in the spools");
	for (int row = 0; row < PQntuples(large); row++)
	{
		warn(doctor, "%s of changes wait for %s", PQgetvalue(large, row, 1), PQgetvalue(large, row, 0));
		repair("shorten these schedules, or see \"pgtrickle status\" for what keeps the copying from its end");
	}
	PQclear(large);
}

static void
report_remote(void *context, int verdict, const char *finding, const char *remedy)
{
	Doctor *doctor = context;

	if (verdict == VERDICT_FINE)
		fine("%s", finding);
	else if (verdict == VERDICT_WARNING)
		warn(doctor, "%s", finding);
	else
		fail(doctor, "%s", finding);
	if (verdict != VERDICT_FINE && remedy != NULL)
		repair("%s", remedy);
}

static void
check_remotes(Doctor *doctor)
{
	Error error = {0};

	if (!remote_doctor(doctor->conn, report_remote, doctor, &error))
		fail(doctor, "could not look at the remotes: %s", error.message);
}

int
command_doctor(const Options *options)
{
	Doctor doctor = {.options = options};
	Error  error = {0};
	int	   exit_code;

	doctor.conn = command_connect(options, doctor.slot);
	if (doctor.conn == NULL)
		return EXIT_NO_SERVER;
	doctor.role = options->role != NULL ? options->role : PQuser(doctor.conn);
	if (!preconditions_load(doctor.conn, doctor.role, doctor.slot, &doctor.found, &error))
	{
		PQfinish(doctor.conn);
		return command_fail(&error);
	}
	printf("%s\n", connection_describe(doctor.conn));
	check_server(&doctor);
	check_plugin(&doctor);
	check_settings(&doctor);
	check_extension(&doctor);
	check_role(&doctor);
	check_grants(&doctor);
	check_replication_connection(&doctor);
	check_slot(&doctor);
	if (doctor.found.installed_version != NULL)
	{
		check_stopped_tables(&doctor);
		check_identities(&doctor);
		check_spools(&doctor);
		check_remotes(&doctor);
	}
	exit_code = doctor.failures > 0 ? EXIT_PROBLEM : EXIT_FINE;
	printf("%d failures, %d warnings\n", doctor.failures, doctor.warnings);
	preconditions_free(&doctor.found);
	PQfinish(doctor.conn);
	return exit_code;
}
