/*
 * sql/60_explain.sql
 *     Explains stream tables: their programs, modes, sources, definitions and how they depend on each other.
 *
 * The programs are printed by the library (program_report in 30_core.sql); the rest are functions over the views.
 */

CREATE FUNCTION pgtrickle.steps_by_id(pgt_id bigint)
	RETURNS TABLE (property text, value text)
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('step %s run', r.step), format('%s rows in, %s rows out, %s ms', r.rows_in, r.rows_out, r.duration_ms)
	FROM pgtrickle.pgt_step_runs r
	WHERE r.pgt_id = steps_by_id.pgt_id
	ORDER BY r.step
$$;
COMMENT ON FUNCTION pgtrickle.steps_by_id(bigint) IS 'what the steps of a recent refresh did, for explain_st()';

CREATE FUNCTION pgtrickle.explain_st(name text, with_analyze boolean DEFAULT false)
	RETURNS TABLE (property text, value text)
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
AS $$
	SELECT * FROM pgtrickle.state_by_id(pgtrickle.stream_table_id_to_see(name))
	UNION ALL
	SELECT * FROM pgtrickle.copies_by_id(pgtrickle.stream_table_id_to_see(name))
	UNION ALL
	SELECT * FROM pgtrickle.stream_table_report(name, with_analyze)
	UNION ALL
	SELECT * FROM pgtrickle.steps_by_id(pgtrickle.stream_table_id_to_see(name)) WHERE with_analyze
	UNION ALL
	SELECT pg_catalog.format('step %s plan when %s changes', p.step, p.changed), p.plan FROM pgtrickle.step_plans(name) p WHERE with_analyze
	UNION ALL
	SELECT 'index_advice', a.advice FROM pgtrickle.index_advice(name) a WHERE with_analyze
$$;
COMMENT ON FUNCTION pgtrickle.explain_st(text, boolean) IS
	'how a stream table is kept up to date: its state, sources, and delta program step by step';

CREATE FUNCTION pgtrickle.state_by_id(pgt_id bigint)
	RETURNS TABLE (property text, value text)
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT p.property, p.value
	FROM pgtrickle.pgt_stream_tables s
	JOIN pgtrickle.pgt_freshness k USING (pgt_id)
	CROSS JOIN LATERAL (VALUES
		('status', s.status),
		('refresh_mode', s.refresh_mode),
		('effective_refresh_mode', s.effective_refresh_mode),
		('downgrade_reason', s.downgrade_reason),
		('clock_reason', s.clock_reason),
		('schedule', concat_ws(' ', s.schedule, CASE WHEN s.schedule = 'calculated'
			THEN format('(%s)', concat_ws(' ', k.schedule_kind, nullif(k.schedule_ms, 0) || 'ms')) END)),
		('frontier', s.frontier->>'snapshot'),
		('data_timestamp', s.data_timestamp::text),
		('last_decision', (SELECT format('%s: %s ms expected by delta, %s ms in full; took %s ms', h.decision,
				round(h.estimated_delta_ms::numeric, 1), round(h.estimated_full_ms::numeric, 1), round(h.duration_ms::numeric, 1))
			FROM pgtrickle.pgt_refresh_history h
			WHERE h.pgt_id = s.pgt_id AND h.decision IS NOT NULL
			ORDER BY h.refresh_id DESC LIMIT 1))
	) p (property, value)
	WHERE s.pgt_id = state_by_id.pgt_id AND p.value IS NOT NULL
$$;
COMMENT ON FUNCTION pgtrickle.state_by_id(bigint) IS 'the first rows of explain_st()';

CREATE FUNCTION pgtrickle.explain_stream_table(name text, with_analyze boolean DEFAULT false) RETURNS text
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
AS $$
	SELECT pg_catalog.string_agg(pg_catalog.concat(e.property, ': ', e.value), E'\n') FROM pgtrickle.explain_st(name, with_analyze) e
$$;
COMMENT ON FUNCTION pgtrickle.explain_stream_table(text, boolean) IS 'explain_st() as one text';

CREATE FUNCTION pgtrickle.modes_by_id(pgt_id bigint)
	RETURNS TABLE (configured_mode text, effective_mode text, downgrade_reason text)
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT s.refresh_mode, s.effective_refresh_mode, s.downgrade_reason
	FROM pgtrickle.pgt_stream_tables s
	WHERE s.pgt_id = modes_by_id.pgt_id
$$;
COMMENT ON FUNCTION pgtrickle.modes_by_id(bigint) IS 'what explain_refresh_mode() returns';

CREATE FUNCTION pgtrickle.explain_refresh_mode(name text)
	RETURNS TABLE (configured_mode text, effective_mode text, downgrade_reason text)
	LANGUAGE sql STABLE STRICT PARALLEL UNSAFE
AS $$
	SELECT * FROM pgtrickle.modes_by_id(pgtrickle.stream_table_id_to_see(name))
$$;
COMMENT ON FUNCTION pgtrickle.explain_refresh_mode(text) IS
	'the refresh mode that was asked for, the one in effect, and why they differ';

CREATE FUNCTION pgtrickle.validate_query(query text)
	RETURNS TABLE (check_name text, result text, severity text)
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
AS $$
	SELECT * FROM pgtrickle.analyze_query(query)
$$;
COMMENT ON FUNCTION pgtrickle.validate_query(text) IS
	'what create_stream_table() would make of a query; an error if it would be refused';

/* ---- definitions ---- */

CREATE FUNCTION pgtrickle.definition_by_id(pgt_id bigint) RETURNS text
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format(E'SELECT pgtrickle.create_stream_table(\n\tname => %L,\n\tquery => %L,\n\tschedule => %L,\n\trefresh_mode => %L%s);',
		format('%I.%I', s.pgt_schema, s.pgt_name), s.defining_query, s.schedule, s.refresh_mode,
		(SELECT string_agg(format(E',\n\t%s => %L', o.key, o.value), '' ORDER BY o.key)
			FROM jsonb_each_text(s.options) o
			WHERE o.key IN ('diamond_consistency', 'diamond_schedule_policy', 'cdc_mode', 'append_only', 'pooler_compatibility_mode',
				'partition_by', 'max_differential_joins', 'max_delta_fraction', 'output_distribution_column', 'temporal',
				'storage_backend', 'sink', 'ducklake_sink_path', 'ducklake_sink_table_id', 'retain_history')))
	FROM pgtrickle.pgt_stream_tables s
	WHERE s.pgt_id = definition_by_id.pgt_id
$$;
COMMENT ON FUNCTION pgtrickle.definition_by_id(bigint) IS 'what stream_table_definition() returns';

CREATE FUNCTION pgtrickle.stream_table_definition(p_name text) RETURNS text
	LANGUAGE sql STABLE STRICT PARALLEL UNSAFE
AS $$
	SELECT pgtrickle.definition_by_id(pgtrickle.stream_table_id_to_see(p_name))
$$;
COMMENT ON FUNCTION pgtrickle.stream_table_definition(text) IS
	'a statement that creates the stream table again, every name in its query qualified';

CREATE FUNCTION pgtrickle.export_definition(st_name text) RETURNS text
	LANGUAGE sql STABLE STRICT PARALLEL UNSAFE
AS $$
	SELECT pgtrickle.definition_by_id(pgtrickle.stream_table_id_to_see(st_name))
$$;
COMMENT ON FUNCTION pgtrickle.export_definition(text) IS 'another name of stream_table_definition()';

CREATE FUNCTION pgtrickle.spec_by_id(pgt_id bigint) RETURNS jsonb
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT jsonb_build_object('name', s.pgt_name, 'schema', s.pgt_schema, 'query', s.defining_query, 'schedule', s.schedule,
		'refresh_mode', s.refresh_mode, 'effective_refresh_mode', s.effective_refresh_mode, 'status', s.status, 'options', s.options,
		'sources', (SELECT coalesce(jsonb_agg(jsonb_build_object('schema', d.source_schema, 'name', d.source_name, 'type', d.source_type,
				'columns', d.columns_used) ORDER BY d.source_schema, d.source_name), '[]')
			FROM pgtrickle.pgt_dependencies d WHERE d.pgt_id = s.pgt_id),
		'columns', (SELECT jsonb_agg(jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod)) ORDER BY a.attnum)
			FROM pg_attribute a WHERE a.attrelid = s.pgt_relid AND a.attnum > 0 AND NOT a.attisdropped))
	FROM pgtrickle.pgt_stream_tables s
	WHERE s.pgt_id = spec_by_id.pgt_id
$$;
COMMENT ON FUNCTION pgtrickle.spec_by_id(bigint) IS 'what stream_table_spec() returns';

CREATE FUNCTION pgtrickle.stream_table_spec(p_name text) RETURNS jsonb
	LANGUAGE sql STABLE STRICT PARALLEL UNSAFE
AS $$
	SELECT pgtrickle.spec_by_id(pgtrickle.stream_table_id_to_see(p_name))
$$;
COMMENT ON FUNCTION pgtrickle.stream_table_spec(text) IS
	'definition, columns and sources of a stream table as JSON';

CREATE FUNCTION pgtrickle.explain_diff_sql(name text) RETURNS text
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
AS $$
	SELECT pg_catalog.string_agg(pg_catalog.concat('-- ', r.property, E'\n', r.value), E'\n')
	FROM pgtrickle.stream_table_report(name, false) r WHERE pg_catalog.starts_with(r.property, 'step ')
$$;
COMMENT ON FUNCTION pgtrickle.explain_diff_sql(text) IS
	'the steps of a stream table''s delta program as SQL; null if it has none';

/* ---- how stream tables depend on each other ---- */

CREATE FUNCTION pgtrickle.sources_by_id(pgt_id bigint)
	RETURNS TABLE (source_table text, source_oid oid, source_type text, cdc_mode text, columns_used text[])
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('%s.%s', d.source_schema, d.source_name), d.source_relid, d.source_type, d.cdc_mode, d.columns_used
	FROM pgtrickle.pgt_dependencies d
	WHERE d.pgt_id = sources_by_id.pgt_id
	ORDER BY 1
$$;
COMMENT ON FUNCTION pgtrickle.sources_by_id(bigint) IS 'what list_sources() returns';

CREATE FUNCTION pgtrickle.list_sources(name text)
	RETURNS TABLE (source_table text, source_oid oid, source_type text, cdc_mode text, columns_used text[])
	LANGUAGE sql STABLE STRICT PARALLEL UNSAFE
AS $$
	SELECT * FROM pgtrickle.sources_by_id(pgtrickle.stream_table_id_to_see(name))
$$;
COMMENT ON FUNCTION pgtrickle.list_sources(text) IS 'what a stream table reads: tables, and the views through which it reads them';

/*
 * From the stream tables that nobody reads down to the sources; what several read is shown under each of them.  Nothing analyzes the
 * catalog's small tables, so the planner expects a tree of millions of lines, for which it would compile.
 */
CREATE FUNCTION pgtrickle.dependency_tree()
	RETURNS TABLE (tree_line text, node text, node_type text, depth integer, status text, refresh_mode text)
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
	WITH RECURSIVE nodes AS (
		SELECT s.pgt_relid AS relid, s.pgt_id, format('%s.%s', s.pgt_schema, s.pgt_name) AS node, 'STREAM_TABLE' AS node_type,
			s.status, s.refresh_mode
		FROM pgtrickle.pgt_stream_tables s
		UNION ALL
		SELECT DISTINCT d.source_relid, NULL::bigint, format('%s.%s', d.source_schema, d.source_name), d.source_type, NULL, NULL
		FROM pgtrickle.pgt_dependencies d
		WHERE NOT EXISTS (SELECT FROM pgtrickle.pgt_stream_tables s WHERE s.pgt_relid = d.source_relid)
	), tree AS (
		SELECT n.*, 0 AS depth, ARRAY[n.node] AS path
		FROM nodes n
		WHERE n.pgt_id IS NOT NULL AND NOT EXISTS (SELECT FROM pgtrickle.pgt_dependencies d WHERE d.source_relid = n.relid)
		UNION ALL
		SELECT n.*, t.depth + 1, t.path || n.node
		FROM tree t
		JOIN pgtrickle.pgt_dependencies d ON d.pgt_id = t.pgt_id
		JOIN nodes n ON n.relid = d.source_relid
	)
	SELECT repeat('    ', t.depth) || t.node, t.node, t.node_type, t.depth, t.status, t.refresh_mode
	FROM tree t
	ORDER BY t.path
$$;
COMMENT ON FUNCTION pgtrickle.dependency_tree() IS
	'stream tables and what they read, as an indented tree';

CREATE FUNCTION pgtrickle.explain_dag(format text DEFAULT 'mermaid') RETURNS text
	LANGUAGE plpgsql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	is_dot CONSTANT boolean := lower(explain_dag.format) = 'dot';
	lines text;
BEGIN
	IF lower(explain_dag.format) NOT IN ('mermaid', 'dot') THEN
		RAISE EXCEPTION 'invalid format "%"', explain_dag.format
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Use ''mermaid'' or ''dot''.';
	END IF;
	WITH nodes AS (
		SELECT pgt_relid AS relid, format('%s.%s', pgt_schema, pgt_name) AS name, true AS is_stream_table
		FROM pgtrickle.pgt_stream_tables
		UNION
		SELECT d.source_relid, format('%s.%s', d.source_schema, d.source_name), false
		FROM pgtrickle.pgt_dependencies d
		WHERE NOT EXISTS (SELECT FROM pgtrickle.pgt_stream_tables s WHERE s.pgt_relid = d.source_relid)
	), drawn AS (
		SELECT 1 AS part, n.name, CASE
			WHEN is_dot THEN format('  n%s [label="%s"%s];', n.relid, replace(n.name, '"', '\"'), CASE WHEN n.is_stream_table THEN '' ELSE ', shape=box' END)
			WHEN n.is_stream_table THEN format('  n%s(["%s"])', n.relid, replace(n.name, '"', '#quot;'))
			ELSE format('  n%s["%s"]', n.relid, replace(n.name, '"', '#quot;')) END AS line
		FROM nodes n
		UNION ALL
		SELECT 2, format('%s.%s %s', s.pgt_schema, s.pgt_name, d.source_name),
			CASE WHEN is_dot THEN format('  n%s -> n%s;', d.source_relid, s.pgt_relid)
				ELSE format('  n%s --> n%s', d.source_relid, s.pgt_relid) END
		FROM pgtrickle.pgt_dependencies d
		JOIN pgtrickle.pgt_stream_tables s USING (pgt_id)
	)
	SELECT string_agg(line, E'\n' ORDER BY part, name, line) INTO lines FROM drawn;
	RETURN concat_ws(E'\n', CASE WHEN is_dot THEN 'digraph stream_tables {' ELSE 'graph LR' END, lines, CASE WHEN is_dot THEN '}' END);
END
$$;
COMMENT ON FUNCTION pgtrickle.explain_dag(text) IS
	'the graph of sources and stream tables, for Mermaid or Graphviz';
