/*
 * delta/table_index.h
 *     Which index of a table finds the rows to change.
 */
#ifndef PGTRICKLE_TABLE_INDEX_H
#define PGTRICKLE_TABLE_INDEX_H

#include "postgres.h"

#include "apply.h"
#include "table_writer.h"

/*
 * The locator's index, open in the writer.  When it is not there any more (REINDEX CONCURRENTLY makes a new one under another
 * OID) an equal one is taken; an ERROR if there is none.
 */
extern Relation table_index_find(TableWriter *writer, const RowLocator *locator);

/* Another index than `index` (which may be NULL) allows some rows only once. */
extern bool table_index_other_is_unique(TableWriter *writer, Relation index);

#endif /* PGTRICKLE_TABLE_INDEX_H */
