/*
 * delta/restore_snapshot.c
 *     The rows of a snapshot of a stream table, put back into it.
 *
 * Somebody has loaded nonsense into a source, say, and readers shall see what was there before until that is mended.  Only the difference between
 * the snapshot and what the stream table holds is written, as a refresh does it, so nobody who reads is disturbed.
 *
 * The rows are then those of another moment, so the stream table is paused first (sql/57_operations.sql): nothing is kept for it, and who resumes it
 * has it refreshed in full, which writes the difference again, the other way.  State tables may stay what they are meanwhile.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "apply.h"
#include "compat.h"
#include "consolidate.h"
#include "privileged.h"
#include "retain.h"
#include "run.h"
#include "run_owner.h"

#define ROWS_PER_FETCH 1000

PG_FUNCTION_INFO_V1(pgtrickle_put_rows);

/* While the applier follows its sources, other rows would be wrong ones. */
static void
check_paused(LoadedTable *table)
{
	PrivilegedSection section;
	Oid				  types[] = {INT8OID};
	Datum			  values[] = {Int64GetDatum(table->pgt_id)};
	bool			  is_paused;

	privileged_begin(&section);
	if (SPI_execute_with_args("SELECT FROM pgtrickle.pgt_definitions WHERE pgt_id = $1 AND status = 'PAUSED'", 1, types,
							  values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the catalog of stream tables");
	is_paused = SPI_processed > 0;
	privileged_end(&section);
	if (!is_paused)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("stream table \"%s\" is not paused", table->qualified_name),
						errhint("Use pgtrickle.restore_from_snapshot().")));
}

/* As in redefine.c: the lock first, and what the definition is by then behind it. */
static LoadedTable *
lock_definition(int64 pgt_id)
{
	LoadedTable *table = table_definition(pgt_id);
	Oid			 locked = table->relid;

	if (!compat_owns_relation(locked, GetUserId()))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("must be owner of stream table \"%s\"", table->qualified_name)));
	if (IsolationUsesXactSnapshot())
		ereport(ERROR, (errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
						errmsg("cannot restore a stream table in a transaction with one snapshot"),
						errhint("Use the isolation level READ COMMITTED.")));
	LockRelationOid(locked, ShareRowExclusiveLock);
	table = table_definition(pgt_id);
	if (table->relid != locked)
		ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						errmsg("stream table \"%s\" has just been changed", table->qualified_name)));
	check_paused(table);
	return table;
}

/* The columns of the stream table, by name, from the snapshot. */
static char *
select_sql(LoadedTable *table, Oid source)
{
	Relation	   relation = table_open(table->relid, NoLock);
	TupleDesc	   columns = RelationGetDescr(relation);
	StringInfoData sql;
	const char	  *separator = "SELECT ";

	initStringInfo(&sql);
	for (int i = 0; i < columns->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(columns, i);
		AttrNumber		  attno = get_attnum(source, NameStr(column->attname));

		if (attno <= 0 || get_atttype(source, attno) != column->atttypid)
			ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
							errmsg("snapshot \"%s\" does not have column \"%s\" of stream table \"%s\" with its type", get_rel_name(source),
								   NameStr(column->attname), table->qualified_name),
							errhint("The query of the stream table was changed after the snapshot.")));
		appendStringInfo(&sql, "%s%s", separator, quote_identifier(NameStr(column->attname)));
		separator = ", ";
	}
	appendStringInfo(&sql, " FROM %s",
					 quote_qualified_identifier(get_namespace_name(get_rel_namespace(source)), get_rel_name(source)));
	table_close(relation, NoLock);
	return sql.data;
}

/* With the caller's own rights, row-level security included. */
static void
put_rows_of_snapshot(Rowset *rows, const char *sql)
{
	Portal portal = SPI_cursor_open_with_args(NULL, sql, 0, NULL, NULL, NULL, false, 0);
	int	   natts = rows->tupdesc->natts - 1;
	Datum *values = palloc(sizeof(Datum) * natts);
	bool  *nulls = palloc(sizeof(bool) * natts);

	do
	{
		SPI_cursor_fetch(portal, true, ROWS_PER_FETCH);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, values, nulls);
			rowset_put_values(rows, values, nulls, 1);
		}
		SPI_freetuptable(SPI_tuptable);
	} while (SPI_processed > 0);
	SPI_cursor_close(portal);
}

static ApplyCounts
apply_as_owner(LoadedTable *table, Rowset *difference)
{
	OwnerScope	scope;
	ApplyCounts counts;
	Relation	relation = table_open(table->relid, NoLock);
	Rowset	   *net = NULL;

	owner_scope_enter(&scope, table);
	counts = apply_delta(relation, &table->locator, difference, false, table->retains_history ? &net : NULL);
	owner_scope_leave(&scope);
	table_close(relation, NoLock);
	CommandCounterIncrement();
	if (net != NULL)
	{
		retain_changes(table->pgt_id, table->owner, net, GetCurrentTimestamp());
		rowset_free(net);
		CommandCounterIncrement();
	}
	return counts;
}

/*
 * pgtrickle.put_rows(pgt_id bigint, source oid) returns bigint
 *
 * Makes the rows of a stream table of the caller those of a table that the caller may read; how many were written.
 */
Datum
pgtrickle_put_rows(PG_FUNCTION_ARGS)
{
	LoadedTable *table;
	Relation	 relation;
	Rowset		*rows;
	Rowset		*difference;
	ApplyCounts	 counts;

	SPI_connect();
	table = lock_definition(PG_GETARG_INT64(0));
	relation = table_open(table->relid, NoLock);
	rows = rowset_create("__pgt_restored", rowset_tupdesc_for(RelationGetDescr(relation)));
	table_close(relation, NoLock);
	put_rows_of_snapshot(rows, select_sql(table, PG_GETARG_OID(1)));

	PushCopiedSnapshot(GetTransactionSnapshot());
	UpdateActiveSnapshotCommandId();
	rowset_put_table(rows, table->relid, -1);
	difference = consolidate(rows, "__pgt_difference");
	rowset_free(rows);
	counts = apply_as_owner(table, difference);
	rowset_free(difference);
	PopActiveSnapshot();
	SPI_finish();
	PG_RETURN_INT64(counts.rows_inserted + counts.rows_deleted);
}
