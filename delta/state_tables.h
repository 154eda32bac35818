/*
 * delta/state_tables.h
 *     The internal tables behind a program's grouping nodes.
 */
#ifndef PGTRICKLE_STATE_TABLES_H
#define PGTRICKLE_STATE_TABLES_H

#include "program.h"

/* All need an SPI connection and the rights of the extension's owner. */

/* Makes the tables, empty, and registers them; `reader` gets the right to read them. */
extern void state_tables_create(DeltaProgram *program, int64 pgt_id, Oid reader);

/* Makes the indexes on the keys; later than the fill, because that is faster. */
extern void state_tables_create_indexes(DeltaProgram *program, int64 pgt_id);

/* Removes whatever state tables the stream table has. */
extern void state_tables_drop(int64 pgt_id);

#endif							/* PGTRICKLE_STATE_TABLES_H */
