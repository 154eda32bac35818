-- applier/test/pgoutput.sql
--     What applier/test/pgoutput.recorded is a recording of: every message of pgoutput's first version.
--
-- To record again (psql -XAtq, wal_level = logical, an empty database):
--     psql -XAtq -f test/pgoutput.sql > test/pgoutput.recorded
-- and look at what `build/test_pgoutput --print` makes of it before that becomes test/pgoutput.expected.
\set ON_ERROR_STOP on
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE plain (id int PRIMARY KEY, t text, n numeric(10,2), m mood, gone int);
ALTER TABLE plain DROP COLUMN gone;
CREATE TABLE whole (id int, t text);
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE other (id int PRIMARY KEY, by_index int NOT NULL UNIQUE, g int GENERATED ALWAYS AS (id * 2) STORED);
ALTER TABLE other REPLICA IDENTITY USING INDEX other_by_index_key;
CREATE TABLE root (id int, k int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE leaf PARTITION OF root FOR VALUES IN (1);
CREATE TABLE "odd, ""name""" ("a b" int PRIMARY KEY);
CREATE TABLE outside (id int);
CREATE PUBLICATION "odd ""publication""" FOR TABLE plain, whole, other, root, "odd, ""name"""
	WITH (publish_via_partition_root = true);
SELECT pg_create_logical_replication_slot('recorded', 'pgoutput') \gset
SELECT '#', string_agg(c.oid || ' ' || c.relname, ', ' ORDER BY c.oid) FROM pg_class c WHERE relkind IN ('r', 'p') AND oid >= 16384;

INSERT INTO plain VALUES (1, 'one', 1.5, 'sad'), (2, '', NULL, NULL);
INSERT INTO plain SELECT 3, string_agg(md5(i::text), '') FROM generate_series(1, 80) i;
UPDATE plain SET n = 2 WHERE id IN (1, 3);
UPDATE plain SET id = 10 WHERE id = 1;
DELETE FROM plain WHERE id = 2;

INSERT INTO whole VALUES (1, 'x'), (1, NULL);
INSERT INTO whole SELECT 2, string_agg(md5(i::text), '') FROM generate_series(1, 80) i;
UPDATE whole SET id = id + 1;
DELETE FROM whole WHERE id = 2 AND t IS NULL;

INSERT INTO other VALUES (1, 5);
UPDATE other SET by_index = 6;
INSERT INTO root VALUES (1, 1), (2, 1);
INSERT INTO "odd, ""name""" VALUES (7);
INSERT INTO outside VALUES (1);

BEGIN;
INSERT INTO plain VALUES (20, 'kept');
SAVEPOINT s;
INSERT INTO plain VALUES (21, 'rolled back');
ROLLBACK TO s;
ALTER TABLE plain ADD COLUMN late text DEFAULT 'fast';
INSERT INTO plain VALUES (22, 'after');
SELECT pg_logical_emit_message(true, 'pgtrickle', 'ddl 1') \gset
SELECT pg_logical_emit_message(true, 'somebody', 'else') \gset
COMMIT;
SELECT pg_logical_emit_message(false, 'pgtrickle', 'fence') \gset
SELECT pg_logical_emit_message(false, 'somebody', 'else') \gset
SELECT pg_replication_origin_create('elsewhere') \gset
SELECT pg_replication_origin_session_setup('elsewhere') \gset
BEGIN;
SELECT pg_replication_origin_xact_setup('0/1234', '2024-01-01') \gset
INSERT INTO plain VALUES (30, 'from elsewhere');
COMMIT;
SELECT pg_replication_origin_session_reset() \gset
TRUNCATE whole, other, outside;
ANALYZE plain;
INSERT INTO plain VALUES (31, 'the same shape');

SELECT encode(data, 'hex') FROM pg_logical_slot_get_binary_changes('recorded', NULL, NULL, 'proto_version', '1',
	'messages', 'true', 'publication_names', '"odd ""publication"""');
SELECT pg_drop_replication_slot('recorded'), pg_replication_origin_drop('elsewhere') \gset
