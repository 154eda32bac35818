/*
 * applier/sql/remote_look.sql
 *     On a remote: what the server is, and what became of the slot $1: one row.
 *
 * The timeline of a primary is that of the WAL being written; the control file learns of a promotion only later.
 */
SELECT pg_catalog.pg_is_in_recovery(),
	control.system_identifier::text,
	CASE WHEN pg_catalog.pg_is_in_recovery() THEN (SELECT c.timeline_id FROM pg_catalog.pg_control_checkpoint() c)
	ELSE ('x' || pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 8))::bit(32)::int
	END,
	(SELECT s.setting FROM pg_catalog.pg_settings s WHERE s.name = 'wal_segment_size'),
	CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
	ELSE pg_catalog.pg_current_wal_insert_lsn()
	END,
	slot.slot_name IS NOT NULL,
	slot.database = pg_catalog.current_database(),
	slot.plugin,
	slot.active,
	slot.active_pid,
	slot.wal_status,
	slot.confirmed_flush_lsn,
	pg_catalog.current_setting('wal_level'),
	pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())
FROM pg_catalog.pg_control_system() control
CROSS JOIN (VALUES (1)) one
LEFT JOIN pg_catalog.pg_replication_slots slot ON slot.slot_name = $1;
