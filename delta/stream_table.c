/*
 * delta/stream_table.c
 *     Finds stream tables by name, checks what the caller may do with them, and lets owners change definitions.
 *
 * The one place that decides who may do what, so the functions in sql/ need not: whoever wants a stream table's id for a purpose
 * gets it from here or gets an error.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/varlena.h"

#include "compat.h"
#include "privileged.h"
#include "stream_table.h"
#include "wal_message.h"

PG_FUNCTION_INFO_V1(pgtrickle_stream_table_id);
PG_FUNCTION_INFO_V1(pgtrickle_stream_table_id_to_see);
PG_FUNCTION_INFO_V1(pgtrickle_stream_table_id_if_exists);
PG_FUNCTION_INFO_V1(pgtrickle_change_definition);
PG_FUNCTION_INFO_V1(pgtrickle_definitions_changed);
PG_FUNCTION_INFO_V1(pgtrickle_stream_table_report);
PG_FUNCTION_INFO_V1(pgtrickle_qualified_target);

static char *
qualified_relation_name(Oid relid)
{
	return psprintf("%s.%s", get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));
}

int64
stream_table_id_of_relation(Oid relid)
{
	PrivilegedSection section;
	Oid				  argtypes[] = {OIDOID};
	Datum			  arguments[] = {ObjectIdGetDatum(relid)};
	int64			  pgt_id = 0;

	privileged_begin(&section);
	if (SPI_execute_with_args("SELECT pgt_id FROM pgtrickle.pgt_definitions WHERE relid = $1", 1,
							  argtypes, arguments, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the catalog of stream tables");
	if (SPI_processed > 0)
	{
		bool isnull;

		pgt_id =
			DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	}
	privileged_end(&section);
	return pgt_id;
}

static bool
is_in_group(const char *group)
{
	Oid role_id = get_role_oid(group, true);

	return OidIsValid(role_id) && has_privs_of_role(GetUserId(), role_id);
}

bool
is_operator(void)
{
	return is_in_group("pgtrickle_operator") || is_in_group("pgtrickle_admin");
}

static void
check_right(Oid relid, const char *qualified, StreamTableRight right)
{
	if (right == STREAM_TABLE_SEE)
	{
		AclResult result = pg_class_aclcheck(relid, GetUserId(), ACL_SELECT);

		if (result != ACLCHECK_OK)
			aclcheck_error(result, OBJECT_TABLE, qualified);
	}
	if (right == STREAM_TABLE_CHANGE && !compat_owns_relation(relid, GetUserId()) && !is_operator())
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("must be owner of stream table \"%s\"", qualified)));
}

/*
 * Tools that ask about a stream table often say only its name, and their connection has a search_path without its schema.  One stream
 * table of that name among those that the caller may see is what they mean; of several we do not choose.
 */
static Oid
find_anywhere(const char *name)
{
	Oid	  argtypes[] = {TEXTOID};
	Datum arguments[] = {CStringGetTextDatum(name)};
	Oid	  relid = InvalidOid;

	SPI_connect();
	if (SPI_execute_with_args("SELECT pgt_relid FROM pgtrickle.pgt_stream_tables"
							  " WHERE pgt_name OPERATOR(pg_catalog.=) $1 ORDER BY pgt_schema",
							  1, argtypes, arguments, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the list of stream tables");
	if (SPI_processed > 1)
	{
		StringInfoData list;

		initStringInfo(&list);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			bool isnull;
			Oid	 candidate = DatumGetObjectId(
				 SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));

			appendStringInfo(&list, "%s%s", i > 0 ? ", " : "", qualified_relation_name(candidate));
		}
		ereport(ERROR, (errcode(ERRCODE_AMBIGUOUS_ALIAS),
						errmsg("stream table name \"%s\" is ambiguous", name),
						errdetail("There are %s.", list.data), errhint("Name the schema.")));
	}
	if (SPI_processed == 1)
	{
		bool isnull;

		relid = DatumGetObjectId(
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	}
	SPI_finish();
	return relid;
}

StreamTableName
stream_table_resolve(const char *name, StreamTableRight right)
{
	StreamTableName found;
	RangeVar *range = makeRangeVarFromNameList(textToQualifiedNameList(cstring_to_text(name)));

	found.relid = RangeVarGetRelid(range, NoLock, true);
	if (!OidIsValid(found.relid) && range->schemaname == NULL && right == STREAM_TABLE_SEE)
		found.relid = find_anywhere(range->relname);
	if (!OidIsValid(found.relid))
		ereport(
			ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE), errmsg("stream table \"%s\" does not exist", name),
			 range->schemaname == NULL
				 ? errhint(
					   "Name its schema if that is not in search_path; pgtrickle.pgt_status() lists the stream tables.")
				 : errhint("pgtrickle.pgt_status() lists the stream tables.")));
	found.qualified = qualified_relation_name(found.relid);
	found.pgt_id = stream_table_id_of_relation(found.relid);
	if (found.pgt_id == 0)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a stream table", found.qualified),
						errhint("pgtrickle.pgt_status() lists the stream tables.")));
	check_right(found.relid, found.qualified, right);
	return found;
}

/* pgtrickle.stream_table_id(name text) returns bigint: for those who want to change it. */
Datum
pgtrickle_stream_table_id(PG_FUNCTION_ARGS)
{
	char *name = text_to_cstring(PG_GETARG_TEXT_PP(0));

	PG_RETURN_INT64(stream_table_resolve(name, STREAM_TABLE_CHANGE).pgt_id);
}

/* pgtrickle.stream_table_id_to_see(name text) returns bigint: for those who want to know something about it. */
Datum
pgtrickle_stream_table_id_to_see(PG_FUNCTION_ARGS)
{
	char *name = text_to_cstring(PG_GETARG_TEXT_PP(0));

	PG_RETURN_INT64(stream_table_resolve(name, STREAM_TABLE_SEE).pgt_id);
}

/*
 * pgtrickle.stream_table_id_if_exists(name text) returns bigint
 *
 * The stream table that stands where CREATE TABLE <name> would put a new one, NULL if there is none: unlike
 * the others this one looks into one schema only, as CREATE ... IF NOT EXISTS does.
 */
Datum
pgtrickle_stream_table_id_if_exists(PG_FUNCTION_ARGS)
{
	List	 *names = textToQualifiedNameList(PG_GETARG_TEXT_PP(0));
	RangeVar *range = makeRangeVarFromNameList(names);
	Oid		  namespace_id = RangeVarGetCreationNamespace(range);
	Oid		  relid = get_relname_relid(range->relname, namespace_id);
	int64	  pgt_id = OidIsValid(relid) ? stream_table_id_of_relation(relid) : 0;

	if (pgt_id == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(pgt_id);
}

/* pgtrickle.qualified_target(target text) returns text: where CREATE TABLE <target> would create it, quoted. */
Datum
pgtrickle_qualified_target(PG_FUNCTION_ARGS)
{
	RangeVar *range = makeRangeVarFromNameList(textToQualifiedNameList(PG_GETARG_TEXT_PP(0)));
	Oid		  namespace_id = RangeVarGetCreationNamespace(range);

	PG_RETURN_TEXT_P(
		cstring_to_text(quote_qualified_identifier(get_namespace_name(namespace_id), range->relname)));
}

/*
 * pgtrickle.change_definition(pgt_id bigint, changes jsonb) returns void
 *
 * Checks that the caller may change the stream table, then lets pgtrickle.apply_change(), which nobody
 * else may call, do it.
 */
Datum
pgtrickle_change_definition(PG_FUNCTION_ARGS)
{
	PrivilegedSection section;
	Oid				  id_type[] = {INT8OID};
	Oid				  argtypes[] = {INT8OID, JSONBOID, BOOLOID};
	Datum			  arguments[] = {PG_GETARG_DATUM(0), PG_GETARG_DATUM(1), BoolGetDatum(false)};
	Oid				  relid = InvalidOid;

	privileged_begin(&section);
	if (SPI_execute_with_args("SELECT relid FROM pgtrickle.pgt_definitions WHERE pgt_id = $1", 1,
							  id_type, arguments, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the catalog of stream tables");
	if (SPI_processed > 0)
	{
		bool isnull;

		relid = DatumGetObjectId(
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	}
	privileged_end(&section);

	if (!OidIsValid(relid) || get_rel_name(relid) == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("stream table with id %lld does not exist",
							   (long long) PG_GETARG_INT64(0))));
	check_right(relid, qualified_relation_name(relid), STREAM_TABLE_CHANGE);

	arguments[2] =
		BoolGetDatum(compat_owns_relation(relid, GetUserId()) || is_in_group("pgtrickle_admin"));

	privileged_begin(&section);
	if (SPI_execute_with_args("SELECT pgtrickle.apply_change($1, $2, $3)", 3, argtypes, arguments, NULL,
							  false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not change the catalog of stream tables");
	privileged_end(&section);
	PG_RETURN_VOID();
}

/*
 * pgtrickle.definitions_changed() returns void
 *
 * Whoever changes the catalog of stream tables calls this in the same transaction: sessions that keep compiled programs drop
 * them, and the applier reads the catalog again.
 */
Datum
pgtrickle_definitions_changed(PG_FUNCTION_ARGS)
{
	Oid namespace_id = get_namespace_oid("pgtrickle", true);
	Oid definitions_id =
		OidIsValid(namespace_id) ? get_relname_relid("pgt_definitions", namespace_id) : InvalidOid;

	if (OidIsValid(definitions_id)) /* else the extension itself is being dropped */
		CacheInvalidateRelcacheByRelid(definitions_id);
	(void) wal_message_emit("catalog", true, false);
	PG_RETURN_VOID();
}

/*
 * pgtrickle.stream_table_report(name text, with_analyze boolean) returns table (property text, value text)
 *
 * pgtrickle.program_report() for those who may see the stream table.
 */
Datum
pgtrickle_stream_table_report(PG_FUNCTION_ARGS)
{
	ReturnSetInfo  *result = (ReturnSetInfo *) fcinfo->resultinfo;
	StreamTableName found =
		stream_table_resolve(text_to_cstring(PG_GETARG_TEXT_PP(0)), STREAM_TABLE_SEE);
	Oid				  argtypes[] = {INT8OID, BOOLOID};
	Datum			  arguments[] = {Int64GetDatum(found.pgt_id), PG_GETARG_DATUM(1)};
	PrivilegedSection section;

	InitMaterializedSRF(fcinfo, 0);
	privileged_begin(&section);
	if (SPI_execute_with_args("SELECT property, value FROM pgtrickle.program_report($1, $2)", 2,
							  argtypes, arguments, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not report on stream table \"%s\"", found.qualified);
	for (uint64 row = 0; row < SPI_processed; row++)
		tuplestore_puttuple(result->setResult, SPI_tuptable->vals[row]);
	privileged_end(&section);
	return (Datum) 0;
}
