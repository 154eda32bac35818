/*
 * applier/sql/copy_types.sql
 *     The types that are not the server's own and that the columns of table $1 need, those that others are made of first.
 *     With $2 instead: this one type alone.
 *
 * `definition` is what follows AS in CREATE TYPE or CREATE DOMAIN; in it types are written as in remote_columns.sql,
 * with $3 by their names.  Types of extensions have none: the extension brings them.
 */
WITH RECURSIVE needed (oid, depth) AS (
	SELECT a.atttypid, 0
	FROM pg_catalog.pg_attribute a
	WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
	UNION ALL
	SELECT $2::oid, 0 WHERE $2::oid <> 0
	UNION ALL
	SELECT part.oid, needed.depth + 1
	FROM needed
	JOIN pg_catalog.pg_type t ON t.oid = needed.oid AND $2::oid = 0
	CROSS JOIN LATERAL (
		SELECT t.typelem AS oid WHERE t.typelem <> 0 AND t.typlen = -1 AND t.typcategory = 'A'
		UNION ALL
		SELECT t.typbasetype WHERE t.typtype = 'd'
		UNION ALL
		SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid
		UNION ALL
		SELECT r.rngtypid FROM pg_catalog.pg_range r WHERE r.rngmultitypid = t.oid
		UNION ALL
		SELECT a.atttypid FROM pg_catalog.pg_attribute a
		WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
	) part
	WHERE NOT EXISTS (
		SELECT FROM pg_catalog.pg_depend d
		WHERE d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.objid = t.oid AND d.deptype = 'e')
)
SELECT t.oid,
	n.nspname AS schema,
	t.typname AS name,
	t.typtype AS kind,
	pg_catalog.format_type(t.oid, NULL) AS printed,
	extension.extname AS extension,
	CASE WHEN extension.extname IS NULL THEN
		CASE t.typtype
			WHEN 'e' THEN
				(SELECT 'ENUM (' || coalesce(pg_catalog.string_agg(pg_catalog.quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder), '') || ')'
				FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid)
			WHEN 'd' THEN parts.list
			WHEN 'c' THEN '(' || coalesce(parts.list, '') || ')'
			WHEN 'r' THEN 'RANGE (SUBTYPE = ' || parts.list
				|| coalesce((SELECT ', MULTIRANGE_TYPE_NAME = ' || pg_catalog.quote_ident(m.typname)
					FROM pg_catalog.pg_range r JOIN pg_catalog.pg_type m ON m.oid = r.rngmultitypid WHERE r.rngtypid = t.oid), '')
				|| ')'
		END
	END AS definition,
	(SELECT pg_catalog.array_agg(e.enumlabel::text ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid) AS labels,
	CASE t.typtype
		WHEN 'c' THEN (SELECT c.relkind <> 'c' FROM pg_catalog.pg_class c WHERE c.oid = t.typrelid)
		WHEN 'r' THEN (SELECT r.rngcanonical <> 0 OR NOT o.opcdefault FROM pg_catalog.pg_range r JOIN pg_catalog.pg_opclass o ON o.oid = r.rngsubopc WHERE r.rngtypid = t.oid)
		ELSE false
	END AS is_special
FROM (SELECT needed.oid, max(needed.depth) AS depth FROM needed GROUP BY needed.oid) closure
JOIN pg_catalog.pg_type t ON t.oid = closure.oid
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_depend member ON member.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND member.objid = t.oid AND member.deptype = 'e'
LEFT JOIN pg_catalog.pg_extension extension ON extension.oid = member.refobjid
LEFT JOIN LATERAL (
	SELECT pg_catalog.string_agg(coalesce(pg_catalog.quote_ident(part.name) || ' ', '')
		|| CASE WHEN element_schema.nspname = 'pg_catalog' OR $3 THEN pg_catalog.format_type(part.typid, part.modifier)
			ELSE chr(1) || element.oid || chr(2)
				|| pg_catalog.substr(pg_catalog.format_type(element.oid, part.modifier), pg_catalog.length(pg_catalog.format_type(element.oid, NULL)) + 1)
				|| CASE WHEN element.oid <> part.typid THEN '[]' ELSE '' END
		END, ', ' ORDER BY part.number) AS list
	FROM (
		SELECT 0 AS number, NULL::name AS name, t.typbasetype AS typid, t.typtypmod AS modifier WHERE t.typtype = 'd'
		UNION ALL
		SELECT 0, NULL, r.rngsubtype, -1 FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid
		UNION ALL
		SELECT a.attnum, a.attname, a.atttypid, a.atttypmod FROM pg_catalog.pg_attribute a
		WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
	) part
	JOIN pg_catalog.pg_type p ON p.oid = part.typid
	JOIN pg_catalog.pg_type element ON element.oid = CASE WHEN p.typelem <> 0 AND p.typlen = -1 AND p.typcategory = 'A' THEN p.typelem ELSE p.oid END
	JOIN pg_catalog.pg_namespace element_schema ON element_schema.oid = element.typnamespace
) parts ON extension.extname IS NULL
WHERE n.nspname <> 'pg_catalog' AND NOT (t.typelem <> 0 AND t.typlen = -1 AND t.typcategory = 'A')
ORDER BY closure.depth DESC, t.oid;
