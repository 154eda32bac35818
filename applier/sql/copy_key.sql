/* applier/sql/copy_key.sql: the key of copy $1, table $2: its columns in order, its name, and is it the primary key?  No row: it has none. */
SELECT pg_catalog.string_agg('"' || replace(a.attname, '"', '""') || '"', ', ' ORDER BY k.number) AS columns,
	i.indexrelid::pg_catalog.regclass::text AS index,
	i.indisprimary AS is_primary
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, number)
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = $2::oid AND c.relname = 'pgt_key_' || $1::bigint
GROUP BY i.indexrelid;
