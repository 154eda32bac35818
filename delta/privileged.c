/*
 * delta/privileged.c
 *     Short sections of SQL that run as the extension's owner.
 *
 * Why not SECURITY DEFINER: inside such a function nobody can tell who called it, so it could not check who owns the
 * stream table (session_user is wrong under SET ROLE and inside other people's functions).
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/genam.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"

#include "privileged.h"

#define EXTENSION_NAME "pgtrickle"

Oid
extension_owner_id(void)
{
	Oid			owner_id = InvalidOid;
	ScanKeyData key;
	Relation	pg_extension = table_open(ExtensionRelationId, AccessShareLock);

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum(EXTENSION_NAME));

	SysScanDesc scan = systable_beginscan(pg_extension, ExtensionNameIndexId, true, NULL, 1, &key);
	HeapTuple	tuple = systable_getnext(scan);

	if (HeapTupleIsValid(tuple))
		owner_id = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(pg_extension, AccessShareLock);

	if (!OidIsValid(owner_id))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("extension \"%s\" does not exist", EXTENSION_NAME)));
	return owner_id;
}

void
privileged_begin(PrivilegedSection *section)
{
	Oid owner_id = extension_owner_id();

	GetUserIdAndSecContext(&section->caller_id, &section->caller_sec_context);
	SetUserIdAndSecContext(owner_id, section->caller_sec_context | SECURITY_LOCAL_USERID_CHANGE);
	section->settings_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	SPI_connect();
}

void
privileged_end(PrivilegedSection *section)
{
	SPI_finish();
	AtEOXact_GUC(false, section->settings_level);
	SetUserIdAndSecContext(section->caller_id, section->caller_sec_context);
}
