/*
 * sql/46_restore.sql
 *     Stream tables out of a dump.
 *
 * pg_dump takes along the definitions, the stream tables themselves with their rows, indexes and guards, and the state tables; nothing else in
 * the catalog would mean anything elsewhere. Until somebody has called restore_stream_tables(), restored definitions have no frontier, and so the
 * applier and the views do not see them.
 */

/*
 * Where a copy was, and whether its remote is still to be followed from there, a dump does not know.  So every table is copied again; those that
 * have rows show them until the difference has been put into them.
 */
CREATE FUNCTION pgtrickle.restore_copies() RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	left_over regclass;
BEGIN
	FOR left_over IN
		SELECT c.oid::regclass FROM pg_class c
		WHERE c.relnamespace = 'pgtrickle'::regnamespace AND c.relkind = 'r' AND c.relname ~ '^pgt_load_[0-9]+$'
			AND NOT EXISTS (SELECT FROM pgtrickle.pgt_copy_states s WHERE s.load_table = c.oid)
	LOOP
		EXECUTE format('DROP TABLE %s', left_over);
	END LOOP;
	PERFORM setval(pg_get_serial_sequence('pgtrickle.pgt_remotes', 'remote_id'), greatest(max(r.remote_id), 1)) FROM pgtrickle.pgt_remotes r;
	PERFORM setval(pg_get_serial_sequence('pgtrickle.pgt_copy_patterns', 'pattern_id'), greatest(max(p.pattern_id), 1))
	FROM pgtrickle.pgt_copy_patterns p;
	INSERT INTO pgtrickle.pgt_remote_states (remote_id)
	SELECT r.remote_id FROM pgtrickle.pgt_remotes r
	WHERE NOT EXISTS (SELECT FROM pgtrickle.pgt_remote_states s WHERE s.remote_id = r.remote_id);
	UPDATE pgtrickle.pgt_copies c SET relid = NULL WHERE NOT EXISTS (SELECT FROM pg_class t WHERE t.oid = c.relid);
	INSERT INTO pgtrickle.pgt_copy_states (copy_id, is_populated, status_reason)
	SELECT c.copy_id, c.relid IS NOT NULL, 'restored from a dump' FROM pgtrickle.pgt_copies c
	WHERE NOT EXISTS (SELECT FROM pgtrickle.pgt_copy_states s WHERE s.copy_id = c.copy_id);
END
$$;
COMMENT ON FUNCTION pgtrickle.restore_copies() IS 'has all copies that came out of a dump copied again';
REVOKE ALL ON FUNCTION pgtrickle.restore_copies() FROM PUBLIC;

CREATE FUNCTION pgtrickle.restore_stream_tables() RETURNS bigint
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	restored record;
	left_over regclass;
	count bigint := 0;
BEGIN
	FOR left_over IN
		SELECT c.oid::regclass FROM pg_class c
		WHERE c.relnamespace = 'pgtrickle'::regnamespace AND c.relkind = 'r' AND c.relname ~ '^pgt_state_[0-9]+_[0-9]+$'
			AND NOT EXISTS (SELECT FROM pgtrickle.pgt_state_tables s WHERE s.relid = c.oid)
	LOOP
		EXECUTE format('DROP TABLE %s', left_over);
	END LOOP;
	PERFORM setval(pg_get_serial_sequence('pgtrickle.pgt_definitions', 'pgt_id'),
		greatest(max(d.pgt_id), (SELECT max(c.copy_id) FROM pgtrickle.pgt_copies c), 1))
	FROM pgtrickle.pgt_definitions d;
	PERFORM pgtrickle.restore_copies();
	PERFORM setval(pg_get_serial_sequence('pgtrickle.pgt_refresh_groups', 'group_id'), greatest(max(g.group_id), 1))
	FROM pgtrickle.pgt_refresh_groups g;

	FOR restored IN
		SELECT d.pgt_id, n.nspname
		FROM pgtrickle.pgt_definitions d
		LEFT JOIN pg_class c ON c.oid = d.relid LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE NOT EXISTS (SELECT FROM pgtrickle.pgt_frontiers f WHERE f.pgt_id = d.pgt_id)
		ORDER BY d.pgt_id
	LOOP
		IF restored.nspname IS NULL THEN
			DELETE FROM pgtrickle.pgt_definitions WHERE pgt_id = restored.pgt_id;
			CONTINUE;
		END IF;
		INSERT INTO pgtrickle.pgt_frontiers (pgt_id, needs_refill, refill_reason) VALUES (restored.pgt_id, true, 'restored from a dump');
		-- no program has this fingerprint, so the state tables are made anew
		UPDATE pgtrickle.pgt_definitions SET
			query_fingerprint = 'restored',
			key_index = to_regclass(format('%I.%I', restored.nspname, 'pgt_key_' || restored.pgt_id)),
			created_xid = pg_current_xact_id(),
			filled_xid = NULL,
			functions_used = '{}',
			meaning = NULL,
			status = CASE status WHEN 'PAUSED' THEN status ELSE 'INITIALIZING' END
		WHERE pgt_id = restored.pgt_id;
		count := count + 1;
	END LOOP;

	-- when all are there, so that they know each other
	FOR restored IN
		SELECT d.pgt_id, d.relid FROM pgtrickle.pgt_definitions d WHERE d.query_fingerprint = 'restored' ORDER BY d.pgt_id
	LOOP
		BEGIN
			PERFORM pgtrickle.rebind_sources(restored.pgt_id);
			PERFORM pgtrickle.immediate_start(d.pgt_id) FROM pgtrickle.pgt_definitions d
			WHERE d.pgt_id = restored.pgt_id AND d.effective_refresh_mode = 'IMMEDIATE' AND d.status <> 'PAUSED';
		EXCEPTION WHEN OTHERS THEN
			RAISE WARNING 'stream table "%" cannot be refreshed yet: %', restored.relid, sqlerrm;
		END;
	END LOOP;
	PERFORM pgtrickle.definitions_changed();
	RETURN count;
END
$$;
COMMENT ON FUNCTION pgtrickle.restore_stream_tables() IS
	'lets the applier maintain stream tables that came out of a dump, and returns how many';
REVOKE ALL ON FUNCTION pgtrickle.restore_stream_tables() FROM PUBLIC;
