/*
 * delta/immediate_install.h
 *     IMMEDIATE stream tables come, go, and get other sources: what they may read, and the triggers on it.
 */
#ifndef PGTRICKLE_IMMEDIATE_INSTALL_H
#define PGTRICKLE_IMMEDIATE_INSTALL_H

#include "postgres.h"

#include "program.h"

/* An error that says why, if writers cannot maintain the query, or `role`, whose stream table it is, may not have them do it. */
extern void immediate_check(DeltaProgram *program, const char *stream_table_name, Oid role);

/* Keeps writers away from the sources until the end of the transaction; those that are at work are waited for. */
extern void immediate_lock_sources(DeltaProgram *program);

/* The same for an IMMEDIATE stream table, and keeps others from maintaining it; nothing for others. */
extern void immediate_lock_stream_table(int64 pgt_id);

/* Makes the triggers that are missing and drops those that are not needed any more, as the definitions say now. */
extern void immediate_sync_triggers(void);

#endif							/* PGTRICKLE_IMMEDIATE_INSTALL_H */
