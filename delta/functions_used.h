/*
 * delta/functions_used.h
 *     Which of the users' functions a defining query calls.
 */
#ifndef PGTRICKLE_FUNCTIONS_USED_H
#define PGTRICKLE_FUNCTIONS_USED_H

#include "postgres.h"

#include "nodes/parsenodes.h"

/* Oid list, without the server's own functions.  `query` is analysed, its views are expanded. */
extern List *functions_used(Query *query);

#endif							/* PGTRICKLE_FUNCTIONS_USED_H */
