/* applier/sql/remote_oldest.sql: has every transaction below $1 ended? */
SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) >= $1::xid8;
