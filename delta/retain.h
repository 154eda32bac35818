/*
 * delta/retain.h
 *     Keeps what a refresh changed in a stream table whose option retain_history is set.
 */
#ifndef PGTRICKLE_RETAIN_H
#define PGTRICKLE_RETAIN_H

#include "postgres.h"

#include "rowset.h"
#include "utils/timestamp.h"

/*
 * Writes the net delta of a stream table (apply_delta's `net`) into its history.  `moment`: that of the snapshot which its rows
 * equal with this delta.  Needs an SPI connection and an active snapshot; whose rights are in force does not matter.
 */
extern void retain_changes(int64 pgt_id, Oid owner, Rowset *net, TimestampTz moment);

/* The stream table has got its first rows: its history begins here. */
extern void retain_begin(int64 pgt_id, TimestampTz moment);

/* Is the option set, as the catalog stands now? */
extern bool retain_is_wanted(int64 pgt_id);

#endif							/* PGTRICKLE_RETAIN_H */
