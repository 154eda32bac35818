/* applier/sql/status_copies.sql: the copies of tables of remotes, for "pgtrickle status". */
SELECT c.target_schema || '.' || c.target_table AS copy,
	r.remote_name AS remote,
	c.status,
	CASE WHEN c.status = 'COPYING' AND c.chunks > 0 THEN c.chunks_done || ' of ' || c.chunks || ' parts' ELSE '' END AS progress,
	coalesce(c.status_reason, '') AS note
FROM (
	SELECT c.*,
		(SELECT count(*) FROM pgtrickle.copy_chunk_list(c.copy_id)) AS chunks,
		(SELECT count(*) FROM pgtrickle.copy_chunk_list(c.copy_id) k WHERE k.status = 'DONE') AS chunks_done
	FROM pgtrickle.copy_catalog() c
) c
JOIN pgtrickle.remote_catalog() r USING (remote_id)
ORDER BY 1;
