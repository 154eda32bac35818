/*
 * delta/refresh_record.c
 *     Writes what a refresh did into the catalog: frontier, progress, history.
 *
 * The frontier row changes in the same transaction as the stream table's rows; that is the whole of crash safety.  History is for
 * people: refreshes by delta of one second are summed up in one row, or a continuous stream table would write more history than rows; so
 * are those of one minute that only the clock asked for and that changed nothing.
 *
 * The writes are tagged like all of a tick's own, so that the plugin drops them before they are queued.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "refresh_record.h"
#include "replication/origin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"

#define HISTORY_ROW_SECONDS 1
#define HISTORY_QUIET_ROW_SECONDS 60
#define HISTORY_ROWS_PER_PRUNING 500	/* fewer than one pruning takes away */

static const char *const frontier_sql =
	"UPDATE pgtrickle.pgt_frontiers SET snapshot = $2::pg_snapshot, lsn = $3, own_xid = $4::xid8,"
	" query_now = pg_catalog.now(), data_timestamp = $5, last_refresh_at = $6, is_populated = true, needs_refill = false, refill_reason = NULL,"
	" spool_snapshot = NULL, spooled_since = NULL, spool_reason = NULL,"
	" total_refreshes = total_refreshes + 1, total_rows_inserted = total_rows_inserted + $7,"
	" total_rows_deleted = total_rows_deleted + $8, total_duration_ms = total_duration_ms + $9,"
	" last_action = $10, last_status = 'COMPLETED', consecutive_errors = 0, retry_at = NULL,"
	" delta_cost_factor = $11, full_cost_factor = $12"
	" WHERE pgt_id = $1";

static const char *const history_insert_sql =
	"INSERT INTO pgtrickle.pgt_history (pgt_id, data_timestamp, start_time, end_time, action, status, initiated_by,"
	" rows_inserted, rows_deleted, delta_row_count, was_full_fallback, reason, duration_ms, tick_lsn,"
	" decision, estimated_delta_ms, estimated_full_ms)"
	" VALUES ($1, $2, $3, $4, $5, 'COMPLETED', 'SCHEDULER', $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) RETURNING refresh_id";

static const char *const history_update_sql =
	"UPDATE pgtrickle.pgt_history SET refreshes = refreshes + 1, data_timestamp = $2, end_time = $3,"
	" rows_inserted = rows_inserted + $4, rows_deleted = rows_deleted + $5, delta_row_count = delta_row_count + $6,"
	" duration_ms = duration_ms + $7, tick_lsn = $8, action = CASE WHEN action = 'NO_DATA' THEN $9 ELSE action END,"
	" decision = COALESCE($10, decision), estimated_delta_ms = COALESCE(estimated_delta_ms + $11, $11, estimated_delta_ms),"
	" estimated_full_ms = COALESCE(estimated_full_ms + $12, $12, estimated_full_ms)"
	" WHERE refresh_id = $1";

static const char *const steps_sql =
	"INSERT INTO pgtrickle.pgt_last_steps (pgt_id, refreshed_at, steps) VALUES ($1, $2, $3::jsonb)"
	" ON CONFLICT (pgt_id) DO UPDATE SET refreshed_at = excluded.refreshed_at, steps = excluded.steps";

static const char *const progress_sql =
	"UPDATE pgtrickle.pgt_progress SET ack_lsn = COALESCE($1, ack_lsn), stream_lsn = $2,"
	" persisted_at = pg_catalog.clock_timestamp(), settled_snapshot = $3::pg_snapshot,"
	/* a probe that has been passed makes room for the next one (applier_heartbeat in sql/) */
	" fresh_at = CASE WHEN $1 >= probe_lsn THEN probed_at ELSE fresh_at END,"
	" probe_lsn = CASE WHEN $1 >= probe_lsn OR probe_lsn IS NULL THEN pg_catalog.pg_current_wal_insert_lsn() ELSE probe_lsn END,"
	" probed_at = CASE WHEN $1 >= probe_lsn OR probe_lsn IS NULL THEN pg_catalog.statement_timestamp() ELSE probed_at END";

static const char *const activate_sql =
	"UPDATE pgtrickle.pgt_definitions SET status = 'ACTIVE', updated_at = pg_catalog.now()"
	" WHERE pgt_id = $1 AND status IN ('INITIALIZING', 'ERROR')";

static const TickFrontier *tick_frontier;
static TimestampTz tick_taken_at;
static char *tick_snapshot;
static char *tick_xid;

int
execute_kept(SPIPlanPtr *kept, const char *sql, int nargs, Oid *types, Datum *values, const char *nulls)
{
	RepOriginId saved = replorigin_session_origin;
	int			result;

	if (*kept == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(sql, nargs, types);

		if (plan == NULL)
			elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		*kept = plan;
	}
	replorigin_session_origin = DoNotReplicateId;
	PG_TRY();
	{
		result = SPI_execute_plan(*kept, values, nulls, false, 0);
	}
	PG_FINALLY();
	{
		replorigin_session_origin = saved;
	}
	PG_END_TRY();
	if (result < 0)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(result));
	return result;
}

void
record_begin(const TickFrontier *frontier, TimestampTz snapshot_taken_at)
{
	Datum		snapshot = DirectFunctionCall1(pg_current_snapshot, (Datum) 0);

	tick_frontier = frontier;
	tick_taken_at = snapshot_taken_at;
	tick_snapshot = DatumGetCString(DirectFunctionCall1(pg_snapshot_out, snapshot));
	tick_xid = psprintf(UINT64_FORMAT, U64FromFullTransactionId(GetTopFullTransactionId()));
}

/* A number that is known, or NULL. */
static void
set_known(Datum *values, char *nulls, int index, double number, bool is_known)
{
	values[index] = Float8GetDatum(number);
	nulls[index] = is_known ? ' ' : 'n';
}

/* The three columns of the history that say how the choice was made. */
static void
set_decision(Datum *values, char *nulls, int index, const CostDecision *decision)
{
	const char *name = cost_choice_name(decision->choice);

	values[index] = name ? CStringGetTextDatum(name) : (Datum) 0;
	nulls[index] = name ? ' ' : 'n';
	set_known(values, nulls, index + 1, decision->delta_ms, decision->delta_ms >= 0);
	set_known(values, nulls, index + 2, decision->full_ms, decision->full_ms >= 0);
}

static void
write_frontier(const RefreshRecord *record, double duration_ms)
{
	static SPIPlanPtr kept = NULL;
	Oid			types[] = {INT8OID, TEXTOID, PG_LSNOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INT8OID, FLOAT8OID, TEXTOID, FLOAT8OID, FLOAT8OID};
	Datum		values[12];
	char		nulls[12];
	const CostModel *cost = &record->table->cost;

	memset(nulls, ' ', sizeof(nulls));
	values[0] = Int64GetDatum(record->table->pgt_id);
	values[1] = CStringGetTextDatum(tick_snapshot);
	values[2] = LSNGetDatum(tick_frontier->stream_lsn);
	values[3] = CStringGetTextDatum(tick_xid);
	values[4] = TimestampTzGetDatum(tick_taken_at);
	values[5] = TimestampTzGetDatum(record->ended_at);
	values[6] = Int64GetDatum(record->outcome->counts.rows_inserted);
	values[7] = Int64GetDatum(record->outcome->counts.rows_deleted);
	values[8] = Float8GetDatum(duration_ms);
	values[9] = CStringGetTextDatum(record->outcome->action);
	set_known(values, nulls, 10, cost->delta_factor, cost->delta_factor > 0);
	set_known(values, nulls, 11, cost->full_factor, cost->full_factor > 0);
	execute_kept(&kept, frontier_sql, lengthof(types), types, values, nulls);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("stream table \"%s\" has no frontier", record->table->qualified_name)));
}

static bool
extend_history_row(const RefreshRecord *record, double duration_ms)
{
	static SPIPlanPtr kept = NULL;
	Oid			types[] = {INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, INT8OID, INT8OID, FLOAT8OID, PG_LSNOID, TEXTOID, TEXTOID, FLOAT8OID, FLOAT8OID};
	Datum		values[12];
	char		nulls[12];

	memset(nulls, ' ', sizeof(nulls));
	values[0] = Int64GetDatum(record->table->history_id);
	values[1] = TimestampTzGetDatum(tick_taken_at);
	values[2] = TimestampTzGetDatum(record->ended_at);
	values[3] = Int64GetDatum(record->outcome->counts.rows_inserted);
	values[4] = Int64GetDatum(record->outcome->counts.rows_deleted);
	values[5] = Int64GetDatum(record->outcome->delta_rows);
	values[6] = Float8GetDatum(duration_ms);
	values[7] = LSNGetDatum(tick_frontier->stream_lsn);
	values[8] = CStringGetTextDatum(record->outcome->action);
	set_decision(values, nulls, 9, record->decision);
	execute_kept(&kept, history_update_sql, lengthof(types), types, values, nulls);
	return SPI_processed == 1;
}

/* The heartbeat prunes the history, but there is none while ticks follow each other.  A bounded number of rows. */
static void
prune_history_sometimes(void)
{
	static SPIPlanPtr kept = NULL;
	static int	rows_since_pruned = 0;

	if (++rows_since_pruned < HISTORY_ROWS_PER_PRUNING)
		return;
	rows_since_pruned = 0;
	execute_kept(&kept, "SELECT pgtrickle.prune_history()", 0, NULL, NULL, NULL);
}

static void
insert_history_row(const RefreshRecord *record, double duration_ms)
{
	static SPIPlanPtr kept = NULL;
	Oid			types[] = {INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, INT8OID, INT8OID, INT8OID, BOOLOID, TEXTOID, FLOAT8OID, PG_LSNOID, TEXTOID, FLOAT8OID, FLOAT8OID};
	Datum		values[15];
	char		nulls[15];
	bool		isnull;

	memset(nulls, ' ', sizeof(nulls));
	values[0] = Int64GetDatum(record->table->pgt_id);
	values[1] = TimestampTzGetDatum(tick_taken_at);
	values[2] = TimestampTzGetDatum(record->started_at);
	values[3] = TimestampTzGetDatum(record->ended_at);
	values[4] = CStringGetTextDatum(record->outcome->action);
	values[5] = Int64GetDatum(record->outcome->counts.rows_inserted);
	values[6] = Int64GetDatum(record->outcome->counts.rows_deleted);
	values[7] = Int64GetDatum(record->outcome->delta_rows);
	values[8] = BoolGetDatum(record->reason != NULL && record->table->wants_delta);
	if (record->reason == NULL)
		nulls[9] = 'n';
	else
		values[9] = CStringGetTextDatum(record->reason);
	values[10] = Float8GetDatum(duration_ms);
	values[11] = LSNGetDatum(tick_frontier->stream_lsn);
	set_decision(values, nulls, 12, record->decision);
	execute_kept(&kept, history_insert_sql, lengthof(types), types, values, nulls);
	record->table->history_id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	record->table->history_started_at = record->started_at;
	prune_history_sometimes();
}

/* What the steps of a refresh by delta did, for explain; at most once a second. */
static void
write_steps(const RefreshRecord *record)
{
	static SPIPlanPtr kept = NULL;
	Oid			types[] = {INT8OID, TIMESTAMPTZOID, TEXTOID};
	Datum		values[3];
	StringInfoData json;

	if (record->reason != NULL || record->outcome->delta_rows == 0 ||
		!TimestampDifferenceExceeds(record->table->steps_written_at, record->ended_at, HISTORY_ROW_SECONDS * 1000))
		return;
	record->table->steps_written_at = record->ended_at;
	initStringInfo(&json);
	for (int i = 0; i < list_length(record->table->program->steps); i++)
	{
		const StepRun *run = &record->table->step_runs[i];

		if (run->ran)
			appendStringInfo(&json, "%s{\"step\": %d, \"rows_in\": " INT64_FORMAT ", \"rows_out\": " INT64_FORMAT ", \"ms\": %.3f}",
							 json.len > 0 ? ", " : "", i + 1, run->rows_in, run->rows_out, run->duration_ms);
	}
	values[0] = Int64GetDatum(record->table->pgt_id);
	values[1] = TimestampTzGetDatum(record->ended_at);
	values[2] = CStringGetTextDatum(psprintf("[%s]", json.data));
	execute_kept(&kept, steps_sql, lengthof(types), types, values, NULL);
}

/* Nothing had arrived, the clock was the only reason, and it changed nothing. */
static bool
is_quiet(const RefreshRecord *record)
{
	const DeltaProgram *program = record->table->program;

	return program->clock_reason != NULL && record->outcome->delta_rows == 0 &&
		record->outcome->counts.rows_inserted == 0 && record->outcome->counts.rows_deleted == 0 &&
		(record->reason == NULL ||
		 (program->full_reason != NULL && strcmp(record->reason, program->full_reason) == 0));
}

static void
write_history(const RefreshRecord *record, double duration_ms)
{
	LoadedTable *table = record->table;
	bool		quiet = is_quiet(record);
	bool		is_recent = table->history_id != 0 && table->history_is_quiet == quiet &&
		!TimestampDifferenceExceeds(table->history_started_at, record->started_at,
									(quiet ? HISTORY_QUIET_ROW_SECONDS : HISTORY_ROW_SECONDS) * 1000);

	if (is_recent && (record->reason == NULL || quiet) && extend_history_row(record, duration_ms))
		return;
	insert_history_row(record, duration_ms);
	table->history_is_quiet = quiet;
	/* a full refresh that did something has a row for itself */
	if (record->reason != NULL && !quiet)
		table->history_id = 0;
}

/* The first refresh that succeeds makes the stream table active. */
static void
activate(const RefreshRecord *record)
{
	static SPIPlanPtr kept = NULL;
	Oid			types[] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(record->table->pgt_id)};

	execute_kept(&kept, activate_sql, 1, types, values, NULL);
}

void
record_refresh(const RefreshRecord *record)
{
	double		duration_ms = (record->ended_at - record->started_at) / 1000.0;

	write_frontier(record, duration_ms);
	write_history(record, duration_ms);
	write_steps(record);
	if (record->reason != NULL)
		activate(record);
}

void
record_progress(const TickFrontier *frontier)
{
	static SPIPlanPtr kept = NULL;
	Oid			types[] = {PG_LSNOID, PG_LSNOID, TEXTOID};
	Datum		values[3];
	char		nulls[3] = {frontier->has_ack_lsn ? ' ' : 'n', ' ', ' '};

	values[0] = LSNGetDatum(frontier->ack_lsn);
	values[1] = LSNGetDatum(frontier->stream_lsn);
	values[2] = CStringGetTextDatum(tick_snapshot);
	execute_kept(&kept, progress_sql, lengthof(types), types, values, nulls);
}
