# t/142_limit_distinct_on.pl
#
# Goal: DISTINCT ON, and ORDER BY ... LIMIT, OFFSET and FETCH FIRST ... WITH TIES are maintained by delta.
# Method: stream tables with each of them, alone, together, over groups, windows, unions and joins, and below other levels; over small
#         tables with NULLs, duplicates and ties; rounds of random changes at the edges: rows enter and leave the first ones, a
#         value's first row goes, everything goes and comes back.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster qw(random_seed pick);
use StreamTables::Rounds qw(run_rounds);
use Test::More;

random_seed();
my $node = StreamTables::Cluster->new('first_rows')->boot;
$node->start_applier;
$node->sql(q{
	CREATE TABLE m (id int PRIMARY KEY, k int, g text, n numeric(8,2));
	CREATE TABLE bag (k int, v int, t text);
	CREATE TABLE docs (k int, j json);
	CREATE TABLE numbers (n numeric, f float8);
	CREATE TABLE big (id int PRIMARY KEY, v int);
	CREATE TABLE copies (v int, t text);
	INSERT INTO big SELECT i, i * 37 % 101 FROM generate_series(1, 150) i;
	INSERT INTO copies SELECT i / 20, 'c' FROM generate_series(1, 100) i;
	CREATE VIEW lowest AS SELECT g FROM m ORDER BY n LIMIT 6;
	INSERT INTO docs SELECT i % 2, json_build_object('i', i % 3) FROM generate_series(1, 8) i;
	INSERT INTO numbers VALUES (1, 0), (1.0, '-0'), (1.00, 'NaN'), (NULL, 1), ('NaN', NULL);
	INSERT INTO m SELECT i, nullif(i % 4, 0), nullif('g' || i % 3, 'g0'), nullif(i % 5, 0) * 1.5 FROM generate_series(1, 24) i;
	INSERT INTO bag SELECT nullif(i % 4, 0), nullif(i % 3, 0), 't' || i % 2 FROM generate_series(1, 16) i});

my @stories = (
	# LIMIT
	top => q{SELECT id, k, n FROM m ORDER BY n DESC NULLS LAST, id LIMIT 5},
	top_hidden => q{SELECT g FROM m ORDER BY n, id LIMIT 7},
	top_one => q{SELECT * FROM m ORDER BY id DESC LIMIT 1},
	skipped => q{SELECT id, n FROM m ORDER BY n NULLS FIRST, id OFFSET 3},
	page => q{SELECT id, n FROM m ORDER BY id FETCH FIRST 4 ROWS ONLY OFFSET 4},
	none => q{SELECT id FROM m ORDER BY id LIMIT 0},
	all_rows => q{SELECT id FROM m ORDER BY id LIMIT ALL},
	computed => q{SELECT id FROM m ORDER BY id LIMIT 2 + 3},
	with_ties => q{SELECT id, k FROM m ORDER BY k FETCH FIRST 3 ROWS WITH TIES},
	with_ties_bag => q{SELECT v, t FROM bag ORDER BY v DESC NULLS LAST FETCH FIRST 2 ROWS WITH TIES},
	top_groups => q{SELECT k, count(*) AS c FROM m GROUP BY k ORDER BY count(*) DESC, k LIMIT 2},
	top_groups_hidden => q{SELECT k FROM m GROUP BY k HAVING count(*) > 1 ORDER BY sum(n) DESC NULLS LAST, k LIMIT 2},
	top_join => q{SELECT m.id, b.v, b.t FROM m JOIN bag b ON b.k = m.k ORDER BY m.id, b.v, b.t LIMIT 6},
	top_union => q{SELECT k, g AS t FROM m UNION ALL SELECT k, t FROM bag ORDER BY k DESC, t LIMIT 6},
	top_distinct => q{SELECT DISTINCT k, g FROM m ORDER BY k, g LIMIT 4},
	top_windows => q{SELECT id, rank() OVER (PARTITION BY k ORDER BY n) AS r FROM m ORDER BY 2 DESC, 1 LIMIT 4},
	grouped_top => q{SELECT k, count(*) AS c FROM (SELECT id, k FROM m ORDER BY n, id LIMIT 10) t GROUP BY k},
	joined_top => q{SELECT t.id, b.t FROM (SELECT id, k FROM m ORDER BY id DESC LIMIT 5) t JOIN bag b ON b.k = t.k},
	top_of_top => q{SELECT id FROM (SELECT id, n FROM m ORDER BY id LIMIT 10) t ORDER BY n DESC NULLS LAST, id LIMIT 3},
	branch_tops => q{(SELECT id, n FROM m ORDER BY n, id LIMIT 2) UNION ALL (SELECT id, n FROM m ORDER BY n DESC, id DESC LIMIT 2)},
	# with many rows behind the first ones, so that the reserve is used, and used up
	big_top => q{SELECT id, v FROM big ORDER BY v, id LIMIT 2},
	big_page => q{SELECT id FROM big ORDER BY v DESC, id LIMIT 3 OFFSET 2},
	big_one => q{SELECT v FROM big ORDER BY v DESC NULLS LAST, id LIMIT 1},
	big_group => q{SELECT v, count(*) AS c FROM (SELECT v FROM big ORDER BY v NULLS FIRST, id LIMIT 6) x GROUP BY v},
	big_copies => q{SELECT v, t FROM copies ORDER BY v, t LIMIT 5},
	big_copies_last => q{SELECT t, v FROM copies ORDER BY v DESC NULLS FIRST, t OFFSET 1 LIMIT 12},
	big_join => q{SELECT b.id, c.t FROM big b JOIN copies c ON c.v = b.v ORDER BY b.v, b.id, c.t LIMIT 4},
	expanded => q{SELECT id, generate_series(1, k) AS i FROM m ORDER BY id DESC, i LIMIT 7},
	# DISTINCT ON
	latest => q{SELECT DISTINCT ON (k) k, id, n FROM m ORDER BY k, id DESC},
	latest_hidden => q{SELECT DISTINCT ON (k) id, n FROM m ORDER BY k, id DESC},
	latest_two_keys => q{SELECT DISTINCT ON (k, g) k, g, id FROM m ORDER BY k, g, n DESC, id},
	latest_expression => q{SELECT DISTINCT ON (k % 2, lower(g)) id, k, g FROM m ORDER BY k % 2, lower(g), id},
	latest_reversed => q{SELECT DISTINCT ON (g) g, id, n FROM m ORDER BY g DESC NULLS LAST, n NULLS FIRST, id},
	latest_groups => q{SELECT DISTINCT ON (k) k, g, sum(n) AS s FROM m GROUP BY k, g ORDER BY k, sum(n) DESC, g},
	latest_windows => q{SELECT DISTINCT ON (k) k, id, rank() OVER (PARTITION BY g ORDER BY n) AS r FROM m ORDER BY k, r, id},
	latest_top => q{SELECT DISTINCT ON (k) k, id FROM m ORDER BY k DESC, id LIMIT 2},
	latest_join => q{SELECT DISTINCT ON (m.k) m.k, m.id, b.t FROM m JOIN bag b ON b.k = m.k ORDER BY m.k, m.id, b.t},
	counted_latest => q{SELECT g, count(*) AS c FROM (SELECT DISTINCT ON (k) k, g FROM m ORDER BY k, id) l GROUP BY g},
	through_stream_table => q{SELECT DISTINCT ON (n) n, id FROM top ORDER BY n, id});

# The order is open: pgtrickle closes it in the same way each time.
my @open = (
	open_top => \q{SELECT id, k FROM m ORDER BY k LIMIT 5},
	open_any => \q{SELECT * FROM bag LIMIT 4},
	open_skip => \q{SELECT v, t FROM bag ORDER BY v OFFSET 3},
	open_numbers => \q{SELECT n, f FROM numbers ORDER BY n LIMIT 3},
	open_numbers_union => \q{SELECT n FROM numbers UNION ALL SELECT n FROM m ORDER BY 1 DESC NULLS LAST LIMIT 5},
	open_distinct => \q{SELECT DISTINCT k, t FROM bag ORDER BY k LIMIT 2},
	open_groups => \q{SELECT k, count(*) AS c FROM bag GROUP BY k ORDER BY count(*) LIMIT 2},
	open_expanded => \q{SELECT generate_series(1, v) AS i, k FROM bag ORDER BY k LIMIT 5},
	open_docs => \q{SELECT j FROM docs LIMIT 3},
	open_rollup => \q{SELECT k, g, count(*) AS c FROM m GROUP BY ROLLUP (k, g) ORDER BY c LIMIT 3},
	open_latest => \q{SELECT DISTINCT ON (k) k, id, n FROM m ORDER BY k, n},
	open_latest_unordered => \q{SELECT DISTINCT ON (k, v) k, v, t FROM bag},
	open_latest_docs => \q{SELECT DISTINCT ON (k) k, j FROM docs},
	open_below => \q{SELECT t, count(*) AS c FROM (SELECT t FROM bag ORDER BY v LIMIT 5) x GROUP BY t},
	open_view => \q{SELECT g, count(*) AS c FROM lowest GROUP BY g},
	open_lists => \q{SELECT k, array_agg(g) AS gs, string_agg(g, ',') AS s, json_agg(n) AS ns FROM m GROUP BY k},
	open_lists_ordered => \q{SELECT k, array_agg(id ORDER BY n) AS ids, string_agg(g, ',' ORDER BY g DESC) AS s FROM m GROUP BY k},
	open_lists_bag => \q{SELECT k, array_agg(t) AS ts, array_agg(DISTINCT v) AS vs FROM bag GROUP BY k},
	open_lists_docs => \q{SELECT k, json_agg(j) AS js, array_agg(j::text) FILTER (WHERE k > 0) AS ts FROM docs GROUP BY k});

my $next_id = 100;

sub change
{
	my $k = pick(1, 2, 3, 'NULL');
	my $id = pick($next_id++, -$next_id++);

	return pick(
		"INSERT INTO m VALUES ($id, $k, " . pick('NULL', "'g1'", "'G1'") . ', ' . pick('NULL', 1.5, 3, 99, -1) . ')',
		"DELETE FROM m WHERE id % 7 = " . int(rand 7),
		"DELETE FROM m WHERE id = (SELECT max(id) FROM m)",
		"DELETE FROM m WHERE n = (SELECT max(n) FROM m)",
		"UPDATE m SET k = $k WHERE id % 5 = " . int(rand 5),
		"UPDATE m SET n = n + 1 WHERE id % 6 = " . int(rand 6),
		"UPDATE m SET g = 'g1', n = NULL WHERE k IS NOT DISTINCT FROM $k AND id % 2 = 0",
		"INSERT INTO bag SELECT $k, " . pick(1, 2, 'NULL') . ", 't1' FROM generate_series(1, 2)",
		"DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag WHERE k IS NOT DISTINCT FROM $k)",
		"INSERT INTO docs VALUES ($k, '{\"i\": $id}'), (1, '[1, 2]')",
		"DELETE FROM docs WHERE k IS NOT DISTINCT FROM $k",
		"INSERT INTO numbers VALUES (1.000, 1), (" . pick('1', '1.0', '0.5', 'NULL') . ", '-0')",
		"DELETE FROM numbers WHERE ctid = (SELECT min(ctid) FROM numbers)",
		"DELETE FROM big WHERE id IN (SELECT id FROM big ORDER BY v, id LIMIT " . pick(1, 5, 30) . ')',
		"DELETE FROM big WHERE id IN (SELECT id FROM big ORDER BY v DESC, id LIMIT " . pick(1, 5, 30) . ')',
		"INSERT INTO big SELECT 1000 * $next_id + i, i * 53 % 103 FROM generate_series(1, " . pick(1, 3, 40) . ') i',
		"INSERT INTO big VALUES ($next_id + 100000, " . pick(-5, 50, 200, 'NULL') . ')',
		"UPDATE big SET v = v + " . pick(1, -1, 60) . " WHERE id % 9 = " . int(rand 9),
		"DELETE FROM copies WHERE ctid = ANY (ARRAY(SELECT ctid FROM copies ORDER BY v LIMIT " . pick(1, 4, 25) . '))',
		"INSERT INTO copies SELECT " . pick(0, 2, 9, 'NULL') . ", 'c' FROM generate_series(1, " . pick(1, 10, 40) . ')',
		"UPDATE bag SET k = $k WHERE v = " . pick(1, 2));
}

run_rounds($node, stories => [ @stories, @open ], changes => \&change, rounds => 10,
	fixed => [
		'the first row goes' => q{DELETE FROM m WHERE id = (SELECT min(id) FROM m)},
		'the last row changes its place' => q{UPDATE m SET n = 100 WHERE id = (SELECT max(id) FROM m)},
		'all sources empty' => q{DELETE FROM m; DELETE FROM bag; DELETE FROM big; DELETE FROM copies},
		'and come back' => q{
			INSERT INTO m SELECT i, nullif(i % 3, 0), 'g' || i % 2, i % 4 FROM generate_series(1, 15) i;
			INSERT INTO bag SELECT nullif(i % 3, 0), i % 2, 't' FROM generate_series(1, 9) i;
			INSERT INTO big SELECT i, i % 70 FROM generate_series(1, 140) i; INSERT INTO copies SELECT i / 30, 'c' FROM generate_series(1, 100) i},
		'part of the reserve goes, at both ends' => q{
			DELETE FROM big WHERE id IN (SELECT id FROM big ORDER BY v, id LIMIT 10);
			DELETE FROM big WHERE id IN (SELECT id FROM big ORDER BY v DESC, id LIMIT 10);
			DELETE FROM copies WHERE ctid = ANY (ARRAY(SELECT ctid FROM copies ORDER BY v LIMIT 10))},
		'rows come behind the reserve' => q{
			INSERT INTO big SELECT 5000 + i, 35 FROM generate_series(1, 9) i;
			INSERT INTO copies SELECT 2, 'c' FROM generate_series(1, 9)},
		'the rest of the reserve goes' => q{
			DELETE FROM big WHERE id IN (SELECT id FROM big ORDER BY v, id LIMIT 25);
			DELETE FROM big WHERE id IN (SELECT id FROM big ORDER BY v DESC, id LIMIT 25);
			DELETE FROM copies WHERE ctid = ANY (ARRAY(SELECT ctid FROM copies ORDER BY v LIMIT 30))},
		'a row that comes and goes behind and before the first ones' => q{
			INSERT INTO big VALUES (9001, -7), (9002, 300); DELETE FROM big WHERE id IN (9001, 9002)}]);

$node->stop_applier;
done_testing();
