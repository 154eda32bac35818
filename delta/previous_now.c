/*
 * delta/previous_now.c
 *     pgtrickle.previous_now(): what now() was when a stream table was refreshed last.
 *
 * Stored with the frontier, in the transaction that moved it, so it is the moment at which the stream table's rows were right.  Known to a
 * session only while it refreshes a stream table by delta; its program compares that moment with now() (temporal.c).
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "temporal.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(pgtrickle_previous_now);

static bool is_known = false;
static TimestampTz previous_now;

bool
previous_now_load(int64 pgt_id)
{
	static SPIPlanPtr kept = NULL;
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(pgt_id)};
	Datum		moment = (Datum) 0;
	bool		isnull = true;

	is_known = false;
	if (kept == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare("SELECT query_now FROM pgtrickle.pgt_frontiers WHERE pgt_id = $1", 1, types);

		if (plan == NULL)
			elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		kept = plan;
	}
	if (SPI_execute_plan(kept, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read pgtrickle.pgt_frontiers");
	if (SPI_processed > 0)
		moment = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull)
		return false;
	previous_now = DatumGetTimestampTz(moment);
	is_known = true;
	return true;
}

void
previous_now_forget(void)
{
	is_known = false;
}

/* pgtrickle.previous_now() returns timestamptz: NULL outside of a refresh. */
Datum
pgtrickle_previous_now(PG_FUNCTION_ARGS)
{
	if (!is_known)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(previous_now);
}
