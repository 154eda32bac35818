/*
 * delta/immediate_merge.h
 *     Does a trigger fire for a MERGE?
 */
#ifndef PGTRICKLE_IMMEDIATE_MERGE_H
#define PGTRICKLE_IMMEDIATE_MERGE_H

#include "postgres.h"

/* Called once, when the library is loaded. */
extern void immediate_merge_init(void);

/* For the statement whose BEFORE trigger is running; true also when that cannot be told. */
extern bool immediate_may_be_merge(void);

#endif							/* PGTRICKLE_IMMEDIATE_MERGE_H */
