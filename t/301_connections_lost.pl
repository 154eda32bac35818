# t/301_connections_lost.pl
#
# Goal: the applier survives the loss of each of its connections, a restart and a crash of the server; a fast shutdown does not
#       have to wait for it.
# Method: terminate its backends one by one while transactions go on, then restart the server in all ways.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;
use Time::HiRes qw(usleep);

my $node = StreamTables::Cluster->new('lost')->boot(conf => 'pgtrickle.cost_based = off');
$node->start_applier;
$node->sql(q{CREATE TABLE orders (id serial PRIMARY KEY, customer int, amount int)});
$node->create_stream_table('totals',
	'SELECT customer, count(*) AS n, sum(amount) AS total FROM orders GROUP BY customer');
$node->create_stream_table('over', 'SELECT customer FROM totals WHERE total > 100');
my $pid = $node->applier_pid;

sub write_something
{
	$node->sql(
		q{INSERT INTO orders (customer, amount) SELECT i % 7, i FROM generate_series(1, 20) i;
		DELETE FROM orders WHERE id % 5 = 3});
	return;
}

sub is_well
{
	my ($after) = @_;

	write_something();
	$node->wait_fresh(qw(totals over));
	$node->is_current('totals', "totals after $after");
	$node->is_current('over', "and what reads it");
	is($node->applier_pid, $pid, 'it is still the same applier');
	return;
}

is_well('the start');
foreach my $connection (qw(stream refresh fence))
{
	write_something();
	is( $node->sql(
			"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'pgtrickle $connection'"
		),
		1,
		"the $connection connection is terminated");
	is_well("the loss of the $connection connection");
}
like(slurp_file($node->applier_log), qr/WARNING:  lost refresh connection: /,
	'the log tells of it');

foreach my $mode (qw(fast immediate))
{
	write_something();
	my $started = time;
	$node->stop($mode);
	cmp_ok(time - $started, '<', 20, "a shutdown ($mode) does not wait for the applier");
	$node->start;
	is_well("a restart ($mode)");
}

# The postmaster dies, and with it everybody; the processes that are left notice by themselves.
write_something();
$node->kill9;
foreach my $try (1 .. 100)
{
	last if $node->start(fail_ok => 1);
	$node->{_pid} = undef;    # the base class takes it from the file that the dead one left
	usleep(100_000);
}
is_well('a crash');

# Changes while no applier runs wait in the WAL.
$node->stop_applier;
write_something();
$node->start_applier;
$pid = $node->applier_pid;
is_well('changes while no applier ran');
$node->assert_no_fallback($_) foreach qw(totals over);
$node->stop_applier;
done_testing();
