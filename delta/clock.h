/*
 * delta/clock.h
 *     Which queries answer differently although nothing changed in the WAL.
 */
#ifndef PGTRICKLE_CLOCK_H
#define PGTRICKLE_CLOCK_H

#include "postgres.h"

#include "nodes/parsenodes.h"
#include "run.h"

/*
 * Why the result of a STABLE function can change without a change in the WAL, in the current context; NULL: it depends on its
 * arguments and on settings only.
 */
extern char *clock_function_reason(Oid function);

/* Why the answer of an analysed and expanded query can change without a change in the WAL; NULL: it cannot. */
extern char *clock_query_reason(Query *query);

/*
 * Writes the reason of the program as it is compiled now into the catalog, when a view or a source has changed it, and tells
 * the applier.  Inside a tick, with the rights of the extension's owner.
 */
extern void clock_record_reason(LoadedTable *table);

#endif							/* PGTRICKLE_CLOCK_H */
