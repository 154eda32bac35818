/*
 * delta/spool.c
 *     Changes that wait for a slow schedule, kept in the database in place of the WAL.
 *
 * A stream table that is refreshed once a day needs a day of changes.  Held back by the slot they would keep a day of WAL of the whole
 * server.  So the applier makes a tick of another kind, now and then: for the stream tables whose changes have waited, it stages the same change sets as
 * for a refresh, and the server stores them as they are.  Rows and frontier stay; what moves is spool_snapshot: everything it sees and the frontier
 * does not, as far as the stream table needs it, is in the spool.  The next refresh lays that before what came since.
 *
 *     frontier F ---- in the spool ---- spool_snapshot P ---- from the stream ---- S        belongs to the refresh at S
 *
 * Exactly once: spool_snapshot moves in the transaction that stores the records, and goes in the one that moves the frontier.  To the applier P
 * is what F was: which transactions the stream table still wants from the stream, whether they are sent for the first time or again.
 *
 * Stream tables with equal frontiers share what is stored; a part goes with its last reader.  Readers that are left over from a
 * frontier that was moved in another way (another query, a fill) are told by an empty spool_snapshot.
 *
 * The writes are tagged like all of a tick's own, so that the plugin drops them before they are queued.
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "refresh_record.h"
#include "spool.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define PARTS_AT_ONCE 4			/* of at most a few MB each */

List *
spool_store(List *parts, int set, const char *data, size_t length)
{
	static SPIPlanPtr kept = NULL;
	MemoryContext caller_context = CurrentMemoryContext;
	SpoolPart  *part = palloc(sizeof(SpoolPart));
	Oid			types[1] = {BYTEAOID};
	Datum		values[1];
	bool		isnull;

	SPI_connect();
	values[0] = PointerGetDatum(cstring_to_text_with_len(data, length));
	execute_kept(&kept, "INSERT INTO pgtrickle.pgt_spool (data) VALUES ($1) RETURNING spool_id", 1, types, values, NULL);
	part->set = set;
	part->spool_id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	MemoryContextSwitchTo(caller_context);
	return lappend(parts, part);
}

/* What is there although the frontier is not followed by a spool belongs to an earlier frontier. */
static const char *const forget_stale_sql =
	"DELETE FROM pgtrickle.pgt_spool_readers r USING pgtrickle.pgt_frontiers f"
	" WHERE r.pgt_id = $1 AND f.pgt_id = $1 AND f.spool_snapshot IS NULL";

static const char *const give_sql =
	"INSERT INTO pgtrickle.pgt_spool_readers (pgt_id, spool_id) VALUES ($1, $2)";

static const char *const move_sql =
	"UPDATE pgtrickle.pgt_frontiers SET spool_snapshot = $2::pg_snapshot, spooled_since = COALESCE(spooled_since, $3),"
	" spool_reason = COALESCE(spool_reason, $4) WHERE pgt_id = $1";

void
spool_give(List *parts, int set, int64 pgt_id, TimestampTz since, const char *reason)
{
	static SPIPlanPtr forget_plan = NULL;
	static SPIPlanPtr give_plan = NULL;
	static SPIPlanPtr move_plan = NULL;
	Oid			give_types[2] = {INT8OID, INT8OID};
	Oid			move_types[4] = {INT8OID, TEXTOID, TIMESTAMPTZOID, TEXTOID};
	Datum		values[4];
	char		nulls[4] = {' ', ' ', ' ', reason == NULL ? 'n' : ' '};
	Datum		snapshot = DirectFunctionCall1(pg_current_snapshot, (Datum) 0);
	ListCell   *lc;

	values[0] = Int64GetDatum(pgt_id);
	execute_kept(&forget_plan, forget_stale_sql, 1, give_types, values, NULL);
	foreach(lc, parts)
	{
		SpoolPart  *part = lfirst(lc);

		if (part->set != set)
			continue;
		values[1] = Int64GetDatum(part->spool_id);
		execute_kept(&give_plan, give_sql, 2, give_types, values, NULL);
	}
	values[1] = CStringGetTextDatum(DatumGetCString(DirectFunctionCall1(pg_snapshot_out, snapshot)));
	values[2] = TimestampTzGetDatum(since);
	values[3] = reason == NULL ? (Datum) 0 : CStringGetTextDatum(reason);
	execute_kept(&move_plan, move_sql, 4, move_types, values, nulls);
}

static char *
read_reason(int64 pgt_id, MemoryContext context)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(pgt_id)};
	char	   *reason;

	if (SPI_execute_with_args("SELECT spool_reason FROM pgtrickle.pgt_frontiers WHERE pgt_id = $1",
							  1, types, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read pgtrickle.pgt_frontiers");
	if (SPI_processed == 0)
		return NULL;
	reason = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	return reason == NULL ? NULL : MemoryContextStrdup(context, reason);
}

static void
stage_fetched(Stage *stage, int set)
{
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Datum		value = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);
		bytea	   *data = DatumGetByteaPP(value);

		stage_append(stage, set, VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data));
		if (PointerGetDatum(data) != value)
			pfree(data);
	}
}

char *
spool_take(Stage *stage, int set, int64 pgt_id)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *reason = read_reason(pgt_id, context);
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(pgt_id)};
	Portal		portal;

	if (reason == NULL)
	{
		portal = SPI_cursor_open_with_args(NULL,
										   "SELECT s.data FROM pgtrickle.pgt_spool_readers r"
										   " JOIN pgtrickle.pgt_spool s USING (spool_id)"
										   " WHERE r.pgt_id = $1 ORDER BY spool_id",
										   1, types, values, NULL, true, 0);
		do
		{
			SPI_cursor_fetch(portal, true, PARTS_AT_ONCE);
			MemoryContextSwitchTo(context);
			stage_fetched(stage, set);
			SPI_freetuptable(SPI_tuptable);
		} while (SPI_processed > 0);
		SPI_cursor_close(portal);
	}
	MemoryContextSwitchTo(context);
	return reason;
}

void
spool_forget(int64 pgt_id)
{
	static SPIPlanPtr kept = NULL;
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(pgt_id)};

	/* the statement's parts see one state of the tables: that before it */
	execute_kept(&kept, "WITH gone AS (DELETE FROM pgtrickle.pgt_spool_readers WHERE pgt_id = $1 RETURNING spool_id)"
				 " DELETE FROM pgtrickle.pgt_spool s USING gone WHERE s.spool_id = gone.spool_id"
				 " AND NOT EXISTS (SELECT FROM pgtrickle.pgt_spool_readers o WHERE o.spool_id = s.spool_id AND o.pgt_id <> $1)",
				 1, types, values, NULL);
}
