# t/150_cost.pl
#
# Goal: in mode AUTO each tick goes the way that is expected to cost less, says so, and learns from what it took.
# Method: the same stream table once with one changed row and once with all rows changed; the decisions and estimates are read from the
#         history.  Time itself is never asserted: what was observed is put into the catalog by hand, to see it move the choice.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('cost')->boot(conf => "autovacuum = off\n"); # statistics, and so estimates, stay
$node->sql(
	q{CREATE TABLE items (id int PRIMARY KEY, kind int NOT NULL, owner int NOT NULL, amount int NOT NULL);
	CREATE TABLE owners (id int PRIMARY KEY, region int NOT NULL);
	INSERT INTO items SELECT g, g % 200, g % 2000, g % 97 FROM generate_series(1, 40000) g;
	INSERT INTO owners SELECT g, g % 20 FROM generate_series(0, 1999) g;
	ALTER TABLE items REPLICA IDENTITY FULL; ALTER TABLE owners REPLICA IDENTITY FULL;
	ANALYZE});
$node->start_applier;
my $query = 'SELECT o.region, i.kind, count(*) AS n, sum(i.amount) AS total FROM items i JOIN owners o ON o.id = i.owner GROUP BY 1, 2';
$node->create_stream_table('by_auto', $query);
$node->create_stream_table('by_delta', $query, refresh_mode => 'DIFFERENTIAL');
$node->create_stream_table('flat', 'SELECT id, amount * 2 AS twice FROM items WHERE kind <> 3');

# The newest row of the history: action, decision.
sub last_refresh
{
	my ($name, $columns) = @_;

	return $node->sql("SELECT $columns FROM pgtrickle.pgt_refresh_history h JOIN pgtrickle.pgt_stream_tables USING (pgt_id)
		WHERE pgt_name = '$name' AND action <> 'NO_DATA' ORDER BY refresh_id DESC LIMIT 1");
}

sub refresh_all
{
	$node->refresh($_) foreach qw(by_auto by_delta flat);
	$node->is_current($_) foreach qw(by_auto by_delta flat);
	return;
}

sub change
{
	my ($statement) = @_;

	$node->sql($statement);
	refresh_all();
	return;
}

change('UPDATE items SET amount = amount + 1 WHERE id = 7');
is(last_refresh('by_auto', 'action, decision, estimated_delta_ms < 10, estimated_full_ms IS NULL'), 'DIFFERENTIAL||t|t',
	'one row: by delta, and not worth weighing');

change('UPDATE items SET amount = amount + 1');
is(last_refresh('by_auto', 'action, decision, was_full_fallback, estimated_delta_ms > estimated_full_ms'), 'FULL|FULL|t|t',
	'all rows: in full, which was expected to cost less');
like(last_refresh('by_auto', 'reason'), qr/^cheaper than by delta: \d+ ms against \d+ ms expected$/, 'the reason says so');
is(last_refresh('by_delta', 'action, decision, estimated_delta_ms'), 'DIFFERENTIAL||', 'mode DIFFERENTIAL has no choice and weighs nothing');
like($node->sql("SELECT value FROM pgtrickle.explain_st('by_auto') WHERE property = 'last_decision'"),
	qr/^FULL: [\d.]+ ms expected by delta, [\d.]+ ms in full; took [\d.]+ ms$/, 'explain shows the last decision');
is($node->sql("SELECT full_cost_factor > 0 FROM pgtrickle.pgt_frontiers JOIN pgtrickle.pgt_stream_tables USING (pgt_id)
	WHERE pgt_name = 'by_auto'"), 't', 'the time that it took is remembered as a factor of the estimate');

change('UPDATE items SET amount = amount + 1 WHERE id = 8');
is(last_refresh('by_auto', 'action'), 'DIFFERENTIAL', 'one row again: by delta again');

# What was observed moves the choice; the applier's session reads it when it loads the stream table.
sub pretend
{
	my ($delta_factor, $full_factor) = @_;

	$node->sql("UPDATE pgtrickle.pgt_frontiers SET delta_cost_factor = $delta_factor, full_cost_factor = $full_factor;
		ALTER TABLE items SET (autovacuum_enabled = off)"); # an invalidation: load it again
	return;
}
my $tenth = 'UPDATE items SET amount = amount + 1 WHERE id % 10 = 3';
pretend(0.01, 100);
change($tenth);
is(last_refresh('by_auto', 'action, decision'), 'DIFFERENTIAL|DELTA', 'deltas were fast and full refreshes slow: by delta');
pretend(100, 0.01);
change($tenth);
is(last_refresh('by_auto', 'action, decision'), 'FULL|FULL', 'the other way round: in full');

# The margin: a delta that is a little dearer does not change the way that was chosen last.
my ($delta_ms, $full_ms) = split /\|/, last_refresh('by_auto', 'estimated_delta_ms / 100, estimated_full_ms / 0.01');
pretend(1.1 * $full_ms / $delta_ms, 1);
change($tenth);
is(last_refresh('by_auto', 'action, decision, estimated_delta_ms > estimated_full_ms'), 'DIFFERENTIAL|DELTA|t',
	'without a choice before it, a delta that is dearer by a tenth is still taken');
pretend(1.3 * $full_ms / $delta_ms, 1);
change($tenth);
is(last_refresh('by_auto', 'action, decision'), 'FULL|FULL', 'one that is dearer by a third is not');

$node->append_conf('postgresql.conf', 'pgtrickle.cost_based = off');
$node->reload;
change('UPDATE items SET amount = amount + 1');
is(last_refresh('by_auto', 'action, decision'), 'DIFFERENTIAL|', 'with pgtrickle.cost_based = off nothing is weighed');

done_testing();
