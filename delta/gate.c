/*
 * delta/gate.c
 *     Closing and opening the gate of a source: who may, and the way into the catalog.
 *
 * While the gate of a source is closed, for a bulk load say, nothing that reads it is refreshed (sql/57_operations.sql).  That concerns the stream
 * tables of others, so it takes the owner of the source, who could lock it as well, or an operator.
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "compat.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "privileged.h"
#include "stream_table.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(pgtrickle_change_gate);

/* pgtrickle.change_gate(source oid, closed boolean) returns void */
Datum
pgtrickle_change_gate(PG_FUNCTION_ARGS)
{
	PrivilegedSection section;
	Oid			relid = PG_GETARG_OID(0);
	Oid			types[] = {OIDOID, BOOLOID, TEXTOID};
	Datum		values[3];
	char	   *name = get_rel_name(relid);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	if (!compat_owns_relation(relid, GetUserId()) && !is_operator())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of table \"%s\", or an operator", name),
				 errhint("Members of the role pgtrickle_operator are operators.")));
	values[0] = ObjectIdGetDatum(relid);
	values[1] = PG_GETARG_DATUM(1);
	values[2] = CStringGetTextDatum(GetUserNameFromId(GetUserId(), false));
	privileged_begin(&section);
	if (SPI_execute_with_args("SELECT pgtrickle.apply_gate($1, $2, $3)", 3, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not change the gate of \"%s\"", name);
	privileged_end(&section);
	PG_RETURN_VOID();
}
