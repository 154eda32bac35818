/*
 * applier/sql/remote_tables.sql
 *     The tables of schema $1 of a remote that can be copied; partitions are rows of their parents, and stream
 *     tables are left out.
 */
SELECT coalesce(pg_catalog.array_agg(c.relname::text ORDER BY c.relname), '{}')
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT c.relispartition
	AND NOT EXISTS (
		SELECT FROM pg_catalog.pg_depend d
		WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
	AND NOT EXISTS (
		SELECT FROM pg_catalog.pg_trigger t
		JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
		JOIN pg_catalog.pg_namespace ours ON ours.oid = p.pronamespace
		WHERE t.tgrelid = c.oid AND ours.nspname = 'pgtrickle' AND p.proname LIKE 'guard%');
