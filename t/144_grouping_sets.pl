# t/144_grouping_sets.pl
#
# Goal: GROUPING SETS, CUBE and ROLLUP are maintained by delta, GROUPING() and the empty set included.
# Method: stream tables with each writing of them, over keys with NULLs (which look like the NULLs of a set that leaves a column out), with
#         HAVING, DISTINCT, expressions, joins and aggregates of every strategy; rounds of random changes in which groups empty and revive.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster qw(random_seed pick);
use StreamTables::Rounds qw(run_rounds);
use Test::More;

random_seed();
my $node = StreamTables::Cluster->new('grouping_sets')->boot;
$node->start_applier;
$node->sql(q{
	CREATE TABLE sales (id int PRIMARY KEY, region text, product text, year int, amount numeric, quantity int);
	CREATE TABLE regions (region text, country text);
	INSERT INTO sales SELECT i, nullif('r' || i % 3, 'r0'), nullif('p' || i % 4, 'p0'), 2020 + i % 2, i * 1.5, nullif(i % 7, 0)
		FROM generate_series(1, 30) i;
	INSERT INTO regions VALUES ('r1', 'NO'), ('r2', 'DE'), ('r2', NULL), (NULL, 'XX')});

my @stories = (
	rolled_up => q{SELECT region, product, sum(amount) AS amount, count(*) AS sales FROM sales GROUP BY ROLLUP (region, product)},
	cubed => q{SELECT region, product, year, GROUPING(region, product, year) AS level, sum(quantity) AS quantity, avg(amount) AS mean
		FROM sales GROUP BY CUBE (region, product, year)},
	listed => q{SELECT region, product, min(amount) AS lo, max(amount) AS hi, GROUPING(product) AS g
		FROM sales GROUP BY GROUPING SETS ((region), (product), (region, product), ())},
	only_empty => q{SELECT count(*) AS sales, sum(quantity) AS quantity FROM sales GROUP BY ()},
	keys_alone => q{SELECT year FROM sales WHERE amount > 40 GROUP BY GROUPING SETS ((year), ())},
	set_twice => q{SELECT region, count(*) AS sales FROM sales GROUP BY GROUPING SETS ((region), (region), (), ())},
	combined => q{SELECT region, product, year, count(*) AS sales FROM sales GROUP BY year, ROLLUP (region), CUBE (product)},
	combined_distinct => q{SELECT region, product, count(*) AS sales FROM sales GROUP BY DISTINCT ROLLUP (region, product), ROLLUP (product)},
	rolled_pairs => q{SELECT region, product, year, sum(amount) AS amount FROM sales GROUP BY ROLLUP ((region, product), year)},
	nested_sets => q{SELECT region, product, year, count(*) AS sales
		FROM sales GROUP BY GROUPING SETS (ROLLUP (region, product), CUBE (year))},
	by_expression => q{SELECT upper(region) || '!' AS name, year / 10 AS decade, year / 10 + 1 AS next, count(*) AS sales
		FROM sales GROUP BY ROLLUP (upper(region), year / 10)},
	key_in_argument => q{SELECT year, sum(year) AS years, count(region) AS regions, GROUPING(year) * 10 AS g
		FROM sales GROUP BY ROLLUP (year)},
	with_having => q{SELECT region, product, count(*) AS sales FROM sales
		GROUP BY ROLLUP (region, product) HAVING count(*) > 2 AND (GROUPING(product) = 1 OR sum(amount) > 20)},
	with_distinct => q{SELECT DISTINCT region, count(*) > 5 AS many FROM sales GROUP BY CUBE (region, product)},
	dependent => q{SELECT id, product, quantity, year, count(*) AS sales FROM sales WHERE id < 12 GROUP BY id, ROLLUP (year)},
	recomputed => q{SELECT region, year, string_agg(product, ',' ORDER BY id) AS products, count(DISTINCT product) AS kinds,
		percentile_disc(0.5) WITHIN GROUP (ORDER BY amount) AS median FROM sales GROUP BY ROLLUP (year, region)},
	filtered => q{SELECT region, sum(amount) FILTER (WHERE year = 2020) AS amount, count(*) FILTER (WHERE product IS NULL) AS unnamed
		FROM sales GROUP BY ROLLUP (region)},
	joined => q{SELECT r.country, s.product, GROUPING(r.country, s.product) AS g, sum(s.amount) AS amount
		FROM sales s JOIN regions r ON r.region = s.region GROUP BY CUBE (r.country, s.product)},
	joined_using => q{SELECT region, country, count(*) AS sales FROM sales JOIN regions USING (region) GROUP BY ROLLUP (region, country)},
	above => q{SELECT g.level, count(*) AS rows, max(g.amount) AS hi FROM (SELECT region, product, GROUPING(region, product) AS level,
		sum(amount) AS amount FROM sales GROUP BY CUBE (region, product)) g GROUP BY g.level},
	plain_grouping => 'SELECT region, GROUPING(region) AS g, count(*) AS sales FROM sales GROUP BY region HAVING GROUPING(region) = 0',
	expanded => q{SELECT region, generate_series(1, GROUPING(region) + 1) AS copy, count(*) AS sales FROM sales GROUP BY ROLLUP (region)});

my $next_id = 100;

sub change
{
	my $region = pick('NULL', "'r1'", "'r2'", "'r3'");
	my $product = pick('NULL', "'p1'", "'p2'");

	return pick(
		sub { my $id = $next_id++; "INSERT INTO sales VALUES ($id, $region, $product, 2020 + $id % 3, $id * 0.5, nullif($id % 5, 0))" },
		sub { "UPDATE sales SET region = $region WHERE id % 5 = " . int rand 5 },
		sub { "UPDATE sales SET product = $product, amount = amount + 1 WHERE id % 4 = " . int rand 4 },
		sub { 'UPDATE sales SET amount = NULL WHERE id % 11 = ' . int rand 11 },
		sub { 'UPDATE sales SET year = 2018 + id % 3 WHERE id % 6 = ' . int rand 6 },
		sub { "DELETE FROM sales WHERE region IS NOT DISTINCT FROM $region AND id % 2 = 0" },
		sub { "DELETE FROM sales WHERE year = 202" . int rand 2 },
		sub { "INSERT INTO regions VALUES ($region, 'C" . int(rand 3) . "')" },
		sub { "DELETE FROM regions WHERE region = $region" },
		sub { "UPDATE regions SET country = NULL WHERE region = $region" })->();
}

run_rounds($node,
	stories => \@stories,
	changes => \&change,
	fixed => [
		'both sources change' => q{
			INSERT INTO sales VALUES (60, 'r9', 'p9', 2030, 1.25, 1);
			INSERT INTO regions VALUES ('r9', 'NO')},
		'all groups empty' => 'DELETE FROM sales',
		'and come back' => q{
			INSERT INTO sales SELECT i, nullif('r' || i % 3, 'r0'), nullif('p' || i % 4, 'p0'), 2020 + i % 2, i * 1.5, nullif(i % 7, 0)
				FROM generate_series(1, 30) i}]);

is($node->sql(q{SELECT count(*) FROM regexp_matches(pgtrickle.explain_stream_table('joined'), 'step \d+: join', 'g')}),
	1, 'the sets share one join');
is($node->sql(q{SELECT count(*) FROM regexp_matches(pgtrickle.explain_stream_table('set_twice'), 'state_table', 'g')}),
	2, 'a set that occurs twice has one state table');
like(
	$node->sql(q{SELECT string_agg(r::text, E'\n') FROM pgtrickle.validate_query('SELECT count(*) FROM sales GROUP BY CUBE (id, region, product, year, amount, quantity)') r}),
	qr/more than 62 grouping sets have no delta rule/,
	'a large cube says why it has no rule');
$node->create_stream_table('twice', q{WITH g AS (SELECT region, sum(amount) AS s FROM sales GROUP BY region)
	SELECT a.region, b.region AS other, a.s + b.s AS s FROM g a JOIN g b ON a.s < b.s});
is($node->sql(q{SELECT count(*) FROM regexp_matches(pgtrickle.explain_stream_table('twice'), 'state_table', 'g')}),
	1, 'a WITH query that is used twice has one state table');

$node->stop_applier;
done_testing();
