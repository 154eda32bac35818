# t/231_stories_under_load.pl
#
# Goal: each story of the life cycle also holds while writers write and when the applier dies in the middle.
# Method: one list of statements for each; lib/StreamTables/Story.pm runs it, kills, and verifies.  PGTRICKLE_LONG=1 kills at every statement.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster qw(random_seed);
use StreamTables::Story;
use Test::More;

random_seed();
my $node = StreamTables::Cluster->new('stories')->boot;
$node->start_applier;
$node->sql(
	q{CREATE ROLE dev; GRANT CREATE ON SCHEMA public TO dev; CREATE SCHEMA mart AUTHORIZATION dev;
	CREATE TYPE mood AS ENUM ('sad', 'ok');
	CREATE TABLE src (id int PRIMARY KEY, k int, v int, m mood DEFAULT 'ok'); INSERT INTO src SELECT i, i % 7, i, 'ok' FROM generate_series(1, 200) i;
	CREATE TABLE dim (k int PRIMARY KEY, name text); INSERT INTO dim SELECT i, 'd' || i FROM generate_series(0, 6) i;
	CREATE TABLE parts (id int, k int) PARTITION BY LIST (k); CREATE TABLE parts_0 PARTITION OF parts FOR VALUES IN (0);
	CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1); INSERT INTO parts SELECT i, i % 2 FROM generate_series(1, 20) i;
	ALTER TABLE src REPLICA IDENTITY FULL; ALTER TABLE dim REPLICA IDENTITY FULL; ALTER TABLE parts_0 REPLICA IDENTITY FULL; ALTER TABLE parts_1 REPLICA IDENTITY FULL;
	CREATE FUNCTION f(x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN x; END';
	CREATE VIEW staged AS SELECT id, k, f(v) AS v, m FROM src WHERE v IS NOT NULL; GRANT SELECT ON ALL TABLES IN SCHEMA public TO dev;
	SET ROLE dev;
	SELECT pgtrickle.create_stream_table('totals', 'SELECT k, sum(v) AS s, count(*) AS n FROM staged GROUP BY k', 'continuous');
	SELECT pgtrickle.create_stream_table('named', 'SELECT name, sum(s) AS s FROM totals JOIN dim USING (k) GROUP BY name', 'continuous');
	SELECT pgtrickle.create_stream_table('days', 'SELECT k, count(*) AS n FROM parts GROUP BY k', 'continuous')});
my $story = StreamTables::Story->new($node,
	writes => [
		'INSERT INTO src (id, k, v) VALUES (1000 + :n, :n % 7, :n)',
		'UPDATE src SET v = v + 1, k = (k + 1) % 7 WHERE id % 50 = :n % 50',
		'DELETE FROM src WHERE id > 1000 AND id % 13 = :n % 13',
		'INSERT INTO parts VALUES (:n, :n % 2)',
		q{UPDATE dim SET name = 'x' || :n % 4 WHERE k = :n % 7}]);

sub replace
{
	my ($query) = @_;

	return "SET ROLE dev; SELECT pgtrickle.create_or_replace_stream_table('totals', '$query', 'continuous')";
}

my $original = replace('SELECT k, sum(v) AS s, count(*) AS n FROM staged GROUP BY k');
$story->tell(
	'another query',
	replace('SELECT k, max(v)::bigint AS s, count(*) AS n FROM staged WHERE id % 3 > 0 GROUP BY k'),
	'BEGIN; ' . replace('SELECT k, min(v)::bigint AS s, count(*) AS n FROM staged GROUP BY k') . '; ROLLBACK',
	replace('SELECT k, sum(v) AS s, count(*) AS n, min(v) AS m FROM staged GROUP BY k'),
	replace('SELECT count(*) AS n, k, sum(v) AS s FROM staged GROUP BY k'),
	$original);
$story->tell(
	'first fill',
	"SET ROLE dev; SELECT pgtrickle.create_stream_table('more', 'SELECT s.id, s.v, d.name FROM src s LEFT JOIN dim d USING (k)', 'continuous')",
	"BEGIN; SET ROLE dev; SELECT pgtrickle.create_stream_table('less', 'SELECT count(*) AS n FROM src', 'continuous'); ROLLBACK",
	"SET ROLE dev; SELECT pgtrickle.create_stream_table('less', 'SELECT DISTINCT v % 10 AS v FROM src', '1s')",
	"SET ROLE dev; DROP TABLE more; SELECT pgtrickle.drop_stream_table('less')");
$story->tell(
	'sources change',
	'ALTER TABLE src ADD COLUMN extra int DEFAULT 3',
	'BEGIN; DROP VIEW staged; ALTER TABLE src ALTER v TYPE text; ALTER TABLE src ALTER v TYPE int USING v::int; CREATE VIEW staged AS SELECT id, k, f(v) AS v, m FROM src WHERE v IS NOT NULL;
		GRANT SELECT ON staged TO dev; COMMIT',
	'ALTER TABLE src DROP COLUMN extra; ALTER TABLE dim RENAME name TO label; ALTER TABLE dim RENAME label TO name',
	q{CREATE OR REPLACE FUNCTION f(x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN x + 1; END'},
	'CREATE OR REPLACE VIEW staged AS SELECT id, k, f(v) AS v, m FROM src WHERE v IS NOT NULL AND id % 10 <> 3',
	'BEGIN; TRUNCATE src; INSERT INTO src SELECT i, i % 7, i FROM generate_series(1, 150) i; COMMIT',
	'CREATE TABLE dim_new AS SELECT * FROM dim; ALTER TABLE dim RENAME TO dim_old; ALTER TABLE dim_new RENAME TO dim; DROP TABLE dim_old CASCADE; GRANT SELECT ON dim TO dev',
	'ALTER TABLE parts DETACH PARTITION parts_1; DELETE FROM parts_1 WHERE id % 2 = 0; ALTER TABLE parts ATTACH PARTITION parts_1 FOR VALUES IN (1)',
	'DROP TABLE parts_1; CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1)',
	'ALTER TABLE src REPLICA IDENTITY DEFAULT', 'ALTER TABLE src REPLICA IDENTITY FULL',
	'ALTER TABLE src SET UNLOGGED', 'ALTER TABLE src SET LOGGED',
	q{ALTER TYPE mood RENAME VALUE 'sad' TO 'gloomy'; ALTER TYPE mood ADD VALUE 'great'},
	'ALTER SCHEMA mart RENAME TO old_mart; ALTER SCHEMA old_mart RENAME TO mart',
	'ALTER TABLE src ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON src USING (k < 5)', 'DROP POLICY p ON src; ALTER TABLE src DISABLE ROW LEVEL SECURITY');
$story->tell(
	'identity',
	'ALTER TABLE totals RENAME TO elsewhere; ALTER TABLE elsewhere SET SCHEMA mart',
	'ALTER TABLE mart.elsewhere SET SCHEMA public; ALTER TABLE elsewhere RENAME TO totals',
	'CREATE INDEX by_s ON totals (s); COMMENT ON TABLE totals IS $$x$$; GRANT SELECT ON totals TO PUBLIC',
	'VACUUM FULL totals', 'CLUSTER totals USING by_s', 'REINDEX TABLE totals',
	'DROP TABLE named',
	"SET ROLE dev; SELECT pgtrickle.create_stream_table('named', 'SELECT name, sum(s) AS s FROM totals JOIN dim USING (k) GROUP BY name', 'continuous')");
$story->tell(
	'roles',
	'REVOKE SELECT ON dim FROM dev', 'GRANT SELECT ON dim TO dev',
	'CREATE ROLE heir; GRANT SELECT ON ALL TABLES IN SCHEMA public TO heir; GRANT CREATE ON SCHEMA public TO heir; ALTER TABLE days OWNER TO heir',
	'ALTER TABLE days OWNER TO dev',
	sub { $node->sql(q{SELECT pgtrickle.resume_all()}) });
$story->tell(
	'sources without WAL',
	'CREATE MATERIALIZED VIEW kept AS SELECT k, count(*) AS n FROM src GROUP BY k; CREATE UNLOGGED TABLE quiet (id int); GRANT SELECT ON kept, quiet TO dev',
	"SET ROLE dev; SELECT pgtrickle.create_stream_table('over_kept', 'SELECT k, n FROM kept', '1s'), pgtrickle.create_stream_table('over_quiet', 'SELECT count(*) AS n FROM quiet', '1s'),
		pgtrickle.create_stream_table('upper', 'SELECT sum(n) AS n FROM over_kept', 'continuous')",
	'REFRESH MATERIALIZED VIEW kept; INSERT INTO quiet VALUES (1), (2)',
	"SET ROLE dev; SELECT pgtrickle.drop_stream_table('over_kept', true), pgtrickle.drop_stream_table('over_quiet')");
$story->tell(
	'operations',
	q{SELECT pgtrickle.gate_source('src')}, q{INSERT INTO src SELECT i, 1, 1 FROM generate_series(900001, 901000) i}, q{SELECT pgtrickle.ungate_source('src')},
	q{SELECT pgtrickle.pause_all()}, q{DELETE FROM src WHERE id > 900000}, q{SELECT pgtrickle.resume_all()},
	q{SET ROLE dev; SELECT pgtrickle.snapshot_stream_table('totals', 'snap'); SELECT pgtrickle.restore_from_snapshot('totals', 'snap')},
	q{SET ROLE dev; SELECT pgtrickle.resume_stream_table('totals'), pgtrickle.drop_snapshot('snap')},
	q{SET ROLE dev; SELECT pgtrickle.create_refresh_group('all of it', '{totals,days}')},
	q{SET ROLE dev; SELECT pgtrickle.repair_stream_table('totals'); SELECT pgtrickle.drop_refresh_group('all of it')});

# --- a copy made meanwhile ------------------------------------------------------------------------------------

my $copy = StreamTables::Cluster->new('copy');
$story->tell('backup', sub { $node->backup('base') });
$copy->init_from_backup($node, 'base');
$copy->start;
$copy->run_program('setup');
$copy->start_applier;
is(StreamTables::Story->new($copy)->wrong_ones(well => 1), '', 'a backup that was taken meanwhile is right, too');
$copy->teardown_node;

is($node->sql(q{SELECT count(*) FROM pg_replication_slots WHERE wal_status IN ('lost', 'unreserved')}), 0, 'the slot is well');
is( $node->sql(
		q{SELECT count(*) FROM pg_class c WHERE (relname LIKE '\_\_pgt%' OR relname ~ '^pgt_state_[0-9]+_[0-9]+$')
	AND NOT EXISTS (SELECT FROM pgtrickle.pgt_state_tables s WHERE s.relid = c.oid)}), 0, 'nothing is left over');

done_testing();
