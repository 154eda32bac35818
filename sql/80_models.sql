/*
 * sql/80_models.sql
 *     One call that makes a stream table what a model says: what dbt's materialization needs, and other tools that keep definitions in files.
 *
 * create_or_replace_stream_table() answers "have this definition".  A tool asks for more: rebuild although nothing changed, do not touch
 * the query or the options but say that they differ, and report what was done in words for people.  It has to be one function so
 * that it is atomic in whatever transaction mode the tool is in.
 */

-- In words, null when there is none.  A stream table that gave up after errors is to go on.
CREATE FUNCTION pgtrickle.option_differences(schedule text, refresh_mode text, status text, options jsonb, wanted jsonb) RETURNS text
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT string_agg(d.text, ', ' ORDER BY d.n)
	FROM (VALUES
		(1, CASE WHEN schedule <> wanted->>'schedule' THEN format('schedule %s -> %s', schedule, wanted->>'schedule') END),
		(2, CASE WHEN refresh_mode <> wanted->>'refresh_mode' THEN format('refresh_mode %s -> %s', refresh_mode, wanted->>'refresh_mode') END),
		(3, CASE WHEN NOT options @> ((wanted->'options') - 'retain_history')
			THEN format('options %s -> %s', options - 'retain_history', (wanted->'options') - 'retain_history') END),
		(4, CASE WHEN wanted->>'status' = 'PAUSED' AND status <> 'PAUSED' OR wanted->>'status' = 'ACTIVE' AND status = 'PAUSED'
			OR status IN ('SUSPENDED', 'ERROR') THEN format('status %s -> %s', status, coalesce(wanted->>'status', 'ACTIVE')) END),
		(5, CASE WHEN coalesce(options->>'retain_history', '00:00:00') <> wanted#>>'{options,retain_history}'
			THEN format('retain_history %s -> %s', coalesce(options->>'retain_history', 'none'),
				replace(wanted#>>'{options,retain_history}', '00:00:00', 'none')) END)
	) d (n, text)
	WHERE d.text IS NOT NULL
$$;
COMMENT ON FUNCTION pgtrickle.option_differences(text, text, text, jsonb, jsonb) IS
	'in which options a stream table differs from a model, in words';

/*
 * What has to be done with a stream table that exists.  create: nothing is there; rebuild: asked for; migrate: another query; alter: other
 * options; noop.  query_refused and options_refused: something differs and the caller said not to touch it but to fail.
 */
CREATE FUNCTION pgtrickle.model_action(existing_id bigint, normal_query text, wanted jsonb)
	RETURNS TABLE (action text, detail text, warnings text[], creates boolean, redefines boolean, sets_options boolean)
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	old record;
	on_query CONSTANT text := coalesce(wanted->>'on_query_change', 'migrate');
	query_differs boolean;
	differences text;
BEGIN
	warnings := '{}';
	IF existing_id IS NULL THEN
		action := 'create';
		detail := 'new stream table';
	ELSE
		SELECT * INTO STRICT old FROM pgtrickle.definition_to_change(existing_id);
		query_differs := old.defining_query <> normal_query;
		differences := pgtrickle.option_differences(old.schedule, old.refresh_mode, old.status, old.options, wanted);
		IF query_differs AND on_query = 'ignore' THEN
			warnings := warnings || 'the query was changed, and on_query_change is "ignore": the stream table keeps its old query'::text;
		END IF;
		IF differences IS NOT NULL AND wanted->>'on_configuration_change' = 'continue' THEN
			warnings := warnings || format('left as they are: %s', differences);
			differences := NULL;
		END IF;

		detail := 'the query was changed';
		IF (wanted->>'full_refresh')::boolean THEN
			action := 'rebuild';
			detail := 'full refresh requested';
		ELSIF query_differs AND on_query <> 'ignore' THEN
			action := CASE on_query WHEN 'fail' THEN 'query_refused' WHEN 'full_refresh' THEN 'rebuild' ELSE 'migrate' END;
		ELSE
			action := CASE WHEN differences IS NULL THEN 'noop' ELSE 'alter' END;
			detail := coalesce(differences, 'unchanged');
		END IF;
		IF differences IS NOT NULL AND wanted->>'on_configuration_change' = 'fail' AND action <> 'query_refused' THEN
			action := 'options_refused';
			detail := differences;
		END IF;
	END IF;
	creates := action = 'create';
	redefines := action IN ('migrate', 'rebuild');
	sets_options := action IN ('create', 'migrate', 'rebuild', 'alter');
	RETURN NEXT;
END
$$;
COMMENT ON FUNCTION pgtrickle.model_action(bigint, text, jsonb) IS
	'what build_model() has to do: create, rebuild, migrate, alter, noop, query_refused, options_refused';

-- Schedule, mode, options and status of a stream table whose query is right already.
CREATE FUNCTION pgtrickle.set_model_options(changed_id bigint, wanted jsonb) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	old record;
	changes jsonb := '{}';
	new_status text;
BEGIN
	SELECT * INTO STRICT old FROM pgtrickle.definition_to_change(changed_id);
	IF wanted->>'on_configuration_change' IN ('continue', 'fail') THEN
		RETURN;
	END IF;
	IF old.schedule <> wanted->>'schedule' THEN
		changes := changes || jsonb_build_object('schedule', wanted->'schedule');
	END IF;
	IF old.refresh_mode <> wanted->>'refresh_mode' THEN
		changes := changes || jsonb_build_object('refresh_mode', wanted->'refresh_mode');
	END IF;
	IF pgtrickle.merged_options(old.options, wanted->'options') <> old.options THEN
		changes := changes || jsonb_build_object('options', wanted->'options');
	END IF;
	new_status := coalesce(wanted->>'status', CASE WHEN old.status IN ('SUSPENDED', 'ERROR') THEN 'ACTIVE' END);
	IF new_status = 'PAUSED' AND old.status <> 'PAUSED' OR new_status = 'ACTIVE' AND old.status IN ('PAUSED', 'SUSPENDED', 'ERROR') THEN
		changes := changes || jsonb_build_object('status', new_status);
	END IF;
	IF changes <> '{}' THEN
		PERFORM pgtrickle.change_definition(changed_id, changes);
	END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle.set_model_options(bigint, jsonb) IS
	'the part of build_model() that changes schedule, refresh mode, options and status';

-- What the model's author should know, although nothing failed.
CREATE FUNCTION pgtrickle.model_warnings(pgt_id bigint) RETURNS text[]
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT array_agg(w.text) FILTER (WHERE w.text IS NOT NULL)
	FROM (
		SELECT format('it is refreshed in full: %s', s.downgrade_reason)
		FROM pgtrickle.pgt_stream_tables s
		WHERE s.pgt_id = model_warnings.pgt_id AND s.downgrade_reason IS NOT NULL
		UNION ALL
		SELECT format('updates and deletes of %1$s come without their old rows and lead to full refreshes: ALTER TABLE %1$s REPLICA IDENTITY FULL', c.oid::regclass)
		FROM pgtrickle.pgt_dependencies d JOIN pg_class c ON c.oid = d.source_relid
		WHERE d.pgt_id = model_warnings.pgt_id AND d.source_type = 'TABLE' AND c.relkind = 'r' AND c.relreplident <> 'f'
		UNION ALL
		SELECT 'no applier is connected, so it is not being maintained: start "pgtrickle run"'
		FROM pgtrickle.pgt_applier a WHERE NOT a.connected
	) w (text)
$$;
COMMENT ON FUNCTION pgtrickle.model_warnings(bigint) IS
	'refreshed in full, sources that do not log old rows, not maintained because no applier is connected; null when there is nothing to say';

CREATE FUNCTION pgtrickle.rows_of_last_refresh(pgt_id bigint) RETURNS bigint
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT h.rows_inserted FROM pgtrickle.pgt_refresh_history h
	WHERE h.pgt_id = rows_of_last_refresh.pgt_id ORDER BY h.refresh_id DESC LIMIT 1
$$;
COMMENT ON FUNCTION pgtrickle.rows_of_last_refresh(bigint) IS
	'rows that the last refresh of a stream table wrote';

-- The wishes with every value in the form in which the catalog keeps it.
CREATE FUNCTION pgtrickle.check_model_options(options jsonb) RETURNS jsonb
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	unknown text;
BEGIN
	SELECT k INTO unknown FROM jsonb_object_keys(options) k
	WHERE k NOT IN ('schedule', 'refresh_mode', 'initialize', 'status', 'full_refresh', 'on_query_change', 'on_configuration_change', 'options')
	ORDER BY k LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'unknown option "%"', unknown
			USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Known options: schedule, refresh_mode, initialize, status, full_refresh, on_query_change, on_configuration_change, options.';
	END IF;
	IF options->>'on_query_change' NOT IN ('migrate', 'full_refresh', 'fail', 'ignore') THEN
		RAISE EXCEPTION 'invalid on_query_change "%"', options->>'on_query_change'
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Available values: migrate, full_refresh, fail, ignore.';
	END IF;
	IF options->>'on_configuration_change' NOT IN ('apply', 'continue', 'fail') THEN
		RAISE EXCEPTION 'invalid on_configuration_change "%"', options->>'on_configuration_change'
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Available values: apply, continue, fail.';
	END IF;
	IF upper(options->>'status') NOT IN ('ACTIVE', 'PAUSED') THEN
		RAISE EXCEPTION 'invalid status "%"', options->>'status'
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Use ''ACTIVE'' or ''PAUSED''.';
	END IF;
	RETURN options || jsonb_build_object(
		'schedule', pgtrickle.check_schedule(coalesce(options->>'schedule', 'calculated')),
		'refresh_mode', pgtrickle.check_refresh_mode(coalesce(options->>'refresh_mode', 'AUTO')),
		'status', upper(options->>'status'),
		'initialize', coalesce((options->>'initialize')::boolean, true),
		-- a model that does not say that it retains its history wants none
		'options', '{"retain_history": "00:00:00"}' || pgtrickle.check_options(coalesce(options->'options', '{}')));
END
$$;
COMMENT ON FUNCTION pgtrickle.check_model_options(jsonb) IS
	'checks the options of build_model() and brings them into normal form';

-- Like every function that resolves a name, it has the caller's search_path and contains only calls; see 25_stream_table.sql.
CREATE FUNCTION pgtrickle.build_model(relation text, query text, options jsonb DEFAULT '{}')
	RETURNS TABLE (action text, detail text, row_count bigint, warnings text[])
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
DECLARE
	wanted CONSTANT jsonb := pgtrickle.check_model_options(options);
	model_id bigint := pgtrickle.stream_table_id_if_exists(relation);
	plan record;
BEGIN
	IF model_id IS NOT NULL THEN
		-- also checks that the caller owns it
		model_id := pgtrickle.stream_table_id(relation);
	END IF;
	SELECT p.action, p.detail, p.warnings, p.creates, p.redefines, p.sets_options INTO STRICT plan
	FROM pgtrickle.model_action(model_id, pgtrickle.normalize_query(query), wanted) p;
	action := plan.action;
	detail := plan.detail;
	row_count := 0;

	IF plan.creates THEN
		PERFORM pgtrickle.create_stream_table_core(relation, query, pg_catalog.jsonb_extract_path_text(wanted, 'schedule'),
			pg_catalog.jsonb_extract_path_text(wanted, 'refresh_mode'),
			CAST(pg_catalog.jsonb_extract_path_text(wanted, 'initialize') AS pg_catalog.bool),
			pgtrickle.merged_options('{}', pg_catalog.jsonb_extract_path(wanted, 'options')));
		model_id := pgtrickle.stream_table_id(relation);
	END IF;
	IF plan.redefines THEN
		detail := pg_catalog.concat(plan.detail, ': ', pgtrickle.redefine_stream_table(model_id, query,
			pg_catalog.jsonb_extract_path_text(wanted, 'schedule'), pg_catalog.jsonb_extract_path_text(wanted, 'refresh_mode'),
			pg_catalog.jsonb_extract_path(wanted, 'options')));
	END IF;
	IF plan.sets_options THEN
		PERFORM pgtrickle.set_model_options(model_id, wanted);
		row_count := pgtrickle.rows_of_last_refresh(model_id);
	END IF;
	warnings := pg_catalog.array_cat(plan.warnings, pgtrickle.model_warnings(model_id));
	RETURN NEXT;
END
$$;
COMMENT ON FUNCTION pgtrickle.build_model(text, text, jsonb) IS
	'makes a stream table what a model says, in one step: created, migrated, altered, rebuilt or left alone, and says which and why';

-- For tools that have something else to put in its place: the failures of a test can be stored in a table.
CREATE FUNCTION pgtrickle.try_build_model(relation text, query text, options jsonb DEFAULT '{}')
	RETURNS TABLE (action text, detail text, row_count bigint, warnings text[])
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
BEGIN
	RETURN QUERY SELECT m.action, m.detail, m.row_count, m.warnings FROM pgtrickle.build_model(relation, query, options) m;
EXCEPTION WHEN feature_not_supported THEN
	action := 'refused';
	detail := SQLERRM;
	RETURN NEXT;
END
$$;
COMMENT ON FUNCTION pgtrickle.try_build_model(text, text, jsonb) IS
	'build_model(), but a query that no stream table can have leads to the action "refused" with the reason in place of an error';
