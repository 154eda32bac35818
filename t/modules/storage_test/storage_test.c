/*
 * t/modules/storage_test/storage_test.c
 *     Lets tests call the storage half of delta/ from SQL, each function with rowsets made by queries.
 *
 * Every query for a rowset yields the rowset's columns and __w.  What a function makes is visible to the
 * command given last, under the names said in storage_test.sql.  Each returns the milliseconds that the
 * function under test took, with what else there is to say, as JSON text.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "apply.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "consolidate.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "portability/instr_time.h"
#include "rowset.h"
#include "stage.h"
#include "table_writer.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(storage_test_consolidate);
PG_FUNCTION_INFO_V1(storage_test_apply);
PG_FUNCTION_INFO_V1(storage_test_merge);
PG_FUNCTION_INFO_V1(storage_test_replace);
PG_FUNCTION_INFO_V1(storage_test_stage);

/* ------------------------------------------------------------------------------------------------
 * Helpers
 */

static char *
text_argument(FunctionCallInfo fcinfo, int i)
{
	return PG_ARGISNULL(i) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(i));
}

static double
milliseconds_since(instr_time start)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, start);
	return INSTR_TIME_GET_MILLISEC(now);
}

/* The rows of a query as a rowset, in the SPI procedure's memory. */
static Rowset *
rowset_from_query(const char *name, const char *query)
{
	Portal			portal = SPI_cursor_open_with_args(NULL, query, 0, NULL, NULL, NULL, true, 0);
	Rowset		   *rowset = NULL;
	TupleTableSlot *slot = NULL;

	do
	{
		SPI_cursor_fetch(portal, true, 1000);
		if (rowset == NULL)
		{
			rowset = rowset_create(name, SPI_tuptable->tupdesc);
			slot = MakeSingleTupleTableSlot(SPI_tuptable->tupdesc, &TTSOpsHeapTuple);
		}
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			ExecStoreHeapTuple(SPI_tuptable->vals[i], slot, false);
			rowset_put_slot(rowset, slot);
		}
		ExecClearTuple(slot);
		SPI_freetuptable(SPI_tuptable);
	} while (SPI_processed > 0);
	SPI_cursor_close(portal);
	return rowset;
}

static void
run_command(const char *command)
{
	if (command == NULL)
		return;

	int result = SPI_execute(command, false, 0);

	if (result < 0)
		elog(ERROR, "could not run \"%s\": %s", command, SPI_result_code_string(result));
}

/* By the columns of an index; InvalidOid: no index.  An index on an expression is one on the row hash. */
static RowLocator
locator_from_index(Oid index_oid)
{
	RowLocator locator = {.index_oid = index_oid};

	if (!OidIsValid(index_oid))
		return locator;

	Relation index = relation_open(index_oid, AccessShareLock);

	locator.nkeys = index->rd_index->indnkeyatts;
	locator.key_attnos = palloc(locator.nkeys * sizeof(AttrNumber));
	for (int i = 0; i < locator.nkeys; i++)
		locator.key_attnos[i] = index->rd_index->indkey.values[i];
	if (locator.key_attnos[0] == 0)
	{
		locator.by_row_hash = true;
		locator.nkeys = 0;
	}
	relation_close(index, AccessShareLock);
	return locator;
}

static Datum
counts_result(double milliseconds, ApplyCounts counts)
{
	return CStringGetTextDatum(
		psprintf("{\"ms\": %.3f, \"inserted\": " INT64_FORMAT ", \"deleted\": " INT64_FORMAT
				 ", \"updated\": " INT64_FORMAT "}",
				 milliseconds, counts.rows_inserted, counts.rows_deleted, counts.rows_updated));
}

/* ------------------------------------------------------------------------------------------------
 * The functions
 */

/* consolidate(query, command) */
Datum
storage_test_consolidate(PG_FUNCTION_ARGS)
{
	char	   *query = text_argument(fcinfo, 0);
	char	   *command = text_argument(fcinfo, 1);
	instr_time	start;
	ApplyCounts counts = {0};

	SPI_connect();

	Rowset *input = rowset_from_query("input", query);

	INSTR_TIME_SET_CURRENT(start);

	Rowset *net = consolidate(input, "net");
	double	milliseconds = milliseconds_since(start);

	counts.rows_inserted = net->row_count;
	rowset_register(net);
	run_command(command);
	rowset_unregister(net);
	rowset_free(net);
	rowset_free(input);
	SPI_finish(); /* the result must not be made in its memory */
	return counts_result(milliseconds, counts);
}

/* apply(relation, index, hidden, query, command) */
Datum
storage_test_apply(PG_FUNCTION_ARGS)
{
	Oid		   relid = PG_GETARG_OID(0);
	Oid		   index_oid = PG_ARGISNULL(1) ? InvalidOid : PG_GETARG_OID(1);
	bool	   hidden = PG_GETARG_BOOL(2);
	char	  *query = text_argument(fcinfo, 3);
	char	  *command = text_argument(fcinfo, 4);
	instr_time start;

	SPI_connect();

	Relation   relation = table_open(relid, RowExclusiveLock);
	RowLocator locator = locator_from_index(index_oid);
	Rowset	  *delta = rowset_from_query("delta", query);
	Rowset	  *net = NULL;

	INSTR_TIME_SET_CURRENT(start);

	ApplyCounts counts =
		apply_delta(relation, &locator, delta, hidden, command == NULL ? NULL : &net);
	double milliseconds = milliseconds_since(start);

	CommandCounterIncrement();
	if (net != NULL)
	{
		rowset_register(net);
		run_command(command);
		rowset_unregister(net);
		rowset_free(net);
	}
	rowset_free(delta);
	table_close(relation, NoLock);
	SPI_finish(); /* the result must not be made in its memory */
	return counts_result(milliseconds, counts);
}

/* "column function delta_column function(types)", or "column min|max came_column gone_column comparison(types)" */
static MergeColumn
parse_merge_column(Relation relation, TupleDesc delta, char *description)
{
	MergeColumn column = {0};
	char	   *words[5];
	int			nwords = 0;

	for (char *word = strtok(description, " "); word != NULL && nwords < 5;
		 word = strtok(NULL, " "))
		words[nwords++] = word;
	if (nwords < 4)
		elog(ERROR, "too few words in a column's description");

	column.kind = strcmp(words[1], "min") == 0	 ? MERGE_MIN
				  : strcmp(words[1], "max") == 0 ? MERGE_MAX
												 : MERGE_FUNCTION;
	column.state_attno = get_attnum(RelationGetRelid(relation), words[0]);
	for (int i = 0; i < delta->natts; i++)
	{
		const char *name = NameStr(TupleDescAttr(delta, i)->attname);

		if (strcmp(name, words[2]) == 0)
			column.delta_attno = i + 1;
		if (column.kind != MERGE_FUNCTION && strcmp(name, words[3]) == 0)
			column.delta_gone_attno = i + 1;
	}
	column.collation =
		TupleDescAttr(RelationGetDescr(relation), column.state_attno - 1)->attcollation;
	fmgr_info(
		DatumGetObjectId(DirectFunctionCall1(regprocedurein, CStringGetDatum(words[nwords - 1]))),
		&column.function);
	return column;
}

/* merge(relation, index, rows_column, columns, keep_empty, query, command) */
Datum
storage_test_merge(PG_FUNCTION_ARGS)
{
	MergeTarget target = {.stream_table_name = "merged"};
	Oid			index_oid = PG_ARGISNULL(1) ? InvalidOid : PG_GETARG_OID(1);
	char	   *rows_column = text_argument(fcinfo, 2);
	char	   *query = text_argument(fcinfo, 5);
	char	   *command = text_argument(fcinfo, 6);
	Datum	   *descriptions;
	instr_time	start;
	ApplyCounts counts = {0};

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(3), TEXTOID, -1, false, TYPALIGN_INT, &descriptions,
					  NULL, &target.ncolumns);
	SPI_connect();
	target.relation = table_open(PG_GETARG_OID(0), RowExclusiveLock);
	target.locator = locator_from_index(index_oid);
	target.rows_attno = get_attnum(PG_GETARG_OID(0), rows_column);
	target.keep_empty = PG_GETARG_BOOL(4);

	Rowset	 *delta = rowset_from_query("group_delta", query);
	Rowset	 *out = rowset_create("changes", table_live_tupdesc(target.relation));
	TupleDesc keys = CreateTemplateTupleDesc(target.locator.nkeys);

	for (int i = 1; i <= keys->natts; i++)
		TupleDescCopyEntry(keys, i, delta->tupdesc, i);

	Rowset *recompute = rowset_create("recompute", rowset_tupdesc_for(keys));

	target.columns = palloc(Max(target.ncolumns, 1) * sizeof(MergeColumn));
	for (int i = 0; i < target.ncolumns; i++)
		target.columns[i] = parse_merge_column(target.relation, delta->tupdesc,
											   TextDatumGetCString(descriptions[i]));

	INSTR_TIME_SET_CURRENT(start);
	merge_group_delta(&target, delta, out, recompute);

	double milliseconds = milliseconds_since(start);

	counts.rows_inserted = out->row_count;
	counts.rows_updated = recompute->row_count;
	CommandCounterIncrement();
	rowset_register(out);
	rowset_register(recompute);
	run_command(command);
	rowset_unregister(out);
	rowset_unregister(recompute);
	rowset_free(out);
	rowset_free(recompute);
	rowset_free(delta);
	table_close(target.relation, NoLock);
	SPI_finish(); /* the result must not be made in its memory */
	return counts_result(milliseconds, counts);
}

/* replace(relation, index, keys_query, rows_query, command) */
Datum
storage_test_replace(PG_FUNCTION_ARGS)
{
	Oid		   index_oid = PG_ARGISNULL(1) ? InvalidOid : PG_GETARG_OID(1);
	char	  *keys_query = text_argument(fcinfo, 2);
	char	  *rows_query = text_argument(fcinfo, 3);
	char	  *command = text_argument(fcinfo, 4);
	instr_time start;

	SPI_connect();

	Relation   relation = table_open(PG_GETARG_OID(0), RowExclusiveLock);
	RowLocator locator = locator_from_index(index_oid);
	Rowset	  *keys = rowset_from_query("keys", keys_query);
	Rowset	  *rows = rowset_from_query("rows", rows_query);
	Rowset	  *out = rowset_create("changes", rows->tupdesc);

	INSTR_TIME_SET_CURRENT(start);

	ApplyCounts counts = replace_by_key(relation, &locator, keys, rows, true, out, "replaced");
	double		milliseconds = milliseconds_since(start);

	CommandCounterIncrement();
	rowset_register(out);
	run_command(command);
	rowset_unregister(out);
	rowset_free(out);
	rowset_free(keys);
	rowset_free(rows);
	table_close(relation, NoLock);
	SPI_finish(); /* the result must not be made in its memory */
	return counts_result(milliseconds, counts);
}

/* stage(relation, columns, batches, repeat, command) */
Datum
storage_test_stage(PG_FUNCTION_ARGS)
{
	Oid			  relid = PG_GETARG_OID(0);
	int			  repeat = PG_GETARG_INT32(3);
	char		 *command = text_argument(fcinfo, 4);
	Datum		 *columns;
	int			  ncolumns;
	Datum		 *batches = NULL;
	int			  nbatches = 0;
	Bitmapset	 *used_attnos = NULL;
	instr_time	  start;
	StageObstacle obstacle;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT, &columns, NULL,
					  &ncolumns);
	if (!PG_ARGISNULL(2)) /* nothing was decoded? */
		deconstruct_array(PG_GETARG_ARRAYTYPE_P(2), BYTEAOID, -1, false, TYPALIGN_INT, &batches,
						  NULL, &nbatches);
	for (int i = 0; i < ncolumns; i++)
		used_attnos =
			bms_add_member(used_attnos, get_attnum(relid, TextDatumGetCString(columns[i])));

	SPI_connect();

	Stage *stage = stage_create();

	stage_expect(stage, 1, relid, false, used_attnos);
	INSTR_TIME_SET_CURRENT(start);
	for (int i = 0; i < nbatches * repeat; i++)
	{
		bytea *batch = DatumGetByteaPP(batches[i % nbatches]);

		stage_append(stage, 1, VARDATA_ANY(batch), VARSIZE_ANY_EXHDR(batch));
	}

	double	milliseconds = milliseconds_since(start);
	Rowset *rowset = stage_rowset(stage, 1, relid, false, &obstacle);
	int64	row_count = rowset == NULL ? -1 : rowset->row_count;

	if (rowset != NULL)
	{
		rowset_register(rowset);
		run_command(command);
		rowset_unregister(rowset);
	}
	stage_free(stage);
	SPI_finish();
	return CStringGetTextDatum(
		psprintf("{\"ms\": %.3f, \"rows\": " INT64_FORMAT ", \"obstacle\": \"%s\"}", milliseconds,
				 row_count, obstacle == STAGE_USABLE ? "" : stage_obstacle_reason(obstacle)));
}
