/* applier/sql/failed.sql: the refresh of a stream table failed. */
SELECT pgtrickle.applier_failed($1::bigint, $2, $3, $4::bigint);
