/*
 * delta/table_writer.h
 *     Writes rows into one heap table and its indexes, and finds the rows to change.
 *
 * A writer is open for one delta.  It sees the table as it was when it was opened, with everything this
 * transaction had done before, and none of its own writes: so the same row cannot be found twice by
 * mistake, and each caller has to name every row once.  Inserts are collected and written many at a time.
 *
 * Rows come in "live" layout: the table's columns without the dropped ones, as in a rowset.
 */
#ifndef PGTRICKLE_TABLE_WRITER_H
#define PGTRICKLE_TABLE_WRITER_H

#include "postgres.h"

#include "apply.h"
#include "nodes/execnodes.h"

typedef struct TableWriter
{
	MemoryContext  context; /* the one that was current when it was opened */
	Relation	   relation;
	ResultRelInfo *rri; /* the table with its open indexes */
	EState		  *estate;
	Snapshot	   snapshot;
	CommandId	   cid;
	bool		   has_constraints;

	int			nlive; /* live columns */
	AttrNumber *live_attnos; /* NULL: no column was dropped */

	TupleTableSlot			   *slot; /* the new version of a row */
	TupleTableSlot			  **buffered; /* rows to insert */
	int							buffered_count;
	int							buffered_slots; /* how many slots were made */
	Size						buffered_bytes;
	struct BulkInsertStateData *bulk; /* NULL: not worth it */

	int64 rows_inserted;
	int64 rows_deleted; /* without those of updates */
	int64 rows_updated;
} TableWriter;

/*
 * Opens the table's indexes.  `rows_expected`: how many rows may be inserted, for choosing the way.  Takes a copy of the
 * active snapshot that sees all that this transaction has done up to now, and makes it the active one until the writer is closed.
 */
extern TableWriter *table_writer_open(Relation relation, int64 rows_expected);

/* Inserts a row, sooner or later. */
extern void
table_writer_insert(TableWriter *writer, const Datum *values, const bool *nulls, int64 copies);

/* Inserts what has been collected. */
extern void table_writer_flush(TableWriter *writer);

/* Changes or deletes a row that a finder has returned in `found`. */
extern void table_writer_update(TableWriter *writer, TupleTableSlot *found, const Datum *values,
								const bool *nulls);
extern void table_writer_delete(TableWriter *writer, TupleTableSlot *found);

/* Flushes and closes. */
extern void table_writer_close(TableWriter *writer);

/* What has been done, as apply.h wants it told. */
extern ApplyCounts table_writer_counts(TableWriter *writer);

/*
 * Copies the table's row in `found` into live layout.  `flatten`: values stored out of line are fetched (into
 * the current context), for rows that outlive this version.
 */
extern void table_writer_read(TableWriter *writer, TupleTableSlot *found, bool flatten,
							  Datum *values, bool *nulls);

/* The row type of rowsets in live layout, allocated in the current context. */
extern TupleDesc table_live_tupdesc(Relation relation);

/* Runs `work`; the WAL it writes is marked so that the decoder drops it if `hidden`. */
extern void table_write_tagged(bool hidden, void (*work)(void *argument), void *argument);

#endif /* PGTRICKLE_TABLE_WRITER_H */
