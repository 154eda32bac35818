/*
 * delta/immediate_pending.h
 *     What a transaction has written to sources and not yet to IMMEDIATE stream tables: open statements, pending deltas.
 */
#ifndef PGTRICKLE_IMMEDIATE_PENDING_H
#define PGTRICKLE_IMMEDIATE_PENDING_H

#include "postgres.h"

#include "commands/trigger.h"
#include "nodes/bitmapset.h"
#include "rowset.h"

/* Changed rows of one source, as some stream tables want them. */
typedef struct PendingDelta
{
	Oid			source_relid;
	Bitmapset  *used_attnos;	/* other columns are NULL */
	Rowset	   *rowset;
	bool		is_unknown;		/* truncated: everything may have changed; no rowset */
	SubTransactionId subid;		/* of the statement */
} PendingDelta;

/* A statement (INSERT, UPDATE, DELETE or TRUNCATE, of the event) on a table begins, or ends. */
extern void pending_open(Oid relid, TriggerEvent event);
extern void pending_close(Oid relid, TriggerEvent event);

/* Has some statement begun and not ended? */
extern bool pending_is_open(void);

/* The delta to which the present statement's rows of a source are to be added; made if there is none. */
extern PendingDelta *pending_delta(Oid source_relid, const Bitmapset *used_attnos, TupleDesc columns);
extern void pending_note_unknown(Oid source_relid);

/* All deltas (PendingDelta) if there is anything in them, else NIL; from now on none is pending.  They stay until pending_done(). */
extern List *pending_take(void);
extern void pending_done(void);

#endif							/* PGTRICKLE_IMMEDIATE_PENDING_H */
