-- decoder/valgrind.sql
--     What the decoder is put through under valgrind: every callback, encoder and flaw, in little time.
--
-- Prints how many bytes came from each pass; t/01x_decoder_*.pl look at what they say.
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TYPE pair AS (a int, b text);
CREATE TABLE wide (
	id int PRIMARY KEY, i2 int2, i8 int8, f4 float4, f8 float8, b bool, c "char", u uuid, nm name, t text,
	vc varchar(10), bp char(5), by bytea, js json, jb jsonb, n numeric, d date, ts timestamp, tz timestamptz,
	tm time, tt timetz, iv interval, ia int[], m mood, p pair, ps pair[], r int4range, mr int4multirange, acl aclitem,
	inet inet, mac macaddr, bits bit(3), vb varbit, x xml, tsv tsvector, tsq tsquery, pt point, mon money,
	oid oid, xid xid, x8 xid8, lsn pg_lsn);
CREATE TABLE narrow (id int, t text);
CREATE TABLE root (id int, k int) PARTITION BY LIST (k);
CREATE TABLE leaf PARTITION OF root FOR VALUES IN (1);
SELECT 'slots', count(*) FROM (SELECT pg_create_logical_replication_slot(s, 'pgtrickle_decoder')
	FROM unnest(ARRAY['whole', 'small', 'some', 'compressed', 'other']) s) made;

INSERT INTO wide VALUES (1, 2, 3, 4.5, 'NaN', true, 'x', gen_random_uuid(), 'name', 'text', 'varchar', 'bp', '\x00ff',
	'{"a": 1}', '{"b": [1, null]}', 12345.678900, '2024-01-01', now(), now(), '12:34', '12:34+01', '1 day', '{1,NULL,3}',
	'happy', '(1,x)', '{"(1,x)",NULL}', '[1,5)', '{[1,5),[7,8)}', (SELECT (rolname || '=r/' || rolname)::aclitem FROM pg_roles LIMIT 1),
	'10.0.0.1/8', '08:00:2b:01:02:03', '101', '10101', '<a/>', 'a b:2A', 'a & b', '(1,2)', '1.23', 42, '42', '42', '1/2A');
INSERT INTO wide (id) SELECT generate_series(2, 5);
INSERT INTO wide (id, t, by, jb, ia)
	SELECT 6, string_agg(md5(i::text), ''), decode(string_agg(md5(i::text), ''), 'hex'),
		jsonb_build_object('k', string_agg(md5(i::text), '')), array_agg(i)
	FROM generate_series(1, 4000) i;
UPDATE wide SET i2 = 7;
UPDATE wide SET id = id + 10;
ALTER TABLE wide REPLICA IDENTITY FULL;
UPDATE wide SET t = repeat('compressed ', 1000);
ALTER TABLE wide DROP COLUMN js, ADD COLUMN later text DEFAULT 'fast';
DELETE FROM wide;
INSERT INTO root SELECT i, 1 FROM generate_series(1, 100) i;
UPDATE root SET id = -id;
BEGIN;
INSERT INTO narrow SELECT i, repeat('x', i) FROM generate_series(1, 1000) i;
SAVEPOINT s;
DELETE FROM narrow;
ROLLBACK TO s;
SELECT 'message', pg_logical_emit_message(true, 'pgtrickle', 'catalog') IS NOT NULL;
COMMIT;
SELECT 'interest', pg_logical_emit_message(false, 'pgtrickle', 'interest 1 ' || 'narrow'::regclass::oid) IS NOT NULL;
TRUNCATE narrow, root;

INSERT INTO narrow VALUES (1, repeat(chr(233), 3000)), (2, repeat(chr(20013), 3)), (3, 'plain');

-- Hashing reads every byte, so an uninitialised one is noticed.
SELECT 'whole', sum(length(data)), md5(string_agg(data, '')) IS NOT NULL
FROM pg_logical_slot_get_binary_changes('whole', NULL, NULL, 'proto_version', '1', 'interest', '*');
SELECT 'small', sum(length(data)), md5(string_agg(data, '')) IS NOT NULL
FROM pg_logical_slot_get_binary_changes('small', NULL, NULL, 'proto_version', '1', 'interest', '*',
	'batch_bytes', '1', 'value_bytes_max', '50');
SELECT 'some', sum(length(data)), md5(string_agg(data, '')) IS NOT NULL
FROM pg_logical_slot_get_binary_changes('some', NULL, NULL, 'proto_version', '1', 'interest', '1,2,3');
SELECT 'compressed', sum(length(data)), md5(string_agg(data, '')) IS NOT NULL
FROM pg_logical_slot_get_binary_changes('compressed', NULL, NULL, 'proto_version', '1', 'interest', '*', 'compression', 'zstd');
SELECT 'other', sum(length(data)), md5(string_agg(data, '')) IS NOT NULL
FROM pg_logical_slot_get_binary_changes('other', NULL, NULL, 'proto_version', '1', 'interest', '*',
	'text_types', 'user', 'encoding', 'LATIN1');
