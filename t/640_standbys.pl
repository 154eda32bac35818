# t/640_standbys.pl
#
# Goal: stream tables are read on a physical standby as on the primary, and a promoted standby goes on exactly.
# Method: a database with stream tables and a standby of it; what the functions say there; writers until the primary is gone without
# warning; promotion, an applier for the new primary, comparison with the queries.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster qw(sql_literal);
use Test::More;

my $primary = StreamTables::Cluster->new('target')->boot(conf => "hot_standby_feedback = on\nwal_receiver_status_interval = 1s");
$primary->sql(
	q{CREATE TABLE orders (id int PRIMARY KEY, customer int, amount numeric);
	INSERT INTO orders SELECT i, i % 5, i FROM generate_series(1, 100) i});
$primary->start_applier(args => [ '--heartbeat', 1 ]);
$primary->create_stream_table('totals', 'SELECT customer, sum(amount) AS total, count(*) AS n FROM orders GROUP BY customer');
$primary->create_stream_table('upper', 'SELECT count(*) AS customers, max(total) AS most FROM totals');
$primary->wait_fresh('upper');

$primary->backup('base');
my $standby = StreamTables::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

# Until then the primary may remove row versions that a waiting query there holds, and the replay would wait for the query.
$primary->wait_until('SELECT count(backend_xmin) = 1 FROM pg_stat_replication', 'the primary knows what the standby reads');

# --- reading on the standby -------------------------------------------------------------------------------------

# Write on the primary, wait on the standby: read-your-writes across the two.
sub write_and_wait
{
	my ($sql) = @_;

	$primary->sql($sql);
	my $lsn = $primary->sql('SELECT pg_current_wal_insert_lsn()');
	return $standby->sql("SELECT pgtrickle.wait_fresh('upper', '60s', '$lsn')");
}

is(write_and_wait(q{INSERT INTO orders VALUES (101, 7, 1000)}), 't', 'wait_fresh with a position of the primary works on the standby');
is($standby->sql('SELECT * FROM upper'), $primary->sql('SELECT * FROM upper'), 'the standby has the rows then');
is($standby->sql('SELECT customers FROM upper'), '6', 'with the last write');
is( $standby->sql(q{SELECT status, staleness_seconds IS NOT NULL, data_timestamp <= now() FROM pgtrickle.get_staleness('totals')}),
	'ACTIVE|t|t',
	'get_staleness works there');
is($standby->sql(q{SELECT string_agg(name, ' ' ORDER BY name) FROM pgtrickle.pgt_status()}) =~ s/public\.//gr,
	'totals upper', 'so does pgt_status');
is($standby->sql('SELECT count(*) FROM pgtrickle.pgt_stream_tables WHERE is_populated'), '2', 'and the view of definitions');
like($standby->sql(q{SELECT pgtrickle.explain_st('totals')}), qr/orders/, 'and explain_st');
$standby->sql('SELECT * FROM pgtrickle.health_check()');
pass('and health_check');
foreach my $call (q{refresh_stream_table('totals')}, q{wait_fresh('totals')}, q{verify('totals')})
{
	like($standby->psql_error("SELECT pgtrickle.$call"), qr/^25006: cannot .* during recovery\nHINT: /, "$call says why it cannot");
}

# --- the standby takes over -------------------------------------------------------------------------------------------

$primary->sql(q{UPDATE orders SET amount = amount + 1 WHERE id % 3 = 0});
$primary->wait_fresh('upper');
$primary->wait_for_catchup($standby, 'replay');

# The last writes are in the standby's WAL, and no applier has seen them.
kill 'STOP', $primary->applier_pid;
$primary->sql(q{INSERT INTO orders SELECT i, i % 9, 1 FROM generate_series(201, 300) i; DELETE FROM orders WHERE id < 10});
$primary->wait_for_catchup($standby, 'replay');
$primary->kill9_applier;
$primary->stop('immediate');
$standby->promote;
$standby->run_program('setup');
$standby->start_applier;
$standby->wait_fresh('totals', 'upper');
$standby->is_current('totals', 'after promotion what no applier had seen is in');
$standby->is_current('upper', 'also in what is above');
my $known = $standby->sql('SELECT max(refresh_id) FROM pgtrickle.pgt_history');
$standby->sql(q{UPDATE orders SET customer = 3 WHERE id = 250; INSERT INTO orders VALUES (1001, 1, 5)});
$standby->wait_fresh('upper');
$standby->is_current('totals', 'and later changes');
$standby->is_current('upper', 'as well');
is( $standby->sql("SELECT count(*) FROM pgtrickle.pgt_history WHERE refresh_id > $known AND action = 'FULL'"),
	'0', 'by delta');
$standby->verify('upper');
$standby->stop_applier;

done_testing();
