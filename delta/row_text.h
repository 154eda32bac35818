/*
 * delta/row_text.h
 *     Rows and keys as text for messages, cut to a bearable length.
 */
#ifndef PGTRICKLE_ROW_TEXT_H
#define PGTRICKLE_ROW_TEXT_H

#include "postgres.h"

#include "access/attnum.h"
#include "access/tupdesc.h"

/* "(a, b)=(1, null)".  Keys are in the order of `attnos`, which are columns of `tupdesc`. */
extern char *row_text_key(TupleDesc tupdesc, int nkeys, const AttrNumber *attnos, const Datum *keys,
						  const bool *nulls);

/* "(1, null, abc)": the first `natts` columns. */
extern char *row_text_row(TupleDesc tupdesc, int natts, const Datum *values, const bool *nulls);

#endif /* PGTRICKLE_ROW_TEXT_H */
