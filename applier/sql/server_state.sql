/*
 * applier/sql/server_state.sql
 *     What was persisted last, what the server is, and what became of the slot: one row.
 *
 * The timeline is that of the WAL being written; the control file learns of a promotion only later.
 */
SELECT pg_catalog.pg_is_in_recovery(),
	control.system_identifier::text,
	CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN
		('x' || pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 8))::bit(32)::int
	END,
	(SELECT s.setting FROM pg_catalog.pg_settings s WHERE s.name = 'wal_segment_size'),
	state.system_identifier,
	state.timeline,
	state.slot_name,
	state.ack_lsn,
	state.valid_xid,
	slot.slot_name IS NOT NULL,
	slot.plugin = 'pgtrickle_decoder' AND slot.database = pg_catalog.current_database(),
	slot.active,
	slot.active_pid,
	slot.wal_status,
	slot.confirmed_flush_lsn
FROM pg_catalog.pg_control_system() control
CROSS JOIN (VALUES (1)) one
LEFT JOIN pgtrickle.applier_state() state ON true
LEFT JOIN pg_catalog.pg_replication_slots slot ON slot.slot_name = $1;
