/*
 * sql/25_stream_table.sql
 *     Finding stream tables by name, and the gate through which owners change their definitions.
 *
 * How rights work in this extension.  Users have no rights on the catalog tables.  What they call is one of:
 *
 *   a view, or a function over views     the views run as their owner and show only stream tables on which the *caller* has SELECT
 *   a function that takes a name         it starts with stream_table_id() (the caller must own it, or be an operator) or stream_table_id_to_see()
 *                                        (the caller must have SELECT); both use the caller's rights and search_path
 *   something that writes the catalog    goes through change_definition(), which checks the caller again, in C
 *
 * Functions that resolve a name cannot have a search_path of their own.  They contain nothing but calls with qualified names and
 * no operators, so the caller's search_path decides what the name means and nothing else.
 */

CREATE FUNCTION pgtrickle.stream_table_id(name text) RETURNS bigint
	LANGUAGE c STABLE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_stream_table_id';
COMMENT ON FUNCTION pgtrickle.stream_table_id(text) IS
	'id of a stream table that the caller owns; an error if there is none or it is somebody else''s';

CREATE FUNCTION pgtrickle.stream_table_id_to_see(name text) RETURNS bigint
	LANGUAGE c STABLE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_stream_table_id_to_see';
COMMENT ON FUNCTION pgtrickle.stream_table_id_to_see(text) IS
	'id of a stream table that the caller may read; an error if there is none or it may not';

CREATE FUNCTION pgtrickle.stream_table_id_if_exists(name text) RETURNS bigint
	LANGUAGE c STABLE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_stream_table_id_if_exists';
COMMENT ON FUNCTION pgtrickle.stream_table_id_if_exists(text) IS
	'id of the stream table that stands where a new one of this name would be created, or null';

CREATE FUNCTION pgtrickle.definitions_changed() RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_definitions_changed';
COMMENT ON FUNCTION pgtrickle.definitions_changed() IS
	'tells sessions and the applier that the catalog of stream tables has changed';
REVOKE ALL ON FUNCTION pgtrickle.definitions_changed() FROM PUBLIC;

CREATE FUNCTION pgtrickle.change_definition(pgt_id bigint, changes jsonb) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_change_definition';
COMMENT ON FUNCTION pgtrickle.change_definition(bigint, jsonb) IS
	'changes schedule, refresh_mode, status or options of a stream table that the caller owns, or has it refilled';

CREATE FUNCTION pgtrickle.stream_table_report(name text, with_analyze boolean)
	RETURNS TABLE (property text, value text)
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_stream_table_report';
COMMENT ON FUNCTION pgtrickle.stream_table_report(text, boolean) IS
	'the delta program of a stream table that the caller may read';

CREATE FUNCTION pgtrickle.index_advice(name text)
	RETURNS TABLE (source_table text, columns text, step integer, scan_cost double precision, probe_cost double precision,
		advice text, statement text)
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_index_advice';
COMMENT ON FUNCTION pgtrickle.index_advice(text) IS
	'indexes that would make refreshes of a stream table look up rows where they scan tables now';

CREATE FUNCTION pgtrickle.step_plans(name text)
	RETURNS TABLE (changed text, step integer, plan text)
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_step_plans';
COMMENT ON FUNCTION pgtrickle.step_plans(text) IS
	'the plans by which the steps of a refresh would run when one of the sources has changed';

/*
 * While a stream table is stopped the applier keeps nothing for it, nor for what reads it, which stands still with it.  So all of
 * them are filled again when it goes on.
 */
CREATE FUNCTION pgtrickle.fill_with_consumers(stopped bigint[], reason text) RETURNS void
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	WITH RECURSIVE standing (pgt_id) AS (
		SELECT unnest(stopped)
		UNION
		SELECT consumer.pgt_id
		FROM standing
		JOIN pgtrickle.pgt_definitions d USING (pgt_id)
		JOIN pgtrickle.pgt_sources consumer ON consumer.source_relid = d.relid
	)
	UPDATE pgtrickle.pgt_frontiers SET needs_refill = true, refill_reason = coalesce(refill_reason, reason)
	WHERE pgt_id IN (SELECT s.pgt_id FROM standing s)
$$;
COMMENT ON FUNCTION pgtrickle.fill_with_consumers(bigint[], text) IS
	'marks stream tables that were stopped, and all that read them, to be filled again';
REVOKE ALL ON FUNCTION pgtrickle.fill_with_consumers(bigint[], text) FROM PUBLIC;


-- An IMMEDIATE stream table cannot read one that is refreshed on schedule.
CREATE FUNCTION pgtrickle.refuse_scheduled_source(relid oid) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	consumer regclass;
BEGIN
	SELECT d.relid INTO consumer
	FROM pgtrickle.pgt_sources s JOIN pgtrickle.pgt_definitions d USING (pgt_id)
	WHERE s.source_relid = refuse_scheduled_source.relid AND d.refresh_mode = 'IMMEDIATE' LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'stream table "%" must stay IMMEDIATE', relid::regclass
			USING ERRCODE = 'object_not_in_prerequisite_state',
				DETAIL = format('Stream table "%s", which is IMMEDIATE, reads it.', consumer),
				HINT = 'Give that one a schedule first.';
	END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle.refuse_scheduled_source(oid) IS
	'an error if an IMMEDIATE stream table reads this one';
REVOKE ALL ON FUNCTION pgtrickle.refuse_scheduled_source(oid) FROM PUBLIC;

-- No time at all is how a retained history is taken back.
CREATE FUNCTION pgtrickle.merged_options(old jsonb, given jsonb) RETURNS jsonb
	LANGUAGE sql IMMUTABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE WHEN m.options->>'retain_history' = '00:00:00' THEN m.options - 'retain_history' ELSE m.options END
	FROM (SELECT old || given) m (options)
$$;
COMMENT ON FUNCTION pgtrickle.merged_options(jsonb, jsonb) IS
	'the options of a stream table after some were given';

/*
 * What change_definition() does when the caller may: never called directly.  `changes` has been checked; absent keys stay as they are.
 *
 * A stream table that did not follow for a while is filled again, since the applier does not keep changes for it meanwhile.
 * Its downgrade_reason says why the query cannot be maintained by delta, whatever the mode was at creation.
 */
CREATE FUNCTION pgtrickle.apply_change(changed_id bigint, changes jsonb, may_change_all boolean) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	old pgtrickle.pgt_definitions;
	new_mode text;
	new_status text := changes->>'status';
	new_options jsonb;
	populated boolean;
	prepared boolean := false;
BEGIN
	SELECT * INTO STRICT old FROM pgtrickle.pgt_definitions WHERE pgt_id = changed_id;
	IF NOT may_change_all AND changes - '{status,refill}'::text[] <> '{}' THEN
		RAISE EXCEPTION 'must be owner of stream table "%", or a member of pgtrickle_admin', old.relid
			USING ERRCODE = 'insufficient_privilege', DETAIL = 'Operators pause, resume and repair.';
	END IF;
	IF changes->>'refresh_mode' = 'IMMEDIATE' AND old.refresh_mode <> 'IMMEDIATE' THEN
		prepared := pgtrickle.immediate_prepare(changed_id);
	END IF;
	-- a tick may write what refers to the definition
	SELECT * INTO STRICT old FROM pgtrickle.pgt_definitions WHERE pgt_id = changed_id FOR NO KEY UPDATE;
	IF old.refresh_mode = 'IMMEDIATE' AND new_status IN ('PAUSED', 'SUSPENDED') THEN
		PERFORM pgtrickle.immediate_wait(changed_id);
	END IF;
	SELECT is_populated INTO STRICT populated FROM pgtrickle.pgt_frontiers WHERE pgt_id = changed_id;
	new_mode := coalesce(changes->>'refresh_mode', old.refresh_mode);
	new_options := pgtrickle.merged_options(old.options, coalesce(changes->'options', '{}'));

	IF new_mode = 'DIFFERENTIAL' AND old.downgrade_reason IS NOT NULL THEN
		RAISE EXCEPTION 'cannot maintain stream table "%" by delta', old.relid
			USING ERRCODE = 'feature_not_supported',
				DETAIL = format('The defining query needs a full refresh: %s.', old.downgrade_reason),
				HINT = 'Use refresh_mode => ''AUTO'' or ''FULL'', or change the query.';
	END IF;
	IF old.refresh_mode = 'IMMEDIATE' AND new_mode <> 'IMMEDIATE' THEN
		PERFORM pgtrickle.refuse_scheduled_source(old.relid);
	END IF;
	IF new_mode = 'IMMEDIATE' AND old.status = 'INITIALIZING' THEN
		new_status := coalesce(new_status, 'ACTIVE');
	ELSIF new_status = 'ACTIVE' AND NOT populated THEN
		new_status := 'INITIALIZING';
	END IF;

	UPDATE pgtrickle.pgt_definitions SET
		schedule = coalesce(changes->>'schedule', old.schedule),
		refresh_mode = new_mode,
		effective_refresh_mode = CASE
			WHEN new_mode IN ('FULL', 'IMMEDIATE') THEN new_mode
			WHEN old.downgrade_reason IS NOT NULL THEN 'FULL'
			ELSE 'DIFFERENTIAL' END,
		status = coalesce(new_status, old.status),
		options = new_options,
		updated_at = clock_timestamp()
	WHERE pgt_id = changed_id;

	PERFORM pgtrickle.note_retention(changed_id, old.options, new_options);
	IF new_status IN ('ACTIVE', 'INITIALIZING') AND old.status IN ('PAUSED', 'SUSPENDED', 'ERROR') THEN
		UPDATE pgtrickle.pgt_frontiers SET consecutive_errors = 0, retry_at = NULL WHERE pgt_id = changed_id;
		-- what reads an IMMEDIATE one has followed its rows, which stood still
		IF old.refresh_mode <> 'IMMEDIATE' THEN
			PERFORM pgtrickle.fill_with_consumers(ARRAY[changed_id], 'resumed');
		END IF;
	END IF;
	IF changes ? 'refresh_group' THEN
		PERFORM pgtrickle.change_group(changed_id, changes->'refresh_group');
	END IF;
	IF changes ? 'restored' THEN
		PERFORM pgtrickle.note_restored(changed_id, changes->'restored');
	END IF;
	IF changes ? 'refill' THEN
		UPDATE pgtrickle.pgt_frontiers SET needs_refill = true, refill_reason = changes->>'refill', retry_at = NULL
		WHERE pgt_id = changed_id;
	END IF;
	PERFORM pgtrickle.definitions_changed();

	IF new_mode = 'IMMEDIATE' AND coalesce(new_status, old.status) = 'ACTIVE'
		AND (old.refresh_mode <> 'IMMEDIATE' OR old.status <> 'ACTIVE' OR changes ? 'refill')
	THEN
		PERFORM pgtrickle.immediate_start(changed_id, prepared AND old.status = 'ACTIVE');
	ELSIF old.refresh_mode = 'IMMEDIATE' AND new_mode <> 'IMMEDIATE' THEN
		UPDATE pgtrickle.pgt_frontiers SET needs_refill = true, refill_reason = 'was IMMEDIATE' WHERE pgt_id = changed_id;
		PERFORM pgtrickle.immediate_leave(changed_id, old.status = 'ACTIVE' AND NOT changes ? 'refill');
		-- somebody may have become IMMEDIATE over it while we waited for the locks
		PERFORM pgtrickle.refuse_scheduled_source(old.relid);
	END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle.apply_change(bigint, jsonb, boolean) IS
	'what change_definition() does when the caller may';
REVOKE ALL ON FUNCTION pgtrickle.apply_change(bigint, jsonb, boolean) FROM PUBLIC;
