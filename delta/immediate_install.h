/*
 * delta/immediate_install.h
 *     What IMMEDIATE stream tables may read, and the triggers on it.
 */
#ifndef PGTRICKLE_IMMEDIATE_INSTALL_H
#define PGTRICKLE_IMMEDIATE_INSTALL_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "program.h"

/* An error that says why, if writers cannot maintain the query, or `role`, whose stream table it is, may not have them do it. */
extern void immediate_check(DeltaProgram *program, const char *stream_table_name, Oid role);

/* Makes the triggers that are missing and drops those that are not needed any more, as the definitions say now. */
extern void immediate_sync_triggers(void);

/* The tables that would lose their triggers, an oid list: a lock on them must be had that keeps everybody out. */
extern List *immediate_triggers_to_drop(void);

#endif							/* PGTRICKLE_IMMEDIATE_INSTALL_H */
