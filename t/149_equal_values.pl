# t/149_equal_values.pl
#
# Goal: of values that are equal but not identical (1.0 and 1.00, 'Oslo' and 'OSLO' in citext), a stream table shows one that is
#       there, always the one that verify() expects, while they come, change into each other and go.
# Method: a table whose columns have few values in several images each; stream tables with these as group keys, in DISTINCT, in set operations,
#         in min() and max(), in expressions over keys, below joins, and joined by other equalities than their own; rounds of random changes, compared by verify(), byte by byte.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster qw(random_seed pick);
use StreamTables::Rounds qw(run_rounds);
use Test::More;

random_seed();
my $node = StreamTables::Cluster->new('equal_values')->boot;
$node->start_applier;
$node->sql(q{
	CREATE EXTENSION citext;
	CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
	CREATE TABLE e (id int PRIMARY KEY, k int, n numeric, m numeric(8,2), c citext, t text COLLATE caseless, i interval, f float8, j jsonb,
		a numeric[], r numrange);
	CREATE TABLE o (n numeric, c citext);
	CREATE TABLE p (t text PRIMARY KEY)});

my %IMAGES = (
	n => [qw(NULL 1 1.0 1.00 2.50 2.5 0 0.000)],
	m => [qw(NULL 1 2.5 0)],
	c => [ 'NULL', map { "'$_'" } qw(Oslo OSLO oslo Bergen BERGEN) ],
	t => [ 'NULL', map { "'$_'" } qw(Oslo OSLO oslo Bergen BERGEN) ],
	i => [ 'NULL', map { "interval '$_'" } '1 day', '24 hours', '23 hours 60 minutes', '2 days' ],
	f => [ 'NULL', "'0'", "'-0'", "'1'", "'NaN'" ],
	j => [ 'NULL', map { "'$_'" } '{"a": 1}', '{"a": 1.0}', '[1.00]', '[1]' ],
	a => [ 'NULL', map { "'$_'" } '{1,2}', '{1.0,2}', '{1,2.00}' ],
	r => [ 'NULL', map { "'$_'" } '[1,2)', '[1.0,2)', '[1,2.00)' ]);
my @COLUMNS = sort keys %IMAGES;
my $next_id = 1;

sub value_of
{
	my ($column) = @_;

	return pick(@{ $IMAGES{$column} });
}

sub insert
{
	return 'INSERT INTO e (id, k, ' . join(', ', @COLUMNS) . ') VALUES (' . join(', ', $next_id++, int rand 3, map { value_of($_) } @COLUMNS) . ')';
}
$node->sql(join ';', map({ insert() } 1 .. 15), map { 'INSERT INTO o VALUES (' . value_of('n') . ', ' . value_of('c') . ')' } 1 .. 5);

my @stories = (
	by_numeric => 'SELECT n, count(*) AS c, sum(k) AS s FROM e GROUP BY n',
	by_fixed_scale => 'SELECT m, count(*) AS c FROM e GROUP BY m',
	by_extract => 'SELECT extract(day FROM i) AS d, count(*) AS c FROM e GROUP BY extract(day FROM i)',
	by_all_types => 'SELECT c, t, i, f, j, a, r, count(*) AS rows FROM e GROUP BY c, t, i, f, j, a, r',
	by_citext => 'SELECT c, count(*) AS rows, count(DISTINCT t) AS names, max(t) AS hi FROM e GROUP BY c',
	by_hidden_key => 'SELECT count(*) AS c FROM e GROUP BY n',
	over_keys => q{SELECT n + 1 AS next, n::text || c::text AS shown, count(*) AS rows FROM e GROUP BY n, c HAVING n::text <> '2.50'},
	with_recomputed => 'SELECT n, array_agg(id ORDER BY id) AS ids FROM e GROUP BY n',
	extrema => 'SELECT k, min(n) AS lo, max(n) AS hi, max(i) AS i, min(t) AS t, max(c) AS c, max(a) AS a FROM e GROUP BY k',
	all_extrema => 'SELECT min(n) AS lo, max(n) AS hi, max(f) AS f, max(i) AS i FROM e WHERE f > 0 OR f IS NULL',
	distinct_rows => 'SELECT DISTINCT k, n, c, t FROM e',
	distinct_groups => 'SELECT DISTINCT n, count(*) > 2 AS many FROM e GROUP BY n, k',
	united => 'SELECT n, c FROM e UNION SELECT m, c FROM e UNION ALL SELECT n, c FROM o WHERE n > 1',
	sides_except => 'SELECT n, c FROM e EXCEPT SELECT n, c FROM o',
	sides_except_all => 'SELECT n FROM e EXCEPT ALL SELECT m FROM e WHERE k > 0',
	sides_intersect => 'SELECT n FROM e INTERSECT SELECT n FROM o',
	sides_intersect_all => 'SELECT c FROM e INTERSECT ALL SELECT c FROM o',
	mixed_tree => q{WITH x AS (SELECT n, c FROM e), y AS (SELECT n, c FROM o)
		(TABLE x EXCEPT TABLE y) UNION ALL (TABLE y INTERSECT TABLE x) UNION ALL SELECT n, c FROM y},
	limited_union => 'SELECT n FROM e UNION SELECT n FROM o ORDER BY n DESC NULLS LAST LIMIT 2',
	rolled_up => 'SELECT n, c, GROUPING(n, c) AS g, count(*) AS rows, max(n) AS hi FROM e GROUP BY ROLLUP (n, c)',
	in_subquery => 'SELECT d.n, o.c, o.n AS o_n FROM (SELECT n, count(*) AS c FROM e GROUP BY n) d JOIN o ON o.n = d.n',
	two_levels => 'SELECT g.c, count(*) AS groups, max(g.n) AS hi FROM (SELECT n, c, count(*) AS rows FROM e GROUP BY n, c) g GROUP BY g.c',
	over_join => 'SELECT o.c, e.n, count(*) AS rows FROM e JOIN o ON o.n = e.n GROUP BY o.c, e.n',
	# who joins by another equality than that of the columns
	told_apart => 'SELECT o.c, o.n, e.id FROM o LEFT JOIN e ON o.n::text > e.n::text',
	told_apart_by_bytes => 'SELECT e.id, e.t, o.c FROM e LEFT JOIN o ON e.t COLLATE "C" > o.c::text',
	compared_by_bytes => 'SELECT e.id, e.t FROM e WHERE NOT EXISTS (SELECT FROM o WHERE e.t > o.c::text COLLATE "C")',
	taken_together => 'SELECT o.n, e.id FROM o LEFT JOIN e ON o.c::text COLLATE caseless = e.c::text',
	taken_together_full => 'SELECT o.n, e.id FROM o FULL JOIN e ON o.c::text COLLATE caseless = e.c::text',
	found_by_key => 'SELECT o.n, p.t FROM o LEFT JOIN p ON o.c::text COLLATE caseless = p.t',
	exists_together => 'SELECT o.n, o.c FROM o WHERE EXISTS (SELECT FROM e WHERE o.c::text COLLATE caseless = e.c::text)',
	sum_together => 'SELECT o.n, o.c, (SELECT sum(e.k) FROM e WHERE o.c::text COLLATE caseless = e.c::text) AS s FROM o',
	one_of_them => 'SELECT o.n, x.id FROM o, LATERAL (SELECT e.id FROM e WHERE o.c::text COLLATE caseless = e.c::text ORDER BY e.id LIMIT 1) x');

sub change
{
	my $column = pick(@COLUMNS);
	my $value = value_of($column);

	return pick(
		sub { insert() },
		sub { insert() },
		sub { "UPDATE e SET $column = $value WHERE id % 4 = " . int rand 4 },
		sub { "UPDATE e SET n = n + 0.000 WHERE id % 3 = " . int rand 3 },
		sub { "UPDATE e SET c = upper(c::text), t = lower(t) WHERE id % 3 = " . int rand 3 },
		sub { 'DELETE FROM e WHERE id % 6 = ' . int rand 6 },
		sub { 'INSERT INTO o VALUES (' . value_of('n') . ', ' . value_of('c') . ')' },
		sub { 'UPDATE o SET n = ' . value_of('n') . ' WHERE c = ' . value_of('c') },
		sub { 'DELETE FROM o WHERE n = ' . value_of('n') },
		sub { 'INSERT INTO p SELECT c FROM o WHERE c IS NOT NULL ON CONFLICT DO NOTHING' },
		sub { "DELETE FROM p WHERE t < 'O'" })->();
}

run_rounds($node,
	# as references: from outside the server may show another one of the equal values
	stories => [ map { $_ % 2 ? \$stories[$_] : $stories[$_] } 0 .. $#stories ],
	changes => \&change,
	rounds => 15,
	fixed => [
		'all images of a value but one go' => q{DELETE FROM e WHERE n = 1 AND n::text <> '1.00'; DELETE FROM e WHERE c = 'oslo' AND c::text <> 'OSLO'},
		'the last one becomes another' => q{UPDATE e SET n = 1.000 WHERE n = 1; UPDATE e SET c = 'osLO', t = 'osLO' WHERE c = 'oslo'}]);

is($node->sql('SELECT n::text FROM by_numeric EXCEPT SELECT n::text FROM e'), '', 'a group shows a number that one of its rows has');
is($node->sql('SELECT c::text FROM by_citext EXCEPT SELECT c::text FROM e'), '', 'and a text');
is($node->sql('SELECT n::text FROM sides_except_all EXCEPT SELECT n::text FROM e'), '', 'EXCEPT shows values of its left side');
unlike($node->sql("SELECT pgtrickle.explain_st('by_fixed_scale')"), qr/image/, 'a fixed scale needs nothing of this');
unlike($node->sql("SELECT pgtrickle.explain_st('by_extract')"), qr/image/, 'nor does extract()');

$node->stop_applier;
done_testing();
