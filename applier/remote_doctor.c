/*
 * applier/remote_doctor.c
 *     What doctor says about remotes: each server, each copy.
 */
#include <stdio.h>

#include "copy.h"
#include "remote_checks.h"
#include "remote_setup.h"
#include "sql_text.h"

typedef void (*Report)(void *context, int verdict, const char *finding, const char *repair);

typedef struct RemoteDoctor
{
	const char *name;
	Report		report;
	void	   *context;
} RemoteDoctor;

/* Says which remote a finding is about. */
static void
report_finding(void *context, Verdict verdict, const char *finding, const char *repair)
{
	RemoteDoctor *doctor = context;
	char		  text[1400];

	snprintf(text, sizeof(text), "remote %s: %s", doctor->name, finding);
	doctor->report(doctor->context, (int) verdict, text, repair);
}

static bool
check_copies(PGconn *target, RemoteChecks *checks, const char *remote_id, Error *error)
{
	const char *values[1] = {remote_id};
	PGresult   *copies = server_query(target, sql_copy_list, 1, values, error);

	if (copies == NULL)
		return false;
	for (int row = 0; row < PQntuples(copies); row++)
		remote_checks_table(checks, server_field(copies, row, "remote_schema"),
							server_field(copies, row, "remote_table"),
							server_field(copies, row, "columns_wanted"));
	PQclear(copies);
	return true;
}

/* Copies that stand still, by what the catalog says: also when the remote cannot be reached. */
static bool
report_copies(PGconn *target, RemoteDoctor *doctor, const char *remote_id, Error *error)
{
	const char *values[1] = {remote_id};
	PGresult   *copies = server_query(target, sql_unhealthy_copies, 1, values, error);

	if (copies == NULL)
		return false;
	for (int row = 0; row < PQntuples(copies); row++)
	{
		const char *copy = server_field(copies, row, "copy");
		const char *reason = server_field(copies, row, "status_reason");
		char		finding[1300];
		char		repair[400];

		snprintf(finding, sizeof(finding), "copy %s has status %s: %s", copy,
				 server_field(copies, row, "status"), reason != NULL ? reason : "");
		snprintf(repair, sizeof(repair), "remove the cause, then SELECT pgtrickle.recopy('%s');",
				 copy);
		report_finding(doctor, VERDICT_FAILURE, finding, repair);
	}
	PQclear(copies);
	return true;
}

static bool
check_remote(PGconn *target, RemoteDoctor *doctor, const PGresult *list, int row, Error *error)
{
	const char	*remote_id = server_field(list, row, "remote_id");
	const char	*encoding = server_field(list, row, "encoding");
	Error		 failure = {0};
	RemoteChecks checks = {.dbname = server_field(list, row, "conninfo"),
						   .name = doctor->name,
						   .slot = server_field(list, row, "slot_name"),
						   .target_encoding = encoding,
						   .report = report_finding,
						   .context = doctor};
	bool		 done = true;

	if (strcmp(server_field(list, row, "output_plugin"), "pgoutput") == 0)
		checks.publication = server_field(list, row, "publication");
	if (strcmp(server_field(list, row, "status"), "ACTIVE") != 0)
		report_finding(doctor, VERDICT_WARNING, server_field(list, row, "status"),
					   "SELECT pgtrickle.resume_remote(...);");
	checks.remote = copy_connect(checks.dbname, "pgtrickle doctor", encoding, &failure);
	if (checks.remote == NULL)
		report_finding(doctor, VERDICT_FAILURE, failure.message,
					   "check its connection string: pgtrickle.alter_remote() changes it");
	else if (!remote_checks_server(&checks, &failure))
		report_finding(doctor, VERDICT_FAILURE, failure.message, NULL);
	else
		done = check_copies(target, &checks, remote_id, error);
	PQfinish(checks.remote);
	return done && report_copies(target, doctor, remote_id, error);
}

bool
remote_doctor(PGconn *target, Report report, void *context, Error *error)
{
	const char *values[1] = {NULL};
	PGresult   *list = server_query(target, sql_remote_list, 1, values, error);
	bool		done = list != NULL;

	for (int row = 0; done && row < PQntuples(list); row++)
	{
		RemoteDoctor doctor = {server_field(list, row, "remote_name"), report, context};

		done = check_remote(target, &doctor, list, row, error);
	}
	PQclear(list);
	return done;
}
