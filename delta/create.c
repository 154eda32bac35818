/*
 * delta/create.c
 *     create_stream_table: from a query to a filled table that the applier can follow.
 *
 * All of it happens in the caller's transaction, so a rollback leaves nothing:
 *
 *     compile -> `interest` message -> table, state tables, catalog rows
 *             -> `filled` message, snapshot S0, first fill -> indexes, guard trigger -> frontier = S0 -> replica identities -> `catalog` message
 *
 * The order of the messages is a promise to the applier (docs/explanation/tick.md, section 7): interest goes out before S0 is
 * taken, and whatever this transaction writes to a source after `filled` is not in the fill.  An IMMEDIATE one needs no applier; what others have
 * written since its fill is added at the end, with writers away (immediate_switch.c).
 *
 * The table is made and filled as the caller; catalog rows and state tables are the extension's.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type_d.h"
#include "commands/defrem.h"
#include "create.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "immediate_install.h"
#include "immediate_switch.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "program.h"
#include "replica_identity.h"
#include "run.h"
#include "settings.h"
#include "sources.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/varlena.h"
#include "state_tables.h"
#include "wal_message.h"

PG_FUNCTION_INFO_V1(pgtrickle_create_stream_table);

/* ---- acting as the extension's owner ---- */

typedef struct ExtensionScope
{
	Oid			saved_user;
	int			saved_context;
	int			guc_nest_level;
} ExtensionScope;

static ExtensionScope
extension_scope_enter(void)
{
	ExtensionScope scope;
	HeapTuple	tuple = SearchSysCache1(NAMESPACENAME, CStringGetDatum("pgtrickle"));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "schema \"pgtrickle\" is missing");
	owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);
	GetUserIdAndSecContext(&scope.saved_user, &scope.saved_context);
	SetUserIdAndSecContext(owner, scope.saved_context | SECURITY_LOCAL_USERID_CHANGE);
	/* our statements must not find operators that the caller has put into its search_path */
	scope.guc_nest_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	return scope;
}

static void
extension_scope_leave(ExtensionScope *scope)
{
	AtEOXact_GUC(false, scope->guc_nest_level);
	SetUserIdAndSecContext(scope->saved_user, scope->saved_context);
}

static void
execute(const char *sql)
{
	int			result = SPI_execute(sql, false, 0);

	if (result < 0)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(result));
}

/* ---- checks ---- */

static void
resolve_name(CreateRequest *request, text *name)
{
	RangeVar   *rangevar = makeRangeVarFromNameList(textToQualifiedNameList(name));
	Oid			namespace_oid = RangeVarGetCreationNamespace(rangevar);

	request->schema_name = get_namespace_name(namespace_oid);
	request->relation_name = rangevar->relname;
	request->qualified_name = pstrdup(quote_qualified_identifier(request->schema_name, request->relation_name));
	if (rangevar->relpersistence == RELPERSISTENCE_TEMP || isTempNamespace(namespace_oid))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream tables cannot be temporary"),
				 errhint("Choose an ordinary schema.")));
	if (strcmp(request->schema_name, "pgtrickle") == 0 || strncmp(request->schema_name, "pg_", 3) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RESERVED_NAME),
				 errmsg("schema \"%s\" cannot hold stream tables", request->schema_name),
				 errdetail("It belongs to %s.", strncmp(request->schema_name, "pg_", 3) == 0 ? "the server" : "pgtrickle"),
				 errhint("Choose another schema, for instance public.")));
	if (strncmp(request->relation_name, "__pgt_", 6) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_RESERVED_NAME),
				 errmsg("relation name \"%s\" is reserved", request->relation_name),
				 errdetail("The prefix __pgt_ belongs to pgtrickle.")));
	if (OidIsValid(get_relname_relid(request->relation_name, namespace_oid)))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation \"%s\" already exists", request->qualified_name),
				 errhint("Choose another name, or drop it first.")));
}

static void
choose_mode(CreateRequest *request)
{
	const char *reason = request->program->full_reason;

	request->effective_mode = "DIFFERENTIAL";
	if (strcmp(request->refresh_mode, "IMMEDIATE") == 0)
	{
		if (!request->initialize)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("stream table \"%s\" cannot be IMMEDIATE and empty", request->shown_name),
					 errhint("Leave initialize out.")));
		if (IsolationUsesXactSnapshot())
			ereport(ERROR,
					(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
					 errmsg("stream table \"%s\" cannot become IMMEDIATE in a transaction with one snapshot", request->shown_name),
					 errhint("Use the isolation level READ COMMITTED.")));
		immediate_check(request->program, request->shown_name, GetUserId());
		request->effective_mode = "IMMEDIATE";
	}
	else if (strcmp(request->refresh_mode, "FULL") == 0)
	{
		request->effective_mode = "FULL";
		program_refresh_in_full(request->program, "refresh mode is FULL");
	}
	else if (reason != NULL)
	{
		if (strcmp(request->refresh_mode, "DIFFERENTIAL") == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot maintain stream table \"%s\" by delta", request->shown_name),
					 errdetail("The defining query needs a full refresh: %s.", reason),
					 errhint("Use refresh_mode => 'AUTO' or 'FULL', or change the query.")));
		ereport(NOTICE,
				(errmsg("stream table \"%s\" will be refreshed in full", request->shown_name),
				 errdetail("The defining query cannot be maintained by delta: %s.", reason)));
		request->effective_mode = "FULL";
	}
}

/* The executor knows best whether the caller may read everything. */
static void
check_query_runs(CreateRequest *request)
{
	execute(psprintf("SELECT FROM (%s) q LIMIT 0", request->program->defining_query));
}

/* ---- parts ---- */

static void
create_table(CreateRequest *request)
{
	execute(psprintf("CREATE TABLE %s WITH (fillfactor = 90) AS %s WITH NO DATA", request->qualified_name,
					 request->program->defining_query));
	request->relid = get_relname_relid(request->relation_name, get_namespace_oid(request->schema_name, false));
}

static const char *const pinned_settings[] = {
	"TimeZone", "DateStyle", "IntervalStyle", "extra_float_digits", "bytea_output", "lc_monetary",
	"lc_numeric", "lc_time", "xmlbinary", "xmloption", "default_text_search_config", "array_nulls"
};

static const char *const define_sql =
	"INSERT INTO pgtrickle.pgt_definitions (relid, original_query, defining_query, query_fingerprint, schedule,"
	" refresh_mode, effective_refresh_mode, downgrade_reason, status, settings, options, filled_xid, clock_reason)"
	" SELECT $1, $2, $3, $4, $5, $6, $7, $8, CASE WHEN $9 THEN 'ACTIVE' ELSE 'INITIALIZING' END,"
	" (SELECT pg_catalog.jsonb_object_agg(s, pg_catalog.current_setting(s)) FROM unnest($10::text[]) s),"
	" COALESCE($11, '{}'), CASE WHEN $9 THEN pg_catalog.pg_current_xact_id() END, $12"
	" RETURNING pgt_id";

static void
insert_definition(CreateRequest *request)
{
	Oid			types[] = {OIDOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, BOOLOID, TEXTARRAYOID, JSONBOID, TEXTOID};
	Datum		values[12];
	char		nulls[12];
	Datum		names[lengthof(pinned_settings)];
	bool		is_downgrade;
	bool		isnull;

	memset(nulls, ' ', sizeof(nulls));
	for (int i = 0; i < (int) lengthof(pinned_settings); i++)
		names[i] = CStringGetTextDatum(pinned_settings[i]);
	values[0] = ObjectIdGetDatum(request->relid);
	values[1] = CStringGetTextDatum(request->query);
	values[2] = CStringGetTextDatum(request->program->defining_query);
	values[3] = CStringGetTextDatum(program_fingerprint(request->program));
	values[4] = CStringGetTextDatum(request->schedule);
	values[5] = CStringGetTextDatum(request->refresh_mode);
	values[6] = CStringGetTextDatum(request->effective_mode);
	is_downgrade = request->program->full_reason != NULL && strcmp(request->refresh_mode, "FULL") != 0;
	nulls[7] = is_downgrade ? ' ' : 'n';
	values[7] = is_downgrade ? CStringGetTextDatum(request->program->full_reason) : (Datum) 0;
	values[8] = BoolGetDatum(request->initialize);
	values[9] = PointerGetDatum(construct_array(names, lengthof(pinned_settings), TEXTOID, -1, false, TYPALIGN_INT));
	nulls[10] = request->options ? ' ' : 'n';
	values[10] = request->options;
	nulls[11] = request->program->clock_reason ? ' ' : 'n';
	values[11] = request->program->clock_reason ? CStringGetTextDatum(request->program->clock_reason) : (Datum) 0;
	if (SPI_execute_with_args(define_sql, lengthof(types), types, values, nulls, false, 0) != SPI_OK_INSERT_RETURNING)
		elog(ERROR, "could not insert into pgtrickle.pgt_definitions");
	request->pgt_id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	execute(psprintf("INSERT INTO pgtrickle.pgt_frontiers (pgt_id, needs_refill, refill_reason) VALUES (" INT64_FORMAT ", %s)",
					 request->pgt_id, request->initialize ? "false, NULL" : "true, 'not filled yet'"));
}

/* The index by which refreshes find rows; a statement for psql's eyes, made as the caller. */
static char *
key_index_sql(CreateRequest *request, const char *index_name)
{
	DeltaProgram *program = request->program;
	StringInfoData columns;
	ListCell   *lc;

	initStringInfo(&columns);
	if (program->key == NIL)
	{
		for (int i = 0; i < program->tupdesc->natts; i++)
			appendStringInfo(&columns, "%s%s", i > 0 ? ", " : "",
							 quote_identifier(NameStr(TupleDescAttr(program->tupdesc, i)->attname)));
		return psprintf("CREATE INDEX %s ON %s (pgtrickle.row_hash(ROW(%s)))", index_name,
						request->qualified_name, columns.data);
	}
	foreach(lc, program->key)
		appendStringInfo(&columns, "%s%s", columns.len > 0 ? ", " : "",
						 quote_identifier(NameStr(TupleDescAttr(program->tupdesc, lfirst_int(lc) - 1)->attname)));
	return psprintf("CREATE %sINDEX %s ON %s (%s)%s", program->key_is_unique ? "UNIQUE " : "", index_name,
					request->qualified_name, columns.data, program->key_is_unique ? " NULLS NOT DISTINCT" : "");
}

void
create_key_index(CreateRequest *request)
{
	char	   *index_name = psprintf("pgt_key_" INT64_FORMAT, request->pgt_id);
	DeltaProgram *program = request->program;
	StringInfoData attnos;
	ExtensionScope scope;
	ListCell   *lc;

	if (program->single_row)
		return;
	execute(key_index_sql(request, index_name));

	initStringInfo(&attnos);
	foreach(lc, program->key)
		appendStringInfo(&attnos, "%s%d", attnos.len > 0 ? "," : "", lfirst_int(lc));
	scope = extension_scope_enter();
	execute(psprintf("UPDATE pgtrickle.pgt_definitions SET key_index = %u, key_attnos = '{%s}', key_is_row_hash = %s"
					 " WHERE pgt_id = " INT64_FORMAT,
					 get_relname_relid(index_name, get_rel_namespace(request->relid)), attnos.data,
					 program->key == NIL ? "true" : "false", request->pgt_id));
	extension_scope_leave(&scope);
}

/* ALWAYS: also in sessions that apply changes of another server. */
void
create_guard(CreateRequest *request)
{
	execute(psprintf("CREATE TRIGGER pgtrickle_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s"
					 " FOR EACH STATEMENT EXECUTE FUNCTION pgtrickle.guard()", request->qualified_name));
	execute(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER pgtrickle_guard", request->qualified_name));
}

/* Rows for somebody else's table are not maintained. */
static bool
is_immediate(CreateRequest *request)
{
	return strcmp(request->effective_mode, "IMMEDIATE") == 0 && !request->rows_only;
}

/* ---- first fill ---- */

/*
 * A transaction with one snapshot for all its statements took it before the `interest` message, so the stream may lack what was committed in
 * between: such a fill counts for readers only, and the applier does it again.
 */
static const char *const fill_frontier_sql =
	"UPDATE pgtrickle.pgt_frontiers SET needs_refill = $7,"
	" refill_reason = CASE WHEN $7 THEN 'filled in a transaction with one snapshot' END, snapshot = $2::pg_snapshot, lsn = $3, query_now = pg_catalog.now(), data_timestamp = $4,"
	" history_since = $4,"
	" spool_snapshot = NULL, spooled_since = NULL, spool_reason = NULL,"
	" last_refresh_at = pg_catalog.clock_timestamp(), is_populated = true, total_refreshes = 1,"
	" total_rows_inserted = $5, total_duration_ms = $6, last_action = 'FULL', last_status = 'COMPLETED'"
	" WHERE pgt_id = $1";

static const char *const fill_history_sql =
	"INSERT INTO pgtrickle.pgt_history (pgt_id, data_timestamp, start_time, end_time, action, status, initiated_by,"
	" rows_inserted, duration_ms, tick_lsn) VALUES ($1, $4, $4, pg_catalog.clock_timestamp(), 'FULL', 'COMPLETED', 'INITIAL', $5, $6, $3)";

static void
record_fill(CreateRequest *request, char *snapshot, XLogRecPtr lsn, TimestampTz taken_at, int64 rows)
{
	Oid			types[] = {INT8OID, TEXTOID, PG_LSNOID, TIMESTAMPTZOID, INT8OID, FLOAT8OID, BOOLOID};
	Datum		values[7];

	values[0] = Int64GetDatum(request->pgt_id);
	values[1] = CStringGetTextDatum(snapshot);
	values[2] = LSNGetDatum(lsn);
	values[3] = TimestampTzGetDatum(taken_at);
	values[4] = Int64GetDatum(rows);
	values[5] = Float8GetDatum((GetCurrentTimestamp() - taken_at) / 1000.0);
	values[6] = BoolGetDatum(IsolationUsesXactSnapshot());
	if (SPI_execute_with_args(fill_frontier_sql, 7, types, values, NULL, false, 0) != SPI_OK_UPDATE ||
		SPI_execute_with_args(fill_history_sql, 6, types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not record the first fill");
}

static void
fill(CreateRequest *request)
{
	ExtensionScope scope = extension_scope_enter();
	LoadedTable *table;
	char	   *snapshot;
	XLogRecPtr	lsn;
	TimestampTz taken_at;
	int64		rows;

	(void) wal_message_emit(psprintf("filled " INT64_FORMAT, request->pgt_id), true, false);
	CommandCounterIncrement();
	PushCopiedSnapshot(GetTransactionSnapshot());
	UpdateActiveSnapshotCommandId();
	snapshot = DatumGetCString(DirectFunctionCall1(pg_snapshot_out,
												   DirectFunctionCall1(pg_current_snapshot, (Datum) 0)));
	lsn = GetXLogInsertRecPtr();
	taken_at = GetCurrentTimestamp();

	table = table_load(request->pgt_id);
	rows = table_first_fill(table);
	if (is_immediate(request))
		request->filled = RegisterSnapshot(GetActiveSnapshot());
	PopActiveSnapshot();
	record_fill(request, snapshot, lsn, taken_at, rows);
	extension_scope_leave(&scope);
}

static void
invalidate_definitions(void)
{
	CacheInvalidateRelcacheByRelid(get_relname_relid("pgt_definitions", get_namespace_oid("pgtrickle", false)));
}

void
create_stream_table(CreateRequest *request)
{
	ExtensionScope scope;
	List	   *relations;
	char	   *meaning;
	List	   *sources_to_alter = NIL;
	ImmediateCreation *creation = NULL;

	request->program = program_compile(request->query, CurrentMemoryContext);
	choose_mode(request);
	check_query_runs(request);
	if (is_immediate(request))
		creation = immediate_creation_begin(request->program);
	else if (strcmp(request->effective_mode, "IMMEDIATE") == 0)
		immediate_lock_sources(request->program);
	else
	{
		sources_to_alter = replica_identity_plan(request->program);
		sources_announce(request->program);
	}

	create_table(request);
	relations = sources_relations(request->program->defining_query);
	meaning = sources_meaning(request->program->defining_query, request->program, relations);
	scope = extension_scope_enter();
	insert_definition(request);
	(void) sources_write(request->pgt_id, request->program, relations, meaning);
	state_tables_create(request->program, request->pgt_id, scope.saved_user);
	extension_scope_leave(&scope);

	if (request->initialize)
		fill(request);
	scope = extension_scope_enter();
	state_tables_create_indexes(request->program, request->pgt_id);
	extension_scope_leave(&scope);
	if (!request->rows_only)
	{
		create_key_index(request);
		create_guard(request);
	}
	if (request->initialize && !request->rows_only)
		execute(psprintf("ANALYZE %s", request->qualified_name));
	replica_identity_set(sources_to_alter);
	invalidate_definitions();
	CommandCounterIncrement();
	if (creation != NULL)
	{
		immediate_creation_end(creation, request->pgt_id, request->filled);
		UnregisterSnapshot(request->filled);
	}
	(void) wal_message_emit("catalog", true, false);
}

/*
 * create_stream_table_core(name text, query text, schedule text, refresh_mode text, initialize boolean, options jsonb) returns bigint
 *
 * The arguments were checked by create_stream_table (sql/40_lifecycle.sql), except name and query.
 */
Datum
pgtrickle_create_stream_table(PG_FUNCTION_ARGS)
{
	CreateRequest request = {0};

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2) || PG_ARGISNULL(3) || PG_ARGISNULL(4))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name, query, schedule, refresh mode and initialize must not be null")));
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot create stream tables during recovery"),
				 errhint("Connect to the primary.")));
	SPI_connect();
	resolve_name(&request, PG_GETARG_TEXT_PP(0));
	request.shown_name = request.qualified_name;
	request.query = text_to_cstring(PG_GETARG_TEXT_PP(1));
	request.schedule = text_to_cstring(PG_GETARG_TEXT_PP(2));
	request.refresh_mode = text_to_cstring(PG_GETARG_TEXT_PP(3));
	request.initialize = PG_GETARG_BOOL(4);
	request.options = PG_ARGISNULL(5) ? (Datum) 0 : PG_GETARG_DATUM(5);
	create_stream_table(&request);
	SPI_finish();
	PG_RETURN_INT64(request.pgt_id);
}
