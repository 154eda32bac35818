/* applier/sql/stopped_tables.sql: stream tables that failures have stopped. */
SELECT pg_catalog.format('%I.%I', pgt_schema, pgt_name) AS stream_table, status
FROM pgtrickle.applier_catalog()
WHERE status IN ('SUSPENDED', 'ERROR') AND schedule_kind <> 'copy'
ORDER BY 1;
