/* applier/sql/remote_heartbeat.sql: nothing that concerns a copy was committed up to a position; $3 is in microseconds since 2000. */
SELECT pgtrickle.remote_heartbeat($1::int, $2::pg_lsn,
	timestamptz '2000-01-01 00:00:00+00' + nullif($3::bigint, 0) * interval '1 microsecond');
