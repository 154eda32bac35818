/* applier/sql/remote_list.sql: the remotes, or the one of the name $1; what its options say about copying. */
SELECT r.*, pg_catalog.current_setting('server_encoding') AS encoding,
	r.options ->> 'copy_jobs' AS copy_jobs,
	r.options ->> 'copy_rate_limit' AS copy_rate_limit,
	r.options ->> 'copy_chunk_rows' AS copy_chunk_rows
FROM pgtrickle.remote_catalog() r
WHERE $1::text IS NULL OR r.remote_name = $1
ORDER BY r.remote_id;
