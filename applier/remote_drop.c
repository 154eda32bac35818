/*
 * applier/remote_drop.c
 *     pgtrickle drop, for remotes.
 *
 * The slot goes first, since it is what costs somebody else: it holds WAL of the remote.  Where that cannot be reached the statement is
 * printed that has to be run there.
 */
#include <stdio.h>

#include "remote_setup.h"
#include "sql_text.h"

static bool
drop_slot(const char *dbname, const char *slot, Error *error)
{
	const char *values[1] = {slot};
	PGconn	   *remote = connection_open(dbname, "pgtrickle drop", false, error);
	bool		is_there = false;
	bool		done;

	if (remote == NULL)
		return false;
	done =
		server_ask_bool(
			remote, "SELECT count(*) > 0 FROM pg_catalog.pg_replication_slots WHERE slot_name = $1",
			1, values, &is_there, error) &&
		(!is_there || server_execute(remote, sql_drop_slot, 1, values, error));
	PQfinish(remote);
	if (done)
		printf(is_there ? "dropped replication slot \"%s\" on the remote\n"
						: "replication slot \"%s\" does not exist on the remote\n",
			   slot);
	return done;
}

static bool
forget_remote(PGconn *target, const char *name, Error *error)
{
	const char *values[1] = {name};

	if (!server_execute(target, "SELECT pgtrickle.drop_remote($1, true)", 1, values, error))
		return error_context(error, "could not drop remote \"%s\"", name);
	printf("dropped remote \"%s\" and its copies\n", name);
	return true;
}

/* A slot that is in use belongs to an applier at work: that is to be stopped, or told by dropping the remote in SQL. */
static bool
drop_slot_of(const PGresult *list, int row, Error *error)
{
	const char *name = server_field(list, row, "remote_name");
	const char *slot = server_field(list, row, "slot_name");

	if (drop_slot(server_field(list, row, "conninfo"), slot, error))
		return true;
	error_context(error, "could not drop replication slot \"%s\" of remote \"%s\"", slot, name);
	if (error_is(error, "55006"))
		error_hint(error,
				   "Stop the applier first, or pause it with SELECT pgtrickle.pause_remote('%s');",
				   name);
	else
		error_hint(error, "Run there: SELECT pg_drop_replication_slot('%s');", slot);
	return false;
}

bool
remote_drop(PGconn *target, const char *name, bool forget, Error *error)
{
	const char *values[1] = {name};
	PGresult   *list = server_query(target, sql_remote_list, 1, values, error);
	bool		done = list != NULL;

	if (done && PQntuples(list) == 0)
		done = error_set(error, FAIL_FATAL, "remote \"%s\" does not exist", name);
	done = done && drop_slot_of(list, 0, error) && (!forget || forget_remote(target, name, error));
	PQclear(list);
	return done;
}

bool
remote_drop_slots(PGconn *target, Error *error)
{
	const char *values[1] = {NULL};
	PGresult   *list = server_query(target, sql_remote_list, 1, values, error);
	bool		done = list != NULL;

	for (int row = 0; done && row < PQntuples(list); row++)
	{
		Error failure = {0};

		if (drop_slot_of(list, row, &failure))
			continue;
		fprintf(stderr, "left behind: %s\n", failure.message);
		fprintf(stderr, "HINT:  %s\n", failure.hint);
	}
	PQclear(list);
	return done;
}
