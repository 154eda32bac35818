/*
 * sql/41_redefine.sql
 *     Another query for a stream table: create_or_replace_stream_table() and alter_stream_table(query => ...).
 *
 * The order of it all, and why nobody who reads notices, is told in delta/redefine.c.  Here are the decision what has to be done, the
 * hand-over in the catalog, and the swap of a table whose columns do not fit any more.
 */

CREATE FUNCTION pgtrickle.redefine_stream_table(pgt_id bigint, query text, schedule text, refresh_mode text, options jsonb) RETURNS text
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_redefine_stream_table';
COMMENT ON FUNCTION pgtrickle.redefine_stream_table(bigint, text, text, text, jsonb) IS
	'gives a stream table of the caller another query, and says how: replaced in place, columns added, rebuilt';

/* ---- the catalog ---- */

-- A query may not read what is made from it.
CREATE FUNCTION pgtrickle.refuse_circle(redefined_id bigint, sources_of bigint) RETURNS void
	LANGUAGE plpgsql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	circle text;
BEGIN
	SELECT format('%s.%s', s.source_schema, s.source_name) INTO circle
	FROM pgtrickle.pgt_sources s JOIN pgtrickle.pgt_definitions d ON d.relid = s.source_relid
	WHERE s.pgt_id = sources_of
		AND (d.pgt_id = redefined_id OR d.pgt_id IN (SELECT c.consumer_id FROM pgtrickle.consumers_of(redefined_id) c))
	LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'the query of a stream table cannot read the stream table itself'
			USING ERRCODE = 'invalid_object_definition',
				DETAIL = format('It reads %s, directly or through other stream tables.', circle),
				HINT = 'Read the sources in place of it.';
	END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle.refuse_circle(bigint, bigint) IS
	'raises an error if a query reads what is made from it';
REVOKE ALL ON FUNCTION pgtrickle.refuse_circle(bigint, bigint) FROM PUBLIC;

/*
 * What the definition made beside has found out goes over into the one that stays.  Its frontier is that of a first fill: own_xid is null, filled_xid
 * is this transaction.  The index by which rows are found goes along only with the table it is on.
 */
CREATE FUNCTION pgtrickle.take_over_definition(kept_id bigint, beside_id bigint, new_relid oid) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	old pgtrickle.pgt_definitions;
	new_options jsonb;
	state record;
	assignments text;
BEGIN
	SELECT * INTO STRICT old FROM pgtrickle.pgt_definitions WHERE pgt_id = kept_id FOR UPDATE;
	PERFORM pgtrickle.refuse_circle(kept_id, beside_id);

	FOR state IN SELECT node_no, relid::regclass AS name, key_index::regclass AS index_name
		FROM pgtrickle.pgt_state_tables WHERE pgt_id = beside_id
	LOOP
		EXECUTE format('ALTER TABLE %s RENAME TO %I', state.name, format('pgt_state_%s_%s', kept_id, state.node_no));
		IF state.index_name IS NOT NULL THEN
			EXECUTE format('ALTER INDEX %s RENAME TO %I', state.index_name, format('pgt_state_%s_%s_key', kept_id, state.node_no));
		END IF;
	END LOOP;
	UPDATE pgtrickle.pgt_state_tables SET pgt_id = kept_id WHERE pgt_id = beside_id;
	DELETE FROM pgtrickle.pgt_sources WHERE pgt_id = kept_id;
	UPDATE pgtrickle.pgt_sources SET pgt_id = kept_id WHERE pgt_id = beside_id;

	SELECT string_agg(format('%I = n.%1$I', a.attname), ', ') INTO STRICT assignments
	FROM pg_attribute a
	WHERE a.attrelid = 'pgtrickle.pgt_definitions'::regclass AND a.attnum > 0 AND NOT a.attisdropped
		AND a.attname NOT IN ('pgt_id', 'relid', 'status', 'options', 'created_xid', 'created_at', 'updated_at')
		AND (new_relid <> old.relid OR a.attname NOT IN ('key_index', 'key_attnos', 'key_is_row_hash'));
	EXECUTE format('UPDATE pgtrickle.pgt_definitions o SET %s, options = pgtrickle.merged_options(o.options, n.options), updated_at = clock_timestamp(),
			status = CASE o.status WHEN ''PAUSED'' THEN o.status ELSE n.status END
		FROM pgtrickle.pgt_definitions n WHERE o.pgt_id = $1 AND n.pgt_id = $2 RETURNING o.options', assignments)
		INTO STRICT new_options USING kept_id, beside_id;

	UPDATE pgtrickle.pgt_frontiers o SET
		snapshot = n.snapshot, lsn = n.lsn, own_xid = NULL, query_now = n.query_now,
		spool_snapshot = NULL, spooled_since = NULL, spool_reason = NULL, data_timestamp = n.data_timestamp, last_refresh_at = n.last_refresh_at,
		is_populated = n.is_populated, needs_refill = n.needs_refill, refill_reason = n.refill_reason,
		total_refreshes = o.total_refreshes + n.total_refreshes, total_rows_inserted = o.total_rows_inserted + n.total_rows_inserted,
		total_duration_ms = o.total_duration_ms + n.total_duration_ms, last_action = n.last_action, last_status = n.last_status,
		consecutive_errors = 0, retry_at = NULL, history_since = coalesce(o.history_since, n.history_since)
	FROM pgtrickle.pgt_frontiers n
	WHERE o.pgt_id = kept_id AND n.pgt_id = beside_id;
	UPDATE pgtrickle.pgt_history SET pgt_id = kept_id, action = 'REINITIALIZE', initiated_by = 'MANUAL', reason = 'the query was changed'
	WHERE pgt_id = beside_id;

	DELETE FROM pgtrickle.pgt_definitions WHERE pgt_id = beside_id;
	UPDATE pgtrickle.pgt_definitions SET relid = new_relid WHERE pgt_id = kept_id AND relid <> new_relid;
	PERFORM pgtrickle.note_retention(kept_id, old.options, new_options);
	-- what lies between the old table and the new one is in no history
	PERFORM pgtrickle.begin_history(kept_id, f.data_timestamp) FROM pgtrickle.pgt_frontiers f WHERE f.pgt_id = kept_id AND old.relid <> new_relid;
END
$$;
COMMENT ON FUNCTION pgtrickle.take_over_definition(bigint, bigint, oid) IS
	'moves a definition that was made beside into the one that stays';
REVOKE ALL ON FUNCTION pgtrickle.take_over_definition(bigint, bigint, oid) FROM PUBLIC;

/* ---- a new table in the place of the old one ---- */

-- The definitions that the server prints name the table; %s takes its place.
CREATE FUNCTION pgtrickle.index_statement(index_id oid) RETURNS text
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT regexp_replace(replace(pg_get_indexdef(index_id), '%', '%%'),
		'^(CREATE (?:UNIQUE )?INDEX (?:"(?:[^"]|"")*"|[^ ]+) ON )(?:(?:"(?:[^"]|"")*"|[^ ."]+)\.)?(?:"(?:[^"]|"")*"|[^ "]+)', '\1%s')
$$;
COMMENT ON FUNCTION pgtrickle.index_statement(oid) IS
	'the statement that makes an index, with %s in place of the table';

CREATE FUNCTION pgtrickle.trigger_statement(trigger_id oid) RETURNS text
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT replace(replace(pg_get_triggerdef(t.oid), '%', '%%'), format(' ON %s ', replace(t.tgrelid::regclass::text, '%', '%%')), ' ON %s ')
	FROM pg_trigger t WHERE t.oid = trigger_id
$$;
COMMENT ON FUNCTION pgtrickle.trigger_statement(oid) IS
	'the statement that makes a trigger, with %s in place of the table';

/*
 * What the owner and others have given to the old table, as statements for the new one, in the order in which they have to run.  %s stands
 * for the table's name.  Left out is what the new table has of its own: its columns, the guard, the index by which rows are found.
 */
CREATE TYPE pgtrickle.table_property AS (what text, statement text);
COMMENT ON TYPE pgtrickle.table_property IS 'a statement about something that depends on a table, and what that is';

CREATE FUNCTION pgtrickle.table_properties(old_relid oid, key_index oid)
	RETURNS TABLE (what text, statement text)
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT 'storage parameters', format('ALTER TABLE %%s SET (%s)', array_to_string(c.reloptions, ', '))
	FROM pg_class c WHERE c.oid = old_relid AND c.reloptions IS NOT NULL
	UNION ALL
	SELECT 'tablespace', format('ALTER TABLE %%s SET TABLESPACE %I', t.spcname)
	FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace WHERE c.oid = old_relid
	UNION ALL
	SELECT 'replica identity', 'ALTER TABLE %s REPLICA IDENTITY ' || CASE c.relreplident WHEN 'f' THEN 'FULL' ELSE 'NOTHING' END
	FROM pg_class c WHERE c.oid = old_relid AND c.relreplident IN ('f', 'n')
	UNION ALL
	SELECT format('constraint "%s"', n.conname), format('ALTER TABLE %%s ADD CONSTRAINT %I %s', n.conname, pg_get_constraintdef(n.oid))
	FROM pg_constraint n WHERE n.conrelid = old_relid AND n.contype IN ('c', 'p', 'u', 'x')
	UNION ALL
	SELECT format('column "%s"', a.attname), format('ALTER TABLE %%s ALTER COLUMN %I SET NOT NULL', a.attname)
	FROM pg_attribute a WHERE a.attrelid = old_relid AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull
	UNION ALL
	SELECT format('column "%s"', a.attname), format('ALTER TABLE %%s ALTER COLUMN %I SET STATISTICS %s', a.attname, a.attstattarget)
	FROM pg_attribute a WHERE a.attrelid = old_relid AND a.attnum > 0 AND NOT a.attisdropped AND a.attstattarget >= 0
	UNION ALL
	-- constraints bring theirs with them
	SELECT format('index "%s"', x.relname), pgtrickle.index_statement(i.indexrelid)
	FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
	WHERE i.indrelid = old_relid AND i.indexrelid IS DISTINCT FROM key_index
		AND NOT EXISTS (SELECT FROM pg_constraint n WHERE n.conindid = i.indexrelid AND n.conrelid = old_relid)
	UNION ALL
	SELECT format('comment on index "%s"', x.relname), format('COMMENT ON INDEX %I.%I IS %L', s.nspname, x.relname, d.description)
	FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace s ON s.oid = x.relnamespace
	JOIN pg_description d ON d.objoid = x.oid AND d.classoid = 'pg_class'::regclass
	WHERE i.indrelid = old_relid AND i.indexrelid IS DISTINCT FROM key_index
	UNION ALL
	SELECT format('statistics "%s"', e.stxname), regexp_replace(pg_get_statisticsobjdef(e.oid), ' FROM .*$', ' FROM %s')
	FROM pg_statistic_ext e WHERE e.stxrelid = old_relid
	UNION ALL
	SELECT format('trigger "%s"', t.tgname), pgtrickle.trigger_statement(t.oid)
	FROM pg_trigger t WHERE t.tgrelid = old_relid AND NOT t.tgisinternal AND t.tgname <> 'pgtrickle_guard'
	UNION ALL
	SELECT format('trigger "%s"', t.tgname), format('ALTER TABLE %%s %s TRIGGER %I',
		CASE t.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END, t.tgname)
	FROM pg_trigger t WHERE t.tgrelid = old_relid AND NOT t.tgisinternal AND t.tgname <> 'pgtrickle_guard' AND t.tgenabled <> 'O'
	UNION ALL
	SELECT format('policy "%s"', p.polname), format('CREATE POLICY %I ON %%s AS %s FOR %s TO %s%s%s', p.polname,
		CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
		CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
		(SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ') FROM unnest(p.polroles) r),
		replace(' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')', '%', '%%'),
		replace(' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')', '%', '%%'))
	FROM pg_policy p WHERE p.polrelid = old_relid
	UNION ALL
	SELECT 'row-level security', 'ALTER TABLE %s ENABLE ROW LEVEL SECURITY' FROM pg_class c WHERE c.oid = old_relid AND c.relrowsecurity
	UNION ALL
	SELECT 'row-level security', 'ALTER TABLE %s FORCE ROW LEVEL SECURITY' FROM pg_class c WHERE c.oid = old_relid AND c.relforcerowsecurity
	UNION ALL
	SELECT 'grants', format('GRANT %s ON %%s TO %s%s', a.privilege_type,
		CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
		CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
	FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = old_relid AND a.grantee <> c.relowner
	UNION ALL
	SELECT format('grants on column "%s"', t.attname), format('GRANT %s (%I) ON %%s TO %s%s', a.privilege_type, t.attname,
		CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
		CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
	FROM pg_attribute t, aclexplode(t.attacl) a WHERE t.attrelid = old_relid AND NOT t.attisdropped
	UNION ALL
	SELECT 'comment', CASE d.objsubid
		WHEN 0 THEN format('COMMENT ON TABLE %%s IS %s', replace(quote_literal(d.description), '%', '%%'))
		ELSE format('COMMENT ON COLUMN %%s.%I IS %s', a.attname, replace(quote_literal(d.description), '%', '%%')) END
	FROM pg_description d LEFT JOIN pg_attribute a ON a.attrelid = d.objoid AND a.attnum = d.objsubid AND d.objsubid > 0
	WHERE d.objoid = old_relid AND d.classoid = 'pg_class'::regclass
	UNION ALL
	SELECT format('publication "%s"', p.pubname), format('ALTER PUBLICATION %I ADD TABLE %%s%s%s', p.pubname,
		(SELECT ' (' || string_agg(quote_ident(a.attname), ', ' ORDER BY k.n) || ')' FROM unnest(r.prattrs) WITH ORDINALITY k (attnum, n)
			JOIN pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = k.attnum),
		replace(' WHERE (' || pg_get_expr(r.prqual, r.prrelid) || ')', '%', '%%'))
	FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = old_relid
$$;
COMMENT ON FUNCTION pgtrickle.table_properties(oid, oid) IS
	'statements that give a table what another one has: indexes, constraints, grants, comments, triggers, policies, publications';

/*
 * The views that read the table directly.  Each is let go of by a statement that replaces it by one with the same columns and without
 * rows, so that it stays what it is for all others: its OID, its grants, what reads it.
 */
CREATE FUNCTION pgtrickle.views_over(relid oid)
	RETURNS TABLE (name text, release text, restore text)
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('%I.%I', n.nspname, v.relname),
		format('CREATE OR REPLACE VIEW %I.%I AS SELECT %s', n.nspname, v.relname,
			(SELECT string_agg(format('NULL::%s%s AS %I', format_type(a.atttypid, a.atttypmod),
				(SELECT format(' COLLATE %I.%I', s.nspname, c.collname) FROM pg_collation c JOIN pg_namespace s ON s.oid = c.collnamespace
					WHERE c.oid = a.attcollation), a.attname), ', ' ORDER BY a.attnum)
				FROM pg_attribute a WHERE a.attrelid = v.oid AND a.attnum > 0 AND NOT a.attisdropped)),
		format('CREATE OR REPLACE VIEW %I.%I%s AS %s', n.nspname, v.relname,
			' WITH (' || array_to_string(v.reloptions, ', ') || ')', pg_get_viewdef(v.oid))
	FROM pg_class v JOIN pg_namespace n ON n.oid = v.relnamespace
	WHERE v.relkind = 'v' AND v.oid IN (
		SELECT r.ev_class FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
		WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = relid)
	ORDER BY v.oid
$$;
COMMENT ON FUNCTION pgtrickle.views_over(oid) IS
	'the views that read a table, and the statements that let go of it and read it again';

/*
 * Runs a statement about something that depends on the table; an error names it.  An index, grant or comment whose column is gone goes with
 * it, and a notice says so.
 */
CREATE FUNCTION pgtrickle.carry_over(table_name text, what text, statement text) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	EXECUTE statement;
EXCEPTION
	WHEN undefined_column THEN
		IF what LIKE 'view %' OR what LIKE 'publication %' THEN
			RAISE EXCEPTION 'cannot change the columns of stream table "%": % depends on it', table_name, what
				USING ERRCODE = 'dependent_objects_still_exist', DETAIL = sqlerrm,
					HINT = 'Change or drop what depends on it first.';
		END IF;
		RAISE NOTICE '% of stream table "%" goes with the column', what, table_name USING DETAIL = sqlerrm;
	WHEN insufficient_privilege THEN
		RAISE EXCEPTION 'cannot change the columns of stream table "%": % depends on it', table_name, what
			USING ERRCODE = 'dependent_objects_still_exist', DETAIL = format('It belongs to somebody else: %s.', sqlerrm),
				HINT = 'Have its owner drop it first and make it again afterwards, or add columns at the end only.';
	WHEN OTHERS THEN
		RAISE EXCEPTION 'cannot change the columns of stream table "%": % depends on it', table_name, what
			USING ERRCODE = 'dependent_objects_still_exist', DETAIL = sqlerrm,
				HINT = 'Change or drop what depends on it first.';
END
$$;
COMMENT ON FUNCTION pgtrickle.carry_over(text, text, text) IS
	'runs a statement for the new table of a stream table; errors name what depends on it';

-- Runs as the stream table's owner, who can do nothing here that it could not do by hand.
CREATE FUNCTION pgtrickle.swap_in(old_relid oid, new_relid oid, kept_id bigint, beside_id bigint) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	schema_name text;
	table_name text;
	old_name text;
	beside_name text := new_relid::regclass::text;
	property record;
	view record;
	properties pgtrickle.table_property[];
	views pgtrickle.table_property[];
BEGIN
	SELECT n.nspname, c.relname INTO STRICT schema_name, table_name
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = old_relid;
	old_name := format('%I.%I', schema_name, table_name);

	SELECT coalesce(array_agg((p.what, p.statement)::pgtrickle.table_property), '{}') INTO properties
	FROM pgtrickle.table_properties(old_relid, to_regclass(format('%I.%I', schema_name, 'pgt_key_' || kept_id))) p;
	FOR view IN SELECT * FROM pgtrickle.views_over(old_relid) LOOP
		views := views || (view.name, view.restore)::pgtrickle.table_property;
		PERFORM pgtrickle.carry_over(old_name, format('view %s', view.name), view.release);
	END LOOP;
	PERFORM pgtrickle.carry_over(old_name, 'another object', 'DROP TABLE ' || old_name);
	EXECUTE format('ALTER TABLE %s RENAME TO %I', beside_name, table_name);
	IF to_regclass(format('%I.%I', schema_name, 'pgt_key_' || beside_id)) IS NOT NULL THEN
		EXECUTE format('ALTER INDEX %I.%I RENAME TO %I', schema_name, 'pgt_key_' || beside_id, 'pgt_key_' || kept_id);
	END IF;
	FOREACH property IN ARRAY properties LOOP
		PERFORM pgtrickle.carry_over(old_name, property.what, format(property.statement, old_name));
	END LOOP;
	FOREACH property IN ARRAY coalesce(views, '{}') LOOP
		PERFORM pgtrickle.carry_over(old_name, format('view %s', property.what), property.statement);
	END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle.swap_in(oid, oid, bigint, bigint) IS
	'puts the table that was made beside in the place of the old one, with everything that belongs to it';

/* ---- the decision ---- */

-- The second half of create_or_replace_stream_table() when the query stays: what else is to change.
CREATE FUNCTION pgtrickle.replace_options(replaced_id bigint, wanted jsonb) RETURNS text
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	old record;
	changes jsonb := '{}';
BEGIN
	SELECT * INTO STRICT old FROM pgtrickle.definition_to_change(replaced_id);
	IF old.schedule <> wanted->>'schedule' THEN
		changes := changes || jsonb_build_object('schedule', wanted->'schedule');
	END IF;
	IF old.refresh_mode <> wanted->>'refresh_mode' THEN
		changes := changes || jsonb_build_object('refresh_mode', wanted->'refresh_mode');
	END IF;
	IF pgtrickle.merged_options(old.options, wanted->'options') <> old.options THEN
		changes := changes || jsonb_build_object('options', wanted->'options');
	END IF;
	-- who defines it again wants it to go on
	IF old.status IN ('SUSPENDED', 'ERROR') THEN
		changes := changes || '{"status": "ACTIVE"}';
	END IF;
	IF changes = '{}' THEN
		RETURN 'unchanged';
	END IF;
	PERFORM pgtrickle.change_definition(replaced_id, changes);
	RETURN 'altered';
END
$$;
COMMENT ON FUNCTION pgtrickle.replace_options(bigint, jsonb) IS
	'what create_or_replace_stream_table() does when the query stays as it is: unchanged or altered';

-- Is this the query that the stream table has?  Also when it reads something else under the same names, it is another.
CREATE FUNCTION pgtrickle.is_defined_as(pgt_id bigint, normal_query text) RETURNS boolean
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT d.defining_query = normal_query FROM pgtrickle.definition_to_change(pgt_id) d
$$;
COMMENT ON FUNCTION pgtrickle.is_defined_as(bigint, text) IS
	'has the stream table this query already';

CREATE FUNCTION pgtrickle.replace_definition(replaced_id bigint, query text, wanted jsonb) RETURNS text
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
BEGIN
	IF pgtrickle.is_defined_as(replaced_id, pgtrickle.normalize_query(query)) THEN
		RETURN pgtrickle.replace_options(replaced_id, wanted);
	END IF;
	RETURN pgtrickle.redefine_stream_table(replaced_id, query, pg_catalog.jsonb_extract_path_text(wanted, 'schedule'),
		pg_catalog.jsonb_extract_path_text(wanted, 'refresh_mode'), pg_catalog.jsonb_extract_path(wanted, 'options'));
END
$$;
COMMENT ON FUNCTION pgtrickle.replace_definition(bigint, text, jsonb) IS
	'what create_or_replace_stream_table() does with a stream table that exists, and returns';

CREATE FUNCTION pgtrickle.create_or_replace_stream_table(
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
	retain_history interval DEFAULT NULL) RETURNS text
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
DECLARE
	done text := 'created';
BEGIN
	IF pgtrickle.stream_table_id_if_exists(name) IS NULL THEN
		PERFORM pgtrickle.create_stream_table(name, query, schedule, refresh_mode, initialize, diamond_consistency,
			diamond_schedule_policy, cdc_mode, append_only, pooler_compatibility_mode, partition_by, max_differential_joins,
			max_delta_fraction, output_distribution_column, temporal, storage_backend, retain_history => retain_history);
	ELSE
		done := pgtrickle.replace_definition(pgtrickle.stream_table_id(name), query,
			pg_catalog.jsonb_build_object(
				'schedule', pgtrickle.check_schedule(schedule), 'refresh_mode', pgtrickle.check_refresh_mode(refresh_mode),
				'options', pgtrickle.check_options(pg_catalog.jsonb_build_object(
					'diamond_consistency', diamond_consistency, 'diamond_schedule_policy', diamond_schedule_policy,
					'cdc_mode', cdc_mode, 'append_only', append_only, 'pooler_compatibility_mode', pooler_compatibility_mode,
					'partition_by', partition_by, 'max_differential_joins', max_differential_joins,
					'max_delta_fraction', max_delta_fraction, 'output_distribution_column', output_distribution_column,
					'temporal', temporal, 'storage_backend', storage_backend, 'retain_history', retain_history))));
	END IF;
	RAISE NOTICE 'stream table "%": %', name, done;
	RETURN done;
END
$$;
COMMENT ON FUNCTION pgtrickle.create_or_replace_stream_table(text, text, text, text, boolean, text, text, text, boolean, boolean,
	text, integer, double precision, text, boolean, text, interval) IS
	'creates a stream table or gives the one that exists this definition, and says what that took; nothing happens when it is the same';

-- What alter_stream_table() does with its query; null: nothing.
CREATE FUNCTION pgtrickle.alter_query(altered_id bigint, query text, refresh_mode text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
DECLARE
	old record;
	done text := 'unchanged';
BEGIN
	IF query IS NOT NULL THEN
		IF NOT pgtrickle.is_defined_as(altered_id, pgtrickle.normalize_query(query)) THEN
			SELECT d.name, d.schedule, d.refresh_mode INTO STRICT old FROM pgtrickle.definition_to_change(altered_id) d;
			done := pgtrickle.redefine_stream_table(altered_id, query, old.schedule,
				pgtrickle.check_refresh_mode(COALESCE(refresh_mode, old.refresh_mode)), '{}');
		END IF;
		RAISE NOTICE 'query of the stream table: %', done;
	END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle.alter_query(bigint, text, text) IS
	'what alter_stream_table() does with its query';

CREATE FUNCTION pgtrickle.alter_stream_table(
	name text,
	query text DEFAULT NULL,
	schedule text DEFAULT NULL,
	refresh_mode text DEFAULT NULL,
	status text DEFAULT NULL,
	diamond_consistency text DEFAULT NULL,
	diamond_schedule_policy text DEFAULT NULL,
	cdc_mode text DEFAULT NULL,
	append_only boolean DEFAULT NULL,
	pooler_compatibility_mode boolean DEFAULT NULL,
	tier text DEFAULT NULL,
	fuse text DEFAULT NULL,
	fuse_ceiling bigint DEFAULT NULL,
	fuse_sensitivity integer DEFAULT NULL,
	partition_by text DEFAULT NULL,
	max_differential_joins integer DEFAULT NULL,
	max_delta_fraction double precision DEFAULT NULL,
	post_refresh_action text DEFAULT NULL,
	reindex_drift_threshold double precision DEFAULT NULL,
	sink text DEFAULT NULL,
	ducklake_sink_path text DEFAULT NULL,
	ducklake_sink_table_id bigint DEFAULT NULL,
	retain_history interval DEFAULT NULL) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT pgtrickle.alter_query(pgtrickle.stream_table_id(name), query, refresh_mode);
	SELECT pgtrickle.change_definition(pgtrickle.stream_table_id(name),
		pgtrickle.changes_to_make(schedule, refresh_mode, status, pg_catalog.jsonb_build_object(
			'diamond_consistency', diamond_consistency, 'diamond_schedule_policy', diamond_schedule_policy,
			'cdc_mode', cdc_mode, 'append_only', append_only, 'pooler_compatibility_mode', pooler_compatibility_mode,
			'tier', tier, 'fuse', fuse, 'fuse_ceiling', fuse_ceiling, 'fuse_sensitivity', fuse_sensitivity,
			'partition_by', partition_by, 'max_differential_joins', max_differential_joins,
			'max_delta_fraction', max_delta_fraction, 'post_refresh_action', post_refresh_action,
			'reindex_drift_threshold', reindex_drift_threshold, 'sink', sink, 'ducklake_sink_path', ducklake_sink_path,
			'ducklake_sink_table_id', ducklake_sink_table_id, 'retain_history', retain_history)))
$$;
COMMENT ON FUNCTION pgtrickle.alter_stream_table(text, text, text, text, text, text, text, text, boolean, boolean, text, text, bigint,
	integer, text, integer, double precision, text, double precision, text, text, bigint, interval) IS
	'changes query, schedule, refresh mode or status of a stream table; null keeps what is';
