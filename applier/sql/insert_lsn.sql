/* applier/sql/insert_lsn.sql: where the WAL ends now, flushed or not. */
SELECT pg_catalog.pg_current_wal_insert_lsn();
