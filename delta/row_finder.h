/*
 * delta/row_finder.h
 *     Finds rows of a table by key, by the hash of the whole row, or by looking at all of them.
 *
 * A finder belongs to a writer and sees what the writer sees.
 */
#ifndef PGTRICKLE_ROW_FINDER_H
#define PGTRICKLE_ROW_FINDER_H

#include "postgres.h"

#include "apply.h"
#include "compat.h"
#include "key_order.h"
#include "table_writer.h"

typedef struct RowFinder RowFinder;

extern RowFinder *row_finder_open(TableWriter *writer, const RowLocator *locator);
extern void		  row_finder_close(RowFinder *finder);

/* The index behind the finder, or NULL. */
extern Relation row_finder_index(RowFinder *finder);

/* Where the locator's key columns are in live layout, from 1. */
extern const AttrNumber *row_finder_key_columns(RowFinder *finder);

/* Starts looking for the rows of a key (in the order of the locator's columns).  NULL finds NULL. */
extern void row_finder_start_key(RowFinder *finder, const Datum *keys, const bool *nulls);

/*
 * Starts looking for the rows with this image (live layout, valid until the last row_finder_next).
 */
extern void row_finder_start_image(RowFinder *finder, const Datum *values, const bool *nulls);

/* The next row, in a slot of the table, valid until the next call; NULL: there is no other. */
extern TupleTableSlot *row_finder_next(RowFinder *finder);

/*
 * A row that the delta takes away is not there, or not `missing` times.  `values`: the row in live layout; with
 * `key_only`, just the locator's key.
 */
pg_noreturn extern void row_finder_report_missing(RowFinder *finder, const char *stream_table_name,
												  int64 missing, const Datum *values,
												  const bool *nulls, bool key_only);

#endif /* PGTRICKLE_ROW_FINDER_H */
