/*
 * delta/load.c
 *     The session's cache of stream tables: definition, compiled program, locators, prepared statements.
 *
 * Compiling takes a millisecond, a refresh less, so a session that refreshes keeps what it compiled.  An entry is dropped when the
 * server sends an invalidation for the stream table, one of the relations its query reads (views included), or the extension's
 * catalog of definitions, which every create, alter and drop invalidates on purpose.  Rights of the owner are checked when the query is
 * compiled, so what changes them invalidates, too.
 *
 * That holds only if an entry is never older than the invalidations that were taken in before it was made.  So the catalog is read by a
 * snapshot of this moment, as the server's own catalogs are, and not by that of the tick: an entry made by an old snapshot would count
 * as current from then on, without what was committed between snapshot and load.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "privileged.h"
#include "query.h"
#include "run.h"
#include "run_owner.h"
#include "source_rights.h"
#include "sources.h"
#include "state_tables.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/rel.h"
#include "utils/syscache.h"

typedef struct CacheEntry
{
	int64		pgt_id;
	LoadedTable *table;			/* NULL: not loaded */
	List	   *relids;			/* oid list: an invalidation of any of these drops the entry */
} CacheEntry;

static HTAB *cache = NULL;
static List *dropped = NIL;		/* of LoadedTable: out of the cache, to be freed when the transaction ends */
static Oid	definitions_relid = InvalidOid;

static void
relation_invalidated(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	CacheEntry *entry;

	hash_seq_init(&status, cache);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		/* may come while the entry is in use: only mark it */
		if (entry->table != NULL &&
			(relid == InvalidOid || relid == definitions_relid || list_member_oid(entry->relids, relid)))
			entry->table->valid = false;
	}
}

static void
free_table(LoadedTable *table)
{
	HASH_SEQ_STATUS status;
	PlanEntry  *plan;

	if (table->plans != NULL)
	{
		hash_seq_init(&status, table->plans);
		while ((plan = hash_seq_search(&status)) != NULL)
			SPI_freeplan(plan->plan);
	}
	MemoryContextDelete(table->context);
}

static void
free_dropped(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT)
		return;
	while (dropped != NIL)
	{
		LoadedTable *table = linitial(dropped);

		dropped = list_delete_first(dropped);
		free_table(table);
	}
}

/* Who is a member of which role, or may use a schema: then any owner may have lost a right. */
static void
rights_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	relation_invalidated(arg, InvalidOid);
}

static void
create_cache(void)
{
	HASHCTL		control = {0};

	control.keysize = sizeof(int64);
	control.entrysize = sizeof(CacheEntry);
	control.hcxt = CacheMemoryContext;
	cache = hash_create("pgtrickle stream tables", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	CacheRegisterRelcacheCallback(relation_invalidated, (Datum) 0);
	RegisterXactCallback(free_dropped, NULL);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, rights_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, rights_changed, (Datum) 0);
}

/* ---- reading the catalog ---- */

static char *
column_text(HeapTuple row, int column)
{
	return SPI_getvalue(row, SPI_tuptable->tupdesc, column);
}

static Oid
column_oid(HeapTuple row, int column)
{
	char	   *text = column_text(row, column);

	return text ? atooid(text) : InvalidOid;
}

static double
column_double(HeapTuple row, int column)
{
	char	   *text = column_text(row, column);

	return text ? atof(text) : 0;
}

static const char *const definition_sql =
	"SELECT d.relid::oid, c.relowner, n.nspname, c.relname, d.defining_query, d.query_fingerprint,"
	" d.effective_refresh_mode IN ('DIFFERENTIAL', 'IMMEDIATE'), f.is_populated, d.key_index, d.key_is_row_hash,"
	" array_to_string(d.key_attnos, ' '),"
	" (SELECT string_agg(s.key || E'\\x01' || s.value, E'\\x02') FROM jsonb_each_text(d.settings) s),"
	" (SELECT string_agg(o.pgt_id::text, ' ') FROM pgtrickle.pgt_sources o WHERE o.source_relid = d.relid),"
	" d.clock_reason, d.refresh_mode = 'AUTO', f.delta_cost_factor, f.full_cost_factor,"
	" pg_catalog.pg_snapshot_xmin(f.snapshot), d.effective_refresh_mode = 'IMMEDIATE',"
	" d.options OPERATOR(pg_catalog.?) 'retain_history'"
	" FROM pgtrickle.pgt_definitions d"
	" JOIN pgtrickle.pgt_frontiers f USING (pgt_id)"
	" JOIN pg_catalog.pg_class c ON c.oid = d.relid"
	" JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
	" WHERE d.pgt_id = $1";

static List *
parse_settings(char *text)
{
	List	   *settings = NIL;
	char	   *save = NULL;

	if (text == NULL)
		return NIL;
	for (char *pair = strtok_r(text, "\002", &save); pair; pair = strtok_r(NULL, "\002", &save))
	{
		char	   *separator = strchr(pair, '\001');
		PinnedSetting *setting;

		if (separator == NULL)
			continue;
		*separator = '\0';
		setting = palloc0(sizeof(PinnedSetting));
		setting->name = pstrdup(pair);
		setting->value = pstrdup(separator + 1);
		settings = lappend(settings, setting);
	}
	return settings;
}

static void
parse_key_attnos(RowLocator *locator, char *text)
{
	char	   *save = NULL;

	locator->key_attnos = palloc(sizeof(AttrNumber) * INDEX_MAX_KEYS);
	for (char *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save))
		locator->key_attnos[locator->nkeys++] = (AttrNumber) atoi(word);
}

static List *
parse_ids(char *text)
{
	List	   *ids = NIL;
	char	   *save = NULL;

	if (text == NULL)
		return NIL;
	for (char *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save))
	{
		int64	   *id = palloc(sizeof(int64));

		*id = strtoll(word, NULL, 10);
		ids = lappend(ids, id);
	}
	return ids;
}

static LoadedTable *
read_definition(int64 pgt_id, MemoryContext context)
{
	Oid			argtypes[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(pgt_id)};
	LoadedTable *table;
	MemoryContext oldcontext;
	HeapTuple	row;
	char	   *flag;

	if (SPI_execute_with_args(definition_sql, 1, argtypes, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the definition of stream table " INT64_FORMAT, pgt_id);
	if (SPI_processed == 0)
		return NULL;
	row = SPI_tuptable->vals[0];
	oldcontext = MemoryContextSwitchTo(context);
	table = palloc0(sizeof(LoadedTable));
	table->context = context;
	table->pgt_id = pgt_id;
	table->relid = column_oid(row, 1);
	table->owner = column_oid(row, 2);
	table->schema_name = column_text(row, 3);
	table->relation_name = column_text(row, 4);
	table->qualified_name = pstrdup(quote_qualified_identifier(table->schema_name, table->relation_name));
	table->defining_query = column_text(row, 5);
	table->stored_fingerprint = column_text(row, 6);
	table->wants_delta = strcmp(column_text(row, 7), "t") == 0;
	flag = column_text(row, 8);
	table->is_populated = strcmp(flag, "t") == 0;
	table->locator.index_oid = column_oid(row, 9);
	table->locator.by_row_hash = strcmp(column_text(row, 10), "t") == 0;
	parse_key_attnos(&table->locator, column_text(row, 11));
	table->settings = parse_settings(column_text(row, 12));
	table->consumer_ids = parse_ids(column_text(row, 13));
	table->stored_clock_reason = column_text(row, 14);
	table->is_auto = strcmp(column_text(row, 15), "t") == 0;
	cost_model_init(&table->cost, column_double(row, 16), column_double(row, 17), context);
	if (column_text(row, 18) != NULL)
		table->frontier_xmin = (TransactionId) strtoull(column_text(row, 18), NULL, 10);
	table->is_immediate = strcmp(column_text(row, 19), "t") == 0;
	table->retains_history = strcmp(column_text(row, 20), "t") == 0;
	MemoryContextSwitchTo(oldcontext);
	return table;
}

static void
read_state_tables(LoadedTable *table)
{
	Oid			argtypes[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(table->pgt_id)};
	MemoryContext oldcontext;

	if (SPI_execute_with_args("SELECT relid, key_index FROM pgtrickle.pgt_state_tables WHERE pgt_id = $1"
							  " ORDER BY node_no", 1, argtypes, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the state tables of stream table " INT64_FORMAT, table->pgt_id);
	oldcontext = MemoryContextSwitchTo(table->context);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		table->state_relids = lappend_oid(table->state_relids, column_oid(SPI_tuptable->vals[i], 1));
		table->state_indexes = lappend_oid(table->state_indexes, column_oid(SPI_tuptable->vals[i], 2));
	}
	MemoryContextSwitchTo(oldcontext);
}

LoadedTable *
table_read_definition(int64 pgt_id, MemoryContext context)
{
	LoadedTable *table;

	PushActiveSnapshot(GetLatestSnapshot());
	table = read_definition(pgt_id, context);
	if (table != NULL)
		read_state_tables(table);
	PopActiveSnapshot();
	return table;
}

LoadedTable *
table_definition(int64 pgt_id)
{
	PrivilegedSection section;
	LoadedTable *table;
	MemoryContext context = CurrentMemoryContext;

	privileged_begin(&section);
	table = table_read_definition(pgt_id, context);
	privileged_end(&section);
	if (table == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("stream table with id %lld does not exist", (long long) pgt_id)));
	return table;
}

/* ---- the program ---- */

char *
program_fingerprint(DeltaProgram *program)
{
	StringInfoData text;
	ListCell   *lc;

	initStringInfo(&text);
	appendStringInfo(&text, "%s\n%s\n", program->defining_query,
					 program->full_reason ? "full" : program->new_sql);
	foreach(lc, program->states)
	{
		ProgramState *state = lfirst(lc);
		ListCell   *column_cell;

		appendStringInfo(&text, "%s\n", state->fill_sql);
		foreach(column_cell, state->columns)
		{
			StateColumn *column = lfirst(column_cell);

			appendStringInfo(&text, "%s %u %d %u\n", column->name, column->type, column->typmod, column->collation);
		}
	}
	return psprintf("%016lx", (unsigned long) hash_bytes_extended((unsigned char *) text.data, text.len, 0));
}

/*
 * A source that came back with other types gives the query other columns.  The table cannot take those rows: say so, in place of
 * whatever would fail first.
 */
static void
check_columns(LoadedTable *table)
{
	Relation	relation = table_open(table->relid, AccessShareLock);
	TupleDesc	have = RelationGetDescr(relation);
	TupleDesc	want = table->program->tupdesc;

	for (int i = 0; i < Max(have->natts, want->natts); i++)
	{
		if (i < have->natts && i < want->natts &&
			TupleDescAttr(have, i)->atttypid == TupleDescAttr(want, i)->atttypid)
			continue;
		/* all in the message: it is what the applier keeps of a failure */
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 i < have->natts && i < want->natts
				 ? errmsg("column \"%s\" of stream table \"%s\" is of type %s, but its query now gives %s",
						  NameStr(TupleDescAttr(have, i)->attname), table->qualified_name,
						  format_type_be(TupleDescAttr(have, i)->atttypid), format_type_be(TupleDescAttr(want, i)->atttypid))
				 : errmsg("stream table \"%s\" has %d columns, but its query now gives %d",
						  table->qualified_name, have->natts, want->natts),
				 errhint("Change the source back, or drop the stream table and create it again.")));
	}
	table_close(relation, NoLock);
}

static void
compile_table(LoadedTable *table, CacheEntry *entry)
{
	OwnerScope	scope;
	MemoryContext oldcontext;
	HASHCTL		control = {0};
	List	   *relids;
	List	   *rights_levels;

	owner_scope_enter(&scope, table);
	/* First what we depend on, so that no invalidation is missed while compiling. */
	relids = sources_relations(table->defining_query);
	oldcontext = MemoryContextSwitchTo(CacheMemoryContext);
	entry->relids = lappend_oid(list_copy(relids), table->relid);
	MemoryContextSwitchTo(oldcontext);
	rights_levels = source_rights_levels(table->defining_query);
	source_rights_check(rights_levels);
	table->program = program_compile(table->defining_query, table->context);
	oldcontext = MemoryContextSwitchTo(table->context);
	table->rights_levels = copyObject(rights_levels);
	MemoryContextSwitchTo(oldcontext);
	owner_scope_leave(&scope);
	if (!table->wants_delta)
		program_refresh_in_full(table->program, "refresh mode is FULL");
	check_columns(table);

	table->step_runs = MemoryContextAllocZero(table->context, sizeof(StepRun) * Max(list_length(table->program->steps), 1));
	control.keysize = sizeof(PlanKey);
	control.entrysize = sizeof(PlanEntry);
	control.hcxt = table->context;
	table->plans = hash_create("delta program plans", 32, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/*
 * Somebody further up may be at work with it: a tick holds what it has loaded until its end.  So it is freed with the transaction.
 */
static void
drop_entry(CacheEntry *entry)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(CacheMemoryContext);

	dropped = lappend(dropped, entry->table);
	MemoryContextSwitchTo(oldcontext);
	list_free(entry->relids);
	entry->relids = NIL;
	entry->table = NULL;
}

/*
 * A source changed in a way that gives the states other columns or another meaning (a grouped column's type, a view behind the
 * query).  Their rows are worth nothing then: new tables, which the full refresh that must follow fills.
 */
LoadedTable *
table_rebuild_states(LoadedTable *table)
{
	int64		pgt_id = table->pgt_id;
	Oid			types[2] = {INT8OID, TEXTOID};
	Datum		values[2];

	values[0] = Int64GetDatum(pgt_id);
	values[1] = CStringGetTextDatum(program_fingerprint(table->program));
	state_tables_drop(pgt_id);
	state_tables_create(table->program, pgt_id, table->owner);
	state_tables_create_indexes(table->program, pgt_id);
	if (SPI_execute_with_args("UPDATE pgtrickle.pgt_definitions SET query_fingerprint = $2 WHERE pgt_id = $1",
							  2, types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not update pgtrickle.pgt_definitions");
	table->valid = false;
	/* should the tick fail, what is loaded now names tables that have never been: an abort takes its invalidations in, too */
	CacheInvalidateRelcacheByRelid(table->relid);
	CommandCounterIncrement();
	return table_load(pgt_id);
}

bool
table_states_fit(LoadedTable *table)
{
	return strcmp(program_fingerprint(table->program), table->stored_fingerprint) == 0;
}

/*
 * What does not fit together because somebody has just changed it, between our reading the definition at the snapshot of a tick and our getting a
 * lock, is no failure: a tick with a new snapshot sees all of it.
 */
static void
throw_if_overtaken(const char *name)
{
	int			sqlstate = geterrcode();

	if (!IsolationUsesXactSnapshot() || ERRCODE_TO_CATEGORY(sqlstate) != ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION)
		return;
	FlushErrorState();
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("stream table \"%s\" or what it reads has just been changed", name)));
}

LoadedTable *
table_find_loaded(int64 pgt_id)
{
	CacheEntry *entry = cache == NULL ? NULL : hash_search(cache, &pgt_id, HASH_FIND, NULL);

	return entry != NULL && entry->table != NULL && entry->table->valid ? entry->table : NULL;
}

LoadedTable *
table_load(int64 pgt_id)
{
	CacheEntry *entry;
	bool		found;
	MemoryContext context;
	LoadedTable *volatile table;

	if (cache == NULL)
		create_cache();
	if (!OidIsValid(definitions_relid))
		definitions_relid = get_relname_relid("pgt_definitions", get_namespace_oid("pgtrickle", false));
	entry = hash_search(cache, &pgt_id, HASH_ENTER, &found);
	if (!found)
	{
		entry->table = NULL;
		entry->relids = NIL;
	}
	if (entry->table != NULL && entry->table->valid)
		return entry->table;
	if (entry->table != NULL)
		drop_entry(entry);

	context = AllocSetContextCreate(CacheMemoryContext, "stream table", ALLOCSET_SMALL_SIZES);
	table = table_read_definition(pgt_id, context);
	if (table == NULL)
	{
		MemoryContextDelete(context);
		return NULL;
	}
	/* Whatever arrives from now on, while we compile, must drop the entry again. */
	table->valid = true;
	entry->table = table;
	PG_TRY();
	{
		compile_table(table, entry);
		table->sources_bound = sources_are_bound(pgt_id, table->program);
	}
	PG_CATCH();
	{
		bool		overtaken = !table->valid;
		char	   *name = table->qualified_name;

		if (entry->table == table)
			drop_entry(entry);
		if (overtaken)
			throw_if_overtaken(name);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return table;
}
