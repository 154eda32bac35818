/*
 * sql/72_remote_applier.sql
 *     What the applier and `pgtrickle copy` call about remotes and copies: where a stream stands, what is to be copied, how far it is.
 *
 * docs/explanation/tick.md, section 9, is the contract.  Here live the transitions between the states of 16_remote_catalog.sql, except for those that
 * happen inside a tick (delta/copy_*.c).  Like everything for the applier: not for PUBLIC, with the rights of the extension's owner,
 * arguments are only values.
 */

-- The applier reads its catalog anew; for changes that do not matter to the programs of stream tables.
CREATE FUNCTION pgtrickle.copies_changed() RETURNS void
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT pgtrickle.emit_message('catalog', true, false)
$$;
COMMENT ON FUNCTION pgtrickle.copies_changed() IS 'tells the applier that remotes or copies have changed';
REVOKE ALL ON FUNCTION pgtrickle.copies_changed() FROM PUBLIC;

/* ---- reading ---- */

CREATE FUNCTION pgtrickle.remote_catalog()
	RETURNS TABLE (
		remote_id integer, remote_name text, conninfo text, target_conninfo text, output_plugin text, publication text,
		slot_name text, schema_map jsonb, system_identifier text, timeline integer, database_name text,
		"position" pg_lsn, position_at timestamptz, status text, options jsonb, last_xid xid8, last_commit_lsn pg_lsn)
	LANGUAGE sql STABLE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT r.remote_id, r.remote_name, r.conninfo, r.target_conninfo, r.output_plugin, r.publication,
		r.slot_name, r.schema_map, s.system_identifier, s.timeline, s.database_name,
		s.position, s.position_at, s.status, r.options, s.last_xid, s.last_commit_lsn
	FROM pgtrickle.pgt_remotes r
	JOIN pgtrickle.pgt_remote_states s USING (remote_id)
	ORDER BY r.remote_id
$$;
COMMENT ON FUNCTION pgtrickle.remote_catalog() IS 'for the applier: the remotes, and how far each has been followed';
REVOKE ALL ON FUNCTION pgtrickle.remote_catalog() FROM PUBLIC;

CREATE FUNCTION pgtrickle.copy_catalog()
	RETURNS TABLE (
		copy_id bigint, remote_id integer, remote_schema text, remote_table text, remote_relid oid,
		relid oid, target_schema text, target_table text, columns_wanted text[], row_filter text, demand text, storage text,
		status text, status_reason text, is_populated boolean, has_key boolean, stream_from pg_lsn, copied_from pg_lsn, copied_lsn pg_lsn,
		load_table text, has_consumers boolean, consecutive_errors integer, retry_at timestamptz)
	LANGUAGE sql STABLE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT c.copy_id, c.remote_id, c.remote_schema, c.remote_table, s.remote_relid,
		c.relid::oid, c.target_schema, c.target_table, c.columns_wanted, c.row_filter, c.demand, c.storage,
		s.status, s.status_reason, s.is_populated, s.has_key, s.stream_from, s.copied_from, s.copied_lsn,
		(SELECT format('%I.%I', n.nspname, l.relname) FROM pg_class l JOIN pg_namespace n ON n.oid = l.relnamespace WHERE l.oid = s.load_table),
		EXISTS (SELECT FROM pgtrickle.pgt_sources consumer WHERE consumer.source_relid = c.relid),
		s.consecutive_errors, s.retry_at
	FROM pgtrickle.pgt_copies c
	JOIN pgtrickle.pgt_copy_states s USING (copy_id)
	ORDER BY c.copy_id
$$;
COMMENT ON FUNCTION pgtrickle.copy_catalog() IS 'for the applier: the copies, and the state of each';
REVOKE ALL ON FUNCTION pgtrickle.copy_catalog() FROM PUBLIC;

CREATE FUNCTION pgtrickle.copy_column_list(copy_id bigint)
	RETURNS TABLE (attnum smallint, column_name text, remote_attnum smallint, remote_column text, remote_type text, remote_type_oid oid,
		remote_typmod integer, remote_collation text)
	LANGUAGE sql STABLE STRICT SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT k.attnum, a.attname::text, k.remote_attnum, k.remote_column, k.remote_type, k.remote_type_oid, k.remote_typmod, k.remote_collation
	FROM pgtrickle.pgt_copy_columns k
	JOIN pgtrickle.pgt_copies c USING (copy_id)
	JOIN pg_attribute a ON a.attrelid = c.relid AND a.attnum = k.attnum
	WHERE k.copy_id = copy_column_list.copy_id
	ORDER BY k.attnum
$$;
COMMENT ON FUNCTION pgtrickle.copy_column_list(bigint) IS 'for the program: the columns of a copy, here and there';
REVOKE ALL ON FUNCTION pgtrickle.copy_column_list(bigint) FROM PUBLIC;

CREATE FUNCTION pgtrickle.copy_chunk_list(copy_id bigint)
	RETURNS TABLE (chunk_no integer, low text[], high text[], status text, row_count bigint)
	LANGUAGE sql STABLE STRICT SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT k.chunk_no, k.low, k.high, k.status, k.row_count
	FROM pgtrickle.pgt_copy_chunks k WHERE k.copy_id = copy_chunk_list.copy_id ORDER BY k.chunk_no
$$;
COMMENT ON FUNCTION pgtrickle.copy_chunk_list(bigint) IS 'for the program: the parts of a table that is being copied';
REVOKE ALL ON FUNCTION pgtrickle.copy_chunk_list(bigint) FROM PUBLIC;

CREATE FUNCTION pgtrickle.copy_pattern_list()
	RETURNS TABLE (pattern_id integer, remote_id integer, remote_schema text, demand text)
	LANGUAGE sql STABLE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT p.pattern_id, p.remote_id, p.remote_schema, p.demand FROM pgtrickle.pgt_copy_patterns p ORDER BY p.pattern_id
$$;
COMMENT ON FUNCTION pgtrickle.copy_pattern_list() IS 'for the program: schemas of remotes whose tables are all copied';
REVOKE ALL ON FUNCTION pgtrickle.copy_pattern_list() FROM PUBLIC;

/* ---- the stream of a remote ---- */

-- What was copied is of no use any more, but what the stream has brought since is: copying starts anew.
CREATE FUNCTION pgtrickle.forget_copying_rows(copy_id bigint) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	load_table regclass;
BEGIN
	-- a tick that is at work on the copy comes first
	PERFORM FROM pgtrickle.pgt_copies c WHERE c.copy_id = copy_id FOR UPDATE;
	SELECT c.oid INTO load_table FROM pgtrickle.pgt_copy_states s JOIN pg_class c ON c.oid = s.load_table WHERE s.copy_id = copy_id;
	IF load_table IS NOT NULL THEN
		-- before the parts: whoever loads one holds a lock on the table when it marks the part
		EXECUTE format('DROP TABLE %s', load_table);
	END IF;
	DELETE FROM pgtrickle.pgt_copy_chunks k WHERE k.copy_id = copy_id;
	UPDATE pgtrickle.pgt_copy_states s SET load_table = NULL, loaded_xid = NULL, exact_xid = NULL, exact_at = NULL, copied_from = NULL, copied_lsn = NULL, copied_snapshot = NULL,
		rows_copied = 0, bytes_copied = 0, rows_expected = NULL, started_at = NULL, ended_at = NULL
	WHERE s.copy_id = copy_id;
END
$$;
COMMENT ON FUNCTION pgtrickle.forget_copying_rows(bigint) IS 'throws away what has been copied of a table and not yet switched in';
REVOKE ALL ON FUNCTION pgtrickle.forget_copying_rows(bigint) FROM PUBLIC;

CREATE FUNCTION pgtrickle.forget_copying(copy_id bigint) RETURNS void
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT pgtrickle.forget_copying_rows(forget_copying.copy_id);
	DELETE FROM pgtrickle.pgt_copy_spool k WHERE k.copy_id = forget_copying.copy_id;
	UPDATE pgtrickle.pgt_copy_states s SET stream_from = NULL WHERE s.copy_id = forget_copying.copy_id
$$;
COMMENT ON FUNCTION pgtrickle.forget_copying(bigint) IS
	'the same, with the changes that wait for it';
REVOKE ALL ON FUNCTION pgtrickle.forget_copying(bigint) FROM PUBLIC;

/*
 * Has a copy copied again.  With `exact` its rows are those of the remote's position and go on following the stream meanwhile; else
 * they stand still until the switch.
 */
CREATE FUNCTION pgtrickle.want_copy(copy_id bigint, reason text, exact boolean) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
	PERFORM pgtrickle.forget_copying(copy_id);
	UPDATE pgtrickle.pgt_copy_states s SET status = 'WANTED', status_reason = reason,
		live_follows = s.is_populated AND exact AND (s.status = 'ACTIVE' OR s.live_follows),
		consecutive_errors = 0, retry_at = NULL
	WHERE s.copy_id = copy_id;
END
$$;
COMMENT ON FUNCTION pgtrickle.want_copy(bigint, text, boolean) IS 'has a copy copied, again';
REVOKE ALL ON FUNCTION pgtrickle.want_copy(bigint, text, boolean) FROM PUBLIC;

CREATE FUNCTION pgtrickle.remote_started(remote_id integer, system_identifier text, timeline integer, database_name text, "position" pg_lsn, reason text)
	RETURNS void
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
	UPDATE pgtrickle.pgt_remote_states s SET
		system_identifier = system_identifier, timeline = timeline, database_name = database_name,
		position = CASE WHEN reason IS NULL THEN coalesce(s.position, "position") ELSE "position" END,
		last_xid = CASE WHEN reason IS NULL THEN s.last_xid END,
		last_commit_lsn = CASE WHEN reason IS NULL THEN s.last_commit_lsn END,
		status = CASE s.status WHEN 'LOST' THEN 'ACTIVE' ELSE s.status END,
		status_reason = CASE s.status WHEN 'LOST' THEN NULL ELSE s.status_reason END,
		last_error_sqlstate = NULL, last_error_message = NULL, last_error_at = NULL
	WHERE s.remote_id = remote_id;
	IF reason IS NULL THEN
		RETURN;
	END IF;
	PERFORM pgtrickle.want_copy(c.copy_id, reason, false)
	FROM pgtrickle.pgt_copies c JOIN pgtrickle.pgt_copy_states s USING (copy_id)
	WHERE c.remote_id = remote_id AND s.status IN ('WANTED', 'COPYING', 'COPIED', 'ACTIVE', 'REDEFINE');
	UPDATE pgtrickle.pgt_copy_states s SET live_follows = false
	FROM pgtrickle.pgt_copies c WHERE c.copy_id = s.copy_id AND c.remote_id = remote_id;
	PERFORM pgtrickle.copies_changed();
END
$$;
COMMENT ON FUNCTION pgtrickle.remote_started(integer, text, integer, text, pg_lsn, text) IS
	'for the applier: the stream of a remote runs from this position; with a reason its copies are copied again';
REVOKE ALL ON FUNCTION pgtrickle.remote_started(integer, text, integer, text, pg_lsn, text) FROM PUBLIC;

CREATE FUNCTION pgtrickle.remote_streams(remote_id integer, relids oid[], from_lsn pg_lsn) RETURNS bigint
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	streamed bigint;
BEGIN
	UPDATE pgtrickle.pgt_copy_states s SET status = 'COPYING', stream_from = from_lsn
	FROM pgtrickle.pgt_copies c
	WHERE c.copy_id = s.copy_id AND c.remote_id = remote_id AND s.status = 'WANTED' AND s.remote_relid = ANY (relids);
	GET DIAGNOSTICS streamed = ROW_COUNT;
	IF streamed > 0 THEN
		PERFORM pgtrickle.copies_changed();
	END IF;
	RETURN streamed;
END
$$;
COMMENT ON FUNCTION pgtrickle.remote_streams(integer, oid[], pg_lsn) IS
	'for the applier: the stream of a remote carries changes of these tables from here on; returns how many copies may be copied now';
REVOKE ALL ON FUNCTION pgtrickle.remote_streams(integer, oid[], pg_lsn) FROM PUBLIC;

CREATE FUNCTION pgtrickle.remote_lost(remote_id integer, relids oid[], reason text) RETURNS bigint
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	lost bigint;
BEGIN
	PERFORM pgtrickle.want_copy(c.copy_id, reason, false)
	FROM pgtrickle.pgt_copies c JOIN pgtrickle.pgt_copy_states s USING (copy_id)
	WHERE c.remote_id = remote_id AND s.remote_relid = ANY (relids) AND s.status IN ('WANTED', 'COPYING', 'COPIED', 'ACTIVE', 'REDEFINE');
	GET DIAGNOSTICS lost = ROW_COUNT;
	IF lost > 0 THEN
		PERFORM pgtrickle.copies_changed();
	END IF;
	RETURN lost;
END
$$;
COMMENT ON FUNCTION pgtrickle.remote_lost(integer, oid[], text) IS
	'for the applier: changes of these tables of a remote could not be kept; returns how many copies are copied again for it';
REVOKE ALL ON FUNCTION pgtrickle.remote_lost(integer, oid[], text) FROM PUBLIC;

-- Never backwards, and never while a tick of this remote is at work: that one fails then and is tried again.
CREATE FUNCTION pgtrickle.remote_heartbeat(remote_id integer, "position" pg_lsn, position_at timestamptz) RETURNS boolean
	LANGUAGE sql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
	WITH moved AS (
		UPDATE pgtrickle.pgt_remote_states s SET position = remote_heartbeat.position,
			position_at = coalesce(remote_heartbeat.position_at, s.position_at), own_xid = pg_current_xact_id()
		WHERE s.remote_id = remote_heartbeat.remote_id AND s.position < remote_heartbeat.position
		RETURNING 1
	)
	SELECT EXISTS (SELECT FROM moved)
$$;
COMMENT ON FUNCTION pgtrickle.remote_heartbeat(integer, pg_lsn, timestamptz) IS
	'for the applier: nothing that concerns a copy was committed on a remote up to here; false: that is known already';
REVOKE ALL ON FUNCTION pgtrickle.remote_heartbeat(integer, pg_lsn, timestamptz) FROM PUBLIC;

CREATE FUNCTION pgtrickle.remote_failed(remote_id integer, sqlstate text, message text) RETURNS void
	LANGUAGE sql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
	UPDATE pgtrickle.pgt_remote_states s SET last_error_sqlstate = sqlstate, last_error_message = message, last_error_at = clock_timestamp()
	WHERE s.remote_id = remote_failed.remote_id
$$;
COMMENT ON FUNCTION pgtrickle.remote_failed(integer, text, text) IS
	'for the applier: records why a remote cannot be followed at the moment';
REVOKE ALL ON FUNCTION pgtrickle.remote_failed(integer, text, text) FROM PUBLIC;

/* ---- defining ---- */

CREATE FUNCTION pgtrickle.copy_found(pattern_id integer, remote_tables text[]) RETURNS bigint
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	found bigint;
BEGIN
	WITH added AS (
		INSERT INTO pgtrickle.pgt_copies (remote_id, remote_schema, remote_table, target_schema, target_table, demand)
		SELECT p.remote_id, p.remote_schema, t.name, coalesce(r.schema_map->>p.remote_schema, p.remote_schema), t.name, p.demand
		FROM pgtrickle.pgt_copy_patterns p
		JOIN pgtrickle.pgt_remotes r USING (remote_id)
		CROSS JOIN unnest(remote_tables) t (name)
		WHERE p.pattern_id = pattern_id AND NOT EXISTS (SELECT FROM pgtrickle.pgt_copies c
			WHERE c.remote_id = p.remote_id AND c.remote_schema = p.remote_schema AND c.remote_table = t.name)
		ON CONFLICT (target_schema, target_table) DO NOTHING
		RETURNING copy_id
	)
	INSERT INTO pgtrickle.pgt_copy_states (copy_id) SELECT a.copy_id FROM added a;
	GET DIAGNOSTICS found = ROW_COUNT;
	IF found > 0 THEN
		PERFORM pgtrickle.copies_changed();
	END IF;
	RETURN found;
END
$$;
COMMENT ON FUNCTION pgtrickle.copy_found(integer, text[]) IS
	'for the program: the tables that a schema of a remote has; returns how many were not known';
REVOKE ALL ON FUNCTION pgtrickle.copy_found(integer, text[]) FROM PUBLIC;

-- Rows of a table without a key are found by the hash of the whole row.
CREATE FUNCTION pgtrickle.row_hash_index(target oid) RETURNS oid
	LANGUAGE sql STABLE STRICT
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT i.indexrelid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
	WHERE i.indrelid = target AND c.relname = 'pgt_rows_' || target
$$;
COMMENT ON FUNCTION pgtrickle.row_hash_index(oid) IS 'the index by which rows of a table without a key are found';
REVOKE ALL ON FUNCTION pgtrickle.row_hash_index(oid) FROM PUBLIC;

-- Anew, since the columns may be others.
CREATE FUNCTION pgtrickle.index_rows(target oid) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	columns CONSTANT text := (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a
		WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped);
BEGIN
	IF pgtrickle.row_hash_index(target) IS NOT NULL THEN
		EXECUTE format('DROP INDEX %s', pgtrickle.row_hash_index(target)::regclass);
	END IF;
	EXECUTE format('CREATE INDEX %I ON %s (pgtrickle.row_hash(ROW(%s)))', 'pgt_rows_' || target, target::regclass, columns);
END
$$;
COMMENT ON FUNCTION pgtrickle.index_rows(oid) IS 'makes the index by which rows of a table without a key are found';
REVOKE ALL ON FUNCTION pgtrickle.index_rows(oid) FROM PUBLIC;

-- With a guard, which stands in nobody's way but that of writers: the applier and the loading do not write through SQL to this table.
CREATE FUNCTION pgtrickle.guard_copy(relid regclass) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = relid AND t.tgfoid = 'pgtrickle.guard_copies'::regproc) THEN
		EXECUTE format('CREATE TRIGGER pgtrickle_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s'
			' FOR EACH STATEMENT EXECUTE FUNCTION pgtrickle.guard_copies()', relid);
		EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER pgtrickle_guard', relid);
	END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle.guard_copy(regclass) IS 'makes a copy read-only';
REVOKE ALL ON FUNCTION pgtrickle.guard_copy(regclass) FROM PUBLIC;

CREATE FUNCTION pgtrickle.check_row_filter(relid oid, condition text) RETURNS void
	LANGUAGE c STABLE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_check_row_filter';
COMMENT ON FUNCTION pgtrickle.check_row_filter(oid, text) IS
	'an error if the text is no condition on the columns of a copy that can be asked about one row at a time';
REVOKE ALL ON FUNCTION pgtrickle.check_row_filter(oid, text) FROM PUBLIC;

/*
 * columns: [{"attnum": 1, "remote_attnum": 1, "remote_column": "id", "remote_type": "bigint", "remote_type_oid": 20, "remote_typmod": -1,
 * "remote_collation": null}, ...].  `recopy` says why the rows have to be copied again; until then the copy shows those that it has.
 * Without a reason a copy whose rows are those of the remote's position goes on as it was: it has been altered as the remote's table was.  One
 * that is being copied is copied anew in any case, since what was loaded has the old shape.
 */
CREATE FUNCTION pgtrickle.copy_defined(
	copy_id bigint, remote_relid oid, target oid, columns jsonb, key_index oid, recopy text DEFAULT NULL, is_partitioned boolean DEFAULT false)
	RETURNS text
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	index_id CONSTANT oid := nullif(key_index, 0);
	goes_on CONSTANT boolean := recopy IS NULL AND EXISTS (
		SELECT FROM pgtrickle.pgt_copy_states s
		WHERE s.copy_id = copy_id AND s.is_populated AND s.load_table IS NULL AND s.status IN ('ACTIVE', 'REDEFINE'));
	new_status text;
BEGIN
	IF index_id IS NOT NULL AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = index_id AND i.indrelid = target AND i.indisunique) THEN
		RAISE EXCEPTION 'index % is no unique index of table "%"', index_id, target::regclass USING ERRCODE = 'invalid_parameter_value';
	END IF;
	UPDATE pgtrickle.pgt_copies c SET relid = target::regclass WHERE c.copy_id = copy_id;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'copy % does not exist', copy_id USING ERRCODE = 'undefined_object';
	END IF;
	PERFORM pgtrickle.check_row_filter(target, c.row_filter) FROM pgtrickle.pgt_copies c WHERE c.copy_id = copy_id AND c.row_filter IS NOT NULL;
	IF NOT goes_on THEN
		PERFORM pgtrickle.forget_copying(copy_id);
	END IF;
	DELETE FROM pgtrickle.pgt_copy_columns k WHERE k.copy_id = copy_id;
	INSERT INTO pgtrickle.pgt_copy_columns (copy_id, attnum, remote_attnum, remote_column, remote_type, remote_type_oid, remote_typmod, remote_collation)
	SELECT copy_id, k.attnum, k.remote_attnum, k.remote_column, k.remote_type, k.remote_type_oid, coalesce(k.remote_typmod, -1), k.remote_collation
	FROM jsonb_to_recordset(columns) k (attnum smallint, remote_attnum smallint, remote_column text, remote_type text, remote_type_oid oid,
		remote_typmod integer, remote_collation text);
	IF index_id IS NULL THEN
		PERFORM pgtrickle.index_rows(target);
	END IF;
	PERFORM pgtrickle.guard_copy(target);
	-- consumers that do not take part in a tick get the changes through the stream of this database
	EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', target::regclass);
	UPDATE pgtrickle.pgt_copy_states s SET
		status = CASE WHEN goes_on THEN 'ACTIVE'
			WHEN s.is_populated OR c.demand = 'always' OR EXISTS (SELECT FROM pgtrickle.pgt_sources d WHERE d.source_relid = target)
			THEN 'WANTED' ELSE 'DECLARED' END,
		status_reason = CASE WHEN s.is_populated AND NOT goes_on THEN coalesce(recopy, 'the table of the remote was changed') END,
		remote_relid = remote_relid, is_partitioned = is_partitioned,
		remote_natts = greatest(CASE WHEN s.remote_relid = remote_relid THEN s.remote_natts END, (SELECT max(k.remote_attnum) FROM pgtrickle.pgt_copy_columns k WHERE k.copy_id = copy_id)),
		has_key = index_id IS NOT NULL, key_index = coalesce(index_id, pgtrickle.row_hash_index(target)),
		key_attnos = coalesce((SELECT (i.indkey::smallint[])[0:i.indnkeyatts - 1] FROM pg_index i WHERE i.indexrelid = index_id), '{}'),
		live_follows = false, consecutive_errors = 0, retry_at = NULL
	FROM pgtrickle.pgt_copies c
	WHERE c.copy_id = s.copy_id AND s.copy_id = copy_id
	RETURNING s.status INTO new_status;
	PERFORM pgtrickle.definitions_changed();
	RETURN new_status;
END
$$;
COMMENT ON FUNCTION pgtrickle.copy_defined(bigint, oid, oid, jsonb, oid, text, boolean) IS
	'for the program: the table of a copy has been made or altered; its key''s index, or null. Returns the new status';
REVOKE ALL ON FUNCTION pgtrickle.copy_defined(bigint, oid, oid, jsonb, oid, text, boolean) FROM PUBLIC;

/*
 * What belongs to a partitioned table is not in its stream: a partition that is attached brings rows that were never sent, one that is detached or
 * dropped takes rows along.  A partition that was made as one was empty then; `changed`: other parts belong to it.  `rewritten`: of a part that is known all rows have been written
 * anew or taken away, for whatever reason; `altered`: and its columns were altered, so that the rows may have other values.  Of a part that has come since the last look
 * and rows by the stream nothing but its name is known (delta/copy_record.c).
 */
CREATE FUNCTION pgtrickle.copy_members(copy_id bigint, remote_relid oid, members jsonb, OUT changed text, OUT rewritten text, OUT altered text)
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	known jsonb;
BEGIN
	SELECT s.members INTO known FROM pgtrickle.pgt_copy_states s WHERE s.copy_id = copy_id FOR UPDATE;
	IF known = members THEN
		RETURN;
	END IF;
	UPDATE pgtrickle.pgt_copy_states s SET members = members WHERE s.copy_id = copy_id;
	IF known IS NULL OR NOT known ? remote_relid::text THEN
		RETURN;
	END IF;
	SELECT CASE WHEN now.value IS NULL THEN format('partition %s has been detached or dropped', was.value->>'name')
			WHEN was.value IS NULL THEN format('partition %s has been attached', now.value->>'name')
			ELSE format('partition %s has been detached and attached', now.value->>'name') END
	INTO changed
	FROM jsonb_each(known) was FULL JOIN jsonb_each(members) now USING (key)
	WHERE now.value IS NULL OR was.value->'link' IS NULL AND (now.value->>'attached')::boolean OR was.value->>'link' <> now.value->>'link'
	ORDER BY key LIMIT 1;
	SELECT min(now.value->>'name'), min(now.value->>'name') FILTER (WHERE was.value->'columns' <> now.value->'columns')
	INTO rewritten, altered
	FROM jsonb_each(known) was JOIN jsonb_each(members) now USING (key)
	WHERE was.value->'file' <> now.value->'file';
END
$$;
COMMENT ON FUNCTION pgtrickle.copy_members(bigint, oid, jsonb) IS
	'for the program: compares what a remote''s table consists of with what it did at the last look, and remembers it';
REVOKE ALL ON FUNCTION pgtrickle.copy_members(bigint, oid, jsonb) FROM PUBLIC;

/* ---- copying ---- */

-- Of the copy's columns, and as they are now: nothing is checked and nothing found by an index while it is loaded.
CREATE FUNCTION pgtrickle.copy_begin(copy_id bigint, copied_from pg_lsn) RETURNS text
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	SET default_tablespace = ''
AS $$
#variable_conflict use_variable
DECLARE
	load_name CONSTANT text := format('pgtrickle.%I', 'pgt_load_' || copy_id);
	target regclass;
	stream_from pg_lsn;
BEGIN
	SELECT c.relid, s.stream_from INTO target, stream_from
	FROM pgtrickle.pgt_copies c JOIN pgtrickle.pgt_copy_states s USING (copy_id)
	WHERE c.copy_id = copy_id AND s.status = 'COPYING' FOR UPDATE OF s;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'copy % is not to be copied now', copy_id USING ERRCODE = 'object_not_in_prerequisite_state';
	END IF;
	PERFORM pgtrickle.forget_copying_rows(copy_id);
	PERFORM set_config('default_tablespace', coalesce((SELECT t.spcname FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace WHERE c.oid = target), ''), true);
	EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING STORAGE INCLUDING COMPRESSION) WITH (autovacuum_enabled = false)', load_name, target);
	IF session_user <> current_user THEN
		EXECUTE format('GRANT SELECT, INSERT, TRUNCATE ON %s TO %I', load_name, session_user);
	END IF;
	UPDATE pgtrickle.pgt_copy_states s SET load_table = load_name::regclass, copied_from = copied_from,
		started_at = clock_timestamp(), ended_at = NULL, rows_copied = 0, bytes_copied = 0, copied_lsn = NULL, copied_snapshot = NULL
	WHERE s.copy_id = copy_id;
	RETURN load_name;
END
$$;
COMMENT ON FUNCTION pgtrickle.copy_begin(bigint, pg_lsn) IS
	'for the program: copying begins, with everything that was committed before this position of the remote; returns the name of an empty table to load into';
REVOKE ALL ON FUNCTION pgtrickle.copy_begin(bigint, pg_lsn) FROM PUBLIC;

CREATE FUNCTION pgtrickle.copy_hide_rows() RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_copy_hide_rows';
COMMENT ON FUNCTION pgtrickle.copy_hide_rows() IS
	'for the program: rows that this transaction writes from now on are not in the stream of this database';
REVOKE ALL ON FUNCTION pgtrickle.copy_hide_rows() FROM PUBLIC;

CREATE FUNCTION pgtrickle.copy_chunks(copy_id bigint, chunks jsonb, rows_expected bigint) RETURNS void
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
	DELETE FROM pgtrickle.pgt_copy_chunks k WHERE k.copy_id = copy_id;
	INSERT INTO pgtrickle.pgt_copy_chunks (copy_id, chunk_no, low, high)
	SELECT copy_id, k.chunk_no, k.low, k.high FROM jsonb_to_recordset(chunks) k (chunk_no integer, low text[], high text[]);
	UPDATE pgtrickle.pgt_copy_states s SET rows_expected = rows_expected WHERE s.copy_id = copy_id;
END
$$;
COMMENT ON FUNCTION pgtrickle.copy_chunks(bigint, jsonb, bigint) IS
	'for the program: the parts in which a table is copied, [{"chunk_no": 1, "low": null, "high": ["17"]}, ...], and how many rows it is expected to have';
REVOKE ALL ON FUNCTION pgtrickle.copy_chunks(bigint, jsonb, bigint) FROM PUBLIC;

-- False: the copying has been given up meanwhile, and the chunk's transaction must not commit.
CREATE FUNCTION pgtrickle.copy_chunk_done(copy_id bigint, chunk_no integer, row_count bigint, byte_count bigint) RETURNS boolean
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
	UPDATE pgtrickle.pgt_copy_states s SET rows_copied = s.rows_copied + row_count, bytes_copied = s.bytes_copied + byte_count,
		consecutive_errors = 0, retry_at = NULL
	WHERE s.copy_id = copy_id AND s.status = 'COPYING';
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	UPDATE pgtrickle.pgt_copy_chunks k SET status = 'DONE', row_count = row_count
	WHERE k.copy_id = copy_id AND k.chunk_no = chunk_no AND k.status = 'PENDING';
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION pgtrickle.copy_chunk_done(bigint, integer, bigint, bigint) IS
	'for the program: a part has been loaded, in the same transaction; false: give it up';
REVOKE ALL ON FUNCTION pgtrickle.copy_chunk_done(bigint, integer, bigint, bigint) FROM PUBLIC;

CREATE FUNCTION pgtrickle.copy_progress(copy_id bigint, row_count bigint, byte_count bigint) RETURNS boolean
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
	UPDATE pgtrickle.pgt_copy_states s SET rows_copied = row_count, bytes_copied = byte_count
	WHERE s.copy_id = copy_id AND s.status = 'COPYING';
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION pgtrickle.copy_progress(bigint, bigint, bigint) IS
	'for the program: so much of a table that is copied in one piece has been loaded; false: give it up';
REVOKE ALL ON FUNCTION pgtrickle.copy_progress(bigint, bigint, bigint) FROM PUBLIC;

/*
 * Indexes of a load table are named after those of the copy whose files they may become (delta/copy_swap.c).  Without the one by which rows are found changes could
 * not be applied; a copy that has rows needs no other.  One with an expression or a condition of its own is left to the
 * switch, which computes them with the rights of the copy's owner.  So is a unique one that rows break which several snapshots have read: changes that were kept
 * may still make it true.
 */
CREATE FUNCTION pgtrickle.index_load_table(load_table oid, target oid, key_index oid, is_alone boolean) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
	SET default_tablespace = ''
AS $$
#variable_conflict use_variable
DECLARE
	index record;
BEGIN
	FOR index IN
		SELECT i.indexrelid AS id, 'pgt_load_index_' || i.indexrelid AS load_name, coalesce(t.spcname, '') AS tablespace,
			substr(pg_get_indexdef(i.indexrelid), 1 + length(format('CREATE %sINDEX %I ON %s', CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END, c.relname, target::regclass))) AS definition,
			i.indisunique, i.indexrelid IS NOT DISTINCT FROM pgtrickle.row_hash_index(target) AS is_row_hash, i.indexrelid = key_index AS finds_rows
		FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
		LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
		WHERE i.indrelid = target AND i.indisvalid AND NOT i.indisexclusion AND (i.indexrelid = key_index OR NOT is_alone)
			AND (i.indexprs IS NULL AND i.indpred IS NULL OR i.indexrelid = pgtrickle.row_hash_index(target))
		ORDER BY i.indexrelid
	LOOP
		PERFORM set_config('default_tablespace', index.tablespace, true);
		IF index.is_row_hash THEN
			PERFORM pgtrickle.index_rows(load_table);
			EXECUTE format('ALTER INDEX %s RENAME TO %I', pgtrickle.row_hash_index(load_table)::regclass, index.load_name);
		ELSE
			BEGIN
				EXECUTE format('CREATE %sINDEX %I ON %s', CASE WHEN index.indisunique THEN 'UNIQUE ' ELSE '' END, index.load_name, load_table::regclass) || index.definition;
			EXCEPTION WHEN unique_violation THEN
				IF index.finds_rows THEN
					RAISE;
				END IF;
			END;
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle.index_load_table(oid, oid, oid, boolean) IS 'gives a load table the indexes of its copy, or that alone by which rows are found';
REVOKE ALL ON FUNCTION pgtrickle.index_load_table(oid, oid, oid, boolean) FROM PUBLIC;

/*
 * Changes that have been kept are applied, and the load table is switched in, by ticks: from the first one on that reaches the position.
 */
CREATE FUNCTION pgtrickle.copy_done(copy_id bigint, copied_lsn pg_lsn, snapshot text) RETURNS void
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	SET default_statistics_target = 20
AS $$
#variable_conflict use_variable
DECLARE
	state record;
BEGIN
	-- REINDEX CONCURRENTLY puts an index with an OID of its own in the place of the one that is known
	SELECT s.load_table::regclass AS load_table, s.has_key, s.is_populated, c.relid, t.relowner::regrole AS owner,
		CASE WHEN EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = s.key_index AND i.indrelid = c.relid) THEN s.key_index
			WHEN s.has_key THEN (SELECT min(i.indexrelid) FROM pg_index i
				WHERE i.indrelid = c.relid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND (i.indkey::smallint[])[0:i.indnkeyatts - 1] = s.key_attnos)
			ELSE pgtrickle.row_hash_index(c.relid) END AS key_index
	INTO state
	FROM pgtrickle.pgt_copy_states s JOIN pgtrickle.pgt_copies c USING (copy_id) JOIN pg_class t ON t.oid = c.relid
	WHERE s.copy_id = copy_id AND s.status = 'COPYING' AND s.load_table IS NOT NULL FOR UPDATE OF s;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'copy % is not being copied', copy_id USING ERRCODE = 'object_not_in_prerequisite_state';
	ELSIF EXISTS (SELECT FROM pgtrickle.pgt_copy_chunks k WHERE k.copy_id = copy_id AND k.status <> 'DONE') THEN
		RAISE EXCEPTION 'parts of copy % have not been copied', copy_id USING ERRCODE = 'object_not_in_prerequisite_state';
	ELSIF NOT state.has_key AND snapshot IS NULL THEN
		RAISE EXCEPTION 'copy % has no key, and so its snapshot must be known', copy_id USING ERRCODE = 'invalid_parameter_value';
	END IF;
	-- indexes and statistics of ranges call functions of who made the type: with the rights of the copy's owner, as in the copy itself
	EXECUTE format('ALTER TABLE %s OWNER TO %s', state.load_table, state.owner);
	PERFORM pgtrickle.index_load_table(state.load_table, state.relid, state.key_index, state.is_populated);
	-- a small sample (see above) for the first plans; the server analyzes the copy itself soon after so many rows have come
	EXECUTE format('ANALYZE %s', state.load_table);
	EXECUTE format('ALTER TABLE %s OWNER TO CURRENT_USER', state.load_table);
	UPDATE pgtrickle.pgt_copy_states s SET status = 'COPIED', key_index = state.key_index, loaded_xid = pg_current_xact_id(), copied_lsn = copied_lsn, copied_snapshot = snapshot::pg_snapshot,
		ended_at = clock_timestamp(), consecutive_errors = 0, retry_at = NULL
	WHERE s.copy_id = copy_id;
	PERFORM pgtrickle.copies_changed();
END
$$;
COMMENT ON FUNCTION pgtrickle.copy_done(bigint, pg_lsn, text) IS
	'for the program: all has been loaded; where the remote''s WAL ended then, and without a key the snapshot of all of it';
REVOKE ALL ON FUNCTION pgtrickle.copy_done(bigint, pg_lsn, text) FROM PUBLIC;

/*
 * What has no type here, or may not be read, does not come right by trying again (classes 0A, 42): ERROR until somebody calls recopy().
 * Everything else is tried again, after 1, 2, 4 .. 300 seconds.
 */
CREATE FUNCTION pgtrickle.copy_failed(copy_id bigint, sqlstate text, message text) RETURNS void
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	is_final CONSTANT boolean := left(sqlstate, 2) IN ('0A', '42');
BEGIN
	UPDATE pgtrickle.pgt_copy_states s SET
		status = CASE WHEN is_final THEN 'ERROR' ELSE s.status END,
		status_reason = CASE WHEN is_final THEN message ELSE s.status_reason END,
		consecutive_errors = s.consecutive_errors + 1,
		last_error_sqlstate = sqlstate, last_error_message = message, last_error_at = clock_timestamp(),
		retry_at = clock_timestamp() + least(300, 2 ^ least(s.consecutive_errors, 10)) * interval '1 second'
	WHERE s.copy_id = copy_id;
	PERFORM pgtrickle.copies_changed();
END
$$;
COMMENT ON FUNCTION pgtrickle.copy_failed(bigint, text, text) IS
	'for the program: a table could not be defined or copied';
REVOKE ALL ON FUNCTION pgtrickle.copy_failed(bigint, text, text) FROM PUBLIC;

/*
 * A tick failed at a copy.  PTR01: its records have another shape than the copy, whose definition the program has to compare.  So it has when a
 * value is NULL that must not be (23502) or a label is not known (22P02); finding nothing, it has the table copied again.  PTR03: the
 * stream does not have what a copy needs, and copying again would not help.  Locks, connections and the like are tried again as they are; after
 * everything else the copy does not equal the table any more, or might not, and is copied again.
 */
CREATE FUNCTION pgtrickle.copy_tick_failed(copy_id bigint, sqlstate text, message text, retry_ms bigint) RETURNS boolean
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	errors_max CONSTANT integer := pgtrickle.setting('max_consecutive_errors');
	is_about_data CONSTANT boolean := left(sqlstate, 2) NOT IN ('08', '25', '40', '53', '55', '57', '58');
	errors integer;
BEGIN
	SELECT s.consecutive_errors + 1 INTO errors FROM pgtrickle.pgt_copy_states s WHERE s.copy_id = copy_id FOR UPDATE;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	IF sqlstate IN ('PTR01', '23502', '22P02') THEN
		UPDATE pgtrickle.pgt_copy_states s SET status = 'REDEFINE', status_reason = message, live_follows = false WHERE s.copy_id = copy_id;
	ELSIF sqlstate = 'PTR03' OR errors_max > 0 AND errors >= errors_max THEN
		PERFORM pgtrickle.forget_copying(copy_id);
		UPDATE pgtrickle.pgt_copy_states s SET status = 'SUSPENDED', status_reason = message, live_follows = false WHERE s.copy_id = copy_id;
	ELSIF is_about_data THEN
		PERFORM pgtrickle.want_copy(copy_id, message, false);
	END IF;
	UPDATE pgtrickle.pgt_copy_states s SET consecutive_errors = errors, last_error_sqlstate = sqlstate, last_error_message = message,
		last_error_at = clock_timestamp(), retry_at = clock_timestamp() + retry_ms * interval '1 millisecond'
	WHERE s.copy_id = copy_id;
	PERFORM pgtrickle.copies_changed();
	RETURN true;
END
$$;
COMMENT ON FUNCTION pgtrickle.copy_tick_failed(bigint, text, text, bigint) IS
	'what applier_failed() does about a copy; false: there is none with this id';
REVOKE ALL ON FUNCTION pgtrickle.copy_tick_failed(bigint, text, text, bigint) FROM PUBLIC;
