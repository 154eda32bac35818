# t/031_schedules.pl
#
# Goal: stream tables are refreshed when their schedules say so, and only then.
# Method: one source, stream tables with different schedules; look at refresh counts and at ages.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('schedules')->boot;
$node->start_applier;
$node->sql(
	q{CREATE TABLE orders (id serial PRIMARY KEY, customer text, amount int);
	CREATE TABLE other (id int);
	INSERT INTO orders (customer, amount) SELECT 'c' || i % 3, i FROM generate_series(1, 30) i});
my $query =
  'SELECT customer, sum(amount) AS total, count(*) AS orders FROM orders GROUP BY customer';
$node->create_stream_table('continuous', $query);
$node->create_stream_table('often', $query, schedule => '2s');
$node->create_stream_table('manual', $query, schedule => 'manual');
$node->create_stream_table('of_other', 'SELECT id FROM other');

sub refreshes
{
	my ($name) = @_;

	return $node->sql(
		"SELECT total_refreshes FROM pgtrickle.pgt_frontiers JOIN pgtrickle.pgt_definitions USING (pgt_id)
		WHERE relid = '$name'::regclass");
}

$node->sql('INSERT INTO other VALUES (1)');
$node->wait_fresh('of_other');
my $of_other_before = refreshes('of_other');

my $inserted_at = $node->sql(
	q{INSERT INTO orders (customer, amount) VALUES ('new', 1) RETURNING clock_timestamp()});
$node->wait_until(q{SELECT EXISTS (SELECT FROM continuous WHERE customer = 'new')},
	'the continuous one has the new row');
is($node->sql(q{SELECT count(*) FROM often WHERE customer = 'new'}),
	0, 'one with an interval waits');
$node->wait_until(q{SELECT EXISTS (SELECT FROM often WHERE customer = 'new')},
	'but is refreshed by itself');
my $age = $node->sql(
	"SELECT extract(epoch FROM last_refresh_at - '$inserted_at') FROM pgtrickle.pgt_frontiers
	JOIN pgtrickle.pgt_definitions USING (pgt_id) WHERE relid = 'often'::regclass");
cmp_ok($age, '<', 2, 'before it is staler than its interval');
cmp_ok($age, '>', 1, 'and not much earlier');
is($node->sql(q{SELECT count(*) FROM manual WHERE customer = 'new'}),
	0, 'a manual one stays as it is');
is(refreshes('of_other'), $of_other_before,
	'a stream table whose source did not change is not refreshed');

$node->refresh('manual');
$node->is_current('manual', 'until somebody asks');
my $before = refreshes('manual');
$node->refresh('manual');
is( refreshes('manual'),
	$before + 1,
	'asked again with nothing pending, it moves its frontier all the same');

# A consumer brings its upstream along, whatever the upstream's schedule.
$node->create_stream_table(
	'silver',
	'SELECT id, customer, amount FROM orders WHERE amount > 10',
	schedule => 'manual');
$node->create_stream_table('gold',
	'SELECT customer, max(amount) AS largest FROM silver GROUP BY customer');
$node->sql(q{INSERT INTO orders (customer, amount) VALUES ('new', 1000)});
$node->wait_until(q{SELECT EXISTS (SELECT FROM gold WHERE customer = 'new')}, 'the change arrives');
$node->verify('gold', 'the consumer of a manual stream table is refreshed with it');
$node->verify('silver');

# Everything at the end.
$node->refresh($_)    foreach qw(continuous often manual silver gold of_other);
$node->is_current($_) foreach qw(continuous often manual silver gold of_other);
$node->stop_applier;
done_testing();
