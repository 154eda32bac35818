# t/300_applier_killed.pl
#
# Goal: an applier that is killed at any point of a tick loses nothing and applies nothing twice.
# Method: kill it with SIGKILL at every named stop point, at the first and at a later passing, while transactions go
#         on; start it again, and compare. A change applied twice would show in sums and counts; a change lost would
#         too, unless it were hidden by a full refresh, so there must not have been one.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster qw(random_seed);
use Test::More;

random_seed();
my $node = StreamTables::Cluster->new('killed')->boot(conf => 'pgtrickle.cost_based = off');
$node->sql(
	q{CREATE TABLE orders (id serial PRIMARY KEY, customer int, amount int);
	CREATE TABLE customers (id int PRIMARY KEY, city text);
	INSERT INTO customers SELECT i, 'city ' || i % 4 FROM generate_series(1, 20) i;
	INSERT INTO orders (customer, amount) SELECT 1 + i % 20, i FROM generate_series(1, 100) i});
$node->start_applier;
$node->create_stream_table(
	'by_city', 'SELECT c.city, count(*) AS orders, sum(o.amount) AS total
	FROM orders o JOIN customers c ON c.id = o.customer GROUP BY c.city');
$node->create_stream_table('large_cities', 'SELECT city, total FROM by_city WHERE total > 500');
$node->create_stream_table(
	'all_orders',
	'SELECT count(*) AS n, sum(amount) AS total FROM orders',
	schedule => '1s');
my @names = qw(by_city large_cities all_orders);
$node->wait_fresh(@names);
$node->stop_applier;

# A transaction of several statements, one of which is rolled back.
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

sub slot_is_behind_what_is_persisted
{
	my ($test_name) = @_;

	return is(
		$node->sql(
			'SELECT confirmed_flush_lsn <= ack_lsn FROM pg_replication_slots, pgtrickle.applier_state()'
		),
		't',
		$test_name);
}

foreach my $point (
	qw(before_fence after_fence before_execute before_commit after_commit before_feedback after_feedback)
  )
{
	foreach my $passing (1, 3)
	{
		$node->start_applier(env => { PGTRICKLE_STOP_AT => "$point:$passing" }, wait => 0);
		my ($status, $writes) = (undef, 0);
		while ($writes++ < 400)
		{
			$status = $node->applier_ended;
			last if defined $status;
			write_something();
		}
		is($status, 9, "the applier is killed: $point, passing $passing");
		slot_is_behind_what_is_persisted('and the slot has not been told more than was persisted');

		$node->start_applier;
		$node->wait_fresh(@names);
		$node->is_current($_, "$_ has every change once") foreach @names;
		$node->stop_applier;
	}
}
$node->assert_no_fallback($_) foreach @names;
done_testing();
