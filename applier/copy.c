/*
 * applier/copy.c
 *     pgtrickle copy: does what there is to do for the copies of remotes, and ends.
 *
 *     patterns -> define what was asked for -> compare what is there -> copy rows
 *
 * `pgtrickle run` starts it when there is something to do; by hand it does the same.  A copy that fails does not keep the others from being made: the
 * server is told why, and when to try again.  Only one worker at a time works for a remote.
 */
#include "copy.h"
#include "copy_finish.h"

#include <stdio.h>
#include <unistd.h>

#include "command.h"
#include "sql_text.h"

/* First key of the advisory lock that a worker holds; the second one is the remote's id. */
#define WORKER_LOCK "1346851412"

/* Transactions that are running on the remote are waited for so long, then the worker tries again later. */
#define OLD_TRANSACTIONS_WAIT_MS 60000

#define JOBS_DEFAULT 2
#define CHUNK_ROWS_DEFAULT 100000

PGconn *
copy_connect(const char *dbname, const char *name, const char *encoding, Error *error)
{
	const char *values[1] = {encoding};
	PGconn	   *conn = connection_open(dbname, name, false, error);

	if (conn != NULL && !server_execute(conn, sql_copy_session, 1, values, error))
	{
		PQfinish(conn);
		conn = NULL;
	}
	return conn;
}

bool
copy_map_schema(CopyRemote *work, const char *remote_schema, Text *schema, Error *error)
{
	const char *values[2] = {work->schema_map, remote_schema};
	bool		found;

	return server_ask(work->target, "SELECT coalesce($1::jsonb ->> $2::text, $2::text)", 2, values,
					  schema, &found, error);
}

/* ------------------------------------------------------------------------------------------------
 * One copy
 */

static void
take_copy(const PGresult *list, int row, Copy *copy)
{
	copy->copy_id = server_field(list, row, "copy_id");
	copy->remote_schema = server_field(list, row, "remote_schema");
	copy->remote_table = server_field(list, row, "remote_table");
	copy->remote_relid = server_field(list, row, "remote_relid");
	copy->relid = server_field(list, row, "relid");
	copy->target_schema = server_field(list, row, "target_schema");
	copy->target_table = server_field(list, row, "target_table");
	copy->columns_wanted = server_field(list, row, "columns_wanted");
	copy->row_filter = server_field(list, row, "row_filter");
	copy->status = server_field(list, row, "status");
	copy->load_table = server_field(list, row, "load_table");
	copy->is_populated = server_field_is_true(list, row, "is_populated");
}

static bool
has_status(const Copy *copy, const char *status)
{
	return strcmp(copy->status, status) == 0;
}

/*
 * Somebody may have given up what we were copying: then its failure is no news.  Else it is tried again, whatever it was: that the
 * definition is sound has been seen before.
 */
static bool
loading_failed(CopyRemote *work, const Copy *copy, Error *failure, bool *is_news, Error *error)
{
	const char *values[1] = {copy->copy_id};

	if (strncmp(failure->sqlstate, "42", 2) == 0 || strncmp(failure->sqlstate, "0A", 2) == 0)
		snprintf(failure->sqlstate, sizeof(failure->sqlstate), "55000");
	return server_ask_bool(
		work->target,
		"SELECT count(*) > 0 FROM pgtrickle.copy_catalog() WHERE copy_id = $1 AND "
		"status = 'COPYING'",
		1, values, is_news, error);
}

/* False only when the target cannot be told. */
static bool
report_failure(CopyRemote *work, const Copy *copy, bool was_loading, Error *failure, Error *error)
{
	char		message[2200];
	const char *values[3] = {copy->copy_id, failure->sqlstate, message};
	bool		is_news = true;

	if (PQtransactionStatus(work->target) != PQTRANS_IDLE)
		PQclear(PQexec(work->target, "ROLLBACK"));
	if (was_loading && !loading_failed(work, copy, failure, &is_news, error))
		return false;
	error_context(failure, "copy of \"%s.%s\"", copy->remote_schema, copy->remote_table);
	log_error(is_news ? LEVEL_ERROR : LEVEL_LOG, failure);
	if (!is_news)
		return true;
	if (failure->sqlstate[0] == '\0')
		snprintf(failure->sqlstate, sizeof(failure->sqlstate), "58000");
	snprintf(message, sizeof(message), "%s%s%s", failure->message,
			 failure->hint[0] != '\0' ? " HINT:  " : "", failure->hint);
	return server_execute(work->target, "SELECT pgtrickle.copy_failed($1, $2, $3)", 3, values,
						  error);
}

/* What is to be done for a copy; NULL: nothing. */
typedef bool (*CopyStep)(CopyRemote *work, const Copy *copy, Error *error);

static CopyStep
definition_step(const Copy *copy)
{
	if (copy->relid == NULL)
		return has_status(copy, "REQUESTED") ? copy_define : NULL;
	return has_status(copy, "SUSPENDED") ? NULL : copy_follow;
}

static CopyStep
rows_step(const Copy *copy)
{
	return has_status(copy, "COPYING") ? copy_load : NULL;
}

/* Waits for what goes on beside. */
static bool
take_finished(CopyRemote *work, int *failures, bool done, Error *error)
{
	CopyFinish finish;

	while (copy_finish_take(work, &finish))
	{
		if (finish.is_done)
		{
			log_event(LEVEL_LOG, "copied \"%s.%s\" in %.1f s", finish.copy.remote_schema,
					  finish.copy.remote_table, (double) finish.took / (double) MICROS_PER_SECOND);
			continue;
		}
		(*failures)++;
		if (done)
			done = report_failure(work, &finish.copy, true, &finish.failure, error);
	}
	return done;
}

/* Runs a step for each copy that it is meant for.  `failures` counts those that could not be done. */
static bool
for_each_copy(CopyRemote *work, CopyStep (*step_of)(const Copy *copy), int *failures, Error *error)
{
	const char *values[1] = {work->remote_id};
	PGresult   *list = server_query(work->target, sql_copy_list, 1, values, error);
	bool		done = list != NULL;

	for (int row = 0; done && row < PQntuples(list); row++)
	{
		Copy	 copy;
		CopyStep step;
		Error	 failure = {0};

		take_copy(list, row, &copy);
		step = server_field_is_true(list, row, "is_time") ? step_of(&copy) : NULL;
		if (step == NULL || step(work, &copy, &failure))
			continue;
		(*failures)++;
		done = report_failure(work, &copy, step == copy_load, &failure, error);
		if (done && PQstatus(work->remote) != CONNECTION_OK)
			done =
				error_from_connection(error, FAIL_RETRY, work->remote, "connection to the remote");
	}
	done = take_finished(work, failures, done, error);
	PQclear(list);
	return done;
}

/* ------------------------------------------------------------------------------------------------
 * One remote
 */

static bool
expand_patterns(CopyRemote *work, Error *error)
{
	const char *values[1] = {work->remote_id};
	PGresult   *patterns = server_query(
		  work->target, "SELECT * FROM pgtrickle.copy_pattern_list() WHERE remote_id = $1", 1, values,
		  error);
	Text tables = {0};
	bool done = patterns != NULL;

	for (int row = 0; done && row < PQntuples(patterns); row++)
	{
		const char *schema[1] = {server_field(patterns, row, "remote_schema")};
		const char *found_tables[2] = {server_field(patterns, row, "pattern_id"), NULL};
		bool		found;

		done = server_ask(work->remote, sql_remote_tables, 1, schema, &tables, &found, error);
		found_tables[1] = tables.data;
		done = done && server_execute(work->target, "SELECT pgtrickle.copy_found($1, $2)", 2,
									  found_tables, error);
	}
	text_free(&tables);
	PQclear(patterns);
	return done;
}

/*
 * A transaction may have its commit record before the position from which the stream carries a table, and not be visible yet: it would be in
 * neither.  So everything that is running now has to end, as when a replication slot is made.
 */
static bool
wait_for_transactions(CopyRemote *work, Error *error)
{
	Text		newest = {0};
	const char *values[1];
	bool		found;
	bool		have_ended = false;
	bool		done;

	text_reset(&work->settled_lsn);
	done = server_ask(work->remote, sql_remote_settled, 0, NULL, &work->settled_lsn, &found, error) &&
		   server_ask(work->remote, sql_remote_newest, 0, NULL, &newest, &found, error);
	values[0] = newest.data;
	for (int waited_ms = 0; done && !have_ended; waited_ms += 20)
	{
		done = server_ask_bool(work->remote, sql_remote_oldest, 1, values, &have_ended, error);
		if (done && !have_ended && waited_ms >= OLD_TRANSACTIONS_WAIT_MS)
		{
			done = error_set_sqlstate(error, FAIL_RETRY, "55P03",
									  "transactions of the remote are older than the copying");
			error_hint(error,
					   "Look for them on the remote with SELECT pid, xact_start, query FROM "
					   "pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY xact_start;");
		}
		if (done && !have_ended)
			usleep(20 * 1000);
	}
	text_free(&newest);
	return done;
}

static bool
has_rows_to_copy(CopyRemote *work, bool *has_them, Error *error)
{
	const char *values[1] = {work->remote_id};

	return server_ask_bool(
		work->target,
		"SELECT count(*) > 0 FROM pgtrickle.copy_catalog() WHERE remote_id = $1 "
		"AND status = 'COPYING' AND (retry_at IS NULL OR retry_at <= pg_catalog.clock_timestamp())",
		1, values, has_them, error);
}

static bool
work_for_remote(CopyRemote *work, int *failures, Error *error)
{
	bool has_rows;
	int	 failures_before;

	if (!expand_patterns(work, error) || !for_each_copy(work, definition_step, failures, error) ||
		!has_rows_to_copy(work, &has_rows, error))
		return false;
	failures_before = *failures;
	/* the stream may have begun to carry more tables meanwhile */
	while (has_rows && *failures == failures_before)
	{
		if (!wait_for_transactions(work, error) ||
			!for_each_copy(work, rows_step, failures, error) ||
			!has_rows_to_copy(work, &has_rows, error))
			return false;
	}
	return true;
}

static bool
take_lock(PGconn *target, const char *remote_id, bool *is_ours, Error *error)
{
	const char *values[1] = {remote_id};

	return server_ask_bool(target, "SELECT pg_catalog.pg_try_advisory_lock(" WORKER_LOCK ", $1)", 1,
						   values, is_ours, error);
}

static void
leave_lock(PGconn *target, const char *remote_id)
{
	const char *values[1] = {remote_id};
	Error		ignored = {0};

	if (PQtransactionStatus(target) != PQTRANS_IDLE)
		PQclear(PQexec(target, "ROLLBACK"));
	if (!server_execute(target, "SELECT pg_catalog.pg_advisory_unlock(" WORKER_LOCK ", $1)", 1,
						values, &ignored))
		log_error(LEVEL_DEBUG, &ignored);
}

static bool
connect_and_work(CopyRemote *work, int *failures, Error *error)
{
	bool done;

	work->remote = copy_connect(work->remote_dbname, "pgtrickle copy", work->encoding, error);
	done = work->remote != NULL && work_for_remote(work, failures, error);
	PQfinish(work->remote);
	text_free(&work->settled_lsn);
	return done;
}

/* A remote that cannot be reached is reported, and does not keep the worker from the others. */
static bool
serve_remote(CopyRemote *work, int *failures, Error *error)
{
	Error		failure = {0};
	const char *values[3] = {work->remote_id, NULL, failure.message};
	bool		is_ours;
	bool		done = true;

	if (!take_lock(work->target, work->remote_id, &is_ours, error))
		return false;
	if (!is_ours)
	{
		log_event(LEVEL_LOG, "another worker copies from remote \"%s\"", work->name);
		return true;
	}
	if (!connect_and_work(work, failures, &failure))
	{
		(*failures)++;
		error_context(&failure, "remote \"%s\"", work->name);
		log_error(LEVEL_ERROR, &failure);
		values[1] = failure.sqlstate[0] != '\0' ? failure.sqlstate : "08000";
		done = server_execute(work->target, "SELECT pgtrickle.remote_failed($1, $2, $3)", 3, values,
							  error);
	}
	leave_lock(work->target, work->remote_id);
	return done;
}

/* ------------------------------------------------------------------------------------------------
 * All of it
 */

/* The command line, else the remote's options, else what suits most. */
static void
set_limits(CopyRemote *work, const PGresult *list, int row)
{
	const char *jobs = server_field(list, row, "copy_jobs");
	const char *rate = server_field(list, row, "copy_rate_limit");
	const char *chunk_rows = server_field(list, row, "copy_chunk_rows");
	uint64_t	bytes = work->options->rate_bytes_max;

	work->jobs = work->options->jobs > 0 ? work->options->jobs
				 : jobs != NULL			 ? atoi(jobs)
										 : JOBS_DEFAULT;
	work->chunk_rows = work->options->chunk_rows > 0 ? work->options->chunk_rows
					   : chunk_rows != NULL			 ? strtoull(chunk_rows, NULL, 10)
													 : CHUNK_ROWS_DEFAULT;
	if (bytes == 0 && rate != NULL && !copy_rate_parse(rate, &bytes))
		log_event(LEVEL_WARNING, "option copy_rate_limit of remote \"%s\" is no size: \"%s\"",
				  work->name, rate);
	if (work->jobs < 1)
		work->jobs = 1;
	if (work->chunk_rows < 1)
		work->chunk_rows = 1;
	copy_rate_init(&work->rate, bytes);
}

static bool
serve_remotes(const Options *options, PGconn *target, int *failures, Error *error)
{
	const char *values[1] = {options->remote};
	PGresult   *list = server_query(target, sql_remote_list, 1, values, error);
	bool		done = list != NULL;

	if (done && options->remote != NULL && PQntuples(list) == 0)
		done = error_set(error, FAIL_FATAL, "remote \"%s\" does not exist", options->remote);
	for (int row = 0; done && row < PQntuples(list); row++)
	{
		CopyRemote work = {.options = options,
						   .target = target,
						   .target_dbname = options->dbname,
						   .remote_dbname = server_field(list, row, "conninfo"),
						   .encoding = server_field(list, row, "encoding"),
						   .remote_id = server_field(list, row, "remote_id"),
						   .name = server_field(list, row, "remote_name"),
						   .schema_map = server_field(list, row, "schema_map")};

		if (strcmp(server_field(list, row, "output_plugin"), "pgoutput") == 0)
			work.publication = server_field(list, row, "publication");
		set_limits(&work, list, row);
		if (strcmp(server_field(list, row, "status"), "PAUSED") != 0)
			done = serve_remote(&work, failures, error);
	}
	PQclear(list);
	return done;
}

int
command_copy(const Options *options)
{
	Error	error = {0};
	int		failures = 0;
	PGconn *target = copy_connect(options->dbname, "pgtrickle copy", "SQL_ASCII", &error);
	bool	done;

	if (target == NULL)
	{
		command_fail(&error);
		return EXIT_NO_SERVER;
	}
	done =
		server_execute(
			target,
			"SELECT pg_catalog.set_config('client_encoding', pg_catalog.current_setting('server_encoding'), false)",
			0, NULL, &error) &&
		serve_remotes(options, target, &failures, &error);
	PQfinish(target);
	if (!done)
		return command_fail(&error);
	return failures > 0 ? EXIT_PROBLEM : EXIT_FINE;
}
