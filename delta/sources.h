/*
 * delta/sources.h
 *     What a stream table reads, as the catalog and the applier know it.
 */
#ifndef PGTRICKLE_SOURCES_H
#define PGTRICKLE_SOURCES_H

#include "postgres.h"

#include "program.h"

struct LoadedTable;

/*
 * The relations that a program's query names, views and what is behind them included.  Analyses the query, so call it
 * with the rights of whoever wrote it, never as the extension's owner: literals can run code of users.
 */
extern List *sources_relations(const char *defining_query);

/*
 * What the names in a query mean now, as a text that differs when the rows could: the query with the views in it expanded, the relations
 * and functions behind it, and with whose rights the views read.  The rights to call it with are those of sources_relations(), from which `relations` are.
 */
extern char *sources_meaning(const char *defining_query, DeltaProgram *program, List *relations);

/*
 * Writes the rows of pgt_sources for a stream table, in place of those there are: the program's sources, and the views among
 * `relations`; and what its names mean.  False: they mean what they meant before.  Needs an SPI connection and the rights of the
 * extension's owner.
 */
extern bool sources_write(int64 pgt_id, DeltaProgram *program, List *relations, const char *meaning);

/* Does the catalog name all relations whose changes the program reads, and the functions that it calls? */
extern bool sources_are_bound(int64 pgt_id, DeltaProgram *program);

/*
 * Announces and writes down what the table's program reads.  What the stream has brought until now may lack changes of these relations: a full
 * refresh by a later snapshot must follow.
 */
extern void sources_bind(struct LoadedTable *table);

/* Writes the `interest` message for the program's sources. */
extern void sources_announce(DeltaProgram *program);

#endif /* PGTRICKLE_SOURCES_H */
