/*
 * sql/40_life_cycle.sql
 *     Creating, altering and dropping stream tables: what users call, and the checks of its arguments.
 *
 * The work of creation is create_stream_table_core() in 30_core.sql, that of dropping is DROP TABLE with the event trigger of
 * 45_ddl_events.sql.  The functions that take a name have no search_path of their own (see 25_stream_table.sql); the others
 * have.
 */

/* ---- checks of arguments ---- */

CREATE FUNCTION pgtrickle.check_refresh_mode(refresh_mode text) RETURNS text
	LANGUAGE plpgsql IMMUTABLE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	normal CONSTANT text := upper(btrim(refresh_mode));
BEGIN
	IF refresh_mode IS NULL THEN
		RAISE EXCEPTION 'refresh mode must not be null'
			USING ERRCODE = 'null_value_not_allowed', HINT = 'Use ''AUTO'', ''DIFFERENTIAL'', ''FULL'' or ''IMMEDIATE''.';
	ELSIF normal IN ('DIFFERENTIAL', 'INCREMENTAL') THEN
		RETURN 'DIFFERENTIAL';
	ELSIF normal IN ('AUTO', 'FULL', 'IMMEDIATE') THEN
		RETURN normal;
	END IF;
	RAISE EXCEPTION 'invalid refresh mode "%"', refresh_mode
		USING ERRCODE = 'invalid_parameter_value', HINT = 'Use ''AUTO'', ''DIFFERENTIAL'', ''FULL'' or ''IMMEDIATE''.';
END
$$;
COMMENT ON FUNCTION pgtrickle.check_refresh_mode(text) IS
	'the refresh mode in its normal form; an error if it is none';

/*
 * The arguments that other implementations of stream tables know and this one does not need.  They are checked as there, recorded
 * in pgt_definitions.options, and a NOTICE says when one has no effect; silent is what is true here anyway (every tick is atomic, every
 * change comes from the WAL).
 */
CREATE FUNCTION pgtrickle.check_options(options jsonb) RETURNS jsonb
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	-- false is what the boolean ones are without being given
	given CONSTANT jsonb := (SELECT coalesce(jsonb_object_agg(o.key, o.value), '{}')
		FROM jsonb_each(options) o WHERE o.value NOT IN ('null', 'false'));
	option record;
	allowed text[];
BEGIN
	FOR option IN SELECT o.key AS name, o.value AS value FROM jsonb_each_text(given - 'retain_history') o ORDER BY o.key LOOP
		allowed := CASE option.name
			WHEN 'diamond_consistency' THEN '{none,atomic}'
			WHEN 'diamond_schedule_policy' THEN '{fastest,slowest}'
			WHEN 'cdc_mode' THEN '{auto,trigger,wal}'
			WHEN 'tier' THEN '{hot,warm,cold,frozen}'
			WHEN 'fuse' THEN '{off,on,auto}'
			ELSE NULL END;
		IF allowed IS NOT NULL AND lower(option.value) <> ALL (allowed) THEN
			RAISE EXCEPTION 'invalid value for argument "%": "%"', option.name, option.value
				USING ERRCODE = 'invalid_parameter_value',
					HINT = format('Available values: %s.', array_to_string(allowed, ', '));
		END IF;
		IF option.name IN ('max_differential_joins', 'fuse_ceiling', 'fuse_sensitivity') AND option.value::numeric <= 0
			OR option.name IN ('max_delta_fraction', 'reindex_drift_threshold') AND option.value::numeric NOT BETWEEN 0 AND 1
		THEN
			RAISE EXCEPTION 'argument "%" is out of range: %', option.name, option.value
				USING ERRCODE = 'invalid_parameter_value';
		END IF;
		IF (option.name, lower(option.value)) NOT IN (('diamond_consistency', 'atomic'), ('cdc_mode', 'auto'), ('cdc_mode', 'wal'),
			('storage_backend', 'heap'), ('fuse', 'off'), ('tier', 'hot'))
		THEN
			RAISE NOTICE 'argument "%" has no effect', option.name
				USING DETAIL = 'It is accepted for compatibility and recorded.';
		END IF;
	END LOOP;
	IF given ? 'retain_history' THEN
		RETURN given || jsonb_build_object('retain_history', pgtrickle.check_retain_history(given->>'retain_history'));
	END IF;
	RETURN given;
END
$$;
COMMENT ON FUNCTION pgtrickle.check_options(jsonb) IS
	'checks the arguments of create_stream_table that are kept as options, and returns those that were given';

/* ---- creating ---- */

CREATE FUNCTION pgtrickle.create_stream_table(
	name text,
	query text,
	schedule text DEFAULT 'calculated',
	refresh_mode text DEFAULT 'AUTO',
	initialize boolean DEFAULT true,
	diamond_consistency text DEFAULT NULL,
	diamond_schedule_policy text DEFAULT NULL,
	cdc_mode text DEFAULT NULL,
	append_only boolean DEFAULT false,
	pooler_compatibility_mode boolean DEFAULT false,
	partition_by text DEFAULT NULL,
	max_differential_joins integer DEFAULT NULL,
	max_delta_fraction double precision DEFAULT NULL,
	output_distribution_column text DEFAULT NULL,
	temporal boolean DEFAULT false,
	storage_backend text DEFAULT NULL,
	sink text DEFAULT NULL,
	ducklake_sink_path text DEFAULT NULL,
	ducklake_sink_table_id bigint DEFAULT NULL,
	retain_history interval DEFAULT NULL) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT pgtrickle.create_stream_table_core(
		name, query, pgtrickle.check_schedule(schedule), pgtrickle.check_refresh_mode(refresh_mode), initialize,
		pgtrickle.merged_options('{}', pgtrickle.check_options(pg_catalog.jsonb_build_object(
			'diamond_consistency', diamond_consistency, 'diamond_schedule_policy', diamond_schedule_policy,
			'cdc_mode', cdc_mode, 'append_only', append_only, 'pooler_compatibility_mode', pooler_compatibility_mode,
			'partition_by', partition_by, 'max_differential_joins', max_differential_joins,
			'max_delta_fraction', max_delta_fraction, 'output_distribution_column', output_distribution_column,
			'temporal', temporal, 'storage_backend', storage_backend, 'sink', sink,
			'ducklake_sink_path', ducklake_sink_path, 'ducklake_sink_table_id', ducklake_sink_table_id,
			'retain_history', retain_history))))
$$;
COMMENT ON FUNCTION pgtrickle.create_stream_table(text, text, text, text, boolean, text, text, text, boolean, boolean, text,
	integer, double precision, text, boolean, text, text, text, bigint, interval) IS
	'creates a table that holds the rows of a query and is kept up to date';

CREATE FUNCTION pgtrickle.create_stream_table_if_not_exists(
	name text,
	query text,
	schedule text DEFAULT 'calculated',
	refresh_mode text DEFAULT 'AUTO',
	initialize boolean DEFAULT true,
	diamond_consistency text DEFAULT NULL,
	diamond_schedule_policy text DEFAULT NULL,
	cdc_mode text DEFAULT NULL,
	append_only boolean DEFAULT false,
	pooler_compatibility_mode boolean DEFAULT false,
	partition_by text DEFAULT NULL,
	max_differential_joins integer DEFAULT NULL,
	max_delta_fraction double precision DEFAULT NULL,
	output_distribution_column text DEFAULT NULL,
	temporal boolean DEFAULT false,
	storage_backend text DEFAULT NULL,
	sink text DEFAULT NULL,
	ducklake_sink_path text DEFAULT NULL,
	ducklake_sink_table_id bigint DEFAULT NULL,
	retain_history interval DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
BEGIN
	IF pgtrickle.stream_table_id_if_exists(name) IS NOT NULL THEN
		RAISE NOTICE 'stream table "%" already exists, skipping', name;
	ELSE
		PERFORM pgtrickle.create_stream_table(name, query, schedule, refresh_mode, initialize, diamond_consistency,
			diamond_schedule_policy, cdc_mode, append_only, pooler_compatibility_mode, partition_by, max_differential_joins,
			max_delta_fraction, output_distribution_column, temporal, storage_backend, sink, ducklake_sink_path,
			ducklake_sink_table_id, retain_history);
	END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle.create_stream_table_if_not_exists(text, text, text, text, boolean, text, text, text, boolean, boolean,
	text, integer, double precision, text, boolean, text, text, text, bigint, interval) IS
	'create_stream_table(), or nothing when a stream table of this name exists';

/* ---- altering ---- */

-- The part of a definition that its owner may compare with what it is to become.
CREATE FUNCTION pgtrickle.definition_to_change(pgt_id bigint)
	RETURNS TABLE (name text, defining_query text, schedule text, refresh_mode text, status text, options jsonb)
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('%s.%s', s.pgt_schema, s.pgt_name), s.defining_query, s.schedule, s.refresh_mode, s.status, s.options
	FROM pgtrickle.pgt_stream_tables s
	WHERE s.pgt_id = definition_to_change.pgt_id
$$;
COMMENT ON FUNCTION pgtrickle.definition_to_change(bigint) IS
	'what an owner may change of a stream table';

-- Null means: keep.  The changes that are worth a call of change_definition().
CREATE FUNCTION pgtrickle.changes_to_make(
	schedule text, refresh_mode text, status text, options jsonb) RETURNS jsonb
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	changes jsonb := '{}';
	normal_status CONSTANT text := upper(btrim(status));
BEGIN
	IF normal_status NOT IN ('ACTIVE', 'PAUSED', 'SUSPENDED') THEN
		RAISE EXCEPTION 'invalid status "%"', status
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Use ''ACTIVE'' or ''PAUSED''.';
	END IF;
	IF schedule IS NOT NULL THEN
		changes := changes || jsonb_build_object('schedule', pgtrickle.check_schedule(schedule));
	END IF;
	IF refresh_mode IS NOT NULL THEN
		changes := changes || jsonb_build_object('refresh_mode', pgtrickle.check_refresh_mode(refresh_mode));
	END IF;
	IF status IS NOT NULL THEN
		-- suspended is what errors lead to; who asks for it wants a pause
		changes := changes || jsonb_build_object('status', CASE normal_status WHEN 'ACTIVE' THEN 'ACTIVE' ELSE 'PAUSED' END);
	END IF;
	options := pgtrickle.check_options(options);
	IF options <> '{}' THEN
		changes := changes || jsonb_build_object('options', options);
	END IF;
	RETURN changes;
END
$$;
COMMENT ON FUNCTION pgtrickle.changes_to_make(text, text, text, jsonb) IS
	'checks the arguments of alter_stream_table()';

CREATE FUNCTION pgtrickle.pause_stream_table(name text) RETURNS void
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
AS $$
	SELECT pgtrickle.change_definition(pgtrickle.stream_table_id(name), '{"status": "PAUSED"}')
$$;
COMMENT ON FUNCTION pgtrickle.pause_stream_table(text) IS
	'stops refreshing a stream table until it is resumed';

CREATE FUNCTION pgtrickle.resume_stream_table(name text) RETURNS void
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
AS $$
	SELECT pgtrickle.change_definition(pgtrickle.stream_table_id(name), '{"status": "ACTIVE"}')
$$;
COMMENT ON FUNCTION pgtrickle.resume_stream_table(text) IS
	'lets a paused or suspended stream table follow its sources again; it is filled again';

CREATE FUNCTION pgtrickle.repair_stream_table(name text) RETURNS text
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
AS $$
	SELECT pgtrickle.change_definition(pgtrickle.stream_table_id(name), '{"refill": "repair requested"}');
	SELECT 'stream table will be refreshed in full'
$$;
COMMENT ON FUNCTION pgtrickle.repair_stream_table(text) IS
	'has a stream table compiled and refreshed in full again at the next tick';

-- All stream tables that the caller may change, in one transaction.
CREATE FUNCTION pgtrickle.change_all_status(from_status text[], to_status text) RETURNS bigint
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT count(*)
	FROM (
		SELECT pgtrickle.change_definition(s.pgt_id, jsonb_build_object('status', to_status))
		FROM (SELECT pgt_id FROM pgtrickle.pgt_stream_tables
			WHERE status = ANY (from_status)
				AND (pg_has_role(pgt_owner, 'USAGE') OR pgtrickle.is_member('{pgtrickle_operator,pgtrickle_admin}'))
			ORDER BY pgt_id OFFSET 0) s
		OFFSET 0
	) changed
$$;
COMMENT ON FUNCTION pgtrickle.change_all_status(text[], text) IS
	'changes the status of all stream tables of the caller, for operators of all there are';

CREATE FUNCTION pgtrickle.pause_all() RETURNS bigint
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT pgtrickle.change_all_status('{ACTIVE,INITIALIZING}', 'PAUSED')
$$;
COMMENT ON FUNCTION pgtrickle.pause_all() IS
	'pauses all stream tables of the caller, and returns how many';

CREATE FUNCTION pgtrickle.resume_all() RETURNS bigint
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT pgtrickle.change_all_status('{PAUSED,SUSPENDED,ERROR}', 'ACTIVE')
$$;
COMMENT ON FUNCTION pgtrickle.resume_all() IS
	'resumes all paused and suspended stream tables of the caller, and returns how many';

/* ---- dropping ---- */

-- The stream tables that read this one directly or through others, those furthest away first.  Names only, also of other owners.
CREATE FUNCTION pgtrickle.consumers_of(pgt_id bigint)
	RETURNS TABLE (consumer_id bigint, consumer_schema text, consumer_name text, distance integer)
	LANGUAGE sql STABLE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
	WITH RECURSIVE consumers (id, relid, distance) AS (
		SELECT d.pgt_id, d.relid, 0 FROM pgtrickle.pgt_definitions d WHERE d.pgt_id = consumers_of.pgt_id
		UNION
		SELECT d.pgt_id, d.relid, c.distance + 1
		FROM consumers c
		JOIN pgtrickle.pgt_sources s ON s.source_relid = c.relid
		JOIN pgtrickle.pgt_definitions d ON d.pgt_id = s.pgt_id
	)
	SELECT c.id, n.nspname::text, r.relname::text, max(c.distance)
	FROM consumers c
	JOIN pg_class r ON r.oid = c.relid
	JOIN pg_namespace n ON n.oid = r.relnamespace
	WHERE c.distance > 0
	GROUP BY c.id, n.nspname, r.relname
	ORDER BY max(c.distance) DESC, c.id
$$;
COMMENT ON FUNCTION pgtrickle.consumers_of(bigint) IS
	'the stream tables that read a stream table, directly or through others';

-- DROP TABLE checks that the caller may drop each of them; the event trigger removes what belongs to them.
CREATE FUNCTION pgtrickle.drop_by_id(dropped_id bigint, with_consumers boolean) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	dropped record;
	consumers text;
	statement text;
BEGIN
	SELECT pgt_schema, pgt_name INTO STRICT dropped FROM pgtrickle.pgt_stream_tables WHERE pgt_id = dropped_id;
	SELECT string_agg(format('%s.%s', consumer_schema, consumer_name), ', ' ORDER BY distance, consumer_id),
		string_agg(format('%I.%I', consumer_schema, consumer_name), ', ' ORDER BY distance DESC, consumer_id)
	INTO consumers, statement
	FROM pgtrickle.consumers_of(dropped_id);

	IF consumers IS NOT NULL AND NOT with_consumers THEN
		RAISE EXCEPTION 'stream table %.% has dependent stream tables: %', dropped.pgt_schema, dropped.pgt_name, consumers
			USING ERRCODE = 'dependent_objects_still_exist',
				HINT = 'Use cascade => true to drop them automatically.';
	END IF;
	EXECUTE format('DROP TABLE %s', concat_ws(', ', statement, format('%I.%I', dropped.pgt_schema, dropped.pgt_name)));
END
$$;
COMMENT ON FUNCTION pgtrickle.drop_by_id(bigint, boolean) IS
	'what drop_stream_table() does';

CREATE FUNCTION pgtrickle.drop_stream_table(name text, cascade boolean DEFAULT false) RETURNS void
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
AS $$
	SELECT pgtrickle.drop_by_id(pgtrickle.stream_table_id(name), cascade)
$$;
COMMENT ON FUNCTION pgtrickle.drop_stream_table(text, boolean) IS
	'drops a stream table; with cascade also the stream tables that read it';

/* ---- several at once ---- */

CREATE FUNCTION pgtrickle.check_bulk_definitions(definitions jsonb) RETURNS void
	LANGUAGE plpgsql IMMUTABLE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	definition jsonb;
	unknown text;
BEGIN
	IF definitions IS NULL OR jsonb_typeof(definitions) <> 'array' THEN
		RAISE EXCEPTION 'definitions must be a JSON array of objects' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	FOR definition IN SELECT jsonb_array_elements(definitions) LOOP
		IF jsonb_typeof(definition) <> 'object' OR definition->>'name' IS NULL OR definition->>'query' IS NULL THEN
			RAISE EXCEPTION 'each definition must be an object with "name" and "query"'
				USING ERRCODE = 'invalid_parameter_value', DETAIL = format('One of them is %s.', left(definition::text, 200));
		END IF;
		SELECT k INTO unknown FROM jsonb_object_keys(definition) k
		WHERE k NOT IN ('name', 'query', 'schedule', 'refresh_mode', 'initialize') LIMIT 1;
		IF FOUND THEN
			RAISE EXCEPTION 'unknown key "%" in the definition of stream table "%"', unknown, definition->>'name'
				USING ERRCODE = 'invalid_parameter_value', HINT = 'Known keys: name, query, schedule, refresh_mode, initialize.';
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle.check_bulk_definitions(jsonb) IS
	'checks the argument of bulk_create()';

-- In the order of the array, so that later ones may read earlier ones.
CREATE FUNCTION pgtrickle.bulk_create(definitions jsonb) RETURNS jsonb
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
DECLARE
	definition record;
	created jsonb := '[]';
BEGIN
	PERFORM pgtrickle.check_bulk_definitions(definitions);
	FOR definition IN
		SELECT d.name, d.query, COALESCE(d.schedule, 'calculated') AS schedule, COALESCE(d.refresh_mode, 'AUTO') AS refresh_mode,
			COALESCE(d.initialize, true) AS initialize
		FROM pg_catalog.jsonb_to_recordset(definitions)
			AS d (name text, query text, schedule text, refresh_mode text, initialize boolean)
	LOOP
		PERFORM pgtrickle.create_stream_table(definition.name, definition.query, definition.schedule, definition.refresh_mode,
			definition.initialize);
		created := pg_catalog.jsonb_insert(created, '{-1}', pg_catalog.jsonb_build_object(
			'name', definition.name, 'pgt_id', pgtrickle.stream_table_id(definition.name), 'status', 'created'), true);
	END LOOP;
	RETURN created;
END
$$;
COMMENT ON FUNCTION pgtrickle.bulk_create(jsonb) IS
	'creates stream tables from an array of objects with name, query, schedule, refresh_mode, initialize, in one transaction';

CREATE FUNCTION pgtrickle.bulk_alter_stream_tables(names text[], params json) RETURNS integer
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
AS $$
DECLARE
	changes CONSTANT jsonb := pgtrickle.bulk_changes(params);
	name text;
BEGIN
	FOREACH name IN ARRAY names LOOP
		PERFORM pgtrickle.change_definition(pgtrickle.stream_table_id(name), changes);
	END LOOP;
	RETURN pg_catalog.cardinality(names);
END
$$;
COMMENT ON FUNCTION pgtrickle.bulk_alter_stream_tables(text[], json) IS
	'changes schedule, refresh_mode and status of several stream tables in one transaction, and returns how many';

CREATE FUNCTION pgtrickle.bulk_changes(params json) RETURNS jsonb
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	unknown text;
BEGIN
	SELECT k INTO unknown FROM json_object_keys(params) k WHERE k NOT IN ('schedule', 'refresh_mode', 'status') LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'unknown parameter "%"', unknown
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Known parameters: schedule, refresh_mode, status.';
	END IF;
	RETURN pgtrickle.changes_to_make(params->>'schedule', params->>'refresh_mode', params->>'status', '{}');
END
$$;
COMMENT ON FUNCTION pgtrickle.bulk_changes(json) IS
	'checks the argument of bulk_alter_stream_tables()';

CREATE FUNCTION pgtrickle.bulk_drop_stream_tables(names text[]) RETURNS integer
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
AS $$
DECLARE
	ids bigint[];
	name text;
BEGIN
	FOREACH name IN ARRAY names LOOP
		ids := pg_catalog.array_append(ids, pgtrickle.stream_table_id(name));
	END LOOP;
	RETURN pgtrickle.drop_ids(ids);
END
$$;
COMMENT ON FUNCTION pgtrickle.bulk_drop_stream_tables(text[]) IS
	'drops several stream tables in one transaction, in any order, and returns how many';

-- Consumers that are on the list do not stand in the way.
CREATE FUNCTION pgtrickle.drop_ids(ids bigint[]) RETURNS integer
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	left_over text;
	statement text;
BEGIN
	SELECT format('%s.%s', c.consumer_schema, c.consumer_name) INTO left_over
	FROM unnest(ids) id, pgtrickle.consumers_of(id) c WHERE c.consumer_id <> ALL (ids) LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'stream table % reads one of these stream tables', left_over
			USING ERRCODE = 'dependent_objects_still_exist', HINT = 'Add it to the list.';
	END IF;
	SELECT string_agg(format('%I.%I', pgt_schema, pgt_name), ', ') INTO statement
	FROM pgtrickle.pgt_stream_tables WHERE pgt_id = ANY (ids);
	IF statement IS NOT NULL THEN
		EXECUTE 'DROP TABLE ' || statement;
	END IF;
	RETURN cardinality(ids);
END
$$;
COMMENT ON FUNCTION pgtrickle.drop_ids(bigint[]) IS
	'what bulk_drop_stream_tables() does';
