/*
 * applier/sql/copy_columns.sql
 *     The columns of the copy $1, whose table is $2, as they were told last, and as they are.
 *
 * `is_binary`: the type's binary form is the same on all servers and holds no number that only one of them knows.
 */
SELECT k.remote_attnum, k.remote_column, k.remote_type, k.remote_type_oid, k.remote_typmod, k.remote_collation,
	k.column_name AS name, a.attnotnull AS not_null,
	a.atttypid = k.remote_type_oid AND a.atttypid IN (
		'boolean'::regtype, 'bytea'::regtype, 'smallint'::regtype, 'integer'::regtype, 'bigint'::regtype, 'real'::regtype, 'double precision'::regtype,
		'numeric'::regtype, 'text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'json'::regtype, 'jsonb'::regtype, 'uuid'::regtype,
		'date'::regtype, 'time'::regtype, 'timetz'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype, 'interval'::regtype,
		'inet'::regtype, 'cidr'::regtype, 'macaddr'::regtype) AS is_binary
FROM pgtrickle.copy_column_list($1) k
JOIN pg_catalog.pg_attribute a ON a.attrelid = $2::oid AND a.attnum = k.attnum AND NOT a.attisdropped
ORDER BY k.attnum;
