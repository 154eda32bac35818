/*
 * delta/retain.c
 *     Keeps what a refresh changed in a stream table whose option retain_history is set.
 *
 *     net delta --to_jsonb, as the stream table's owner--> images --as the extension's owner--> pgtrickle.pgt_changes
 *
 * Two steps, because output functions and casts to json of the owner's types are the owner's code, while nobody but the extension writes its
 * catalog.  The images are made with fixed settings: floats with all their digits, and times that do not depend on who refreshes.
 *
 * The rest is in sql/56_retained_history.sql: what the history is good for, pruning, and those who listen.  The writes are tagged like all
 * of a tick's own, so that the plugin drops them before they are queued.
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "privileged.h"
#include "refresh_record.h"
#include "retain.h"
#include "run.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#define IMAGES_NAME "__pgt_images"

static const char *const insert_sql =
	"INSERT INTO pgtrickle.pgt_changes (pgt_id, data_timestamp, weight, row_data)"
	" SELECT $1, $2, " ROWSET_WEIGHT_COLUMN ", row_data FROM " IMAGES_NAME " ORDER BY " ROWSET_WEIGHT_COLUMN;

/* What the text of a value depends on. */
static const char *const fixed_settings[][2] = {
	{"search_path", "pg_catalog, pg_temp"},
	{"TimeZone", "UTC"},
	{"IntervalStyle", "postgres"},
	{"bytea_output", "hex"},
	{"extra_float_digits", "1"},
};

/* SELECT to_jsonb(r.*), __w FROM the net delta without its dropped columns */
static char *
images_sql(Rowset *net)
{
	StringInfoData columns;

	initStringInfo(&columns);
	for (int i = 0; i < net->tupdesc->natts - 1; i++)
	{
		const char *name = NameStr(TupleDescAttr(net->tupdesc, i)->attname);

		if (strncmp(name, "........pg.dropped.", strlen("........pg.dropped.")) != 0)
			appendStringInfo(&columns, "%sd.%s", columns.len > 0 ? ", " : "", quote_identifier(name));
	}
	return psprintf("SELECT (SELECT pg_catalog.to_jsonb(r.*) FROM (SELECT %s) r) AS row_data, d." ROWSET_WEIGHT_COLUMN " FROM %s d",
					columns.data, quote_identifier(net->name));
}

static Rowset *
images_as_owner(Oid owner, Rowset *net)
{
	Oid			saved_user;
	int			saved_context;
	int			settings_level;
	Rowset	   *images;

	GetUserIdAndSecContext(&saved_user, &saved_context);
	SetUserIdAndSecContext(owner, saved_context | SECURITY_RESTRICTED_OPERATION);
	settings_level = NewGUCNestLevel();
	for (int i = 0; i < (int) lengthof(fixed_settings); i++)
		(void) set_config_option(fixed_settings[i][0], fixed_settings[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	rowset_register(net);
	images = rowset_from_sql(images_sql(net), IMAGES_NAME);
	rowset_unregister(net);
	AtEOXact_GUC(false, settings_level);
	SetUserIdAndSecContext(saved_user, saved_context);
	return images;
}

static void
write_images(int64 pgt_id, Rowset *images, TimestampTz moment)
{
	static SPIPlanPtr insert_plan = NULL;
	static SPIPlanPtr retained_plan = NULL;
	Oid			insert_types[] = {INT8OID, TIMESTAMPTZOID};
	Datum		insert_values[] = {Int64GetDatum(pgt_id), TimestampTzGetDatum(moment)};
	Oid			retained_types[] = {INT8OID, INT8OID};
	Datum		retained_values[] = {Int64GetDatum(pgt_id), Int64GetDatum(images->row_count)};

	rowset_register(images);
	execute_kept(&insert_plan, insert_sql, lengthof(insert_types), insert_types, insert_values, NULL);
	rowset_unregister(images);
	execute_kept(&retained_plan, "SELECT pgtrickle.changes_retained($1, $2)", lengthof(retained_types), retained_types,
				 retained_values, NULL);
}

void
retain_changes(int64 pgt_id, Oid owner, Rowset *net, TimestampTz moment)
{
	PrivilegedSection section;
	Rowset	   *images;

	if (net->row_count == 0)
		return;
	images = images_as_owner(owner, net);
	privileged_begin(&section);
	write_images(pgt_id, images, moment);
	privileged_end(&section);
	rowset_free(images);
}

void
retain_begin(int64 pgt_id, TimestampTz moment)
{
	static SPIPlanPtr kept = NULL;
	Oid			types[] = {INT8OID, TIMESTAMPTZOID};
	Datum		values[] = {Int64GetDatum(pgt_id), TimestampTzGetDatum(moment)};

	execute_kept(&kept, "SELECT pgtrickle.begin_history($1, $2)", lengthof(types), types, values, NULL);
}

bool
retain_is_wanted(int64 pgt_id)
{
	PrivilegedSection section;
	bool		is_wanted;

	privileged_begin(&section);
	if (SPI_execute(psprintf("SELECT FROM pgtrickle.pgt_definitions WHERE pgt_id = " INT64_FORMAT
							 " AND options ? 'retain_history'", pgt_id), false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the catalog of stream tables");
	is_wanted = SPI_processed > 0;
	privileged_end(&section);
	return is_wanted;
}
