# t/145_set_operations.pl
#
# Goal: INTERSECT, EXCEPT and UNION, with and without ALL, in any nesting, are maintained by delta.
# Method: stream tables with each operation and mixed trees over three bags with duplicates and NULLs, so that values stand on one
#         side, on both, and several times; rounds of random changes on all three.  Type coercion, ORDER BY with LIMIT
#         inside a branch's subquery, aggregates and joins as branches.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster qw(random_seed pick);
use StreamTables::Rounds qw(run_rounds);
use Test::More;

random_seed();
my $node = StreamTables::Cluster->new('set_operations')->boot;
$node->start_applier;
$node->sql(q{
	CREATE TABLE a (k int, v text);
	CREATE TABLE b (k int, v text);
	CREATE TABLE c (k bigint, v varchar(5), n numeric(6,0));
	INSERT INTO a SELECT i % 4, nullif('v' || i % 3, 'v0') FROM generate_series(1, 14) i;
	INSERT INTO b SELECT nullif(i % 3, 0), nullif('v' || i % 2, 'v0') FROM generate_series(1, 9) i;
	INSERT INTO c SELECT i % 5, 'v' || i % 4, i / 4.0 FROM generate_series(1, 7) i});

my @stories = (
	intersection => 'SELECT k, v FROM a INTERSECT SELECT k, v FROM b',
	intersection_all => 'SELECT k, v FROM a INTERSECT ALL SELECT k, v FROM b',
	difference => 'SELECT k, v FROM a EXCEPT SELECT k, v FROM b',
	difference_all => 'SELECT k, v FROM a EXCEPT ALL SELECT k, v FROM b',
	with_itself => 'SELECT k FROM a EXCEPT ALL SELECT DISTINCT k FROM a',
	both_differences => '(SELECT k, v FROM a EXCEPT SELECT k, v FROM b) UNION ALL (SELECT k, v FROM b EXCEPT SELECT k, v FROM a)',
	both_differences_all => '(SELECT k FROM a EXCEPT ALL SELECT k FROM b) UNION (SELECT k FROM b EXCEPT ALL SELECT k FROM a)',
	union_in_union_all => '(SELECT k FROM a UNION SELECT k FROM b) UNION ALL SELECT k FROM a',
	union_all_in_union => 'SELECT k FROM a UNION ALL SELECT k FROM b UNION SELECT k FROM a WHERE v IS NULL',
	mixed => q{SELECT k, v FROM a UNION ALL SELECT k, v FROM b EXCEPT ALL SELECT k, v FROM a WHERE v = 'v1' INTERSECT SELECT k::int, v::text FROM c},
	left_deep => 'SELECT k FROM a EXCEPT SELECT k FROM b EXCEPT SELECT k::int FROM c',
	right_deep => 'SELECT k FROM a EXCEPT (SELECT k FROM b EXCEPT SELECT k::int FROM c)',
	three_all => 'SELECT v FROM a INTERSECT ALL SELECT v FROM b INTERSECT ALL SELECT v FROM a WHERE k > 0',
	coerced => 'SELECT k AS key, v AS value FROM a EXCEPT ALL SELECT k, v FROM c',
	coerced_union => 'SELECT k AS key, v FROM a UNION ALL (SELECT n, v FROM c UNION SELECT k, v FROM b)',
	constants => q{SELECT k, 'a' AS origin FROM a EXCEPT ALL SELECT 2, 'a' FROM b WHERE k IS NULL},
	of_groups => 'SELECT k, count(*) AS n FROM a GROUP BY k INTERSECT SELECT k, count(*) FROM b GROUP BY k',
	of_joins => 'SELECT a.k, b.v FROM a JOIN b ON b.k = a.k EXCEPT SELECT k, v FROM a',
	counted => 'SELECT d.v, count(*) AS n FROM (SELECT k, v FROM a EXCEPT ALL SELECT k, v FROM b) d GROUP BY d.v',
	joined => 'SELECT d.k, b.v FROM (SELECT k FROM a EXCEPT SELECT k::int FROM c) d JOIN b ON b.k = d.k',
	with_query => q{WITH x AS (SELECT k, v FROM a WHERE k > 0), y AS (SELECT k, v FROM b)
		(TABLE x EXCEPT ALL TABLE y) UNION ALL (TABLE x INTERSECT ALL TABLE y)},
	values_side => q{SELECT k, v FROM a INTERSECT ALL VALUES (1, 'v1'), (1, 'v1'), (2, NULL)},
	sorted => 'SELECT k, v FROM a INTERSECT SELECT k, v FROM b ORDER BY 2, 1');

sub change
{
	my $table = pick(qw(a a b b c));
	my $k = pick('NULL', 0 .. 4);
	my $v = pick('NULL', "'v1'", "'v2'", "'v3'");

	return pick(
		sub { $table eq 'c' ? "INSERT INTO c VALUES ($k, $v, $k)" : "INSERT INTO $table VALUES ($k, $v)" },
		sub { $table eq 'c' ? "INSERT INTO c SELECT * FROM c WHERE k = $k" : "INSERT INTO $table SELECT * FROM $table WHERE k = $k" },
		sub { "UPDATE $table SET k = $k WHERE v = $v" },
		sub { "UPDATE $table SET v = $v WHERE k IS NOT DISTINCT FROM $k" },
		sub { "DELETE FROM $table WHERE ctid IN (SELECT ctid FROM $table ORDER BY k, v LIMIT " . (1 + int rand 3) . ')' },
		sub { "DELETE FROM $table WHERE k = $k" })->();
}

run_rounds($node,
	stories => \@stories,
	changes => \&change,
	rounds => 12,
	fixed => [
		'the same value comes on both sides' => q{INSERT INTO a VALUES (9, 'x'), (9, 'x'); INSERT INTO b VALUES (9, 'x')},
		'copies go one by one on both sides' => q{
			DELETE FROM a WHERE ctid = (SELECT min(ctid) FROM a WHERE k = 9); DELETE FROM b WHERE k = 9},
		'a value changes sides' => q{DELETE FROM a WHERE k = 9; INSERT INTO b VALUES (9, 'x')},
		'one side empties' => 'DELETE FROM b',
		'the other side empties, the first comes back' => q{
			DELETE FROM a; INSERT INTO b SELECT i % 3, 'v' || i % 2 FROM generate_series(1, 5) i},
		'and both are back' => q{
			INSERT INTO a SELECT i % 4, nullif('v' || i % 3, 'v0') FROM generate_series(1, 14) i}]);

is($node->sql(q{SELECT count(*) FROM regexp_matches(pgtrickle.explain_stream_table('with_query'), 'step \d+: filter and projection: linear -> __pgt_rows_1\n', 'g')}),
	1, 'a WITH query on two sides is computed once');

$node->stop_applier;
done_testing();
