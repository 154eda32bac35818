# t/401_fuzz.pl
#
# Goal: whatever query the server can answer, its stream table equals it after every tick, and is maintained by delta unless we say otherwise.
# Method: from a printed seed: random tables of many types, random queries of the whole grammar as stream tables, random transactions over several tables;
#         after each round verify().  What goes wrong is repeated alone, made smaller and printed.
# More: PGTRICKLE_FUZZ_SECONDS (default 20; `make fuzz` runs for half an hour), PGTRICKLE_FUZZ_FINDINGS (when to
#         give up); a world is repeated with PGTRICKLE_SEED; PGTRICKLE_FUZZ_DEBUG=1 shows queries that the server cannot run.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use StreamTables::Fuzz::World;
use Test::More;

my $seconds = $ENV{PGTRICKLE_FUZZ_SECONDS} // ($ENV{PGTRICKLE_LONG} ? 1800 : 20);
my $findings_max = $ENV{PGTRICKLE_FUZZ_FINDINGS} // 8;
my $seed = StreamTables::Cluster::random_seed();

# What needs full refreshes, and says so: docs/explanation/delta-rules.md, "In full".
@StreamTables::Fuzz::World::LISTED = (
	qr/^a (?:subquery in an expression|LATERAL subquery) has no delta rule: it is correlated by other than equalities, and by values, or in a place, for which/,
	qr/^a subquery in an expression has no delta rule: its value is of a type without arrays, and there may be more than one$/,
	qr/^a LATERAL reference from a join below one side of an outer join to the other side has no delta rule$/,
	qr/^(?:grouping|DISTINCT over) rows that never change has no delta rule$/,
	qr/^a join whose conditions are never true has no delta rule$/,
	qr/^the query reads no table whose changes are decoded$/,
	qr/^the result of \w+\(\) depends on the order of rows that its window leaves open$/);

my $node = StreamTables::Cluster->new('fuzz')->boot(conf => "restart_after_crash = on\nmax_locks_per_transaction = 256\npgtrickle.cost_based = off");
$node->sql(StreamTables::Fuzz::Schema::types_sql());
$node->start_applier;

my $until = time + $seconds;
my ($worlds, @findings, %total, %features, %reasons) = (0);
while (time < $until && @findings < $findings_max)
{
	# each world has a seed of its own, by which it can be repeated
	srand($seed + $worlds);
	my $world = StreamTables::Fuzz::World->new($node, seed => $seed + $worlds,
		debug => $ENV{PGTRICKLE_FUZZ_DEBUG} ? sub { diag($_[0]) } : undef);
	push @findings, $world->run(until => $until);
	$total{$_} += $world->{$_} foreach qw(queries ticks comparisons skipped listed slow);
	$features{$_} += $world->{features}{$_} foreach keys %{ $world->{features} };
	$reasons{$_} += $world->{reasons}{$_} foreach keys %{ $world->{reasons} };
	$worlds++;
	last if $ENV{PGTRICKLE_SEED} && !$ENV{PGTRICKLE_FUZZ_SECONDS};
}
diag("$worlds worlds, $total{queries} queries, $total{ticks} ticks, $total{comparisons} comparisons; $total{skipped} queries could not be run, $total{listed} need full refreshes, $total{slow} were too slow");
diag("in full: $reasons{$_} times $_") foreach sort keys %reasons;
diag('constructs: ' . join ', ', map { "$_ $features{$_}" } sort keys %features);
is(join("\n\n", @findings), '', 'every stream table equals its query, and is maintained by delta');
cmp_ok($total{slow}, '<=', 2 + $total{queries} / 100, 'few refreshes take very long');
cmp_ok($total{queries}, '>', 10, 'there were queries');

$node->stop_applier;
done_testing();
