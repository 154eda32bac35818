/*
 * delta/copy_positions.h
 *     How far each remote has been followed: announced before a tick, written by it.
 */
#ifndef PGTRICKLE_COPY_POSITIONS_H
#define PGTRICKLE_COPY_POSITIONS_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"

/* A remote that takes part in the tick of this transaction. */
typedef struct RemoteMove
{
	int			set;			/* the change set that holds what it committed */
	int			remote_id;
	XLogRecPtr	position;		/* up to here */
	TimestampTz position_at;	/* 0: not known */
	uint64		last_xid;		/* of the last transaction in the change set, 0: there is none */
	XLogRecPtr	last_commit_lsn;
} RemoteMove;

/* The remote whose transactions the change set holds; NULL: those of this database. */
extern const RemoteMove *remote_move_of_set(int set);

/* A transaction of the change set has been read. */
extern void remote_move_note(int set, uint64 xid, XLogRecPtr commit_lsn);

/* Writes the positions of all remotes that take part; needs an SPI connection and the rights on the extension's catalog. */
extern void remote_positions_write(void);

#endif							/* PGTRICKLE_COPY_POSITIONS_H */
