/*
 * sql/45_ddl_events.sql
 *     Event triggers: sources that change shape, and stream tables that are altered or dropped by plain DDL.
 *
 * For sources a transactional message `ddl <relids>` goes into the WAL, so that the applier learns of the change in order with the
 * rows around it, and refreshes the stream tables over it in full.  Sources are bound by name: when a name has come to mean another
 * relation, or a view another query, the stream table is bound anew at once, with the `interest` message, so that no change is missed.
 * A materialized view has no changes in the WAL; that it was refreshed counts as one, too.
 *
 * Nothing here may get into the way of DDL that is not about stream tables.  These functions run for every CREATE and ALTER of a
 * relation, so they first ask whether there is any stream table; failures in telling the applier are warnings, which leave
 * the command alone.  Refused is only what a stream table itself cannot stand.
 *
 * SECURITY DEFINER, because whoever runs the DDL cannot read the catalog of stream tables.  They take no arguments from anybody.
 */

CREATE FUNCTION pgtrickle.ddl_effect(command pg_ddl_command, on_stream_table boolean) RETURNS text
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_ddl_effect';
COMMENT ON FUNCTION pgtrickle.ddl_effect(pg_ddl_command, boolean) IS
	'what a command means for readers of the relation: harmless, relation, or stream_table when a stream table could not stand it';
REVOKE ALL ON FUNCTION pgtrickle.ddl_effect(pg_ddl_command, boolean) FROM PUBLIC;

CREATE FUNCTION pgtrickle.former_ancestors(relid oid) RETURNS SETOF oid
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_former_ancestors';
COMMENT ON FUNCTION pgtrickle.former_ancestors(oid) IS
	'the tables of which a table is a partition or child, or was before it was dropped or taken out';
REVOKE ALL ON FUNCTION pgtrickle.former_ancestors(oid) FROM PUBLIC;

/*
 * Tells the applier about those of the given relations that stream tables read, and about all of `others`.  Partitions and
 * children count for the tables above them.
 */
CREATE FUNCTION pgtrickle.tell_sources_changed(relids oid[], others oid[] DEFAULT '{}') RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	changed text;
BEGIN
	WITH RECURSIVE family (relid) AS (
		SELECT unnest(relids)
		UNION
		SELECT i.inhparent FROM family f JOIN pg_inherits i ON i.inhrelid = f.relid
	), told (relid) AS (
		SELECT f.relid FROM family f
		WHERE EXISTS (SELECT FROM pgtrickle.pgt_sources s WHERE s.source_relid = f.relid)
		UNION
		SELECT unnest(others)
	)
	SELECT string_agg(t.relid::text, ',' ORDER BY t.relid) INTO changed FROM told t;
	IF changed IS NOT NULL THEN
		PERFORM pgtrickle.emit_message('ddl ' || changed, true, false);
	END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle.tell_sources_changed(oid[], oid[]) IS
	'writes the message about sources that have changed shape';
REVOKE ALL ON FUNCTION pgtrickle.tell_sources_changed(oid[], oid[]) FROM PUBLIC;

CREATE FUNCTION pgtrickle.rebind_sources(pgt_id bigint) RETURNS boolean
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'pgtrickle_rebind_sources';
COMMENT ON FUNCTION pgtrickle.rebind_sources(bigint) IS
	'writes down what the names in a stream table''s query mean now, and says whether it is something else; an error if it does not compile';
REVOKE ALL ON FUNCTION pgtrickle.rebind_sources(bigint) FROM PUBLIC;

/*
 * The next binding counts as another one then, and is told.  Who else is at it (the same DDL about another source) tells by itself, and is not waited for.
 */
CREATE FUNCTION pgtrickle.forget_meaning(of_pgt_id bigint) RETURNS void
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	UPDATE pgtrickle.pgt_definitions SET meaning = NULL
	WHERE pgt_id = (SELECT d.pgt_id FROM pgtrickle.pgt_definitions d
		WHERE d.pgt_id = of_pgt_id AND d.meaning IS NOT NULL FOR UPDATE SKIP LOCKED)
$$;
COMMENT ON FUNCTION pgtrickle.forget_meaning(bigint) IS
	'forgets what the names in a stream table''s query meant';
REVOKE ALL ON FUNCTION pgtrickle.forget_meaning(bigint) FROM PUBLIC;

/*
 * Stream tables for which a name has come to mean another relation, or a view another query, are bound anew.  Returns the relations that
 * stand behind this, before and after: the applier knows the stream table by the old ones until it has read the catalog again, and by the
 * new ones then.  Nothing when the query means the same as before: a view was replaced by its like, as dbt does on every run.
 *
 * A query that does not compile (any more, or yet), or reads what somebody else has locked, stays bound as it was.  The applier will find
 * out and say so or bind it, and the next DDL about the name tries again.  A view that is gone may be back before the transaction ends, so that is for
 * its end to tell.
 */
CREATE FUNCTION pgtrickle.follow_names(changed oid[]) RETURNS oid[]
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	affected record;
	told oid[] := '{}';
BEGIN
	FOR affected IN
		SELECT s.pgt_id, array_agg(s.source_relid) || array_agg(named.relid) FILTER (WHERE named.relid IS NOT NULL) AS relids,
			bool_or(named.relid IS NULL) AS lacks_view
		FROM pgtrickle.pgt_sources s
		CROSS JOIN LATERAL (
			-- a look-up per source: a join would read all of pg_class
			SELECT to_regclass(format('%I.%I', s.source_schema, s.source_name))::oid AS relid OFFSET 0
		) named
		WHERE named.relid <> s.source_relid OR s.source_type = 'VIEW' AND s.source_relid = ANY (changed)
		GROUP BY s.pgt_id
		ORDER BY s.pgt_id
	LOOP
		IF affected.lacks_view THEN
			INSERT INTO pgtrickle.pgt_unbound VALUES (affected.pgt_id);
			CONTINUE;
		END IF;
		BEGIN
			IF pgtrickle.rebind_sources(affected.pgt_id) THEN
				told := told || affected.relids;
			END IF;
			PERFORM pgtrickle.definitions_changed();
		EXCEPTION WHEN OTHERS THEN
			RAISE DEBUG 'stream table % keeps its sources: %', affected.pgt_id, sqlerrm;
			told := told || affected.relids;
			PERFORM pgtrickle.forget_meaning(affected.pgt_id);
		END;
	END LOOP;
	RETURN told;
END
$$;
COMMENT ON FUNCTION pgtrickle.follow_names(oid[]) IS
	'binds stream tables anew whose names or views have got another meaning';
REVOKE ALL ON FUNCTION pgtrickle.follow_names(oid[]) FROM PUBLIC;

-- Stream tables that have lost a view from under their query in this transaction; empty between transactions.
CREATE TABLE pgtrickle.pgt_unbound (
	pgt_id bigint NOT NULL
);
REVOKE ALL ON pgtrickle.pgt_unbound FROM PUBLIC;

CREATE FUNCTION pgtrickle.on_unbound() RETURNS trigger
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	DELETE FROM pgtrickle.pgt_unbound WHERE pgt_id = NEW.pgt_id;
	IF NOT FOUND THEN
		RETURN NULL;
	END IF;
	PERFORM pgtrickle.tell_sources_changed('{}', array_agg(s.source_relid)), pgtrickle.forget_meaning(NEW.pgt_id)
	FROM pgtrickle.pgt_sources s
	WHERE s.pgt_id = NEW.pgt_id
	HAVING bool_or(to_regclass(format('%I.%I', s.source_schema, s.source_name)) IS NULL);
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle.on_unbound() IS
	'trigger at the end of a transaction: tells the applier about stream tables whose views are gone';
REVOKE ALL ON FUNCTION pgtrickle.on_unbound() FROM PUBLIC;

CREATE CONSTRAINT TRIGGER pgt_unbound_at_the_end AFTER INSERT ON pgtrickle.pgt_unbound
	DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION pgtrickle.on_unbound();

/* ---- schemas that get another name ---- */

CREATE FUNCTION pgtrickle.renamed_schema(command pg_ddl_command) RETURNS text
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_renamed_schema';
COMMENT ON FUNCTION pgtrickle.renamed_schema(pg_ddl_command) IS
	'the name that a schema had before the command, or null';
REVOKE ALL ON FUNCTION pgtrickle.renamed_schema(pg_ddl_command) FROM PUBLIC;

CREATE FUNCTION pgtrickle.rename_schema_in_query(pgt_id bigint, old_name text, new_name text) RETURNS boolean
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_rename_schema_in_query';
COMMENT ON FUNCTION pgtrickle.rename_schema_in_query(bigint, text, text) IS
	'has the query of a stream table of the caller name a schema as it is called now; false if it does not name it';

CREATE FUNCTION pgtrickle.follow_schema(old_name text, new_name text) RETURNS bigint
	LANGUAGE sql VOLATILE STRICT
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT count(*) FILTER (WHERE r.renamed)
	FROM (
		SELECT pgtrickle.rename_schema_in_query(s.pgt_id, old_name, new_name) AS renamed
		FROM (SELECT pgt_id FROM pgtrickle.pgt_stream_tables
			WHERE pg_has_role(pgt_owner, 'USAGE') AND defining_query LIKE '%' || replace(quote_ident(old_name), '_', '\_') || '.%'
			ORDER BY pgt_id OFFSET 0) s
		OFFSET 0
	) r
$$;
COMMENT ON FUNCTION pgtrickle.follow_schema(text, text) IS
	'has all stream tables of the caller whose queries name a schema by its old name name it by the new one, and returns how many';

/*
 * A stream table in the schema moves with it, and its query with everything in it.  For those in other schemas a name is what counts, as when a
 * table is renamed: somebody may be about to put another schema there.  Whoever renames is told about them.  Returns the sources of those that moved.
 */
CREATE FUNCTION pgtrickle.on_schema_renamed(schema_id oid, old_name text) RETURNS oid[]
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	new_name CONSTANT text := (SELECT nspname FROM pg_namespace WHERE oid = schema_id);
	affected record;
	moved bigint[] := '{}';
	left_behind text;
BEGIN
	FOR affected IN
		SELECT d.pgt_id, d.relid FROM pgtrickle.pgt_definitions d JOIN pg_class c ON c.oid = d.relid
		WHERE c.relnamespace = schema_id ORDER BY d.pgt_id
	LOOP
		moved := moved || affected.pgt_id;
		BEGIN
			PERFORM pgtrickle.rename_schema_in_query(affected.pgt_id, old_name, new_name);
		EXCEPTION WHEN OTHERS THEN
			RAISE WARNING 'the query of stream table "%" still names schema "%": %', affected.relid, old_name, sqlerrm;
		END;
	END LOOP;
	SELECT string_agg(DISTINCT d.relid::text, ', ') INTO left_behind
	FROM pgtrickle.pgt_definitions d
	WHERE d.pgt_id <> ALL (moved) AND (
		EXISTS (SELECT FROM pgtrickle.pgt_sources s WHERE s.pgt_id = d.pgt_id AND s.source_schema = old_name)
		OR EXISTS (SELECT FROM pg_proc p WHERE p.oid = ANY (d.functions_used) AND p.pronamespace = schema_id));
	IF left_behind IS NOT NULL THEN
		RAISE WARNING 'stream tables still read from schema "%": %', old_name, left_behind
			USING DETAIL = 'They keep their rows, and are refreshed again when what they read is there under its name.',
				HINT = format('If schema %I is to keep its name, call SELECT pgtrickle.follow_schema(%L, %L).', new_name, old_name, new_name);
	END IF;
	RETURN ARRAY(SELECT s.source_relid FROM pgtrickle.pgt_sources s WHERE s.pgt_id = ANY (moved));
END
$$;
COMMENT ON FUNCTION pgtrickle.on_schema_renamed(oid, text) IS
	'what the event trigger does about ALTER SCHEMA ... RENAME';
REVOKE ALL ON FUNCTION pgtrickle.on_schema_renamed(oid, text) FROM PUBLIC;

/*
 * A stream table that was suspended after errors is tried again when one of its sources has changed: that may have been the cause,
 * or the cure.  It takes part in no tick, so nobody waits for the locks on its rows.
 */
CREATE FUNCTION pgtrickle.retry_suspended(changed oid[]) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	retried bigint[];
BEGIN
	WITH resumed AS (
		-- who has locked one is resuming it just now
		UPDATE pgtrickle.pgt_definitions d SET status = 'ACTIVE', updated_at = clock_timestamp()
		WHERE d.pgt_id IN (
			SELECT l.pgt_id FROM pgtrickle.pgt_definitions l
			WHERE l.status = 'SUSPENDED' AND l.effective_refresh_mode <> 'IMMEDIATE'
				AND EXISTS (SELECT FROM pgtrickle.pgt_sources s WHERE s.pgt_id = l.pgt_id AND s.source_relid = ANY (changed))
			FOR UPDATE SKIP LOCKED)
		RETURNING d.pgt_id
	)
	SELECT array_agg(r.pgt_id) INTO retried FROM resumed r;
	IF retried IS NOT NULL THEN
		UPDATE pgtrickle.pgt_frontiers SET consecutive_errors = 0, retry_at = NULL WHERE pgt_id = ANY (retried);
		PERFORM pgtrickle.fill_with_consumers(retried, 'a source has changed');
		PERFORM pgtrickle.definitions_changed();
	END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle.retry_suspended(oid[]) IS
	'lets stream tables over changed sources be tried again that were suspended after errors';
REVOKE ALL ON FUNCTION pgtrickle.retry_suspended(oid[]) FROM PUBLIC;

/*
 * A function that queries call has changed, or one is there again that was dropped: stream tables whose queries call it, or one that is gone, are
 * bound anew and, by a message about their first source, refreshed in full.  Returns these sources.
 */
CREATE FUNCTION pgtrickle.follow_functions(changed oid[]) RETURNS oid[]
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	affected record;
	told oid[] := '{}';
BEGIN
	FOR affected IN
		SELECT d.pgt_id, (SELECT min(s.source_relid) FROM pgtrickle.pgt_sources s WHERE s.pgt_id = d.pgt_id) AS source
		FROM pgtrickle.pgt_definitions d
		WHERE d.functions_used && changed
			OR EXISTS (SELECT FROM unnest(d.functions_used) f WHERE NOT EXISTS (SELECT FROM pg_proc p WHERE p.oid = f))
		ORDER BY d.pgt_id
	LOOP
		told := told || affected.source;
		PERFORM pgtrickle.definitions_changed();
		BEGIN
			PERFORM pgtrickle.rebind_sources(affected.pgt_id);
		EXCEPTION WHEN OTHERS THEN
			RAISE DEBUG 'stream table % keeps its sources: %', affected.pgt_id, sqlerrm;
		END;
	END LOOP;
	RETURN array_remove(told, NULL);
END
$$;
COMMENT ON FUNCTION pgtrickle.follow_functions(oid[]) IS
	'has stream tables refreshed in full whose queries call changed functions';
REVOKE ALL ON FUNCTION pgtrickle.follow_functions(oid[]) FROM PUBLIC;

/*
 * The sources with a column of a type: itself, arrays of it, domains over it, types with an attribute of it.  Another name of an enum's label or another
 * attribute changes what casts to text give.
 */
CREATE FUNCTION pgtrickle.sources_with_type(changed oid[]) RETURNS oid[]
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	WITH RECURSIVE family (type_id) AS (
		SELECT unnest(changed)
		UNION
		SELECT t.oid FROM family f JOIN pg_type t ON t.oid <> f.type_id AND (f.type_id IN (t.typelem, t.typbasetype)
			OR t.typtype = 'c' AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.atttypid = f.type_id))
	)
	SELECT coalesce(array_agg(DISTINCT a.attrelid), '{}')
	FROM pg_attribute a
	WHERE a.atttypid IN (SELECT f.type_id FROM family f)
		AND a.attrelid IN (SELECT s.source_relid FROM pgtrickle.pgt_sources s)
$$;
COMMENT ON FUNCTION pgtrickle.sources_with_type(oid[]) IS
	'the sources of stream tables that have columns of a type';
REVOKE ALL ON FUNCTION pgtrickle.sources_with_type(oid[]) FROM PUBLIC;

-- The type of a relation's rows, if some other relation has a column of it: for a composite type, or a table used as one.
CREATE FUNCTION pgtrickle.row_types_in_use(relid oid) RETURNS oid[]
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(array_agg(t.oid), '{}')
	FROM pg_class c JOIN pg_type t ON t.oid = c.reltype
	WHERE c.oid = relid AND EXISTS (
		SELECT FROM pg_depend d
		WHERE d.refclassid = 'pg_type'::regclass AND d.refobjid IN (t.oid, t.typarray) AND d.classid = 'pg_class'::regclass AND d.objsubid > 0)
$$;
COMMENT ON FUNCTION pgtrickle.row_types_in_use(oid) IS
	'the type of a relation''s rows, if columns of others are of this type';
REVOKE ALL ON FUNCTION pgtrickle.row_types_in_use(oid) FROM PUBLIC;

-- Errors for what a stream table cannot stand.
CREATE FUNCTION pgtrickle.refuse_ddl(relid oid, command_tag text) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RAISE EXCEPTION 'cannot alter stream table "%" this way', relid::regclass
		USING ERRCODE = 'feature_not_supported',
			DETAIL = format('%s would change its columns, its rows or what protects them, which its defining query decides.', command_tag),
			HINT = 'Change the sources, or drop the stream table and create it with another query.';
END
$$;
COMMENT ON FUNCTION pgtrickle.refuse_ddl(oid, text) IS
	'raises the error for DDL that a stream table cannot stand';
REVOKE ALL ON FUNCTION pgtrickle.refuse_ddl(oid, text) FROM PUBLIC;

CREATE FUNCTION pgtrickle.on_ddl_command_end() RETURNS event_trigger
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	command record;
	changed oid[] := '{}';
	functions oid[] := '{}';
	types oid[] := '{}';
	followed oid[];
	own_changed boolean := false;
	renamed record;
BEGIN
	IF NOT EXISTS (SELECT FROM pgtrickle.pgt_definitions) THEN
		RETURN;
	END IF;

	-- our own tables, which a refresh makes anew, are nobody's source
	IF NOT EXISTS (SELECT FROM pg_event_trigger_ddl_commands() c WHERE c.schema_name IS DISTINCT FROM 'pgtrickle') THEN
		RETURN;
	END IF;

	-- first what may be refused, outside of the block that turns errors into warnings
	FOR command IN
		SELECT c.objid, c.command_tag, c.object_type, c.classid, d.pgt_id IS NOT NULL AS is_ours,
			CASE WHEN c.classid = 'pg_class'::regclass THEN pgtrickle.ddl_effect(c.command, d.pgt_id IS NOT NULL) ELSE 'relation' END AS effect
		FROM pg_event_trigger_ddl_commands() c
		LEFT JOIN pgtrickle.pgt_definitions d ON d.relid = c.objid AND c.classid = 'pg_class'::regclass
	LOOP
		IF command.is_ours AND (command.effect = 'stream_table' OR command.object_type = 'table column') THEN
			PERFORM pgtrickle.refuse_ddl(command.objid, command.command_tag);
		END IF;
		IF command.classid = 'pg_trigger'::regclass THEN
			PERFORM pgtrickle.refuse_ddl(t.tgrelid, command.command_tag) FROM pg_trigger t
			WHERE t.oid = command.objid AND t.tgfoid = 'pgtrickle.guard()'::regprocedure AND t.tgname <> 'pgtrickle_guard';
			CONTINUE;
		END IF;
		IF command.classid = 'pg_class'::regclass AND command.object_type IN ('table', 'foreign table') THEN
			-- the rows of a child would be among those of the stream table
			PERFORM pgtrickle.refuse_ddl(d.relid, command.command_tag) FROM pg_inherits i JOIN pgtrickle.pgt_definitions d ON d.relid = i.inhparent
			WHERE i.inhrelid = command.objid;
		END IF;
		IF command.classid = 'pg_class'::regclass AND command.object_type IN ('table', 'foreign table') AND EXISTS (
			SELECT FROM pg_constraint f JOIN pgtrickle.pgt_definitions d ON d.relid = f.confrelid
			WHERE f.contype = 'f' AND f.conrelid = command.objid)
		THEN
			RAISE EXCEPTION 'a foreign key cannot reference a stream table'
				USING ERRCODE = 'feature_not_supported',
					DETAIL = 'Refreshes do not fire the triggers that foreign keys work by.',
					HINT = 'Reference the table that the stream table reads.';
		END IF;
		own_changed := own_changed OR command.is_ours;
		IF command.classid = 'pg_proc'::regclass THEN
			functions := functions || command.objid;
		ELSIF command.classid = 'pg_type'::regclass THEN
			types := types || command.objid;
		ELSIF command.effect <> 'harmless' OR command.object_type = 'view' THEN
			-- another owner of a view, or a barrier, may show other rows: follow_names() looks
			changed := changed || CASE
				WHEN command.classid = 'pg_policy'::regclass
					THEN (SELECT p.polrelid FROM pg_policy p WHERE p.oid = command.objid)
				ELSE command.objid END;
		END IF;
		IF command.classid = 'pg_class'::regclass AND command.effect <> 'harmless' THEN
			types := types || pgtrickle.row_types_in_use(command.objid);
		END IF;
		IF command.effect = 'stream_table' THEN
			-- it may just have left a parent
			changed := changed || ARRAY(SELECT pgtrickle.former_ancestors(command.objid));
		END IF;
	END LOOP;

	BEGIN
		IF tg_tag = 'ALTER SCHEMA' THEN
			-- names have changed, so what a stream table knows as its source may be elsewhere
			changed := changed || ARRAY(
				SELECT s.source_relid FROM pgtrickle.pgt_sources s
				JOIN pg_class c ON c.oid = s.source_relid JOIN pg_namespace n ON n.oid = c.relnamespace
				WHERE (n.nspname, c.relname) <> (s.source_schema, s.source_name));
			own_changed := true;
			FOR renamed IN
				SELECT c.objid, pgtrickle.renamed_schema(c.command) AS old_name FROM pg_event_trigger_ddl_commands() c
				WHERE c.classid = 'pg_namespace'::regclass
			LOOP
				IF renamed.old_name IS NOT NULL THEN
					changed := changed || pgtrickle.on_schema_renamed(renamed.objid, renamed.old_name);
				END IF;
			END LOOP;
		END IF;
		IF types <> '{}' THEN
			changed := changed || pgtrickle.sources_with_type(types);
		END IF;
		followed := pgtrickle.follow_names(changed);
		IF functions <> '{}' THEN
			followed := followed || pgtrickle.follow_functions(functions);
		END IF;
		-- of views follow_names() knows whether they have changed
		PERFORM pgtrickle.tell_sources_changed(
			ARRAY(SELECT r.relid FROM unnest(changed) r (relid) WHERE NOT EXISTS (SELECT FROM pg_class v WHERE v.oid = r.relid AND v.relkind = 'v')), followed);
		PERFORM pgtrickle.retry_suspended(changed || followed);
		IF own_changed THEN
			PERFORM pgtrickle.definitions_changed();
		END IF;
		PERFORM pgtrickle.immediate_keep_triggers(ARRAY(
			SELECT c.objid FROM pg_event_trigger_ddl_commands() c WHERE c.classid = 'pg_class'::regclass AND c.command_tag = 'ALTER TABLE'));
		PERFORM pgtrickle.immediate_follow(changed, functions);
	EXCEPTION WHEN OTHERS THEN
		RAISE WARNING 'could not tell the applier about %: %', tg_tag, sqlerrm
			USING HINT = 'Call pgtrickle.repair_stream_table() for the stream tables over what was changed.';
	END;
END
$$;
COMMENT ON FUNCTION pgtrickle.on_ddl_command_end() IS
	'event trigger: sources or stream tables were created or altered';
REVOKE ALL ON FUNCTION pgtrickle.on_ddl_command_end() FROM PUBLIC;

/*
 * Stream tables that were dropped, with whatever command: their catalog rows and state tables go, too.  For a source `ddl`
 * is enough: its stream tables keep their last rows, and the applier finds out why they cannot be refreshed.
 */
CREATE FUNCTION pgtrickle.on_sql_drop() RETURNS event_trigger
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	dropped oid[];
	dropped_ids bigint[];
	state_table regclass;
BEGIN
	IF to_regclass('pgtrickle.pgt_copies') IS NULL
		OR NOT EXISTS (SELECT FROM pgtrickle.pgt_definitions) AND NOT EXISTS (SELECT FROM pgtrickle.pgt_copies)
	THEN
		RETURN;
	END IF;
	-- the guard, and the index by which refreshes find rows, go only with their table
	PERFORM pgtrickle.refuse_ddl(d.relid, tg_tag)
	FROM pg_event_trigger_dropped_objects() o
	JOIN pgtrickle.pgt_definitions d ON o.object_type = 'index' AND d.key_index = o.objid
		OR o.object_type = 'trigger' AND o.address_names[3] = 'pgtrickle_guard'
			AND d.relid = to_regclass(format('%I.%I', o.address_names[1], o.address_names[2]))
	WHERE EXISTS (SELECT FROM pg_class c WHERE c.oid = d.relid);
	BEGIN
		SELECT array_agg(DISTINCT d.objid) INTO dropped
		FROM pg_event_trigger_dropped_objects() d
		WHERE d.classid = 'pg_class'::regclass AND d.objsubid = 0;

		SELECT array_agg(d.pgt_id) INTO dropped_ids FROM pgtrickle.pgt_definitions d WHERE d.relid = ANY (dropped);
		FOR state_table IN
			SELECT s.relid::regclass FROM pgtrickle.pgt_state_tables s JOIN pg_class c ON c.oid = s.relid
			WHERE s.pgt_id = ANY (dropped_ids)
		LOOP
			EXECUTE format('DROP TABLE %s', state_table);
		END LOOP;
		DELETE FROM pgtrickle.pgt_definitions WHERE pgt_id = ANY (dropped_ids);
		PERFORM pgtrickle.forget_dropped_copies(dropped);

		-- one that takes its place is told, too, even if it is its like: a refresh in between has failed
		PERFORM pgtrickle.forget_meaning(reader.pgt_id)
		FROM (SELECT DISTINCT s.pgt_id FROM pgtrickle.pgt_sources s WHERE s.source_relid = ANY (dropped)) reader;
		PERFORM pgtrickle.tell_sources_changed(ARRAY(
			SELECT d.objid FROM pg_event_trigger_dropped_objects() d WHERE d.classid = 'pg_class'::regclass
			UNION
			SELECT a FROM unnest(dropped) relid, pgtrickle.former_ancestors(relid) a
			UNION
			SELECT to_regclass(format('%I.%I', d.address_names[1], d.address_names[2]))
			FROM pg_event_trigger_dropped_objects() d WHERE d.object_type IN ('policy', 'table constraint')));
		IF dropped_ids IS NOT NULL THEN
			PERFORM pgtrickle.definitions_changed();
			PERFORM pgtrickle.immediate_sync_triggers();
		END IF;
		PERFORM pgtrickle.immediate_follow(dropped || ARRAY(SELECT a FROM unnest(dropped) relid, pgtrickle.former_ancestors(relid) a));
	EXCEPTION WHEN OTHERS THEN
		RAISE WARNING 'could not clean up after %: %', tg_tag, sqlerrm;
	END;
END
$$;
COMMENT ON FUNCTION pgtrickle.on_sql_drop() IS
	'event trigger: sources or stream tables were dropped';
REVOKE ALL ON FUNCTION pgtrickle.on_sql_drop() FROM PUBLIC;

CREATE FUNCTION pgtrickle.on_table_rewrite() RETURNS event_trigger
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM pgtrickle.tell_sources_changed(ARRAY[pg_event_trigger_table_rewrite_oid()]);
EXCEPTION WHEN OTHERS THEN
	RAISE WARNING 'could not tell the applier about a rewritten table: %', sqlerrm
		USING HINT = 'Call pgtrickle.repair_stream_table() for the stream tables over it.';
END
$$;
COMMENT ON FUNCTION pgtrickle.on_table_rewrite() IS
	'event trigger: a source is being rewritten';
REVOKE ALL ON FUNCTION pgtrickle.on_table_rewrite() FROM PUBLIC;

-- ALWAYS: also in sessions that apply changes of another server.
CREATE EVENT TRIGGER pgtrickle_ddl_command_end ON ddl_command_end
	WHEN TAG IN ('ALTER TABLE', 'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE SCHEMA', 'ALTER SCHEMA',
		'CREATE VIEW', 'ALTER VIEW', 'CREATE MATERIALIZED VIEW', 'ALTER MATERIALIZED VIEW', 'REFRESH MATERIALIZED VIEW',
		'CREATE FOREIGN TABLE', 'ALTER FOREIGN TABLE', 'IMPORT FOREIGN SCHEMA', 'CREATE POLICY', 'ALTER POLICY',
		'CREATE FUNCTION', 'ALTER FUNCTION', 'CREATE AGGREGATE', 'ALTER AGGREGATE', 'ALTER TYPE', 'ALTER DOMAIN', 'ALTER TRIGGER')
	EXECUTE FUNCTION pgtrickle.on_ddl_command_end();
ALTER EVENT TRIGGER pgtrickle_ddl_command_end ENABLE ALWAYS;

CREATE EVENT TRIGGER pgtrickle_sql_drop ON sql_drop
	EXECUTE FUNCTION pgtrickle.on_sql_drop();
ALTER EVENT TRIGGER pgtrickle_sql_drop ENABLE ALWAYS;

CREATE EVENT TRIGGER pgtrickle_table_rewrite ON table_rewrite
	EXECUTE FUNCTION pgtrickle.on_table_rewrite();
ALTER EVENT TRIGGER pgtrickle_table_rewrite ENABLE ALWAYS;
