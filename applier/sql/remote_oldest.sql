/* applier/sql/remote_oldest.sql: has every transaction ended that had begun when a snapshot had the xmax $1? */
SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) >= $1::xid8;
