/*
 * applier/sql/sources_without_identity.sql
 *     Sources whose updates and deletes do not carry the old row; partitions stand for their parents.
 */
SELECT DISTINCT leaf.oid::pg_catalog.regclass::text AS source
FROM pgtrickle.applier_catalog() c
CROSS JOIN LATERAL pg_catalog.unnest(c.source_relids) source (relid)
CROSS JOIN LATERAL (
	SELECT source.relid AS oid
	UNION
	SELECT tree.relid FROM pg_catalog.pg_partition_tree(source.relid::pg_catalog.regclass) tree
) member
JOIN pg_catalog.pg_class leaf ON leaf.oid = member.oid
WHERE leaf.relkind = 'r' AND leaf.relreplident <> 'f'
	AND leaf.oid NOT IN (SELECT relid FROM pgtrickle.applier_catalog())
ORDER BY 1;
