/*
 * sql/12_roles.sql
 *     Groups of people who look after stream tables of others.
 *
 *     pgtrickle_reader     sees the state of all stream tables, not what errors said
 *     pgtrickle_operator   besides sees errors, pauses, resumes and repairs, opens and closes gates
 *     pgtrickle_admin      besides changes schedules, modes and options
 *
 * None of them reads a row, changes a query or drops anything: that takes the owner.  Roles belong to the cluster, so they are not made with the
 * extension but by create_roles(); a group that does not exist has no members.
 */

CREATE FUNCTION pgtrickle.create_roles() RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	wanted name;
BEGIN
	FOREACH wanted IN ARRAY '{pgtrickle_reader,pgtrickle_operator,pgtrickle_admin}'::name[] LOOP
		IF to_regrole(wanted::text) IS NULL THEN
			EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle.create_roles() IS
	'makes the groups pgtrickle_reader, pgtrickle_operator and pgtrickle_admin';
REVOKE ALL ON FUNCTION pgtrickle.create_roles() FROM PUBLIC;

CREATE FUNCTION pgtrickle.is_member(groups text[]) RETURNS boolean
	LANGUAGE sql STABLE STRICT
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = ANY (groups::name[]) AND pg_has_role(r.oid, 'USAGE'))
$$;
COMMENT ON FUNCTION pgtrickle.is_member(text[]) IS
	'is the caller a member of one of these groups';
