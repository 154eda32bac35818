# t/305_failures.pl
#
# Goal: a stream table that cannot be refreshed backs off and is suspended, with its last good rows; others go
#       on. A lock held by somebody stops only who needs it. A commit that is received but not visible waits, and holds the slot.
# Method: a query that fails on data; LOCK TABLE in another session; a writer stalled by a standby that does not exist.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;
use Time::HiRes qw(usleep);

my $node = StreamTables::Cluster->new('failures')->boot(conf => 'pgtrickle.cost_based = off');
$node->start_applier(args => [ '--lock-timeout', 200 ]);
$node->sql(
	q{CREATE TABLE orders (id serial PRIMARY KEY, customer int, amount int);
	CREATE TABLE visits (id serial PRIMARY KEY, customer int);
	INSERT INTO orders (customer, amount) VALUES (1, 10)});
$node->create_stream_table('totals',
	'SELECT customer, sum(amount) AS total FROM orders GROUP BY customer');
$node->create_stream_table('shares', 'SELECT id, 100 / amount AS share FROM orders');
$node->create_stream_table('small_shares', 'SELECT id FROM shares WHERE share < 5');
$node->create_stream_table('visitors',
	'SELECT customer, count(*) AS n FROM visits GROUP BY customer');

# --- bad data

$node->sql('INSERT INTO orders (customer, amount) VALUES (2, 50)');
$node->wait_fresh(qw(totals shares small_shares));
$node->sql('INSERT INTO orders (customer, amount) VALUES (3, 0)');
$node->wait_until(q{SELECT EXISTS (SELECT FROM totals WHERE customer = 3)}, 'others go on');
$node->wait_until(
	q{SELECT consecutive_errors > 0 AND last_error_sqlstate = '22012' FROM pgtrickle.pgt_frontiers
	JOIN pgtrickle.pgt_definitions USING (pgt_id) WHERE relid = 'shares'::regclass},
	'the failure is recorded');
like(
	slurp_file($node->applier_log),
	qr/WARNING:  could not refresh stream table "public.shares": division by zero/,
	'the log says what failed and why');
is($node->sql('SELECT count(*) FROM shares'), 2, 'the failed one keeps its last good rows');
is($node->sql('SELECT count(*) FROM small_shares'), 1, 'and so does what reads it');
is( $node->sql(
		q{SELECT consecutive_errors FROM pgtrickle.pgt_frontiers
	JOIN pgtrickle.pgt_definitions USING (pgt_id) WHERE relid = 'small_shares'::regclass}),
	0,
	'which is not blamed');
$node->wait_until(
	q{SELECT status = 'SUSPENDED' FROM pgtrickle.pgt_definitions WHERE relid = 'shares'::regclass},
	'after some failures it is suspended');
my ($ok, $stdout) = $node->try_program('doctor');
like(
	$stdout,
	qr/FAILED +stream table public.shares has status SUSPENDED\n +repair: /,
	'doctor names it');
$node->sql('DELETE FROM orders WHERE amount = 0');
$node->sql(q{SELECT pgtrickle.alter_stream_table('shares', status => 'ACTIVE')});
$node->wait_fresh(qw(totals shares small_shares));
$node->is_current($_, "$_ is right after the cause was removed")
  foreach qw(totals shares small_shares);

# --- locks

my $locker = $node->background_psql($node->dbname, on_error_die => 1);
$locker->query_safe('BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE');
$node->sql('INSERT INTO visits (customer) VALUES (1), (1), (2)');
$node->wait_fresh('visitors');
$node->is_current('visitors', 'a source that is locked does not stop the others');
$locker->query_safe('INSERT INTO orders (customer, amount) VALUES (1, 33); COMMIT');
$node->wait_fresh(qw(totals shares small_shares));
$node->is_current('totals', 'and those that had to wait go on afterwards');
is($node->sql('SELECT sum(consecutive_errors) FROM pgtrickle.pgt_frontiers'),
	0, 'nobody is blamed for a lock');
$locker->quit;

# --- committed, received, not visible

$node->sql(q{ALTER SYSTEM SET synchronous_standby_names = 'nobody'});
$node->reload;
$node->wait_until(q{SELECT current_setting('synchronous_standby_names') = 'nobody'});
my $stalled = $node->background_psql($node->dbname, on_error_stop => 0);
my $before = $node->sql('SELECT pg_current_wal_insert_lsn()');
$stalled->query_until(qr/go/,
	"\\echo go\nINSERT INTO orders (customer, amount) VALUES (1, 1000);\n");
$node->wait_until(
	q{SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query ~ '1000'},
	'a writer waits for a standby');
$node->sql(q{SET synchronous_commit = local; INSERT INTO orders (customer, amount) VALUES (2, 7)});
$node->wait_until('SELECT total = 57 FROM totals WHERE customer = 2',
	'later commits are applied meanwhile');
is($node->sql('SELECT total FROM totals WHERE customer = 1'),
	43, 'what nobody can see is not applied');
my $ticks = $node->sql('SELECT sum(total_refreshes) FROM pgtrickle.pgt_frontiers');
my $lsn = $node->sql('SELECT pg_current_wal_insert_lsn()');
usleep(1_000_000);
is($node->sql('SELECT sum(total_refreshes) FROM pgtrickle.pgt_frontiers'),
	$ticks, 'looking for it again refreshes nothing');
$node->sql(q{SET synchronous_commit = local; SELECT pgtrickle.refresh_stream_table('totals')});
is( $node->sql(
		"SELECT confirmed_flush_lsn < '$before'::pg_lsn + 65536 AND confirmed_flush_lsn <
		(SELECT pg_current_wal_insert_lsn()) FROM pg_replication_slots"),
	't',
	'and it holds the slot');

# Even an applier that starts anew must not take it for applied, nor for not there.
$node->kill9_applier;
$node->start_applier;
$node->sql(q{SET synchronous_commit = local; INSERT INTO orders (customer, amount) VALUES (2, 8)});
$node->wait_until('SELECT total = 65 FROM totals WHERE customer = 2', 'a new applier goes on');
is($node->sql('SELECT total FROM totals WHERE customer = 1'), 43, 'and waits as well');
$node->sql('ALTER SYSTEM RESET synchronous_standby_names');
$node->reload;
$node->wait_until('SELECT total = 1043 FROM totals WHERE customer = 1',
	'when it becomes visible it is applied');
$stalled->quit;
$node->wait_fresh(qw(totals shares small_shares visitors));
$node->is_current($_, "$_ at the end") foreach qw(totals shares small_shares visitors);
$node->assert_no_fallback('totals');
$node->stop_applier;
done_testing();
