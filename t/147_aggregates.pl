# t/147_aggregates.pl
#
# Goal: aggregates that are maintained by adding and taking away show exactly what the server shows, digit by digit; all others, too,
#       and DISTINCT inside of them.
# Method: a table with integers of all sizes, numbers in several scales, NaN and infinities, intervals, money, booleans; stream tables with every
#         aggregate of a kind, grouped and not, with FILTER, over joins; rounds of random changes in which groups empty, revive, and
#         lose their only NaN.  Images are compared, so a wrong scale would show.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster qw(random_seed pick);
use StreamTables::Rounds qw(run_rounds);
use Test::More;

random_seed();
my $node = StreamTables::Cluster->new('aggregates')->boot;
$node->start_applier;
$node->sql(q{
	CREATE TABLE v (id int PRIMARY KEY, k int, i2 smallint, i4 int, i8 bigint, n numeric, m numeric(12,2), f float8, iv interval, c money, b boolean,
		s text, d date, a int[], ip inet);
	CREATE TABLE o (k int, w int)});

my %VALUES = (
	i2 => [qw(NULL 0 1 -5 300)],
	i4 => [qw(NULL 0 7 -2000000000 2000000000 12345)],
	i8 => [qw(NULL 0 9000000000000000000 -9000000000000000000 42)],
	n => [ qw(NULL 0 1 1.50 -2.125 1e-20 12345678901234567890.123 3.000), "'NaN'", "'Infinity'", "'-Infinity'" ],
	m => [qw(NULL 0 1 9.99 -1234567.89)],
	f => [qw(NULL 0 1 2.5)],
	iv => [ 'NULL', map { "interval '$_'" } '1 day', '1 mon -3 days', '04:05:06.789', '-2 years', '24 hours' ],
	c => [ 'NULL', map { "'$_'::money" } '1.50', '-20', '1000000' ],
	b => [qw(NULL true true false)],
	s => [ 'NULL', map { "'$_'" } qw(x y z) ],
	d => [ 'NULL', map { "date '2024-01-0$_'" } 1 .. 4 ],
	a => [ 'NULL', map { "'{$_}'" } '1,2', '1', '3' ],
	ip => [ 'NULL', map { "inet '$_'" } '10.0.0.1', '10.0.0.0/8' ]);
my @COLUMNS = sort keys %VALUES;
my $next_id = 1;

sub value_of
{
	my ($column) = @_;

	return pick(@{ $VALUES{$column} });
}

sub insert
{
	my $k = pick('NULL', 0 .. 3);
	return 'INSERT INTO v (id, k, ' . join(', ', @COLUMNS) . ") VALUES (" . $next_id++ . ", $k, " . join(', ', map { value_of($_) } @COLUMNS) . ')';
}
$node->sql(join ';', (map { insert() } 1 .. 20), 'INSERT INTO o VALUES (1, 1), (1, 2), (2, 3), (NULL, 4)');

# every aggregate of variances over one column
sub variances
{
	my ($column) = @_;

	my @calls = map { "$_($column) AS $_" } qw(var_pop var_samp variance stddev_pop stddev_samp stddev);
	return join ', ', @calls;
}

my @stories = (
	(map { ("variances_$_" => 'SELECT k, ' . variances($_) . ' FROM v GROUP BY k') } qw(i2 i4 i8 n m)),
	all_variances => 'SELECT ' . variances('n') . ', avg(n) AS mean, sum(n) AS total FROM v',
	finite_variances => q{SELECT k, } . variances('n') . q{ FROM v WHERE n < 'Infinity' AND n > '-Infinity' GROUP BY k},
	small_variances => 'SELECT k, ' . variances('n / 1e12') . ' FROM v WHERE abs(n) < 100 GROUP BY k',
	large_variances => 'SELECT k, ' . variances('i8 / 3') . ', ' . join(', ', map { "$_(i2 * 1000) AS ${_}2" } qw(var_pop stddev)) . ' FROM v GROUP BY k',
	filtered => q{SELECT k, stddev(i4) FILTER (WHERE b) AS s, sum(iv) FILTER (WHERE NOT b) AS iv, bool_or(b) FILTER (WHERE i4 > 0) AS o FROM v GROUP BY k},
	intervals => 'SELECT k, sum(iv) AS total, avg(iv) AS mean, count(iv) AS c FROM v GROUP BY k',
	all_intervals => 'SELECT sum(iv) AS total, avg(iv) AS mean FROM v WHERE k > 0',
	monies => 'SELECT k, sum(c) AS total, max(c) AS hi FROM v GROUP BY k',
	all_monies => 'SELECT sum(c) AS total FROM v WHERE b',
	booleans => 'SELECT k, bool_and(b) AS a, bool_or(b) AS o, every(b AND i4 > 0) AS e, bool_and(i4 <> 7) AS n FROM v GROUP BY k',
	all_booleans => 'SELECT bool_and(b) AS a, bool_or(b) AS o, every(b) AS e FROM v WHERE k = 2',
	having_any => 'SELECT k, count(*) AS c FROM v GROUP BY k HAVING bool_or(b) AND stddev(i2) > 0',
	over_join => 'SELECT o.w, sum(v.iv) AS iv, stddev(v.m) AS s, bool_and(v.b) AS b, variance(v.i2 * o.w) AS x FROM v JOIN o ON o.k = v.k GROUP BY o.w',
	extrema => 'SELECT k, min(s) AS s, max(d) AS d, min(a) AS a, max(ip) AS ip, min(m) AS m, max(i8) AS i8, min(f) AS f FROM v GROUP BY k',
	distinct_counts => 'SELECT k, count(DISTINCT s) AS s, count(DISTINCT d) AS d, count(*) AS c, sum(i4) AS i4 FROM v GROUP BY k',
	distinct_only => 'SELECT k, count(DISTINCT a) AS a FROM v GROUP BY k',
	distinct_sums => 'SELECT k, sum(DISTINCT i4) AS i4, avg(DISTINCT i2) AS i2, sum(DISTINCT m) AS m, count(DISTINCT s || k) AS sk FROM v GROUP BY k',
	distinct_all => 'SELECT count(DISTINCT s) AS s, sum(DISTINCT i8) AS i8, avg(m) AS m FROM v',
	distinct_filtered => q{SELECT k, count(DISTINCT s) FILTER (WHERE b) AS b, count(DISTINCT s) FILTER (WHERE NOT b) AS nb, max(DISTINCT d) AS d FROM v GROUP BY k},
	distinct_having => 'SELECT k, max(i4) AS hi FROM v GROUP BY k HAVING count(DISTINCT s) > 1 ORDER BY count(DISTINCT d)',
	distinct_join => 'SELECT o.w, count(DISTINCT v.s) AS s, count(DISTINCT v.d) AS d, sum(v.m) AS m FROM v JOIN o ON o.k = v.k GROUP BY o.w',
	distinct_in_expressions => 'SELECT k + 1 AS k, 100 * count(DISTINCT s) / count(*) AS share FROM v GROUP BY k',
	distinct_rolled_up => 'SELECT k, b, count(DISTINCT s) AS s, stddev(i4) AS sd FROM v GROUP BY ROLLUP (k, b)',
	distinct_extrema => 'SELECT k, min(DISTINCT i4) AS lo, max(DISTINCT s) AS hi, bool_or(DISTINCT b) AS b FROM v GROUP BY k',
	recomputed => q{SELECT k, bit_and(i4) AS ba, bit_or(i2) AS bo, bit_xor(i8) AS bx, string_agg(s, ',' ORDER BY id) AS list, array_agg(i4 ORDER BY id) AS ints,
		jsonb_object_agg(id, s) AS o, percentile_cont(0.5) WITHIN GROUP (ORDER BY i4) AS med, mode() WITHIN GROUP (ORDER BY s) AS often,
		rank(5) WITHIN GROUP (ORDER BY i4) AS r, sum(f) AS f, range_agg(int4range(i2, i2 + 2)) AS ra FROM v GROUP BY k},
	mixed => q{SELECT k, count(*) AS c, count(DISTINCT s) AS s, string_agg(s, ',' ORDER BY id) AS list FROM v GROUP BY k});

sub change
{
	my $column = pick(@COLUMNS);
	my $k = pick('NULL', 0 .. 3);

	return pick(
		sub { insert() },
		sub { insert() },
		sub { "UPDATE v SET $column = " . value_of($column) . ' WHERE id % 5 = ' . int rand 5 },
		sub { "UPDATE v SET $column = " . value_of($column) . " WHERE k IS NOT DISTINCT FROM $k" },
		sub { "UPDATE v SET k = $k WHERE id % 4 = " . int rand 4 },
		sub { "UPDATE v SET n = round(n, 1), m = -m WHERE id % 3 = 0 AND n <> 'NaN'" },
		sub { "DELETE FROM v WHERE n = 'NaN' OR abs(n) = 'Infinity'" },
		sub { 'DELETE FROM v WHERE id % 6 = ' . int rand 6 },
		sub { "DELETE FROM v WHERE k IS NOT DISTINCT FROM $k" },
		sub { "INSERT INTO o VALUES ($k, " . int(rand 4) . ')' },
		sub { "DELETE FROM o WHERE w = " . int rand 4 })->();
}

run_rounds($node,
	stories => \@stories,
	changes => \&change,
	rounds => 12,
	fixed => [
		'every value comes twice' => 'INSERT INTO v SELECT id + 10000, k, i2, i4, i8, n, m, f, iv, c, b, s, d, a, ip FROM v',
		'and goes once' => 'DELETE FROM v WHERE id < 10000',
		'all groups empty' => 'DELETE FROM v',
		'and revive' => join ';', map { insert() } 1 .. 10 ]);

foreach my $name (qw(variances_i4 variances_n intervals monies booleans over_join distinct_counts distinct_all distinct_filtered distinct_join distinct_rolled_up distinct_extrema))
{
	unlike($node->sql("SELECT pgtrickle.explain_st('$name')"), qr/affected keys/, "$name is maintained by adding and taking away");
}

$node->stop_applier;
done_testing();
