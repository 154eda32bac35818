/* applier/sql/remote_failed.sql: a remote cannot be followed, for now. */
SELECT pgtrickle.remote_failed($1::int, $2::text, $3::text);
