# t/185_immediate_fuzz.pl
#
# Goal: whatever query can be IMMEDIATE, its stream table equals it after every statement, inside the transaction, and after transactions at once.
# Method: from a printed seed: random tables, random queries, random transactions (StreamTables::Fuzz::Immediate).
# More: PGTRICKLE_FUZZ_SECONDS (default 10; 600 with PGTRICKLE_LONG=1); a world is repeated with PGTRICKLE_SEED.  What runs at once is never
#       the same twice; the log of a finding says what ran.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use StreamTables::Fuzz::Immediate;
use Test::More;

my $seconds = $ENV{PGTRICKLE_FUZZ_SECONDS} // ($ENV{PGTRICKLE_LONG} ? 600 : 10);
my $seed = StreamTables::Cluster::random_seed();

# What cannot be IMMEDIATE, and says so.
my @LISTED = (
	qr/has no delta rule|have no delta rule|read no columns|reads no table/,
	qr/depends on the order of rows/,
	qr/A trigger cannot tell|reads ONLY/,
	qr/is a partition or child/);

my $node = StreamTables::Cluster->new('immediate_fuzz')->boot(setup => 'extension', conf => "deadlock_timeout = 50ms\nmax_locks_per_transaction = 256\nrestart_after_crash = on");
$node->sql(StreamTables::Fuzz::Schema::types_sql());

my $until = time + $seconds;
my ($worlds, @findings, %total, %refused, %errors) = (0);
while (!$worlds || (time < $until && @findings < 8))
{
	srand($seed + $worlds);
	my $world = StreamTables::Fuzz::Immediate->new($node, seed => $seed + $worlds);
	push @findings, $world->run(stream_tables => 5, transactions => 8, at_once => 5, until => $until + 5);
	$total{$_} += $world->{$_} foreach qw(comparisons statements);
	$total{queries} += $world->{number} // 0;
	$refused{$_} += $world->{refused}{$_} foreach keys %{ $world->{refused} };
	$errors{$_} += $world->{errors}{$_} foreach keys %{ $world->{errors} };
	$worlds++;
	last if $ENV{PGTRICKLE_SEED} && !$ENV{PGTRICKLE_FUZZ_SECONDS};
}
diag("$worlds worlds, $total{queries} queries, $total{statements} statements, $total{comparisons} comparisons; errors: " . join ', ', map { "$errors{$_} times $_" } sort keys %errors);
is(join("\n\n", @findings), '', 'every stream table equals its query after every statement');
my @unlisted = grep { my $reason = $_; !grep { $reason =~ $_ } @LISTED } sort keys %refused;
is(join("\n", @unlisted), '', 'what cannot be IMMEDIATE is on the list');
cmp_ok($total{comparisons}, '>', 20, 'there were comparisons');

done_testing();
