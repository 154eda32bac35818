/* applier/sql/tick_remote.sql: a change set is what a remote committed between two positions; $5 is in microseconds since 2000. */
SELECT pgtrickle.tick_remote($1::int, $2::int, $3::pg_lsn, $4::pg_lsn,
	timestamptz '2000-01-01 00:00:00+00' + nullif($5::bigint, 0) * interval '1 microsecond');
