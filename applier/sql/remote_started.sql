/* applier/sql/remote_started.sql: the stream of a remote runs from a position; with a reason: its copies are made anew. */
SELECT pgtrickle.remote_started($1::int, $2::text, $3::int, $4::text, $5::pg_lsn, $6::text);
