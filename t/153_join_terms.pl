# t/153_join_terms.pl
#
# Goal: the delta of a join of three to seven tables is the same however it is made up: one term for each combination of changed inputs, one for each changed
#       input, or join by join.  A term whose inputs did not change is not there at all.
# Method: the same joins, flat and as nested subqueries, in a tick in which all tables change; with the setting that separates the first two ways at
#         its ends and where it is by default.  What is there when one table has changed is read from the plans that step_plans() shows.
# More: PGTRICKLE_LONG=1 has larger tables and shows what each way took.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use Test::More;

my $TABLES = $ENV{PGTRICKLE_LONG} ? 8 : 7;
my $ROWS = $ENV{PGTRICKLE_LONG} ? 20000 : 300;

my $node = StreamTables::Cluster->new('terms')->boot(conf => "autovacuum = off\njit = off\npgtrickle.cost_based = off");
foreach my $i (1 .. $TABLES)
{
	$node->sql(qq{CREATE TABLE t$i (id int PRIMARY KEY, k int, v int);
		INSERT INTO t$i SELECT g, 1 + (g * 7) % $ROWS, g % 10 FROM generate_series(1, $ROWS) g;
		CREATE INDEX ON t$i (k); ANALYZE t$i});
}

# t1.k = t2.id, t2.k = t3.id, ...
sub flat_join
{
	my ($k) = @_;

	return 'SELECT ' . join(', ', map { "t$_.id AS i$_" } 1 .. $k) . ", t1.v + t$k.v AS v FROM " . join(', ', map { "t$_" } 1 .. $k) . ' WHERE '
	  . join(' AND ', map { 't' . ($_ - 1) . ".k = t$_.id" } 2 .. $k);
}

sub binary_join
{
	my ($k) = @_;

	my $from = '(SELECT t1.id AS i1, t1.v AS v1, t1.k AS next FROM t1) j1';
	foreach my $i (2 .. $k)
	{
		my $before = $i - 1;
		$from = "(SELECT " . join(', ', map { "j$before.i$_" } 1 .. $before) . ", t$i.id AS i$i, j$before.v1, t$i.k AS next, t$i.v AS last FROM $from JOIN t$i ON t$i.id = j$before.next) j$i";
	}
	return 'SELECT ' . join(', ', map { "i$_" } 1 .. $k) . ", v1 + last AS v FROM $from";
}

$node->start_applier;
foreach my $k (3 .. $TABLES)
{
	$node->create_stream_table("flat$k", flat_join($k), schedule => 'manual');
	$node->create_stream_table("binary$k", binary_join($k), schedule => 'manual');
}

sub change_all
{
	my ($seed) = @_;

	my $step = $ENV{PGTRICKLE_LONG} ? 500 : 20;
	$node->sql('BEGIN; ' . join('', map {
				my $new = $ROWS + $seed * 10 + $_;
				"UPDATE t$_ SET k = 1 + (k * 3 + $seed) % $ROWS, v = v + 1 WHERE id % $step = ($seed + $_) % $step;
				DELETE FROM t$_ WHERE id % $step = ($seed + $_ + 7) % $step AND id % 3 = 0;
				INSERT INTO t$_ VALUES ($new, $seed, $_);" } 1 .. $TABLES) . ' COMMIT');
	return;
}

sub took
{
	my ($name) = @_;

	return $node->sql("SELECT round(duration_ms::numeric, 1) FROM pgtrickle.pgt_refresh_history JOIN pgtrickle.pgt_stream_tables USING (pgt_id)
		WHERE pgt_name = '$name' ORDER BY refresh_id DESC LIMIT 1");
}

my $seed = 1;
foreach my $way ([ 1, 'one term for each changed input' ], [ 3, 'one for each past three' ], [ -1, 'the default' ])
{
	my ($most, $what) = @$way;
	# the planner loses its way among old states of many large tables
	my $tables = $most > 0 && $ENV{PGTRICKLE_LONG} ? 5 : $TABLES;

	$node->stop_applier;
	$node->append_conf('postgresql.conf', "pgtrickle.flat_join_inputs_max = $most");
	$node->reload;
	$node->start_applier;
	# twice: the first has to plan
	foreach my $round (1, 2)
	{
		change_all($seed++);
		$node->refresh($_) foreach map { ("flat$_", "binary$_") } 3 .. $tables;
		foreach my $k (3 .. $tables)
		{
			is($node->difference("flat$k"), '', "$what, $k tables, round $round: the delta is that of the join");
			is( $node->sql("SELECT count(*) FROM ((SELECT * FROM flat$k EXCEPT ALL SELECT * FROM binary$k) UNION ALL (SELECT * FROM binary$k EXCEPT ALL SELECT * FROM flat$k)) d"),
				0, "$what, $k tables, round $round: the same as join by join");
		}
		diag("$what" . ($round == 1 ? ', first' : '') . ': ' . join ', ', map { "$_ tables " . took("flat$_") . ' ms, join by join ' . took("binary$_") . ' ms' } 3 .. $tables)
		  if $ENV{PGTRICKLE_LONG};
	}
}
$node->assert_no_fallback("flat$_") foreach 3 .. $TABLES;

# --- terms whose inputs are empty
is( $node->sql(q{SELECT string_agg(DISTINCT reads, ' ') FROM (SELECT changed,
			(SELECT count(*) FROM regexp_matches(plan, 'Named Tuplestore Scan', 'g'))::text AS reads FROM pgtrickle.step_plans('flat7')) p}),
	'1', 'one changed table of seven: one term, which reads its delta once');
is($node->sql(q{SELECT count(*) FROM pgtrickle.step_plans('flat7')}), 7, 'whichever it is');

$node->stop_applier;
done_testing();
