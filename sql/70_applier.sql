/*
 * sql/70_applier.sql
 *     What the applier calls outside of a tick: the catalog, its own progress, failures, heartbeats, fences.
 *
 * docs/explanation/tick.md, section 5, is the contract.  Nothing here is for PUBLIC: grant_applier() gives a role the right to
 * call these functions and those of the tick itself (30_core.sql).  They run with the rights of the extension's owner, because the
 * applier's role owns nothing and may not read the catalog tables; each of them takes ids and texts only as values.
 */

CREATE FUNCTION pgtrickle.fence(nonce text) RETURNS pg_lsn
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_fence';
COMMENT ON FUNCTION pgtrickle.fence(text) IS
	'writes and flushes a message that tells the applier, when it comes back on the stream, that it has received everything visible before the call';
REVOKE ALL ON FUNCTION pgtrickle.fence(text) FROM PUBLIC;

-- Kept to one statement: the applier reads it anew at every `catalog` message.
CREATE FUNCTION pgtrickle.applier_catalog()
	RETURNS TABLE (
		pgt_id bigint, relid oid, pgt_schema text, pgt_name text, status text, refresh_mode text,
		schedule_kind text, schedule_ms bigint, source_relids oid[], upstream_ids bigint[],
		frontier_snapshot text, frontier_lsn pg_lsn, frontier_xid text, created_xid text, filled_xid text,
		needs_refill boolean, refill_reason text, consecutive_errors integer, retry_at timestamptz, has_consumers boolean,
		clock text, data_timestamp timestamptz, cron_at timestamptz,
		spool_snapshot text, spooled_since timestamptz, group_id integer)
	LANGUAGE sql STABLE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT d.pgt_id, d.relid, n.nspname::text, c.relname::text,
		CASE WHEN d.status IN ('ACTIVE', 'INITIALIZING') AND pgtrickle.is_gated(d.pgt_id) THEN 'GATED' ELSE d.status END, d.effective_refresh_mode,
		r.schedule_kind, r.schedule_ms,
		coalesce(s.source_relids, '{}'), coalesce(s.upstream_ids, '{}'),
		f.snapshot::text, f.lsn, f.own_xid::text, d.created_xid::text, d.filled_xid::text,
		f.needs_refill, f.refill_reason, f.consecutive_errors, f.retry_at,
		EXISTS (SELECT FROM pgtrickle.pgt_sources consumer WHERE consumer.source_relid = d.relid),
		CASE WHEN d.clock_reason IS NULL THEN 'none' WHEN d.effective_refresh_mode = 'FULL' THEN 'full' ELSE 'delta' END,
		f.data_timestamp,
		-- a time that nobody was there for is made up for once
		pgtrickle.next_cron_time(d.schedule, coalesce(f.data_timestamp, d.created_at), d.settings->>'TimeZone'),
		f.spool_snapshot::text, f.spooled_since,
		(SELECT m.group_id FROM pgtrickle.pgt_refresh_group_members m WHERE m.pgt_id = d.pgt_id)
	FROM pgtrickle.pgt_definitions d
	JOIN pgtrickle.pgt_frontiers f USING (pgt_id)
	JOIN pg_class c ON c.oid = d.relid
	JOIN pg_namespace n ON n.oid = c.relnamespace
	JOIN pgtrickle.pgt_schedules r USING (pgt_id)
	LEFT JOIN (
		-- views have no rows in the WAL, but there are messages about all of them
		SELECT s.pgt_id,
			array_agg(s.source_relid ORDER BY s.source_relid) AS source_relids,
			array_agg(upstream.id ORDER BY upstream.id) FILTER (WHERE upstream.id IS NOT NULL) AS upstream_ids
		FROM pgtrickle.pgt_sources s
		LEFT JOIN (
			SELECT d.relid, d.pgt_id AS id FROM pgtrickle.pgt_definitions d
			UNION ALL
			SELECT c.relid, c.copy_id FROM pgtrickle.pgt_copies c
		) upstream ON upstream.relid = s.source_relid
		GROUP BY s.pgt_id
	) s USING (pgt_id)
	UNION ALL
	-- a copy that is copied again shows the rows that it had, and whoever reads it goes on
	SELECT c.copy_id, c.relid, n.nspname::text, t.relname::text,
		CASE WHEN s.is_populated THEN 'ACTIVE' ELSE s.status END, 'COPY',
		'copy', NULL, '{}', '{}',
		s.snapshot::text, NULL, s.own_xid::text, s.created_xid::text, s.filled_xid::text,
		false, NULL, s.consecutive_errors, s.retry_at,
		EXISTS (SELECT FROM pgtrickle.pgt_sources consumer WHERE consumer.source_relid = c.relid),
		'none', s.data_timestamp, NULL, NULL, NULL, NULL
	FROM pgtrickle.pgt_copies c
	JOIN pgtrickle.pgt_copy_states s USING (copy_id)
	JOIN pg_class t ON t.oid = c.relid
	JOIN pg_namespace n ON n.oid = t.relnamespace
	ORDER BY 1
$$;
COMMENT ON FUNCTION pgtrickle.applier_catalog() IS
	'for the applier: every stream table with its sources, schedule and frontier, and every copy';
REVOKE ALL ON FUNCTION pgtrickle.applier_catalog() FROM PUBLIC;

CREATE FUNCTION pgtrickle.applier_state()
	RETURNS TABLE (
		system_identifier text, timeline integer, slot_name text, ack_lsn pg_lsn,
		valid_xid text, settled_snapshot text, persisted_at timestamptz)
	LANGUAGE sql STABLE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT p.system_identifier, p.timeline, p.slot_name, p.ack_lsn, p.valid_xid::text, p.settled_snapshot::text, p.persisted_at
	FROM pgtrickle.pgt_progress p
$$;
COMMENT ON FUNCTION pgtrickle.applier_state() IS
	'for the applier: what was persisted last';
REVOKE ALL ON FUNCTION pgtrickle.applier_state() FROM PUBLIC;

/*
 * A reason says that the stream does not continue where the frontiers are.  Then every stream table is filled again, by a snapshot
 * that cannot miss a transaction which the stream will not bring: none below the id that is taken here is still running in it.
 * The timeline is that of the WAL being written, since the control file learns of a promotion only at the next checkpoint.
 */
CREATE FUNCTION pgtrickle.applier_started(slot text, reason text) RETURNS void
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	UPDATE pgtrickle.pgt_progress SET
		slot_name = slot,
		system_identifier = (SELECT control.system_identifier FROM pg_control_system() control),
		timeline = ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer,
		started_at = clock_timestamp(),
		persisted_at = clock_timestamp(),
		valid_xid = CASE WHEN reason IS NULL THEN coalesce(valid_xid, pg_current_xact_id()) ELSE pg_current_xact_id() END,
		ack_lsn = CASE WHEN reason IS NULL THEN ack_lsn END,
		stream_lsn = CASE WHEN reason IS NULL THEN stream_lsn END,
		settled_snapshot = CASE WHEN reason IS NULL THEN settled_snapshot END,
		probe_lsn = CASE WHEN reason IS NULL THEN probe_lsn END,
		probed_at = CASE WHEN reason IS NULL THEN probed_at END,
		fresh_at = CASE WHEN reason IS NULL THEN fresh_at END;

	IF reason IS NOT NULL THEN
		UPDATE pgtrickle.pgt_frontiers f SET needs_refill = true, refill_reason = reason
		FROM pgtrickle.pgt_definitions d
		WHERE d.pgt_id = f.pgt_id AND d.effective_refresh_mode <> 'IMMEDIATE';
	END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle.applier_started(text, text) IS
	'for the applier: called once per stream connection; with a reason all stream tables are filled again';
REVOKE ALL ON FUNCTION pgtrickle.applier_started(text, text) FROM PUBLIC;

/*
 * In OID order, as everybody who locks several sources must; partitions behind what they are partitions of, as ALTER TABLE does, and with these above
 * them, which the server's planner locks when it plans a query over a partition.  Foreign tables and materialized views cannot be locked so, and a
 * relation that is gone is found missing when its stream table is compiled.
 */
CREATE FUNCTION pgtrickle.tick_lock_list(pgt_ids bigint[]) RETURNS text
	LANGUAGE sql STABLE SECURITY DEFINER STRICT
	SET search_path = pg_catalog, pg_temp
AS $$
	WITH sources AS (
		SELECT DISTINCT s.source_relid AS relid FROM pgtrickle.pgt_sources s WHERE s.pgt_id = ANY (pgt_ids)
	), above AS (
		SELECT DISTINCT a.relid::oid AS relid FROM sources s, pg_partition_ancestors(s.relid) a
		EXCEPT SELECT relid FROM sources
	), tables AS (
		SELECT relid, '' AS which FROM sources UNION ALL SELECT relid, 'ONLY ' FROM above
	)
	SELECT coalesce(string_agg(t.which || format('%I.%I', n.nspname, c.relname), ', '
		ORDER BY coalesce(tree.root, c.oid), tree.depth, c.oid), '')
	FROM tables t
	JOIN pg_class c ON c.oid = t.relid
	JOIN pg_namespace n ON n.oid = c.relnamespace
	CROSS JOIN LATERAL (SELECT pg_partition_root(c.oid)::oid AS root, count(*) AS depth FROM pg_partition_ancestors(c.oid)) tree
	WHERE c.relkind IN ('r', 'p')
$$;
COMMENT ON FUNCTION pgtrickle.tick_lock_list(bigint[]) IS
	'for the applier: the tables to name in LOCK TABLE before a tick of these stream tables';
REVOKE ALL ON FUNCTION pgtrickle.tick_lock_list(bigint[]) FROM PUBLIC;

/*
 * A stream table that was dropped in between is no failure; pgt_id 0 is a failed tick without a culprit.
 *
 * A refresh by delta can fail where a full one would not: a row that makes the query fail, say, may have gone again, and the delta has its
 * coming and its going.  So after a failure that has to do with the data or the definition the next try is a full one; not after
 * those of the surroundings (locks, connections, resources, cancellation, foreign servers), which are retried as they are.  One that is
 * refreshed in full anyway needs no mark, which would only make its consumers wait for it.
 *
 * A source that cannot be reached, on another server or in a file, is no reason to give up: it comes back without anybody telling us.  The same
 * holds for what is wrong with rows that only a foreign table has: they change without a trace in the WAL.  So these are tried again as long as they fail, with
 * the applier's growing delays; nothing is kept for them meanwhile, since they are refreshed in full.
 */
CREATE FUNCTION pgtrickle.applier_failed(pgt_id bigint, sqlstate text, message text, retry_ms bigint) RETURNS void
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	failed_at CONSTANT timestamptz := clock_timestamp();
	errors_max CONSTANT integer := pgtrickle.setting('max_consecutive_errors');
	is_elsewhere CONSTANT boolean := left(sqlstate, 2) IN ('08', '58', 'HV') OR EXISTS (
		SELECT FROM pgtrickle.pgt_sources s JOIN pgtrickle.pgt_definitions d USING (pgt_id)
		WHERE s.pgt_id = applier_failed.pgt_id AND s.source_type = 'FOREIGN_TABLE' AND d.effective_refresh_mode = 'FULL');
	is_about_data boolean := left(sqlstate, 2) NOT IN ('08', '25', '40', '53', '55', '57', '58', 'HV');
	errors integer;
BEGIN
	is_about_data := is_about_data AND NOT EXISTS (
		SELECT FROM pgtrickle.pgt_definitions d WHERE d.pgt_id = applier_failed.pgt_id AND d.effective_refresh_mode = 'FULL');
	UPDATE pgtrickle.pgt_frontiers f SET
		needs_refill = f.needs_refill OR is_about_data,
		refill_reason = CASE WHEN is_about_data THEN coalesce(f.refill_reason, 'the refresh before failed') ELSE f.refill_reason END,
		failed_refreshes = f.failed_refreshes + 1,
		consecutive_errors = f.consecutive_errors + 1,
		last_status = 'FAILED',
		last_error_sqlstate = sqlstate,
		last_error_message = message,
		last_error_at = failed_at,
		retry_at = failed_at + retry_ms * interval '1 millisecond'
	WHERE f.pgt_id = applier_failed.pgt_id
	RETURNING f.consecutive_errors INTO errors;
	IF NOT FOUND THEN
		IF NOT pgtrickle.copy_tick_failed(pgt_id, sqlstate, message, retry_ms) THEN
			RAISE LOG 'refresh failed without a stream table to blame: %', message;
		END IF;
		RETURN;
	END IF;

	INSERT INTO pgtrickle.pgt_history
		(pgt_id, start_time, end_time, action, status, initiated_by, error_sqlstate, error_message)
	VALUES (applier_failed.pgt_id, failed_at, failed_at, 'SKIP', 'FAILED', 'SCHEDULER', sqlstate, message);

	IF errors_max > 0 AND errors >= errors_max AND NOT is_elsewhere THEN
		UPDATE pgtrickle.pgt_definitions d SET status = 'SUSPENDED', updated_at = failed_at
		WHERE d.pgt_id = applier_failed.pgt_id AND d.status IN ('ACTIVE', 'INITIALIZING', 'ERROR');
	END IF;
	IF is_about_data OR errors_max > 0 AND errors >= errors_max AND NOT is_elsewhere THEN
		PERFORM pgtrickle.emit_message('catalog', true, false);
	END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle.applier_failed(bigint, text, text, bigint) IS
	'for the applier: records a failed refresh, and suspends the stream table after pgtrickle.max_consecutive_errors';
REVOKE ALL ON FUNCTION pgtrickle.applier_failed(bigint, text, text, bigint) FROM PUBLIC;

/*
 * Bounded work per call.  Rows are written in the order of refresh_id, so the oldest are those with the smallest, and one look
 * at the front of the index finds them or that there are none.
 */
CREATE FUNCTION pgtrickle.prune_history(rows_max integer DEFAULT 1000) RETURNS bigint
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	retention CONSTANT text := pgtrickle.setting('history_retention');
	pruned bigint := 0;
BEGIN
	IF retention <> '-1' THEN
		DELETE FROM pgtrickle.pgt_history h
		USING (SELECT refresh_id, start_time FROM pgtrickle.pgt_history ORDER BY refresh_id LIMIT rows_max) oldest
		WHERE h.refresh_id = oldest.refresh_id
			AND oldest.start_time < clock_timestamp() - retention::interval;
		GET DIAGNOSTICS pruned = ROW_COUNT;
	END IF;
	PERFORM pgtrickle.prune_changes(d.pgt_id, rows_max) FROM pgtrickle.pgt_definitions d WHERE d.options ? 'retain_history';
	-- an answer that its asker has not fetched within an hour is not wanted any more
	DELETE FROM pgtrickle.pgt_verifications WHERE verified_at < clock_timestamp() - interval '1 hour';
	-- and what waits for a stream table that was dropped is not wanted either
	DELETE FROM pgtrickle.pgt_spool s WHERE NOT EXISTS (SELECT FROM pgtrickle.pgt_spool_readers r WHERE r.spool_id = s.spool_id);
	RETURN pruned;
END
$$;
COMMENT ON FUNCTION pgtrickle.prune_history(integer) IS
	'deletes history older than pgtrickle.history_retention, at most so many rows, and returns how many';
REVOKE ALL ON FUNCTION pgtrickle.prune_history(integer) FROM PUBLIC;

/*
 * A probe remembers where the WAL ended at a moment; when the acknowledged position has passed it, that moment is how fresh every stream
 * table is whose sources did not change, and the next probe is made.  The snapshot is taken after the writing, by a statement
 * of its own, and the insert position after the snapshot.
 */
CREATE FUNCTION pgtrickle.applier_heartbeat(ack_lsn pg_lsn, stream_lsn pg_lsn)
	RETURNS TABLE (snapshot text, insert_lsn pg_lsn)
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	UPDATE pgtrickle.pgt_progress p SET
		ack_lsn = coalesce(applier_heartbeat.ack_lsn, p.ack_lsn),
		stream_lsn = coalesce(applier_heartbeat.stream_lsn, p.stream_lsn),
		persisted_at = clock_timestamp(),
		fresh_at = CASE WHEN passed THEN p.probed_at ELSE p.fresh_at END,
		probe_lsn = CASE WHEN passed OR p.probe_lsn IS NULL THEN pg_current_wal_insert_lsn() ELSE p.probe_lsn END,
		probed_at = CASE WHEN passed OR p.probe_lsn IS NULL THEN statement_timestamp() ELSE p.probed_at END
	FROM (SELECT greatest(applier_heartbeat.ack_lsn, q.ack_lsn) >= q.probe_lsn FROM pgtrickle.pgt_progress q) probe (passed);
	PERFORM pgtrickle.prune_history();
	snapshot := pg_current_snapshot()::text;
	insert_lsn := pg_current_wal_insert_lsn();
	RETURN NEXT;
END
$$;
COMMENT ON FUNCTION pgtrickle.applier_heartbeat(pg_lsn, pg_lsn) IS
	'for the applier: persists its progress, prunes the history, returns a new snapshot and the insert position after it';
REVOKE ALL ON FUNCTION pgtrickle.applier_heartbeat(pg_lsn, pg_lsn) FROM PUBLIC;

/*
 * Rights of the caller: only who owns these functions (a superuser, as a rule) can grant them.  The role reads every table, since it
 * locks the sources; it sees all their changes in the WAL anyway.
 */
CREATE FUNCTION pgtrickle.applier_functions() RETURNS SETOF regprocedure
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT p.oid::regprocedure
	FROM pg_proc p
	WHERE p.pronamespace = 'pgtrickle'::regnamespace
		AND (p.proname ~ '^(applier|tick|remote)_' AND p.proname <> 'applier_functions' OR p.proname IN ('fence',
			'copy_catalog', 'copy_column_list', 'copy_chunk_list', 'copy_pattern_list', 'copy_found', 'copy_defined', 'copy_members', 'copy_begin', 'copy_chunks',
			'copy_hide_rows', 'copy_chunk_done', 'copy_progress', 'copy_done', 'copy_failed'))
	ORDER BY p.proname
$$;
COMMENT ON FUNCTION pgtrickle.applier_functions() IS
	'the functions that grant_applier() grants';

CREATE FUNCTION pgtrickle.grant_applier(role name) RETURNS void
	LANGUAGE plpgsql VOLATILE STRICT
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	applier_function regprocedure;
BEGIN
	FOR applier_function IN SELECT pgtrickle.applier_functions() LOOP
		EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', applier_function, role);
	END LOOP;
	EXECUTE format('GRANT pg_read_all_data TO %I', role);
END
$$;
COMMENT ON FUNCTION pgtrickle.grant_applier(name) IS
	'gives a role the rights that the program pgtrickle needs in this database';
REVOKE ALL ON FUNCTION pgtrickle.grant_applier(name) FROM PUBLIC;

CREATE FUNCTION pgtrickle.revoke_applier(role name) RETURNS void
	LANGUAGE plpgsql VOLATILE STRICT
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	applier_function regprocedure;
BEGIN
	FOR applier_function IN SELECT pgtrickle.applier_functions() LOOP
		EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM %I', applier_function, role);
	END LOOP;
	EXECUTE format('REVOKE pg_read_all_data FROM %I', role);
END
$$;
COMMENT ON FUNCTION pgtrickle.revoke_applier(name) IS
	'takes back what grant_applier() gave';
REVOKE ALL ON FUNCTION pgtrickle.revoke_applier(name) FROM PUBLIC;
