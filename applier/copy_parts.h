/*
 * applier/copy_parts.h
 *     The parts of a table that are copied one by one.
 */
#ifndef PGTRICKLE_APPLIER_COPY_PARTS_H
#define PGTRICKLE_APPLIER_COPY_PARTS_H

#include "copy.h"

typedef struct CopyPart
{
	int	  number; /* from 1 */
	char *condition; /* SQL of the remote; NULL: all rows */
	bool  is_done;
} CopyPart;

typedef struct CopyParts
{
	CopyPart *parts;
	size_t	  count;
	size_t	  capacity;
} CopyParts;

/* Plans ranges of the key, and tells the server. */
extern bool copy_parts_plan(CopyRemote *work, const Copy *copy, const RemoteTable *table,
							Error *error) MUST_CHECK;

/* The ranges that the server knows, and which of them are done. */
extern bool copy_parts_load(CopyRemote *work, const Copy *copy, const RemoteTable *table,
							CopyParts *parts, Error *error) MUST_CHECK;

/* Ranges of pages: for a table without a key, which is read with a single snapshot. */
extern void copy_parts_by_place(CopyRemote *work, const RemoteTable *table, CopyParts *parts);

extern void copy_parts_free(CopyParts *parts);

/* "schema"."table" with TABLESAMPLE-able FROM: children that merely inherit are tables of their own. */
extern void
copy_append_source(CopyRemote *work, const Copy *copy, const RemoteTable *table, Text *text);

#endif /* PGTRICKLE_APPLIER_COPY_PARTS_H */
