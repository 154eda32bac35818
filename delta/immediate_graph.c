/*
 * delta/immediate_graph.c
 *     The session's knowledge of IMMEDIATE stream tables.
 *
 * Every statement on a source asks, so the answers are kept, until the definitions of stream tables change, or (for what a table is a
 * partition of) the table does.  What the catalog says is read at the latest snapshot, whatever the transaction's own one is: a stream table
 * that was created since then has its triggers, and counts.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "executor/spi.h"
#include "immediate_graph.h"
#include "privileged.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

/* What immediate_sources_of() has found out about one table. */
typedef struct RelatedEntry
{
	Oid			relid;
	List	   *sources;
} RelatedEntry;

typedef struct Graph
{
	MemoryContext context;
	List	   *tables;			/* of ImmediateTable */
	HTAB	   *related;		/* of RelatedEntry */
} Graph;

static Graph *graph = NULL;
static bool graph_is_valid = false;
static bool callback_is_registered = false;
static Oid	definitions_relid = InvalidOid;

static void
relation_invalidated(Datum arg, Oid relid)
{
	/* what a table is a part of is asked for rarely enough to forget all of it */
	if (relid == InvalidOid || relid == definitions_relid ||
		(graph != NULL && hash_search(graph->related, &relid, HASH_FIND, NULL) != NULL))
		graph_is_valid = false;
}

static const char *const tables_sql =
	"WITH RECURSIVE immediate AS ("
	"  SELECT pgt_id, relid, status FROM pgtrickle.pgt_definitions WHERE effective_refresh_mode = 'IMMEDIATE'"
	"), edges AS ("
	"  SELECT s.pgt_id AS consumer, u.pgt_id AS upstream"
	"  FROM pgtrickle.pgt_sources s JOIN immediate u ON u.relid = s.source_relid JOIN immediate c ON c.pgt_id = s.pgt_id"
	"), depths (pgt_id, depth) AS ("
	"  SELECT pgt_id, 0 FROM immediate"
	"  UNION"
	"  SELECT e.consumer, d.depth + 1 FROM depths d JOIN edges e ON e.upstream = d.pgt_id"
	") SELECT i.pgt_id, i.relid::oid, i.status = 'ACTIVE',"
	"  (SELECT string_agg(s.source_relid::text, ' ') FROM pgtrickle.pgt_sources s"
	"   WHERE s.pgt_id = i.pgt_id AND s.source_type <> 'VIEW')"
	" FROM immediate i ORDER BY (SELECT max(d.depth) FROM depths d WHERE d.pgt_id = i.pgt_id), i.pgt_id";

static List *
parse_oids(char *text)
{
	List	   *oids = NIL;
	char	   *save = NULL;

	if (text == NULL)
		return NIL;
	for (char *word = strtok_r(text, " ", &save); word != NULL; word = strtok_r(NULL, " ", &save))
		oids = lappend_oid(oids, atooid(word));
	return oids;
}

static void
read_tables(Graph *into)
{
	if (SPI_execute(tables_sql, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the definitions of stream tables");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	tupdesc = SPI_tuptable->tupdesc;
		MemoryContext oldcontext;
		ImmediateTable *table;
		char	   *sources = SPI_getvalue(row, tupdesc, 4);

		oldcontext = MemoryContextSwitchTo(into->context);
		table = palloc0(sizeof(ImmediateTable));
		table->pgt_id = strtoll(SPI_getvalue(row, tupdesc, 1), NULL, 10);
		table->relid = atooid(SPI_getvalue(row, tupdesc, 2));
		table->is_active = strcmp(SPI_getvalue(row, tupdesc, 3), "t") == 0;
		table->source_relids = parse_oids(sources);
		into->tables = lappend(into->tables, table);
		MemoryContextSwitchTo(oldcontext);
	}
}

static Graph *
read_graph(void)
{
	MemoryContext context = AllocSetContextCreate(CacheMemoryContext, "IMMEDIATE stream tables", ALLOCSET_SMALL_SIZES);
	Graph	   *made = MemoryContextAllocZero(context, sizeof(Graph));
	HASHCTL		control = {0};
	PrivilegedSection section;

	made->context = context;
	control.keysize = sizeof(Oid);
	control.entrysize = sizeof(RelatedEntry);
	control.hcxt = context;
	made->related = hash_create("sources of IMMEDIATE stream tables", 16, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	privileged_begin(&section);
	PushActiveSnapshot(GetLatestSnapshot());
	read_tables(made);
	PopActiveSnapshot();
	privileged_end(&section);
	return made;
}

/* The graph, read anew if something has changed. */
static void
refresh_graph(void)
{
	if (!callback_is_registered)
	{
		CacheRegisterRelcacheCallback(relation_invalidated, (Datum) 0);
		callback_is_registered = true;
	}
	while (graph == NULL || !graph_is_valid)
	{
		Graph	   *old = graph;

		/* anew each time: the extension may have been dropped and created again */
		definitions_relid = get_relname_relid("pgt_definitions", get_namespace_oid("pgtrickle", false));
		graph_is_valid = true;	/* an invalidation that comes while we read counts */
		graph = NULL;
		if (old != NULL)
			MemoryContextDelete(old->context);
		graph = read_graph();
	}
}

List *
immediate_tables(void)
{
	refresh_graph();
	return graph->tables;
}

ImmediateTable *
immediate_table(int64 pgt_id)
{
	ListCell   *lc;

	foreach(lc, immediate_tables())
	{
		if (((ImmediateTable *) lfirst(lc))->pgt_id == pgt_id)
			return lfirst(lc);
	}
	return NULL;
}

static const char *const ancestors_sql =
	"WITH RECURSIVE family (relid) AS ("
	"  SELECT $1"
	"  UNION"
	"  SELECT i.inhparent FROM family f JOIN pg_catalog.pg_inherits i ON i.inhrelid = f.relid"
	") SELECT string_agg(f.relid::text, ' ') FROM family f"
	" WHERE EXISTS (SELECT FROM pgtrickle.pgt_sources s JOIN pgtrickle.pgt_definitions d USING (pgt_id)"
	"  WHERE s.source_relid = f.relid AND d.effective_refresh_mode = 'IMMEDIATE')";

static List *
read_sources_of(Oid relid)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(relid)};
	PrivilegedSection section;
	List	   *sources;
	MemoryContext oldcontext;

	privileged_begin(&section);
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute_with_args(ancestors_sql, 1, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the sources of stream tables");
	oldcontext = MemoryContextSwitchTo(graph->context);
	sources = parse_oids(SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	MemoryContextSwitchTo(oldcontext);
	PopActiveSnapshot();
	privileged_end(&section);
	return sources;
}

List *
immediate_sources_of(Oid relid)
{
	RelatedEntry *entry;
	List	   *sources;

	refresh_graph();
	entry = hash_search(graph->related, &relid, HASH_FIND, NULL);
	if (entry != NULL)
		return entry->sources;
	sources = read_sources_of(relid);
	entry = hash_search(graph->related, &relid, HASH_ENTER, NULL);
	entry->sources = sources;
	return sources;
}

LoadedTable *
immediate_load(int64 pgt_id)
{
	LoadedTable *table = table_find_loaded(pgt_id);
	PrivilegedSection section;

	if (table != NULL)
		return table;
	privileged_begin(&section);
	PushActiveSnapshot(GetLatestSnapshot());
	table = table_load(pgt_id);
	PopActiveSnapshot();
	privileged_end(&section);
	return table;
}
