/*
 * sql/50_views.sql
 *     What users may read of the catalog, under the names and with the columns that users of stream tables know.
 *
 * Everybody may read these views; each shows the stream tables on which the reader has SELECT, or which are the reader's own, and
 * all of them to members of pg_monitor and the groups of 12_roles.sql.  What an error said may quote rows of the sources, so only owners, pg_monitor and
 * operators see it.
 * All of it is read from counters that each refresh moves; nothing here scans the history.
 */

/* ---- the basis ---- */

/*
 * The schedule that each stream table follows.  A calculated one is the smallest among the stream tables that read it, and so on up to
 * those which say themselves; pgtrickle.default_schedule when nobody reads it.  `reach` walks from each calculated one to its
 * consumers, and stops at those that are not calculated.
 */
CREATE VIEW pgtrickle.pgt_schedules AS
	WITH RECURSIVE told AS (
		SELECT d.pgt_id, d.relid,
			CASE WHEN d.refresh_mode = 'IMMEDIATE' THEN 'immediate' ELSE pgtrickle.schedule_kind(d.schedule) END AS kind,
			pgtrickle.schedule_ms(d.schedule) AS ms
		FROM pgtrickle.pgt_definitions d
	), edges AS (
		SELECT upstream.pgt_id AS upstream_id, s.pgt_id AS consumer_id
		FROM pgtrickle.pgt_sources s
		JOIN told upstream ON upstream.relid = s.source_relid
		WHERE upstream.kind = 'calculated'
	), reach (pgt_id, consumer_id) AS (
		SELECT e.upstream_id, e.consumer_id FROM edges e
		UNION
		SELECT r.pgt_id, e.consumer_id FROM reach r JOIN edges e ON e.upstream_id = r.consumer_id
	), ends (pgt_id, end_id) AS (
		-- where a walk ends at a calculated one, also a walk without a step
		SELECT t.pgt_id, t.pgt_id FROM told t WHERE t.kind = 'calculated'
		UNION ALL
		SELECT r.pgt_id, r.consumer_id FROM reach r JOIN told c ON c.pgt_id = r.consumer_id WHERE c.kind = 'calculated'
	), wishes AS (
		SELECT r.pgt_id, CASE WHEN c.kind = 'immediate' THEN 0 ELSE c.ms END AS ms
		FROM reach r JOIN told c ON c.pgt_id = r.consumer_id WHERE c.kind <> 'calculated'
		UNION ALL
		SELECT w.pgt_id, pgtrickle.schedule_ms(pgtrickle.setting('default_schedule'))
		FROM ends w WHERE NOT EXISTS (SELECT FROM edges e WHERE e.upstream_id = w.end_id)
	), smallest AS (
		-- a manual wish has no duration: it counts only where there is no other
		SELECT w.pgt_id, min(w.ms) AS ms FROM wishes w GROUP BY w.pgt_id
	)
	SELECT t.pgt_id,
		CASE WHEN t.kind <> 'calculated' THEN t.kind
			WHEN s.ms = 0 THEN 'continuous'
			WHEN s.ms > 0 THEN 'interval'
			ELSE 'manual' END AS schedule_kind,
		CASE WHEN t.kind <> 'calculated' THEN t.ms ELSE s.ms END AS schedule_ms
	FROM told t LEFT JOIN smallest s USING (pgt_id);
COMMENT ON VIEW pgtrickle.pgt_schedules IS
	'the schedule that each stream table follows, calculated ones worked out; not for users';

/*
 * Do changes of the stream table, or of one that it reads, wait in the spool?  Then the slot has moved past what is not in its rows.
 *
 * A function and not a view, because a server that has never analyzed these tables expects a recursion over them to be large, and
 * compiling a query to machine code takes a hundred times as long as this one runs.
 */
CREATE FUNCTION pgtrickle.waits_in_spool(pgt_id bigint) RETURNS boolean
	LANGUAGE sql STABLE STRICT PARALLEL SAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
	WITH RECURSIVE waiting (pgt_id) AS (
		SELECT f.pgt_id FROM pgtrickle.pgt_frontiers f WHERE f.spool_snapshot IS NOT NULL
		UNION
		SELECT consumer.pgt_id
		FROM waiting w
		JOIN pgtrickle.pgt_definitions d ON d.pgt_id = w.pgt_id
		JOIN pgtrickle.pgt_sources consumer ON consumer.source_relid = d.relid
	)
	SELECT EXISTS (SELECT FROM waiting w WHERE w.pgt_id = waits_in_spool.pgt_id)
$$;
COMMENT ON FUNCTION pgtrickle.waits_in_spool(bigint) IS
	'do the rows of a stream table lack what the spool has; not for users';

-- What reads a stream table that is stopped stands still with it, or, where writers maintain it, follows all but that one.
CREATE FUNCTION pgtrickle.standing_upstream(pgt_id bigint) RETURNS text
	LANGUAGE sql STABLE STRICT PARALLEL SAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
	WITH RECURSIVE standing (pgt_id, cause) AS (
		SELECT d.pgt_id, d.pgt_id FROM pgtrickle.pgt_definitions d WHERE d.status IN ('PAUSED', 'SUSPENDED', 'ERROR')
		UNION
		SELECT consumer.pgt_id, s.cause
		FROM standing s
		JOIN pgtrickle.pgt_definitions d ON d.pgt_id = s.pgt_id
		JOIN pgtrickle.pgt_sources consumer ON consumer.source_relid = d.relid
	)
	SELECT min(d.relid::regclass::text) FROM standing s JOIN pgtrickle.pgt_definitions d ON d.pgt_id = s.cause
	WHERE s.pgt_id = standing_upstream.pgt_id AND s.cause <> standing_upstream.pgt_id
$$;
COMMENT ON FUNCTION pgtrickle.standing_upstream(bigint) IS
	'a stopped stream table that this one reads, directly or not; null if there is none; not for users';
REVOKE ALL ON FUNCTION pgtrickle.standing_upstream(bigint) FROM PUBLIC;

CREATE FUNCTION pgtrickle.stands_still(pgt_id bigint) RETURNS boolean
	LANGUAGE sql STABLE STRICT PARALLEL SAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT pgtrickle.standing_upstream(pgt_id) IS NOT NULL
$$;
COMMENT ON FUNCTION pgtrickle.stands_still(bigint) IS
	'does a stream table read one that is stopped; not for users';

CREATE VIEW pgtrickle.pgt_stream_tables WITH (security_barrier) AS
	SELECT
		d.pgt_id,
		d.relid::oid AS pgt_relid,
		c.relname::text AS pgt_name,
		n.nspname::text AS pgt_schema,
		c.relowner AS pgt_owner,
		d.defining_query,
		d.original_query,
		d.schedule,
		d.refresh_mode,
		d.effective_refresh_mode,
		CASE WHEN d.refresh_mode <> 'FULL' THEN d.downgrade_reason END AS downgrade_reason,
		d.clock_reason,
		d.status,
		f.is_populated,
		f.data_timestamp,
		jsonb_build_object('snapshot', f.snapshot::text, 'lsn', f.lsn, 'xid', f.own_xid) AS frontier,
		f.last_refresh_at,
		f.consecutive_errors,
		f.needs_refill AS needs_reinit,
		f.refill_reason AS reinit_reason,
		CASE WHEN r.may_see_errors THEN f.last_error_message END AS last_error_message,
		f.last_error_at,
		coalesce(d.options->>'cdc_mode', 'auto') AS requested_cdc_mode,
		coalesce(d.options->>'fuse', 'off') AS fuse_mode,
		(d.options->>'fuse_ceiling')::bigint AS fuse_ceiling,
		(d.options->>'fuse_sensitivity')::integer AS fuse_sensitivity,
		d.options->>'partition_by' AS st_partition_key,
		d.options,
		d.created_at,
		d.updated_at
	FROM pgtrickle.pgt_definitions d
	JOIN pgtrickle.pgt_frontiers f USING (pgt_id)
	JOIN pg_catalog.pg_class c ON c.oid = d.relid
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	CROSS JOIN LATERAL (
		SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE') OR pgtrickle.is_member('{pg_monitor,pgtrickle_operator,pgtrickle_admin}') AS may_see_errors
	) r
	WHERE r.may_see_errors OR pg_catalog.has_table_privilege(d.relid, 'SELECT') OR pgtrickle.is_member('{pgtrickle_reader}');
COMMENT ON VIEW pgtrickle.pgt_stream_tables IS 'stream tables: definition and state';
GRANT SELECT ON pgtrickle.pgt_stream_tables TO PUBLIC;

/* Copies that a stream table reads, itself or through others. */
CREATE FUNCTION pgtrickle.copies_read_by(pgt_id bigint) RETURNS SETOF bigint
	LANGUAGE sql STABLE STRICT PARALLEL SAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
	WITH RECURSIVE reading (relid) AS (
		SELECT s.source_relid FROM pgtrickle.pgt_sources s WHERE s.pgt_id = copies_read_by.pgt_id
		UNION
		SELECT s.source_relid
		FROM reading r
		JOIN pgtrickle.pgt_definitions d ON d.relid = r.relid
		JOIN pgtrickle.pgt_sources s ON s.pgt_id = d.pgt_id
	)
	SELECT c.copy_id FROM reading r JOIN pgtrickle.pgt_copies c ON c.relid = r.relid
$$;
COMMENT ON FUNCTION pgtrickle.copies_read_by(bigint) IS
	'ids of the copies that a stream table reads, itself or through others; not for users';

/* Nothing newer than this, by the clocks of the remotes, is in copies that a stream table reads; null: it reads none. */
CREATE FUNCTION pgtrickle.remote_freshness(pgt_id bigint) RETURNS timestamptz
	LANGUAGE sql STABLE STRICT PARALLEL SAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
	SELECT min(CASE WHEN s.is_populated AND (s.status = 'ACTIVE' OR s.live_follows) THEN r.position_at ELSE coalesce(s.data_timestamp, c.created_at) END)
	FROM pgtrickle.copies_read_by(pgt_id) x
	JOIN pgtrickle.pgt_copies c ON c.copy_id = x
	JOIN pgtrickle.pgt_copy_states s USING (copy_id)
	JOIN pgtrickle.pgt_remote_states r USING (remote_id)
$$;
COMMENT ON FUNCTION pgtrickle.remote_freshness(bigint) IS
	'up to which moment the copies that a stream table reads equal their tables; not for users';

/*
 * How fresh each stream table is.  A tick moves only stream tables whose sources changed, so the moment of the last snapshot is not all.
 * Nothing that was committed is missing up to now, if the applier needs nothing below the end of the WAL; else up to the moment of a
 * probe that it has passed (applier_heartbeat).  This is an upper bound: another stream table with a slow schedule keeps the
 * applier's position back.  Therefore a stream table counts as stale only when, besides, something is wrong with it or the applier.
 * One that follows the clock is as fresh as its last refresh, whatever has arrived; so is one whose changes wait in the spool.
 */
CREATE VIEW pgtrickle.pgt_freshness WITH (security_barrier) AS
	SELECT s.pgt_id, f.fresh_at, f.staleness, k.schedule_kind, k.schedule_ms,
		CASE WHEN k.schedule_ms IS NOT NULL
			THEN coalesce(f.staleness > k.schedule_ms * interval '1 millisecond' + interval '1 minute', true)
				AND NOT (h.follows AND p.keeps_up) END AS stale
	FROM pgtrickle.pgt_stream_tables s
	JOIN pgtrickle.pgt_schedules k USING (pgt_id)
	CROSS JOIN (
		SELECT
			CASE WHEN NOT pg_catalog.pg_is_in_recovery()
					AND pgtrickle.consumed_lsn(q.slot_name) >= pg_catalog.pg_current_wal_insert_lsn()
				THEN clock_timestamp()
				WHEN q.ack_lsn >= q.probe_lsn THEN q.probed_at
				ELSE q.fresh_at END AS consumed_at,
			CASE WHEN NOT pg_catalog.pg_is_in_recovery()
				THEN pgtrickle.consumed_lsn(q.slot_name) IS NOT NULL
					AND pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), q.stream_lsn) < 268435456
				ELSE false END AS keeps_up
		FROM pgtrickle.pgt_progress q
	) p
	CROSS JOIN LATERAL (
		SELECT s.is_populated AND s.status = 'ACTIVE' AND NOT s.needs_reinit AND s.consecutive_errors = 0
			AND NOT pgtrickle.stands_still(s.pgt_id) AS follows
	) h
	CROSS JOIN LATERAL (
		SELECT m.fresh_at, greatest(clock_timestamp() - m.fresh_at, CASE WHEN m.fresh_at IS NOT NULL THEN interval '0' END) AS staleness
		FROM (SELECT CASE WHEN h.follows AND k.schedule_kind = 'immediate' THEN clock_timestamp() WHEN s.is_populated THEN greatest(s.data_timestamp, CASE WHEN h.follows AND s.clock_reason IS NULL AND NOT pgtrickle.waits_in_spool(s.pgt_id) THEN p.consumed_at END) END AS fresh_at) own
			CROSS JOIN LATERAL (SELECT least(own.fresh_at, pgtrickle.remote_freshness(s.pgt_id)) AS fresh_at OFFSET 0) m
	) f;
COMMENT ON VIEW pgtrickle.pgt_freshness IS 'stream tables: how far behind their sources they can be at most';
GRANT SELECT ON pgtrickle.pgt_freshness TO PUBLIC;

CREATE VIEW pgtrickle.pgt_dependencies WITH (security_barrier) AS
	SELECT d.pgt_id, d.source_relid, d.source_type, d.source_schema, d.source_name, d.columns_used,
		'WAL' AS cdc_mode, p.slot_name, slot.confirmed_flush_lsn AS decoder_confirmed_lsn
	FROM pgtrickle.pgt_sources d
	JOIN pgtrickle.pgt_stream_tables s USING (pgt_id)
	CROSS JOIN pgtrickle.pgt_progress p
	LEFT JOIN pg_catalog.pg_replication_slots slot ON slot.slot_name = p.slot_name;
COMMENT ON VIEW pgtrickle.pgt_dependencies IS 'what each stream table reads: tables, and the views through which it reads them';
GRANT SELECT ON pgtrickle.pgt_dependencies TO PUBLIC;

CREATE VIEW pgtrickle.pgt_refresh_history WITH (security_barrier) AS
	SELECT h.refresh_id, h.pgt_id, h.data_timestamp, h.start_time, h.end_time, h.action, h.status, h.initiated_by,
		h.refreshes, h.rows_inserted, h.rows_deleted, h.delta_row_count, h.was_full_fallback, h.reason, h.duration_ms,
		CASE WHEN pg_catalog.pg_has_role(s.pgt_owner, 'USAGE') OR pgtrickle.is_member('{pg_monitor,pgtrickle_operator,pgtrickle_admin}')
			THEN h.error_message END AS error_message,
		h.error_sqlstate,
		h.tick_lsn AS tick_watermark_lsn,
		h.decision, h.estimated_delta_ms, h.estimated_full_ms
	FROM pgtrickle.pgt_history h
	JOIN pgtrickle.pgt_stream_tables s USING (pgt_id);
COMMENT ON VIEW pgtrickle.pgt_refresh_history IS
	'refreshes of stream tables, newest ones with the highest refresh_id; refreshes by delta within a second share a row';
COMMENT ON COLUMN pgtrickle.pgt_refresh_history.decision IS
	'refresh mode AUTO: DELTA or FULL, what was expected to cost less; null: too small to be weighed, or nothing to choose';
COMMENT ON COLUMN pgtrickle.pgt_refresh_history.estimated_delta_ms IS
	'what the planner expected of the delta, corrected by what earlier ones took; the sum if the row is about several refreshes';
COMMENT ON COLUMN pgtrickle.pgt_refresh_history.estimated_full_ms IS
	'what the planner expected of a full refresh, corrected likewise; null: not weighed';
GRANT SELECT ON pgtrickle.pgt_refresh_history TO PUBLIC;

-- First fills that are running now; the server shows the numbers of other roles' sessions to pg_read_all_stats only.
CREATE VIEW pgtrickle.pgt_fill_progress WITH (security_barrier) AS
	SELECT p.pid, a.datname, a.usename, p.relid,
		CASE p.param11 WHEN 1 THEN 'filling states' WHEN 2 THEN 'running the query' WHEN 3 THEN 'writing rows' END AS phase,
		p.param3 AS rows_done,
		p.param12 AS rows_estimated,
		clock_timestamp() - a.query_start AS running_for,
		a.query
	FROM pg_catalog.pg_stat_get_progress_info('COPY') p
	JOIN pg_catalog.pg_stat_activity a USING (pid)
	WHERE p.param13 = 7067;
COMMENT ON VIEW pgtrickle.pgt_fill_progress IS 'first fills that are running: phase, rows, estimate';
GRANT SELECT ON pgtrickle.pgt_fill_progress TO PUBLIC;

CREATE VIEW pgtrickle.pgt_step_runs WITH (security_barrier) AS
	SELECT l.pgt_id, l.refreshed_at, r.step, r.rows_in, r.rows_out, r.ms AS duration_ms
	FROM pgtrickle.pgt_last_steps l
	JOIN pgtrickle.pgt_stream_tables s USING (pgt_id)
	CROSS JOIN LATERAL pg_catalog.jsonb_to_recordset(l.steps)
		r (step integer, rows_in bigint, rows_out bigint, ms double precision);
COMMENT ON VIEW pgtrickle.pgt_step_runs IS
	'what each step of a delta program did in the last refresh by delta, or in the first one of that second';
GRANT SELECT ON pgtrickle.pgt_step_runs TO PUBLIC;

/* ---- monitoring ---- */

CREATE VIEW pgtrickle.pg_stat_stream_tables WITH (security_barrier) AS
	SELECT s.pgt_id, s.pgt_schema, s.pgt_name, s.status, s.refresh_mode, s.is_populated, s.data_timestamp, s.schedule,
		f.staleness, f.stale, s.consecutive_errors, s.needs_reinit, s.last_refresh_at,
		c.total_refreshes + c.failed_refreshes AS total_refreshes,
		c.total_refreshes AS successful_refreshes,
		c.failed_refreshes,
		c.total_rows_inserted, c.total_rows_deleted,
		c.total_duration_ms / nullif(c.total_refreshes, 0) AS avg_duration_ms,
		c.last_action, c.last_status,
		ARRAY['wal'] AS cdc_modes
	FROM pgtrickle.pgt_stream_tables s
	JOIN pgtrickle.pgt_freshness f USING (pgt_id)
	JOIN pgtrickle.pgt_frontiers c USING (pgt_id);
COMMENT ON VIEW pgtrickle.pg_stat_stream_tables IS 'stream tables: counters of refreshes, freshness, errors';
GRANT SELECT ON pgtrickle.pg_stat_stream_tables TO PUBLIC;

CREATE VIEW pgtrickle.stream_tables_info WITH (security_barrier) AS
	SELECT s.*, f.staleness, f.stale
	FROM pgtrickle.pgt_stream_tables s
	JOIN pgtrickle.pgt_freshness f USING (pgt_id);
COMMENT ON VIEW pgtrickle.stream_tables_info IS 'stream tables: definition, state and freshness';
GRANT SELECT ON pgtrickle.stream_tables_info TO PUBLIC;

-- One row about the applier, for everybody: nothing in it belongs to anybody.
CREATE VIEW pgtrickle.pgt_applier AS
	SELECT p.slot_name, coalesce(slot.active, false) AS connected, slot.slot_name IS NOT NULL AS slot_exists, slot.wal_status,
		slot.confirmed_flush_lsn, p.ack_lsn, p.stream_lsn, p.persisted_at, p.started_at,
		CASE WHEN NOT pg_catalog.pg_is_in_recovery()
			THEN pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), slot.confirmed_flush_lsn)::bigint END AS lag_bytes,
		CASE WHEN NOT pg_catalog.pg_is_in_recovery()
			THEN pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), slot.restart_lsn)::bigint END AS retained_wal_bytes
	FROM pgtrickle.pgt_progress p
	LEFT JOIN pg_catalog.pg_replication_slots slot ON slot.slot_name = p.slot_name;
COMMENT ON VIEW pgtrickle.pgt_applier IS 'the applier of this database: its slot and how far it is';
GRANT SELECT ON pgtrickle.pgt_applier TO PUBLIC;

CREATE VIEW pgtrickle.quick_health WITH (security_barrier) AS
	SELECT t.total_stream_tables, t.error_tables, t.stale_tables, a.connected AS scheduler_running,
		CASE WHEN t.total_stream_tables = 0 THEN 'EMPTY'
			WHEN t.error_tables > 0 OR NOT a.connected THEN 'CRITICAL'
			WHEN t.stale_tables > 0 THEN 'WARNING'
			ELSE 'OK' END AS status
	FROM (
		SELECT count(*) AS total_stream_tables,
			count(*) FILTER (WHERE status IN ('ERROR', 'SUSPENDED') OR consecutive_errors > 0) AS error_tables,
			count(*) FILTER (WHERE stale) AS stale_tables
		FROM pgtrickle.pg_stat_stream_tables
	) t
	CROSS JOIN pgtrickle.pgt_applier a;
COMMENT ON VIEW pgtrickle.quick_health IS 'one row that says whether all is well';
GRANT SELECT ON pgtrickle.quick_health TO PUBLIC;
