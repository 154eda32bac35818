/* applier/sql/tick_begin.sql: the snapshot of a tick, after BEGIN and LOCK TABLE. */
SELECT snapshot, insert_lsn FROM pgtrickle.tick_begin();
