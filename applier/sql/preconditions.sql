/*
 * applier/sql/preconditions.sql
 *     What set-up and doctor want to know about the server and the role $1 (slot: $2), in one row.
 *
 * Settings that this version does not have are NULL; so is the list of output plugins for who may not see it, such as the applier's role.
 */
SELECT
	pg_catalog.current_setting('server_version_num')::int AS version_number,
	pg_catalog.current_setting('server_version') AS version,
	pg_catalog.pg_is_in_recovery() AS is_in_recovery,
	pg_catalog.current_setting('wal_level') AS wal_level,
	pg_catalog.current_setting('max_replication_slots')::int AS max_replication_slots,
	(SELECT count(*) FROM pg_catalog.pg_replication_slots) AS used_replication_slots,
	pg_catalog.current_setting('max_wal_senders')::int AS max_wal_senders,
	(SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'walsender') AS used_wal_senders,
	CASE WHEN pg_catalog.pg_has_role('pg_read_all_settings', 'USAGE')
		THEN pg_catalog.current_setting('output_plugin_libraries', true) END AS output_plugin_libraries,
	pg_catalog.pg_has_role('pg_read_all_settings', 'USAGE') AS may_see_settings,
	pg_catalog.current_setting('synchronous_standby_names') AS synchronous_standby_names,
	pg_catalog.current_setting('max_slot_wal_keep_size') AS max_slot_wal_keep_size,
	pg_catalog.current_setting('idle_replication_slot_timeout', true) AS idle_replication_slot_timeout,
	pg_catalog.current_setting('is_superuser') = 'on' AS is_superuser,
	(SELECT default_version FROM pg_catalog.pg_available_extensions WHERE name = 'pgtrickle') AS available_version,
	(SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'pgtrickle') AS installed_version,
	role.rolname IS NOT NULL AS role_exists,
	role.rolsuper AS role_is_superuser,
	role.rolcanlogin AS role_can_login,
	role.rolreplication AS role_can_replicate,
	pg_catalog.pg_has_role(role.oid, 'pg_read_all_data', 'USAGE') AS role_reads_all_data,
	pg_catalog.has_database_privilege(role.oid, pg_catalog.current_database(), 'CONNECT') AS role_can_connect,
	slot.slot_name IS NOT NULL AS slot_exists,
	slot.plugin AS slot_plugin,
	slot.database AS slot_database,
	slot.active AS slot_is_active,
	slot.wal_status AS slot_wal_status,
	pg_catalog.current_database() AS database
FROM (VALUES (1)) one
LEFT JOIN pg_catalog.pg_roles role ON role.rolname = $1
LEFT JOIN pg_catalog.pg_replication_slots slot ON slot.slot_name = $2;
