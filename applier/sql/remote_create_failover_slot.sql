/*
 * applier/sql/remote_create_failover_slot.sql
 *     On a remote that is a primary of version 17 or later, the slot $1 with the plugin $2: its standbys keep copies of it if they are told to.
 */
SELECT slot_name FROM pg_catalog.pg_create_logical_replication_slot($1, $2, false, false, true);
