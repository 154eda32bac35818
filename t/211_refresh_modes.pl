# t/211_refresh_modes.pl
#
# Goal: a stream table can change between refresh modes FULL and DIFFERENTIAL without a wrong row, and keeps state
#       tables only while it needs them.
# Method: switch the mode, change the source, compare with the defining query; there and back again.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('modes')->boot;
$node->sql(
	q{CREATE TABLE sales (id int PRIMARY KEY, region int, amount int);
	ALTER TABLE sales REPLICA IDENTITY FULL;
	INSERT INTO sales SELECT i, i % 5, i FROM generate_series(1, 100) i});
$node->start_applier;
$node->create_stream_table('by_region',
	'SELECT region, sum(amount) AS total, count(*) AS n FROM sales GROUP BY region',
	refresh_mode => 'FULL');

sub change_and_compare
{
	my ($change, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->sql($change);
	$node->refresh('by_region');
	$node->is_current('by_region', $what);
}

sub state_tables
{
	return $node->sql('SELECT count(*) FROM pgtrickle.pgt_state_tables');
}

is(state_tables(), 0, 'refreshed in full, it has no state tables');
change_and_compare('INSERT INTO sales VALUES (1000, 1, 5)', 'in full');

$node->sql(q{SELECT pgtrickle.alter_stream_table('by_region', refresh_mode => 'DIFFERENTIAL')});
change_and_compare('INSERT INTO sales VALUES (1001, 1, 5)', 'changed to differential');
is(state_tables(), 1, 'refreshed by delta, it has one for its groups');
change_and_compare('DELETE FROM sales WHERE id IN (7, 1001)', 'by delta');
is($node->sql(q{SELECT action FROM pgtrickle.pgt_history WHERE rows_inserted > 0 ORDER BY refresh_id DESC LIMIT 1}),
	'DIFFERENTIAL', 'that was a refresh by delta');

$node->sql(q{SELECT pgtrickle.alter_stream_table('by_region', refresh_mode => 'FULL')});
change_and_compare('UPDATE sales SET region = 9 WHERE id < 10', 'changed back to full');
is(state_tables(), 0, 'and the state table is gone');

done_testing();
