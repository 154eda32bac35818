/*
 * delta/sources.h
 *     What a stream table reads, as the catalog and the applier know it.
 */
#ifndef PGTRICKLE_SOURCES_H
#define PGTRICKLE_SOURCES_H

#include "postgres.h"

#include "program.h"

/*
 * The relations that a program's query names, views and what is behind them included.  Analyses the query, so call it
 * with the rights of whoever wrote it, never as the extension's owner: literals can run code of users.
 */
extern List *sources_relations(const char *defining_query);

/*
 * Writes the rows of pgt_sources for a stream table, in place of those there are: the program's sources, and the views among
 * `relations`.  Needs an SPI connection and the rights of the extension's owner.
 */
extern void sources_write(int64 pgt_id, DeltaProgram *program, List *relations);

/* Writes the `interest` message for the program's sources. */
extern void sources_announce(DeltaProgram *program);

#endif /* PGTRICKLE_SOURCES_H */
