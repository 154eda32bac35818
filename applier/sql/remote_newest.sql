/*
 * applier/sql/remote_newest.sql
 *     A transaction id that is not below that of any transaction which has begun to write; for remote_oldest.sql.
 *
 * The xmax of a snapshot does not serve: it is next to the newest transaction that has ended, and others may be running beyond.  On a standby
 * those have not been replayed to their end, and so lie behind its position.
 */
SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())
	ELSE pg_catalog.pg_current_xact_id() END;
