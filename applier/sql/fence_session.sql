/*
 * applier/sql/fence_session.sql
 *     Settings of the fence connection.
 *
 * Its commits wait for our own disk, but never for a standby: a writer stalled by synchronous replication
 * must not stall the applier.
 */
SELECT pg_catalog.set_config('synchronous_commit', 'local', false),
	pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false);
