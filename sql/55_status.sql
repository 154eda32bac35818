/*
 * sql/55_status.sql
 *     Functions that report on stream tables and the applier, for people and for monitoring.
 *
 * All are functions over the views of 50_views.sql and see what their caller may see.  Where the history is read, it is a
 * bounded number of its newest rows, through an index.
 */

CREATE FUNCTION pgtrickle.version() RETURNS text
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT extversion FROM pg_extension WHERE extname = 'pgtrickle'
$$;
COMMENT ON FUNCTION pgtrickle.version() IS 'version of the extension in this database';

CREATE FUNCTION pgtrickle.pgt_status()
	RETURNS TABLE (name text, status text, refresh_mode text, is_populated boolean, consecutive_errors integer,
		schedule text, data_timestamp timestamptz, staleness interval)
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('%s.%s', pgt_schema, pgt_name), status, refresh_mode, is_populated, consecutive_errors, schedule,
		data_timestamp, staleness
	FROM pgtrickle.pg_stat_stream_tables
	ORDER BY pgt_schema, pgt_name
$$;
COMMENT ON FUNCTION pgtrickle.pgt_status() IS 'one row for each stream table';

/* ---- history ---- */

CREATE FUNCTION pgtrickle.history_by_id(pgt_id bigint, max_rows integer)
	RETURNS TABLE (refresh_id bigint, data_timestamp timestamptz, start_time timestamptz, end_time timestamptz,
		action text, status text, rows_inserted bigint, rows_deleted bigint, duration_ms double precision, error_message text)
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT h.refresh_id, h.data_timestamp, h.start_time, h.end_time, h.action, h.status, h.rows_inserted, h.rows_deleted,
		h.duration_ms, h.error_message
	FROM pgtrickle.pgt_refresh_history h
	WHERE h.pgt_id = history_by_id.pgt_id
	ORDER BY h.refresh_id DESC
	LIMIT max_rows
$$;
COMMENT ON FUNCTION pgtrickle.history_by_id(bigint, integer) IS 'what get_refresh_history() returns';

CREATE FUNCTION pgtrickle.get_refresh_history(name text, max_rows integer DEFAULT 20)
	RETURNS TABLE (refresh_id bigint, data_timestamp timestamptz, start_time timestamptz, end_time timestamptz,
		action text, status text, rows_inserted bigint, rows_deleted bigint, duration_ms double precision, error_message text)
	LANGUAGE sql STABLE STRICT PARALLEL UNSAFE
AS $$
	SELECT * FROM pgtrickle.history_by_id(pgtrickle.stream_table_id_to_see(name), max_rows)
$$;
COMMENT ON FUNCTION pgtrickle.get_refresh_history(text, integer) IS 'the last refreshes of a stream table, newest first';

CREATE FUNCTION pgtrickle.refresh_timeline(max_rows integer DEFAULT 50)
	RETURNS TABLE (start_time timestamptz, stream_table text, action text, status text, rows_inserted bigint,
		rows_deleted bigint, duration_ms double precision, error_message text)
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT h.start_time, format('%s.%s', s.pgt_schema, s.pgt_name), h.action, h.status, h.rows_inserted, h.rows_deleted,
		h.duration_ms, h.error_message
	FROM pgtrickle.pgt_refresh_history h
	JOIN pgtrickle.pgt_stream_tables s USING (pgt_id)
	ORDER BY h.refresh_id DESC
	LIMIT max_rows
$$;
COMMENT ON FUNCTION pgtrickle.refresh_timeline(integer) IS 'the last refreshes of all stream tables, newest first';

CREATE FUNCTION pgtrickle.errors_by_id(pgt_id bigint)
	RETURNS TABLE (event_time timestamptz, error_type text, error_message text, remediation text)
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT h.start_time, h.error_sqlstate, h.error_message,
		CASE
			WHEN h.error_sqlstate IN ('42P01', '42703', '42883', '42704', '3F000')
				THEN 'Something that the query names is gone. Create it again, or drop the stream table.'
			WHEN h.error_sqlstate = '42501' THEN 'The owner of the stream table may not read its sources any more. Grant it SELECT.'
			WHEN h.error_sqlstate = '55P03' THEN 'Somebody holds a lock on a source. Look into pg_locks; the refresh is tried again.'
			WHEN h.error_sqlstate IN ('40001', '40P01') THEN 'None needed: the refresh is tried again.'
			WHEN h.error_sqlstate LIKE '22%' THEN 'A row of a source makes the query fail. Correct the row, or make the query stand it.'
			WHEN h.error_sqlstate LIKE '23%' THEN 'A constraint on the stream table does not fit its rows. Drop the constraint.'
			WHEN h.error_sqlstate LIKE '53%' THEN 'The server is short of memory, disk or connections.'
			WHEN h.error_sqlstate LIKE 'XX%' THEN 'The stream table may differ from its query. Run verify(), then repair_stream_table(), and report it.'
			ELSE 'Read the message; the refresh is tried again.'
		END
	FROM (SELECT * FROM pgtrickle.pgt_refresh_history h
		WHERE h.pgt_id = errors_by_id.pgt_id ORDER BY h.refresh_id DESC LIMIT 1000) h
	WHERE h.status = 'FAILED'
	ORDER BY h.refresh_id DESC
	LIMIT 20
$$;
COMMENT ON FUNCTION pgtrickle.errors_by_id(bigint) IS 'what diagnose_errors() returns';

CREATE FUNCTION pgtrickle.diagnose_errors(name text)
	RETURNS TABLE (event_time timestamptz, error_type text, error_message text, remediation text)
	LANGUAGE sql STABLE STRICT PARALLEL UNSAFE
AS $$
	SELECT * FROM pgtrickle.errors_by_id(pgtrickle.stream_table_id_to_see(name))
$$;
COMMENT ON FUNCTION pgtrickle.diagnose_errors(text) IS
	'the last failures of a stream table (SQLSTATE and message) and what to do about them';

/* ---- statistics ---- */

CREATE FUNCTION pgtrickle.st_refresh_stats()
	RETURNS TABLE (pgt_name text, pgt_schema text, status text, refresh_mode text, is_populated boolean,
		total_refreshes bigint, successful_refreshes bigint, failed_refreshes bigint, total_rows_inserted bigint,
		total_rows_deleted bigint, avg_duration_ms double precision, last_refresh_action text, last_refresh_status text,
		last_refresh_at timestamptz, staleness_secs double precision, stale boolean, consecutive_errors integer,
		schedule text, last_error_message text)
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT v.pgt_name, v.pgt_schema, v.status, v.refresh_mode, v.is_populated, v.total_refreshes, v.successful_refreshes,
		v.failed_refreshes, v.total_rows_inserted, v.total_rows_deleted, v.avg_duration_ms, v.last_action, v.last_status,
		v.last_refresh_at, extract(epoch FROM v.staleness)::double precision, v.stale, v.consecutive_errors, v.schedule,
		s.last_error_message
	FROM pgtrickle.pg_stat_stream_tables v
	JOIN pgtrickle.pgt_stream_tables s USING (pgt_id)
	ORDER BY v.pgt_schema, v.pgt_name
$$;
COMMENT ON FUNCTION pgtrickle.st_refresh_stats() IS 'counters of refreshes, one row for each stream table';

-- The last thousand rows of history of each stream table; a row may sum up several refreshes.
CREATE FUNCTION pgtrickle.refresh_efficiency()
	RETURNS TABLE (pgt_schema text, pgt_name text, refresh_mode text, total_refreshes bigint, diff_count bigint,
		full_count bigint, avg_diff_ms double precision, avg_full_ms double precision, diff_speedup double precision,
		last_refresh_at timestamptz)
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT s.pgt_schema, s.pgt_name, s.refresh_mode, h.total, h.diffs, h.fulls, h.diff_ms / nullif(h.diffs, 0),
		h.full_ms / nullif(h.fulls, 0),
		(h.full_ms / nullif(h.fulls, 0)) / nullif(h.diff_ms / nullif(h.diffs, 0), 0), s.last_refresh_at
	FROM pgtrickle.pgt_stream_tables s
	CROSS JOIN LATERAL (
		SELECT coalesce(sum(r.refreshes), 0)::bigint AS total,
			coalesce(sum(r.refreshes) FILTER (WHERE r.action = 'DIFFERENTIAL'), 0)::bigint AS diffs,
			coalesce(sum(r.refreshes) FILTER (WHERE r.action IN ('FULL', 'REINITIALIZE')), 0)::bigint AS fulls,
			sum(r.duration_ms) FILTER (WHERE r.action = 'DIFFERENTIAL') AS diff_ms,
			sum(r.duration_ms) FILTER (WHERE r.action IN ('FULL', 'REINITIALIZE')) AS full_ms
		FROM (SELECT * FROM pgtrickle.pgt_refresh_history h WHERE h.pgt_id = s.pgt_id
			ORDER BY h.refresh_id DESC LIMIT 1000) r
		WHERE r.status = 'COMPLETED'
	) h
	ORDER BY s.pgt_schema, s.pgt_name
$$;
COMMENT ON FUNCTION pgtrickle.refresh_efficiency() IS
	'refreshes by delta against refreshes in full, in the recent history of each stream table';

CREATE FUNCTION pgtrickle.health_summary()
	RETURNS TABLE (total_stream_tables bigint, active_count bigint, error_count bigint, suspended_count bigint,
		stale_count bigint, reinit_pending bigint, max_staleness_seconds double precision, scheduler_status text)
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT count(*), count(*) FILTER (WHERE status = 'ACTIVE'),
		count(*) FILTER (WHERE status = 'ERROR' OR consecutive_errors > 0 AND status <> 'SUSPENDED'),
		count(*) FILTER (WHERE status = 'SUSPENDED'), count(*) FILTER (WHERE stale), count(*) FILTER (WHERE needs_reinit),
		extract(epoch FROM max(staleness))::double precision,
		(SELECT CASE WHEN slot_name IS NULL THEN 'NOT_SET_UP' WHEN connected THEN 'RUNNING' ELSE 'STOPPED' END FROM pgtrickle.pgt_applier)
	FROM pgtrickle.pg_stat_stream_tables
$$;
COMMENT ON FUNCTION pgtrickle.health_summary() IS 'counts of stream tables by state, and whether an applier is connected';

-- Of the last thousand rows of history of each stream table; what several refreshes took together counts for each of them alike.
CREATE FUNCTION pgtrickle.pgtrickle_refresh_stats()
	RETURNS TABLE (stream_table text, mode text, avg_ms double precision, p95_ms double precision, p99_ms double precision,
		refresh_count bigint, last_refresh_at timestamptz)
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('%s.%s', s.pgt_schema, s.pgt_name), s.effective_refresh_mode, h.avg_ms, h.p95_ms, h.p99_ms, h.refresh_count, s.last_refresh_at
	FROM pgtrickle.pgt_stream_tables s
	CROSS JOIN LATERAL (
		SELECT sum(r.duration_ms) / nullif(sum(r.refreshes), 0) AS avg_ms,
			percentile_cont(0.95) WITHIN GROUP (ORDER BY r.duration_ms / r.refreshes) AS p95_ms,
			percentile_cont(0.99) WITHIN GROUP (ORDER BY r.duration_ms / r.refreshes) AS p99_ms,
			coalesce(sum(r.refreshes), 0)::bigint AS refresh_count
		FROM (SELECT * FROM pgtrickle.pgt_refresh_history h WHERE h.pgt_id = s.pgt_id
			ORDER BY h.refresh_id DESC LIMIT 1000) r
		WHERE r.status = 'COMPLETED' AND r.duration_ms IS NOT NULL
	) h
	ORDER BY s.pgt_schema, s.pgt_name
$$;
COMMENT ON FUNCTION pgtrickle.pgtrickle_refresh_stats() IS
	'how long the last refreshes of each stream table took';

/* ---- the applier, its slot, the sources ---- */

CREATE FUNCTION pgtrickle.slot_health()
	RETURNS TABLE (slot_name text, source_relid oid, active boolean, retained_wal_bytes bigint, wal_status text)
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT slot_name, NULL::oid, connected, retained_wal_bytes, coalesce(wal_status, 'missing')
	FROM pgtrickle.pgt_applier
	WHERE slot_name IS NOT NULL
$$;
COMMENT ON FUNCTION pgtrickle.slot_health() IS
	'the replication slot; there is one for all sources, so source_relid is null';

-- An update or delete of a source comes with its old row only under REPLICA IDENTITY FULL; a partitioned table is judged by its leaves.
CREATE FUNCTION pgtrickle.check_cdc_health()
	RETURNS TABLE (source_relid oid, source_table text, cdc_mode text, slot_name text, lag_bytes bigint, confirmed_lsn pg_lsn,
		alert text)
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT d.source_relid, format('%s.%s', d.source_schema, d.source_name), 'WAL', a.slot_name, a.lag_bytes, a.confirmed_flush_lsn,
		CASE
			WHEN NOT a.slot_exists THEN 'replication slot is missing'
			WHEN a.wal_status = 'lost' THEN 'replication slot has been invalidated'
			WHEN c.oid IS NULL THEN 'source does not exist'
			WHEN c.relpersistence <> 'p' THEN 'source is unlogged, so its changes are not in the WAL'
			WHEN NOT logs_old_rows THEN 'updates and deletes come without their old rows: ALTER TABLE ... REPLICA IDENTITY FULL'
		END
	FROM (SELECT DISTINCT source_relid, source_schema, source_name FROM pgtrickle.pgt_dependencies
		WHERE source_type IN ('TABLE', 'PARTITIONED_TABLE')) d
	CROSS JOIN pgtrickle.pgt_applier a
	LEFT JOIN pg_class c ON c.oid = d.source_relid
	CROSS JOIN LATERAL (
		SELECT NOT EXISTS (
			SELECT FROM (SELECT d.source_relid UNION SELECT t.relid FROM pg_partition_tree(d.source_relid) t) leaf (oid)
			JOIN pg_class l ON l.oid = leaf.oid
			WHERE l.relkind = 'r' AND l.relreplident <> 'f') AS logs_old_rows
	) r
	ORDER BY 2
$$;
COMMENT ON FUNCTION pgtrickle.check_cdc_health() IS
	'for each source, whether its changes arrive completely; alert is null when they do';

CREATE FUNCTION pgtrickle.health_check()
	RETURNS TABLE (check_name text, severity text, detail text)
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT 'wal_level', CASE WHEN current_setting('wal_level') = 'logical' THEN 'OK' ELSE 'CRITICAL' END,
		format('wal_level is %s', current_setting('wal_level'))
	UNION ALL
	SELECT 'output_plugin_libraries',
		CASE WHEN s.setting IS NULL OR s.setting LIKE '%pgtrickle\_decoder%' THEN 'OK' ELSE 'CRITICAL' END,
		coalesce(format('output_plugin_libraries is %s', s.setting), 'the server does not restrict output plugins')
	FROM (SELECT current_setting('output_plugin_libraries', true) AS setting) s
	UNION ALL
	SELECT 'slot',
		CASE WHEN a.slot_exists AND a.wal_status IS DISTINCT FROM 'lost' THEN 'OK' ELSE 'CRITICAL' END,
		CASE WHEN a.slot_name IS NULL THEN 'no applier has ever been started'
			WHEN NOT a.slot_exists THEN format('replication slot %s does not exist', a.slot_name)
			ELSE format('replication slot %s: WAL is %s', a.slot_name, a.wal_status) END
	FROM pgtrickle.pgt_applier a
	UNION ALL
	SELECT 'applier', CASE WHEN a.connected THEN 'OK' ELSE 'CRITICAL' END,
		CASE WHEN a.connected THEN format('an applier is connected since %s', a.started_at)
			ELSE 'no applier is connected: start "pgtrickle run"' END
	FROM pgtrickle.pgt_applier a
	UNION ALL
	SELECT 'lag', CASE WHEN a.lag_bytes > 1073741824 THEN 'WARNING' ELSE 'OK' END,
		format('%s of WAL not yet acknowledged, %s retained', pg_size_pretty(a.lag_bytes), pg_size_pretty(a.retained_wal_bytes))
	FROM pgtrickle.pgt_applier a WHERE a.lag_bytes IS NOT NULL
	UNION ALL
	SELECT 'failing_stream_tables', CASE WHEN count(*) > 0 THEN 'CRITICAL' ELSE 'OK' END,
		CASE WHEN count(*) > 0 THEN string_agg(format('%s.%s (%s, %s errors)', pgt_schema, pgt_name, status, consecutive_errors), ', ')
			ELSE 'none' END
	FROM pgtrickle.pgt_stream_tables
	WHERE status IN ('SUSPENDED', 'ERROR') OR consecutive_errors > 0
	UNION ALL
	SELECT 'stale_stream_tables', CASE WHEN count(*) > 0 THEN 'WARNING' ELSE 'OK' END,
		CASE WHEN count(*) > 0 THEN string_agg(format('%s.%s (%s)', pgt_schema, pgt_name, date_trunc('second', staleness)), ', ')
			ELSE 'none' END
	FROM pgtrickle.pg_stat_stream_tables
	WHERE stale AND status <> 'PAUSED'
	UNION ALL
	SELECT 'paused_stream_tables', CASE WHEN count(*) > 0 THEN 'WARNING' ELSE 'OK' END,
		CASE WHEN count(*) > 0 THEN string_agg(format('%s.%s', pgt_schema, pgt_name), ', ') ELSE 'none' END
	FROM pgtrickle.pgt_stream_tables
	WHERE status = 'PAUSED'
	UNION ALL
	SELECT 'pending_refills', CASE WHEN count(*) > 0 THEN 'WARNING' ELSE 'OK' END,
		CASE WHEN count(*) > 0 THEN string_agg(format('%s.%s (%s)', pgt_schema, pgt_name, reinit_reason), ', ') ELSE 'none' END
	FROM pgtrickle.pgt_stream_tables
	WHERE needs_reinit
	UNION ALL
	SELECT 'sources', CASE WHEN count(*) > 0 THEN 'WARNING' ELSE 'OK' END,
		CASE WHEN count(*) > 0 THEN string_agg(format('%s: %s', source_table, alert), ', ') ELSE 'all changes arrive completely' END
	FROM pgtrickle.check_cdc_health()
	WHERE alert IS NOT NULL
$$;
COMMENT ON FUNCTION pgtrickle.health_check() IS
	'everything that must be well, with OK, WARNING or CRITICAL and the facts';

CREATE FUNCTION pgtrickle.preflight() RETURNS text
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT jsonb_pretty(jsonb_build_object(
		'ok', bool_and(c.severity <> 'CRITICAL'),
		'version', pgtrickle.version(),
		'server_version', current_setting('server_version'),
		'checks', jsonb_agg(jsonb_build_object('check', c.check_name, 'severity', c.severity, 'detail', c.detail))))
	FROM pgtrickle.health_check() c
$$;
COMMENT ON FUNCTION pgtrickle.preflight() IS
	'health_check() as one JSON text, with versions and whether nothing is critical';
