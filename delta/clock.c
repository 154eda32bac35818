/*
 * delta/clock.c
 *     Which queries answer differently although nothing changed in the WAL.
 *
 * The applier refreshes a stream table when a change of a source has arrived.  That never comes for a query that looks at the moment
 * (now), that calls a function which may read anything, or that reads what is not in the WAL: foreign tables, unlogged tables, system
 * catalogs.  Such a stream table *follows the clock*: its schedule starts a refresh even if nothing has arrived.  The reason
 * is kept in pgt_definitions.clock_reason, and whether a refresh by the clock is a full one or a delta (temporal.c) is for the program
 * to say.
 *
 * Materialized views are not among them: REFRESH MATERIALIZED VIEW is noticed (sql/45_ddl_events.sql).  Nor is what stays the same
 * for the owner of the stream table, current_user for one.
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/catalog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type_d.h"
#include "clock.h"
#include "executor/spi.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "wal_message.h"

/* Names of STABLE functions of pg_catalog whose result depends on more than settings. */
static bool
is_moment_or_session_function(const char *name)
{
	static const char *const names[] = {
		"now", "transaction_timestamp", "statement_timestamp", "clock_timestamp", "timeofday",
		"current_user", "session_user", "user", "current_database", "current_catalog",
		"current_schema", "current_schemas", "current_query", "current_setting", "version",
		"inet_client_addr", "inet_client_port", "inet_server_addr", "inet_server_port", "age",
		"query_to_xml", "table_to_xml", "cursor_to_xml", "schema_to_xml", "database_to_xml",
		"txid_current_snapshot", "txid_current_if_assigned", "txid_status", "txid_visible_in_snapshot",
		"currval", "lastval", "row_security_active", "has_table_privilege", "obj_description",
		"col_description", "shobj_description", "format_type", "ts_rewrite", "ts_stat", NULL
	};

	if (strncmp(name, "pg_", 3) == 0 || strncmp(name, "has_", 4) == 0)
		return true;
	for (int i = 0; names[i] != NULL; i++)
	{
		if (strcmp(name, names[i]) == 0)
			return true;
	}
	return false;
}

char *
clock_function_reason(Oid function)
{
	char	   *name;

	if (func_volatile(function) == PROVOLATILE_IMMUTABLE)
		return NULL;
	name = get_func_name(function);
	if (get_func_namespace(function) != PG_CATALOG_NAMESPACE)
		return psprintf("the function %s() is STABLE, not IMMUTABLE, and may read tables that are not watched", name);
	/* age(a, b) is immutable; only age(a) looks at the clock and gets here */
	if (is_moment_or_session_function(name))
		return psprintf("the result of %s() changes without any change in a source", name);
	return NULL;
}

static bool
check_function(Oid function, void *reason)
{
	return (*(char **) reason = clock_function_reason(function)) != NULL;
}

static char *
relation_reason(RangeTblEntry *rte)
{
	if (rte->relkind == RELKIND_FOREIGN_TABLE)
		return psprintf("source \"%s\" is a foreign table, whose changes are not in the WAL", get_rel_name(rte->relid));
	if (get_rel_persistence(rte->relid) == RELPERSISTENCE_UNLOGGED)
		return psprintf("source \"%s\" is an unlogged table, whose changes are not in the WAL", get_rel_name(rte->relid));
	if (IsCatalogRelationOid(rte->relid) || get_rel_namespace(rte->relid) == PG_CATALOG_NAMESPACE)
		return psprintf("source \"%s\" is a system catalog, whose changes are not decoded", get_rel_name(rte->relid));
	return NULL;
}

static bool
is_date_or_time(SQLValueFunction *function)
{
	return function->op <= SVFOP_LOCALTIMESTAMP_N;
}

/* Stops at the first reason. */
static bool
reason_walker(Node *node, char **reason)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, reason_walker, reason, QTW_EXAMINE_RTES_BEFORE);
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		/* views have been put in place of their names; what is left of them in the range table is read by nobody */
		return rte->rtekind == RTE_RELATION && rte->relkind != RELKIND_VIEW && (*reason = relation_reason(rte)) != NULL;
	}
	if (IsA(node, SQLValueFunction) && is_date_or_time((SQLValueFunction *) node))
	{
		*reason = pstrdup("the current date or time changes without any change in a source");
		return true;
	}
	return check_functions_in_node(node, check_function, reason) || expression_tree_walker(node, reason_walker, reason);
}

char *
clock_query_reason(Query *query)
{
	char	   *reason = NULL;

	(void) reason_walker((Node *) query, &reason);
	return reason;
}

static bool
is_same(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

void
clock_record_reason(LoadedTable *table)
{
	Oid			types[2] = {INT8OID, TEXTOID};
	Datum		values[2];
	char	   *reason = table->program->clock_reason;
	char		nulls[2] = {' ', reason == NULL ? 'n' : ' '};

	if (is_same(reason, table->stored_clock_reason))
		return;
	values[0] = Int64GetDatum(table->pgt_id);
	values[1] = reason == NULL ? (Datum) 0 : CStringGetTextDatum(reason);
	if (SPI_execute_with_args("UPDATE pgtrickle.pgt_definitions SET clock_reason = $2 WHERE pgt_id = $1",
							  2, types, values, nulls, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not update pgtrickle.pgt_definitions");
	(void) wal_message_emit("catalog", true, false);
	/* what was loaded does not fit what is stored any more, or does again after an error: read it anew next time */
	table->valid = false;
}
