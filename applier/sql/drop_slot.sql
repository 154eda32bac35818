/* applier/sql/drop_slot.sql: drops the replication slot. */
SELECT pg_catalog.pg_drop_replication_slot($1);
