# t/304_large_transaction.pl
#
# Goal: a transaction far larger than the change buffer is followed in bounded memory, and so are many
#       transactions that wait for a slow schedule.
# Method: a small --buffer-mb; look at the peak of the applier's memory. PGTRICKLE_LARGE_ROWS sets the size (default
#         300000 rows, 5000000 with PGTRICKLE_LONG).
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;

my $rows = $ENV{PGTRICKLE_LARGE_ROWS} // ($ENV{PGTRICKLE_LONG} ? 5_000_000 : 300_000);
my $node = StreamTables::Cluster->new('large')
  ->boot(conf => "max_wal_size = 4GB\nlogical_decoding_work_mem = 4MB");

sub peak_kb
{
	return (slurp_file('/proc/' . $node->applier_pid . '/status') =~ /VmHWM:\s+(\d+)/)[0];
}

$node->start_applier(args => [ '--buffer-mb', 8 ]);
$node->sql(
	q{CREATE TABLE readings (id int, sensor int, value int, note text);
	CREATE TABLE small (id int)});
$node->create_stream_table('by_sensor',
	'SELECT sensor, count(*) AS n, sum(value) AS total FROM readings GROUP BY sensor');
$node->create_stream_table('selected', 'SELECT id, note FROM readings WHERE sensor = 7');
$node->create_stream_table('of_small', 'SELECT id FROM small');
my $at_rest = peak_kb();

$node->sql(
	"INSERT INTO readings SELECT i, i % 100, i % 1000, 'reading number ' || i FROM generate_series(1, $rows) i"
);
$node->sql('INSERT INTO small VALUES (1)');
$node->wait_fresh(qw(by_sensor selected of_small));
$node->is_current($_) foreach qw(by_sensor selected of_small);
$node->assert_no_fallback('by_sensor', 'the large transaction was applied by delta');
cmp_ok(peak_kb() - $at_rest,
	'<', 24 * 1024, "$rows rows in one transaction, with a buffer of 8 MB: memory is bounded")
  or diag("peak: " . peak_kb() . " kB");
$node->stop_applier;

# Many small ones that a slow stream table has not consumed. When even what remains in memory of each is too much, the
# slow one is refreshed before its time.
$node->start_applier(args => [ '--buffer-mb', 1 ]);
$node->create_stream_table('slow', 'SELECT count(*) AS n FROM small', schedule => '1h');
$node->sql(
	q{CREATE PROCEDURE many(n int) LANGUAGE plpgsql AS $$
	BEGIN
		FOR i IN 1 .. n LOOP
			INSERT INTO small VALUES (i);
			COMMIT;
		END LOOP;
	END $$});
$node->sql('CALL many(20000)');
$node->wait_until('SELECT n > 10000 FROM slow',
	'the slow one has been refreshed because the buffer was full');
cmp_ok(peak_kb(), '<', $at_rest + 24 * 1024, 'memory is bounded');
$node->refresh('slow');
$node->wait_fresh('of_small');
$node->is_current($_) foreach qw(slow of_small);
$node->stop_applier;

# A manual one is not refreshed unasked: its changes go into the spool, and a full refresh is not needed.
$node->start_applier(args => [ '--buffer-mb', 1 ]);
$node->create_stream_table('manual', 'SELECT count(*) AS n FROM small', schedule => 'manual', refresh_mode => 'DIFFERENTIAL');
$node->sql('CALL many(20000)');
$node->wait_fresh('of_small');
is($node->sql('SELECT n FROM manual'), 20001, 'a manual stream table stays as it is');
$node->wait_until('SELECT count(*) > 0 FROM pgtrickle.pgt_spool', 'what the buffer has no room for comes into the spool');
$node->refresh('manual');
$node->is_current('manual', 'and its refresh has them all');
$node->assert_no_fallback('manual');
$node->stop_applier;
done_testing();
