/*
 * delta/copy_spool.c
 *     Changes of a table that is being copied, kept in the database until the copy is switched in.
 *
 * The remote's slot moves on while a large table is copied for hours, so what came for it meanwhile has to be here.  It is kept as it came:
 * Begin and Relation records and those of the table's rows, in the order of the stream.  Kept and position change in one transaction,
 * like everything of a tick: a change is here or still to come.
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "copy_spool.h"
#include "executor/spi.h"
#include "refresh_record.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"

#define PARTS_AT_ONCE 4			/* of at most a few MB each */

void
copy_spool_put(int64 copy_id, XLogRecPtr position, StringInfo data)
{
	static SPIPlanPtr kept = NULL;
	Oid			types[] = {INT8OID, PG_LSNOID, BYTEAOID};
	Datum		values[3];

	if (data->len == 0)
		return;
	values[0] = Int64GetDatum(copy_id);
	values[1] = LSNGetDatum(position);
	values[2] = PointerGetDatum(cstring_to_text_with_len(data->data, data->len));
	execute_kept(&kept, "INSERT INTO pgtrickle.pgt_copy_spool (copy_id, position, data) VALUES ($1, $2, $3)",
				 lengthof(types), types, values, NULL);
	pfree(DatumGetPointer(values[2]));
	resetStringInfo(data);
}

bool
copy_spool_replay(int64 copy_id, CopyReader *reader, CopyDefinition **current)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(copy_id)};
	bool		has_parts = false;
	uint64		fetched;
	Portal		portal = SPI_cursor_open_with_args(NULL,
												   "SELECT data FROM pgtrickle.pgt_copy_spool WHERE copy_id = $1 ORDER BY spool_id",
												   1, types, values, NULL, true, 0);

	do
	{
		SPITupleTable *parts;

		SPI_cursor_fetch(portal, true, PARTS_AT_ONCE);
		fetched = SPI_processed;
		parts = SPI_tuptable;
		has_parts |= fetched > 0;
		MemoryContextSwitchTo(context);
		for (uint64 i = 0; i < fetched; i++)
		{
			bool		isnull;
			Datum		value = SPI_getbinval(parts->vals[i], parts->tupdesc, 1, &isnull);
			bytea	   *data = DatumGetByteaPP(value);

			copy_reader_read(reader, VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data), current);
			if (PointerGetDatum(data) != value)
				pfree(data);
		}
		SPI_freetuptable(parts);
	} while (fetched > 0);
	SPI_cursor_close(portal);
	MemoryContextSwitchTo(context);
	return has_parts;
}
