/* applier/sql/copy_list.sql: the copies of the remote $1, and whether it is time to try again where something failed. */
SELECT c.*, c.retry_at IS NULL OR c.retry_at <= pg_catalog.clock_timestamp() AS is_time
FROM pgtrickle.copy_catalog() c
WHERE c.remote_id = $1
ORDER BY c.copy_id;
