# t/230_locks.pl
#
# Goal: who waits for whom: nobody who reads or writes waits for a refresh or a first fill, and DDL only for what it must.
# Method: isolation/*.spec, each an order of steps in several sessions, run by the server's isolationtester with an applier at work; what it prints
#         says which steps had to wait, and is compared with isolation/expected/*.out.
use strict;
use warnings FATAL => 'all';

use File::Basename qw(basename dirname);
use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;

my $tester = dirname($ENV{PG_REGRESS}) . '/../isolation/isolationtester';
plan skip_all => "the server's packages bring no isolationtester" if !-x $tester;

my $folder = dirname(__FILE__) . '/isolation';
my $node = StreamTables::Cluster->new('locks')->boot;
$node->start_applier(args => [ '--lock-timeout', 50 ]);

foreach my $spec (sort glob "$folder/*.spec")
{
	my $name = basename($spec, '.spec');
	my ($out, $err);
	IPC::Run::run([ $tester, $node->connstr('postgres') ], '<', $spec, '>', \$out, '2>', \$err);
	is($err, '', "$name: no complaint");
	my $expected = -e "$folder/expected/$name.out" ? slurp_file("$folder/expected/$name.out") : '';
	is($out, $expected, "$name: those wait who have to") or append_to_file($node->basedir . "/$name.out", $out);
}

done_testing();
