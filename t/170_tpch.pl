# t/170_tpch.pl
#
# Goal: the 22 queries of TPC-H, all at once, equal their text after every tick, each with the strategy that we say it has.
# Method: small data that gives every query an answer; ticks in which seven tables change together: the specification's two refresh
#         functions, updates of orders and lineitem, and of what they refer to.
# More: bench/tpch.py does the same at scale, and measures.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use StreamTables::Tpch qw(tpch_file tpch_queries tpch_changes);
use Test::More;

# Queries that may need full refreshes.  Every other one is maintained by delta.
my %MAY_BE_FULL = map { $_ => 1 } qw(q2 q4 q11 q15 q16 q17 q18 q20 q21 q22);

my $node = StreamTables::Cluster->new('tpch')->boot;
$node->sql(join "\n", map { tpch_file($_) } qw(schema.sql small_data.sql keys.sql));
my ($before, @queries) = tpch_queries();
$node->sql($before);
$node->start_applier;

foreach (@queries)
{
	my ($name, $query) = @$_;

	$node->create_stream_table($name, $query, schedule => 'manual');
	my $reason = $node->sql("SELECT downgrade_reason FROM pgtrickle.explain_refresh_mode('$name')");
	diag("$name: $reason") if $reason ne '';
	is($reason, '', "$name: by delta") if !$MAY_BE_FULL{$name};
	$node->sql("SELECT pgtrickle.alter_stream_table('$name', refresh_mode => 'DIFFERENTIAL')") if !$MAY_BE_FULL{$name};
}
is(scalar @queries, 22, 'there are 22 queries');

# A refresh of what reads all of them is a tick of all of them.
$node->create_stream_table('all_of_them', join(' UNION ALL ', map { "SELECT '$_->[0]' AS name FROM $_->[0]" } @queries),
	schedule => 'manual');
my @shares = (50, 400, 10);
foreach my $round (1 .. 3)
{
	$node->sql(tpch_changes(every => $shares[ $round - 1 ], round => $round, dimensions => 1));
	$node->refresh('all_of_them');
	is($node->sql("SELECT count(DISTINCT frontier->>'snapshot') FROM pgtrickle.pgt_stream_tables"), 1, "round $round: one tick");
	$node->verify($_->[0], "round $round: $_->[0] equals its query") foreach @queries;
}
foreach my $name (map { $_->[0] } @queries)
{
	isnt($node->sql("SELECT count(*) FROM $name"), 0, "$name has rows");
	$node->assert_no_fallback($name) if !$MAY_BE_FULL{$name};
}

$node->stop_applier;
done_testing();
