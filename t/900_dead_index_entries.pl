# t/900_dead_index_entries.pl
#
# Cause: an index scan that meets dead entries keeps a list of them until its end.  Groups are merged each in a memory
# context of its own, in which the scan happened to allocate that list; the end of the scan then freed memory that was gone,
# and the server crashed.
#
# Goal: a group may come and go many times.
# Method: create and delete the same groups, of keys of many lengths, in many ticks, so that the index of the state table
# has dead entries and what comes after them in the tick uses the freed memory.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('dead_index_entries')->boot(conf => 'pgtrickle.cost_based = off');
$node->start_applier;
$node->sql('CREATE TABLE items (id int PRIMARY KEY, kind text, price numeric)');
$node->create_stream_table('kinds',
	'SELECT kind, count(*) AS n, sum(price) AS total FROM items GROUP BY kind');

foreach my $round (1 .. 30)
{
	$node->sql(
		q{INSERT INTO items SELECT i, repeat('kind ', i % 30 * 10) || i % 30, i FROM generate_series(1, 90) i}
	);
	$node->wait_fresh('kinds');
	$node->sql('DELETE FROM items');
	$node->wait_fresh('kinds');
}
$node->sql(q{INSERT INTO items VALUES (1, 'kind 1', 7), (2, 'kind 2', 8)});
$node->wait_fresh('kinds');
$node->is_current('kinds');
$node->assert_no_fallback('kinds');
unlike(slurp_file($node->logfile), qr/terminated by signal/, 'no process of the server crashed');

$node->stop_applier;
done_testing();
