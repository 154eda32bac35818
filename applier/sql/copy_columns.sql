/* applier/sql/copy_columns.sql: the columns of the copy $1 as they were told last, and as they are. */
SELECT k.remote_attnum, k.remote_column, k.remote_type, k.remote_type_oid, k.remote_typmod, k.remote_collation,
	k.column_name AS name, a.attnotnull AS not_null
FROM pgtrickle.copy_column_list($1) k
JOIN pg_catalog.pg_attribute a ON a.attrelid = $2::oid AND a.attnum = k.attnum AND NOT a.attisdropped
ORDER BY k.attnum;
