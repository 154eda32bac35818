/*
 * applier/sql/remotes.sql
 *     The remotes, as they were persisted last, and whether there is something to define or to copy: then in how many milliseconds
 *     that may be tried (again).
 *
 * Schemas that are copied as a whole are looked at when their list has changed, and from time to time.
 */
SELECT r.remote_id,
	r.remote_name,
	r.conninfo,
	r.output_plugin,
	r.publication,
	coalesce(r.options->>'compression', 'none'),
	r.slot_name,
	r.system_identifier,
	r.timeline,
	r.position,
	r.status,
	(SELECT pg_catalog.min(greatest(0, coalesce(extract(epoch FROM k.retry_at - pg_catalog.clock_timestamp()) * 1000, 0)))::bigint
		FROM pgtrickle.copy_catalog() k
		WHERE k.remote_id = r.remote_id AND k.status IN ('REQUESTED', 'REDEFINE', 'COPYING')),
	(SELECT pg_catalog.string_agg(p.pattern_id::text, ' ' ORDER BY p.pattern_id)
		FROM pgtrickle.copy_pattern_list() p WHERE p.remote_id = r.remote_id),
	r.last_xid,
	r.last_commit_lsn
FROM pgtrickle.remote_catalog() r
ORDER BY r.remote_id;
