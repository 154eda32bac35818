/* applier/sql/create_slot.sql: makes the replication slot; waits for transactions that are running. */
SELECT lsn FROM pg_catalog.pg_create_logical_replication_slot($1, 'pgtrickle_decoder');
