/* applier/sql/remote_streams.sql: these relations of a remote are carried by its stream, from a position on. */
SELECT pgtrickle.remote_streams($1::int, $2::oid[], $3::pg_lsn);
