/*
 * delta/copy_spool.h
 *     Changes of a table that is being copied, kept in the database until the copy is switched in.
 */
#ifndef PGTRICKLE_COPY_SPOOL_H
#define PGTRICKLE_COPY_SPOOL_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "copy_definition.h"
#include "copy_reader.h"

/* Both need an SPI connection and the rights on the extension's catalog. */

/* Appends a part; `position`: of the remote, for people. */
extern void copy_spool_put(int64 copy_id, XLogRecPtr position, StringInfo data);

/* Has everything read, in order, by a reader.  False: there was nothing. */
extern bool copy_spool_replay(int64 copy_id, CopyReader *reader, CopyDefinition **current);

#endif							/* PGTRICKLE_COPY_SPOOL_H */
