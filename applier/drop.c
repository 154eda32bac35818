/*
 * applier/drop.c
 *     pgtrickle drop: takes away what set-up made, except for other people's data.
 *
 * The slot goes first, since it is what costs: it holds WAL.  The extension stays unless asked for,
 * because it takes all definitions with it: the stream tables become ordinary tables.
 */
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "preconditions.h"
#include "remote_setup.h"
#include "server.h"
#include "sql_text.h"

static bool
drop_slot(PGconn *conn, const char *slot, const Preconditions *found, Error *error)
{
	const char *values[1] = {slot};

	if (!found->slot_exists)
	{
		printf("replication slot \"%s\" does not exist\n", slot);
		return true;
	}
	if (found->slot_plugin == NULL || strcmp(found->slot_plugin, PGTRICKLE_PLUGIN) != 0)
		return error_set(error, FAIL_FATAL, "replication slot \"%s\" is not one of pgtrickle",
						 slot);
	if (!server_execute(conn, sql_drop_slot, 1, values, error))
	{
		if (error_is(error, "55006"))
			error_hint(error, "Stop the applier first.");
		return error_context(error, "could not drop replication slot \"%s\"", slot);
	}
	printf("dropped replication slot \"%s\"\n", slot);
	return true;
}

static bool
drop_extension(PGconn *conn, const Preconditions *found, Error *error)
{
	if (found->installed_version == NULL)
	{
		printf("extension \"pgtrickle\" does not exist\n");
		return true;
	}
	if (!server_execute(conn, "DROP EXTENSION pgtrickle CASCADE", 0, NULL, error))
		return error_context(error, "could not drop extension \"pgtrickle\"");
	printf("dropped extension \"pgtrickle\"\n");
	return true;
}

/* The role may be at work in other databases: then it stays, and the server says where. */
static bool
drop_role(PGconn *conn, const char *role, const Preconditions *found, Error *error)
{
	char *quoted;
	Text  statement = {0};
	bool  done;

	if (!found->role_exists)
	{
		printf("role \"%s\" does not exist\n", role);
		return true;
	}
	quoted = PQescapeIdentifier(conn, role, strlen(role));
	text_append_format(&statement, "DROP OWNED BY %s", quoted);
	done = server_execute(conn, statement.data, 0, NULL, error);
	text_reset(&statement);
	text_append_format(&statement, "DROP ROLE %s", quoted);
	done = done && server_execute(conn, statement.data, 0, NULL, error);
	text_free(&statement);
	PQfreemem(quoted);
	if (!done)
		return error_context(error, "could not drop role \"%s\"", role);
	printf("dropped role \"%s\"\n", role);
	return true;
}

int
command_drop(const Options *options)
{
	const char	 *role = options->role != NULL ? options->role : PGTRICKLE_ROLE_DEFAULT;
	Preconditions found = {0};
	Error		  error = {0};
	char		  slot[64];
	PGconn		 *conn = command_connect(options, slot);
	bool		  done;

	if (conn == NULL)
		return EXIT_NO_SERVER;
	if (options->remote != NULL)
	{
		done = remote_drop(conn, options->remote, true, &error);
		PQfinish(conn);
		return done ? EXIT_FINE : command_fail(&error);
	}
	done = preconditions_load(conn, role, slot, &found, &error) &&
		   (found.installed_version == NULL || remote_drop_slots(conn, &error)) &&
		   drop_slot(conn, slot, &found, &error) &&
		   (!options->drop_extension || drop_extension(conn, &found, &error)) &&
		   (options->keep_role || drop_role(conn, role, &found, &error));
	if (found.result != NULL)
		preconditions_free(&found);
	PQfinish(conn);
	if (done)
		return EXIT_FINE;
	fflush(stdout);
	return command_fail(&error);
}
