# t/643_topologies.pl
#
# Goal: what docs/how-to/replica-topologies.md tells people to type works, and the copies are right in each arrangement.
# Method: two sources (with a standby from 16 on), a target and its standby, known by a service file; the page's blocks in their order on the server
# that each names; compared with the sources, also after the target's standby was promoted.
use strict;
use warnings FATAL => 'all';

use File::Basename qw(dirname);
use IPC::Run;
use PostgreSQL::Test::Utils;
use StreamTables::Cluster qw(sql_literal);
use StreamTables::Replica;
use Test::More;
use Time::HiRes qw(usleep);

my $page = dirname(__FILE__) . '/../docs/how-to/replica-topologies.md';

my $replica = StreamTables::Replica->new('topology', remotes => [],
	target => { conf => "hot_standby_feedback = on\nwal_receiver_status_interval = 1s" });
my $target = $replica->target;
my %node = (target => $target);
foreach my $name (qw(north south))
{
	$node{$name} = $replica->add_source($name, conf => "hot_standby_feedback = on\nwal_receiver_status_interval = 1s");
	$node{$name}->sql(
		q{CREATE SCHEMA app; CREATE TABLE app.orders (id int PRIMARY KEY, customer text, amount int);
		INSERT INTO app.orders SELECT i, 'c' || i % 3, i FROM generate_series(1, 50) i});
}
my $has_source_standby = $node{north}->pg_version >= 16;
if ($has_source_standby)
{
	$node{north}->sql(q{SELECT pg_create_physical_replication_slot('standby1')});
	make_standby('north', 'standby', "primary_slot_name = 'standby1'");
}
make_standby('target', 'target-standby', '');

my $services = PostgreSQL::Test::Utils::tempdir() . '/services';
open my $handle, '>', $services or die "could not write $services: $!";
foreach my $name (grep { $_ ne 'target' } keys %node)
{
	print $handle "[$name]\nhost=" . $node{$name}->host . "\nport=" . $node{$name}->port . "\ndbname=postgres\n";
}
close $handle or die "could not write $services: $!";
$target->start_applier(env => { PGSERVICEFILE => $services }, args => [ '--heartbeat', 1 ]);

my %written;
foreach my $block (blocks())
{
	my ($where, $sql, $line) = @$block;
	next if $where =~ /-16$/ && !$has_source_standby;
	if ($where eq 'promote')
	{
		look_at_all('before the promotion');
		promote_target_standby($sql, $line);
		next;
	}
	my $output = run_block($where =~ /^primary/ ? 'north' : $where =~ s/-16$//r, $sql);
	unlike($output, qr/ERROR|FATAL|^f$/m, "line $line runs on $where");
	like($output, qr/^t\n.*ACTIVE/s, 'the standby of the target answers') if $where eq 'target-standby';
}
look_at_all('after the promotion');
$node{target}->stop_applier;
done_testing();

# [server, text, line]
sub blocks
{
	my (@blocks, $where, @text);
	my $line_no = 0;

	foreach my $line (split /\n/, slurp_file($page))
	{
		$line_no++;
		if (defined $where && $line eq '```')
		{
			push @blocks, [ $where, join("\n", @text) . "\n", $line_no - @text ] if $where =~ /^(target|primary|north|promote)/;
			undef $where;
		}
		elsif (defined $where)
		{
			push @text, $line;
		}
		elsif ($line =~ /^```(.*)/)
		{
			($where, @text) = ($1);
		}
	}
	return @blocks;
}

# What psql says; variables that a block sets are there in the later ones.
sub run_block
{
	my ($name, $sql) = @_;

	my $output = '';
	my @variables = $sql =~ /AS (\w+) \\gset/g;
	my $script = $sql . join('', map { "\\echo written $_=:$_\n" } @variables);
	my @set = map { ('-v', "$_=$written{$_}") } sort keys %written;

	# The slot on a standby waits for what the next block does on its primary.
	IPC::Run::run([ 'psql', '-XAtq', @set, '-d', $node{$name}->connstr('postgres') ], '<', \$script, '>&', \$output);
	$written{$1} = $2 while $output =~ s/^written (\w+)=(.*)\n//m;
	return $output;
}

sub make_standby
{
	my ($of, $name, $conf) = @_;

	$node{$of}->backup($name);
	$node{$name} = StreamTables::Cluster->new($name);
	$node{$name}->init_from_backup($node{$of}, $name, has_streaming => 1);
	$node{$name}->append_conf('postgresql.conf', $conf);
	$node{$name}->start;
	$node{$of}->wait_until('SELECT count(backend_xmin) = 1 FROM pg_stat_replication', 'the primary knows what the standby reads')
	  if $conf eq '';
	return;
}

sub look_at_all
{
	my ($when) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $name (qw(north south))
	{
		$node{$name}->sql(q{UPDATE app.orders SET amount = amount + 1; INSERT INTO app.orders SELECT max(id) + 1, 'new', 1 FROM app.orders});
	}
	foreach my $copy ([ north => 'north' ], [ south => 'south' ], $has_source_standby ? [ behind => 'north' ] : ())
	{
		my ($remote, $source) = @$copy;
		my $lsn = $node{$source}->sql('SELECT pg_current_wal_flush_lsn()');
		$node{target}->wait_until(
			"SELECT is_populated FROM pgtrickle.pgt_copies_status WHERE remote_name = '$remote' AND remote_table = 'app.orders'", "$remote has been copied");
		$node{target}->wait_until(
			"SELECT position >= '$lsn' FROM pgtrickle.remote_catalog() WHERE remote_name = '$remote'", "$remote has been followed");
		is( $node{target}->sql("SELECT count(*), sum(hashtext(o::text)) FROM $remote.orders o"),
			$node{$source}->sql('SELECT count(*), sum(hashtext(o::text)) FROM app.orders o'),
			"$when: $remote");
	}
	$node{target}->wait_fresh('all_orders');
	$node{target}->is_current('all_orders', "$when: the stream table over several");
	return;
}

# The old primary is gone for good; the standby has all that it has said.
sub promote_target_standby
{
	my ($sql, $line) = @_;

	$target->wait_for_catchup($node{'target-standby'}, 'replay');
	my $copied = $target->sql('SELECT sum(times_copied) FROM pgtrickle.pgt_copy_states');
	$target->stop_applier;
	$target->stop;
	$node{target} = $node{'target-standby'};
	is(run_block('target', $sql), "t\n", "line $line promotes the standby");
	$node{target}->run_program('setup');
	$node{target}->start_applier(env => { PGSERVICEFILE => $services }, args => [ '--heartbeat', 1 ]);
	look_at_all('with the new primary');
	is($node{target}->sql('SELECT sum(times_copied) FROM pgtrickle.pgt_copy_states'), $copied, 'nothing was copied again');
	return;
}
