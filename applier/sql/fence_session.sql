/*
 * applier/sql/fence_session.sql
 *     Settings of the fence connection.
 *
 * Its commits wait for our own disk, but never for a standby: a writer stalled by synchronous replication
 * must not stall the applier.
 */
SELECT pg_catalog.set_config('synchronous_commit', 'local', false),
	pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false),
	(SELECT count(pg_catalog.set_config(s.name, '0', false)) FROM pg_catalog.pg_settings s
		WHERE s.name = 'idle_session_timeout');
