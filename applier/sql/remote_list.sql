/* applier/sql/remote_list.sql: the remotes, or the one of the name $1. */
SELECT r.*, pg_catalog.current_setting('server_encoding') AS encoding,
	(SELECT count(*) > 0 FROM pgtrickle.copy_catalog() c WHERE c.remote_id = r.remote_id AND c.status IN ('REQUESTED', 'REDEFINE', 'COPYING')) AS has_work
FROM pgtrickle.remote_catalog() r
WHERE $1::text IS NULL OR r.remote_name = $1
ORDER BY r.remote_id;
