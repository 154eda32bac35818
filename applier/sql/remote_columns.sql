/*
 * applier/sql/remote_columns.sql
 *     The columns of the remote's table $1; $2 is the index that is its key, $3 names the columns that are wanted.
 *
 * `type_name` is for comparing, as the stream has it; in `type_use` a type that is not the server's own is its OID
 * between the characters 1 and 2, to be replaced by the name that it has on the target.  Names of objects, such as regclass, are texts: what they
 * name is not there.  `missing` is the value of
 * rows that were there when the column was added.
 */
SELECT a.attnum,
	a.attname,
	pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
	pg_catalog.format_type(a.atttypid, NULL) AS type_name,
	CASE WHEN element_schema.nspname = 'pg_catalog' AND element.typname ~ '^reg' THEN
			CASE WHEN element.oid <> t.oid THEN 'text[]' ELSE 'text' END
		WHEN element_schema.nspname = 'pg_catalog' THEN pg_catalog.format_type(a.atttypid, a.atttypmod)
		ELSE chr(1) || element.oid || chr(2)
			|| pg_catalog.substr(pg_catalog.format_type(element.oid, a.atttypmod), pg_catalog.length(pg_catalog.format_type(element.oid, NULL)) + 1)
			|| CASE WHEN element.oid <> t.oid THEN '[]' ELSE '' END
	END AS type_use,
	CASE WHEN element_schema.nspname = 'pg_catalog' THEN element.typname END AS builtin,
	collation_schema.nspname AS collation_schema,
	l.collname AS collation_name,
	a.atttypid AS type_oid,
	a.atttypmod AS type_modifier,
	a.attnotnull AS not_null,
	pg_catalog.array_position((key.indkey::int2[])[0:key.indnkeyatts - 1], a.attnum) - 1 AS key_position,
	a.attgenerated AS generated,
	a.atthasdef AS has_default,
	coalesce(a.attname = ANY ($3::text[]), true) AS wanted,
	CASE WHEN a.atthasmissing THEN (a.attmissingval::text::text[])[1] END AS missing,
	pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT') AS may_select,
	pg_catalog.col_description(a.attrelid, a.attnum) AS comment
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_type element ON element.oid = CASE WHEN t.typelem <> 0 AND t.typlen = -1 AND t.typcategory = 'A' THEN t.typelem ELSE t.oid END
JOIN pg_catalog.pg_namespace element_schema ON element_schema.oid = element.typnamespace
LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation AND a.attcollation <> t.typcollation
LEFT JOIN pg_catalog.pg_namespace collation_schema ON collation_schema.oid = l.collnamespace
LEFT JOIN pg_catalog.pg_index key ON key.indexrelid = $2
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum;
