/*
 * delta/verify.h
 *     Compares a stream table with its defining query, inside the tick that refreshed it.
 */
#ifndef PGTRICKLE_VERIFY_H
#define PGTRICKLE_VERIFY_H

#include "run.h"

/* Stores the differing rows under `nonce` in pgtrickle.pgt_verifications; none when they are equal. */
extern void verify_store(LoadedTable *table, const char *nonce);

#endif							/* PGTRICKLE_VERIFY_H */
