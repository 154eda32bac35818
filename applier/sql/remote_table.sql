/*
 * applier/sql/remote_table.sql
 *     The table $2 of schema $1 on a remote, as far as copying it depends on it: no row when there is none.
 *
 * `key_is_scattered`: rows that are next to each other by key are not by place.  $3 names the columns that are wanted, NULL is all.  Its key is what the server logs of old rows: the index of its replica identity, else the primary key.
 */
SELECT c.oid AS relid,
	c.relkind,
	c.relpersistence,
	pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS may_use_schema,
	pg_catalog.has_table_privilege(c.oid, 'SELECT') AS may_select,
	pg_catalog.row_security_active(c.oid) AS row_security,
	c.relreplident,
	pg_catalog.pg_is_in_recovery() AS is_standby,
	EXISTS (
		SELECT FROM pg_catalog.pg_trigger t
		JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
		JOIN pg_catalog.pg_namespace ours ON ours.oid = p.pronamespace
		WHERE t.tgrelid = c.oid AND ours.nspname = 'pgtrickle' AND p.proname LIKE 'guard%') AS is_ours,
	key.indexrelid AS key_index,
	coalesce(key.indisprimary, false) AS key_is_primary,
	(SELECT abs(st.correlation) < 0.5
	FROM pg_catalog.pg_stats st
	JOIN pg_catalog.pg_attribute a ON a.attname = st.attname
	WHERE st.schemaname = n.nspname AND st.tablename = c.relname AND NOT st.inherited
		AND a.attrelid = key.indexrelid AND a.attnum = 1) AS key_is_scattered,
	pg_catalog.obj_description(c.oid, 'pg_class') AS comment,
	pg_catalog.cardinality($3::text[]) AS wishes,
	size.bytes,
	CASE WHEN size.pages > 0 AND size.tuples >= 0 THEN (size.tuples * size.pages_now / size.pages)::bigint
		ELSE (coalesce(size.pages_now, 0) * 60)::bigint END AS rows_expected
FROM pg_catalog.pg_namespace n
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid
LEFT JOIN LATERAL (
	SELECT i.indexrelid, i.indisprimary
	FROM pg_catalog.pg_index i
	WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
		AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END
) key ON true
CROSS JOIN LATERAL (
	SELECT sum(leaf.relpages) AS pages, sum(leaf.reltuples) AS tuples,
		sum(pg_catalog.pg_relation_size(leaf.oid)) AS bytes,
		(sum(pg_catalog.pg_relation_size(leaf.oid)) / pg_catalog.current_setting('block_size')::int)::bigint AS pages_now
	FROM (
		SELECT c.oid UNION SELECT tree.relid FROM pg_catalog.pg_partition_tree(c.oid) tree
	) member
	JOIN pg_catalog.pg_class leaf ON leaf.oid = member.oid AND leaf.relkind = 'r'
) size
WHERE n.nspname = $1 AND c.relname = $2;
