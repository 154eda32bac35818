/*
 * applier/remote_setup.c
 *     pgtrickle setup --source: adds a remote to a database.
 *
 *     check the remote -> (set-up of the database itself) -> right to create -> remote -> publication -> slot -> copies
 *
 * On the remote nothing is made but the slot, and with --publication the publication if the role may.  Both are made with the connection string that
 * the applier will use, so that what works here works there.
 */
#include "remote_setup.h"

#include <stdio.h>

#include "command.h"
#include "remote_checks.h"
#include "sql_text.h"

#define SLOT_LOCK_TIMEOUT "30s"

typedef struct RemoteSetup
{
	PGconn		  *target;
	PGconn		  *remote;
	const Options *options;
	char		   name[41];
	Text		   slot;
	bool		   created_remote;
	bool		   created_publication;
	bool		   created_slot;
} RemoteSetup;

static const char *
plugin_of(const Options *options)
{
	return options->publication != NULL ? "pgoutput" : PGTRICKLE_PLUGIN;
}

/* Names of remotes are parts of names of slots. */
static void
choose_name(const Options *options, const PGconn *remote, char name[41])
{
	snprintf(name, 41, "%s", options->name != NULL ? options->name : PQdb(remote));
	for (char *c = name; options->name == NULL && *c != '\0'; c++)
	{
		if (*c >= 'A' && *c <= 'Z')
			*c = (char) (*c - 'A' + 'a');
		else if (!((*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9')))
			*c = '_';
	}
}

static PGconn *
connect_to_source(const Options *options, Error *error)
{
	PGconn *remote = connection_open(options->source, "pgtrickle setup", false, error);

	if (remote == NULL)
		error_context(error, "remote");
	return remote;
}

/* ------------------------------------------------------------------------------------------------
 * Checks
 */

/* Findings that are fine are not worth a line in a set-up. */
static void
note_finding(void *context, Verdict verdict, const char *finding, const char *repair)
{
	int *failures = context;

	if (verdict == VERDICT_FINE)
		return;
	*failures += verdict == VERDICT_FAILURE;
	fprintf(stderr, "%-8s remote: %s\n", verdict == VERDICT_FAILURE ? "FAILED" : "warning",
			finding);
	if (repair != NULL)
		fprintf(stderr, "         repair: %s\n", repair);
}

/* Parts of "schema.table" as SQL writes it; the caller clears the result. */
static PGresult *
split_name(PGconn *conn, const char *table, Error *error)
{
	const char *values[1] = {table};
	PGresult   *parts = server_query(
		  conn,
		  "SELECT CASE WHEN pg_catalog.cardinality(p.name) > 1 THEN p.name[1] ELSE 'public' END AS schema, "
			"p.name[pg_catalog.cardinality(p.name)] AS name FROM (SELECT pg_catalog.parse_ident($1) AS name) p",
		  1, values, error);

	if (parts == NULL)
		error_context(error, "--table");
	return parts;
}

static bool
check_schema(RemoteChecks *checks, const char *schema, Error *error)
{
	const char *values[1] = {schema};
	PGresult   *tables;

	tables = server_query(
		checks->remote,
		"SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
		"WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT c.relispartition ORDER BY 1",
		1, values, error);
	if (tables == NULL)
		return false;
	if (PQntuples(tables) == 0)
		fprintf(stderr, "warning  remote: schema \"%s\" has no tables\n", schema);
	for (int row = 0; row < PQntuples(tables); row++)
		remote_checks_table(checks, schema, PQgetvalue(tables, row, 0), NULL);
	PQclear(tables);
	return true;
}

/* Tables of a publication that does not exist yet are looked at once it does. */
static bool
check_tables(RemoteChecks *checks, const Options *options, Error *error)
{
	if (checks->publication != NULL)
		return true;
	for (const char *const *table = options->tables; *table != NULL; table++)
	{
		PGresult *parts = split_name(checks->remote, *table, error);

		if (parts == NULL)
			return false;
		remote_checks_table(checks, PQgetvalue(parts, 0, 0), PQgetvalue(parts, 0, 1), NULL);
		PQclear(parts);
	}
	for (const char *const *schema = options->schemas; *schema != NULL; schema++)
	{
		if (!check_schema(checks, *schema, error))
			return false;
	}
	return true;
}

/* The slot of a remote that has been added before; else empty. */
static bool
find_slot(PGconn *target, const char *name, Text *slot, Error *error)
{
	const char *values[1] = {name};
	bool		is_there;
	bool		found;

	if (!server_ask_bool(
			target, "SELECT pg_catalog.to_regprocedure('pgtrickle.remote_catalog()') IS NOT NULL",
			0, NULL, &is_there, error))
		return false;
	text_reset(slot);
	return !is_there ||
		   server_ask(target,
					  "SELECT slot_name FROM pgtrickle.remote_catalog() WHERE remote_name = $1", 1,
					  values, slot, &found, error);
}

bool
remote_setup_check(PGconn *target, const Options *options, Error *error)
{
	int			 failures = 0;
	PGconn		*remote = connect_to_source(options, error);
	Text		 slot = {0};
	char		 name[41];
	RemoteChecks checks = {.remote = remote,
						   .dbname = options->source,
						   .publication = options->publication,
						   .target_encoding = PQparameterStatus(target, "server_encoding"),
						   .report = note_finding,
						   .context = &failures};
	bool		 done;

	if (remote == NULL)
		return false;
	choose_name(options, remote, name);
	done = find_slot(target, name, &slot, error);
	checks.slot = slot.length > 0 ? slot.data : NULL;
	done = done && remote_checks_server(&checks, error) && check_tables(&checks, options, error);
	text_free(&slot);
	PQfinish(remote);
	if (done && failures > 0)
		return error_set(error, FAIL_FATAL, "the remote is not ready: %d problems", failures);
	return done;
}

/* ------------------------------------------------------------------------------------------------
 * Steps
 */

/* The worker makes schemas and tables of copies as this role, and they are its. */
static bool
grant_create(RemoteSetup *setup, const char *role, Error *error)
{
	Text statement = {0};
	bool done;

	text_append(&statement, "GRANT CREATE ON DATABASE ");
	text_append_identifier(&statement, setup->target, PQdb(setup->target));
	text_append(&statement, " TO ");
	text_append_identifier(&statement, setup->target, role);
	done = server_execute(setup->target, statement.data, 0, NULL, error);
	text_free(&statement);
	return done;
}

static bool
add_remote(RemoteSetup *setup, Error *error)
{
	const Options *options = setup->options;
	const char	  *name[1] = {setup->name};
	const char	  *values[4] = {setup->name, options->source, plugin_of(options),
								options->publication};
	bool		   found;

	if (!server_ask(setup->target,
					"SELECT slot_name FROM pgtrickle.remote_catalog() WHERE remote_name = $1", 1,
					name, &setup->slot, &found, error))
		return false;
	if (found)
		return true;
	if (!server_execute(
			setup->target,
			"SELECT pgtrickle.add_remote($1, $2, output_plugin => $3, publication => $4)", 4,
			values, error))
		return error_context(error, "could not add remote \"%s\"", setup->name);
	setup->created_remote = true;
	printf("added remote \"%s\"\n", setup->name);
	return server_ask(setup->target,
					  "SELECT slot_name FROM pgtrickle.remote_catalog() WHERE remote_name = $1", 1,
					  name, &setup->slot, &found, error);
}

static void
append_published_tables(RemoteSetup *setup, Text *statement, Error *error, bool *done)
{
	bool is_first = true;

	for (const char *const *table = setup->options->tables; *table != NULL && *done; table++)
	{
		PGresult *parts = split_name(setup->remote, *table, error);

		*done = parts != NULL;
		if (!*done)
			break;
		text_append(statement, is_first ? " FOR TABLE " : ", ");
		text_append_identifier(statement, setup->remote, PQgetvalue(parts, 0, 0));
		text_append_char(statement, '.');
		text_append_identifier(statement, setup->remote, PQgetvalue(parts, 0, 1));
		is_first = false;
		PQclear(parts);
	}
	for (const char *const *schema = setup->options->schemas; *schema != NULL; schema++)
	{
		text_append(statement, is_first ? " FOR TABLES IN SCHEMA " : ", TABLES IN SCHEMA ");
		text_append_identifier(statement, setup->remote, *schema);
		is_first = false;
	}
}

static bool
create_publication(RemoteSetup *setup, Error *error)
{
	const char *values[1] = {setup->options->publication};
	Text		statement = {0};
	bool		is_there;
	bool		done;

	if (values[0] == NULL)
		return true;
	if (!server_ask_bool(setup->remote,
						 "SELECT count(*) > 0 FROM pg_catalog.pg_publication WHERE pubname = $1", 1,
						 values, &is_there, error))
		return false;
	if (is_there)
		return true;
	done = true;
	text_append(&statement, "CREATE PUBLICATION ");
	text_append_identifier(&statement, setup->remote, values[0]);
	append_published_tables(setup, &statement, error, &done);
	text_append(&statement, " WITH (publish_via_partition_root = true)");
	if (done && !server_execute(setup->remote, statement.data, 0, NULL, error))
	{
		done = error_context(error, "could not create publication \"%s\" on the remote", values[0]);
		error_hint(error, "Have the owner of its tables run there: %s;", statement.data);
	}
	text_free(&statement);
	if (done)
	{
		setup->created_publication = true;
		printf("created publication \"%s\" on the remote\n", values[0]);
	}
	return done;
}

static bool
slot_failed(RemoteSetup *setup, Error *error)
{
	bool must_wait = error_is(error, "55P03");

	error_context(error, "could not create replication slot \"%s\" on the remote",
				  setup->slot.data);
	if (must_wait)
		error_hint(
			error,
			"A slot waits for transactions that are running. Look for old ones there with SELECT pid, "
			"xact_start, query FROM pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY xact_start;");
	else if (error_is(error, "58P01"))
		error_hint(
			error,
			"Run \"make -C decoder install\" on that server's machine, with its pg_config; or "
			"use its own plugin: --publication=NAME.");
	else if (error->hint[0] == '\0')
		error_hint(error, "Run \"pgtrickle doctor\" for what is missing there.");
	return false;
}

static bool
create_slot(RemoteSetup *setup, Error *error)
{
	const char *slot[1] = {setup->slot.data};
	const char *values[2] = {setup->slot.data, plugin_of(setup->options)};
	bool		is_there;

	if (!server_ask_bool(
			setup->remote,
			"SELECT count(*) > 0 FROM pg_catalog.pg_replication_slots WHERE slot_name = $1", 1,
			slot, &is_there, error))
		return false;
	if (is_there)
		return true;
	if (!server_execute(setup->remote, "SET lock_timeout = '" SLOT_LOCK_TIMEOUT "'", 0, NULL,
						error))
		return false;
	if (!server_execute(setup->remote, sql_remote_create_slot, 2, values, error))
		return slot_failed(setup, error);
	setup->created_slot = true;
	printf("created replication slot \"%s\" on the remote\n", setup->slot.data);
	return true;
}

/* A table or schema that is copied already is left alone. */
static bool
request(RemoteSetup *setup, const char *check, const char *sql, const char *name, Error *error)
{
	const char *values[2] = {setup->name, name};
	bool		is_there;

	if (!server_ask_bool(setup->target, check, 2, values, &is_there, error))
		return false;
	if (is_there)
		return true;
	if (!server_execute(setup->target, sql, 2, values, error))
		return error_context(error, "could not ask for copies of \"%s\"", name);
	printf("copies of \"%s\" are asked for\n", name);
	return true;
}

static bool
request_copies(RemoteSetup *setup, Error *error)
{
	for (const char *const *table = setup->options->tables; *table != NULL; table++)
	{
		if (!request(setup, sql_copy_is_known, "SELECT pgtrickle.copy_table($1, $2)", *table,
					 error))
			return false;
	}
	for (const char *const *schema = setup->options->schemas; *schema != NULL; schema++)
	{
		if (!request(setup, sql_pattern_is_known, "SELECT pgtrickle.copy_schema($1, $2)", *schema,
					 error))
			return false;
	}
	return true;
}

/* With a publication the tables can be looked at only now. */
static bool
check_published(RemoteSetup *setup, Error *error)
{
	int			 failures = 0;
	RemoteChecks checks = {.remote = setup->remote,
						   .dbname = setup->options->source,
						   .publication = setup->options->publication,
						   .report = note_finding,
						   .context = &failures};

	if (checks.publication == NULL)
		return true;
	for (const char *const *table = setup->options->tables; *table != NULL; table++)
	{
		PGresult *parts = split_name(setup->remote, *table, error);

		if (parts == NULL)
			return false;
		remote_checks_table(&checks, PQgetvalue(parts, 0, 0), PQgetvalue(parts, 0, 1), NULL);
		PQclear(parts);
	}
	return failures == 0 ||
		   error_set(error, FAIL_FATAL, "the publication is not fit: %d problems", failures);
}

static void
say_undone(bool done, const char *what, const Error *error)
{
	fprintf(stderr, done ? "undone: %s\n" : "left behind: %s (%s)\n", what, error->message);
}

static void
undo(RemoteSetup *setup)
{
	const char *slot[1] = {setup->slot.data};
	const char *name[1] = {setup->name};
	Text		statement = {0};
	Error		error = {0};

	if (setup->created_slot)
		say_undone(server_execute(setup->remote, sql_drop_slot, 1, slot, &error),
				   "replication slot on the remote", &error);
	if (setup->created_publication)
	{
		text_append(&statement, "DROP PUBLICATION ");
		text_append_identifier(&statement, setup->remote, setup->options->publication);
		say_undone(server_execute(setup->remote, statement.data, 0, NULL, &error),
				   "publication on the remote", &error);
		text_free(&statement);
	}
	if (setup->created_remote)
		say_undone(server_execute(setup->target, "SELECT pgtrickle.drop_remote($1, true)", 1, name,
								  &error),
				   "remote", &error);
}

bool
remote_setup(PGconn *target, const Options *options, const char *role, Error *error)
{
	RemoteSetup setup = {.target = target, .options = options};
	bool		done;

	setup.remote = connect_to_source(options, error);
	if (setup.remote == NULL)
		return false;
	choose_name(options, setup.remote, setup.name);
	done = grant_create(&setup, role, error) && add_remote(&setup, error) &&
		   create_publication(&setup, error) && check_published(&setup, error) &&
		   create_slot(&setup, error) && request_copies(&setup, error);
	if (done)
		printf("remote \"%s\" is ready\n", setup.name);
	else
	{
		fflush(stdout);
		undo(&setup);
	}
	text_free(&setup.slot);
	PQfinish(setup.remote);
	return done;
}
