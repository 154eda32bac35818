/*
 * delta/verify.c
 *     Compares a stream table with its defining query, inside the tick that refreshed it.
 *
 * Only there are both at the same snapshot: the sources as the tick sees them, and the stream table as it has just become.  The query is
 * expanded down to the sources first, upstream stream tables included, so nothing that was maintained is taken on trust.  Except those of which
 * the owner may see a part only (row-level security): what they show is not what their queries give, so they are read as they are.
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "privileged.h"
#include "program.h"
#include "query.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "verify.h"

#define DIFFERENCES_MAX 100		/* rows that are stored as examples */

/* ---- expansion ---- */

/* The catalog is the extension's, but the query is analysed with its owner's rights: literals can run code of users. */
static char *
definition_of(Oid relid)
{
	Oid			types[1] = {OIDOID};
	Datum		values[1] = {ObjectIdGetDatum(relid)};
	char	   *definition = NULL;
	MemoryContext caller_context = CurrentMemoryContext;
	PrivilegedSection section;

	privileged_begin(&section);
	if (SPI_execute_with_args("SELECT defining_query FROM pgtrickle.pgt_definitions WHERE relid = $1",
							  1, types, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read pgtrickle.pgt_definitions");
	if (SPI_processed > 0)
		definition = MemoryContextStrdup(caller_context,
										 SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	privileged_end(&section);
	return definition;
}

static bool
expand_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, expand_walker, context, QTW_EXAMINE_RTES_BEFORE);
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;
		char	   *definition;

		if (rte->rtekind != RTE_RELATION || (definition = definition_of(rte->relid)) == NULL)
			return false;
		if (check_enable_rls(rte->relid, InvalidOid, true) == RLS_ENABLED)
			return false;
		rte->rtekind = RTE_SUBQUERY;
		rte->subquery = query_analyze_to_run(definition);
		rte->relid = InvalidOid;
		rte->relkind = 0;
		rte->rellockmode = 0;
		rte->inh = false;
		if (rte->alias == NULL)
			rte->alias = makeAlias(rte->eref->aliasname, NIL);
		/* the stream table's own column names may have been changed since */
		rte->alias->colnames = copyObject(rte->eref->colnames);
		return false;			/* the walker goes on into the subquery */
	}
	return expression_tree_walker(node, expand_walker, context);
}

char *
query_expand_stream_tables(const char *query_text)
{
	Query	   *query = query_analyze_to_run(query_text);

	(void) expand_walker((Node *) query, NULL);
	return query_print(query);
}

/* ---- storing ---- */

static const char *const store_sql =
	"INSERT INTO pgtrickle.pgt_verifications (nonce, pgt_id, snapshot, row_count, difference_count, differences)"
	" SELECT $1, $2, pg_catalog.pg_current_snapshot(), $3, $4, COALESCE((SELECT pg_catalog.jsonb_agg("
	"pg_catalog.jsonb_build_object('kind', CASE WHEN d.__w > 0 THEN 'missing' ELSE 'surplus' END,"
	" 'copies', pg_catalog.abs(d.__w), 'row', pg_catalog.to_jsonb(d) - '__w'))"
	" FROM (SELECT * FROM __pgt_difference LIMIT $5) d), '[]')"
	" ON CONFLICT (nonce, pgt_id) DO NOTHING";

void
verify_store(LoadedTable *table, const char *nonce)
{
	int64		row_count;
	Rowset	   *difference = table_compare(table, &row_count);
	Oid			types[5] = {TEXTOID, INT8OID, INT8OID, INT8OID, INT4OID};
	Datum		values[5];

	values[0] = CStringGetTextDatum(nonce);
	values[1] = Int64GetDatum(table->pgt_id);
	values[2] = Int64GetDatum(row_count);
	values[3] = Int64GetDatum(difference->row_count);
	values[4] = Int32GetDatum(DIFFERENCES_MAX);
	rowset_register(difference);
	if (SPI_execute_with_args(store_sql, 5, types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not store a verification");
	rowset_unregister(difference);
	rowset_free(difference);
	UpdateActiveSnapshotCommandId();
}
