/*
 * delta/consolidate.h
 *     Reduces a rowset to one row per image, weights added, zeros gone.
 *
 * Two rows are the same when every column's binary image is the same after detoasting
 * (datum_image_eq), not when an operator says so: 1.0 and 1.00 differ, json and point work, NULL
 * equals NULL.  A 64-bit hash only finds candidates; equality is always checked on the values.
 */
#ifndef PGTRICKLE_CONSOLIDATE_H
#define PGTRICKLE_CONSOLIDATE_H

#include "rowset.h"

/*
 * The net rows of `input`, as a new rowset with the given name.  Memory is bounded by work_mem (dealt
 * out by hash to disk beyond).  `input` may have been read before; it is not freed.
 */
extern Rowset *consolidate(Rowset *input, const char *name);

/*
 * Hash of the first `natts` columns of a row, equal for rows with equal images.  Detoasts as needed.
 * Also the hash behind pgtrickle.row_hash(record), on which indexes of keyless stream tables are built: it must
 * never change between minor versions.
 */
extern uint64 row_image_hash(TupleDesc tupdesc, int natts, const Datum *values, const bool *nulls);
extern bool row_image_equal(TupleDesc tupdesc, int natts, const Datum *values1, const bool *nulls1,
							const Datum *values2, const bool *nulls2);

/* The same for one column. */
extern bool
value_image_equal(Form_pg_attribute att, Datum value1, bool null1, Datum value2, bool null2);

#endif /* PGTRICKLE_CONSOLIDATE_H */
