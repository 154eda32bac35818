/* applier/sql/heartbeat.sql: persists how far the slot may be told, and gives a new snapshot. */
SELECT snapshot, insert_lsn
FROM pgtrickle.applier_heartbeat($1::pg_lsn, $2::pg_lsn);
