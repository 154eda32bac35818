# t/614_remote_failures.pl
#
# Goal: what goes wrong at one place stays there: a stream table over copies that fails, a copy that is locked or damaged, a remote that is
#       redefined or dropped.
# Method: each in turn, while changes come from two sources; what is not concerned is waited for and compared.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use StreamTables::Replica;
use Test::More;

my $replica = StreamTables::Replica->new('failures', remotes => [qw(one two)]);
my $target = $replica->target;
foreach my $remote (qw(one two))
{
	$replica->source($remote)->sql(
		qq{CREATE SCHEMA $remote; CREATE TABLE $remote.a (id serial PRIMARY KEY, x int); CREATE TABLE $remote.b (id serial PRIMARY KEY, x int);
		INSERT INTO $remote.a (x) SELECT i FROM generate_series(1, 20) i; INSERT INTO $remote.b (x) SELECT i FROM generate_series(1, 20) i});
}
$target->sql('CREATE TABLE local (i int)');
$target->start_applier;
$replica->copy([ 'one', 'one.a' ], [ 'one', 'one.b' ], [ 'two', 'two.a' ], [ 'two', 'two.b' ]);
$target->create_stream_table('sums', 'SELECT sum(x) AS total FROM one.a');
$target->create_stream_table('quotients', 'SELECT id, 100 / x AS q FROM one.b');
$target->create_stream_table('locals', 'SELECT count(*) AS n FROM local');
$target->create_stream_table('seconds', 'SELECT count(*) AS n, sum(x) AS total FROM two.a');
my @healthy = qw(sums locals seconds);
$target->wait_fresh(@healthy, 'quotients');

sub write_at
{
	my (@remotes) = @_;

	foreach my $remote (@remotes)
	{
		$replica->source($remote)->sql(
			qq{BEGIN; INSERT INTO $remote.a (x) VALUES (7), (8); UPDATE $remote.b SET x = x + 1 WHERE x > 0; DELETE FROM $remote.a WHERE id % 6 = 1; COMMIT});
	}
	$target->sql('INSERT INTO local VALUES (1)');
	return;
}

sub are_well
{
	my ($what, $remotes, @stream_tables) = @_;

	$replica->wait_positions(@$remotes);
	$target->wait_fresh(@stream_tables);
	foreach my $remote (@$remotes)
	{
		$replica->is_equal("$remote.$_", "$remote.$_ equals its table: $what", remote => $remote) foreach qw(a b);
	}
	$target->is_current($_, "$_ is right: $what") foreach @stream_tables;
	return;
}

write_at(qw(one two));
are_well('all is well', [qw(one two)], @healthy, 'quotients');

# A stream table that cannot be refreshed does not stop the copy that it reads.
$replica->source('one')->sql('UPDATE one.b SET x = 0 WHERE id = 3');
write_at(qw(one two));
are_well('a stream table divides by zero', [qw(one two)], @healthy);
like(slurp_file($target->applier_log), qr/could not refresh stream table "public.quotients": division by zero/,
	'its failure is said');
$replica->source('one')->sql('UPDATE one.b SET x = 5 WHERE id = 3');
$replica->wait_positions('one');
$target->refresh('quotients');
are_well('and not any more', ['one'], @healthy, 'quotients');

# Somebody has locked a copy: its remote waits, the other one and what is local go on.
my $blocker = $target->background_psql($target->dbname);
$blocker->query_safe('BEGIN; LOCK TABLE one.a IN ACCESS SHARE MODE; LOCK TABLE one.a');
write_at(qw(one two));
are_well('a copy is locked', ['two'], 'locals', 'seconds');
$blocker->query_safe('COMMIT');
$blocker->quit;
are_well('it is not locked any more', [qw(one two)], @healthy, 'quotients');
$replica->were_copied_once;

# Somebody has damaged a copy. When a change meets the damage the copy is made anew, and nothing else.
$target->sql(
	q{ALTER TABLE two.b DISABLE TRIGGER ALL; DELETE FROM two.b WHERE id IN (4, 5); ALTER TABLE two.b ENABLE ALWAYS TRIGGER pgtrickle_guard});
write_at(qw(one two));
$target->wait_until(
	q{SELECT status = 'ACTIVE' AND times_copied = 2 FROM pgtrickle.pgt_copies JOIN pgtrickle.pgt_copy_states USING (copy_id) WHERE relid = 'two.b'::regclass},
	'the damaged copy was made anew');
write_at(qw(one two));
are_well('the damage is repaired', [qw(one two)], @healthy, 'quotients');
is( $target->sql(q{SELECT count(*) FROM pgtrickle.pgt_copy_states WHERE times_copied > 1}),
	1, 'no other copy was made anew');

# Another way to the same server: the stream starts again where it was.
my $conninfo = $replica->source('one')->connstr($replica->source('one')->dbname) . ' connect_timeout=7';
$target->sql('SELECT pgtrickle.alter_remote(' . "'one', conninfo => " . StreamTables::Cluster::sql_literal($conninfo) . ')');
write_at(qw(one two));
are_well('the connection was defined anew', [qw(one two)], @healthy, 'quotients');
is( $target->sql(q{SELECT count(*) FROM pgtrickle.pgt_copy_states WHERE times_copied > 1}),
	1, 'no copy was made anew for that');

# A remote that is dropped is let go; nobody else notices.
$target->drop_stream_table('seconds');
$target->sql(q{SELECT pgtrickle.drop_remote('two', true)});
$replica->source('two')->wait_until('SELECT count(*) = 0 FROM pg_stat_replication', 'nobody follows the source of the dropped remote');
write_at('one');
are_well('a remote was dropped', ['one'], qw(sums locals quotients));
$target->stop_applier;
done_testing();
