# t/611_two_remotes.pl
#
# Goal: one target follows several sources, each by itself: one that is down delays neither the others nor what is local.
# Method: two sources with the same tables, in schemas of their own on the target; a stream table over both; one source is down for a while.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use StreamTables::Replica;
use Test::More;

my $replica = StreamTables::Replica->new('fan', remotes => []);
my $target = $replica->target;
foreach my $remote (qw(north south))
{
	my $source = $replica->add_source($remote);
	$source->sql(
		qq{CREATE SCHEMA app;
		CREATE TABLE app.sales (id serial PRIMARY KEY, product int, amount int);
		INSERT INTO app.sales (product, amount) SELECT i % 5, i FROM generate_series(1, 50) i});
	$replica->add_remote($remote, schema_map => qq({"app": "$remote"}));
}
$target->sql('CREATE TABLE products (id int PRIMARY KEY, name text); INSERT INTO products SELECT i, \'product \' || i FROM generate_series(0, 4) i');
$target->start_applier;
$replica->copy([ 'north', 'app.sales' ], [ 'south', 'app.sales' ]);
$target->create_stream_table(
	'all_sales', q{SELECT p.name, s.region, count(*) AS n, sum(s.amount) AS total
	FROM (SELECT 'north' AS region, product, amount FROM north.sales UNION ALL SELECT 'south', product, amount FROM south.sales) s
	JOIN products p ON p.id = s.product GROUP BY p.name, s.region});
$target->create_stream_table('north_sales', 'SELECT product, sum(amount) AS total FROM north.sales GROUP BY product');
$target->create_stream_table('names', 'SELECT lower(name) AS name FROM products');

sub write_at
{
	my ($remote) = @_;

	$replica->source($remote)->sql(
		q{INSERT INTO app.sales (product, amount) SELECT i % 5, i FROM generate_series(1, 7) i;
		UPDATE app.sales SET amount = amount + 1 WHERE id % 3 = 0; DELETE FROM app.sales WHERE id % 17 = 4});
	return;
}

sub is_well
{
	my ($after, @remotes) = @_;

	$replica->wait_positions(@remotes);
	$target->wait_fresh(qw(all_sales north_sales names));
	foreach my $remote (@remotes)
	{
		$replica->is_equal('app.sales', "the copy of $remote equals its table: $after", remote => $remote, target => "$remote.sales");
	}
	$target->is_current($_, "$_ is right: $after") foreach qw(all_sales north_sales names);
	return;
}

write_at($_) foreach qw(north south);
is_well('both are up', qw(north south));

write_at('south');
$replica->source('south')->stop('immediate');
foreach my $i (1 .. 3)
{
	write_at('north');
	$target->sql("UPDATE products SET name = name || '!' WHERE id = $i");
	is_well("south is down, change $i", 'north');
}
like(
	$target->sql(q{SELECT last_error_message FROM pgtrickle.pgt_remote_states JOIN pgtrickle.pgt_remotes USING (remote_id) WHERE remote_name = 'south'}),
	qr/could not connect|lost .*connection|ended the stream/,
	'the target knows why south is not followed');
is( $target->sql(q{SELECT last_error_message FROM pgtrickle.pgt_remote_states JOIN pgtrickle.pgt_remotes USING (remote_id) WHERE remote_name = 'north'}),
	'', 'and that north is');
$replica->source('south')->start;
write_at('south');
is_well('south is back', qw(north south));
$replica->were_copied_once;

# A writer there is waited for here.
my $lsn = $replica->source('south')->sql(
	'INSERT INTO app.sales (product, amount) VALUES (1, 1000); SELECT pg_current_wal_insert_lsn()');
is($target->sql("SELECT pgtrickle.wait_fresh('all_sales', '60s', '$lsn', 'south')"), 't', 'a position of a remote is waited for');
is( $target->sql('SELECT max(amount) FROM south.sales'), '1000', 'and what it wrote is in the copy');
$target->is_current('all_sales', 'and in what reads it');

# A paused remote stands still; the other goes on.
$replica->pause('north');
$replica->source('north')->wait_until('SELECT NOT active FROM pg_replication_slots', 'the slot of the paused remote is let go');
write_at($_) foreach qw(north south);
is_well('north is paused', 'south');
$replica->resume('north');
is_well('north was resumed', qw(north south));
$replica->were_copied_once;
$target->stop_applier;
done_testing();
