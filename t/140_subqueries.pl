# t/140_subqueries.pl
#
# Goal: subqueries in expressions and LATERAL subqueries are maintained by delta: EXISTS, IN, ANY, ALL, scalar ones, correlated or not, in
#       WHERE, in HAVING, in the SELECT list, with the right answer for NULLs and for no rows at all.
# Method: stream tables over small tables with NULLs and duplicates; rounds of random changes to several tables at once, in which
#         subqueries become empty, get their first row, and a NULL among their values.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster qw(random_seed pick);
use StreamTables::Rounds qw(run_rounds);
use Test::More;

random_seed();
my $node = StreamTables::Cluster->new('subqueries')->boot;
$node->start_applier;
$node->sql(q{
	CREATE TABLE o (id int PRIMARY KEY, k int, n numeric, t text);
	CREATE TABLE s (id int PRIMARY KEY, k int, v int, label text NOT NULL);
	CREATE TABLE bag (k int, v int);
	CREATE TABLE dim (k int PRIMARY KEY, name text, r int);
	INSERT INTO o SELECT i, nullif(i % 5, 0), i % 4, 't' || i % 3 FROM generate_series(1, 14) i;
	INSERT INTO s SELECT i, nullif(i % 6, 0), nullif(i % 4, 0), 'l' || i % 3 FROM generate_series(1, 10) i;
	INSERT INTO bag SELECT nullif(i % 4, 0), nullif(i % 3, 0) FROM generate_series(1, 8) i;
	INSERT INTO dim SELECT i, 'name' || i, i % 2 FROM generate_series(1, 4) i});

my @stories = (
	# EXISTS
	exists_keyed => q{SELECT id, k FROM o WHERE EXISTS (SELECT 1 FROM s WHERE s.k = o.k AND s.v > 1)},
	exists_two_keys => q{SELECT id FROM o WHERE EXISTS (SELECT FROM s WHERE s.k = o.k AND s.v = o.n)},
	exists_expression => q{SELECT id FROM o WHERE EXISTS (SELECT FROM s WHERE s.k + 1 = o.k * 2)},
	exists_join => q{SELECT o.id, dim.name FROM o JOIN dim USING (k) WHERE EXISTS (SELECT FROM bag JOIN s USING (k) WHERE bag.k = o.k AND s.v = bag.v)},
	exists_uncorrelated => q{SELECT id FROM o WHERE EXISTS (SELECT FROM bag WHERE v = 2)},
	exists_aggregate => q{SELECT id FROM o WHERE EXISTS (SELECT count(*) FROM bag WHERE bag.k = o.k)},
	exists_having => q{SELECT id FROM o WHERE EXISTS (SELECT FROM bag WHERE bag.k = o.k GROUP BY v HAVING count(*) > 1)},
	exists_limit => q{SELECT id FROM o WHERE EXISTS (SELECT FROM bag WHERE bag.k = o.k LIMIT 1)},
	exists_nested => q{SELECT id FROM o WHERE EXISTS (SELECT FROM s WHERE s.k = o.k AND EXISTS (SELECT FROM bag WHERE bag.k = s.k AND bag.v = s.v))},
	exists_unequal => q{SELECT id FROM o WHERE EXISTS (SELECT FROM s WHERE s.k = o.k AND s.v <> o.n)},
	exists_range => q{SELECT id FROM o WHERE EXISTS (SELECT FROM bag WHERE bag.v > o.n)},
	not_exists => q{SELECT id, k FROM o WHERE NOT EXISTS (SELECT 1 FROM s WHERE s.k = o.k AND s.v > 1)},
	not_exists_uncorrelated => q{SELECT id FROM o WHERE NOT EXISTS (SELECT FROM bag WHERE v = 2)},
	not_exists_unequal => q{SELECT id FROM o WHERE NOT EXISTS (SELECT FROM s WHERE s.k = o.k AND s.v <> o.n)},
	exists_and_not => q{SELECT id FROM o WHERE EXISTS (SELECT FROM s WHERE s.k = o.k) AND NOT EXISTS (SELECT FROM bag WHERE bag.k = o.k) AND n > 0},
	both_unequal => q{SELECT id FROM o WHERE EXISTS (SELECT FROM s WHERE s.k = o.k AND s.v <> o.n) AND NOT EXISTS (SELECT FROM s WHERE s.k = o.k AND s.v > o.n AND s.label <> 'l1')},
	# IN, ANY, ALL
	in_list => q{SELECT id FROM o WHERE k IN (SELECT k FROM bag)},
	in_correlated => q{SELECT id FROM o WHERE n IN (SELECT v FROM s WHERE s.k = o.k)},
	in_groups => q{SELECT id FROM o WHERE k IN (SELECT k FROM bag GROUP BY k HAVING sum(v) > 2)},
	in_union => q{SELECT id FROM o WHERE k IN (SELECT k FROM bag UNION ALL SELECT v FROM s)},
	in_rows => q{SELECT id FROM o WHERE (k, n) IN (SELECT k, v FROM s)},
	not_in => q{SELECT id FROM o WHERE k NOT IN (SELECT k FROM bag)},
	not_in_without_nulls => q{SELECT id FROM o WHERE t NOT IN (SELECT label FROM s)},
	not_in_correlated => q{SELECT id FROM o WHERE n NOT IN (SELECT v FROM s WHERE s.k = o.k)},
	not_in_filtered => q{SELECT id FROM o WHERE k NOT IN (SELECT k FROM bag WHERE k IS NOT NULL)},
	any_greater => q{SELECT id FROM o WHERE n > ANY (SELECT v FROM bag)},
	any_correlated => q{SELECT id FROM o WHERE n >= ANY (SELECT v FROM s WHERE s.k = o.k)},
	all_greater => q{SELECT id FROM o WHERE n >= ALL (SELECT v FROM s WHERE s.k = o.k)},
	all_unequal => q{SELECT id FROM o WHERE k <> ALL (SELECT v FROM bag)},
	in_or => q{SELECT id FROM o WHERE k IN (SELECT k FROM bag) OR n = 2},
	exists_or => q{SELECT id FROM o WHERE EXISTS (SELECT FROM s WHERE s.k = o.k) OR NOT EXISTS (SELECT FROM bag WHERE bag.k = o.k)},
	not_and => q{SELECT id FROM o WHERE NOT (k IN (SELECT k FROM bag) AND n > 1)},
	in_nested => q{SELECT id FROM o WHERE k IN (SELECT k FROM s WHERE v IN (SELECT v FROM bag WHERE bag.k = s.k))},
	three_valued => q{SELECT id, k IN (SELECT k FROM bag) AS i, k NOT IN (SELECT k FROM bag) AS ni, n > ALL (SELECT v FROM s WHERE s.k = o.k) AS a FROM o},
	# scalar
	scalar_where => q{SELECT id FROM o WHERE n > (SELECT avg(v) FROM bag)},
	scalar_equal => q{SELECT id, n FROM o WHERE n = (SELECT max(n) FROM o)},
	scalar_correlated => q{SELECT id FROM o WHERE n < (SELECT 0.9 * avg(v) FROM s WHERE s.k = o.k)},
	scalar_select => q{SELECT id, (SELECT sum(v) FROM s WHERE s.k = o.k) AS total, (SELECT count(*) FROM bag WHERE bag.k = o.k) AS c FROM o},
	scalar_coalesce => q{SELECT id, (SELECT coalesce(sum(v), -1) FROM s WHERE s.k = o.k AND s.v > 2) AS total FROM o},
	scalar_string => q{SELECT id, (SELECT string_agg(label, ',' ORDER BY id) FROM s WHERE s.k = o.k) AS labels FROM o},
	scalar_lookup => q{SELECT id, (SELECT name FROM dim WHERE dim.k = o.k) AS name FROM o},
	scalar_lookup_join => q{SELECT id, (SELECT label FROM s WHERE s.id = o.id) AS label FROM o},
	scalar_one => q{SELECT id, (SELECT name FROM dim WHERE name = 'name1') AS name FROM o},
	scalar_first => q{SELECT id, (SELECT label FROM s WHERE s.k = o.k ORDER BY v DESC NULLS LAST, s.id LIMIT 1) AS label FROM o},
	scalar_first_of_all => q{SELECT id, (SELECT label FROM s ORDER BY v, id LIMIT 1) AS label FROM o},
	scalar_case => q{SELECT id, CASE WHEN n > 1 THEN (SELECT min(v) FROM bag WHERE bag.k = o.k) ELSE -1 END AS m FROM o},
	scalar_range => q{SELECT id, (SELECT sum(v) FROM bag WHERE bag.v <= o.n) AS total FROM o},
	scalar_nested => q{SELECT id, (SELECT max(v) FROM s WHERE s.k = o.k AND s.v < (SELECT max(v) FROM bag WHERE bag.k = s.k)) AS m FROM o},
	scalar_in_aggregate => q{SELECT t, sum((SELECT max(v) FROM s WHERE s.k = o.k)) AS total FROM o GROUP BY t},
	having_scalar => q{SELECT k, sum(n) AS total FROM o GROUP BY k HAVING sum(n) > (SELECT avg(v) * 2 FROM bag)},
	having_exists => q{SELECT k, count(*) AS c FROM o GROUP BY k HAVING EXISTS (SELECT FROM s WHERE s.k = o.k) AND count(*) > 1},
	grouped_select => q{SELECT k, count(*) AS c, (SELECT name FROM dim WHERE dim.k = o.k) AS name FROM o GROUP BY k},
	windowed => q{SELECT id, rank() OVER (PARTITION BY k ORDER BY n) AS r FROM o WHERE EXISTS (SELECT FROM s WHERE s.k = o.k)},
	distinct_over => q{SELECT DISTINCT t FROM o WHERE k IN (SELECT k FROM s)},
	on_condition => q{SELECT o.id, dim.name FROM o JOIN dim ON dim.k = o.k AND dim.r IN (SELECT v FROM bag)},
	with_query => q{WITH busy AS (SELECT k FROM bag GROUP BY k HAVING count(*) > 1) SELECT id FROM o WHERE k IN (SELECT k FROM busy) AND n NOT IN (SELECT k FROM busy)},
	# LATERAL
	lateral_rows => q{SELECT o.id, x.v FROM o, LATERAL (SELECT v FROM s WHERE s.k = o.k AND v > 1) x},
	lateral_aggregate => q{SELECT o.id, x.c, x.m FROM o, LATERAL (SELECT count(*) AS c, max(v) AS m FROM s WHERE s.k = o.k) x},
	lateral_left => q{SELECT o.id, x.v FROM o LEFT JOIN LATERAL (SELECT v FROM s WHERE s.k = o.k AND v > 1) x ON true},
	lateral_left_aggregate => q{SELECT o.id, x.c FROM o LEFT JOIN LATERAL (SELECT count(*) AS c FROM s WHERE s.k = o.k) x ON true},
	lateral_left_condition => q{SELECT o.id, x.v FROM o LEFT JOIN LATERAL (SELECT v FROM s WHERE s.k = o.k) x ON x.v > o.n},
	lateral_groups => q{SELECT o.id, x.v, x.c FROM o, LATERAL (SELECT v, count(*) AS c FROM s WHERE s.k = o.k GROUP BY v) x WHERE x.c > 0},
	lateral_top => q{SELECT o.id, x.sid, x.v FROM o, LATERAL (SELECT s.id AS sid, v FROM s WHERE s.k = o.k ORDER BY v DESC NULLS LAST, s.id LIMIT 2) x},
	lateral_top_left => q{SELECT o.id, x.sid FROM o LEFT JOIN LATERAL (SELECT s.id AS sid FROM s WHERE s.k = o.k ORDER BY s.id DESC LIMIT 1) x ON true},
	lateral_grouped => q{SELECT o.t, sum(x.c) AS total FROM o CROSS JOIN LATERAL (SELECT count(*) AS c FROM bag WHERE bag.k = o.k) x GROUP BY o.t});

my $next_id = 100;

sub change
{
	my $k = pick(1, 2, 3, 4, 'NULL');
	my $id = $next_id++;

	return pick(
		"INSERT INTO o VALUES ($id, $k, " . pick(0, 1, 2, 'NULL') . ", 't1')",
		"INSERT INTO s VALUES ($id, $k, " . pick(1, 2, 3, 'NULL') . ", 'l1')",
		"INSERT INTO bag VALUES ($k, " . pick(1, 2, 'NULL') . ')',
		'DELETE FROM o WHERE id % 6 = ' . int(rand 6),
		'DELETE FROM s WHERE id % 4 = ' . int(rand 4),
		'DELETE FROM s WHERE k = ' . pick(1, 2, 3, 4, 5),
		"DELETE FROM bag WHERE k IS NOT DISTINCT FROM $k",
		'DELETE FROM bag WHERE v = 2',
		"UPDATE o SET k = $k WHERE id % 5 = " . int(rand 5),
		'UPDATE o SET n = n + 1 WHERE id % 4 = ' . int(rand 4),
		"UPDATE s SET k = $k WHERE id % 3 = " . int(rand 3),
		"UPDATE s SET v = v + 1, label = label || 'x' WHERE id % 3 = " . int(rand 3),
		"UPDATE bag SET v = v + 1 WHERE k IS NOT DISTINCT FROM $k",
		'DELETE FROM dim WHERE k = ' . pick(1, 2, 3, 4),
		'INSERT INTO dim VALUES (' . pick(1, 2, 3, 4, 5) . ", 'new', 1) ON CONFLICT (k) DO UPDATE SET name = dim.name || 1, r = 2");
}

run_rounds($node, stories => \@stories, changes => \&change, rounds => 5,
	fixed => [
		'the NULLs go from a list' => q{DELETE FROM bag WHERE k IS NULL OR v IS NULL},
		'and come back' => q{INSERT INTO bag VALUES (NULL, 1), (2, NULL), (NULL, NULL)},
		'the inner tables empty' => q{DELETE FROM s; DELETE FROM bag},
		'the inner tables fill while the outer rows change' => q{
			INSERT INTO s SELECT i, nullif(i % 6, 0), nullif(i % 4, 0), 'l' || i % 3 FROM generate_series(1, 10) i;
			INSERT INTO bag SELECT nullif(i % 4, 0), nullif(i % 3, 0) FROM generate_series(1, 8) i; UPDATE o SET k = k % 3 + 1, n = n + 1},
		'all are empty' => q{DELETE FROM o; DELETE FROM s; DELETE FROM bag; DELETE FROM dim},
		'and come back' => q{
			INSERT INTO o SELECT i, nullif(i % 5, 0), i % 4, 't' || i % 3 FROM generate_series(1, 14) i;
			INSERT INTO s SELECT i, nullif(i % 6, 0), nullif(i % 4, 0), 'l' || i % 3 FROM generate_series(1, 10) i;
			INSERT INTO bag SELECT nullif(i % 4, 0), nullif(i % 3, 0) FROM generate_series(1, 8) i;
			INSERT INTO dim SELECT i, 'name' || i, i % 2 FROM generate_series(1, 4) i}]);

# --- more than one row where one is wanted ------------------------------------------------------------------

$node->sql(q{INSERT INTO dim VALUES (77, 'name1', 0)}) if $node->sql(q{SELECT count(*) FROM dim WHERE name = 'name1'}) < 2;
$node->sql(q{INSERT INTO dim VALUES (78, 'name1', 0)});
my ($ok, undef, $error) = $node->psql('postgres', q{SELECT pgtrickle.refresh_stream_table('scalar_one')});
isnt($ok, 0, 'a second row fails the refresh');
like($error, qr/more than one row returned by a subquery used as an expression/, 'and the error says why');
$node->sql(q{DELETE FROM dim WHERE k IN (77, 78)});
$node->stop_applier;
done_testing();
