/*
 * applier/copy_jobs.c
 *     Several connections that copy the parts of one table.
 *
 * A job is a thread with a connection to either side.  It takes the next part, and lets COPY TO of the remote flow into COPY FROM of
 * the target, in the target's encoding: in binary form where all columns have types that mean the same everywhere, else as text.
 *
 * The rows of a part and the mark that it is done commit together, so a part is there once or not at all, whatever is killed.  So nobody waits for
 * these commits to be on disk: a part that is lost in a crash is copied again.
 */
#include "copy_jobs.h"

#include <pthread.h>
#include <stdio.h>

/* Rows are handed on in pieces of this size. */
#define PIECE_BYTES 65536

typedef struct Jobs
{
	CopyLoad	   *load;
	pthread_mutex_t mutex;
	size_t			next; /* part */
	uint64_t		row_count; /* of parts without marks of their own */
	uint64_t		byte_count;
	bool			has_failed;
	Error			error; /* the first one */
} Jobs;

typedef struct Job
{
	Jobs	*jobs;
	PGconn	*remote;
	PGconn	*target;
	Text	 piece;
	uint64_t bytes; /* of the part at hand */
	Error	 error;
} Job;

/* ------------------------------------------------------------------------------------------------
 * The statements
 */

/* COPY (SELECT a, b FROM ONLY s.t WHERE (part) AND (filter)) TO STDOUT */
static void
write_copy_out(const CopyLoad *load, const CopyPart *part, Text *statement)
{
	const RemoteTable *table = load->table;

	text_append(statement, "COPY (SELECT ");
	for (int i = 0; i < table->column_count; i++)
	{
		text_append(statement, i > 0 ? ", " : "");
		text_append_identifier(statement, load->work->remote, table->columns[i].name);
	}
	text_append(statement, " FROM ");
	copy_append_source(load->work, load->copy, table, statement);
	text_append_format(statement, " WHERE (%s)",
					   part->condition != NULL ? part->condition : "true");
	if (load->copy->row_filter != NULL)
		text_append_format(statement, " AND (%s)", load->copy->row_filter);
	text_append(statement, load->table->is_binary ? ") TO STDOUT (FORMAT binary)" : ") TO STDOUT");
}

static void
write_copy_in(const CopyLoad *load, Text *statement)
{
	text_append_format(statement, "COPY %s (", load->load_table);
	for (int i = 0; i < load->table->column_count; i++)
	{
		text_append(statement, i > 0 ? ", " : "");
		text_append_identifier(statement, load->work->target, load->table->columns[i].name);
	}
	text_append(statement, load->table->is_binary ? ") FROM STDIN (FORMAT binary)" : ") FROM STDIN");
}

static bool
start_copy(PGconn *conn, const char *statement, ExecStatusType wanted, const char *what,
		   Error *error)
{
	PGresult *result = PQexec(conn, statement);
	bool	  done = PQresultStatus(result) == wanted;

	if (!done)
		error_from_result(error, FAIL_RETRY, result, what);
	PQclear(result);
	return done;
}

/* The result of a COPY, and everything behind it. */
static bool
end_copy(PGconn *conn, const char *what, uint64_t *row_count, Error *error)
{
	bool	  done = true;
	PGresult *result;

	while ((result = PQgetResult(conn)) != NULL)
	{
		if (PQresultStatus(result) != PGRES_COMMAND_OK && done)
			done = error_from_result(error, FAIL_RETRY, result, what);
		else if (done)
			*row_count = strtoull(PQcmdTuples(result), NULL, 10);
		PQclear(result);
		if (PQstatus(conn) != CONNECTION_OK)
			break;
	}
	return done;
}

/* ------------------------------------------------------------------------------------------------
 * The pipe
 */

static bool
send_piece(Job *job)
{
	size_t length = job->piece.length;

	if (length == 0)
		return true;
	copy_rate_wait(&job->jobs->load->work->rate, length);
	job->bytes += length;
	if (PQputCopyData(job->target, job->piece.data, (int) length) != 1)
		return false;
	text_reset(&job->piece);
	return true;
}

static void
append_bytes(Text *text, const char *bytes, size_t length)
{
	if (text->length + length + 1 > text->capacity)
	{
		text->capacity = (text->length + length + 1) * 2;
		text->data = memory_resize(text->data, text->capacity);
	}
	memcpy(text->data + text->length, bytes, length);
	text->length += length;
	text->data[text->length] = '\0';
}

/* From one COPY to the other.  When the target refuses, it says why at the end. */
static bool
pump(Job *job, Error *error)
{
	bool  can_send = true;
	char *row = NULL;
	int	  length;

	while ((length = PQgetCopyData(job->remote, &row, 0)) > 0)
	{
		append_bytes(&job->piece, row, (size_t) length);
		PQfreemem(row);
		if (job->piece.length >= PIECE_BYTES && can_send)
			can_send = send_piece(job);
		if (!can_send)
			break;
	}
	if (length == -2)
		return error_from_connection(error, FAIL_RETRY, job->remote,
									 "could not read from the remote");
	can_send = can_send && send_piece(job);
	if (!can_send)
		return error_from_connection(error, FAIL_RETRY, job->target,
									 "could not write to the target");
	return true;
}

static bool
copy_rows(Job *job, const CopyPart *part, uint64_t *row_count, Error *error)
{
	CopyLoad *load = job->jobs->load;
	Text	  out = {0};
	Text	  in = {0};
	uint64_t  sent = 0;
	Error	  ended = {0};
	bool	  done;

	write_copy_out(load, part, &out);
	write_copy_in(load, &in);
	job->bytes = 0;
	text_reset(&job->piece);
	done =
		start_copy(job->target, in.data, PGRES_COPY_IN, "could not write to the target", error) &&
		start_copy(job->remote, out.data, PGRES_COPY_OUT, "could not read from the remote",
				   error) &&
		pump(job, error) && end_copy(job->remote, "could not read from the remote", &sent, error);
	text_free(&out);
	text_free(&in);
	if (PQputCopyEnd(job->target, done ? NULL : "the remote failed") == 1 &&
		!end_copy(job->target, "could not write to the target", row_count, &ended) && done)
	{
		*error = ended;
		return false;
	}
	if (done && *row_count != sent)
		return error_set(error, FAIL_RETRY, "the remote sent %llu rows, the target took %llu",
						 (unsigned long long) sent, (unsigned long long) *row_count);
	return done;
}

/* ------------------------------------------------------------------------------------------------
 * Parts
 */

/* Marks the part as done; fails when the copying has been given up meanwhile. */
static bool
mark_part(Job *job, const CopyPart *part, uint64_t row_count, Error *error)
{
	Jobs	   *jobs = job->jobs;
	bool		has_marks = jobs->load->snapshot == NULL;
	char		number[32];
	char		rows[32];
	char		bytes[32];
	const char *marks[4] = {jobs->load->copy->copy_id, number, rows, bytes};
	const char *progress[3] = {jobs->load->copy->copy_id, rows, bytes};
	bool		goes_on;

	pthread_mutex_lock(&jobs->mutex);
	jobs->row_count += row_count;
	jobs->byte_count += job->bytes;
	snprintf(number, sizeof(number), "%d", part->number);
	snprintf(rows, sizeof(rows), "%llu",
			 (unsigned long long) (has_marks ? row_count : jobs->row_count));
	snprintf(bytes, sizeof(bytes), "%llu",
			 (unsigned long long) (has_marks ? job->bytes : jobs->byte_count));
	pthread_mutex_unlock(&jobs->mutex);
	if (has_marks
			? !server_ask_bool(job->target, "SELECT pgtrickle.copy_chunk_done($1, $2, $3, $4)", 4,
							   marks, &goes_on, error)
			: !server_ask_bool(job->target, "SELECT pgtrickle.copy_progress($1, $2, $3)", 3,
							   progress, &goes_on, error))
		return false;
	if (!goes_on)
		return error_set_sqlstate(error, FAIL_RETRY, "55000", "the copying has been given up");
	return true;
}

static bool
copy_part(Job *job, CopyPart *part, Error *error)
{
	uint64_t row_count = 0;

	if (!server_script(job->target, "BEGIN; SELECT pgtrickle.copy_hide_rows()", error) ||
		!copy_rows(job, part, &row_count, error) || !mark_part(job, part, row_count, error) ||
		!server_execute(job->target, "COMMIT", 0, NULL, error))
		return false;
	part->is_done = true;
	return true;
}

static CopyPart *
take_part(Jobs *jobs)
{
	CopyPart *part = NULL;

	pthread_mutex_lock(&jobs->mutex);
	while (!jobs->has_failed && part == NULL && jobs->next < jobs->load->parts->count)
	{
		part = &jobs->load->parts->parts[jobs->next++];
		if (part->is_done)
			part = NULL;
	}
	pthread_mutex_unlock(&jobs->mutex);
	return part;
}

static bool
use_snapshot(Job *job, Error *error)
{
	const char *snapshot = job->jobs->load->snapshot;
	Text		statement = {0};
	bool		done;

	if (snapshot == NULL)
		return true;
	text_append(&statement,
				"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT ");
	text_append_literal(&statement, job->remote, snapshot);
	done = server_script(job->remote, statement.data, error);
	text_free(&statement);
	return done;
}

static bool
work_on_parts(Job *job, Error *error)
{
	CopyRemote *work = job->jobs->load->work;
	CopyPart   *part;

	job->remote = copy_connect(work->remote_dbname, "pgtrickle copy", work->encoding, error);
	if (job->remote == NULL)
		return error_context(error, "remote \"%s\"", work->name);
	job->target = copy_connect(work->target_dbname, "pgtrickle copy", work->encoding, error);
	if (job->target == NULL || !server_script(job->target, "SET synchronous_commit = off", error) ||
		!use_snapshot(job, error))
		return false;
	while ((part = take_part(job->jobs)) != NULL)
	{
		if (!copy_part(job, part, error))
			return false;
	}
	return true;
}

static void *
run_job(void *argument)
{
	Job	 *job = argument;
	Jobs *jobs = job->jobs;

	if (!work_on_parts(job, &job->error))
	{
		pthread_mutex_lock(&jobs->mutex);
		if (!jobs->has_failed)
			jobs->error = job->error;
		jobs->has_failed = true;
		pthread_mutex_unlock(&jobs->mutex);
	}
	PQfinish(job->remote);
	PQfinish(job->target);
	text_free(&job->piece);
	return NULL;
}

/* Jobs may tell their sums in another order than they reached them. */
static bool
tell_sum(const CopyLoad *load, const Jobs *jobs, Error *error)
{
	char		rows[32];
	char		bytes[32];
	const char *values[3] = {load->copy->copy_id, rows, bytes};

	if (load->snapshot == NULL)
		return true;
	snprintf(rows, sizeof(rows), "%llu", (unsigned long long) jobs->row_count);
	snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long) jobs->byte_count);
	return server_execute(load->work->target, "SELECT pgtrickle.copy_progress($1, $2, $3)", 3,
						  values, error);
}

static int
open_parts(const CopyParts *parts)
{
	int count = 0;

	for (size_t i = 0; i < parts->count; i++)
		count += !parts->parts[i].is_done;
	return count;
}

bool
copy_jobs_run(CopyLoad *load, Error *error)
{
	Jobs	   jobs = {.load = load, .mutex = PTHREAD_MUTEX_INITIALIZER};
	int		   wanted = open_parts(load->parts);
	int		   count = wanted < load->work->jobs ? wanted : load->work->jobs;
	Job		  *job = memory_take_zeroed((size_t) (count + 1) * sizeof(Job));
	pthread_t *threads = memory_take_zeroed((size_t) (count + 1) * sizeof(pthread_t));
	int		   started = 0;

	for (int i = 0; i < count; i++)
		job[i].jobs = &jobs;
	while (started < count && pthread_create(&threads[started], NULL, run_job, &job[started]) == 0)
		started++;
	if (started == 0 && count > 0)
		run_job(&job[0]);
	for (int i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	free(job);
	free(threads);
	if (jobs.has_failed)
		*error = jobs.error;
	return !jobs.has_failed && tell_sum(load, &jobs, error);
}
