/* applier/sql/status_slot.sql: the slot $1 and what the applier persisted last, for "pgtrickle status". */
SELECT $1::text AS slot,
	CASE WHEN slot.slot_name IS NULL THEN 'missing'
		WHEN slot.wal_status = 'lost' THEN 'lost'
		WHEN slot.active THEN 'streaming to process ' || slot.active_pid
		ELSE 'nobody streams' END AS state,
	pg_catalog.pg_size_pretty(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), slot.confirmed_flush_lsn)) AS behind,
	pg_catalog.pg_size_pretty(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), slot.restart_lsn)) AS wal_held,
	slot.wal_status,
	slot.confirmed_flush_lsn AS acknowledged,
	pg_catalog.to_char(state.persisted_at, 'YYYY-MM-DD HH24:MI:SS') AS persisted
FROM (VALUES (1)) one
LEFT JOIN pgtrickle.applier_state() state ON true
LEFT JOIN pg_catalog.pg_replication_slots slot ON slot.slot_name = $1;
