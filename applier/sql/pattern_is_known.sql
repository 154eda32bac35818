/* applier/sql/pattern_is_known.sql: are the tables of schema $2 of the remote $1 copied? */
SELECT count(*) > 0
FROM pgtrickle.copy_pattern_list() p
JOIN pgtrickle.remote_catalog() r USING (remote_id)
WHERE r.remote_name = $1 AND p.remote_schema = $2;
