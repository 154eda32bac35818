/*
 * applier/sql/large_spools.sql
 *     Changes that wait in this database and take more than a gigabyte: for slow schedules, and for tables that are being copied.
 */
SELECT s.waiting, pg_catalog.pg_size_pretty(s.bytes) AS size
FROM (
	SELECT w.waiting, pg_catalog.pg_total_relation_size(w.spool) AS bytes
	FROM (VALUES ('stream tables with slow schedules', 'pgtrickle.pgt_spool'::pg_catalog.regclass),
		('copies of tables that are being copied', 'pgtrickle.pgt_copy_spool')) w (waiting, spool)
) s
WHERE s.bytes > 1024 * 1024 * 1024::bigint;
