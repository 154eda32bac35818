# t/642_source_failover.pl
#
# Goal: when a standby of the source takes over, the copies go on where they were if the standby had all that they have; if it had less, they
# become what it has, by the difference.  A slot may live on a standby (16 and later), and may come along by itself (17 and later).
# Method: promote standbys of a source that were up to date or behind, with the slot on them (before 17 it came with a cold copy of
# the files), point the remote there, compare, and look for the reasons of copies made anew.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster qw(sql_literal);
use StreamTables::Replica;
use Test::More;
use Time::HiRes qw(usleep);

my $replica = StreamTables::Replica->new('failover', source => { conf => "hot_standby_feedback = on\nwal_keep_size = 128MB" });
my ($source, $target) = ($replica->source, $replica->target);

$source->sql(
	q{CREATE SCHEMA app;
	CREATE TABLE app.orders (id int PRIMARY KEY, customer int, amount int);
	CREATE TABLE app.bag (a int);
	ALTER TABLE app.bag REPLICA IDENTITY FULL;
	INSERT INTO app.orders SELECT i, i % 7, i FROM generate_series(1, 200) i;
	INSERT INTO app.bag SELECT i % 5 FROM generate_series(1, 50) i});
$target->start_applier;
$replica->copy('app.orders', 'app.bag');
$target->create_stream_table('totals', 'SELECT customer, sum(amount) AS total, count(*) AS n FROM app.orders GROUP BY customer');
$target->create_stream_table('bags', 'SELECT a, count(*) AS n FROM app.bag GROUP BY a');
$target->wait_fresh('totals', 'bags');

sub all_equal
{
	my ($when) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$replica->settle('totals', 'bags');
	$replica->is_equal($_, "$when: $_") foreach qw(app.orders app.bag);
	$target->is_current($_, "$when: $_") foreach qw(totals bags);
	return;
}

sub times_copied
{
	return $target->sql(q{SELECT string_agg(times_copied::text, ' ' ORDER BY copy_id) FROM pgtrickle.pgt_copy_states});
}

my $round = 0;

sub write_something
{
	my ($node) = @_;

	$round++;
	return $node->sql(
		qq{UPDATE app.orders SET amount = amount + 1 WHERE id % 3 = 0; INSERT INTO app.orders VALUES (1000 + $round, $round, 1); DELETE FROM app.orders WHERE id = $round;
		INSERT INTO app.bag VALUES ($round), (1); DELETE FROM app.bag WHERE ctid = (SELECT min(ctid) FROM app.bag)});
}

# A standby whose files are those of the stopped source, slot and all.
sub cold_standby
{
	my ($node, $name) = @_;

	$node->stop;
	$node->backup_fs_cold($name);
	$node->start;
	my $standby = StreamTables::Cluster->new($name);
	$standby->init_from_backup($node, $name, has_streaming => 1);
	$standby->start;
	$replica->wait_positions;
	return $standby;
}

# The remote is that server from now on.
sub follow
{
	my ($node) = @_;

	$replica->{sources}{shop} = $node;
	$target->sql("SELECT pgtrickle.alter_remote('shop', conninfo => " . sql_literal($node->connstr('postgres')) . ')');
	return;
}

# Does something again and again until the answer is true.
sub wait_until_after
{
	my ($deed, $node, $query) = @_;

	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	do
	{
		die "timed out waiting for $query" if time > $deadline;
		$deed->();
		usleep(100_000);
	} while ($node->sql($query) ne 't');
	return;
}

sub log_has
{
	my ($pattern, $offset) = @_;

	return substr(slurp_file($target->applier_log), $offset) =~ $pattern;
}

# --- a switch-over: the standby has everything ------------------------------------------------------------------------

my $second = cold_standby($source, 'second');
write_something($source);
all_equal('before');
$source->wait_for_catchup($second, 'replay');
my $offset = -s $target->applier_log;
$source->stop;
$second->promote;
follow($second);
write_something($second);
all_equal('after a switch-over');
is(times_copied(), '1 1', 'nothing was copied again');
ok(log_has(qr/remote "shop" goes on with timeline 2, which left timeline 1 at/, $offset), 'it is noticed all the same');

# --- a failure: the standby lacks what the target has -----------------------------------------------------------------------

my $third = cold_standby($second, 'third');
write_something($second);
$second->wait_for_catchup($third, 'replay');
$third->stop;
write_something($second) foreach 1 .. 3;
$second->sql('INSERT INTO app.orders VALUES (5000, 3, 5000)');
$replica->wait_positions;
$second->stop('immediate');
append_to_file($third->data_dir . '/postgresql.conf', "\nprimary_conninfo = ''\n");
$third->start;
$third->promote;
$third->sql('SELECT pg_switch_wal()');    # its WAL ends behind the copies' position all the same
$offset = -s $target->applier_log;
follow($third);
write_something($third);
$target->wait_until(q{SELECT min(times_copied) = 2 FROM pgtrickle.pgt_copy_states}, 'all copies were made anew');
all_equal('after transactions were lost');
is($target->sql('SELECT count(*) FROM app.orders WHERE id = 5000'), '0', 'what the new primary never had is gone');
ok( log_has(qr/all copies of remote "shop" will be made anew: timeline 3 left timeline 2 at \S+, and the copies are at/, $offset),
	'for the reason');

# --- the slot on a standby (16 and later) ---------------------------------------------------------------------------------

SKIP:
{
	skip 'before PostgreSQL 16 a standby does not decode', 1 if $third->pg_version < 16;

	$third->sql(q{SELECT pg_create_physical_replication_slot('fourth')});
	$third->backup('fourth');
	my $fourth = StreamTables::Cluster->new('fourth');
	$fourth->init_from_backup($third, 'fourth', has_streaming => 1);
	$fourth->append_conf('postgresql.conf', "primary_slot_name = 'fourth'\nhot_standby_feedback = on\nwal_receiver_status_interval = 1s");
	$fourth->start;
	$third->wait_until(q{SELECT catalog_xmin IS NOT NULL OR xmin IS NOT NULL FROM pg_replication_slots WHERE slot_name = 'fourth'});
	$target->sql(q{SELECT pgtrickle.drop_remote('shop', true)});
	$replica->add_remote('shop', conninfo => $fourth->connstr('postgres'));
	$replica->request('app.orders');
	# Making a slot there waits for the primary to note its running transactions.
	wait_until_after(sub { $third->sql('SELECT pg_log_standby_snapshot()') },
		$fourth, q{SELECT count(*) = 1 FROM pg_replication_slots WHERE slot_type = 'logical' AND confirmed_flush_lsn IS NOT NULL});
	$target->wait_until(q{SELECT is_populated FROM pgtrickle.copy_catalog()}, 'the table was copied from the standby');
	is($third->sql(q{SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'logical' AND active}), '0', 'the primary decodes nothing');
	write_something($third);
	my $lsn = $third->sql('SELECT pg_current_wal_flush_lsn()');
	$target->wait_until("SELECT position >= '$lsn' FROM pgtrickle.remote_catalog()");
	$replica->{sources}{shop} = $third;
	$replica->is_equal('app.orders', 'the copy follows the primary by way of its standby');

	# and when it takes over, the slot is where it was
	$third->wait_for_catchup($fourth, 'replay');
	$third->stop;
	$fourth->promote;
	$replica->{sources}{shop} = $fourth;
	write_something($fourth);
	$replica->wait_positions;
	$replica->is_equal('app.orders', 'and goes on when the standby takes over');
	is(times_copied(), '1', 'without another copy');
	$third = $fourth;
}

# --- slots that come along (17 and later) -----------------------------------------------------------------------------------

SKIP:
{
	skip 'before PostgreSQL 17 there are no failover slots', 1 if $third->pg_version < 17;

	$third->sql(q{SELECT pg_create_physical_replication_slot('fifth')});
	$third->append_conf('postgresql.conf', "synchronized_standby_slots = 'fifth'\nprimary_slot_name = ''");
	$third->reload;
	$third->backup('fifth');
	my $fifth = StreamTables::Cluster->new('fifth');
	$fifth->init_from_backup($third, 'fifth', has_streaming => 1);
	my $conninfo = $third->connstr('postgres');
	$fifth->append_conf('postgresql.conf',
		"primary_conninfo = '" . ($conninfo =~ s/'/''/gr) . " application_name=fifth'\nprimary_slot_name = 'fifth'\nhot_standby_feedback = on\nsynchronized_standby_slots = ''\nwal_receiver_status_interval = 1s");
	$fifth->start;
	$target->sql(q{SELECT pgtrickle.drop_remote('shop', true)});
	$replica->add_remote('shop', conninfo => $third->connstr('postgres'), slot_name => 'pgtrickle_kept');
	$replica->{sources}{shop} = $third;
	$replica->copy('app.orders');
	is($third->sql(q{SELECT failover FROM pg_replication_slots WHERE slot_name = 'pgtrickle_kept'}), 't', 'the slot is made for failover');
	write_something($third);
	$replica->wait_positions;
	wait_until_after(sub { $fifth->sql('SELECT pg_sync_replication_slots()') },
		$fifth, q{SELECT count(*) = 1 FROM pg_replication_slots WHERE slot_name = 'pgtrickle_kept' AND synced AND NOT temporary});
	write_something($third);
	$replica->wait_positions;
	$third->stop('immediate');
	$fifth->promote;
	follow($fifth);
	write_something($fifth);
	$replica->wait_positions;
	$replica->is_equal('app.orders', 'the copy goes on with the slot that came along');
	is(times_copied(), '1', 'without another copy');
}

$target->stop_applier;
done_testing();
