/* applier/sql/unhealthy_copies.sql: copies of the remote $1 that stand still, and why. */
SELECT pg_catalog.format('%I.%I', c.target_schema, c.target_table) AS copy, c.status, c.status_reason, c.relid IS NOT NULL AS is_there
FROM pgtrickle.copy_catalog() c
WHERE c.remote_id = $1 AND c.status IN ('ERROR', 'SUSPENDED')
ORDER BY 1;
