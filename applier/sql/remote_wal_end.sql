/*
 * applier/sql/remote_wal_end.sql
 *     Where the remote's WAL ends, or what a standby has of it; everything visible lies before it.
 *
 * A standby makes a commit visible just before it moves the position to which it has replayed.
 */
SELECT CASE WHEN pg_catalog.pg_is_in_recovery()
	THEN greatest(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn())
	ELSE pg_catalog.pg_current_wal_insert_lsn() END;
