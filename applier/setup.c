/*
 * applier/setup.c
 *     pgtrickle setup: everything that the applier needs in one database.
 *
 *     check -> output_plugin_libraries -> extension -> role -> grants -> slot -> remote (remote_setup.c)
 *
 * Each step remembers whether it changed something.  When a later one fails, the changes are undone
 * in reverse order, and only these; what cannot be undone is named.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "command.h"
#include "preconditions.h"
#include "remote_setup.h"
#include "server.h"
#include "sql_text.h"

/* Making a slot waits for every transaction that is running. */
#define SLOT_LOCK_TIMEOUT "30s"

#define RELOAD_WAIT_MS 10000

typedef struct Setup
{
	PGconn		  *conn;
	const Options *options;
	const char	  *role;
	char		   slot[64];
	Preconditions  found; /* before anything was changed */

	/* What was done. */
	bool changed_libraries;
	bool libraries_were_in_auto_conf;
	bool created_extension;
	bool created_role;
	bool altered_role;
	bool granted;
	bool created_slot;
} Setup;

/* ------------------------------------------------------------------------------------------------
 * Checks
 */

static bool
check_server(Setup *setup, Error *error)
{
	const Preconditions *found = &setup->found;

	if (found->version_number < 150000)
		return error_set(error, FAIL_FATAL, "server version %s is too old: 15 or later is needed",
						 found->version);
	if (found->is_in_recovery)
		return error_set(error, FAIL_FATAL, "the server is a standby: connect to its primary");
	if (!found->is_superuser)
	{
		error_set(error, FAIL_FATAL, "set-up needs a superuser");
		error_hint(error, "Connect as one, for example with --dbname=\"user=postgres dbname=%s\".",
				   found->database);
		return false;
	}
	if (strcmp(found->wal_level, "logical") != 0)
	{
		error_set(error, FAIL_FATAL, "wal_level is \"%s\" and must be \"logical\"",
				  found->wal_level);
		error_hint(error, "Run ALTER SYSTEM SET wal_level = 'logical'; and restart the server.");
		return false;
	}
	if (found->available_version == NULL)
	{
		error_set(error, FAIL_FATAL,
				  "extension \"pgtrickle\" is not installed on the server's machine");
		error_hint(error, "Run \"make install\" there, with this server's pg_config.");
		return false;
	}
	return true;
}

static bool
check_room(Setup *setup, Error *error)
{
	const Preconditions *found = &setup->found;

	if (!found->slot_exists && found->used_replication_slots >= found->max_replication_slots)
	{
		error_set(error, FAIL_FATAL, "all %d replication slots are in use",
				  found->max_replication_slots);
		error_hint(error,
				   "Run ALTER SYSTEM SET max_replication_slots = %d; and restart the server.",
				   found->max_replication_slots + 10);
		return false;
	}
	if (found->max_wal_senders < 1)
	{
		error_set(error, FAIL_FATAL, "max_wal_senders is 0");
		error_hint(error, "Run ALTER SYSTEM SET max_wal_senders = 10; and restart the server.");
		return false;
	}
	return true;
}

/* ------------------------------------------------------------------------------------------------
 * Steps
 */

/* The server reads its configuration when it gets to it; our session too. */
static bool
wait_for_libraries(Setup *setup, bool wanted, Error *error)
{
	for (int waited_ms = 0; waited_ms < RELOAD_WAIT_MS; waited_ms += 50)
	{
		Text libraries = {0};
		bool found;
		bool has_plugin;

		if (!server_ask(setup->conn, "SHOW output_plugin_libraries", 0, NULL, &libraries, &found,
						error))
			return false;
		has_plugin = list_contains(libraries.data, PGTRICKLE_PLUGIN);
		text_free(&libraries);
		if (has_plugin == wanted)
			return true;
		usleep(50 * 1000);
	}
	return error_set(error, FAIL_FATAL,
					 "the server did not take over the new output_plugin_libraries");
}

static bool
allow_plugin(Setup *setup, Error *error)
{
	const char *present = setup->found.output_plugin_libraries;
	Text		statement = {0};
	bool		done;

	if (present == NULL || list_contains(present, PGTRICKLE_PLUGIN))
		return true;
	append_plugin_statement(&statement, setup->conn, present);
	if (!setup->options->fix)
	{
		error_set(error, FAIL_FATAL,
				  "the server may not load output plugin \"" PGTRICKLE_PLUGIN "\"");
		error_hint(error, "Run %s; and SELECT pg_reload_conf(); or let set-up do it with --fix.",
				   statement.data);
		text_free(&statement);
		return false;
	}
	done = server_ask_bool(setup->conn,
						   "SELECT sourcefile LIKE '%postgresql.auto.conf' FROM pg_settings "
						   "WHERE name = 'output_plugin_libraries'",
						   0, NULL, &setup->libraries_were_in_auto_conf, error) &&
		   server_execute(setup->conn, statement.data, 0, NULL, error);
	text_free(&statement);
	if (!done)
		return false;
	setup->changed_libraries = true;
	if (!server_execute(setup->conn, "SELECT pg_reload_conf()", 0, NULL, error) ||
		!wait_for_libraries(setup, true, error))
		return false;
	printf("added \"%s\" to output_plugin_libraries\n", PGTRICKLE_PLUGIN);
	return true;
}

static bool
create_extension(Setup *setup, Error *error)
{
	if (setup->found.installed_version != NULL)
		return true;
	if (!server_execute(setup->conn, "CREATE EXTENSION pgtrickle", 0, NULL, error))
		return error_context(error, "could not create extension \"pgtrickle\"");
	setup->created_extension = true;
	printf("created extension \"pgtrickle\" in database \"%s\"\n", setup->found.database);
	return true;
}

/* "<before> <role> <after>", with the role quoted. */
static bool
execute_for_role(Setup *setup, const char *before, const char *after, Error *error)
{
	char *role = PQescapeIdentifier(setup->conn, setup->role, strlen(setup->role));
	Text  statement = {0};
	bool  done;

	text_append_format(&statement, "%s %s %s", before, role, after);
	done = server_execute(setup->conn, statement.data, 0, NULL, error);
	text_free(&statement);
	PQfreemem(role);
	return done;
}

static bool
create_role(Setup *setup, Error *error)
{
	const Preconditions *found = &setup->found;

	if (!found->role_exists)
	{
		if (!execute_for_role(setup, "CREATE ROLE", "LOGIN REPLICATION", error))
			return error_context(error, "could not create role \"%s\"", setup->role);
		setup->created_role = true;
		printf("created role \"%s\"\n", setup->role);
		return true;
	}
	if (found->role_is_superuser || (found->role_can_replicate && found->role_can_login))
		return true;
	if (!execute_for_role(setup, "ALTER ROLE", "LOGIN REPLICATION", error))
		return error_context(error, "could not alter role \"%s\"", setup->role);
	setup->altered_role = true;
	printf("gave LOGIN and REPLICATION to role \"%s\"\n", setup->role);
	return true;
}

static bool
grant_rights(Setup *setup, Error *error)
{
	const char *values[1] = {setup->role};
	bool		has_them;

	if (!server_ask_bool(
			setup->conn,
			"SELECT has_function_privilege($1, 'pgtrickle.applier_state()', 'EXECUTE') "
			"AND pg_has_role($1, 'pg_read_all_data', 'USAGE')",
			1, values, &has_them, error))
		return false;
	/* Also when it has some of them: a newer version may need more. */
	if (!server_execute(setup->conn, "SELECT pgtrickle.grant_applier($1)", 1, values, error))
		return error_context(error, "could not grant rights to role \"%s\"", setup->role);
	setup->granted = !has_them;
	return true;
}

static bool
slot_failed(Setup *setup, Error *error)
{
	bool must_wait = error_is(error, "55P03");

	error_context(error, "could not create replication slot \"%s\"", setup->slot);
	if (must_wait)
		error_hint(
			error,
			"A slot waits for transactions that are running. Look for old ones with SELECT "
			"pid, xact_start, query FROM pg_stat_activity WHERE backend_xid IS NOT NULL ORDER "
			"BY xact_start;");
	else if (error_is(error, "58P01"))
		error_hint(error,
				   "Run \"make install\" on the server's machine, with this server's pg_config.");
	return false;
}

/*
 * The slot's first position is persisted with it, so that the first start of the applier finds no
 * gap.
 */
static bool
persist_slot(Setup *setup, Error *error)
{
	const char *started[2] = {setup->slot, "the replication slot is new"};
	const char *slot[1] = {setup->slot};

	return server_execute(setup->conn, sql_applier_started, 2, started, error) &&
		   server_execute(
			   setup->conn,
			   "SELECT pgtrickle.applier_heartbeat(confirmed_flush_lsn, confirmed_flush_lsn) "
			   "FROM pg_replication_slots WHERE slot_name = $1",
			   1, slot, error);
}

static bool
create_slot(Setup *setup, Error *error)
{
	const Preconditions *found = &setup->found;
	const char			*slot[1] = {setup->slot};

	if (found->slot_exists)
	{
		if (strcmp(found->slot_plugin != NULL ? found->slot_plugin : "", PGTRICKLE_PLUGIN) == 0 &&
			strcmp(found->slot_database, found->database) == 0)
			return true;
		error_set(error, FAIL_FATAL,
				  "replication slot \"%s\" exists and is not one of pgtrickle for this database",
				  setup->slot);
		error_hint(error, "Name another one with --slot.");
		return false;
	}
	if (!server_execute(setup->conn, "SET lock_timeout = '" SLOT_LOCK_TIMEOUT "'", 0, NULL, error))
		return false;
	if (!server_execute(setup->conn, sql_create_slot, 1, slot, error))
		return slot_failed(setup, error);
	setup->created_slot = true;
	printf("created replication slot \"%s\"\n", setup->slot);
	return persist_slot(setup, error);
}

/* ------------------------------------------------------------------------------------------------
 * Undoing
 */

static void
say_undone(bool done, const char *what, const Error *error)
{
	if (done)
		fprintf(stderr, "undone: %s\n", what);
	else
		fprintf(stderr, "left behind: %s (%s)\n", what, error->message);
}

static bool
restore_libraries(Setup *setup, Error *error)
{
	Text statement = {0};
	bool done;

	if (setup->libraries_were_in_auto_conf)
	{
		/* The statement that added our name, without it. */
		append_plugin_statement(&statement, setup->conn, setup->found.output_plugin_libraries);
		statement.length -= strlen(", '" PGTRICKLE_PLUGIN "'");
		statement.data[statement.length] = '\0';
	}
	else
		text_append(&statement, "ALTER SYSTEM RESET output_plugin_libraries");
	done = server_execute(setup->conn, statement.data, 0, NULL, error) &&
		   server_execute(setup->conn, "SELECT pg_reload_conf()", 0, NULL, error);
	text_free(&statement);
	return done;
}

static void
undo(Setup *setup)
{
	const char *slot[1] = {setup->slot};
	const char *role[1] = {setup->role};
	Error		error = {0};

	if (setup->created_slot)
		say_undone(server_execute(setup->conn, sql_drop_slot, 1, slot, &error), "replication slot",
				   &error);
	if (setup->granted)
		say_undone(
			server_execute(setup->conn, "SELECT pgtrickle.revoke_applier($1)", 1, role, &error),
			"rights of the role", &error);
	if (setup->created_extension)
		say_undone(server_execute(setup->conn, "DROP EXTENSION pgtrickle", 0, NULL, &error),
				   "extension", &error);
	if (setup->created_role)
		say_undone(execute_for_role(setup, "DROP ROLE", "", &error), "role", &error);
	if (setup->altered_role)
		say_undone(execute_for_role(setup, "ALTER ROLE",
									setup->found.role_can_login		  ? "NOREPLICATION"
									: setup->found.role_can_replicate ? "NOLOGIN"
																	  : "NOREPLICATION NOLOGIN",
									&error),
				   "rights of the role to replicate", &error);
	if (setup->changed_libraries)
		say_undone(restore_libraries(setup, &error), "output_plugin_libraries", &error);
}

int
command_setup(const Options *options)
{
	Setup setup = {.options = options};
	Error error = {0};
	bool  done;
	int	  exit_code = EXIT_FINE;

	setup.role = options->role != NULL ? options->role : PGTRICKLE_ROLE_DEFAULT;
	setup.conn = command_connect(options, setup.slot);
	if (setup.conn == NULL)
		return EXIT_NO_SERVER;
	done = preconditions_load(setup.conn, setup.role, setup.slot, &setup.found, &error) &&
		   check_server(&setup, &error) && check_room(&setup, &error) &&
		   (options->source == NULL || remote_setup_check(setup.conn, options, &error)) &&
		   allow_plugin(&setup, &error) && create_extension(&setup, &error) &&
		   create_role(&setup, &error) && grant_rights(&setup, &error) &&
		   create_slot(&setup, &error) &&
		   (options->source == NULL ||
			remote_setup(setup.conn, options, setup.role, &error));
	if (done)
		printf(
			"database \"%s\" is ready: start the applier with \"pgtrickle run\" as role \"%s\"\n",
			setup.found.database, setup.role);
	else
	{
		fflush(stdout);
		exit_code = command_fail(&error);
		undo(&setup);
	}
	if (setup.found.result != NULL)
		preconditions_free(&setup.found);
	PQfinish(setup.conn);
	return exit_code;
}
