-- t/modules/storage_test/storage_test.sql
--     The functions of storage_test.c.  :module is the path of the library, without a suffix.
CREATE SCHEMA storage_test;

-- The same C function as pgtrickle.row_hash, which the extension's script creates.
CREATE FUNCTION storage_test.row_hash(record) RETURNS bigint
	LANGUAGE c IMMUTABLE PARALLEL SAFE AS :'module', 'pgtrickle_row_hash';

-- The command may read `net`.
CREATE FUNCTION storage_test.consolidate(query text, command text DEFAULT NULL) RETURNS json
	LANGUAGE c AS :'module', 'storage_test_consolidate';

-- With a command it may read __pgt_delta_<oid of relation>.
CREATE FUNCTION storage_test.apply(relation regclass, index regclass, hidden boolean, query text,
		command text DEFAULT NULL) RETURNS json
	LANGUAGE c AS :'module', 'storage_test_apply';

-- The command may read `changes` and `recompute`.
CREATE FUNCTION storage_test.merge(relation regclass, index regclass, rows_column text, columns text[],
		keep_empty boolean, query text, command text DEFAULT NULL) RETURNS json
	LANGUAGE c AS :'module', 'storage_test_merge';

-- The command may read `changes`.
CREATE FUNCTION storage_test.replace(relation regclass, index regclass, keys_query text, rows_query text,
		command text DEFAULT NULL) RETURNS json
	LANGUAGE c AS :'module', 'storage_test_replace';

-- Stages the batches, `repeat` times over.  The command may read __pgt_delta_<oid of relation>.
CREATE FUNCTION storage_test.stage(relation regclass, columns text[], batches bytea[], repeat integer DEFAULT 1,
		command text DEFAULT NULL) RETURNS json
	LANGUAGE c AS :'module', 'storage_test_stage';
