/* applier/sql/remote_create_slot.sql: on a remote, the slot $1 with the plugin $2. */
SELECT slot_name FROM pg_catalog.pg_create_logical_replication_slot($1, $2);
