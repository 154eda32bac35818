/* applier/sql/tick_execute.sql: runs the delta programs; one row each, and one with the tick's own xid. */
SELECT pgt_id, action, rows_inserted, rows_deleted, duration_ms, reason
FROM pgtrickle.tick_execute($1::pg_lsn, $2::pg_lsn);
