# t/306_stream_behind.pl
#
# Goal: while the stream is far behind, no snapshot is held open to wait for it (that would hold back vacuum), and
#       refreshes go on when it has caught up.
# Method: stop the walsender with a signal just after it has sent a change that is not due yet; write much; look at the
#         refresh connection when it is due; let the walsender go on.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;

my $node =
  StreamTables::Cluster->new('behind')->boot(conf => "max_wal_size = 2GB\nautovacuum = off\npgtrickle.cost_based = off");
$node->start_applier;
$node->sql(
	q{CREATE TABLE orders (id serial PRIMARY KEY, amount int); CREATE TABLE elsewhere (filler text)}
);
$node->create_stream_table(
	'totals',
	'SELECT count(*) AS n, sum(amount) AS total FROM orders',
	schedule => '4s');
$node->refresh('totals');

$node->sql('INSERT INTO orders (amount) VALUES (1), (2)');
my $lsn = $node->sql('SELECT pg_current_wal_insert_lsn()');
$node->wait_until("SELECT write_lsn >= '$lsn' OR sent_lsn >= '$lsn' FROM pg_stat_replication",
	'the change has been sent');
my $walsender = $node->sql('SELECT active_pid FROM pg_replication_slots');
kill 'STOP', $walsender;
$node->sql(
	q{INSERT INTO elsewhere SELECT repeat(md5(i::text), 30) FROM generate_series(1, 100000) i});

my $log_start = -s $node->applier_log;
my $waits = qr/LOG:  the stream is at \S+: refreshes go on when it has reached \S+/;
$node->wait_until('SELECT true') until slurp_file($node->applier_log) =~ $waits;
is( $node->sql(
		q{SELECT state, backend_xmin IS NULL FROM pg_stat_activity WHERE application_name = 'pgtrickle refresh'}
	),
	'idle|t',
	'no snapshot is held while the stream is far behind');
is($node->sql('SELECT n FROM totals'), 0, 'and nothing is refreshed');

kill 'CONT', $walsender;
$node->wait_until('SELECT n = 2 FROM totals', 'refreshes go on when it has caught up');
$node->is_current('totals');
$node->assert_no_fallback('totals');
$node->stop_applier;
done_testing();
