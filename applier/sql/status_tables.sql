/* applier/sql/status_tables.sql: the stream tables, for "pgtrickle status". */
SELECT c.pgt_schema || '.' || c.pgt_name AS stream_table,
	c.status,
	CASE WHEN c.schedule_kind <> 'interval' THEN c.schedule_kind
		WHEN c.schedule_ms % 1000 = 0 THEN c.schedule_ms / 1000 || ' s'
		ELSE c.schedule_ms || ' ms' END AS schedule,
	c.refresh_mode,
	c.frontier_lsn AS frontier,
	c.consecutive_errors AS errors,
	CASE WHEN c.needs_refill THEN 'to be filled: ' || coalesce(c.refill_reason, '')
		WHEN c.consecutive_errors > 0 THEN 'next try at ' || pg_catalog.to_char(c.retry_at, 'HH24:MI:SS')
		ELSE '' END AS note
FROM pgtrickle.applier_catalog() c
WHERE c.schedule_kind <> 'copy'
ORDER BY 1;
