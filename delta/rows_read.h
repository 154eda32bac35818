/*
 * delta/rows_read.h
 *     Of which sources a delta program reads rows, and of which only changes.
 */
#ifndef PGTRICKLE_ROWS_READ_H
#define PGTRICKLE_ROWS_READ_H

#include "postgres.h"

#include "run.h"

/* Does a refresh of the stream table by delta read rows of this source, or is there no such refresh? */
extern bool program_reads_rows(LoadedTable *table, Oid relid);

#endif							/* PGTRICKLE_ROWS_READ_H */
