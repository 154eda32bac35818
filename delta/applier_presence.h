/*
 * delta/applier_presence.h
 *     Is the applier there, and how far is it?
 */
#ifndef PGTRICKLE_APPLIER_PRESENCE_H
#define PGTRICKLE_APPLIER_PRESENCE_H

#include "postgres.h"

#include "access/xlogdefs.h"

/* Does the walsender of this slot run? */
extern bool applier_is_connected(const char *slot_name);

/* What the applier has said to have applied; invalid when it is not there, or has never been (NULL). */
extern XLogRecPtr applier_consumed_lsn(const char *slot_name);

#endif							/* PGTRICKLE_APPLIER_PRESENCE_H */
