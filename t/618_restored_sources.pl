# t/618_restored_sources.pl
#
# Goal: a source that was restored to an older state, slot and all, is recognized also when the last transaction that was applied is older than that state: what it has
#       written since on the copied tables would otherwise count as received.
# Method: copies of the source's files, before and after a crash; WAL that concerns no copy until the position is far behind, and until it is reached again.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use StreamTables::Replica;
use Test::More;

my $replica = StreamTables::Replica->new('restored');
my ($source, $target) = ($replica->source, $replica->target);
$source->sql(
	q{CREATE SCHEMA app; CREATE TABLE app.items (id serial PRIMARY KEY, price int);
	INSERT INTO app.items (price) SELECT i FROM generate_series(1, 100) i;
	CREATE TABLE app.late (id int PRIMARY KEY); CREATE TABLE noise (t text)});
$target->start_applier;
$replica->copy('app.items');
my $backup = PostgreSQL::Test::Utils::tempdir();

sub times_copied
{
	return $target->sql(q{SELECT times_copied FROM pgtrickle.pgt_copies JOIN pgtrickle.pgt_copy_states USING (copy_id) WHERE remote_table = 'items'});
}

sub position { return $target->sql('SELECT position FROM pgtrickle.remote_catalog()') }

sub make_noise
{
	$source->sql(q{INSERT INTO noise SELECT repeat('n', 1000) FROM generate_series(1, 500)});
	return;
}

sub change
{
	my ($price) = @_;

	$source->sql("INSERT INTO app.items (price) VALUES ($price); UPDATE app.items SET price = $price WHERE id = 7; DELETE FROM app.items WHERE id = $price");
	$replica->settle;
	return;
}

# The slot is where the last feedback was; after a crash of the source it may have forgotten that.
sub is_recognized
{
	my ($when, $mode, $price) = @_;

	my $before = times_copied();
	$target->stop_applier;
	$source->stop($mode);
	system_or_bail('rm', '-rf', "$backup/data");
	system_or_bail('cp', '-a', $source->data_dir, "$backup/data");
	$source->start;
	$target->start_applier;
	make_noise();
	$replica->settle;
	is(times_copied(), $before, "$when: a server that comes back as it was goes on");
	$target->stop_applier;
	my $log_end = -s $target->applier_log;
	my $position = position();
	$source->stop('immediate');
	system_or_bail('rm', '-rf', $source->data_dir);
	system_or_bail('cp', '-a', "$backup/data", $source->data_dir);
	$source->start;
	$source->sql("INSERT INTO app.items (price) VALUES ($price); DELETE FROM app.items WHERE id = 8");
	make_noise() while $source->sql("SELECT pg_current_wal_flush_lsn() <= '$position'") eq 't';
	$target->start_applier;
	$replica->settle;
	$target->wait_until('SELECT times_copied > ' . $before . q{ AND status = 'ACTIVE' FROM pgtrickle.pgt_copies JOIN pgtrickle.pgt_copy_states USING (copy_id) WHERE remote_table = 'items'},
		"$when: the restored one is recognized");
	$replica->settle;
	$replica->is_equal('app.items', "$when: the copy");
	like(substr(slurp_file($target->applier_log), $log_end), qr/made anew: transaction \d+ at \S+ is in the history of the server and was not, which was restored/, "$when: the log says why");
	return;
}

change(11);
is_recognized('stopped', 'fast', 12);
change(13);
is_recognized('crashed', 'immediate', 14);

# What comes again and was no copy's business then: a table that is followed from later on.
change(15);
my $before = times_copied();
$source->sql('CHECKPOINT');
$source->sql('INSERT INTO app.late SELECT generate_series(1, 10)');
make_noise();
$replica->copy('app.late');
$source->stop('immediate');
$source->start;
$source->sql('INSERT INTO app.late VALUES (11)');
$replica->settle;
$replica->is_equal($_, "$_ after a crash of the source") foreach qw(app.items app.late);
is(times_copied(), $before, 'which is no reason to copy anything');
$target->stop_applier;
done_testing();
