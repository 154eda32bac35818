/*
 * delta/copy_filter.h
 *     Which rows of a remote's table are kept in a copy.
 */
#ifndef PGTRICKLE_COPY_FILTER_H
#define PGTRICKLE_COPY_FILTER_H

#include "postgres.h"

#include "access/tupdesc.h"

typedef struct CopyFilter CopyFilter;

/*
 * A condition on the columns of the copy `relid`; rows come in live layout (`attnos`: the attributes they are).  Allocated in the current
 * context; to be freed before the transaction ends.
 */
extern CopyFilter *copy_filter_create(const char *condition, Oid relid, const AttrNumber *attnos, int ncolumns);

/* With the rights of the caller, who has entered the scope of the copy's owner. */
extern bool copy_filter_passes(CopyFilter *filter, const Datum *values, const bool *nulls);
extern void copy_filter_free(CopyFilter *filter);

#endif							/* PGTRICKLE_COPY_FILTER_H */
