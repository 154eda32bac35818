/*
 * delta/rowset.h
 *     A bag of rows with signed weights: what every step of a delta program reads and writes.
 *
 * A rowset is a tuplestore with a name, so that SQL can read it as an ephemeral named relation.  Its
 * last column is always `__w integer`, the weight: +n for n rows that came, -n for n that went; never 0.
 * Its row count is exact, which is what makes the planner choose well.
 *
 * A rowset lives in the memory context that was current when it was made (the store's disk files, if
 * it spilled, live in the current resource owner) and is released with rowset_free.
 */
#ifndef PGTRICKLE_ROWSET_H
#define PGTRICKLE_ROWSET_H

#include "postgres.h"

#include "access/tupdesc.h"
#include "executor/tuptable.h"
#include "utils/queryenvironment.h"
#include "utils/relcache.h"
#include "utils/tuplestore.h"

#define ROWSET_WEIGHT_COLUMN "__w"

typedef struct Rowset
{
	char					  *name; /* the name SQL uses, for instance __pgt_delta_16385 */
	TupleDesc				   tupdesc; /* the columns, and __w as the last one */
	Tuplestorestate			  *store;
	int64					   row_count;
	bool					   has_deletes; /* some weight is negative */
	bool					   has_inserts; /* some weight is positive; for rowsets that were filled row by row */
	bool					   is_row_by_row; /* a group delta in which a group may have several rows, to be added up */
	EphemeralNamedRelationData enr; /* filled by rowset_register */

	/* rowset.c's own */
	MemoryContext context; /* holds all of the above and the rows */
	Datum		 *values; /* room for one row with its weight */
	bool		 *nulls;
} Rowset;

/*
 * A row type made of the columns of `columns` and a weight.  Dropped columns are kept in place as
 * NULL-able integers with the server's placeholder name, so attribute numbers stay those of the relation.  Constraints, defaults and
 * identities are left out.  The result is allocated in the current context.
 */
extern TupleDesc rowset_tupdesc_for(TupleDesc columns);

/* An empty rowset over `tupdesc` (copied; must end in __w), spilling past work_mem, or past a given limit. */
extern Rowset *rowset_create(const char *name, TupleDesc tupdesc);
extern Rowset *rowset_create_limited(const char *name, TupleDesc tupdesc, int memory_kb_max);
extern void	   rowset_free(Rowset *rowset);

/* Adds one row: `values` and `nulls` hold tupdesc->natts - 1 columns; the weight comes apart. */
extern void rowset_put_values(Rowset *rowset, const Datum *values, const bool *nulls, int32 weight);

/* Adds the row in `slot`, whose last attribute is the weight. */
/* All rows of a table that the active snapshot sees, each with this weight.  The table has the rowset's columns. */
extern void rowset_put_table(Rowset *rowset, Oid relid, int32 weight);

extern void rowset_put_slot(Rowset *rowset, TupleTableSlot *slot);

/* The same with another weight, split over several rows if it needs more than 32 bits. */
extern void rowset_put_slot_weighted(Rowset *rowset, TupleTableSlot *slot, int64 weight);

/* Adds all rows of another rowset with the same columns. */
extern void rowset_append(Rowset *rowset, Rowset *rows);

/* A minimal-tuple slot fit for reading the rowset; the caller drops it. */
extern TupleTableSlot *rowset_make_slot(Rowset *rowset);

/* Starts reading at the first row; rowset_next fills `slot`, returns false at the end. */
extern void rowset_rewind(Rowset *rowset);
extern bool rowset_next(Rowset *rowset, TupleTableSlot *slot);

/* Nothing has spilled: the tuples that rowset_next puts into a slot stay where they are until a row is added. */
extern bool rowset_in_memory(Rowset *rowset);

/* The weight of the row in a slot of this rowset. */
extern int32 rowset_weight(Rowset *rowset, TupleTableSlot *slot);

/* Makes the rowset visible under its name to SQL of the current SPI connection. */
extern void rowset_register(Rowset *rowset);
extern void rowset_unregister(Rowset *rowset);

#endif /* PGTRICKLE_ROWSET_H */
