/*
 * applier/remote_publication.h
 *     Does a publication carry what a copy needs?
 */
#ifndef PGTRICKLE_APPLIER_REMOTE_PUBLICATION_H
#define PGTRICKLE_APPLIER_REMOTE_PUBLICATION_H

#include "remote_table.h"

/* For remotes that are read through pgoutput.  Fails with a hint when a copy of `table` would miss something. */
extern bool
remote_publication_check(PGconn *remote, const char *publication, const char *schema,
						 const char *name, const RemoteTable *table, Error *error) MUST_CHECK;

#endif /* PGTRICKLE_APPLIER_REMOTE_PUBLICATION_H */
