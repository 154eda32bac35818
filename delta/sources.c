/*
 * delta/sources.c
 *     What a stream table reads: rows of pgt_sources, functions, and the `interest` message.
 *
 * Written when a stream table is created, and again when DDL has given another meaning to one of the names in its
 * query (sql/45_ddl_events.sql): sources are bound by name, and whoever asks the catalog or the applier wants the
 * relations that the names mean now.
 *
 * In the transaction of DDL this must not get into the way of others.  Compiling a query locks all that it reads, also tables that
 * somebody else is about to replace; so it is given up when a lock cannot be had at once, and what it has locked is let go.  Then the tick
 * finds that the program reads what the catalog does not name, and binds the stream table itself (tick.c).
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "optimizer/optimizer.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "query.h"
#include "run.h"
#include "run_owner.h"
#include "sources.h"
#include "wal_message.h"

#define DDL_LOCK_TIMEOUT "100ms" /* how long somebody's DDL may wait for what lock_at_once() does not know of */

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

/* Whose rights count in a view, and whether its conditions are a barrier: reloptions has security_barrier and security_invoker. */
static void
append_view(StringInfo text, Oid relid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Datum	  options;
	bool	  isnull;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	options = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_reloptions, &isnull);
	appendStringInfo(text, "\n%s.%s owner %u", get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid),
					 ((Form_pg_class) GETSTRUCT(tuple))->relowner);
	if (!isnull)
		appendStringInfo(text, " %s", OidOutputFunctionCall(F_ARRAY_OUT, options));
	ReleaseSysCache(tuple);
}

/*
 * Views by name and contents: dbt makes one anew on every run, and puts it in the place of the old one.  All else by OID, since the rows of another
 * table are others.
 */
char *
sources_meaning(const char *defining_query, DeltaProgram *program, List *relations)
{
	StringInfoData text;
	List		  *oids = list_copy(program->functions);
	ListCell	  *lc;

	initStringInfo(&text);
	appendStringInfoString(&text, query_print(query_analyze_and_expand(defining_query, NULL)));
	foreach(lc, relations)
	{
		if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_VIEW)
			append_view(&text, lfirst_oid(lc));
		else
			oids = lappend_oid(oids, lfirst_oid(lc));
	}
	list_sort(oids, list_oid_cmp);
	foreach(lc, oids)
		appendStringInfo(&text, "\n%u", lfirst_oid(lc));
	return psprintf("%016lx", (unsigned long) hash_bytes_extended((unsigned char *) text.data, text.len, 0));
}

static const char *const insert_sql =
	"INSERT INTO pgtrickle.pgt_sources AS s"
	" (pgt_id, source_relid, source_schema, source_name, source_type, columns_used)"
	" SELECT $1, c.oid, n.nspname, c.relname,"
	"  CASE WHEN EXISTS (SELECT FROM pgtrickle.pgt_definitions d WHERE d.relid = c.oid)"
	"   THEN 'STREAM_TABLE' ELSE $3 END,"
	"  ARRAY(SELECT a.attname FROM pg_catalog.pg_attribute a"
	"   WHERE a.attrelid = c.oid AND a.attnum = ANY ($4) ORDER BY a.attnum)"
	" FROM pg_catalog.pg_class c"
	" JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
	" WHERE c.oid = $2"
	" ON CONFLICT (pgt_id, source_relid) DO UPDATE SET source_schema = excluded.source_schema, source_name = excluded.source_name,"
	"  source_type = excluded.source_type, columns_used = excluded.columns_used"
	"  WHERE (s.source_schema, s.source_name, s.source_type, s.columns_used)"
	"   IS DISTINCT FROM (excluded.source_schema, excluded.source_name, excluded.source_type, excluded.columns_used)";

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

static ArrayType *
oid_array(List *oids)
{
	Datum	 *elements = palloc(sizeof(Datum) * Max(list_length(oids), 1));
	ListCell *lc;

	foreach(lc, oids)
		elements[foreach_current_index(lc)] = ObjectIdGetDatum(lfirst_oid(lc));
	return construct_array(elements, list_length(oids), OIDOID, sizeof(Oid), true, TYPALIGN_INT);
}

static bool
write_meaning(int64 pgt_id, List *functions, const char *meaning)
{
	Oid	  types[] = {INT8OID, OIDARRAYOID, TEXTOID};
	Datum values[3];

	values[0] = Int64GetDatum(pgt_id);
	values[1] = PointerGetDatum(oid_array(functions));
	values[2] = CStringGetTextDatum(meaning);
	if (SPI_execute_with_args("UPDATE pgtrickle.pgt_definitions SET functions_used = $2, meaning = $3"
							  " WHERE pgt_id = $1 AND (functions_used <> $2 OR meaning IS DISTINCT FROM $3)",
							  3, types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not update pgtrickle.pgt_definitions");
	return SPI_processed > 0;
}

static List *
source_relids(DeltaProgram *program)
{
	List	 *relids = NIL;
	ListCell *lc;

	foreach(lc, program->sources)
		relids = lappend_oid(relids, ((ProgramSource *) lfirst(lc))->relid);
	return relids;
}

/* Rows that stay as they are are not touched, so that two who replace different sources do not wait for each other. */
bool
sources_write(int64 pgt_id, DeltaProgram *program, List *relations, const char *meaning)
{
	Oid		  types[] = {INT8OID, OIDARRAYOID};
	Datum	  values[2];
	List	 *relids = source_relids(program);
	List	 *views = NIL;
	ListCell *lc;

	/* Views have no changes of their own, but changing their definition changes the rows. */
	foreach(lc, relations)
	{
		if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_VIEW)
			views = lappend_oid(views, lfirst_oid(lc));
	}
	values[0] = Int64GetDatum(pgt_id);
	values[1] = PointerGetDatum(oid_array(list_concat_copy(relids, views)));
	if (SPI_execute_with_args("DELETE FROM pgtrickle.pgt_sources WHERE pgt_id = $1 AND source_relid <> ALL ($2)",
							  2, types, values, NULL, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not delete from pgtrickle.pgt_sources");
	foreach(lc, program->sources)
	{
		ProgramSource *source = lfirst(lc);

		write_one(pgt_id, source->relid, source->source_type, source->used_attnos);
	}
	foreach(lc, views)
		write_one(pgt_id, lfirst_oid(lc), "VIEW", NULL);
	return write_meaning(pgt_id, program->functions, meaning);
}

/* Functions have other OIDs after pg_upgrade.  By a snapshot of this moment: the tick's may be older than the names that the program was compiled with. */
bool
sources_are_bound(int64 pgt_id, DeltaProgram *program)
{
	Oid	  types[] = {INT8OID, OIDARRAYOID, OIDARRAYOID};
	Datum values[3];
	bool  bound;

	values[0] = Int64GetDatum(pgt_id);
	values[1] = PointerGetDatum(oid_array(source_relids(program)));
	values[2] = PointerGetDatum(oid_array(program->functions));
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args("SELECT FROM unnest($2) r WHERE NOT EXISTS ("
							  "SELECT FROM pgtrickle.pgt_sources s WHERE s.pgt_id = $1 AND s.source_relid = r)"
							  " UNION ALL SELECT FROM pgtrickle.pgt_definitions d"
							  " WHERE d.pgt_id = $1 AND NOT (d.functions_used @> $3 AND d.functions_used <@ $3)",
							  3, types, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read pgtrickle.pgt_sources");
	bound = SPI_processed == 0;
	PopActiveSnapshot();
	return bound;
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

/* Reads the query anew; the relations that it names, and what it means.  With the owner's rights. */
static List *
relations_of(LoadedTable *table, char **meaning)
{
	OwnerScope scope;
	List	  *relations;

	owner_scope_enter(&scope, table);
	relations = sources_relations(table->defining_query);
	*meaning = sources_meaning(table->defining_query, table->program, relations);
	owner_scope_leave(&scope);
	return relations;
}

void
sources_bind(LoadedTable *table)
{
	char *meaning;
	List *relations = relations_of(table, &meaning);

	sources_announce(table->program);
	(void) sources_write(table->pgt_id, table->program, relations, meaning);
	table->sources_bound = true;
}

static void
lock_at_once(int64 pgt_id)
{
	Oid	  types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(pgt_id)};

	if (SPI_execute_with_args(
			"SELECT pg_catalog.to_regclass(pg_catalog.format('%I.%I', s.source_schema, s.source_name))::oid"
			" FROM pgtrickle.pgt_sources s WHERE s.pgt_id = $1",
			1, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read pgtrickle.pgt_sources");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool isnull;
		Oid	 relid = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));

		if (!isnull && !ConditionalLockRelationOid(relid, AccessShareLock))
			ereport(ERROR, (errcode(ERRCODE_LOCK_NOT_AVAILABLE),
							errmsg("could not lock source %u", relid)));
	}
}

/*
 * Compiles, and lets go of the locks that this takes, by way of a subtransaction that is rolled back.  NULL: there is no such stream
 * table.
 */
static LoadedTable *
load_without_locks(int64 pgt_id, List **relations, char **meaning)
{
	MemoryContext		  context = CurrentMemoryContext;
	ResourceOwner		  owner = CurrentResourceOwner;
	LoadedTable *volatile table = NULL;
	List *volatile		  found = NIL;
	char *volatile		  found_meaning = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		lock_at_once(pgt_id);
		table = table_load(pgt_id);
		if (table != NULL)
		{
			char *text;

			found = relations_of(table, &text);
			MemoryContextSwitchTo(context);
			found = list_copy(found);
			found_meaning = pstrdup(text);
		}
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		ReThrowError(error);
	}
	PG_END_TRY();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	*relations = found;
	*meaning = found_meaning;
	return table;
}

/*
 * pgtrickle.rebind_sources(pgt_id bigint) returns boolean
 *
 * Compiles the query of a stream table again, announces what it reads now and writes that into the catalog.  False: it means what it meant
 * before, so the rows stay right.  An error when the query does not compile any more, or when a lock cannot be had.  Runs with the rights of
 * the extension's owner, but for the query.
 */
Datum
pgtrickle_rebind_sources(PG_FUNCTION_ARGS)
{
	int64		 pgt_id = PG_GETARG_INT64(0);
	int			 nest_level = NewGUCNestLevel();
	bool		 means_else = true;
	LoadedTable *table;
	List		*relations;
	char		*meaning;

	SPI_connect();
	(void) set_config_option("lock_timeout", DDL_LOCK_TIMEOUT, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
							 false);
	table = load_without_locks(pgt_id, &relations, &meaning);
	if (table != NULL)
	{
		means_else = sources_write(pgt_id, table->program, relations, meaning);
		if (means_else)
			sources_announce(table->program);
		table->sources_bound = true;
	}
	AtEOXact_GUC(false, nest_level);
	SPI_finish();
	PG_RETURN_BOOL(means_else);
}
