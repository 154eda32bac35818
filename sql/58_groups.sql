/*
 * sql/58_groups.sql
 *     Refresh groups: stream tables that are refreshed together, so that they always show the same snapshot.
 *
 * Every tick brings what it refreshes to one snapshot, but which stream tables that are is a matter of their schedules.  The applier adds the
 * others of a group (applier/schedule.c).  Rights are those of its members: to make, extend or dissolve a group one has to own all of them.
 */

CREATE TABLE pgtrickle.pgt_refresh_groups (
	group_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	group_name text NOT NULL UNIQUE,
	isolation text NOT NULL,
	created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE pgtrickle.pgt_refresh_group_members (
	pgt_id bigint PRIMARY KEY REFERENCES pgtrickle.pgt_definitions ON DELETE CASCADE,
	group_id integer NOT NULL REFERENCES pgtrickle.pgt_refresh_groups ON DELETE CASCADE
);
CREATE INDEX pgt_refresh_group_members_group_id ON pgtrickle.pgt_refresh_group_members (group_id);
SELECT pg_catalog.pg_extension_config_dump('pgtrickle.pgt_refresh_groups', '');
SELECT pg_catalog.pg_extension_config_dump('pgtrickle.pgt_refresh_group_members', '');
REVOKE ALL ON pgtrickle.pgt_refresh_groups, pgtrickle.pgt_refresh_group_members FROM PUBLIC;

CREATE VIEW pgtrickle.pgt_refresh_group_list WITH (security_barrier) AS
	SELECT g.group_id, g.group_name, g.isolation, g.created_at, s.pgt_id, s.pgt_schema, s.pgt_name
	FROM pgtrickle.pgt_refresh_groups g
	JOIN pgtrickle.pgt_refresh_group_members m USING (group_id)
	JOIN pgtrickle.pgt_stream_tables s USING (pgt_id);
COMMENT ON VIEW pgtrickle.pgt_refresh_group_list IS 'refresh groups, one row for each stream table in them';
GRANT SELECT ON pgtrickle.pgt_refresh_group_list TO PUBLIC;

/*
 * Part of apply_change(), whose caller may change the stream table: null takes it out of its group; {"name": ..., "isolation": ...} begins a
 * group with it; {"name": ...} adds it to one, of which all belong to the same owner.
 */
CREATE FUNCTION pgtrickle.change_group(changed_id bigint, wanted jsonb) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	wanted_name CONSTANT text := wanted->>'name';
	its_name CONSTANT text := (SELECT d.relid::text FROM pgtrickle.pgt_definitions d WHERE d.pgt_id = changed_id);
	found_id integer;
BEGIN
	IF jsonb_typeof(wanted) = 'null' THEN
		DELETE FROM pgtrickle.pgt_refresh_group_members WHERE pgt_id = changed_id;
	END IF;
	-- those whose stream tables were dropped
	DELETE FROM pgtrickle.pgt_refresh_groups g
	WHERE NOT EXISTS (SELECT FROM pgtrickle.pgt_refresh_group_members m WHERE m.group_id = g.group_id);
	IF wanted_name IS NULL THEN
		RETURN;
	END IF;

	SELECT g.group_id INTO found_id FROM pgtrickle.pgt_refresh_groups g WHERE g.group_name = wanted_name FOR UPDATE;
	IF wanted ? 'isolation' THEN
		IF FOUND THEN
			RAISE EXCEPTION 'refresh group "%" already exists', wanted_name USING ERRCODE = 'duplicate_object';
		END IF;
		INSERT INTO pgtrickle.pgt_refresh_groups (group_name, isolation) VALUES (wanted_name, wanted->>'isolation') RETURNING group_id INTO found_id;
	ELSIF NOT FOUND THEN
		RAISE EXCEPTION 'refresh group "%" does not exist', wanted_name USING ERRCODE = 'undefined_object';
	END IF;
	IF EXISTS (SELECT FROM pgtrickle.pgt_refresh_group_members m JOIN pgtrickle.pgt_definitions d USING (pgt_id) JOIN pg_class c ON c.oid = d.relid
		WHERE m.group_id = found_id
			AND c.relowner <> (SELECT o.relowner FROM pgtrickle.pgt_definitions n JOIN pg_class o ON o.oid = n.relid WHERE n.pgt_id = changed_id))
	THEN
		RAISE EXCEPTION 'stream tables of a refresh group must belong to the same owner'
			USING ERRCODE = 'insufficient_privilege', DETAIL = format('Stream table %s does not belong to the owner of group "%s".', its_name, wanted_name);
	ELSIF EXISTS (SELECT FROM pgtrickle.pgt_refresh_group_members m WHERE m.pgt_id = changed_id) THEN
		RAISE EXCEPTION 'stream table "%" is in a refresh group already', its_name
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'pgtrickle.refresh_groups() lists them, pgtrickle.drop_refresh_group() dissolves one.';
	ELSIF EXISTS (SELECT FROM pgtrickle.pgt_definitions d WHERE d.pgt_id = changed_id AND d.refresh_mode = 'IMMEDIATE') THEN
		RAISE EXCEPTION 'stream table "%" is maintained by its writers, and cannot be in a refresh group', its_name
			USING ERRCODE = 'feature_not_supported';
	END IF;
	INSERT INTO pgtrickle.pgt_refresh_group_members (pgt_id, group_id) VALUES (changed_id, found_id);
END
$$;
COMMENT ON FUNCTION pgtrickle.change_group(bigint, jsonb) IS
	'puts a stream table into a refresh group or takes it out';
REVOKE ALL ON FUNCTION pgtrickle.change_group(bigint, jsonb) FROM PUBLIC;

CREATE FUNCTION pgtrickle.make_group(group_name text, ids bigint[], isolation text) RETURNS integer
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	normal CONSTANT text := replace(lower(btrim(isolation)), ' ', '_');
	wanted jsonb := jsonb_build_object('name', group_name);
	id bigint;
BEGIN
	IF group_name IS NULL OR group_name = '' OR cardinality(ids) = 0 THEN
		RAISE EXCEPTION 'a refresh group needs a name and stream tables' USING ERRCODE = 'invalid_parameter_value';
	ELSIF normal IS NULL OR normal NOT IN ('read_committed', 'repeatable_read') THEN
		RAISE EXCEPTION 'invalid isolation "%"', isolation
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Use ''read_committed'' or ''repeatable_read''; here both mean one snapshot.';
	END IF;
	FOR n IN 1 .. cardinality(ids) LOOP
		PERFORM pgtrickle.change_definition(ids[n], jsonb_build_object('refresh_group',
			CASE WHEN n = 1 THEN wanted || jsonb_build_object('isolation', normal) ELSE wanted END));
	END LOOP;
	RETURN (SELECT max(l.group_id) FROM pgtrickle.pgt_refresh_group_list l WHERE l.group_name = make_group.group_name);
END
$$;
COMMENT ON FUNCTION pgtrickle.make_group(text, bigint[], text) IS 'what create_refresh_group() does';

CREATE FUNCTION pgtrickle.create_refresh_group(group_name text, members text[], isolation text DEFAULT 'read_committed') RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
AS $$
DECLARE
	ids bigint[] := '{}';
	member text;
BEGIN
	FOREACH member IN ARRAY COALESCE(members, '{}') LOOP
		ids := pg_catalog.array_append(ids, pgtrickle.stream_table_id(member));
	END LOOP;
	RETURN pgtrickle.make_group(group_name, ids, isolation);
END
$$;
COMMENT ON FUNCTION pgtrickle.create_refresh_group(text, text[], text) IS
	'from now on these stream tables are refreshed together, and always show the same snapshot';

CREATE FUNCTION pgtrickle.drop_refresh_group(group_name text) RETURNS void
	LANGUAGE plpgsql VOLATILE STRICT
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM pgtrickle.change_definition(l.pgt_id, '{"refresh_group": null}')
	FROM pgtrickle.pgt_refresh_group_list l WHERE l.group_name = drop_refresh_group.group_name;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'refresh group "%" does not exist', group_name USING ERRCODE = 'undefined_object';
	END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle.drop_refresh_group(text) IS
	'dissolves a refresh group; its stream tables follow their own schedules again';

CREATE FUNCTION pgtrickle.refresh_groups()
	RETURNS TABLE (group_id integer, group_name text, member_count bigint, isolation text, created_at timestamptz)
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT l.group_id, l.group_name, count(*), l.isolation, l.created_at
	FROM pgtrickle.pgt_refresh_group_list l
	GROUP BY l.group_id, l.group_name, l.isolation, l.created_at
	ORDER BY l.group_name
$$;
COMMENT ON FUNCTION pgtrickle.refresh_groups() IS
	'refresh groups, with how many stream tables of which the caller knows are in them';
