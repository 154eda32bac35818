/*
 * delta/source_rights.h
 *     May the owner of a stream table still read what its query reads?
 */
#ifndef PGTRICKLE_SOURCE_RIGHTS_H
#define PGTRICKLE_SOURCE_RIGHTS_H

#include "postgres.h"

#include "nodes/parsenodes.h"

/* The levels of the query, expanded, without all that the check does not need (Query); in the current context. */
extern List *source_rights_levels(const char *defining_query);

/* An error, the server's own, when the current role lacks a right.  A few look-ups in caches. */
extern void source_rights_check(List *levels);

#endif							/* PGTRICKLE_SOURCE_RIGHTS_H */
