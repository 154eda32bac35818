/*
 * delta/copy_swap.h
 *     Gives an empty copy the files of the table that was loaded for it.
 */
#ifndef PGTRICKLE_COPY_SWAP_H
#define PGTRICKLE_COPY_SWAP_H

#include "postgres.h"

#include "copy_definition.h"

typedef enum CopySwap
{
	COPY_SWAPPED,
	COPY_SWAP_LATER,			/* somebody reads the copy, or may read it by a snapshot that is too old */
	COPY_SWAP_NEVER				/* the tables are not made alike */
} CopySwap;

/*
 * `exact_xid`: the transaction that made the load table what the remote's was; every later one has kept it so.  After COPY_SWAPPED the load
 * table is gone, otherwise nothing has changed.  Waits for locks for a moment only.
 */
extern CopySwap copy_swap(const CopyDefinition *definition, uint64 exact_xid);

/* The index of the load table that was made as this one of the copy is; InvalidOid: none. */
extern Oid	copy_swap_twin(Oid load_table, Oid index);

/* Drops the load table, whatever its files are. */
extern void copy_swap_drop(Oid load_table);

#endif							/* PGTRICKLE_COPY_SWAP_H */
