/*
 * delta/copy_definition.c
 *     What the catalog says about a copy, for one tick.
 *
 * The state of a copy is moved by other transactions than the tick's: the program that copies it, a user who wants it copied again.  All of
 * them lock its row in pgt_copies first, and so do we.  After that the state is read by a new snapshot.  What we then change of it
 * in a row that is younger than the tick's snapshot fails with a serialization failure, and the tick is tried again.
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "copy_definition.h"
#include "executor/spi.h"
#include "refresh_record.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"

static const char *const state_sql =
	"SELECT c.remote_id::text, c.relid::oid::text, t.relowner::text, pg_catalog.format('%I.%I', n.nspname, t.relname),"
	" pg_catalog.format('%I.%I', c.remote_schema, c.remote_table), s.status, s.is_populated::text,"
	" (s.is_populated AND (s.status = 'ACTIVE' OR s.live_follows))::text, (s.status IN ('COPYING', 'COPIED'))::text, (s.status = 'COPIED')::text,"
	" (c.columns_wanted IS NULL)::text, s.has_key::text, s.key_index::text, pg_catalog.array_to_string(s.key_attnos, ' '),"
	" s.remote_relid::text, s.copied_from::text, s.copied_lsn::text, s.copied_snapshot::text, l.oid::text, c.row_filter,"
	" (SELECT pg_catalog.string_agg(d.pgt_id::text, ' ') FROM pgtrickle.pgt_sources d WHERE d.source_relid = c.relid),"
	" s.is_partitioned::text, (s.status = 'REDEFINE' AND s.is_populated AND NOT s.live_follows)::text, s.remote_natts::text,"
	" (c.storage = 'none')::text, (c.storage = 'none' AND NOT s.is_populated AND s.status = 'ACTIVE')::text,"
	" s.loaded_xid::text, (CASE WHEN s.status = 'COPIED' AND NOT s.is_populated THEN s.exact_xid END)::text,"
	" (pg_catalog.clock_timestamp() < coalesce(s.exact_at, 'infinity') + greatest(s.ended_at - s.started_at, interval '10 seconds'))::text,"
	" s.rows_copied::text"
	" FROM pgtrickle.pgt_copies c"
	" JOIN pgtrickle.pgt_copy_states s USING (copy_id)"
	" JOIN pg_catalog.pg_class t ON t.oid = c.relid"
	" JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace"
	" LEFT JOIN pg_catalog.pg_class l ON l.oid = s.load_table"
	" WHERE c.copy_id = $1";

static const char *const columns_sql =
	"SELECT attnum, remote_attnum, remote_column, remote_type_oid, remote_typmod FROM pgtrickle.pgt_copy_columns WHERE copy_id = $1 ORDER BY attnum";

/* A statement of ours with the newest snapshot. */
static void
select_latest(SPIPlanPtr *kept, const char *sql, int nargs, Oid *types, Datum *values)
{
	if (*kept == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(sql, nargs, types);

		if (plan == NULL)
			elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		*kept = plan;
	}
	if (SPI_execute_snapshot(*kept, values, NULL, GetLatestSnapshot(), InvalidSnapshot, true, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the catalog of copies");
}

static char *
text_of(int column)
{
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column);
}

static bool
is_true(int column)
{
	return strcmp(text_of(column), "true") == 0;
}

static Oid
oid_of(int column)
{
	char	   *text = text_of(column);

	return text == NULL ? InvalidOid : atooid(text);
}

static uint64
number_of(int column)
{
	char	   *text = text_of(column);

	return text == NULL ? 0 : strtou64(text, NULL, 10);
}

static XLogRecPtr
lsn_of(int column)
{
	char	   *text = text_of(column);

	return text == NULL ? InvalidXLogRecPtr : DatumGetLSN(DirectFunctionCall1(pg_lsn_in, CStringGetDatum(text)));
}

static char *
copy_of(int column, MemoryContext context)
{
	char	   *text = text_of(column);

	return text == NULL ? NULL : MemoryContextStrdup(context, text);
}

/* Numbers separated by blanks; the list is allocated in the current context. */
static List *
parse_numbers(char *text)
{
	List	   *numbers = NIL;
	char	   *save = NULL;

	if (text == NULL)
		return NIL;
	for (char *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save))
	{
		int64	   *number = palloc(sizeof(int64));

		*number = strtoll(word, NULL, 10);
		numbers = lappend(numbers, number);
	}
	return numbers;
}

static void
read_locator(CopyDefinition *definition)
{
	List	   *attnos = parse_numbers(text_of(14));
	ListCell   *lc;

	definition->locator.index_oid = oid_of(13);
	definition->locator.by_row_hash = !definition->has_key;
	definition->locator.key_attnos = palloc0((list_length(attnos) + 1) * sizeof(AttrNumber));
	foreach(lc, attnos)
		definition->locator.key_attnos[definition->locator.nkeys++] = (AttrNumber) *(int64 *) lfirst(lc);
}

static CopyDefinition *
read_state(int64 copy_id, MemoryContext context)
{
	CopyDefinition *definition = MemoryContextAllocZero(context, sizeof(CopyDefinition));
	MemoryContext oldcontext;

	definition->copy_id = copy_id;
	definition->remote_id = atoi(text_of(1));
	definition->relid = oid_of(2);
	definition->owner = oid_of(3);
	definition->name = copy_of(4, context);
	definition->remote_name = copy_of(5, context);
	definition->status = copy_of(6, context);
	definition->is_populated = is_true(7);
	definition->follows = is_true(8);
	definition->is_copying = is_true(9);
	definition->is_copied = is_true(10);
	definition->all_columns = is_true(11);
	definition->has_key = is_true(12);
	definition->remote_relid = oid_of(15);
	definition->copied_from = lsn_of(16);
	definition->copied_lsn = lsn_of(17);
	definition->copied_snapshot = copy_of(18, context);
	definition->load_table = oid_of(19);
	definition->row_filter = copy_of(20, context);
	definition->is_partitioned = is_true(22);
	definition->is_blocked = is_true(23);
	definition->remote_natts = atoi(text_of(24));
	definition->drops_rows = is_true(25);
	definition->passes_through = is_true(26);
	definition->loaded_xid = number_of(27);
	definition->exact_xid = number_of(28);
	definition->may_wait = text_of(29) == NULL || is_true(29);
	definition->rows_copied = (int64) number_of(30);
	oldcontext = MemoryContextSwitchTo(context);
	read_locator(definition);
	definition->consumer_ids = parse_numbers(text_of(21));
	MemoryContextSwitchTo(oldcontext);
	return definition;
}

static void
read_columns(CopyDefinition *definition, MemoryContext context)
{
	definition->ncolumns = (int) SPI_processed;
	definition->columns = MemoryContextAllocZero(context, Max(SPI_processed, 1) * sizeof(CopyColumn));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	tupdesc = SPI_tuptable->tupdesc;
		CopyColumn *column = &definition->columns[i];
		bool		isnull;

		column->attno = DatumGetInt16(SPI_getbinval(row, tupdesc, 1, &isnull));
		column->remote_attno = DatumGetInt16(SPI_getbinval(row, tupdesc, 2, &isnull));
		column->remote_column = MemoryContextStrdup(context, SPI_getvalue(row, tupdesc, 3));
		column->remote_type = DatumGetObjectId(SPI_getbinval(row, tupdesc, 4, &isnull));
		column->remote_typmod = DatumGetInt32(SPI_getbinval(row, tupdesc, 5, &isnull));
	}
}

/* Whoever alters or drops the table locks it before the copy's row, and so do we; the state is that of afterwards. */
static void
lock_table(Oid *types, Datum *values)
{
	static SPIPlanPtr kept = NULL;
	Oid			relid;

	select_latest(&kept, "SELECT relid::oid::text FROM pgtrickle.pgt_copies WHERE copy_id = $1 AND relid IS NOT NULL", 1, types, values);
	relid = SPI_processed == 0 ? InvalidOid : oid_of(1);
	if (OidIsValid(relid))
		LockRelationOid(relid, RowExclusiveLock);
}

CopyDefinition *
copy_definition_load(int64 copy_id, MemoryContext context)
{
	static SPIPlanPtr lock_plan = NULL;
	static SPIPlanPtr state_plan = NULL;
	static SPIPlanPtr columns_plan = NULL;
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(copy_id)};
	CopyDefinition *definition;

	lock_table(types, values);
	execute_kept(&lock_plan, "SELECT FROM pgtrickle.pgt_copies WHERE copy_id = $1 FOR SHARE", 1, types, values, NULL);
	if (SPI_processed == 0)
		return NULL;
	select_latest(&state_plan, state_sql, 1, types, values);
	if (SPI_processed == 0)
		return NULL;
	definition = read_state(copy_id, context);
	select_latest(&columns_plan, columns_sql, 1, types, values);
	read_columns(definition, context);
	return definition;
}

List *
copy_ids_of_remote_table(int remote_id, Oid remote_relid, MemoryContext context)
{
	static SPIPlanPtr kept = NULL;
	Oid			types[] = {INT4OID, OIDOID};
	Datum		values[] = {Int32GetDatum(remote_id), ObjectIdGetDatum(remote_relid)};
	MemoryContext oldcontext;
	List	   *ids;

	select_latest(&kept,
				  "SELECT pg_catalog.string_agg(c.copy_id::text, ' ' ORDER BY c.copy_id)"
				  " FROM pgtrickle.pgt_copies c JOIN pgtrickle.pgt_copy_states s USING (copy_id)"
				  " WHERE c.remote_id = $1 AND s.remote_relid = $2 AND c.relid IS NOT NULL",
				  2, types, values);
	oldcontext = MemoryContextSwitchTo(context);
	ids = parse_numbers(text_of(1));
	MemoryContextSwitchTo(oldcontext);
	return ids;
}
