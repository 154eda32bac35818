/*
 * applier/sql/refresh_session.sql
 *     Settings of the refresh connection.
 *
 * A tick's commit does not wait for the disk (the slot waits instead); a tick may wait for its fence, and the
 * session for work.  Not every version has all of these time-outs.  Statements are kept, but not what the JIT compiler makes of
 * them: it would compile them again in each refresh, for longer than most of them run.
 */
SELECT pg_catalog.set_config('synchronous_commit', 'off', false),
	pg_catalog.set_config('jit', 'off', false),
	pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false),
	pg_catalog.set_config('lock_timeout', $1, false),
	(SELECT count(pg_catalog.set_config(s.name, '0', false)) FROM pg_catalog.pg_settings s
		WHERE s.name IN ('idle_session_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout'));
