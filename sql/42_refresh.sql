/*
 * sql/42_refresh.sql
 *     Waiting for the applier: refresh now, wait until fresh, verify.
 *
 * The waiting is in the library (delta/barrier.c, which also says what "fresh" means exactly).  None of these
 * can contain changes of the calling transaction: the applier reads what has been committed.
 */

CREATE FUNCTION pgtrickle.refresh_stream_table(name text) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_refresh_stream_table';
COMMENT ON FUNCTION pgtrickle.refresh_stream_table(text) IS
	'refreshes a stream table now; when it returns, everything committed before the call is in';

CREATE FUNCTION pgtrickle.wait_fresh_here(name text, timeout interval, source_lsn pg_lsn) RETURNS boolean
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_wait_fresh';
COMMENT ON FUNCTION pgtrickle.wait_fresh_here(text, interval, pg_lsn) IS
	'what wait_fresh() does about this server';

-- A position of a remote comes first; what its copies have then been given is waited for like any change here.
CREATE FUNCTION pgtrickle.wait_fresh(name text, timeout interval DEFAULT '30s', source_lsn pg_lsn DEFAULT NULL, remote text DEFAULT NULL)
	RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
DECLARE
	followed integer;
BEGIN
	IF source_lsn IS NOT NULL THEN
		followed := pgtrickle.remote_waited_for(pgtrickle.stream_table_id_to_see(name), remote);
	END IF;
	IF followed IS NULL THEN
		RETURN pgtrickle.wait_fresh_here(name, timeout, source_lsn);
	ELSIF NOT pgtrickle.wait_position(followed, source_lsn, timeout) THEN
		RETURN false;
	ELSIF pg_catalog.pg_is_in_recovery() THEN
		-- what is visible here of a remote came with the stream tables that were due
		RETURN true;
	END IF;
	RETURN pgtrickle.wait_fresh_here(name, timeout, NULL);
END
$$;
COMMENT ON FUNCTION pgtrickle.wait_fresh(text, interval, pg_lsn, text) IS
	'waits until everything committed before the call, or before a position of the WAL of this server or of a remote, is in; false when that took longer than the timeout';

CREATE FUNCTION pgtrickle.verify_answer(name text) RETURNS jsonb
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_verify_answer';
COMMENT ON FUNCTION pgtrickle.verify_answer(text) IS
	'compares a stream table with its query inside a tick: row_count, difference_count, snapshot, differences';

-- Its sources, through other stream tables too: a query over nothing would differ in every row.
CREATE FUNCTION pgtrickle.has_all_rows(pgt_id bigint) RETURNS boolean
	LANGUAGE plpgsql STABLE STRICT SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN NOT EXISTS (SELECT FROM pgtrickle.copies_read_by(has_all_rows.pgt_id) x JOIN pgtrickle.pgt_copies c ON c.copy_id = x
		JOIN pgtrickle.pgt_copy_states s USING (copy_id) WHERE c.storage = 'none' AND NOT s.is_populated);
END
$$;
COMMENT ON FUNCTION pgtrickle.has_all_rows(bigint) IS
	'are the rows of all sources here, or does it read a copy that has dropped its own';

CREATE FUNCTION pgtrickle.require_all_rows(pgt_id bigint) RETURNS void
	LANGUAGE plpgsql STABLE STRICT
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT pgtrickle.has_all_rows(pgt_id) THEN
		RAISE EXCEPTION 'the stream table reads a copy that keeps no rows, so there is nothing to compare it with'
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Compare it with its query on the remote.';
	END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle.require_all_rows(bigint) IS 'an error if a stream table cannot be verified here';

CREATE FUNCTION pgtrickle.verify(name text)
	RETURNS TABLE (kind text, copies bigint, row_data jsonb)
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
AS $$
	SELECT pgtrickle.require_all_rows(pgtrickle.stream_table_id_to_see(name));
	SELECT d.kind, d.copies, d."row"
	FROM pg_catalog.jsonb_to_recordset(
		pg_catalog.jsonb_extract_path(pgtrickle.verify_answer(name), 'differences'))
		AS d (kind text, copies bigint, "row" jsonb)
$$;
COMMENT ON FUNCTION pgtrickle.verify(text) IS
	'the rows in which a stream table and its defining query differ at one snapshot: none; at most 100 are returned';

-- One after the other, each in a tick of its own.
CREATE FUNCTION pgtrickle.verify_all()
	RETURNS TABLE (pgt_schema text, pgt_name text, row_count bigint, difference_count bigint)
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT s.pgt_schema, s.pgt_name, (a.answer->>'row_count')::bigint, (a.answer->>'difference_count')::bigint
	FROM (SELECT pgt_schema, pgt_name FROM pgtrickle.pgt_stream_tables
		WHERE status IN ('ACTIVE', 'INITIALIZING') AND has_table_privilege(pgt_relid, 'SELECT') AND pgtrickle.has_all_rows(pgt_id)
		ORDER BY pgt_id OFFSET 0) s,
		LATERAL (SELECT pgtrickle.verify_answer(format('%I.%I', s.pgt_schema, s.pgt_name)) OFFSET 0) a (answer)
$$;
COMMENT ON FUNCTION pgtrickle.verify_all() IS
	'verifies all stream tables that the caller may read and that are neither paused nor suspended';

CREATE FUNCTION pgtrickle.get_staleness(name text)
	RETURNS TABLE (staleness interval, data_timestamp timestamptz, staleness_seconds double precision, status text,
		last_refresh_at timestamptz)
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
AS $$
	SELECT * FROM pgtrickle.staleness_by_id(pgtrickle.stream_table_id_to_see(name))
$$;
COMMENT ON FUNCTION pgtrickle.get_staleness(text) IS
	'how far behind its sources a stream table can be at most';

CREATE FUNCTION pgtrickle.staleness_by_id(pgt_id bigint)
	RETURNS TABLE (staleness interval, data_timestamp timestamptz, staleness_seconds double precision, status text,
		last_refresh_at timestamptz)
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT f.staleness, f.fresh_at, extract(epoch FROM f.staleness)::double precision, s.status, s.last_refresh_at
	FROM pgtrickle.pgt_stream_tables s
	JOIN pgtrickle.pgt_freshness f USING (pgt_id)
	WHERE s.pgt_id = staleness_by_id.pgt_id
$$;
COMMENT ON FUNCTION pgtrickle.staleness_by_id(bigint) IS
	'what get_staleness() returns';

CREATE FUNCTION pgtrickle.staleness_seconds(name text) RETURNS double precision
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
AS $$
	SELECT staleness_seconds FROM pgtrickle.staleness_by_id(pgtrickle.stream_table_id_to_see(name))
$$;
COMMENT ON FUNCTION pgtrickle.staleness_seconds(text) IS
	'how far behind its sources a stream table can be at most, in seconds';

CREATE FUNCTION pgtrickle.is_staler_than(pgt_id bigint, max_age interval) RETURNS boolean
	LANGUAGE sql VOLATILE STRICT
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce((SELECT staleness <= max_age FROM pgtrickle.staleness_by_id(pgt_id)), false) = false
$$;
COMMENT ON FUNCTION pgtrickle.is_staler_than(bigint, interval) IS
	'is a stream table staler than that, or not filled at all';

CREATE FUNCTION pgtrickle.refresh_if_stale(p_name text, p_max_age interval DEFAULT '5 minutes') RETURNS boolean
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
AS $$
BEGIN
	IF pgtrickle.is_staler_than(pgtrickle.stream_table_id(p_name), p_max_age) THEN
		PERFORM pgtrickle.refresh_stream_table(p_name);
		RETURN true;
	END IF;
	RETURN false;
END
$$;
COMMENT ON FUNCTION pgtrickle.refresh_if_stale(text, interval) IS
	'refreshes a stream table if it may be staler than that, and returns whether it did';
