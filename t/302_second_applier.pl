# t/302_second_applier.pl
#
# Goal: of two appliers one works and the other waits; it takes over when the first ends, whichever way, and a
#       tick that the first one left behind is neither lost nor repeated.
# Method: start two, kill the first between its tick and its feedback, stop the second.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('takeover')->boot(conf => 'pgtrickle.cost_based = off');
$node->sql(q{CREATE TABLE orders (id serial PRIMARY KEY, amount int)});
$node->start_applier;
$node->create_stream_table('totals', 'SELECT count(*) AS n, sum(amount) AS total FROM orders');
$node->wait_fresh('totals');

# Another applier on the same database; the helpers of the cluster know only one at a time.
sub start_another
{
	my $first = delete $node->{st_applier_pid};

	$node->start_applier(wait => 0);
	my $second = $node->applier_pid;
	$node->{st_applier_pid} = $first;
	return $second;
}

sub walsender_pid
{
	return $node->sql(q{SELECT active_pid FROM pg_replication_slots WHERE active});
}

my $log_start = -s $node->applier_log;
my $walsender = walsender_pid();
my $second = start_another();
my $waiting =
  qr/\[$second\] LOG:  waiting: (another applier is at work|replication slot .* is active)/;
$node->wait_until('SELECT true') until slurp_file($node->applier_log, $log_start) =~ $waiting;
$node->sql('INSERT INTO orders (amount) VALUES (1)');
$node->wait_fresh('totals');
is(walsender_pid(), $walsender, 'the second applier waits and does not disturb the first');

$node->kill9_applier;
$node->{st_applier_pid} = $second;
$node->sql('INSERT INTO orders (amount) VALUES (2)');
$node->wait_fresh('totals');
$node->is_current('totals', 'the second takes over when the first is killed');
isnt(walsender_pid(), $walsender, 'with a connection of its own');

# A tick in which the server works for longer than its applier lives: the successor waits until it has ended.
$node->create_stream_table(
	'slow',
	'SELECT id, (SELECT count(*) FROM generate_series(1, 3000000)) AS n FROM orders',
	refresh_mode => 'FULL');
$node->wait_fresh('slow');
$node->sql('INSERT INTO orders (amount) VALUES (3)');
$node->wait_until(
	q{SELECT count(*) > 0 FROM pg_stat_activity
	WHERE application_name = 'pgtrickle refresh' AND query ~ 'tick_execute' AND state = 'active'},
	'a long tick runs');
my $third = start_another();
$node->kill9_applier;
$node->{st_applier_pid} = $third;
$node->sql('INSERT INTO orders (amount) VALUES (4)');
$node->wait_fresh('totals', 'slow');
$node->is_current($_, "$_ is right after a tick that outlived its applier") foreach qw(totals slow);

$log_start = -s $node->applier_log;
$second = start_another();
$waiting = qr/\[$second\] LOG:  waiting/;
$node->wait_until('SELECT true') until slurp_file($node->applier_log, $log_start) =~ $waiting;
$node->stop_applier;
$node->{st_applier_pid} = $second;
$node->sql('INSERT INTO orders (amount) VALUES (5)');
$node->wait_fresh('totals', 'slow');
$node->is_current('totals', 'and when the first is stopped');
$node->assert_no_fallback('totals');
$node->stop_applier;
done_testing();
