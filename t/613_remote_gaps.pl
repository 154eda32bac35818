# t/613_remote_gaps.pl
#
# Goal: when a source's stream does not continue where the copies are, that is noticed, said, and made good by the difference; nobody sees an empty
#       table meanwhile. New copies do not disturb those that are there. The process that copies never outlives the applier.
# Method: take the slot away, move it, give the source back a state from before; compare afterwards.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use StreamTables::Replica;
use Test::More;
use Time::HiRes qw(usleep);

my $replica = StreamTables::Replica->new('gaps');
my ($source, $target) = ($replica->source, $replica->target);
$source->sql(
	q{CREATE SCHEMA app; CREATE TABLE app.items (id serial PRIMARY KEY, kind int, price int);
	INSERT INTO app.items (kind, price) SELECT i % 6, i FROM generate_series(1, 300) i;
	CREATE TABLE app.log (line text); ALTER TABLE app.log REPLICA IDENTITY FULL; INSERT INTO app.log VALUES ('a'), ('a'), ('b');
	CREATE TABLE app.late (id int PRIMARY KEY, t text); INSERT INTO app.late SELECT i, 'late' FROM generate_series(1, 10) i});
$target->start_applier;
$replica->copy(qw(app.items app.log));
$target->create_stream_table('kinds', 'SELECT kind, count(*) AS n, sum(price) AS total FROM app.items GROUP BY kind');
$target->create_stream_table('lines', 'SELECT line, count(*) AS n FROM app.log GROUP BY line');
$target->wait_fresh(qw(kinds lines));

sub write_something
{
	$source->sql(
		q{INSERT INTO app.items (kind, price) SELECT i % 6, i FROM generate_series(1, 20) i;
		UPDATE app.items SET price = price + 1 WHERE id % 9 = 0; DELETE FROM app.items WHERE id % 31 = 5;
		INSERT INTO app.log VALUES ('a'), ('c'); DELETE FROM app.log WHERE ctid = (SELECT min(ctid) FROM app.log)});
	return;
}

sub times_copied
{
	return $target->sql('SELECT min(times_copied) FROM pgtrickle.pgt_copy_states');
}

# Waits until all copies have been made once more than before, and looks at the tables all the time.
sub is_repaired
{
	my ($what, $before, $reason, $log_end) = @_;

	my $empty = 0;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	until ($target->sql(
			"SELECT bool_and(status = 'ACTIVE' AND times_copied > $before) FROM pgtrickle.pgt_copy_states") eq 't')
	{
		$empty += $target->sql('SELECT NOT EXISTS (TABLE app.items) OR NOT EXISTS (TABLE kinds)') eq 't';
		$target->check_applier;
		die "copies were not made anew after $what\n" . $target->applier_log_tail if time > $deadline;
		usleep(20_000);
	}
	is($empty, 0, "nobody saw an empty table: $what");
	like(substr(slurp_file($target->applier_log), $log_end), $reason, 'and the log says why');
	write_something();
	$replica->settle(qw(kinds lines));
	$replica->is_equal($_, "$_ equals its table again") foreach qw(app.items app.log);
	$target->is_current($_) foreach qw(kinds lines);
	return;
}

write_something();
$replica->settle(qw(kinds lines));
my $before = times_copied();
is($before, 1, 'every copy was made once');

# The slot is gone.
$target->stop_applier;
my $log_end = -s $target->applier_log;
$source->sql(q{SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots});
write_something();
$target->start_applier;
is_repaired('the slot was dropped', $before, qr/made anew: replication slot ".*" did not exist/, $log_end);

# Somebody has consumed the stream.
$before = times_copied();
$target->stop_applier;
$log_end = -s $target->applier_log;
write_something();
$source->sql(q{SELECT pg_replication_slot_advance(slot_name, pg_current_wal_flush_lsn()) FROM pg_replication_slots});
write_something();
$target->start_applier;
is_repaired('the slot was moved', $before, qr/made anew: replication slot ".*" stands at .* and not before/, $log_end);

# The source was restored from a copy of its files: it has forgotten what the target knows.
$before = times_copied();
$target->stop_applier;
$source->stop;
my $backup = PostgreSQL::Test::Utils::tempdir();
system_or_bail('cp', '-a', $source->data_dir, "$backup/data");
$source->start;
$target->start_applier;
write_something() foreach 1 .. 3;
$replica->settle(qw(kinds lines));
$target->stop_applier;
$log_end = -s $target->applier_log;
$source->stop('immediate');
system_or_bail('rm', '-rf', $source->data_dir);
system_or_bail('cp', '-a', "$backup/data", $source->data_dir);
$source->start;
$target->start_applier;
is_repaired('the source was restored', $before, qr/made anew: the server's WAL ends at .* and not behind/, $log_end);

# The same, and by the time we look it has written as much as before, and more.
$target->stop_applier;
$source->stop;
system_or_bail('rm', '-rf', "$backup/data");
system_or_bail('cp', '-a', $source->data_dir, "$backup/data");
$source->start;
$target->start_applier;
write_something() foreach 1 .. 3;
$replica->settle(qw(kinds lines));
is(times_copied(), $before + 1, 'a server that comes back as it was is recognized');
$before = times_copied();
$target->stop_applier;
$log_end = -s $target->applier_log;
my $position = $target->sql('SELECT position FROM pgtrickle.remote_catalog()');
$source->stop('immediate');
system_or_bail('rm', '-rf', $source->data_dir);
system_or_bail('cp', '-a', "$backup/data", $source->data_dir);
$source->start;
$source->sql(q{INSERT INTO app.items (kind, price) VALUES (7, 7)});
$source->sql(q{CREATE TABLE IF NOT EXISTS noise (t text); INSERT INTO noise SELECT repeat('n', 1000) FROM generate_series(1, 500)})
  while $source->sql("SELECT pg_current_wal_flush_lsn() <= '$position'") eq 't';
$target->start_applier;
is_repaired('the source was restored and has gone on', $before, qr/made anew: transaction \d+ at \S+ is not in the history of the server/, $log_end);

# A crash of the source makes its slot forget how far it was: what comes again is recognized, and counts once.
$before = times_copied();
write_something() foreach 1 .. 3;
$replica->settle(qw(kinds lines));
$source->stop('immediate');
$source->start;
write_something();
$replica->settle(qw(kinds lines));
$replica->is_equal($_, "$_ after a crash of the source") foreach qw(app.items app.log);
is(times_copied(), $before, 'a crash of the source has no table copied again');

# Another copy: the stream starts again, those that are there go on.
$before = times_copied();
$replica->copy('app.late');
$source->sql(q{UPDATE app.late SET t = 'later' WHERE id < 4; DELETE FROM app.late WHERE id = 10});
write_something();
$replica->settle(qw(kinds lines));
$replica->is_equal($_) foreach qw(app.late app.items app.log);
is( $target->sql(q{SELECT max(times_copied) FROM pgtrickle.pgt_copies JOIN pgtrickle.pgt_copy_states USING (copy_id) WHERE relid <> 'app.late'::regclass}),
	$before, 'a new copy has not made others be copied again');

# A copy that nobody has asked for yet, and then somebody does.
$source->sql(q{CREATE TABLE app.asked (id int PRIMARY KEY, t text); INSERT INTO app.asked SELECT i, 'x' FROM generate_series(1, 10) i});
$replica->request([ 'shop', 'app.asked', demand => 'on_demand' ]);
$target->wait_until(q{SELECT status = 'DECLARED' FROM pgtrickle.copy_catalog() WHERE relid = to_regclass('app.asked')}, 'the copy is declared');
is($target->sql('SELECT count(*) FROM app.asked'), '0', 'a copy that is there on demand is empty until it is read');
$target->create_stream_table('asked', 'SELECT t, count(*) AS n FROM app.asked GROUP BY t');
$source->sql(q{INSERT INTO app.asked VALUES (11, 'y')});
$target->wait_until(q{SELECT status = 'ACTIVE' FROM pgtrickle.copy_catalog() WHERE relid = 'app.asked'::regclass}, 'the copy is there');
$source->sql(q{UPDATE app.asked SET t = 'z' WHERE id < 3});
$replica->settle('asked');
$replica->is_equal('app.asked', 'then it equals its table');
$target->is_current('asked', 'and what reads it follows');

# The process that copies is held up on the source; it has to go with the applier.
SKIP:
{
	skip 'no /proc', 2 if !-d '/proc/self';
	my $blocker = $source->background_psql($source->dbname);
	$source->sql('CREATE TABLE app.held (id int PRIMARY KEY)');
	$blocker->query_safe('BEGIN; LOCK TABLE app.held');
	$replica->request('app.held');
	my $pid = $target->applier_pid;
	wait_for_child($pid);
	my @children = children_of($pid);
	$target->stop_applier;
	is(scalar(grep { is_alive($_) } @children), 0, 'the applier takes the process that copies along');
	$target->start_applier;
	wait_for_child($target->applier_pid);
	@children = children_of($target->applier_pid);
	$target->kill9_applier;
	foreach (1 .. 100)
	{
		last if !grep { is_alive($_) } @children;
		usleep(20_000);
	}
	is(scalar(grep { is_alive($_) } @children), 0, 'also when it is killed');
	$blocker->query_safe('COMMIT');
	$blocker->quit;
	$target->start_applier;
	$replica->wait_copied;
	$replica->is_equal('app.held');
}
$target->stop_applier;
done_testing();

sub children_of
{
	my ($pid) = @_;

	my @children;
	foreach my $stat (glob '/proc/[0-9]*/stat')
	{
		open my $file, '<', $stat or next;
		my $line = <$file> // next;
		push @children, $1 if $line =~ /^(\d+) \([^)]*\) [^Z] $pid /;
	}
	return @children;
}

# Nobody may have fetched its status yet, when its parent is gone.
sub is_alive
{
	my ($pid) = @_;

	open my $file, '<', "/proc/$pid/stat" or return 0;
	return (<$file> // '') !~ /\) Z /;
}

# One that stays: it waits for the lock.
sub wait_for_child
{
	my ($pid) = @_;

	foreach (1 .. 500)
	{
		last
		  if $source->sql(q{SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'app.held'::regclass}) > 0
		  && children_of($pid);
		usleep(20_000);
	}
	return;
}
