# t/617_waiting_switch.pl
#
# Goal: the daemon switches a first copy in soon after the last old snapshot and the last reader have gone, goes on with everything else meanwhile, and does
#       not try all the time.
# Method: a source and a target with the applier; sessions that hold a snapshot or a lock, one after the other; writers go on.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use StreamTables::Replica;
use StreamTables::Session;
use Test::More;
use Time::HiRes qw(time usleep);

my $replica = StreamTables::Replica->new('waiting');
my ($source, $target) = ($replica->source, $replica->target);
$source->sql(
	q{CREATE SCHEMA app;
	CREATE TABLE app.other (id int PRIMARY KEY);
	CREATE TABLE app.orders (id int PRIMARY KEY, customer text, note text);
	INSERT INTO app.orders SELECT i, 'c' || i % 10, repeat(md5(i::text), 80) FROM generate_series(1, 500) i});
$target->start_applier;
$replica->copy('app.other');

sub wait_for
{
	my ($condition, $name) = @_;

	my $until = time + $PostgreSQL::Test::Utils::timeout_default;
	usleep(50_000) until $condition->() || time > $until;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return cmp_ok(time, '<=', $until, $name);
}

sub status { return $target->sql(q{SELECT status FROM pgtrickle.copy_catalog() WHERE remote_table = 'orders'}) }
sub ticks { return $target->sql('SELECT pg_current_xact_id()::text') }

my $old = StreamTables::Session->new($target);
$old->run('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
$replica->request('app.orders');
my $writes = 0;
wait_for(sub {
	$source->sql(q{UPDATE app.orders SET note = 'w' || } . ++$writes . ' WHERE id = ' . ($writes % 500 + 1));
	return status() eq 'COPIED' && $target->sql(q{SELECT count(exact_xid) FROM pgtrickle.pgt_copy_states}) == 1;
}, 'the table is copied and has been caught up');
my $from = ticks();
for (1 .. 10)
{
	$source->sql(q{INSERT INTO app.other VALUES (} . $_ . q{); DELETE FROM app.orders WHERE id = } . (100 + $_));
	usleep(100_000);
}
is(status(), 'COPIED', 'it is not switched in while there is an old snapshot');
cmp_ok(ticks() - $from, '<', 80, 'and not tried all the time');
wait_for(sub { $target->sql('SELECT count(*) FROM app.other') == 10 }, 'other copies go on');
is($target->sql('SELECT count(*) FROM app.orders'), '0', 'nothing is shown');
is($old->run('SELECT count(*) FROM app.orders')->{rows} + 0, 0, 'to nobody');
my $reader = StreamTables::Session->new($target);
$reader->run('BEGIN; SELECT count(*) FROM app.orders');
$old->run('COMMIT');
usleep(300_000);
is(status(), 'COPIED', 'nor while somebody reads');
my $began = time;
is($target->sql('SELECT count(*) FROM app.orders'), '0', 'others can read, too');
cmp_ok(time - $began, '<', 10, 'without waiting for long');
# the pauses between attempts grow, so that of some seconds only the first tenths are filled with them
my $attempts = 0;
for (1 .. 40)
{
	usleep(60_000);
	$source->sql(q{UPDATE app.orders SET note = 'r' || } . $_ . ' WHERE id = 300');
	$attempts += $target->sql(q{SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'app.orders'::regclass AND mode = 'AccessExclusiveLock'});
}
cmp_ok($attempts, '<', 25, 'nor most of the time, though every tick brings changes of the table');
$reader->run('COMMIT');
$began = time;
wait_for(sub { status() eq 'ACTIVE' }, 'then it is switched in');
cmp_ok(time - $began, '<', 30, 'soon');
$source->sql(q{UPDATE app.orders SET customer = 'after' WHERE id > 490});
$replica->settle;
$replica->is_equal('app.orders');
$replica->is_equal('app.other');
is($target->sql(q{SELECT count(*) FROM pgtrickle.pgt_copy_states WHERE consecutive_errors > 0 OR times_copied <> 1}), '0', 'nothing was copied twice');

$old->quit;
$reader->quit;
$target->check_applier;
$target->stop_applier;
done_testing();
