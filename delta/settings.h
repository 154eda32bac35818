/*
 * delta/settings.h
 *     The settings of the extension, as the rest of the library reads them.
 *
 * docs/reference/sql.md explains each of them to users; the names there carry the prefix "pgtrickle.".
 */
#ifndef PGTRICKLE_SETTINGS_H
#define PGTRICKLE_SETTINGS_H

#include "postgres.h"

/* What create_stream_table does about the replica identity of its sources. */
typedef enum ReplicaIdentityPolicy
{
	REPLICA_IDENTITY_AUTO, /* set FULL where the caller may, else say which statement is needed */
	REPLICA_IDENTITY_REQUIRE, /* refuse sources whose changes would come without their old rows */
	REPLICA_IDENTITY_OFF /* leave it alone, and say nothing */
} ReplicaIdentityPolicy;

extern PGDLLIMPORT int	 pgtrickle_refresh_timeout_ms; /* 0: wait for ever */
extern PGDLLIMPORT char *pgtrickle_default_schedule; /* of calculated, without consumers */
extern PGDLLIMPORT int	 pgtrickle_max_consecutive_errors; /* then suspended; 0: never */
extern PGDLLIMPORT int	 pgtrickle_replica_identity; /* a ReplicaIdentityPolicy */
extern PGDLLIMPORT int	 pgtrickle_replica_identity_lock_timeout_ms; /* 0: wait for ever */
extern PGDLLIMPORT int	 pgtrickle_history_retention_s; /* -1: keep all */
extern PGDLLIMPORT bool	 pgtrickle_paranoid_verify;
extern PGDLLIMPORT bool	 pgtrickle_cost_based;
extern PGDLLIMPORT bool	 pgtrickle_trust_foreign_keys;
extern PGDLLIMPORT int	 pgtrickle_immediate_keys_max; /* more locks than these: one for all */
extern PGDLLIMPORT int	 pgtrickle_flat_join_inputs_max; /* more changed inputs: fewer, larger terms */
extern PGDLLIMPORT int	 pgtrickle_near_rows_min_pages; /* scanning a smaller table costs nothing */

#endif /* PGTRICKLE_SETTINGS_H */
