/*
 * sql/57_operations.sql
 *     What operators do with stream tables that run: gates for bulk loads, draining, snapshots, publications.
 */

/* ---- gates ---- */

-- The last time that somebody closed or opened the gate of a source.
CREATE TABLE pgtrickle.pgt_source_gates (
	source_relid oid PRIMARY KEY,
	gated_at timestamptz NOT NULL,
	ungated_at timestamptz,
	gated_by text NOT NULL
);
REVOKE ALL ON pgtrickle.pgt_source_gates FROM PUBLIC;

CREATE FUNCTION pgtrickle.change_gate(source oid, closed boolean) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_change_gate';
COMMENT ON FUNCTION pgtrickle.change_gate(oid, boolean) IS
	'closes or opens the gate of a source that the caller owns, or as an operator';

/*
 * Nothing is kept for a stream table behind a closed gate, so it is filled again when the gate opens, and what reads it with it.
 */
CREATE FUNCTION pgtrickle.apply_gate(source oid, closed boolean, caller text) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM pgtrickle.pgt_sources s WHERE s.source_relid = source) AND closed THEN
		RAISE EXCEPTION 'no stream table reads "%"', source::regclass USING ERRCODE = 'invalid_parameter_value';
	END IF;
	IF closed THEN
		INSERT INTO pgtrickle.pgt_source_gates (source_relid, gated_at, gated_by) VALUES (source, clock_timestamp(), caller)
		ON CONFLICT (source_relid) DO UPDATE SET gated_at = excluded.gated_at, gated_by = excluded.gated_by, ungated_at = NULL
			WHERE pgt_source_gates.ungated_at IS NOT NULL;
	ELSE
		UPDATE pgtrickle.pgt_source_gates SET ungated_at = clock_timestamp() WHERE source_relid = source AND ungated_at IS NULL;
		IF FOUND THEN
			PERFORM pgtrickle.fill_with_consumers(ARRAY(SELECT s.pgt_id FROM pgtrickle.pgt_sources s WHERE s.source_relid = source),
				'the gate of a source was closed');
		END IF;
	END IF;
	PERFORM pgtrickle.definitions_changed();
END
$$;
COMMENT ON FUNCTION pgtrickle.apply_gate(oid, boolean, text) IS 'what change_gate() does when the caller may';
REVOKE ALL ON FUNCTION pgtrickle.apply_gate(oid, boolean, text) FROM PUBLIC;

CREATE FUNCTION pgtrickle.is_gated(pgt_id bigint) RETURNS boolean
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT EXISTS (SELECT FROM pgtrickle.pgt_source_gates g JOIN pgtrickle.pgt_sources s USING (source_relid)
		WHERE s.pgt_id = is_gated.pgt_id AND g.ungated_at IS NULL)
$$;
COMMENT ON FUNCTION pgtrickle.is_gated(bigint) IS 'is the gate of one of its sources closed';
REVOKE ALL ON FUNCTION pgtrickle.is_gated(bigint) FROM PUBLIC;

CREATE FUNCTION pgtrickle.gate_source(source text) RETURNS void
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
AS $$
	SELECT pgtrickle.change_gate(CAST(source AS pg_catalog.regclass), true)
$$;
COMMENT ON FUNCTION pgtrickle.gate_source(text) IS
	'stops refreshes of everything that reads a table, for a bulk load into it';

CREATE FUNCTION pgtrickle.ungate_source(source text) RETURNS void
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
AS $$
	SELECT pgtrickle.change_gate(CAST(source AS pg_catalog.regclass), false)
$$;
COMMENT ON FUNCTION pgtrickle.ungate_source(text) IS
	'lets everything that reads a table be refreshed again, in full at first';

-- Who may read the source, owns it or operates sees its gate.
CREATE VIEW pgtrickle.pgt_gates WITH (security_barrier) AS
	SELECT c.relname::text AS source_table, n.nspname::text AS schema_name, g.ungated_at IS NULL AS gated, g.gated_at, g.ungated_at,
		g.gated_by,
		coalesce(g.ungated_at, clock_timestamp()) - g.gated_at AS gate_duration,
		(SELECT count(*) FROM pgtrickle.pgt_sources s WHERE s.source_relid = g.source_relid) AS affected_stream_tables
	FROM pgtrickle.pgt_source_gates g
	JOIN pg_catalog.pg_class c ON c.oid = g.source_relid
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE pg_catalog.has_table_privilege(c.oid, 'SELECT') OR pg_catalog.pg_has_role(c.relowner, 'USAGE')
		OR pgtrickle.is_member('{pg_monitor,pgtrickle_reader,pgtrickle_operator,pgtrickle_admin}');
COMMENT ON VIEW pgtrickle.pgt_gates IS 'gates of sources that are or were closed';
GRANT SELECT ON pgtrickle.pgt_gates TO PUBLIC;

CREATE FUNCTION pgtrickle.source_gates()
	RETURNS TABLE (source_table text, schema_name text, gated boolean, gated_at timestamptz, ungated_at timestamptz, gated_by text)
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT g.source_table, g.schema_name, g.gated, g.gated_at, g.ungated_at, g.gated_by FROM pgtrickle.pgt_gates g ORDER BY 2, 1
$$;
COMMENT ON FUNCTION pgtrickle.source_gates() IS 'gates of sources that are or were closed';

CREATE FUNCTION pgtrickle.bootstrap_gate_status()
	RETURNS TABLE (source_table text, schema_name text, gated boolean, gated_at timestamptz, ungated_at timestamptz, gated_by text,
		gate_duration interval, affected_stream_tables bigint)
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT * FROM pgtrickle.pgt_gates g ORDER BY g.schema_name, g.source_table
$$;
COMMENT ON FUNCTION pgtrickle.bootstrap_gate_status() IS 'source_gates() with how long, and how many stream tables wait';

/* ---- draining ---- */

/*
 * One after the other, each for what is left of the time.  Those that stand still (paused, suspended, behind a gate) have nothing pending.
 */
CREATE FUNCTION pgtrickle.drain(timeout_s integer DEFAULT 60) RETURNS boolean
	LANGUAGE plpgsql VOLATILE STRICT
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	give_up_at CONSTANT timestamptz := clock_timestamp() + timeout_s * interval '1 second';
	st record;
BEGIN
	FOR st IN
		SELECT format('%I.%I', s.pgt_schema, s.pgt_name) AS name FROM pgtrickle.pgt_stream_tables s
		WHERE s.status IN ('ACTIVE', 'INITIALIZING') AND has_table_privilege(s.pgt_relid, 'SELECT')
		ORDER BY s.pgt_id
	LOOP
		BEGIN
			IF NOT pgtrickle.wait_fresh(st.name, greatest(give_up_at - clock_timestamp(), interval '1 millisecond')) THEN
				RETURN false;
			END IF;
		EXCEPTION WHEN object_not_in_prerequisite_state THEN
			RAISE DEBUG 'stream table % stands still: %', st.name, sqlerrm;
		END;
	END LOOP;
	RETURN true;
END
$$;
COMMENT ON FUNCTION pgtrickle.drain(integer) IS
	'waits until what was committed before the call is in all stream tables that the caller may read; false when that takes longer than the timeout';

CREATE FUNCTION pgtrickle.is_drained() RETURNS boolean
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	-- asking takes the applier some milliseconds, also when there is nothing to do
	SELECT pgtrickle.drain(1)
$$;
COMMENT ON FUNCTION pgtrickle.is_drained() IS
	'is what was committed before the call in all stream tables that the caller may read';

/* ---- snapshots ---- */

/*
 * A snapshot is an ordinary table of the caller's; its comment says what it is, so it can be renamed, moved, dumped and dropped like
 * any other.
 */
CREATE FUNCTION pgtrickle.make_snapshot(id bigint, target text) RETURNS text
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	st record;
	made text;
	copied bigint;
BEGIN
	SELECT s.pgt_schema, s.pgt_name, s.frontier, s.data_timestamp INTO STRICT st FROM pgtrickle.pgt_stream_tables s WHERE s.pgt_id = id;
	made := coalesce(target, format('%I.%I', st.pgt_schema, left(st.pgt_name, 40) || '_' || to_char(clock_timestamp(), 'YYYYMMDD_HH24MISS_US')));
	EXECUTE format('CREATE TABLE %s AS SELECT * FROM %I.%I', made, st.pgt_schema, st.pgt_name);
	GET DIAGNOSTICS copied = ROW_COUNT;
	EXECUTE format('COMMENT ON TABLE %s IS %L', made, jsonb_build_object('pgtrickle_snapshot_of', id, 'created_at', clock_timestamp(),
		'row_count', copied, 'frontier', st.frontier, 'data_timestamp', st.data_timestamp));
	RETURN made;
END
$$;
COMMENT ON FUNCTION pgtrickle.make_snapshot(bigint, text) IS 'what snapshot_stream_table() does';

CREATE FUNCTION pgtrickle.qualified_target(target text) RETURNS text
	LANGUAGE c STABLE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_qualified_target';
COMMENT ON FUNCTION pgtrickle.qualified_target(text) IS
	'the name that a new table would have, with its schema, quoted';

CREATE FUNCTION pgtrickle.snapshot_stream_table(p_name text, p_target text DEFAULT NULL) RETURNS text
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT pgtrickle.make_snapshot(pgtrickle.stream_table_id_to_see(p_name), pgtrickle.qualified_target(p_target))
$$;
COMMENT ON FUNCTION pgtrickle.snapshot_stream_table(text, text) IS
	'copies the rows of a stream table into a new table, and returns its name';

CREATE FUNCTION pgtrickle.snapshots_by_id(id bigint)
	RETURNS TABLE (snapshot_table text, created_at timestamptz, row_count bigint, frontier jsonb, size_bytes bigint)
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	-- comments of others may say anything: only those of the caller and of the stream table's owner are looked into
	SELECT d.relid::regclass::text, (d.note->>'created_at')::timestamptz, (d.note->>'row_count')::bigint, d.note->'frontier',
		pg_total_relation_size(d.relid)
	FROM pgtrickle.pgt_stream_tables s
	CROSS JOIN LATERAL (
		SELECT c.oid AS relid, CASE WHEN c.relowner IN (s.pgt_owner, current_user::regrole) THEN t.description::jsonb END AS note
		FROM pg_description t JOIN pg_class c ON c.oid = t.objoid
		WHERE t.classoid = 'pg_class'::regclass AND t.objsubid = 0 AND t.description LIKE '{%"pgtrickle_snapshot_of": %' OFFSET 0) d
	WHERE s.pgt_id = id AND (d.note->>'pgtrickle_snapshot_of')::bigint = id
	ORDER BY 2
$$;
COMMENT ON FUNCTION pgtrickle.snapshots_by_id(bigint) IS 'what list_snapshots() returns';

CREATE FUNCTION pgtrickle.list_snapshots(p_name text)
	RETURNS TABLE (snapshot_table text, created_at timestamptz, row_count bigint, frontier jsonb, size_bytes bigint)
	LANGUAGE sql STABLE STRICT PARALLEL UNSAFE
AS $$
	SELECT * FROM pgtrickle.snapshots_by_id(pgtrickle.stream_table_id_to_see(p_name))
$$;
COMMENT ON FUNCTION pgtrickle.list_snapshots(text) IS 'the snapshots of a stream table';

CREATE FUNCTION pgtrickle.drop_snapshot_by_id(snapshot_id oid) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF coalesce(obj_description(snapshot_id, 'pg_class'), '') NOT LIKE '{%"pgtrickle_snapshot_of": %' THEN
		RAISE EXCEPTION '"%" is not a snapshot of a stream table', snapshot_id::regclass
			USING ERRCODE = 'wrong_object_type', HINT = 'Use DROP TABLE for other tables.';
	END IF;
	EXECUTE format('DROP TABLE %s', snapshot_id::regclass);
END
$$;
COMMENT ON FUNCTION pgtrickle.drop_snapshot_by_id(oid) IS 'what drop_snapshot() does';

CREATE FUNCTION pgtrickle.drop_snapshot(p_snapshot_table text) RETURNS void
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
AS $$
	SELECT pgtrickle.drop_snapshot_by_id(CAST(p_snapshot_table AS pg_catalog.regclass))
$$;
COMMENT ON FUNCTION pgtrickle.drop_snapshot(text) IS 'drops a snapshot, and nothing else';

/* ---- back to a snapshot ---- */

CREATE FUNCTION pgtrickle.put_rows(pgt_id bigint, source oid) RETURNS bigint
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_put_rows';
COMMENT ON FUNCTION pgtrickle.put_rows(bigint, oid) IS
	'makes the rows of a stream table of the caller, which is paused, those of another table';

/*
 * Part of apply_change(): the rows are no longer those of the frontier.  What the note says is what readers are told; the refresh that
 * follows relies on none of it.
 */
CREATE FUNCTION pgtrickle.note_restored(restored_id bigint, note jsonb) RETURNS void
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	UPDATE pgtrickle.pgt_frontiers SET needs_refill = true, refill_reason = 'restored from a snapshot',
		snapshot = NULL, lsn = NULL, own_xid = NULL, data_timestamp = coalesce((note->>'data_timestamp')::timestamptz, data_timestamp)
	WHERE pgt_id = restored_id;
	INSERT INTO pgtrickle.pgt_history (pgt_id, data_timestamp, start_time, end_time, action, status, initiated_by, reason)
	VALUES (restored_id, (note->>'data_timestamp')::timestamptz, clock_timestamp(), clock_timestamp(), 'REINITIALIZE', 'COMPLETED', 'MANUAL',
		'restored from a snapshot')
$$;
COMMENT ON FUNCTION pgtrickle.note_restored(bigint, jsonb) IS 'records that a stream table shows a snapshot';
REVOKE ALL ON FUNCTION pgtrickle.note_restored(bigint, jsonb) FROM PUBLIC;

CREATE FUNCTION pgtrickle.restore_by_id(id bigint, snapshot_id oid) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	st record;
	note jsonb;
BEGIN
	SELECT s.pgt_owner, s.refresh_mode, s.status, format('%s.%s', s.pgt_schema, s.pgt_name) AS name INTO STRICT st
	FROM pgtrickle.pgt_stream_tables s WHERE s.pgt_id = id;
	-- comments of others may say anything
	SELECT CASE WHEN c.relowner IN (st.pgt_owner, current_user::regrole) AND t.description LIKE '{%"pgtrickle_snapshot_of": %'
		THEN t.description::jsonb END INTO note
	FROM pg_class c LEFT JOIN pg_description t ON t.objoid = c.oid AND t.classoid = 'pg_class'::regclass AND t.objsubid = 0
	WHERE c.oid = snapshot_id;
	IF (note->>'pgtrickle_snapshot_of')::bigint IS DISTINCT FROM id THEN
		RAISE EXCEPTION '"%" is not a snapshot of stream table "%"', snapshot_id::regclass, st.name
			USING ERRCODE = 'wrong_object_type', HINT = 'pgtrickle.list_snapshots() lists those of a stream table.';
	ELSIF st.refresh_mode = 'IMMEDIATE' THEN
		RAISE EXCEPTION 'stream table "%" is maintained by its writers, and cannot show a snapshot', st.name
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Set its refresh_mode to AUTO first.';
	END IF;
	PERFORM pgtrickle.change_definition(id, jsonb_build_object('status', 'PAUSED', 'restored', note));
	PERFORM pgtrickle.put_rows(id, snapshot_id);
	RAISE NOTICE 'stream table "%" shows a snapshot of % and is paused', st.name, coalesce(note->>'data_timestamp', note->>'created_at')
		USING HINT = format('pgtrickle.resume_stream_table(%L) brings it up to date again.', st.name);
END
$$;
COMMENT ON FUNCTION pgtrickle.restore_by_id(bigint, oid) IS 'what restore_from_snapshot() does';

CREATE FUNCTION pgtrickle.restore_from_snapshot(p_name text, p_source text) RETURNS void
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
AS $$
	SELECT pgtrickle.restore_by_id(pgtrickle.stream_table_id(p_name), CAST(p_source AS pg_catalog.regclass))
$$;
COMMENT ON FUNCTION pgtrickle.restore_from_snapshot(text, text) IS
	'has a stream table show the rows of a snapshot again, and pauses it';

/* ---- publications ---- */

CREATE FUNCTION pgtrickle.publish_by_id(id bigint, wanted boolean) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	st record;
BEGIN
	SELECT s.pgt_schema, s.pgt_name INTO STRICT st FROM pgtrickle.pgt_stream_tables s WHERE s.pgt_id = id;
	IF wanted THEN
		EXECUTE format('ALTER TABLE %I.%I REPLICA IDENTITY FULL', st.pgt_schema, st.pgt_name);
		EXECUTE format('CREATE PUBLICATION %I FOR TABLE %I.%I', 'pgt_publication_' || id, st.pgt_schema, st.pgt_name);
	ELSE
		EXECUTE format('DROP PUBLICATION %I', 'pgt_publication_' || id);
	END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle.publish_by_id(bigint, boolean) IS
	'what stream_table_to_publication() and drop_stream_table_publication() do';

CREATE FUNCTION pgtrickle.stream_table_to_publication(name text) RETURNS void
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
AS $$
	SELECT pgtrickle.publish_by_id(pgtrickle.stream_table_id(name), true)
$$;
COMMENT ON FUNCTION pgtrickle.stream_table_to_publication(text) IS
	'makes the publication pgt_publication_<pgt_id> of a stream table';

CREATE FUNCTION pgtrickle.drop_stream_table_publication(name text) RETURNS void
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
AS $$
	SELECT pgtrickle.publish_by_id(pgtrickle.stream_table_id(name), false)
$$;
COMMENT ON FUNCTION pgtrickle.drop_stream_table_publication(text) IS
	'drops the publication of a stream table';
