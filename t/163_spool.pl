# t/163_spool.pl
#
# Goal: what waits for a slow schedule does not hold the slot: it goes into the spool, from there into the stream table exactly once,
#       whoever is killed when, and is gone when nobody needs it any more.
# Method: manual and hourly stream tables beside a continuous one, changes that wait for a second; look at the slot, the spool and the rows. Then kill
#         the applier at every point of the ticks that fill the spool.  Sums and counts would show what is lost or comes twice.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster qw(random_seed);
use Test::More;

random_seed();
my @arguments = (args => [ '--spool-after', 1, '--heartbeat', 1 ]);
my $node = StreamTables::Cluster->new('spool')->boot(conf => 'autovacuum = off');
$node->start_applier(@arguments);
$node->sql(
	q{CREATE TABLE orders (id serial PRIMARY KEY, customer int, amount int, note text);
	CREATE TABLE customers (id int PRIMARY KEY, city text);
	INSERT INTO customers SELECT i, 'city ' || i % 4 FROM generate_series(1, 20) i;
	INSERT INTO orders (customer, amount) SELECT 1 + i % 20, i FROM generate_series(1, 100) i});
my $by_city = 'SELECT c.city, count(*) AS orders, sum(o.amount) AS total FROM orders o JOIN customers c ON c.id = o.customer GROUP BY c.city';
$node->create_stream_table('by_city', $by_city, schedule => 'manual', refresh_mode => 'DIFFERENTIAL');
$node->create_stream_table('by_city_too', $by_city, schedule => 'manual', refresh_mode => 'DIFFERENTIAL');
$node->create_stream_table('hourly', 'SELECT id, amount FROM orders', schedule => '1h', refresh_mode => 'DIFFERENTIAL');
$node->create_stream_table('above', 'SELECT count(*) AS cities, sum(total) AS total FROM by_city', schedule => 'manual', refresh_mode => 'DIFFERENTIAL');
$node->create_stream_table('live', 'SELECT count(*) AS n, sum(amount) AS total FROM orders');
my @slow = qw(by_city by_city_too hourly above);

sub write_something
{
	my $customer = 1 + int rand 20;
	my $other = 1 + int rand 20;

	$node->sql(
		qq{BEGIN;
		INSERT INTO orders (customer, amount) SELECT $customer, 1 + i FROM generate_series(1, 3) i;
		SAVEPOINT s;
		DELETE FROM orders;
		ROLLBACK TO s;
		UPDATE orders SET amount = amount + 7, customer = $other WHERE id % 11 = $customer % 11;
		UPDATE customers SET city = 'city ' || ($customer + $other) % 5 WHERE id = $customer;
		DELETE FROM orders WHERE id % 23 = $other;
		COMMIT});
	return;
}

sub spooled
{
	my ($name) = @_;

	return "(SELECT spool_snapshot IS NOT NULL FROM pgtrickle.pgt_frontiers JOIN pgtrickle.pgt_definitions USING (pgt_id)
		WHERE relid = '$name'::regclass)";
}

# The slot has passed everything that was written so far, though by_city and hourly are as they were.
sub wait_for_slot
{
	my ($what) = @_;

	my $lsn = $node->sql('SELECT pg_current_wal_insert_lsn()');
	# a heartbeat needs something to persist
	$node->sql(q{SELECT pg_logical_emit_message(false, 'elsewhere', repeat('x', 100000))});
	$node->wait_until("SELECT confirmed_flush_lsn >= '$lsn' FROM pg_replication_slots", $what);
	return;
}

# --- the slot moves on, the rows do not
my $before = $node->sql('SELECT sum(total) FROM by_city');
write_something() foreach 1 .. 5;
$node->wait_fresh('live');
wait_for_slot('the slot is not held by slow stream tables');
pass('the slot is not held by slow stream tables');
is($node->sql("SELECT ${\ spooled('by_city')} AND ${\ spooled('hourly')} AND NOT ${\ spooled('live')}"), 't', 'their changes are in the spool');
is($node->sql('SELECT sum(total) FROM by_city'), $before, 'and not in their rows');
$node->is_current('live');
is($node->sql(q{SELECT pgtrickle.wait_fresh('by_city', '300ms')}), 'f', 'which wait_fresh() knows');
is($node->sql(q{SELECT pgtrickle.wait_fresh('above', '300ms')}), 'f', 'also of what reads them');
is( $node->sql(
		q{SELECT f.fresh_at = s.data_timestamp FROM pgtrickle.pgt_freshness f JOIN pgtrickle.pgt_stream_tables s USING (pgt_id) WHERE pgt_name = 'by_city'}),
	't', 'and so does pgt_freshness');

# --- a second time, and across a restart
write_something() foreach 1 .. 5;
wait_for_slot('the slot moves on again');
$node->kill9_applier;
write_something();
$node->start_applier(@arguments);
write_something();
$node->refresh('by_city');
$node->is_current('by_city', 'a refresh takes what is in the spool and what came since');
is($node->sql("SELECT ${\ spooled('by_city')}"), 'f', 'then it has nothing in the spool');
is($node->sql("SELECT ${\ spooled('hourly')}"), 't', 'others have');
cmp_ok($node->sql('SELECT count(*) FROM pgtrickle.pgt_spool'), '>', 0, 'whose changes stay');
$node->verify($_) foreach @slow;
$node->is_current($_) foreach @slow;
is($node->sql('SELECT count(*) FROM pgtrickle.pgt_spool'), 0, 'until everybody has them');
$node->assert_no_fallback($_) foreach @slow;

# --- killed at any point of a tick that fills the spool; nobody else makes ticks
$node->drop_stream_table('live');
$node->stop_applier;
# (a fence is written only when others write at that moment)
foreach my $point (qw(after_fence before_execute before_commit after_commit before_feedback after_feedback))
{
	write_something();
	$node->start_applier(env => { PGTRICKLE_STOP_AT => $point }, wait => 0, @arguments);
	my ($status, $looks) = (undef, 0);
	while ($looks++ < 2000 && !defined $status)
	{
		$status = $node->applier_ended;
		write_something() if $looks % 20 == 0;
		select undef, undef, undef, 0.01;
	}
	is($status, 9, "the applier is killed: $point");
	$node->start_applier(@arguments);
	write_something();
	# some of them are refreshed, the others have it all to come
	$node->refresh($_) foreach grep { rand() < 0.4 } @slow;
	$node->stop_applier if rand() < 0.5;
	$node->kill9_applier if $node->applier_pid;
}
$node->start_applier(@arguments);
$node->verify($_, "$_ has every change once") foreach @slow;
$node->is_current($_) foreach @slow;
$node->assert_no_fallback($_) foreach @slow;

# --- the server is killed
write_something();
$node->wait_until("SELECT ${\ spooled('hourly')}", 'the spool has something');
$node->stop('immediate');
$node->start;
write_something();
$node->wait_for_streaming;
$node->verify($_, "$_ after a crash of the server") foreach @slow;
$node->assert_no_fallback($_) foreach @slow;

# --- much: several parts, read again in order
$node->sql(q{INSERT INTO orders (customer, amount, note) SELECT 1 + i % 20, i, repeat(md5(i::text), 4) FROM generate_series(1, 60000) i});
$node->sql('UPDATE orders SET amount = amount + 1 WHERE id % 2 = 0');
wait_for_slot('the slot is past a large transaction');
cmp_ok($node->sql('SELECT count(*) FROM pgtrickle.pgt_spool'), '>', 3, 'a large transaction is stored in parts');
$node->sql('DELETE FROM orders WHERE id % 3 = 0');
$node->verify($_, "$_ after a large transaction") foreach @slow;
$node->assert_no_fallback($_) foreach @slow;

# --- what no delta can follow
sub full_reason
{
	my ($name) = @_;

	return $node->sql(
		"SELECT reason FROM pgtrickle.pgt_refresh_history JOIN pgtrickle.pgt_stream_tables USING (pgt_id)
		WHERE pgt_name = '$name' ORDER BY refresh_id DESC LIMIT 1");
}
$node->sql('TRUNCATE orders');
write_something();
wait_for_slot('the slot is past TRUNCATE');
$node->verify('by_city', 'after TRUNCATE');
like(full_reason('by_city'), qr/truncated/, 'TRUNCATE in the spool leads to a full refresh');
write_something();
wait_for_slot('the slot is past more changes');
$node->sql('ALTER TABLE orders ALTER customer TYPE bigint');
write_something();
wait_for_slot('the slot is past ALTER TABLE');
$node->refresh('by_city_too');
$node->is_current('by_city_too', 'after a change of a source');
like(full_reason('by_city_too'), qr/source/, 'which leads to a full refresh');
$node->drop_stream_table('hourly');
$node->sql('ALTER TABLE customers ADD region text');
$node->refresh($_) foreach qw(by_city above);
$node->is_current($_) foreach qw(by_city above);

# --- who takes another query, or goes, leaves nothing behind
write_something();
wait_for_slot('the slot moves on once more');
is($node->sql("SELECT ${\ spooled('by_city_too')}"), 't', 'something is in the spool');
$node->sql(q{SELECT pgtrickle.create_or_replace_stream_table('by_city_too', 'SELECT customer, count(*) AS n FROM orders GROUP BY customer', 'manual')});
write_something();
$node->refresh('by_city_too');
$node->is_current('by_city_too', 'a stream table with another query starts anew');
write_something();
wait_for_slot('the slot moves on for the last time');
$node->verify('by_city_too', 'and is spooled anew');
write_something();
wait_for_slot('something is in the spool again');
$node->drop_stream_table($_) foreach qw(above by_city by_city_too);
$node->sql(q{SELECT pg_logical_emit_message(false, 'elsewhere', repeat('x', 100000))});
$node->wait_until('SELECT count(*) = 0 FROM pgtrickle.pgt_spool', 'the spool is empty');
pass('what nobody needs any more leaves the spool');
$node->stop_applier;
done_testing();
