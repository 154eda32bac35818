/*
 * applier/sql/target_type.sql
 *     The type $2 of schema $1, or of the extension $3 when that is not NULL; one row, with NULLs for what is not there.
 */
SELECT t.oid, pg_catalog.format_type(t.oid, NULL) AS printed, t.typtype AS kind,
	extension.extversion AS installed_version, available.default_version AS available_version
FROM (VALUES (1)) one
LEFT JOIN pg_catalog.pg_extension extension ON extension.extname = $3
LEFT JOIN pg_catalog.pg_available_extensions available ON available.name = $3
LEFT JOIN (pg_catalog.pg_type t
	JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
	LEFT JOIN pg_catalog.pg_depend member
		ON member.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND member.objid = t.oid AND member.deptype = 'e')
	ON t.typname = $2 AND CASE WHEN $3::text IS NULL THEN n.nspname = $1 ELSE member.refobjid = extension.oid END;
