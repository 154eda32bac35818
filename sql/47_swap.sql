/*
 * sql/47_swap.sql
 *     Schemas that change places: how a new version of everything goes live at one moment.
 *
 * A name means what stands under it.  So what is built in next to live becomes live by three ALTER SCHEMA ... RENAME per pair, all in one
 * transaction: who reads sees all of the old or all of the new, since everybody is kept out meanwhile (delta/swap_locks.c says why that is exact).
 * Functions are left out of this: the server looks them up without a lock.  Everything inside of the schemas moves with what it reads, also from one
 * swapped schema to another; what stands outside goes by name and reads the new version from then on.  For stream tables that is what the event trigger
 * does about ALTER SCHEMA; views and publications know OIDs and not names, so they are given the same text again.
 *
 * All of it runs with the caller's rights: who may rename the schemas by hand may do this.
 */

-- Pairs as rows; errors for what cannot be swapped.
CREATE FUNCTION pgtrickle.schema_pairs(live text[], next text[])
	RETURNS TABLE (n integer, live_name text, next_name text, live_id oid, next_id oid)
	LANGUAGE plpgsql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	wrong text;
BEGIN
	IF cardinality(live) IS DISTINCT FROM cardinality(next) OR coalesce(cardinality(live), 0) = 0 THEN
		RAISE EXCEPTION 'each schema needs one to change places with' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	SELECT s INTO wrong FROM unnest(live || next) s GROUP BY s HAVING count(*) > 1 OR s IS NULL LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'schema "%" is named twice', wrong USING ERRCODE = 'invalid_parameter_value';
	END IF;
	SELECT s INTO wrong FROM unnest(live || next) s WHERE s IN ('information_schema', 'pgtrickle') OR s LIKE 'pg\_%' LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'schema "%" cannot be swapped', wrong USING ERRCODE = 'reserved_name';
	END IF;
	SELECT s INTO wrong FROM unnest(live || next) s WHERE to_regnamespace(quote_ident(s)) IS NULL LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'schema "%" does not exist', wrong USING ERRCODE = 'invalid_schema_name';
	END IF;
	RETURN QUERY
		SELECT p.n::integer, p.a, p.b, to_regnamespace(quote_ident(p.a))::oid, to_regnamespace(quote_ident(p.b))::oid
		FROM unnest(live, next) WITH ORDINALITY p (a, b, n);
END
$$;
COMMENT ON FUNCTION pgtrickle.schema_pairs(text[], text[]) IS
	'the schemas that are to change places, with their OIDs';

/*
 * What stands outside of some schemas and reads what is inside.  `restore` is the statement that makes it read again, by name, what then has
 * the names; `release` lets go of it first.  Where there is none the schemas cannot be swapped without breaking it.
 */
CREATE FUNCTION pgtrickle.readers_outside(schemas text[])
	RETURNS TABLE (kind text, name text, reads text, release text, restore text)
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	WITH inside AS (
		SELECT c.oid, format('%I.%I', s.nspname, c.relname) AS name
		FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
		WHERE s.nspname = ANY (schemas)
	), inside_types AS (
		SELECT t.oid FROM pg_type t JOIN pg_namespace s ON s.oid = t.typnamespace WHERE s.nspname = ANY (schemas)
	)
	SELECT 'stream table', format('%I.%I', s.pgt_schema, s.pgt_name), string_agg(DISTINCT format('%I.%I', d.source_schema, d.source_name), ', '), NULL, ''
	FROM pgtrickle.pgt_dependencies d JOIN pgtrickle.pgt_stream_tables s USING (pgt_id)
	WHERE d.source_schema = ANY (schemas) AND s.pgt_schema <> ALL (schemas)
	GROUP BY s.pgt_schema, s.pgt_name
	UNION ALL
	SELECT CASE v.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END, format('%I.%I', n.nspname, v.relname),
		string_agg(DISTINCT i.name, ', '), NULL,
		CASE v.relkind WHEN 'v' THEN format('CREATE OR REPLACE VIEW %I.%I%s AS %s', n.nspname, v.relname,
			' WITH (' || array_to_string(v.reloptions, ', ') || ')', pg_get_viewdef(v.oid)) END
	FROM inside i
	JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = i.oid AND d.classid = 'pg_rewrite'::regclass
	JOIN pg_rewrite r ON r.oid = d.objid
	JOIN pg_class v ON v.oid = r.ev_class
	JOIN pg_namespace n ON n.oid = v.relnamespace
	WHERE n.nspname <> ALL (schemas)
	GROUP BY v.oid, v.relkind, v.relname, v.reloptions, n.nspname
	UNION ALL
	SELECT 'publication', quote_ident(p.pubname), i.name, format('ALTER PUBLICATION %I DROP TABLE %s', p.pubname, i.name),
		format('ALTER PUBLICATION %I ADD TABLE %s%s%s', p.pubname, i.name,
			(SELECT ' (' || string_agg(quote_ident(a.attname), ', ' ORDER BY k.n) || ')' FROM unnest(r.prattrs) WITH ORDINALITY k (attnum, n)
				JOIN pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = k.attnum),
			' WHERE (' || pg_get_expr(r.prqual, r.prrelid) || ')')
	FROM inside i JOIN pg_publication_rel r ON r.prrelid = i.oid JOIN pg_publication p ON p.oid = r.prpubid
	UNION ALL
	SELECT 'publication', quote_ident(p.pubname), format('schema %I', s.nspname),
		format('ALTER PUBLICATION %I DROP TABLES IN SCHEMA %I', p.pubname, s.nspname),
		format('ALTER PUBLICATION %I ADD TABLES IN SCHEMA %I', p.pubname, s.nspname)
	FROM pg_publication_namespace r JOIN pg_publication p ON p.oid = r.pnpubid JOIN pg_namespace s ON s.oid = r.pnnspid
	WHERE s.nspname = ANY (schemas)
	UNION ALL
	SELECT 'foreign key', format('%I of %I.%I', k.conname, n.nspname, c.relname), i.name, NULL, NULL
	FROM inside i JOIN pg_constraint k ON k.contype = 'f' AND k.confrelid = i.oid
	JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE n.nspname <> ALL (schemas)
	UNION ALL
	SELECT 'column', format('%I of %I.%I', a.attname, n.nspname, c.relname), format_type(a.atttypid, NULL), NULL, NULL
	FROM inside_types t JOIN pg_attribute a ON a.atttypid = t.oid AND NOT a.attisdropped
	JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p', 'm', 'f') JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE n.nspname <> ALL (schemas)
	ORDER BY 1, 2, 3
$$;
COMMENT ON FUNCTION pgtrickle.readers_outside(text[]) IS
	'what stands outside of some schemas and reads what is in them';

/*
 * What one would want to know before.  Errors: the swap fails, or something that others use would be gone (a table that the new version lacks, a
 * right on a table or schema).  Infos: what is new, and what outside is going to read the new version.
 */
CREATE FUNCTION pgtrickle.swap_report(live text[], next text[]) RETURNS TABLE (severity text, finding text, detail text)
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	WITH pairs AS (
		SELECT * FROM pgtrickle.schema_pairs(live, next)
	), sides AS (
		SELECT p.n, 'live' AS side, p.live_name AS name, s.* FROM pairs p JOIN pg_namespace s ON s.oid = p.live_id
		UNION ALL
		SELECT p.n, 'next', p.next_name, s.* FROM pairs p JOIN pg_namespace s ON s.oid = p.next_id
	), things AS (
		SELECT s.n, s.side, s.name AS schema_name, c.relname::text AS thing, c.relname, c.relowner AS owner, c.relacl AS acl,
			CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' ELSE 'table' END AS kind
		FROM sides s JOIN pg_class c ON c.relnamespace = s.oid
		WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
		UNION ALL
		SELECT s.n, s.side, s.name, format('%s(%s)', p.proname, pg_get_function_identity_arguments(p.oid)), NULL, p.proowner, p.proacl, 'function'
		FROM sides s JOIN pg_proc p ON p.pronamespace = s.oid
	), rights AS (
		SELECT t.n, t.side, t.kind, t.schema_name, t.thing, a.privilege_type, a.grantee
		FROM things t CROSS JOIN LATERAL aclexplode(t.acl) a WHERE a.grantee <> t.owner AND t.relname IS NOT NULL
		UNION ALL
		SELECT s.n, s.side, 'schema', s.name, '', a.privilege_type, a.grantee
		FROM sides s CROSS JOIN LATERAL aclexplode(s.nspacl) a WHERE a.grantee <> s.nspowner
	)
	SELECT 'error', format('role "%s" is not the owner of schema "%s"', current_user, s.name),
		format('have it run: ALTER SCHEMA %I OWNER TO %I', s.name, current_user)
	FROM sides s WHERE NOT pg_has_role(s.nspowner, 'USAGE')
	UNION ALL
	SELECT 'error', format('role "%s" cannot rename schemas of this database', current_user),
		format('have its owner run: GRANT CREATE ON DATABASE %I TO %I', current_database(), current_user)
	WHERE NOT has_database_privilege(current_database(), 'CREATE')
	UNION ALL
	SELECT 'error', format('%s "%s" is in schema "%s" only', o.kind, o.thing, o.schema_name), 'the new version lacks it'
	FROM things o WHERE o.side = 'live' AND NOT EXISTS (SELECT FROM things w WHERE w.side = 'next' AND (w.n, w.thing) = (o.n, o.thing))
	UNION ALL
	SELECT 'error', format('%s on %s is not granted to %s in the new version', r.privilege_type,
			concat_ws(' ', CASE r.kind WHEN 'schema' THEN 'schema' END, format('"%s"', concat_ws('.', r.schema_name, nullif(r.thing, '')))),
			CASE r.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r.grantee)) END),
		'grant it there, in the configuration of the model or as a default privilege'
	FROM rights r
	WHERE r.side = 'live'
		AND (r.thing = '' OR EXISTS (SELECT FROM things w WHERE w.side = 'next' AND (w.n, w.thing) = (r.n, r.thing)))
		AND NOT EXISTS (SELECT FROM rights w
			WHERE w.side = 'next' AND (w.n, w.thing, w.privilege_type, w.grantee) = (r.n, r.thing, r.privilege_type, r.grantee))
	UNION ALL
	SELECT 'error', format('%s %s depends on %s', o.kind, o.name, o.reads), 'it would go on reading the old version'
	FROM pgtrickle.readers_outside(live || next) o WHERE o.restore IS NULL
	UNION ALL
	SELECT 'info', format('%s "%s" is new in schema "%s"', w.kind, w.thing, o.name), NULL
	FROM things w JOIN sides o ON o.side = 'live' AND o.n = w.n
	WHERE w.side = 'next' AND NOT EXISTS (SELECT FROM things o WHERE o.side = 'live' AND (o.n, o.thing) = (w.n, w.thing))
	UNION ALL
	SELECT 'info', format('%s %s reads %s', o.kind, o.name, o.reads), 'it will read the new version'
	FROM pgtrickle.readers_outside(live || next) o WHERE o.restore IS NOT NULL
$$;
COMMENT ON FUNCTION pgtrickle.swap_report(text[], text[]) IS
	'what would be lost, is new, or reads what changes when schemas change places';

-- A schema like another one: owner, privileges, default privileges.  Not what is in it.
CREATE FUNCTION pgtrickle.create_schema_like(model text, name text) RETURNS void
	LANGUAGE plpgsql VOLATILE STRICT
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	owner_id CONSTANT oid := (SELECT nspowner FROM pg_namespace WHERE nspname = model);
	statement text;
BEGIN
	IF owner_id IS NULL THEN
		RAISE EXCEPTION 'schema "%" does not exist', model USING ERRCODE = 'invalid_schema_name';
	END IF;
	EXECUTE format('CREATE SCHEMA %I AUTHORIZATION %I', name, pg_get_userbyid(owner_id));
	FOR statement IN
		SELECT format('GRANT %s ON SCHEMA %I TO %s%s', a.privilege_type, name,
			CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
			CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
		FROM pg_namespace s CROSS JOIN LATERAL aclexplode(s.nspacl) a
		WHERE s.nspname = model AND a.grantee <> s.nspowner
		UNION ALL
		SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT %s ON %s TO %s%s', pg_get_userbyid(d.defaclrole), name, a.privilege_type,
			CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS' ELSE 'TYPES' END,
			CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
			CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
		FROM pg_default_acl d JOIN pg_namespace s ON s.oid = d.defaclnamespace CROSS JOIN LATERAL aclexplode(d.defaclacl) a
		WHERE s.nspname = model
	LOOP
		EXECUTE statement;
	END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle.create_schema_like(text, text) IS
	'creates an empty schema with the owner, the privileges and the default privileges of another one';

/*
 * Another name for a schema, also in the queries of those stream tables in the other schemas that are swapped: the event trigger takes along only what is
 * in this one.
 */
CREATE FUNCTION pgtrickle.rename_with_queries(old_name text, new_name text, along bigint[]) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	EXECUTE format('ALTER SCHEMA %I RENAME TO %I', old_name, new_name);
	PERFORM pgtrickle.rename_schema_in_query(s.pgt_id, old_name, new_name)
	FROM (SELECT pgt_id FROM pgtrickle.pgt_stream_tables
		WHERE pgt_id = ANY (along) AND pgt_schema <> new_name
			AND defining_query LIKE '%' || replace(quote_ident(old_name), '_', '\_') || '.%'
		ORDER BY pgt_id OFFSET 0) s;
END
$$;
COMMENT ON FUNCTION pgtrickle.rename_with_queries(text, text, bigint[]) IS
	'renames a schema and names it so in the queries of some stream tables';

/*
 * What is outside of some schemas and is made to read anew by name: views that have to be the caller's, since they are replaced, and stream tables that no
 * refresh may bring up to date from half of it; and what IMMEDIATE stream tables inside read, since they are filled again while nobody writes that.  Stream tables of other owners cannot be locked: they are bound anew and compared with their queries
 * afterwards, like after any renaming.
 */
CREATE FUNCTION pgtrickle.bound_anew(schemas text[]) RETURNS TABLE (kind text, relid oid)
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT r.kind, c.oid
	FROM pgtrickle.readers_outside(schemas) r JOIN pg_class c ON c.oid = to_regclass(r.name)
	WHERE r.kind IN ('view', 'stream table') AND pg_has_role(c.relowner, 'USAGE')
	UNION
	SELECT 'source', d.source_relid
	FROM pgtrickle.pgt_stream_tables s JOIN pgtrickle.pgt_dependencies d USING (pgt_id)
	WHERE s.refresh_mode = 'IMMEDIATE' AND s.pgt_schema = ANY (schemas) AND pg_has_role(s.pgt_owner, 'USAGE')
$$;
COMMENT ON FUNCTION pgtrickle.bound_anew(text[]) IS
	'the views and stream tables outside of some schemas that are made to read anew when the schemas are swapped';

CREATE FUNCTION pgtrickle.lock_for_swap(schemas text[]) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_lock_for_swap';
COMMENT ON FUNCTION pgtrickle.lock_for_swap(text[]) IS
	'keeps everybody away from what is in some schemas, and refreshes from what reads it, to the end of the transaction';

-- The event trigger warns of what still reads by a name that is gone for a moment; that is the point here.
CREATE FUNCTION pgtrickle.swap_schemas(live text[], next text[], comment text DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
	SET client_min_messages = error
AS $$
DECLARE
	schemas CONSTANT text[] := live || next;
	along bigint[];
	aside CONSTANT text := 'swap_' || pg_current_xact_id();
	pair record;
	reader record;
	readers pgtrickle.table_property[];
BEGIN
	PERFORM pgtrickle.schema_pairs(live, next);
	PERFORM pgtrickle.lock_for_swap(schemas);
	along := ARRAY(SELECT pgt_id FROM pgtrickle.pgt_stream_tables WHERE pgt_schema = ANY (schemas));
	FOR reader IN SELECT * FROM pgtrickle.readers_outside(schemas) LOOP
		readers := readers || (format('%s %s', reader.kind, reader.name), reader.restore)::pgtrickle.table_property;
		IF reader.release IS NOT NULL THEN
			EXECUTE reader.release;
		END IF;
	END LOOP;
	FOR pair IN SELECT * FROM pgtrickle.schema_pairs(live, next) LOOP
		PERFORM pgtrickle.rename_with_queries(pair.live_name, aside, along);
		PERFORM pgtrickle.rename_with_queries(pair.next_name, pair.live_name, along);
		PERFORM pgtrickle.rename_with_queries(aside, pair.next_name, along);
		IF comment IS NOT NULL THEN
			EXECUTE format('COMMENT ON SCHEMA %I IS %L', pair.live_name, comment);
		END IF;
	END LOOP;
	FOREACH reader IN ARRAY coalesce(readers, '{}') LOOP
		BEGIN
			EXECUTE coalesce(nullif(reader.statement, ''), 'SELECT');
		EXCEPTION WHEN OTHERS THEN
			RAISE EXCEPTION 'cannot swap schemas: % cannot read the new version', reader.what
				USING ERRCODE = 'dependent_objects_still_exist', DETAIL = sqlerrm, HINT = 'Change or drop it first.';
		END;
	END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle.swap_schemas(text[], text[], text) IS
	'lets schemas change places in one step, with the stream tables, views and publications that read what is in them';

/*
 * The same for programs: who has to wait for a lock longer than that lets go of everything and tries again, so that nobody queues up behind it.
 * Returns how many attempts it took.
 */
CREATE FUNCTION pgtrickle.try_swap_schemas(live text[], next text[], comment text, lock_timeout interval, attempts integer) RETURNS integer
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM set_config('lock_timeout', (extract(epoch FROM lock_timeout) * 1000)::bigint::text, true);
	FOR attempt IN 1 .. attempts LOOP
		BEGIN
			PERFORM pgtrickle.swap_schemas(live, next, comment);
			RETURN attempt;
		EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
			IF attempt = attempts THEN
				RAISE;
			END IF;
		END;
		PERFORM pg_sleep(0.2 * attempt);
	END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle.try_swap_schemas(text[], text[], text, interval, integer) IS
	'swap_schemas(), tried again when a lock could not be had in time';
