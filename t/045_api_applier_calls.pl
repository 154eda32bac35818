# t/045_api_applier_calls.pl
#
# Goal: what the applier calls outside of a tick says what docs/explanation/tick.md promises.
# Method: no applier; play its part by hand, which includes writing what a tick would have written.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster qw(sql_literal);
use Test::More;

my $node = StreamTables::Cluster->new('applier_calls')->boot(setup => 'extension');

sub schedules
{
	return $node->sql(
		q{SELECT string_agg(concat_ws(' ', pgt_name, schedule_kind, schedule_ms), ', ' ORDER BY pgt_name)
		FROM pgtrickle.applier_catalog()});
}

# --- the catalog -----------------------------------------------------------------------------------------

$node->sql(
	q{CREATE TABLE src (id int PRIMARY KEY, v int); CREATE TABLE part (id int) PARTITION BY LIST (id); CREATE SCHEMA "Odd Name";
	CREATE TABLE "Odd Name"."Order" (id int PRIMARY KEY); CREATE VIEW view AS SELECT * FROM src});
$node->create_stream_table(
	'bronze', 'SELECT id, v FROM view',
	schedule => 'calculated',
	initialize => 'false');
$node->create_stream_table(
	'silver', 'SELECT v FROM bronze WHERE id > 0',
	schedule => 'calculated',
	initialize => 'false');
is( schedules(),
	'bronze continuous 0, silver continuous 0',
	'calculated without consumers follows the default schedule');
$node->sql(q{ALTER DATABASE postgres SET pgtrickle.default_schedule = '20s'});
is(schedules(), 'bronze interval 20000, silver interval 20000', 'which is a setting');
$node->create_stream_table(
	'gold', 'SELECT v FROM silver WHERE v > 0',
	schedule => 'manual',
	initialize => 'false');
is( schedules(),
	'bronze manual, gold manual, silver manual',
	'calculated with manual consumers is manual');
$node->create_stream_table(
	'platinum', 'SELECT v FROM silver WHERE v > 1',
	schedule => '10s',
	initialize => 'false');
is( schedules(),
	'bronze interval 10000, gold manual, platinum interval 10000, silver interval 10000',
	'the shortest consumer decides');
$node->create_stream_table(
	'side', 'SELECT v FROM bronze WHERE v > 1',
	schedule => 'continuous',
	initialize => 'false');
is( schedules(),
	'bronze continuous 0, gold manual, platinum interval 10000, side continuous 0, silver interval 10000',
	'over all levels');
$node->create_stream_table(
	'free', 'SELECT v FROM bronze WHERE v > 2',
	schedule => 'calculated',
	initialize => 'false');
like(
	schedules(),
	qr/free interval 20000/,
	'a calculated consumer without consumers has the default');

my ($src, $view, $bronze, $silver) =
  map { $node->sql("SELECT '$_'::regclass::oid") } qw(src view bronze silver);
my %ids = map { split /\|/ } split /\n/,
  $node->sql('SELECT pgt_name, pgt_id FROM pgtrickle.applier_catalog()');
is( $node->sql(
		q{SELECT pgt_schema, relid, status, refresh_mode, source_relids, upstream_ids, frontier_snapshot, needs_refill, consecutive_errors, has_consumers
	FROM pgtrickle.applier_catalog() WHERE pgt_name IN ('bronze', 'silver') ORDER BY pgt_name}),
	"public|$bronze|INITIALIZING|DIFFERENTIAL|{$src,$view}|{}||t|0|t\npublic|$silver|INITIALIZING|DIFFERENTIAL|{$bronze}|{$ids{bronze}}||t|0|t",
	'the catalog names sources, views and upstream stream tables');

$node->create_stream_table(
	'odd',
	'SELECT o.id FROM "Odd Name"."Order" o JOIN part USING (id) JOIN src USING (id)',
	initialize => 'false');
my $odd = $node->sql(q{SELECT pgtrickle.stream_table_id('odd')});
like(
	$node->sql("SELECT pgtrickle.tick_lock_list('{$odd}')"),
	qr/^public\.src, public\.part, "Odd Name"\."Order"$/,
	'the lock list quotes names, in the order of OIDs');
is($node->sql("SELECT pgtrickle.tick_lock_list('{}')"), '', 'and may be empty');
$node->sql("BEGIN ISOLATION LEVEL REPEATABLE READ; LOCK TABLE "
	  . $node->sql("SELECT pgtrickle.tick_lock_list('{$odd}')")
	  . ' IN ACCESS SHARE MODE; COMMIT');

# --- start -------------------------------------------------------------------------------------------------

is($node->sql('SELECT * FROM pgtrickle.applier_state()'), '||||||',
	'at first nothing is persisted');
$node->sql(q{SELECT pgtrickle.applier_started('slot_1', NULL)});
my ($identifier, $timeline, $slot, $ack, $valid_xid) = split /\|/,
  $node->sql('SELECT * FROM pgtrickle.applier_state()');
is( $identifier,
	$node->sql('SELECT system_identifier FROM pg_control_system()'),
	'a start records the system identifier');
is("$timeline|$slot|$ack", '1|slot_1|', 'timeline and slot');
cmp_ok($valid_xid, '>', 0, 'and an xid taken after the slot was made');
$node->sql(q{UPDATE pgtrickle.pgt_frontiers SET needs_refill = false, refill_reason = NULL});
$node->sql(q{SELECT pgtrickle.applier_heartbeat('0/100', '0/200')});
$node->sql(q{SELECT pgtrickle.applier_started('slot_1', NULL)});
is($node->sql('SELECT ack_lsn, valid_xid FROM pgtrickle.applier_state()'),
	"0/100|$valid_xid", 'a start without a reason changes neither position nor xid');
is($node->sql('SELECT count(*) FROM pgtrickle.applier_catalog() WHERE needs_refill'),
	'0', 'nor any stream table');
$node->sql(q{SELECT pgtrickle.applier_started('slot_1', 'slot was advanced by others')});
is($node->sql('SELECT ack_lsn FROM pgtrickle.applier_state()'),
	'', 'one with a reason forgets the position');
cmp_ok($node->sql('SELECT valid_xid FROM pgtrickle.applier_state()'),
	'>', $valid_xid, 'takes a new xid');
is( $node->sql(
		'SELECT count(*), min(refill_reason) FROM pgtrickle.applier_catalog() WHERE needs_refill'),
	'7|slot was advanced by others',
	'and has all filled again');

# --- heartbeat -----------------------------------------------------------------------------------------------

my ($snapshot, $insert_lsn) = split /\|/,
  $node->sql(q{SELECT * FROM pgtrickle.applier_heartbeat('0/300', '0/400')});
like($snapshot, qr/^\d+:\d+:/, 'a heartbeat returns a snapshot');
is($node->sql("SELECT '$insert_lsn' <= pg_current_wal_insert_lsn()"), 't',
	'and an insert position');
is($node->sql('SELECT ack_lsn, stream_lsn FROM pgtrickle.pgt_progress'),
	'0/300|0/400', 'and persists positions');

my ($active) = $node->sql(
	q{UPDATE pgtrickle.pgt_frontiers SET needs_refill = false, is_populated = true, snapshot = pg_current_snapshot(), data_timestamp = now() - interval '1 day';
	UPDATE pgtrickle.pgt_definitions SET status = 'ACTIVE'; SELECT staleness > interval '23 hours' FROM pgtrickle.get_staleness('bronze')}
);
is($active, 't', 'staleness counts from the last snapshot');
$node->sql(q{SELECT pgtrickle.applier_heartbeat(pg_current_wal_lsn(), pg_current_wal_lsn())});
is($node->sql(q{SELECT staleness < interval '1 minute' FROM pgtrickle.get_staleness('bronze')}),
	't', 'or from a probe that the applier has acknowledged');
my $before = $node->sql(q{SELECT data_timestamp FROM pgtrickle.get_staleness('bronze')});
$node->sql(q{SELECT pgtrickle.applier_heartbeat('0/300', pg_current_wal_lsn())});
is($node->sql(q{SELECT data_timestamp FROM pgtrickle.get_staleness('bronze')}),
	$before, 'not when something is still unacknowledged');

# --- failures --------------------------------------------------------------------------------------------------

$node->sql("SELECT pgtrickle.applier_failed($ids{bronze}, '22012', 'division by zero', 5000)");
is( $node->sql(
		q{SELECT status, consecutive_errors, retry_at > now() FROM pgtrickle.applier_catalog() WHERE pgt_name = 'bronze'}
	),
	'ACTIVE|1|t',
	'a failure is counted, with the time of the next try');
is( $node->sql(q{SELECT status, error_sqlstate, error_message FROM pgtrickle.pgt_refresh_history}),
	'FAILED|22012|division by zero',
	'and goes into the history');
is( $node->sql(q{SELECT remediation FROM pgtrickle.diagnose_errors('bronze')}),
	'A row of a source makes the query fail. Correct the row, or make the query stand it.',
	'diagnose_errors says what to do');
$node->sql(
	"SELECT pgtrickle.applier_failed($ids{bronze}, '22012', 'division by zero', 5000) FROM generate_series(1, 4)"
);
is( $node->sql(
		q{SELECT status, consecutive_errors FROM pgtrickle.applier_catalog() WHERE pgt_name = 'bronze'}
	),
	'SUSPENDED|5',
	'the fifth suspends');
like(
	$node->psql_error(q{SELECT pgtrickle.refresh_stream_table('bronze')}),
	qr/^55000: stream table "public.bronze" is suspended\nDETAIL:  The last refresh failed: division by zero\nHINT: .*resume_stream_table\('public.bronze'\)/,
	'refresh_stream_table says so');
is( $node->sql(
		q{SELECT severity, detail FROM pgtrickle.health_check() WHERE check_name = 'failing_stream_tables'}
	),
	'CRITICAL|public.bronze (SUSPENDED, 5 errors)',
	'so does health_check');
$node->sql(q{SELECT pgtrickle.resume_stream_table('bronze')});
is( $node->sql(
		q{SELECT status, consecutive_errors, retry_at, needs_refill FROM pgtrickle.applier_catalog() WHERE pgt_name = 'bronze'}
	),
	'ACTIVE|0||t',
	'resuming ends it, with a refill');
$node->sql(
	q{SELECT pgtrickle.applier_failed(0, 'XX000', 'nobody to blame', 0); SELECT pgtrickle.applier_failed(999999, 'XX000', 'dropped', 0)}
);
is($node->sql(q{SELECT sum(failed_refreshes) FROM pgtrickle.pg_stat_stream_tables}),
	'5', 'a failure of nobody is not counted');

$node->sql(q{UPDATE pgtrickle.pgt_frontiers SET needs_refill = false, refill_reason = NULL});
$node->sql("SELECT pgtrickle.applier_failed($ids{silver}, '55P03', 'lock not available', 5000)");
is($node->sql(q{SELECT needs_refill FROM pgtrickle.applier_catalog() WHERE pgt_name = 'silver'}),
	'f', 'after a lock time-out the same is tried again');
$node->sql("SELECT pgtrickle.applier_failed($ids{silver}, '22003', 'out of range', 5000)");
is( $node->sql(
		q{SELECT needs_refill, refill_reason FROM pgtrickle.applier_catalog() WHERE pgt_name = 'silver'}
	),
	't|the refresh before failed',
	'after an error of the data a full refresh');

# --- pausing -----------------------------------------------------------------------------------------------------

$node->sql(q{SELECT pgtrickle.pause_stream_table('bronze')});
foreach my $call ('refresh_stream_table', 'wait_fresh', 'verify')
{
	is( $node->psql_error("SELECT pgtrickle.$call('bronze')"),
		"55000: stream table \"public.bronze\" is paused\nHINT:  Resume it with pgtrickle.resume_stream_table('public.bronze').",
		"$call: a paused stream table");
}

# --- history -------------------------------------------------------------------------------------------------------

$node->sql(
	"INSERT INTO pgtrickle.pgt_history (pgt_id, start_time, action, status, initiated_by)
	SELECT $ids{silver}, now() - interval '8 days', 'DIFFERENTIAL', 'COMPLETED', 'SCHEDULER' FROM generate_series(1, 1500)"
);
$node->sql(q{DELETE FROM pgtrickle.pgt_history WHERE start_time > now() - interval '1 day'});
is($node->sql('SELECT pgtrickle.prune_history()'), '1000', 'old history is pruned in portions');
$node->sql(q{SELECT pgtrickle.applier_heartbeat('0/300', '0/400')});
is( $node->sql(
		q{SELECT count(*) FROM pgtrickle.pgt_history WHERE start_time < now() - interval '7 days'}),
	'0',
	'by each heartbeat');
$node->sql(
	"INSERT INTO pgtrickle.pgt_history (pgt_id, start_time, action, status, initiated_by) VALUES ($ids{silver}, now() - interval '8 days', 'DIFFERENTIAL', 'COMPLETED', 'SCHEDULER')"
);
is($node->sql(q{SET pgtrickle.history_retention = -1; SELECT pgtrickle.prune_history()}),
	'0', 'which can keep all');

# --- nobody there ----------------------------------------------------------------------------------------------------

like(
	$node->psql_error(q{SELECT pgtrickle.refresh_stream_table('silver')}),
	qr/^55000: stream table "public\.silver" cannot be up to date\nDETAIL:  It reads stream table "public\.bronze", which is paused/,
	'nor can what reads a paused one be refreshed');
$node->sql(q{SELECT pgtrickle.resume_stream_table('bronze')});
like(
	$node->psql_error(q{SELECT pgtrickle.refresh_stream_table('silver')}),
	qr/^55000: no applier is connected to replication slot "slot_1"\nDETAIL: .*\nHINT:  Start it with "pgtrickle run --dbname=postgres"/,
	'without an applier a refresh fails');
my ($rc, $stdout, $stderr) =
  $node->psql('postgres', q{SELECT pgtrickle.wait_fresh('silver', '100ms')});
is("$rc $stdout", '0 f', 'and waiting is in vain');
like($stderr, qr/WARNING:  no applier is connected/, 'with a warning');
like(
	$node->psql_error(q{SELECT pgtrickle.wait_fresh('silver', '-1s')}),
	qr/^22023: timeout must not be negative/,
	'nobody waits for the past');
is( $node->sql(
		q{BEGIN; SELECT pgtrickle.create_stream_table('young', 'SELECT v FROM src', initialize => false); SELECT pgtrickle.wait_fresh('young'); ROLLBACK}
	),
	"\nt",
	'what this transaction has made is fresh');
like(
	$node->psql_error(
		q{BEGIN; SELECT pgtrickle.pause_stream_table('silver'); SELECT pgtrickle.wait_fresh('silver')}
	),
	qr/^55000: stream table "public.silver" was changed by the current transaction/,
	'what it has changed is not known to anybody');

$node->stop;
done_testing();
