/*
 * applier/sql/refresh_session.sql
 *     Settings of the refresh connection.
 *
 * A tick's commit does not wait for the disk (the slot waits instead), and a tick may wait for its fence.
 */
SELECT pg_catalog.set_config('synchronous_commit', 'off', false),
	pg_catalog.set_config('idle_in_transaction_session_timeout', '0', false),
	pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false),
	pg_catalog.set_config('lock_timeout', $1, false);
