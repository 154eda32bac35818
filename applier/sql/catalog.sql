/*
 * applier/sql/catalog.sql
 *     Every stream table and every copy of a remote's table, and the snapshot that this answer was read with.
 *
 * Lists come as text: numbers with blanks between them, names with line ends.  Times cross as the time
 * left or the time since, because the two clocks differ.
 */
SELECT pg_catalog.pg_current_snapshot(),
	c.pgt_id,
	c.relid,
	c.pgt_schema || '.' || c.pgt_name,
	c.status,
	c.schedule_kind,
	c.schedule_ms,
	pg_catalog.array_to_string(c.source_relids, ' '),
	(SELECT pg_catalog.string_agg(s.relid::pg_catalog.regclass::text, E'\n' ORDER BY s.number)
		FROM pg_catalog.unnest(c.source_relids) WITH ORDINALITY s (relid, number)),
	pg_catalog.array_to_string(c.upstream_ids, ' '),
	c.frontier_snapshot,
	c.frontier_lsn,
	c.frontier_xid,
	c.filled_xid,
	c.needs_refill,
	c.refill_reason,
	c.consecutive_errors,
	greatest(0, extract(epoch FROM c.retry_at - pg_catalog.clock_timestamp()) * 1000)::bigint,
	c.clock,
	greatest(0, extract(epoch FROM pg_catalog.clock_timestamp() - c.data_timestamp) * 1000)::bigint,
	greatest(0, ceil(extract(epoch FROM c.cron_at - pg_catalog.clock_timestamp()) * 1000))::bigint,
	c.spool_snapshot,
	greatest(0, extract(epoch FROM pg_catalog.clock_timestamp() - c.spooled_since) * 1000)::bigint,
	c.group_id,
	k.remote_id,
	k.remote_relid,
	k.status,
	k.copied_lsn,
	k.copied_from
FROM (VALUES (1)) one
LEFT JOIN pgtrickle.applier_catalog() c ON true
LEFT JOIN pgtrickle.copy_catalog() k ON k.copy_id = c.pgt_id;
