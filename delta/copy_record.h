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

extern void copy_record(const CopyEntry *entry, const RemoteMove *move);

#endif							/* PGTRICKLE_COPY_RECORD_H */
