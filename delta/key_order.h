/*
 * delta/key_order.h
 *     Rows of a rowset in the order of an index.
 *
 * Two uses: probes and inserts that go through an index from left to right touch each of its pages
 * once, and rows of equal key come out together.  Equal and smaller are what the index's operators and
 * collations say; NULL equals NULL.
 */
#ifndef PGTRICKLE_KEY_ORDER_H
#define PGTRICKLE_KEY_ORDER_H

#include "postgres.h"

#include "rowset.h"
#include "utils/rel.h"
#include "utils/sortsupport.h"

#define KEYED_ROWS_FEW 32 /* so many are put in order with no more than comparisons */

typedef struct KeyOrder
{
	int				 nkeys;
	SortSupportData *comparators;
	Oid				*operators; /* the same, as tuplesort wants it */
	Oid				*collations;
	bool			*nulls_first;
} KeyOrder;

/*
 * The order of the first `nkeys` columns of a btree (which may be NULL when nkeys is 0).  Allocated in the
 * current context.
 */
extern KeyOrder *key_order_of_index(Relation index, int nkeys);

/* Less than, equal to or greater than 0, as qsort has it. */
extern int key_order_compare(KeyOrder *order, const Datum *keys1, const bool *nulls1,
							 const Datum *keys2, const bool *nulls2);

typedef struct KeyedRows KeyedRows;

/*
 * Starts reading the rows of `rowset` in key order; `attnos` are the key's columns in the rowset.  Rows of equal key
 * come in any order.  The rowset must stay as it is until the end.
 */
extern KeyedRows *keyed_rows_begin(Rowset *rowset, KeyOrder *order, const AttrNumber *attnos);

/* The next row, or NULL.  The slot's contents are valid until the next call. */
extern TupleTableSlot *keyed_rows_next(KeyedRows *rows);

/* The key of the row that keyed_rows_next has just returned. */
extern const Datum *keyed_rows_keys(KeyedRows *rows);
extern const bool  *keyed_rows_key_nulls(KeyedRows *rows);

extern void keyed_rows_end(KeyedRows *rows);

#endif /* PGTRICKLE_KEY_ORDER_H */
