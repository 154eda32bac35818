# t/032_idle.pl
#
# Goal: when nothing happens, nothing happens: no WAL, no processor time, no ticks; and what happens
#       elsewhere in the database makes no ticks either, but does not hold the slot.
# Method: let the applier come to rest, then compare the insert position and the applier's processor time over a few
#         seconds; then write into a table that no stream table reads.
use strict;
use warnings FATAL => 'all';

use POSIX ();
use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;
use Time::HiRes qw(sleep);

# Nobody else writes WAL: no autovacuum, and no checkpoints or snapshots of running transactions within the test.
my $node = StreamTables::Cluster->new('idle')
  ->boot(conf => "autovacuum = off\ncheckpoint_timeout = 1h\nwal_sender_timeout = 6s");
$node->start_applier(args => [ '--heartbeat', 1 ]);
$node->sql(
	q{CREATE TABLE orders (id serial PRIMARY KEY, amount int);
	CREATE TABLE elsewhere (id int, filler text)});
$node->create_stream_table('totals', 'SELECT count(*) AS n, sum(amount) AS total FROM orders');
$node->create_stream_table('slow', 'SELECT id FROM orders', schedule => '1h');
$node->sql('INSERT INTO orders (amount) SELECT i FROM generate_series(1, 100) i');
$node->refresh($_) foreach qw(totals slow);

# In clock ticks: user and system time of the applier.
sub processor_time
{
	my @fields = split / /, slurp_file('/proc/' . $node->applier_pid . '/stat');
	return $fields[13] + $fields[14];
}

sub insert_lsn
{
	return $node->sql('SELECT pg_current_wal_insert_lsn()');
}

sub ticks
{
	return $node->sql('SELECT sum(total_refreshes) FROM pgtrickle.pgt_frontiers');
}

# At rest when two looks in a row are the same; the background writer notes running transactions after others' writes.
my ($before, $tries) = ('', 0);
while ($tries++ < 60 && $before ne insert_lsn())
{
	$before = insert_lsn();
	sleep 2;
}
my ($lsn, $time, $ticks) = (insert_lsn(), processor_time(), ticks());
sleep 8;    # longer than the heartbeat and the feedback timer
is(insert_lsn(), $lsn, 'an idle applier writes no WAL');
is(ticks(), $ticks, 'and does no ticks');
cmp_ok(processor_time() - $time, '<=', 1, 'and takes no processor time');

# Much happens, but not to us.
$node->sql(q{INSERT INTO elsewhere SELECT i, repeat('x', 500) FROM generate_series(1, 2000) i});
my $target = insert_lsn();
$node->wait_until(
	"SELECT confirmed_flush_lsn >= '$target'::pg_lsn - 131072 FROM pg_replication_slots",
	'the slot follows what happens elsewhere, up to what is not worth persisting');
pass('the slot follows what happens elsewhere');
is(ticks(), $ticks, 'without a tick');

# What a slow stream table still needs holds the slot.
$node->sql('INSERT INTO orders (amount) VALUES (1)');
my $needed = insert_lsn();
$node->wait_fresh('totals');
$node->sql(q{INSERT INTO elsewhere SELECT i, repeat('x', 500) FROM generate_series(1, 2000) i});
sleep 3;
is($node->sql("SELECT confirmed_flush_lsn < '$needed' FROM pg_replication_slots"),
	't', 'changes that a slow stream table has not consumed hold the slot');
$node->refresh('slow');
$node->wait_until("SELECT confirmed_flush_lsn >= '$needed' FROM pg_replication_slots",
	'until it has');
$node->is_current($_) foreach qw(totals slow);
$node->stop_applier;
done_testing();
