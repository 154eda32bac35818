/* applier/sql/remote_lost.sql: changes of these tables of a remote could not be kept; they are copied again. */
SELECT pgtrickle.remote_lost($1::int, $2::oid[], $3::text);
