# t/149_outer_joins.pl
#
# Goal: LEFT, RIGHT and FULL joins are maintained by delta, whatever their conditions, keys, filters and nesting.
# Method: stream tables over small tables with NULLs and duplicates on both sides; rounds of random changes to both sides at once, in which
#         rows lose their last match, get their first one, and swap one match for another.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster qw(random_seed pick);
use StreamTables::Rounds qw(run_rounds);
use Test::More;

random_seed();
my $node = StreamTables::Cluster->new('outer_joins')->boot;
$node->start_applier;
$node->sql(q{
	CREATE TABLE a (id int PRIMARY KEY, k int, n numeric, t text, arr int[]);
	CREATE TABLE b (id int PRIMARY KEY, k int, lo int, hi int, label text);
	CREATE TABLE bag (k int, v int);
	CREATE TABLE dim (k int PRIMARY KEY, name text, region int);
	CREATE TABLE regions (region int PRIMARY KEY, title text);
	INSERT INTO a SELECT i, nullif(i % 5, 0), i % 3, 't' || i % 4, CASE i % 4 WHEN 0 THEN NULL WHEN 1 THEN '{}' ELSE ARRAY[i % 3, i % 5] END
		FROM generate_series(1, 16) i;
	INSERT INTO b SELECT i, nullif(i % 6, 0), i % 4, i % 4 + 2, 'l' || i % 3 FROM generate_series(1, 10) i;
	INSERT INTO bag SELECT nullif(i % 4, 0), i % 3 FROM generate_series(1, 8) i;
	INSERT INTO dim SELECT i, 'name' || i, nullif(i % 3, 0) FROM generate_series(1, 4) i;
	INSERT INTO regions VALUES (1, 'north'), (3, 'south')});

my @stories = (
	# the condition
	unique_right => q{SELECT a.id, a.k, dim.name FROM a LEFT JOIN dim ON dim.k = a.k},
	many_right => q{SELECT a.id, b.id AS b_id, b.label FROM a LEFT JOIN b ON b.k = a.k},
	bag_right => q{SELECT a.id, bag.v FROM a LEFT JOIN bag ON bag.k = a.k},
	bags => q{SELECT x.k, x.v, y.v AS other FROM bag x LEFT JOIN bag y ON y.k = x.v},
	right_join => q{SELECT a.id, b.id AS b_id FROM a RIGHT JOIN b ON b.k = a.k AND a.n > 0},
	full_join => q{SELECT a.id, b.id AS b_id, a.t, b.label FROM a FULL JOIN b ON b.k = a.k},
	full_unique => q{SELECT a.id, dim.k, dim.name FROM a FULL JOIN dim ON dim.k = a.id},
	full_bags => q{SELECT x.v, y.id FROM bag x FULL JOIN b y ON y.k = x.k},
	full_using => q{SELECT k, a.id, b.id AS b_id FROM a FULL JOIN b USING (k)},
	natural_left => q{SELECT * FROM bag NATURAL LEFT JOIN dim},
	condition_on_left => q{SELECT a.id, b.id AS b_id FROM a LEFT JOIN b ON b.k = a.k AND a.n = 1},
	condition_on_right => q{SELECT a.id, b.id AS b_id FROM a LEFT JOIN b ON b.k = a.k AND b.lo > 1},
	unique_and_more => q{SELECT a.id, dim.name FROM a LEFT JOIN dim ON dim.k = a.k AND dim.region > a.n},
	expressions => q{SELECT a.id, b.id AS b_id FROM a LEFT JOIN b ON b.k + 1 = a.k * 2 AND upper(b.label) = 'L' || a.n},
	range => q{SELECT a.id, b.id AS b_id FROM a LEFT JOIN b ON a.k BETWEEN b.lo AND b.hi},
	unequal => q{SELECT a.id, b.id AS b_id FROM a LEFT JOIN b ON b.k = a.k AND b.id <> a.id},
	not_strict => q{SELECT a.id, b.id AS b_id FROM a LEFT JOIN b ON a.k IS NOT DISTINCT FROM b.k},
	either => q{SELECT a.id, b.id AS b_id FROM a LEFT JOIN b ON b.k = a.k OR b.lo = a.n},
	no_equality => q{SELECT a.id, bag.v FROM a LEFT JOIN bag ON bag.v > 5},
	on_true => q{SELECT dim.k, bag.v FROM dim LEFT JOIN bag ON true},
	on_false => q{SELECT a.id, b.id AS b_id FROM a LEFT JOIN b ON false},
	cross_type => q{SELECT a.id, b.id AS b_id FROM a LEFT JOIN b ON b.lo = a.n},
	# filters above
	anti_join => q{SELECT a.* FROM a LEFT JOIN b ON b.k = a.k WHERE b.id IS NULL},
	anti_join_unique => q{SELECT a.id FROM a LEFT JOIN dim ON dim.k = a.k WHERE dim.k IS NULL},
	anti_flag => q{SELECT a.id FROM a LEFT JOIN (SELECT DISTINCT k, true AS found FROM bag) d ON d.k = a.k WHERE d.found IS NULL},
	nullable_is_null => q{SELECT a.id, dim.k, dim.region FROM a LEFT JOIN dim ON dim.k = a.k WHERE dim.region IS NULL},
	inner_in_effect => q{SELECT a.id, b.id AS b_id FROM a LEFT JOIN b ON b.k = a.k WHERE b.lo > 0},
	left_filter => q{SELECT a.id, b.id AS b_id FROM a LEFT JOIN b ON b.k = a.k WHERE a.n > 0},
	either_filter => q{SELECT a.id, b.id AS b_id FROM a LEFT JOIN b ON b.k = a.k WHERE b.lo > 2 OR a.n = 0},
	full_to_left => q{SELECT a.id, b.id AS b_id FROM a FULL JOIN b ON b.k = a.k WHERE a.t <> 't9'},
	only_one_side => q{SELECT coalesce(a.id, -b.id) AS id FROM a FULL JOIN b ON b.k = a.k WHERE a.id IS NULL OR b.id IS NULL},
	# nesting
	chain => q{SELECT a.id, b.id AS b_id, dim.name, regions.title FROM a LEFT JOIN b ON b.k = a.k LEFT JOIN dim ON dim.k = b.lo
		LEFT JOIN regions ON regions.region = dim.region},
	star => q{SELECT a.id, dim.name, b.label, bag.v FROM a LEFT JOIN dim ON dim.k = a.k LEFT JOIN b ON b.id = a.id LEFT JOIN bag ON bag.k = a.k},
	inner_below_right => q{SELECT a.id, dim.name, regions.title FROM a LEFT JOIN (dim JOIN regions USING (region)) ON dim.k = a.k},
	outer_below_right => q{SELECT a.id, dim.k, regions.title FROM a LEFT JOIN (dim LEFT JOIN regions ON regions.region = dim.region) ON dim.k = a.k},
	inner_after => q{SELECT a.id, dim.name, bag.v FROM a LEFT JOIN dim ON dim.k = a.k JOIN bag ON bag.k = a.k},
	inner_through => q{SELECT a.id, dim.name, regions.title FROM a LEFT JOIN dim ON dim.k = a.k JOIN regions ON regions.region = dim.region},
	inner_before => q{SELECT a.id, bag.v, dim.name FROM a JOIN bag ON bag.k = a.k LEFT JOIN dim ON dim.k = bag.v},
	comma => q{SELECT a.id, bag.v, dim.name FROM bag, a LEFT JOIN dim ON dim.k = a.k WHERE bag.k = a.k},
	full_of_full => q{SELECT a.id, b.id AS b_id, dim.k FROM a FULL JOIN b ON b.k = a.k FULL JOIN dim ON dim.k = b.lo},
	self => q{SELECT x.id, y.id AS parent FROM a x LEFT JOIN a y ON y.id = x.k},
	# lateral functions, which follow their row
	unnested => q{SELECT a.id, u.x FROM a LEFT JOIN LATERAL unnest(a.arr) AS u(x) ON true},
	unnested_condition => q{SELECT a.id, u.x, u.i FROM a LEFT JOIN LATERAL unnest(a.arr) WITH ORDINALITY AS u(x, i) ON u.x > 1},
	unnested_before => q{SELECT a.id, u.x, dim.name FROM a, unnest(a.arr) AS u(x) LEFT JOIN dim ON dim.k = u.x},
	# above: groups, distinct, windows, unions, other stream tables
	counted => q{SELECT dim.k, dim.name, count(a.id) AS c, sum(a.n) AS s FROM dim LEFT JOIN a ON a.k = dim.k GROUP BY dim.k},
	count_of_counts => q{SELECT c, count(*) AS many FROM (SELECT a.id, count(b.id) FROM a LEFT JOIN b ON b.k = a.k AND b.label <> 'l2' GROUP BY a.id) AS x (id, c) GROUP BY c},
	grouped_right => q{SELECT a.id, g.c FROM a LEFT JOIN (SELECT k, count(*) AS c FROM bag GROUP BY k) g ON g.k = a.k},
	grouped_key => q{SELECT dim.name, max(a.id) AS m FROM a LEFT JOIN dim ON dim.k = a.k GROUP BY dim.name},
	distinct_over => q{SELECT DISTINCT a.k, dim.region FROM a LEFT JOIN dim ON dim.k = a.k},
	window_over => q{SELECT a.id, b.id AS b_id, count(b.id) OVER (PARTITION BY a.k) AS c FROM a LEFT JOIN b ON b.k = a.k},
	union_of => q{SELECT a.id, dim.k FROM a LEFT JOIN dim ON dim.k = a.k UNION ALL SELECT b.id, dim.k FROM b LEFT JOIN dim ON dim.k = b.lo},
	unused_right => q{SELECT a.t FROM a LEFT JOIN b ON b.k = a.k},
	coalesced => q{SELECT coalesce(a.k, b.k) AS k, count(*) AS c, count(a.id) AS a_s, count(b.id) AS b_s FROM a FULL JOIN b ON a.k = b.k GROUP BY coalesce(a.k, b.k)},
	over_stream_table => q{SELECT u.id, u.name, r.b_id FROM unique_right u LEFT JOIN right_join r ON r.id = u.id});

my $next_id = 100;

sub change
{
	my $k = pick(1, 2, 3, 4, 'NULL');
	my $id = $next_id++;

	return pick(
		"INSERT INTO a VALUES ($id, $k, " . pick(0, 1, 2) . ", 't1', '{1,2}')",
		"INSERT INTO b VALUES ($id, $k, 1, 3, 'l1')",
		"INSERT INTO b VALUES ($id, 5, 2, 2, 'l2'), ($id + 1000000, 5, 2, 2, 'l2')",
		"INSERT INTO bag VALUES ($k, " . pick(1, 2, 'NULL') . ')',
		'DELETE FROM a WHERE id % 6 = ' . int(rand 6),
		'DELETE FROM b WHERE id % 4 = ' . int(rand 4),
		"DELETE FROM b WHERE k = " . pick(1, 2, 3, 4, 5),
		"DELETE FROM bag WHERE k IS NOT DISTINCT FROM $k",
		'DELETE FROM dim WHERE k = ' . pick(1, 2, 3, 4),
		'INSERT INTO dim VALUES (' . pick(1, 2, 3, 4, 5, 101, 102) . ", 'new', " . pick(1, 2, 3, 'NULL') . ') ON CONFLICT (k) DO UPDATE SET name = dim.name || 1',
		"UPDATE a SET k = $k WHERE id % 5 = " . int(rand 5),
		'UPDATE a SET n = n + 1, arr = arr || 2 WHERE id % 4 = ' . int(rand 4),
		"UPDATE b SET k = $k WHERE id % 3 = " . int(rand 3),
		"UPDATE b SET label = label || 'x', lo = lo + 1 WHERE id % 3 = " . int(rand 3),
		"UPDATE bag SET v = v + 1 WHERE k IS NOT DISTINCT FROM $k",
		"UPDATE dim SET region = " . pick(1, 2, 3, 'NULL') . ' WHERE k = ' . pick(1, 2, 3, 4),
		'DELETE FROM regions WHERE region = ' . pick(1, 2, 3),
		"INSERT INTO regions VALUES (" . pick(1, 2, 3) . ", 'again') ON CONFLICT DO NOTHING");
}

run_rounds($node, stories => \@stories, changes => \&change, rounds => 4,
	fixed => [
		'the last match goes, the first one comes' => q{DELETE FROM b WHERE k = 1; INSERT INTO b VALUES (90, 77, 0, 0, 'x'); UPDATE a SET k = 77 WHERE id = 2},
		'a match is swapped for another' => q{DELETE FROM b WHERE k = 2; INSERT INTO b VALUES (91, 2, 1, 1, 'y')},
		'both sides move to another key' => q{UPDATE a SET k = k + 10; UPDATE b SET k = k + 10; UPDATE bag SET k = k + 10},
		'and back' => q{UPDATE a SET k = k - 10; UPDATE b SET k = k - 10; UPDATE bag SET k = k - 10},
		'all right sides empty' => q{DELETE FROM b; DELETE FROM bag; DELETE FROM dim; DELETE FROM regions},
		'all are empty' => q{DELETE FROM a},
		'and come back' => q{
			INSERT INTO a SELECT i, nullif(i % 5, 0), i % 3, 't' || i % 4, ARRAY[i % 3, i % 5] FROM generate_series(1, 12) i;
			INSERT INTO b SELECT i, nullif(i % 6, 0), i % 4, i % 4 + 2, 'l' || i % 3 FROM generate_series(1, 8) i;
			INSERT INTO bag SELECT nullif(i % 4, 0), i % 3 FROM generate_series(1, 8) i;
			INSERT INTO dim SELECT i, 'name' || i, i % 3 FROM generate_series(1, 4) i;
			INSERT INTO regions VALUES (1, 'north'), (2, 'east')}]);

$node->stop_applier;
done_testing();
