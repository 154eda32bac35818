/*
 * applier/sql/remote_settled.sql
 *     A position before which everything that was committed can be seen as soon as those transactions have ended that run now.
 *
 * A standby has commits that it has not replayed, whose transactions are unknown to it.
 */
SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END;
