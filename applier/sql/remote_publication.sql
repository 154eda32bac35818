/*
 * applier/sql/remote_publication.sql
 *     What the publication $1 says of table $2, of which the columns $3 are wanted; no row when there is no such publication.
 */
SELECT p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate AS has_all_changes,
	p.pubviaroot OR c.relkind <> 'p' AS names_root,
	t.tablename IS NOT NULL AS has_table,
	t.rowfilter IS NOT NULL AS has_filter,
	(SELECT pg_catalog.string_agg(wanted.name, ', ') FROM pg_catalog.unnest($3::text[]) wanted (name)
	WHERE NOT wanted.name = ANY (t.attnames::text[])) AS missing_columns
FROM pg_catalog.pg_publication p
JOIN pg_catalog.pg_class c ON c.oid = $2
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_publication_tables t ON t.pubname = p.pubname AND t.schemaname = n.nspname AND t.tablename = c.relname
WHERE p.pubname = $1;
