# t/021_storage_merge.pl
#
# Goal: a state table that takes in group deltas, and gets the groups recomputed that it asks for, equals the
# grouping query after every step, and what it says about its changes adds up.
# Method: random changes of a table of rows; the group delta is computed from them without cancelling anything; then a comparison
# with the query. Keys with NULLs and with equal but different values, groups that vanish and come back, extrema that go
# and come in the same delta; also without any key. The same for replacing keys with several rows each.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster qw(random_seed pick);
use StreamTables::Storage qw(install_storage_test differing_rows);
use Test::More;

my $node = StreamTables::Cluster->new('storage_merge')->boot(setup => 'none');
install_storage_test($node);
random_seed();
my $rounds = $ENV{PGTRICKLE_LONG} ? 300 : 40;

$node->sql(
	q{
	CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
	CREATE TABLE rows (id serial PRIMARY KEY, k1 integer, k2 text COLLATE caseless, v integer, n numeric);
	CREATE TABLE delta (LIKE rows, w integer);
	CREATE TABLE changes_log (k1 integer, k2 text, rows bigint, total numeric, lo integer, hi integer, w integer);
	CREATE TABLE wanted (k1 integer, k2 text COLLATE caseless)});

# One step: random changes of rows in a transaction with the merge.  The delta may hold rows that came and went.
my $change_rows = q{
	TRUNCATE delta, wanted, changes_log;
	WITH gone AS (DELETE FROM rows WHERE id IN (SELECT id FROM rows ORDER BY random() LIMIT %d) RETURNING *)
	INSERT INTO delta SELECT *, -1 FROM gone;
	WITH came AS (INSERT INTO rows (k1, k2, v, n)
			SELECT CASE WHEN random() < 0.8 THEN (random() * %d)::integer END, (ARRAY['a', 'A', 'b', NULL])[1 + (random() * 3)::integer],
				CASE WHEN random() < 0.9 THEN (random() * 10)::integer END, CASE WHEN random() < 0.9 THEN (random() * 100)::numeric(10, 2) END
			FROM generate_series(1, %d) RETURNING *)
	INSERT INTO delta SELECT *, 1 FROM came;
	-- transient rows: they came and went
	WITH transient AS MATERIALIZED (SELECT * FROM delta WHERE random() < 0.2)
	INSERT INTO delta SELECT id, k1, k2, v - 1, n, s FROM transient, (VALUES (1), (-1)) x(s);
};

sub merge_call
{
	my ($state, $index, $keys, $keep_empty) = @_;

	my $key_list = join '', map { "$_, " } @$keys;
	my $group = @$keys ? 'GROUP BY ' . join(', ', @$keys) : '';
	return <<"SQL";
DO \$do\$ BEGIN PERFORM storage_test.merge('$state', $index, 'rows',
	'{"total function total numeric_add(numeric,numeric)", "lo min came_lo gone_lo btint4cmp(integer,integer)",
		"hi max came_hi gone_hi btint4cmp(integer,integer)"}', $keep_empty,
	\$q\$SELECT ${key_list}sum(w)::bigint AS rows, sum(w * coalesce(n, 0)) AS total,
			min(v) FILTER (WHERE w > 0) AS came_lo, min(v) FILTER (WHERE w < 0) AS gone_lo,
			max(v) FILTER (WHERE w > 0) AS came_hi, max(v) FILTER (WHERE w < 0) AS gone_hi, 1 AS __w
		FROM delta $group\$q\$,
	\$q\$WITH w AS (INSERT INTO wanted SELECT @{[ join ', ', @$keys, map { 'NULL' } @$keys .. 1 ]} FROM recompute)
		INSERT INTO changes_log SELECT @{[ @$keys ? '' : 'NULL::integer, NULL::text,' ]} * FROM changes\$q\$); END \$do\$;
SQL
}

my $aggregates =
  'count(*) AS rows, coalesce(sum(coalesce(n, 0)), 0) AS total, min(v) AS lo, max(v) AS hi';

# --- with keys ---------------------------------------------------------------------------------------

$node->sql(
	q{CREATE TABLE state (gone integer, k1 integer, k2 text COLLATE caseless, rows bigint, total numeric, lo integer, hi integer);
	ALTER TABLE state DROP COLUMN gone;
	CREATE UNIQUE INDEX state_key ON state (k1, k2) NULLS NOT DISTINCT;
	CREATE TABLE before (LIKE state)});

my $query =
  "SELECT k1, k2, rows, trim_scale(total), lo, hi FROM (SELECT k1, lower(k2 COLLATE \"C\") AS k2, $aggregates FROM rows GROUP BY k1, lower(k2 COLLATE \"C\")) a";
my $have = q{SELECT k1, lower(k2 COLLATE "C") AS k2, rows, trim_scale(total), lo, hi FROM state};
my $different = '';
my $recomputed = 0;
my $unlogged = '';
for my $round (1 .. $rounds)
{
	my $size = pick(1, 1, 2, 5, 20, 700);
	my $memory = pick('64kB', '4MB');
	my $script =
		"SET work_mem = '$memory'; TRUNCATE before; INSERT INTO before SELECT * FROM state;"
	  . sprintf($change_rows, int rand($size + 1), pick(1, 3, 300), int rand($size + 1))
	  . merge_call('state', q{'state_key'}, [ 'k1', 'k2' ], 'false')
	  . <<'SQL';
DO $do$ BEGIN PERFORM storage_test.replace('state', 'state_key', 'SELECT k1, k2, 1 FROM wanted',
	$q$SELECT k1, k2, count(*), sum(coalesce(n, 0)), min(v), max(v), 1 FROM rows
		JOIN (SELECT k1 AS w1, k2 AS w2 FROM wanted) w ON k1 IS NOT DISTINCT FROM w1 AND k2 IS NOT DISTINCT FROM w2
		GROUP BY k1, k2$q$,
	'INSERT INTO changes_log SELECT * FROM changes'); END $do$;
SQL
	$different = differing_rows($node, $have, $query, $script);
	last if $different ne '';
	$recomputed += $node->sql('SELECT count(*) FROM wanted');
	# Keys that are equal may be shown differently from one version to the next.
	$unlogged = $node->sql(
		q{SELECT r, sum(w) FROM (
			SELECT ROW(k1, k2, rows, total, lo, hi)::text COLLATE "C" AS r, 1 AS w FROM before
			UNION ALL SELECT ROW(k1, k2, rows, total, lo, hi)::text, w FROM changes_log
			UNION ALL SELECT ROW(k1, k2, rows, total, lo, hi)::text, -1 FROM state) x
		GROUP BY r HAVING sum(w) <> 0});
	last if $unlogged ne '';
}
is($different, '', 'the state follows');
is($unlogged, '', 'its changes add up');
cmp_ok($recomputed, '>', 0, 'some groups had to be recomputed');

# --- without keys ------------------------------------------------------------------------------------

$node->sql(
	q{TRUNCATE rows;
	CREATE TABLE single (rows bigint, total numeric, lo integer, hi integer);
	INSERT INTO single VALUES (0, 0, NULL, NULL)});
for my $round (1 .. $rounds)
{
	my $script =
		sprintf($change_rows, int rand 4, 1, int rand 3)
	  . merge_call('single', 'NULL', [], 'true')
	  . q{UPDATE single SET lo = (SELECT min(v) FROM rows), hi = (SELECT max(v) FROM rows), rows = (SELECT count(*) FROM rows),
			total = (SELECT coalesce(sum(n), 0) FROM rows)
		WHERE EXISTS (SELECT FROM wanted);};
	$different = differing_rows(
		$node,
		'SELECT rows, trim_scale(total), lo, hi FROM single',
		"SELECT rows, trim_scale(total), lo, hi FROM (SELECT $aggregates FROM rows) a", $script);
	last if $different ne '';
}
is($different, '', 'the one row of an aggregate without GROUP BY follows');

# --- several rows per key ----------------------------------------------------------------------------

$node->sql(
	q{TRUNCATE rows;
	CREATE TABLE numbered (k2 text COLLATE caseless, k1 integer, id integer, place bigint, big text);
	CREATE INDEX numbered_key ON numbered (k1 DESC NULLS LAST, k2);
	CREATE TABLE numbered_log (LIKE numbered, w integer);
	CREATE TABLE numbered_before (LIKE numbered);
	CREATE FUNCTION big(n integer) RETURNS text LANGUAGE sql IMMUTABLE AS
		$$SELECT string_agg(md5((g * n)::text), '') FROM generate_series(1, 100) g$$});
my $numbered =
  q{SELECT k2, k1, id, rank() OVER (PARTITION BY k1, k2 ORDER BY v), CASE WHEN v = 3 THEN big(k1) END FROM rows};
for my $round (1 .. $rounds)
{
	my $size = pick(1, 2, 5, 60);
	my $memory = pick('64kB', '4MB');
	my $script =
		"SET work_mem = '$memory';"
	  . sprintf($change_rows, int rand($size + 1), pick(1, 3, 8), int rand($size + 1))
	  . <<"SQL";
TRUNCATE numbered_log, numbered_before;
INSERT INTO numbered_before SELECT * FROM numbered;
DO \$do\$ BEGIN PERFORM storage_test.replace('numbered', 'numbered_key', 'SELECT k1, k2, 1 FROM delta',
	\$q\$SELECT q.*, 1 FROM ($numbered) q
		WHERE EXISTS (SELECT FROM delta d WHERE d.k1 IS NOT DISTINCT FROM q.k1 AND d.k2 IS NOT DISTINCT FROM q.k2)\$q\$,
	'INSERT INTO numbered_log SELECT * FROM changes'); END \$do\$;
SQL
	$different = differing_rows($node, 'SELECT * FROM numbered', $numbered, $script);
	last if $different ne '';
	$unlogged = $node->sql(
		q{SELECT r, sum(w) FROM (
			SELECT b::text COLLATE "C" AS r, 1 AS w FROM numbered_before b
			UNION ALL SELECT ROW(k2, k1, id, place, big)::text, w FROM numbered_log
			UNION ALL SELECT n::text, -1 FROM numbered n) x
		GROUP BY r HAVING sum(w) <> 0});
	last if $unlogged ne '';
}
is($different, '', 'replaced keys have the recomputed rows');
is($unlogged, '', 'and the changes add up');

is( $node->sql(
		q{SELECT count(*) FROM (SELECT r FROM (SELECT ROW(k2, k1, id, place, big)::text AS r, w FROM numbered_log) x
			GROUP BY r HAVING min(w) < 0 AND max(w) > 0) y}),
	'0',
	'no row both comes and goes');

# --- errors ------------------------------------------------------------------------------------------

$node->sql(q{TRUNCATE state; INSERT INTO state VALUES (1, 'a', 2, 3, 1, 2)});
is( $node->psql_error(
		q{SELECT storage_test.merge('state', 'state_key', 'rows', '{}', false, $$SELECT 1, 'A'::text, -3::bigint, 1$$)}
	),
	qq{XX001: multiplicity of a row in stream table "merged" would become -1\nDETAIL:  Key (k1, k2)=(1, A).},
	'a group with too few rows');
is( $node->psql_error(
		q{SELECT storage_test.merge('state', 'state_key', 'rows', '{}', false, $$SELECT NULL::integer, 'A'::text, -1::bigint, 1$$)}
	),
	qq{XX001: multiplicity of a row in stream table "merged" would become -1\nDETAIL:  Key (k1, k2)=(null, A).},
	'a group that does not exist');
like(
	$node->psql_error(
		q{SELECT storage_test.replace('state', 'state_key', $$SELECT 1, 'a'::text, 1$$, $$SELECT 2, 'a'::text, 1::bigint, 1::numeric, 1, 1, 1$$)}
	),
	qr/has a row whose key is not to be replaced/,
	'a recomputed row of another key');

done_testing();
