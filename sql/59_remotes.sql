/*
 * sql/59_remotes.sql
 *     What people call about remotes and copies: add and drop, copy again, wait, look.
 *
 * A remote holds a connection string that the program uses, and copies are written with the rights of the extension's owner.  So everything that
 * defines them is for superusers, and for roles to which they grant EXECUTE; these functions run with the rights of the extension's owner.  The
 * views are for everybody and show the copies that the reader may read; nobody sees connection strings there.
 *
 * Nothing here talks to a remote: the program does, when it has read the catalog again.
 */

/* ---- remotes ---- */

CREATE FUNCTION pgtrickle.remote_id(name text) RETURNS integer
	LANGUAGE plpgsql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	id integer;
BEGIN
	SELECT r.remote_id INTO id FROM pgtrickle.pgt_remotes r WHERE r.remote_name = name;
	IF id IS NULL THEN
		RAISE EXCEPTION 'remote "%" does not exist', name USING ERRCODE = 'undefined_object';
	END IF;
	RETURN id;
END
$$;
COMMENT ON FUNCTION pgtrickle.remote_id(text) IS 'the id of a remote; an error if there is none of this name';
REVOKE ALL ON FUNCTION pgtrickle.remote_id(text) FROM PUBLIC;

-- How the stream of a remote is carried (compression: zstd or none), and how its tables are copied.
CREATE FUNCTION pgtrickle.check_remote_options(options jsonb, output_plugin text) RETURNS void
	LANGUAGE plpgsql IMMUTABLE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	known CONSTANT text[] := '{compression, copy_jobs, copy_rate_limit, copy_chunk_rows}';
	unknown CONSTANT text := (SELECT min(k) FROM jsonb_object_keys(options) k WHERE k <> ALL (known));
	compression CONSTANT text := coalesce(options->>'compression', 'none');
BEGIN
	IF unknown IS NOT NULL THEN
		RAISE EXCEPTION 'unknown option of a remote: "%"', unknown USING ERRCODE = 'invalid_parameter_value',
			HINT = format('Options are %s.', array_to_string(known, ', '));
	ELSIF compression NOT IN ('none', 'zstd') THEN
		RAISE EXCEPTION 'unknown compression: "%"', compression USING ERRCODE = 'invalid_parameter_value', HINT = 'Use zstd or none.';
	ELSIF compression <> 'none' AND output_plugin = 'pgoutput' THEN
		RAISE EXCEPTION 'the stream of pgoutput cannot be compressed' USING ERRCODE = 'feature_not_supported',
			HINT = 'Install pgtrickle_decoder on the remote''s server, or lead the connection through a tunnel that compresses.';
	END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle.check_remote_options(jsonb, text) IS 'errors for options that a remote cannot have';
REVOKE ALL ON FUNCTION pgtrickle.check_remote_options(jsonb, text) FROM PUBLIC;

CREATE FUNCTION pgtrickle.add_remote(
	name text, conninfo text, slot_name text DEFAULT NULL, output_plugin text DEFAULT 'pgtrickle_decoder', publication text DEFAULT NULL,
	schema_map jsonb DEFAULT '{}', target_conninfo text DEFAULT NULL, options jsonb DEFAULT '{}') RETURNS integer
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	added integer;
BEGIN
	PERFORM pgtrickle.check_remote_options(options, output_plugin);
	INSERT INTO pgtrickle.pgt_remotes (remote_name, conninfo, target_conninfo, output_plugin, publication, slot_name, schema_map, options)
	VALUES (name, conninfo, target_conninfo, output_plugin, publication,
		coalesce(slot_name, left(regexp_replace(lower('pgtrickle_' || current_database() || '_' || name), '[^a-z0-9_]', '_', 'g'), 63)),
		schema_map, options)
	RETURNING pgt_remotes.remote_id INTO added;
	INSERT INTO pgtrickle.pgt_remote_states (remote_id) VALUES (added);
	PERFORM pgtrickle.copies_changed();
	RETURN added;
END
$$;
COMMENT ON FUNCTION pgtrickle.add_remote(text, text, text, text, text, jsonb, text, jsonb) IS
	'has the program follow another database, whose tables can then be copied; returns its id';
REVOKE ALL ON FUNCTION pgtrickle.add_remote(text, text, text, text, text, jsonb, text, jsonb) FROM PUBLIC;

-- What is null stays.  Another slot or database is a gap in the stream, which the program notices.
CREATE FUNCTION pgtrickle.alter_remote(
	name text, conninfo text DEFAULT NULL, slot_name text DEFAULT NULL, output_plugin text DEFAULT NULL, publication text DEFAULT NULL,
	schema_map jsonb DEFAULT NULL, target_conninfo text DEFAULT NULL, options jsonb DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
	PERFORM pgtrickle.check_remote_options(coalesce(options, r.options), coalesce(output_plugin, r.output_plugin))
	FROM pgtrickle.pgt_remotes r WHERE r.remote_name = name;
	UPDATE pgtrickle.pgt_remotes r SET
		conninfo = coalesce(conninfo, r.conninfo), slot_name = coalesce(slot_name, r.slot_name),
		output_plugin = coalesce(output_plugin, r.output_plugin), publication = coalesce(publication, r.publication),
		schema_map = coalesce(schema_map, r.schema_map), target_conninfo = coalesce(target_conninfo, r.target_conninfo),
		options = coalesce(options, r.options)
	WHERE r.remote_id = pgtrickle.remote_id(name);
	PERFORM pgtrickle.copies_changed();
END
$$;
COMMENT ON FUNCTION pgtrickle.alter_remote(text, text, text, text, text, jsonb, text, jsonb) IS
	'changes how a remote is reached and followed';
REVOKE ALL ON FUNCTION pgtrickle.alter_remote(text, text, text, text, text, jsonb, text, jsonb) FROM PUBLIC;

CREATE FUNCTION pgtrickle.set_remote_status(name text, new_status text, reason text) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	UPDATE pgtrickle.pgt_remote_states s SET status = new_status, status_reason = reason WHERE s.remote_id = pgtrickle.remote_id(name);
	PERFORM pgtrickle.copies_changed();
END
$$;
COMMENT ON FUNCTION pgtrickle.set_remote_status(text, text, text) IS 'what pause_remote() and resume_remote() do';
REVOKE ALL ON FUNCTION pgtrickle.set_remote_status(text, text, text) FROM PUBLIC;

CREATE FUNCTION pgtrickle.pause_remote(name text) RETURNS void
	LANGUAGE sql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT pgtrickle.set_remote_status(name, 'PAUSED', format('paused by %s', session_user))
$$;
COMMENT ON FUNCTION pgtrickle.pause_remote(text) IS
	'stops following a remote: its copies keep their rows, and its slot keeps the WAL';
REVOKE ALL ON FUNCTION pgtrickle.pause_remote(text) FROM PUBLIC;

CREATE FUNCTION pgtrickle.resume_remote(name text) RETURNS void
	LANGUAGE sql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT pgtrickle.set_remote_status(name, 'ACTIVE', NULL)
$$;
COMMENT ON FUNCTION pgtrickle.resume_remote(text) IS 'follows a remote again';
REVOKE ALL ON FUNCTION pgtrickle.resume_remote(text) FROM PUBLIC;

/* ---- copies ---- */

-- By the name of the table here, also of one that is not there yet.
CREATE FUNCTION pgtrickle.copy_id(target text) RETURNS bigint
	LANGUAGE plpgsql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	words CONSTANT text[] := parse_ident(target);
	id bigint;
BEGIN
	SELECT c.copy_id INTO id FROM pgtrickle.pgt_copies c
	WHERE c.target_table = words[cardinality(words)]
		AND c.target_schema = CASE cardinality(words) WHEN 1 THEN 'public' WHEN 2 THEN words[1] END
		OR c.relid = to_regclass(target);
	IF id IS NULL THEN
		RAISE EXCEPTION '"%" is not a copy of a table of a remote', target USING ERRCODE = 'undefined_object',
			HINT = 'pgtrickle.pgt_copies_status lists them.';
	END IF;
	RETURN id;
END
$$;
COMMENT ON FUNCTION pgtrickle.copy_id(text) IS 'the id of a copy; an error if it is none';
REVOKE ALL ON FUNCTION pgtrickle.copy_id(text) FROM PUBLIC;

CREATE FUNCTION pgtrickle.copy_table(
	remote text, source_table text, target text DEFAULT NULL, columns text[] DEFAULT NULL, row_filter text DEFAULT NULL,
	demand text DEFAULT 'always', storage text DEFAULT 'table') RETURNS bigint
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	theirs text[] := parse_ident(source_table);
	ours text[] := parse_ident(coalesce(target, source_table));
	map jsonb;
	added bigint;
BEGIN
	IF cardinality(theirs) = 1 THEN
		theirs := ARRAY['public'] || theirs;
	END IF;
	SELECT r.schema_map INTO map FROM pgtrickle.pgt_remotes r WHERE r.remote_id = pgtrickle.remote_id(remote);
	IF cardinality(ours) = 1 THEN
		ours := ARRAY[coalesce(map->>theirs[1], theirs[1])] || ours;
	ELSIF target IS NULL THEN
		ours[1] := coalesce(map->>ours[1], ours[1]);
	END IF;
	IF cardinality(theirs) <> 2 OR cardinality(ours) <> 2 THEN
		RAISE EXCEPTION 'the name of a table is schema.table' USING ERRCODE = 'invalid_name';
	ELSIF EXISTS (SELECT FROM pgtrickle.pgt_copies c WHERE c.target_schema = ours[1] AND c.target_table = ours[2]) THEN
		RAISE EXCEPTION 'table "%.%" is a copy already', ours[1], ours[2] USING ERRCODE = 'duplicate_object';
	ELSIF to_regclass(format('%I.%I', ours[1], ours[2])) IS NOT NULL THEN
		RAISE EXCEPTION 'relation "%.%" already exists', ours[1], ours[2] USING ERRCODE = 'duplicate_table',
			HINT = 'Give the copy another name with target => ''schema.name''.';
	END IF;
	INSERT INTO pgtrickle.pgt_copies (remote_id, remote_schema, remote_table, target_schema, target_table, columns_wanted, row_filter, demand, storage)
	VALUES (pgtrickle.remote_id(remote), theirs[1], theirs[2], ours[1], ours[2], columns, row_filter, demand, storage)
	RETURNING pgt_copies.copy_id INTO added;
	INSERT INTO pgtrickle.pgt_copy_states (copy_id) VALUES (added);
	PERFORM pgtrickle.copies_changed();
	RETURN added;
END
$$;
COMMENT ON FUNCTION pgtrickle.copy_table(text, text, text, text[], text, text, text) IS
	'has a table of a remote copied, and kept up to date, as a read-only table here; returns the id of the copy';
REVOKE ALL ON FUNCTION pgtrickle.copy_table(text, text, text, text[], text, text, text) FROM PUBLIC;

CREATE FUNCTION pgtrickle.copy_schema(remote text, source_schema text, demand text DEFAULT 'on_demand') RETURNS integer
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	added integer;
BEGIN
	INSERT INTO pgtrickle.pgt_copy_patterns AS p (remote_id, remote_schema, demand) VALUES (pgtrickle.remote_id(remote), source_schema, demand)
	ON CONFLICT ON CONSTRAINT pgt_copy_patterns_remote_id_remote_schema_key DO UPDATE SET demand = excluded.demand
	RETURNING p.pattern_id INTO added;
	PERFORM pgtrickle.copies_changed();
	RETURN added;
END
$$;
COMMENT ON FUNCTION pgtrickle.copy_schema(text, text, text) IS
	'has all tables of a schema of a remote declared here, those that it gets later too; with demand on_demand each is copied when a stream table reads it';
REVOKE ALL ON FUNCTION pgtrickle.copy_schema(text, text, text) FROM PUBLIC;

-- Their columns and rows stay as they are, and so do copies that exist: no new ones are made.
CREATE FUNCTION pgtrickle.drop_copy_schema(remote text, source_schema text) RETURNS void
	LANGUAGE sql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
	DELETE FROM pgtrickle.pgt_copy_patterns p WHERE p.remote_id = pgtrickle.remote_id(remote) AND p.remote_schema = source_schema
$$;
COMMENT ON FUNCTION pgtrickle.drop_copy_schema(text, text) IS
	'leaves tables alone that a schema of a remote gets from now on; copies that exist stay';
REVOKE ALL ON FUNCTION pgtrickle.drop_copy_schema(text, text) FROM PUBLIC;

/* The event trigger on_sql_drop() calls this, whoever drops the table. */
CREATE FUNCTION pgtrickle.forget_dropped_copies(dropped oid[]) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	gone bigint;
BEGIN
	FOR gone IN SELECT c.copy_id FROM pgtrickle.pgt_copies c WHERE c.relid = ANY (dropped) LOOP
		PERFORM pgtrickle.forget_copying(gone);
		DELETE FROM pgtrickle.pgt_copies c WHERE c.copy_id = gone;
		PERFORM pgtrickle.copies_changed();
	END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle.forget_dropped_copies(oid[]) IS 'removes copies whose tables have been dropped from the catalog';
REVOKE ALL ON FUNCTION pgtrickle.forget_dropped_copies(oid[]) FROM PUBLIC;

CREATE FUNCTION pgtrickle.drop_copy_by_id(id bigint, cascade boolean) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	copy_table regclass;
	readers text;
BEGIN
	SELECT c.relid INTO copy_table FROM pgtrickle.pgt_copies c WHERE c.copy_id = id;
	IF copy_table IS NOT NULL AND EXISTS (SELECT FROM pg_class c WHERE c.oid = copy_table) THEN
		-- the table before the row, like a tick
		EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', copy_table);
		SELECT string_agg(DISTINCT d.relid::text, ', ') INTO readers
		FROM pgtrickle.pgt_sources s JOIN pgtrickle.pgt_definitions d USING (pgt_id) WHERE s.source_relid = copy_table;
		IF readers IS NOT NULL AND NOT cascade THEN
			RAISE EXCEPTION 'cannot drop copy "%" because stream tables read it', copy_table
				USING ERRCODE = 'dependent_objects_still_exist', DETAIL = format('They are: %s.', readers),
					HINT = 'Drop them first, or use cascade => true, which leaves them standing still.';
		END IF;
		-- the event trigger does the rest
		EXECUTE format('DROP TABLE %s', copy_table);
	END IF;
	PERFORM pgtrickle.forget_copying(c.copy_id) FROM pgtrickle.pgt_copies c WHERE c.copy_id = id;
	DELETE FROM pgtrickle.pgt_copies c WHERE c.copy_id = id;
	PERFORM pgtrickle.copies_changed();
END
$$;
COMMENT ON FUNCTION pgtrickle.drop_copy_by_id(bigint, boolean) IS 'what drop_copy() does';
REVOKE ALL ON FUNCTION pgtrickle.drop_copy_by_id(bigint, boolean) FROM PUBLIC;

CREATE FUNCTION pgtrickle.drop_copy(target text, cascade boolean DEFAULT false) RETURNS void
	LANGUAGE sql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT pgtrickle.drop_copy_by_id(pgtrickle.copy_id(target), cascade)
$$;
COMMENT ON FUNCTION pgtrickle.drop_copy(text, boolean) IS 'drops a copy: the table here, nothing on the remote';
REVOKE ALL ON FUNCTION pgtrickle.drop_copy(text, boolean) FROM PUBLIC;

CREATE FUNCTION pgtrickle.drop_remote(name text, cascade boolean DEFAULT false) RETURNS void
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	id CONSTANT integer := pgtrickle.remote_id(name);
	slot text;
BEGIN
	IF NOT cascade AND EXISTS (SELECT FROM pgtrickle.pgt_copies c WHERE c.remote_id = id AND c.relid IS NOT NULL) THEN
		RAISE EXCEPTION 'cannot drop remote "%" because tables here are copies of its tables', name
			USING ERRCODE = 'dependent_objects_still_exist', HINT = 'Use cascade => true to drop them as well.';
	END IF;
	PERFORM pgtrickle.drop_copy_by_id(c.copy_id, cascade) FROM pgtrickle.pgt_copies c WHERE c.remote_id = id;
	DELETE FROM pgtrickle.pgt_remotes r WHERE r.remote_id = id RETURNING r.slot_name INTO slot;
	PERFORM pgtrickle.copies_changed();
	RAISE NOTICE 'replication slot "%" of remote "%" keeps its WAL until it is dropped there', slot, name
		USING HINT = 'pgtrickle drop --remote drops slot and remote together.';
END
$$;
COMMENT ON FUNCTION pgtrickle.drop_remote(text, boolean) IS
	'stops following a remote for good; with cascade its copies are dropped as well';
REVOKE ALL ON FUNCTION pgtrickle.drop_remote(text, boolean) FROM PUBLIC;

/*
 * Also after SUSPENDED and ERROR: then the definition is compared first.  The rows stay and, where they are those of the remote's position,
 * go on following it until what is copied now takes their place.
 */
CREATE FUNCTION pgtrickle.recopy(target text, reason text DEFAULT 'asked for') RETURNS void
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	id CONSTANT bigint := pgtrickle.copy_id(target);
BEGIN
	IF EXISTS (SELECT FROM pgtrickle.pgt_copy_states s WHERE s.copy_id = id AND s.status IN ('SUSPENDED', 'ERROR', 'REQUESTED', 'REDEFINE')) THEN
		PERFORM pgtrickle.forget_copying(id);
		UPDATE pgtrickle.pgt_copy_states s SET status = 'REQUESTED', status_reason = reason, live_follows = false,
			consecutive_errors = 0, retry_at = NULL
		WHERE s.copy_id = id;
	ELSE
		PERFORM pgtrickle.want_copy(id, reason, true);
	END IF;
	PERFORM pgtrickle.copies_changed();
END
$$;
COMMENT ON FUNCTION pgtrickle.recopy(text, text) IS
	'has a table copied again; its rows stay until the difference is put into them';
REVOKE ALL ON FUNCTION pgtrickle.recopy(text, text) FROM PUBLIC;

/* ---- stream tables over copies ---- */

/*
 * Copies are rows of other transactions than the writer's: an IMMEDIATE stream table has nobody to maintain it.  And what is declared for
 * whoever will read it is copied when somebody does.
 */
CREATE FUNCTION pgtrickle.on_sources_added() RETURNS trigger
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF EXISTS (SELECT FROM pgtrickle.pgt_copies) THEN
		PERFORM pgtrickle.refuse_immediate_over_copies(ARRAY(SELECT DISTINCT a.pgt_id FROM added a));
		UPDATE pgtrickle.pgt_copy_states s SET status = 'WANTED'
		FROM pgtrickle.pgt_copies c
		WHERE c.copy_id = s.copy_id AND s.status = 'DECLARED' AND c.relid IN (SELECT a.source_relid FROM added a);
		IF FOUND THEN
			PERFORM pgtrickle.copies_changed();
		END IF;
		PERFORM pgtrickle.want_rows(ARRAY(SELECT DISTINCT a.source_relid FROM added a));
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle.on_sources_added() IS 'trigger: copies that a stream table has begun to read are wanted';
REVOKE ALL ON FUNCTION pgtrickle.on_sources_added() FROM PUBLIC;

CREATE FUNCTION pgtrickle.refuse_immediate_over_copies(pgt_ids bigint[]) RETURNS void
	LANGUAGE plpgsql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	refused record;
BEGIN
	SELECT d.relid, c.relid AS copy INTO refused
	FROM pgtrickle.pgt_definitions d
	JOIN pgtrickle.pgt_sources s USING (pgt_id)
	JOIN pgtrickle.pgt_copies c ON c.relid = s.source_relid
	WHERE d.pgt_id = ANY (pgt_ids) AND 'IMMEDIATE' IN (d.refresh_mode, d.effective_refresh_mode)
	LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'stream table "%" cannot be IMMEDIATE, because "%" is a copy', refused.relid, refused.copy
			USING ERRCODE = 'feature_not_supported',
				DETAIL = 'The rows of a copy are written by the applier, after the transaction on the other server: there is no writer here whose transaction could be joined.',
				HINT = 'Use refresh_mode => ''AUTO'' with schedule => ''continuous''.';
	END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle.refuse_immediate_over_copies(bigint[]) IS
	'an error if one of these stream tables is IMMEDIATE and reads a copy';
REVOKE ALL ON FUNCTION pgtrickle.refuse_immediate_over_copies(bigint[]) FROM PUBLIC;

-- Copies that have dropped their rows get them again, for a stream table that has just been filled from nothing.
CREATE FUNCTION pgtrickle.want_rows(relids oid[]) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	wanted bigint;
BEGIN
	FOR wanted IN
		SELECT c.copy_id FROM pgtrickle.pgt_copies c JOIN pgtrickle.pgt_copy_states s USING (copy_id)
		WHERE c.relid = ANY (relids) AND c.storage = 'none' AND s.status = 'ACTIVE' AND NOT s.is_populated
	LOOP
		PERFORM pgtrickle.want_copy(wanted, 'a stream table needs its rows', false);
		PERFORM pgtrickle.copies_changed();
	END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle.want_rows(oid[]) IS 'has copies copied again that have dropped their rows';
REVOKE ALL ON FUNCTION pgtrickle.want_rows(oid[]) FROM PUBLIC;

CREATE FUNCTION pgtrickle.on_mode_changed() RETURNS trigger
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM pgtrickle.refuse_immediate_over_copies(ARRAY[new.pgt_id]);
	IF new.defining_query <> old.defining_query THEN
		PERFORM pgtrickle.want_rows(ARRAY(SELECT s.source_relid FROM pgtrickle.pgt_sources s WHERE s.pgt_id = new.pgt_id));
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle.on_mode_changed() IS 'trigger: no IMMEDIATE over copies, and rows for another query';
REVOKE ALL ON FUNCTION pgtrickle.on_mode_changed() FROM PUBLIC;

CREATE TRIGGER want_copies AFTER INSERT ON pgtrickle.pgt_sources
	REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION pgtrickle.on_sources_added();
CREATE TRIGGER refuse_immediate AFTER UPDATE OF refresh_mode, effective_refresh_mode, defining_query ON pgtrickle.pgt_definitions
	FOR EACH ROW WHEN ('IMMEDIATE' IN (new.refresh_mode, new.effective_refresh_mode) OR new.defining_query <> old.defining_query) EXECUTE FUNCTION pgtrickle.on_mode_changed();

/* ---- looking ---- */

CREATE VIEW pgtrickle.pgt_copies_status WITH (security_barrier) AS
	SELECT c.copy_id, r.remote_name, format('%I.%I', c.remote_schema, c.remote_table) AS remote_table,
		c.target_schema AS copy_schema, c.target_table AS copy_name, c.relid::oid AS copy_relid, c.demand, c.storage, c.columns_wanted, c.row_filter,
		s.status, s.status_reason, s.is_populated, s.rows_copied, s.rows_expected, s.bytes_copied,
		CASE WHEN s.status = 'ACTIVE' THEN 100
			WHEN s.rows_expected > 0 THEN round(least(100 * s.rows_copied::numeric / s.rows_expected, 100), 1) END AS percent_copied,
		CASE WHEN s.status = 'COPYING' AND s.rows_copied > 0 AND s.rows_expected >= s.rows_copied
			THEN (clock_timestamp() - s.started_at) * ((s.rows_expected - s.rows_copied)::double precision / s.rows_copied) END AS time_left,
		s.started_at, s.ended_at, s.times_copied, s.data_timestamp, s.total_rows_inserted, s.total_rows_deleted,
		(SELECT count(*) FROM pgtrickle.pgt_sources d WHERE d.source_relid = c.relid) AS read_by,
		s.consecutive_errors, CASE WHEN m.may_see_errors THEN s.last_error_message END AS last_error_message, s.last_error_at, s.retry_at
	FROM pgtrickle.pgt_copies c
	JOIN pgtrickle.pgt_copy_states s USING (copy_id)
	JOIN pgtrickle.pgt_remotes r USING (remote_id)
	LEFT JOIN pg_catalog.pg_class t ON t.oid = c.relid
	CROSS JOIN LATERAL (
		SELECT pg_catalog.pg_has_role(t.relowner, 'USAGE') IS TRUE OR pgtrickle.is_member('{pg_monitor,pgtrickle_operator,pgtrickle_admin}')
			OR (SELECT u.rolsuper FROM pg_catalog.pg_roles u WHERE u.rolname = current_user) AS may_see_errors
	) m
	WHERE m.may_see_errors OR pg_catalog.has_table_privilege(t.oid, 'SELECT') OR pgtrickle.is_member('{pgtrickle_reader}');
COMMENT ON VIEW pgtrickle.pgt_copies_status IS 'copies of tables of remotes: definition, state, and how far the copying is';
GRANT SELECT ON pgtrickle.pgt_copies_status TO PUBLIC;

CREATE VIEW pgtrickle.pgt_remotes_status WITH (security_barrier) AS
	SELECT r.remote_id, r.remote_name, s.database_name, r.output_plugin, r.publication, r.slot_name, s.status, s.status_reason,
		s.position, s.position_at, clock_timestamp() - s.position_at AS lag,
		k.copies, k.copies_active, CASE WHEN m.may_see_errors THEN s.last_error_message END AS last_error_message, s.last_error_at
	FROM pgtrickle.pgt_remotes r
	JOIN pgtrickle.pgt_remote_states s USING (remote_id)
	CROSS JOIN LATERAL (
		SELECT count(*) AS copies, count(*) FILTER (WHERE c.status = 'ACTIVE') AS copies_active
		FROM pgtrickle.pgt_copies_status c WHERE c.remote_name = r.remote_name
	) k
	CROSS JOIN LATERAL (
		SELECT pgtrickle.is_member('{pg_monitor,pgtrickle_operator,pgtrickle_admin}')
			OR (SELECT u.rolsuper FROM pg_catalog.pg_roles u WHERE u.rolname = current_user) AS may_see_errors
	) m
	WHERE k.copies > 0 OR m.may_see_errors OR pgtrickle.is_member('{pgtrickle_reader}');
COMMENT ON VIEW pgtrickle.pgt_remotes_status IS 'remotes: how far each is followed, and whether something is wrong';
GRANT SELECT ON pgtrickle.pgt_remotes_status TO PUBLIC;

CREATE FUNCTION pgtrickle.rows_read(name text)
	RETURNS TABLE (source_relid oid, operators text)
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_rows_read';
COMMENT ON FUNCTION pgtrickle.rows_read(text) IS
	'of which sources refreshes by delta read rows, and in which steps; of the others they need only the changes';

-- For explain_st(): which copies a stream table reads, and why they are there.
CREATE FUNCTION pgtrickle.copies_by_id(pgt_id bigint)
	RETURNS TABLE (property text, value text)
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT 'copy ' || format('%I.%I', c.copy_schema, c.copy_name),
		format('%s of remote %s, %s%s%s; %s', c.remote_table, c.remote_name, lower(c.status), coalesce(': ' || c.status_reason, ''),
			coalesce(', rows with ' || c.row_filter, ''),
			coalesce('its rows are read by refreshes by delta: ' || r.operators,
				CASE WHEN c.storage = 'none' THEN 'refreshes by delta read only its changes, and its rows are dropped when nobody needs them'
					ELSE 'refreshes by delta read only its changes, full ones its rows' END))
	FROM pgtrickle.pgt_stream_tables s
	JOIN pgtrickle.pgt_dependencies d USING (pgt_id)
	JOIN pgtrickle.pgt_copies_status c ON c.copy_relid = d.source_relid
	LEFT JOIN LATERAL pgtrickle.rows_read(format('%I.%I', s.pgt_schema, s.pgt_name)) r ON r.source_relid = d.source_relid
	WHERE s.pgt_id = copies_by_id.pgt_id
	ORDER BY 1
$$;
COMMENT ON FUNCTION pgtrickle.copies_by_id(bigint) IS 'the copies that a stream table reads, for explain_st()';

/* ---- waiting ---- */

CREATE FUNCTION pgtrickle.wait_copies(target text, target_id regclass, timeout interval) RETURNS boolean
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	give_up_at CONSTANT timestamptz := clock_timestamp() + timeout;
	waited record;
BEGIN
	LOOP
		SELECT count(*) AS count, count(*) FILTER (WHERE c.status NOT IN ('ACTIVE', 'DECLARED')) AS missing,
			min(format('%s.%s is %s: %s', c.copy_schema, c.copy_name, c.status, c.status_reason)) FILTER (WHERE c.status IN ('SUSPENDED', 'ERROR')) AS failed
		INTO waited
		FROM pgtrickle.pgt_copies_status c
		WHERE target IS NULL OR c.copy_relid = target_id OR format('%s.%s', c.copy_schema, c.copy_name) = target;
		IF waited.count = 0 AND target IS NOT NULL THEN
			RAISE EXCEPTION '"%" is not a copy of a table of a remote', target USING ERRCODE = 'undefined_object';
		ELSIF waited.failed IS NOT NULL THEN
			RAISE EXCEPTION 'copy %', waited.failed
				USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'pgtrickle.recopy() tries again.';
		ELSIF waited.missing = 0 THEN
			RETURN true;
		ELSIF clock_timestamp() > give_up_at THEN
			RETURN false;
		END IF;
		PERFORM pg_sleep(0.05);
	END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle.wait_copies(text, regclass, interval) IS 'what wait_copied() does';

CREATE FUNCTION pgtrickle.wait_copied(target text DEFAULT NULL, timeout interval DEFAULT '1 hour') RETURNS boolean
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
	SELECT pgtrickle.wait_copies(target, pg_catalog.to_regclass(target), timeout)
$$;
COMMENT ON FUNCTION pgtrickle.wait_copied(text, interval) IS
	'waits until a table of a remote has been copied, or all that are to be; false when that took longer than the timeout';

CREATE FUNCTION pgtrickle.remote_position(remote_id integer) RETURNS pg_lsn
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_remote_position';
COMMENT ON FUNCTION pgtrickle.remote_position(integer) IS
	'the position of a remote as it is now, whatever the transaction''s snapshot';

-- The remote whose positions are meant when somebody waits for a stream table; null: this database.
CREATE FUNCTION pgtrickle.remote_waited_for(pgt_id bigint, remote text) RETURNS integer
	LANGUAGE plpgsql STABLE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	ids CONSTANT integer[] := ARRAY(SELECT DISTINCT c.remote_id FROM pgtrickle.copies_read_by(pgt_id) x JOIN pgtrickle.pgt_copies c ON c.copy_id = x);
BEGIN
	IF remote IS NOT NULL THEN
		RETURN pgtrickle.remote_id(remote);
	ELSIF cardinality(ids) > 1 THEN
		RAISE EXCEPTION 'the stream table reads copies of several remotes' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Say of which one source_lsn is a position: remote => ''name''.';
	END IF;
	RETURN ids[1];
END
$$;
COMMENT ON FUNCTION pgtrickle.remote_waited_for(bigint, text) IS
	'of which remote source_lsn is a position in wait_fresh(); null: of this server';

CREATE FUNCTION pgtrickle.wait_position(remote_id integer, source_lsn pg_lsn, timeout interval) RETURNS boolean
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	give_up_at CONSTANT timestamptz := clock_timestamp() + timeout;
BEGIN
	WHILE coalesce(pgtrickle.remote_position(remote_id) < source_lsn, true) LOOP
		IF clock_timestamp() > give_up_at THEN
			RETURN false;
		END IF;
		PERFORM pg_sleep(0.002);
	END LOOP;
	RETURN true;
END
$$;
COMMENT ON FUNCTION pgtrickle.wait_position(integer, pg_lsn, interval) IS
	'waits until a remote has been followed up to a position; false when that took longer than the timeout';
