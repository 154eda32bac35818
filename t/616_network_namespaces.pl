# t/616_network_namespaces.pl
#
# Goal: what 612 shows with a process in between holds for packets that are lost: cut in either direction, in both, or the cable is out, target and
#       source find each other again, and every change counts once; also when the cut comes while a table is copied.
# Method: two network namespaces with a cable in between. The source's server runs in one, the target and the applier in the other; orders to both go
#         through Unix sockets, which no cut touches. A direction is cut by giving the sender a wrong hardware address of the other side. It needs a kernel that
#         lets ordinary users make namespaces of their own, and is skipped elsewhere.
use strict;
use warnings FATAL => 'all';

use IPC::Run;
use POSIX ();
use Test::More;

# The same program once more, inside; before modules have done anything with standard output.
BEGIN
{
	my @namespaces = ('unshare', '--user', '--map-current-user', '--keep-caps', '--net');
	my $said = '';

	$ENV{PATH} .= ':/sbin:/usr/sbin';
	if (!$ENV{PGTRICKLE_IN_NAMESPACE})
	{
		plan skip_all => 'there is no program "ip"' if !grep { -x "$_/ip" } split /:/, $ENV{PATH};
		plan skip_all => "no network namespace can be had here: $said"
		  if !IPC::Run::run([ @namespaces, 'sh', '-c', 'ip link add near type veth peer name far && unshare --net true' ], '>&', \$said);
		$ENV{PGTRICKLE_IN_NAMESPACE} = 1;
		exec @namespaces, $^X, (map { "-I$_" } grep { !ref } @INC), $0 or die "could not run $0 again: $!";
	}
}

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use StreamTables::Replica;
use Time::HiRes qw(usleep);

my ($near, $far) = ('10.77.0.1', '10.77.0.2');
my $holder = fork() // die "could not fork: $!";
exec 'unshare', '--net', 'sleep', '600' or POSIX::_exit(127) if $holder == 0;
END { local $?; kill 'KILL', $holder if $holder; }
wait_until_true(sub { readlink("/proc/$holder/ns/net") ne readlink('/proc/self/ns/net') }, 'the other namespace is there');
my @there = ('nsenter', "--net=/proc/$holder/ns/net");

ip('link', 'set', 'lo', 'up');
ip('link', 'add', 'near', 'type', 'veth', 'peer', 'name', 'far');
ip('link', 'set', 'far', 'netns', $holder);
ip('addr', 'add', "$near/24", 'dev', 'near');
ip('link', 'set', 'near', 'up');
ip_there('addr', 'add', "$far/24", 'dev', 'far');
ip_there('link', 'set', 'far', 'up');

my $replica = StreamTables::Replica->new('namespaces', remotes => []);
my $target = $replica->target;
my $source = $replica->add_source('far', conf => 'wal_sender_timeout = 3s');
$source->append_conf('postgresql.conf', "listen_addresses = '$far'");
$source->append_conf('pg_hba.conf', "host all all $near/32 trust");
$source->stop;
system_or_bail(@there, 'pg_ctl', '--wait', '--pgdata', $source->data_dir, '--log', $source->logfile, 'start');
$source->_update_pid(1);
$replica->add_remote('far', conninfo => "host=$far port=" . $source->port . ' dbname=postgres');
$source->sql(
	q{CREATE SCHEMA app; CREATE TABLE app.readings (id serial PRIMARY KEY, sensor int, value int);
	INSERT INTO app.readings (sensor, value) SELECT i % 4, i FROM generate_series(1, 100) i;
	CREATE TABLE app.long (id int PRIMARY KEY, t text); INSERT INTO app.long SELECT i, repeat('x', 200) FROM generate_series(1, 8000) i});
$target->sql('CREATE TABLE local (i int)');
$target->start_applier(args => [ '--remote-timeout', 2 ]);
$replica->copy('app.readings');
is($source->sql(q{SELECT DISTINCT client_addr FROM pg_stat_replication}), $near, 'the stream goes through the cable');
$target->create_stream_table('by_sensor', 'SELECT sensor, count(*) AS n, sum(value) AS total FROM app.readings GROUP BY sensor');
$target->create_stream_table('locals', 'SELECT count(*) AS n FROM local');

my %cut = (
	'nothing comes' => sub { deafen(\&ip_there, $near, 'far', @_) },
	'nothing goes' => sub { deafen(\&ip, $far, 'near', @_) },
	'nothing comes or goes' => sub { deafen(\&ip_there, $near, 'far', @_); deafen(\&ip, $far, 'near', @_) },
	'the cable is out' => sub { ip_there('link', 'set', 'far', $_[0] ? 'down' : 'up') });

write_something();
is_well('the start');
foreach my $trouble ('nothing comes', 'nothing goes', 'nothing comes or goes', 'the cable is out')
{
	my $log_end = -s $target->applier_log;

	$cut{$trouble}->(1);
	write_something();
	$target->sql('INSERT INTO local VALUES (1)');
	$target->wait_fresh('locals');
	$target->is_current('locals', "what is local goes on: $trouble");
	wait_until_true(sub { substr(slurp_file($target->applier_log), $log_end) =~ /WARNING:  remote "far": / }, 'the target has noticed');
	write_something();
	$cut{$trouble}->(0);
	is_well($trouble);
}

# While rows are copied, slowly.
$target->sql(q{SELECT pgtrickle.alter_remote('far', options => '{"copy_rate_limit": "1MB", "copy_chunk_rows": 1000}')});
$replica->request('app.long');
$target->wait_until(q{SELECT count(*) > 0 FROM pgtrickle.pgt_copy_chunks WHERE status = 'DONE'}, 'some of it is there');
$cut{'nothing comes'}->(1);
$source->sql(q{UPDATE app.long SET t = 'new' WHERE id % 10 = 0; DELETE FROM app.long WHERE id % 11 = 0; INSERT INTO app.long SELECT i, 'late' FROM generate_series(20001, 20100) i});
usleep(3_000_000);
$cut{'nothing comes'}->(0);
$target->sql(q{SELECT pgtrickle.alter_remote('far', options => '{}')});
$replica->wait_copied;
is_well('a cut during the copying');
$replica->is_equal('app.long', 'the table that was being copied');
is($target->sql(q{SELECT max(times_copied) FROM pgtrickle.pgt_copy_states}), '1', 'no copy was made twice');
$target->stop_applier;
done_testing();

sub ip
{
	system_or_bail('ip', @_);
	return;
}

sub ip_there
{
	system_or_bail(@there, 'ip', @_);
	return;
}

# Who sends to a hardware address that nobody has is not heard.
sub deafen
{
	my ($run, $address, $device, $is_cut) = @_;

	return $run->('neigh', 'replace', $address, 'lladdr', '02:00:00:00:00:99', 'dev', $device, 'nud', 'permanent') if $is_cut;
	return $run->('neigh', 'del', $address, 'dev', $device);
}

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

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$replica->settle('by_sensor');
	$replica->is_equal('app.readings', "the copy equals its table after: $after");
	$target->is_current('by_sensor', 'and so does what reads it');
	return;
}

sub wait_until_true
{
	my ($is_true, $what) = @_;

	foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return if $is_true->();
		usleep(100_000);
	}
	die "timed out waiting: $what";
}
