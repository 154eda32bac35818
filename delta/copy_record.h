/*
 * delta/copy_record.h
 *     Writes what a tick did to a copy into the catalog.
 */
#ifndef PGTRICKLE_COPY_RECORD_H
#define PGTRICKLE_COPY_RECORD_H

#include "postgres.h"

#include "copy_positions.h"
#include "copy_tick.h"

/* Both need an SPI connection and the rights on the extension's catalog. */

/* A serialization failure if the copy's state is younger than the tick: what was loaded last might not be seen. */
extern void copy_record_lock(const CopyDefinition *definition);

/*
 * The load table has caught up, in this transaction or, if nothing was there to catch up with, when it was loaded.  Returns which transaction it is.
 */
extern uint64 copy_record_exact(const CopyDefinition *definition, bool since_loaded);

/* So many more rows are in the load table. */
extern void copy_record_followed(const CopyDefinition *definition, int64 rows);

/* Does some stream table over the copy still have to be filled with its rows? */
extern bool copy_record_is_filling(int64 copy_id);

/* The stream has brought rows of this part of a partitioned table: should it be gone when the program looks at the remote, they are, too. */
extern void copy_record_member(const CopyDefinition *definition, Oid remote_relid, const char *name);

/* The rows are gone, and that is as it should be. */
extern void copy_record_dropped(int64 copy_id);

/* The copy that is this table and has dropped its rows; 0: none.  `is_active`: nobody is copying them already. */
extern int64 copy_record_without_rows(Oid relid, bool *is_active);

extern void copy_record(const CopyEntry *entry, const RemoteMove *move);

#endif							/* PGTRICKLE_COPY_RECORD_H */
