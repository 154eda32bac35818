/*
 * applier/sql/remote_preconditions.sql
 *     What set-up and doctor want to know about a remote and the role that connects (slot: $1), in one row.
 */
SELECT
	pg_catalog.current_setting('server_version_num')::int AS version_number,
	pg_catalog.current_setting('server_version') AS version,
	pg_catalog.pg_is_in_recovery() AS is_standby,
	pg_catalog.current_setting('wal_level') AS wal_level,
	pg_catalog.current_setting('server_encoding') AS encoding,
	pg_catalog.current_setting('max_replication_slots')::int AS max_replication_slots,
	(SELECT count(*) FROM pg_catalog.pg_replication_slots) AS used_replication_slots,
	pg_catalog.current_setting('max_wal_senders')::int AS max_wal_senders,
	(SELECT count(*) FROM pg_catalog.pg_stat_replication) AS used_wal_senders,
	CASE WHEN pg_catalog.pg_has_role('pg_read_all_settings', 'USAGE')
		THEN pg_catalog.current_setting('output_plugin_libraries', true) END AS output_plugin_libraries,
	pg_catalog.current_setting('synchronous_standby_names') AS synchronous_standby_names,
	pg_catalog.current_setting('max_slot_wal_keep_size') AS max_slot_wal_keep_size,
	pg_catalog.current_setting('idle_replication_slot_timeout', true) AS idle_replication_slot_timeout,
	role.rolsuper OR role.rolreplication AS may_replicate,
	slot.slot_name IS NOT NULL AS slot_exists,
	slot.plugin AS slot_plugin,
	slot.database AS slot_database,
	slot.active AS slot_is_active,
	slot.wal_status AS slot_wal_status,
	pg_catalog.pg_wal_lsn_diff(CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END, slot.restart_lsn)::bigint AS slot_wal_held,
	pg_catalog.current_database() AS database
FROM (VALUES (1)) one
LEFT JOIN pg_catalog.pg_roles role ON role.rolname = current_user
LEFT JOIN pg_catalog.pg_replication_slots slot ON slot.slot_name = $1;
