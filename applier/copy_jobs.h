/*
 * applier/copy_jobs.h
 *     Several connections that copy the parts of one table.
 */
#ifndef PGTRICKLE_APPLIER_COPY_JOBS_H
#define PGTRICKLE_APPLIER_COPY_JOBS_H

#include "copy_parts.h"

typedef struct CopyLoad
{
	CopyRemote		  *work;
	const Copy		  *copy;
	const RemoteTable *table;
	CopyParts		  *parts;
	const char		  *load_table; /* SQL of the target */
	const char		  *snapshot; /* exported on the remote; NULL: a snapshot per part */
} CopyLoad;

/* Copies all parts that are not done.  Stops at the first failure; what was done stays done. */
extern bool copy_jobs_run(CopyLoad *load, Error *error) MUST_CHECK;

#endif /* PGTRICKLE_APPLIER_COPY_JOBS_H */
