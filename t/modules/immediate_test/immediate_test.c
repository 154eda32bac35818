/*
 * t/modules/immediate_test/immediate_test.c
 *     Runs a statement through SPI and stops it after so many rows, as functions in languages such as PL/Python can.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(immediate_test_execute);

/* execute_limited(statement text, row_count bigint) returns bigint: how many rows it processed */
Datum
immediate_test_execute(PG_FUNCTION_ARGS)
{
	uint64		processed;

	SPI_connect();
	if (SPI_execute(text_to_cstring(PG_GETARG_TEXT_PP(0)), false, (long) PG_GETARG_INT64(1)) < 0)
		elog(ERROR, "the statement has failed");
	processed = SPI_processed;
	SPI_finish();
	PG_RETURN_INT64((int64) processed);
}
