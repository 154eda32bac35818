# t/612_network_cuts.pl
#
# Goal: a network that is cut, or that swallows what is sent in one direction, costs time and nothing else; the target notices by itself, and
#       what is local goes on meanwhile.
# Method: a process between target and source that passes bytes on, or stops doing so in one direction or in both, or hangs up.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use StreamTables::Replica;
use StreamTables::Wire;
use Test::More;
use Time::HiRes qw(usleep);

my $replica = StreamTables::Replica->new('cut', remotes => [], target => { conf => 'pgtrickle.cost_based = off' });
my $target = $replica->target;
my $source = $replica->add_source('far', conf => 'wal_sender_timeout = 3s');
my $wire = StreamTables::Wire->new($source);
$replica->add_remote('far', conninfo => $wire->conninfo);
$source->sql(
	q{CREATE SCHEMA app; CREATE TABLE app.readings (id serial PRIMARY KEY, sensor int, value int);
	INSERT INTO app.readings (sensor, value) SELECT i % 4, i FROM generate_series(1, 100) i});
$target->sql('CREATE TABLE local (i int)');
$target->start_applier(args => [ '--remote-timeout', 2 ]);
$replica->copy('app.readings');
$target->create_stream_table('by_sensor', 'SELECT sensor, count(*) AS n, sum(value) AS total FROM app.readings GROUP BY sensor');
$target->create_stream_table('locals', 'SELECT count(*) AS n FROM local');

sub write_something
{
	$source->sql(
		q{INSERT INTO app.readings (sensor, value) SELECT i % 4, i FROM generate_series(1, 500) i;
		UPDATE app.readings SET value = value + 1 WHERE id % 5 = 0; DELETE FROM app.readings WHERE id % 7 = 3});
	return;
}

sub is_well
{
	my ($after) = @_;

	$replica->settle('by_sensor');
	$replica->is_equal('app.readings', "the copy equals its table after $after");
	$target->is_current('by_sensor', "and so does what reads it");
	return;
}

sub local_goes_on
{
	my ($during) = @_;

	$target->sql('INSERT INTO local VALUES (1)');
	$target->wait_fresh('locals');
	$target->is_current('locals', "what is local goes on: $during");
	return;
}

write_something();
is_well('the start');
foreach my $trouble ('nothing comes', 'nothing goes', 'nothing comes or goes', 'hung up')
{
	my $log_end = -s $target->applier_log;

	$wire->set($trouble);
	write_something();
	local_goes_on($trouble);
	wait_for_applier_log(qr/WARNING:  remote "far": /, $log_end);
	local_goes_on("$trouble, and that was noticed");
	write_something();
	$wire->set('all is well');
	is_well($trouble);
}
$replica->were_copied_once;
$target->assert_no_fallback('by_sensor');
$target->stop_applier;
$wire->stop;
done_testing();

sub wait_for_applier_log
{
	my ($pattern, $from) = @_;

	foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return pass('the target has noticed') if substr(slurp_file($target->applier_log), $from) =~ $pattern;
		usleep(100_000);
	}
	return fail("the applier's log matches $pattern");
}
