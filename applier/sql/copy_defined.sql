/*
 * applier/sql/copy_defined.sql
 *     The table $3 is the copy $1 of the remote's table $2, with these columns: name, number, type and collation there.
 *
 * Its key is the index that copy_shape.c has named.
 */
SELECT pgtrickle.copy_defined($1::bigint, $2, $3::text::pg_catalog.regclass,
	(SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
			'attnum', a.attnum, 'remote_attnum', c.attnum, 'remote_column', c.name, 'remote_type', c.type,
			'remote_type_oid', c.type_oid, 'remote_typmod', c.modifier, 'remote_collation', c.collation_name) ORDER BY a.attnum)
	FROM unnest($4::text[], $5::int[], $6::text[], $7::bigint[], $8::int[], $9::text[])
		c (name, attnum, type, type_oid, modifier, collation_name)
	JOIN pg_catalog.pg_attribute a ON a.attrelid = $3::text::pg_catalog.regclass AND a.attname = c.name AND NOT a.attisdropped),
	(SELECT i.indexrelid FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
	WHERE i.indrelid = $3::text::pg_catalog.regclass AND c.relname = 'pgt_key_' || $1::bigint),
	$10, $11);
