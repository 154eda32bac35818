# t/100_operators.pl
#
# Goal: every operator that has a delta rule is right over many ticks, and when several of its inputs change at once.
# Method: stream tables that show one operator each, over the same tables; then a sequence of steps, each made of changes
#         known to be hard (both partners of a join, groups that empty and revive, extrema that go, NULL keys, duplicates
#         without a key), once as one transaction and once as one transaction for each statement.  After every step all
#         are compared with their queries, from outside and by verify().
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('operators')->boot;
$node->start_applier;

my @STORIES = (
	hidden_filter => q{SELECT name FROM l WHERE k > 1},
	join_two => q{SELECT l.id, r.id AS r_id, l.name, r.label FROM l JOIN r ON r.k = l.k},
	join_bag => q{SELECT l.name, r.label FROM l JOIN r USING (k)},
	join_three => q{SELECT l.id, r.id AS r_id, m.v FROM l JOIN r ON r.k = l.k JOIN m ON m.k = r.k},
	join_four => q{SELECT a.id, b.id AS b_id, m.v, r.label
		FROM l a JOIN l b ON a.k = b.k AND a.id < b.id JOIN r ON r.k = a.k JOIN m ON m.k = b.k},
	join_self => q{SELECT a.id, b.id AS b_id FROM l a JOIN l b ON a.k = b.k},
	join_unequal => q{SELECT l.id, r.id AS r_id FROM l JOIN r ON l.k < r.k},
	join_distinct_from => q{SELECT l.id, r.id AS r_id FROM l JOIN r ON l.k IS NOT DISTINCT FROM r.k},
	revenue => q{SELECT r.label, sum(l.n * m.v) AS revenue, avg(l.n) AS mean
		FROM l JOIN r ON r.k = l.k JOIN m ON m.k = l.k GROUP BY r.label},
	scalar => q{SELECT count(*) AS c, sum(n) AS s, avg(n) AS a, min(n) AS lo, max(n) AS hi FROM l},
	scalar_filtered => q{SELECT count(n) AS c, sum(n) AS s FROM l WHERE k = 3},
	means => q{SELECT k, avg(n) AS a, avg(id) AS i, avg(n) FILTER (WHERE name = 'x') AS f FROM l GROUP BY k},
	extrema => q{SELECT k, min(n) AS lo, max(n) AS hi, max(name) AS name FROM l GROUP BY k},
	thresholds => q{SELECT k, count(*) AS c, sum(n) AS s FROM l GROUP BY k HAVING count(*) > 2},
	having_sum => q{SELECT name, max(n) AS hi FROM l GROUP BY name HAVING sum(n) > 10},
	cases => q{SELECT r.label, sum(CASE WHEN l.name = 'x' THEN 1 ELSE 0 END) AS x,
		100 * sum(l.n) / CASE WHEN sum(l.k) = 0 THEN 1 ELSE sum(l.k) END AS share
		FROM l JOIN r ON r.k = l.k GROUP BY r.label},
	null_keys => q{SELECT k, name, count(*) AS c FROM l GROUP BY k, name},
	hidden_keys => q{SELECT count(*) AS c FROM l GROUP BY k},
	distinct_rows => q{SELECT DISTINCT k, name FROM l},
	distinct_join => q{SELECT DISTINCT l.k, r.label FROM l JOIN r ON r.k = l.k},
	union_all => q{SELECT k, name FROM l UNION ALL SELECT k, label FROM r UNION ALL SELECT k, label FROM r},
	union_distinct => q{SELECT k, name FROM l UNION SELECT k, label FROM r},
	copies => q{SELECT k, v FROM m},
	copies_counted => q{SELECT k, v, count(*) AS c FROM m GROUP BY k, v},
	affected_keys => q{SELECT k, count(DISTINCT name) AS names, string_agg(name, ',' ORDER BY id) AS list,
		array_agg(id ORDER BY id) AS ids FROM l GROUP BY k},
	affected_join => q{SELECT r.label, array_agg(l.id ORDER BY l.id, r.id) AS ids FROM l JOIN r ON r.k = l.k GROUP BY r.label},
	two_levels => q{SELECT c, count(*) AS groups, sum(s) AS s FROM (SELECT k, count(*) AS c, sum(n) AS s FROM l GROUP BY k) g GROUP BY c},
	over_group => q{SELECT r.id, g.c, g.hi FROM r JOIN (SELECT k, count(*) AS c, max(n) AS hi FROM l GROUP BY k) g ON g.k = r.k},
	with_twice => q{WITH g AS (SELECT k, sum(v) AS s FROM m GROUP BY k) SELECT a.k, b.k AS b_k, a.s + b.s AS s FROM g a JOIN g b ON a.k = b.s},
	through_view => q{SELECT v.label, count(*) AS c FROM pairs v GROUP BY v.label},
	composite => q{SELECT p.a, p.b, r.label FROM p JOIN r ON r.k = p.b},
	nullable_unique => q{SELECT u.code, r.label FROM u JOIN r ON r.id = u.k},
	# over the ones above: a chain, a diamond and a join of two stream tables
	level_two => q{SELECT label, count(*) AS c FROM join_two GROUP BY label},
	diamond => q{SELECT e.k, e.hi, h.c, e.hi = h.s AS same FROM extrema e JOIN thresholds h ON h.k = e.k},
	diamond_distinct => q{SELECT DISTINCT d.k, u.k AS u_k FROM distinct_rows d JOIN union_distinct u ON u.name = d.name},
	with_table => q{SELECT c.k, c.c, m.v FROM copies_counted c JOIN m ON m.k = c.k});

my @STEPS = (
	'both partners of a join come' => q{
		INSERT INTO l VALUES (101, 7, 'x', 5);
		INSERT INTO r VALUES (101, 7, 'new');
		INSERT INTO m VALUES (7, 3), (7, 3)},
	'the key of one side changes and its old partner goes' => q{
		UPDATE l SET k = 2 WHERE k = 7;
		DELETE FROM r WHERE k = 7},
	'all keys of one side change, the partners of three inputs go' => q{
		UPDATE l SET k = k % 4 + 1;
		DELETE FROM r WHERE id % 3 = 0;
		DELETE FROM m WHERE k = 2},
	'both sides change in place' => q{
		UPDATE l SET n = n + 1 WHERE id % 2 = 0;
		UPDATE r SET label = label || '!' WHERE id % 2 = 1;
		UPDATE m SET v = v + 1 WHERE k = 3},
	'keys become NULL' => q{
		UPDATE l SET k = NULL WHERE id % 5 = 0;
		UPDATE r SET k = NULL WHERE id = 4;
		UPDATE m SET v = NULL WHERE k = 1},
	'keys become values again' => q{
		UPDATE l SET k = 3 WHERE k IS NULL AND id % 2 = 0;
		UPDATE r SET k = 3 WHERE k IS NULL},
	'values become NULL' => q{
		UPDATE l SET n = NULL WHERE k = 3;
		UPDATE l SET name = NULL WHERE id % 7 = 0},
	'the extremum goes and a new one comes' => q{
		DELETE FROM l WHERE n = (SELECT max(n) FROM l);
		INSERT INTO l VALUES (102, 1, 'zz', 999);
		DELETE FROM l WHERE n = (SELECT min(n) FROM l);
		INSERT INTO l VALUES (103, 1, 'a', -999)},
	'the extremum goes' => q{
		DELETE FROM l WHERE id IN (102, 103)},
	'groups empty and revive' => q{
		DELETE FROM l WHERE k = 1;
		INSERT INTO l VALUES (104, 1, 'revived', 2.50);
		DELETE FROM m WHERE k = 3;
		INSERT INTO m VALUES (3, 8)},
	'groups cross the threshold of HAVING upwards' => q{
		INSERT INTO l VALUES (105, 1, 'x', 4), (106, 1, 'x', 30)},
	'and downwards' => q{
		DELETE FROM l WHERE id = 105;
		UPDATE l SET n = -n WHERE id = 106},
	'one of three equal rows goes' => q{
		INSERT INTO m VALUES (9, 9), (9, 9), (9, 9);
		DELETE FROM m WHERE ctid = (SELECT min(ctid) FROM m WHERE k = 9)},
	'an equal row moves to another key and a third one comes' => q{
		UPDATE m SET k = 1 WHERE ctid = (SELECT min(ctid) FROM m WHERE k = 9);
		INSERT INTO m VALUES (9, 9), (NULL, NULL), (NULL, NULL)},
	'equal rows with NULLs go one by one' => q{
		DELETE FROM m WHERE ctid = (SELECT min(ctid) FROM m WHERE v IS NULL AND k IS NULL)},
	'primary keys change, also into each other' => q{
		UPDATE l SET id = id + 1000 WHERE id % 3 = 0;
		UPDATE p SET a = -a, b = b + 1;
		UPDATE u SET code = NULL WHERE code = 'b';
		UPDATE r SET id = id + 500},
	'the same row comes, changes and goes' => q{
		INSERT INTO l VALUES (107, 2, 'brief', 1);
		UPDATE l SET k = 3, n = 2 WHERE id = 107;
		DELETE FROM l WHERE id = 107;
		INSERT INTO l VALUES (107, 4, 'back', 3)},
	'a savepoint is rolled back' => q{
		SAVEPOINT s; DELETE FROM l; DELETE FROM r; ROLLBACK TO s;
		DELETE FROM l WHERE id = 107},
	'one source empties' => q{
		DELETE FROM l},
	'and fills again while others change' => q{
		INSERT INTO l SELECT i, nullif(i % 5, 0), 'n' || i % 3, i * 1.50 FROM generate_series(1, 25) i;
		UPDATE r SET k = k % 3 + 1;
		INSERT INTO m SELECT i % 3 + 1, i FROM generate_series(1, 4) i},
	'all sources empty' => q{
		DELETE FROM l; DELETE FROM r; DELETE FROM m; DELETE FROM p; DELETE FROM u},
	'all sources come back' => q{
		INSERT INTO l VALUES (1, 1, 'x', 1), (2, 2, 'x', 2.00), (3, NULL, 'y', NULL);
		INSERT INTO r VALUES (1, 1, 'one'), (2, 2, 'two'), (3, NULL, 'none');
		INSERT INTO m VALUES (1, 1), (1, 1), (2, 2), (NULL, NULL)});

sub create_sources
{
	$node->sql(q{
		DROP TABLE IF EXISTS l, r, m, p, u CASCADE;
		CREATE TABLE l (id int PRIMARY KEY, k int, name text, n numeric);
		CREATE TABLE r (id int PRIMARY KEY, k int, label text);
		CREATE TABLE m (k int, v bigint);
		CREATE TABLE p (a int, b int, PRIMARY KEY (a, b));
		CREATE TABLE u (code text UNIQUE, k int);
		CREATE VIEW pairs AS SELECT r.label, m.v FROM r JOIN m ON m.k = r.k WHERE m.v > 0;
		INSERT INTO l SELECT i, nullif(i % 5, 0), chr(118 + i % 4), i * 1.5 FROM generate_series(1, 30) i;
		INSERT INTO r SELECT i, nullif(i % 4, 0), 'label ' || i % 3 FROM generate_series(1, 9) i;
		INSERT INTO m SELECT i % 4 + 1, i % 2 FROM generate_series(1, 10) i;
		INSERT INTO p SELECT i, i % 3 FROM generate_series(1, 6) i;
		INSERT INTO u VALUES ('a', 1), ('b', 2), (NULL, 1), (NULL, 2)});
	return;
}

my %query_of = @STORIES;
my @names = map { $STORIES[ 2 * $_ ] } 0 .. $#STORIES / 2;

# A query for the rows, as text, in which a stream table and its query differ.
sub differences
{
	my ($name) = @_;

	my ($have, $want) = ("SELECT * FROM $name", $query_of{$name});
	return "(SELECT '$name', 'surplus', d::text FROM (($have) EXCEPT ALL ($want)) d LIMIT 5)
		UNION ALL (SELECT '$name', 'missing', d::text FROM (($want) EXCEPT ALL ($have)) d LIMIT 5)";
}

foreach my $as_one (1, 0)
{
	create_sources();
	for (my $i = 0; $i < @STORIES; $i += 2)
	{
		$node->create_stream_table($STORIES[$i], $STORIES[ $i + 1 ], refresh_mode => 'DIFFERENTIAL');
	}

	for (my $i = 0; $i < @STEPS; $i += 2)
	{
		my ($what, $changes) = @STEPS[ $i, $i + 1 ];
		my $one = $as_one || $changes =~ /SAVEPOINT/;

		# psql sends the statements of a file one by one
		$node->sql($one ? "BEGIN; $changes; COMMIT" : $changes);
		# in one session each: a psql for every stream table would take most of the time
		$node->sql(join ';', map { "SELECT pgtrickle.wait_fresh('$_', '60s')" } @names);
		my $different = $node->sql(join ' UNION ALL ', map { differences($_) } @names);
		is($different, '', "$what, " . ($one ? 'in one transaction' : 'one by one'));
	}
	$node->verify($_) foreach @names;
	$node->assert_no_fallback($_) foreach @names;
	$node->drop_stream_table($_) foreach reverse @names;
}

$node->stop_applier;
done_testing();
