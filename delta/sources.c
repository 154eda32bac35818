/*
 * delta/sources.c
 *     What a stream table reads: rows of pgt_sources, functions, and the `interest` message.
 *
 * Written when a stream table is created, and again when DDL has given another meaning to one of the names in its
 * query (sql/45_ddl_events.sql): sources are bound by name, and whoever asks the catalog or the applier wants the
 * relations that the names mean now.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "optimizer/optimizer.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "query.h"
#include "run.h"
#include "run_owner.h"
#include "sources.h"
#include "wal_message.h"

PG_FUNCTION_INFO_V1(pgtrickle_rebind_sources);

List *
sources_relations(const char *defining_query)
{
	List *relids = NIL;
	List *invalidations = NIL;
	bool  has_row_security = false;

	extract_query_dependencies((Node *) query_analyze_and_expand(defining_query, NULL), &relids,
							   &invalidations, &has_row_security);
	return relids;
}

static const char *const insert_sql =
	"INSERT INTO pgtrickle.pgt_sources"
	" (pgt_id, source_relid, source_schema, source_name, source_type, columns_used)"
	" SELECT $1, c.oid, n.nspname, c.relname,"
	"  CASE WHEN EXISTS (SELECT FROM pgtrickle.pgt_definitions d WHERE d.relid = c.oid)"
	"   THEN 'STREAM_TABLE' ELSE $3 END,"
	"  ARRAY(SELECT a.attname FROM pg_catalog.pg_attribute a"
	"   WHERE a.attrelid = c.oid AND a.attnum = ANY ($4) ORDER BY a.attnum)"
	" FROM pg_catalog.pg_class c"
	" JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
	" WHERE c.oid = $2"
	" ON CONFLICT (pgt_id, source_relid) DO NOTHING";

static void
write_one(int64 pgt_id, Oid relid, const char *source_type, const Bitmapset *used_attnos)
{
	Oid	   types[] = {INT8OID, OIDOID, TEXTOID, INT2ARRAYOID};
	Datum *attnos = palloc(sizeof(Datum) * Max(bms_num_members(used_attnos), 1));
	int	   nattnos = 0;
	int	   attno = -1;
	Datum  values[4];

	while ((attno = bms_next_member(used_attnos, attno)) >= 0)
		attnos[nattnos++] = Int16GetDatum((int16) attno);
	values[0] = Int64GetDatum(pgt_id);
	values[1] = ObjectIdGetDatum(relid);
	values[2] = CStringGetTextDatum(source_type);
	values[3] = PointerGetDatum(
		construct_array(attnos, nattnos, INT2OID, sizeof(int16), true, TYPALIGN_SHORT));
	if (SPI_execute_with_args(insert_sql, 4, types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not insert into pgtrickle.pgt_sources");
}

static void
write_functions(int64 pgt_id, List *functions)
{
	Oid		  types[] = {INT8OID, OIDARRAYOID};
	Datum	  values[2];
	Datum	 *elements = palloc(sizeof(Datum) * Max(list_length(functions), 1));
	ListCell *lc;

	foreach(lc, functions)
		elements[foreach_current_index(lc)] = ObjectIdGetDatum(lfirst_oid(lc));
	values[0] = Int64GetDatum(pgt_id);
	values[1] = PointerGetDatum(construct_array(elements, list_length(functions), OIDOID, sizeof(Oid),
												true, TYPALIGN_INT));
	if (SPI_execute_with_args("UPDATE pgtrickle.pgt_definitions SET functions_used = $2"
							  " WHERE pgt_id = $1 AND functions_used <> $2",
							  2, types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not update pgtrickle.pgt_definitions");
}

void
sources_write(int64 pgt_id, DeltaProgram *program, List *relations)
{
	Oid		  types[] = {INT8OID};
	Datum	  values[] = {Int64GetDatum(pgt_id)};
	ListCell *lc;

	if (SPI_execute_with_args("DELETE FROM pgtrickle.pgt_sources WHERE pgt_id = $1", 1, types,
							  values, NULL, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not delete from pgtrickle.pgt_sources");
	foreach(lc, program->sources)
	{
		ProgramSource *source = lfirst(lc);

		write_one(pgt_id, source->relid, source->source_type, source->used_attnos);
	}

	write_functions(pgt_id, program->functions);

	/* Views have no changes of their own, but changing their definition changes the rows. */
	foreach(lc, relations)
	{
		if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_VIEW)
			write_one(pgt_id, lfirst_oid(lc), "VIEW", NULL);
	}
}

void
sources_announce(DeltaProgram *program)
{
	StringInfoData payload;
	ListCell	  *lc;
	const char	  *separator = " ";

	if (program->sources == NIL)
		return;
	initStringInfo(&payload);
	appendStringInfo(&payload, "interest " UINT64_FORMAT,
					 U64FromFullTransactionId(GetTopFullTransactionId()));
	foreach(lc, program->sources)
	{
		appendStringInfo(&payload, "%s%u", separator, ((ProgramSource *) lfirst(lc))->relid);
		separator = ",";
	}
	(void) wal_message_emit(payload.data, false, false);
}

/*
 * pgtrickle.rebind_sources(pgt_id bigint) returns void
 *
 * Compiles the query of a stream table again, announces what it reads now and writes that into the catalog.  An error when the query
 * does not compile any more.  Runs with the rights of the extension's owner, but for the query.
 */
Datum
pgtrickle_rebind_sources(PG_FUNCTION_ARGS)
{
	int64		 pgt_id = PG_GETARG_INT64(0);
	LoadedTable *table;
	OwnerScope	 scope;
	List		*relations;

	SPI_connect();
	table = table_load(pgt_id);
	if (table != NULL)
	{
		owner_scope_enter(&scope, table);
		relations = sources_relations(table->defining_query);
		owner_scope_leave(&scope);
		sources_announce(table->program);
		sources_write(pgt_id, table->program, relations);
	}
	SPI_finish();
	PG_RETURN_VOID();
}
