# t/303_slot_lost.pl
#
# Goal: when the slot does not continue where the stream tables are, they are filled again, once, and it is
#       said; afterwards everything goes on by delta.
# Method: drop the slot, advance it behind the applier's back, invalidate it; make it look like another system.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;

my $node =
  StreamTables::Cluster->new('gap')->boot(conf => "min_wal_size = 32MB\nmax_wal_size = 64MB");
$node->sql(q{CREATE TABLE orders (id serial PRIMARY KEY, customer int, amount int)});
$node->create_stream_table('totals',
	'SELECT customer, sum(amount) AS total FROM orders GROUP BY customer');
$node->create_stream_table('over', 'SELECT customer FROM totals WHERE total > 10');
my @names = qw(totals over);

sub write_something
{
	return $node->sql(
		q{INSERT INTO orders (customer, amount) SELECT i % 3, i FROM generate_series(1, 5) i});
}

sub full_refreshes
{
	return $node->sql(
		q{SELECT count(*) FROM pgtrickle.pgt_history
		WHERE action IN ('FULL', 'REINITIALIZE') AND initiated_by <> 'INITIAL'});
}

# Starts the applier; every stream table must be filled again once, for this reason.
sub filled_again
{
	my ($reason, $test_name) = @_;

	my $before = full_refreshes();
	my $log_start = -s $node->applier_log // 0;
	$node->start_applier;
	$node->wait_until('SELECT bool_and(NOT needs_refill) FROM pgtrickle.pgt_frontiers');
	like(
		slurp_file($node->applier_log, $log_start),
		qr/WARNING:  all stream tables will be filled again: $reason/,
		"the log says why: $test_name");
	is(full_refreshes(), $before + @names, 'each is filled again once');
	write_something();
	$node->wait_fresh(@names);
	$node->is_current($_) foreach @names;
	is(full_refreshes(), $before + @names, 'and then goes on by delta');

	# No loop: a restart, and a restart of the server, find nothing missing.
	$node->stop_applier;
	$node->restart;
	write_something();
	$node->start_applier;
	$node->wait_fresh(@names);
	$node->is_current($_) foreach @names;
	is(full_refreshes(), $before + @names, 'also after restarts');
	$node->stop_applier;
	return;
}

# What was created after set-up and before the first start needs no second fill: its changes are in the WAL.
write_something();
$node->start_applier;
$node->wait_fresh(@names);
$node->is_current($_) foreach @names;
is(full_refreshes(), 0, 'set-up, then stream tables, then the applier: nothing was missed');
$node->stop_applier;

my $slot = 'pgtrickle_postgres';

write_something();
$node->sql("SELECT pg_drop_replication_slot('$slot')");
write_something();
filled_again(qr/replication slot "$slot" did not exist/, 'the slot was dropped');

write_something();
$node->sql("SELECT pg_drop_replication_slot('$slot')");
$node->sql("SELECT pg_create_logical_replication_slot('$slot', 'pgtrickle_decoder')");
write_something();
filled_again(qr/replication slot "$slot" stands at \S+ and not before \S+/,
	'it was made anew by somebody else');

write_something();
$node->sql("SELECT pg_replication_slot_advance('$slot', pg_current_wal_lsn())");
filled_again(qr/replication slot "$slot" stands at/, 'it was advanced by somebody else');

# Too much WAL while no applier ran.
write_something();
$node->sql(q{ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'});
$node->reload;
$node->sql('SELECT pg_switch_wal(); CREATE TABLE scrap (); DROP TABLE scrap') foreach 1 .. 4;
$node->sql('CHECKPOINT');
$node->wait_until(q{SELECT wal_status = 'lost' FROM pg_replication_slots});
my ($ok, $stdout) = $node->try_program('doctor');
like(
	$stdout,
	qr/FAILED +replication slot $slot has been invalidated\n +repair: start the applier/,
	'doctor tells what to do');
$node->sql('ALTER SYSTEM RESET max_slot_wal_keep_size');
$node->reload;
filled_again(qr/replication slot "$slot" had been invalidated/, 'it was invalidated');

# As after a restore into another cluster, or a promotion.
$node->sql(q{UPDATE pgtrickle.pgt_progress SET system_identifier = '42'});
filled_again(qr/the system identifier was 42 and is \d+/, 'another system');
$node->sql(q{UPDATE pgtrickle.pgt_progress SET timeline = 7});
filled_again(qr/the timeline was 7 and is 1/, 'another timeline');
done_testing();
