/*
 * delta/copy_record.c
 *     Writes what a tick did to a copy into the catalog.
 *
 * A copy's snapshot and transaction id are what the applier and new stream tables know of the last change of its rows, as they do of an upstream
 * stream table.  A tick that only kept changes leaves them alone: the program may be updating how far it is.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "copy_reader.h"
#include "copy_record.h"
#include "executor/spi.h"
#include "refresh_record.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "wal_message.h"

static const char *const change_sql =
	"UPDATE pgtrickle.pgt_copy_states SET snapshot = pg_catalog.pg_current_snapshot(), own_xid = pg_catalog.pg_current_xact_id(),"
	" data_timestamp = COALESCE($2, data_timestamp), total_rows_inserted = total_rows_inserted + $3,"
	" total_rows_deleted = total_rows_deleted + $4, consecutive_errors = 0, retry_at = NULL"
	" WHERE copy_id = $1";

static const char *const switch_sql =
	"UPDATE pgtrickle.pgt_copy_states SET status = 'ACTIVE', status_reason = NULL, is_populated = true, live_follows = false,"
	" load_table = NULL, loaded_xid = NULL, exact_xid = NULL, exact_at = NULL, filled_xid = pg_catalog.pg_current_xact_id(), times_copied = times_copied + 1"
	" WHERE copy_id = $1";

/* Consumers of this tick are refreshed in it; their mark goes with that. */
static const char *const refill_sql =
	"UPDATE pgtrickle.pgt_frontiers f SET needs_refill = true, refill_reason = $2"
	" FROM pgtrickle.pgt_sources s JOIN pgtrickle.pgt_copies c ON c.relid = s.source_relid"
	" WHERE c.copy_id = $1 AND f.pgt_id = s.pgt_id";

void
copy_record_lock(const CopyDefinition *definition)
{
	static SPIPlanPtr kept = NULL;
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(definition->copy_id)};

	execute_kept(&kept, "SELECT FROM pgtrickle.pgt_copy_states WHERE copy_id = $1 AND status = 'COPIED' FOR UPDATE", 1, types, values, NULL);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("copy %s has been copied after the tick began", definition->name)));
}

uint64
copy_record_exact(const CopyDefinition *definition, bool since_loaded)
{
	static SPIPlanPtr state_plan = NULL;
	static SPIPlanPtr spool_plan = NULL;
	Oid			types[] = {INT8OID, BOOLOID, INT8OID};
	Datum		values[] = {Int64GetDatum(definition->copy_id), BoolGetDatum(since_loaded), Int64GetDatum(definition->rows_copied)};

	execute_kept(&state_plan,
				 "UPDATE pgtrickle.pgt_copy_states SET exact_at = pg_catalog.clock_timestamp(), rows_copied = $3,"
				 " exact_xid = CASE WHEN $2 THEN loaded_xid ELSE pg_catalog.pg_current_xact_id() END WHERE copy_id = $1",
				 lengthof(types), types, values, NULL);
	execute_kept(&spool_plan, "DELETE FROM pgtrickle.pgt_copy_spool WHERE copy_id = $1", 1, types, values, NULL);
	return since_loaded ? definition->loaded_xid : U64FromFullTransactionId(GetTopFullTransactionId());
}

void
copy_record_followed(const CopyDefinition *definition, int64 rows)
{
	static SPIPlanPtr kept = NULL;
	Oid			types[] = {INT8OID, INT8OID};
	Datum		values[] = {Int64GetDatum(definition->copy_id), Int64GetDatum(rows)};

	execute_kept(&kept, "UPDATE pgtrickle.pgt_copy_states SET rows_copied = rows_copied + $2 WHERE copy_id = $1", lengthof(types), types, values,
				 NULL);
}

void
copy_record_member(const CopyDefinition *definition, Oid remote_relid, const char *name)
{
	static SPIPlanPtr kept = NULL;
	Oid			types[] = {INT8OID, TEXTOID, TEXTOID};
	Datum		values[] = {Int64GetDatum(definition->copy_id), CStringGetTextDatum(psprintf("%u", remote_relid)), CStringGetTextDatum(name)};

	SPI_connect();
	execute_kept(&kept,
				 "UPDATE pgtrickle.pgt_copy_states SET members = members || pg_catalog.jsonb_build_object($2, pg_catalog.jsonb_build_object('name', $3))"
				 " WHERE copy_id = $1 AND NOT members ? $2",
				 lengthof(types), types, values, NULL);
	SPI_finish();
}

static void
record_switch(const CopyEntry *entry)
{
	static SPIPlanPtr switch_plan = NULL;
	static SPIPlanPtr spool_plan = NULL;
	static SPIPlanPtr chunks_plan = NULL;
	static SPIPlanPtr refill_plan = NULL;
	Oid			types[] = {INT8OID, TEXTOID};
	Datum		values[2] = {Int64GetDatum(entry->definition->copy_id)};

	execute_kept(&switch_plan, switch_sql, 1, types, values, NULL);
	execute_kept(&spool_plan, "DELETE FROM pgtrickle.pgt_copy_spool WHERE copy_id = $1", 1, types, values, NULL);
	execute_kept(&chunks_plan, "DELETE FROM pgtrickle.pgt_copy_chunks WHERE copy_id = $1", 1, types, values, NULL);
	if (entry->full_reason != NULL)
	{
		values[1] = CStringGetTextDatum(entry->full_reason);
		execute_kept(&refill_plan, refill_sql, 2, types, values, NULL);
	}
	(void) wal_message_emit("catalog", true, false);
}

bool
copy_record_is_filling(int64 copy_id)
{
	static SPIPlanPtr kept = NULL;
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(copy_id)};

	execute_kept(&kept,
				 "SELECT FROM pgtrickle.pgt_copies c JOIN pgtrickle.pgt_sources s ON s.source_relid = c.relid"
				 " JOIN pgtrickle.pgt_frontiers f USING (pgt_id)"
				 " WHERE c.copy_id = $1 AND (f.needs_refill OR NOT f.is_populated) LIMIT 1",
				 1, types, values, NULL);
	return SPI_processed > 0;
}

void
copy_record_dropped(int64 copy_id)
{
	static SPIPlanPtr kept = NULL;
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(copy_id)};

	execute_kept(&kept,
				 "UPDATE pgtrickle.pgt_copy_states SET is_populated = false, status_reason = 'only changes are needed, no rows are kept'"
				 " WHERE copy_id = $1",
				 1, types, values, NULL);
	(void) wal_message_emit("catalog", true, false);
}

int64
copy_record_without_rows(Oid relid, bool *is_active)
{
	static SPIPlanPtr kept = NULL;
	Oid			types[] = {OIDOID};
	Datum		values[] = {ObjectIdGetDatum(relid)};
	bool		isnull;

	execute_kept(&kept,
				 "SELECT copy_id, s.status = 'ACTIVE' FROM pgtrickle.pgt_copies JOIN pgtrickle.pgt_copy_states s USING (copy_id)"
				 " WHERE relid = $1 AND storage = 'none' AND NOT s.is_populated AND s.times_copied > 0",
				 1, types, values, NULL);
	if (SPI_processed == 0)
		return 0;
	*is_active = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/* Consumers that were not there when changes passed through. */
static void
record_absent(const CopyEntry *entry)
{
	static SPIPlanPtr kept = NULL;
	Oid			types[] = {INT8OID};
	ListCell   *lc;

	foreach(lc, entry->absent_ids)
	{
		Datum		values[] = {Int64GetDatum(*(int64 *) lfirst(lc))};

		execute_kept(&kept,
					 "UPDATE pgtrickle.pgt_frontiers SET needs_refill = true,"
					 " refill_reason = COALESCE(refill_reason, 'changes of a copy without rows went by') WHERE pgt_id = $1 AND NOT needs_refill",
					 1, types, values, NULL);
	}
	(void) wal_message_emit("catalog", true, false);
}

/* The copy goes on while somebody has a look. */
static void
record_outdated(const CopyEntry *entry)
{
	static SPIPlanPtr kept = NULL;
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(entry->definition->copy_id)};

	execute_kept(&kept,
				 "UPDATE pgtrickle.pgt_copy_states SET status = 'REDEFINE', live_follows = true,"
				 " status_reason = 'columns have been renamed, added or dropped'"
				 " WHERE copy_id = $1 AND status = 'ACTIVE'",
				 1, types, values, NULL);
	if (SPI_processed > 0)
		(void) wal_message_emit("catalog", true, false);
}

void
copy_record(const CopyEntry *entry, const RemoteMove *move)
{
	static SPIPlanPtr kept = NULL;
	Oid			types[] = {INT8OID, TIMESTAMPTZOID, INT8OID, INT8OID};
	Datum		values[4];

	if (strcmp(entry->action, "COPY") != 0 && strcmp(entry->action, "SWITCH") != 0)
		return;
	values[0] = Int64GetDatum(entry->definition->copy_id);
	values[1] = TimestampTzGetDatum(move->position_at);
	values[2] = Int64GetDatum(entry->counts.rows_inserted);
	values[3] = Int64GetDatum(entry->counts.rows_deleted);
	execute_kept(&kept, change_sql, lengthof(types), types, values, move->position_at == 0 ? " n  " : NULL);
	if (entry->definition->passes_through && entry->absent_ids != NIL && entry->net != NULL)
		record_absent(entry);
	if (strcmp(entry->action, "SWITCH") == 0)
		record_switch(entry);
	else if (entry->feed->is_outdated)
		record_outdated(entry);
}
