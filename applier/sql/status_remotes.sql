/* applier/sql/status_remotes.sql: the remotes, for "pgtrickle status". */
SELECT r.remote_name AS remote, r.status, r.slot_name AS slot, r."position",
	pg_catalog.to_char(r.position_at, 'YYYY-MM-DD HH24:MI:SS') AS "as of"
FROM pgtrickle.remote_catalog() r
ORDER BY 1;
