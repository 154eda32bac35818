/* applier/sql/copy_is_known.sql: has the remote $1 a copy of the table $2, which is written as in SQL? */
SELECT count(*) > 0
FROM pgtrickle.copy_catalog() c
JOIN pgtrickle.remote_catalog() r USING (remote_id)
CROSS JOIN pg_catalog.parse_ident($2) p (name)
WHERE r.remote_name = $1
	AND c.remote_schema = CASE WHEN pg_catalog.cardinality(p.name) > 1 THEN p.name[1] ELSE 'public' END
	AND c.remote_table = p.name[pg_catalog.cardinality(p.name)];
