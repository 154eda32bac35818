# t/224_dump_restore.pl
#
# Goal: stream tables survive pg_dump, pg_basebackup and recovery to a point in time, and are maintained again after one command.
# Method: dump a database with stream tables of all kinds, restore it into another cluster, go on there; the same with a physical backup, as
#         it is and recovered with a new timeline.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('origin')->boot(conf => 'pgtrickle.cost_based = off');
$node->start_applier;
$node->sql(
	q{CREATE ROLE "the owner"; CREATE SCHEMA "odd schema" AUTHORIZATION "the owner"; GRANT CREATE ON SCHEMA public TO "the owner";
	CREATE TABLE orders (id int PRIMARY KEY, customer int, amount numeric(10,2));
	ALTER TABLE orders OWNER TO "the owner";
	INSERT INTO orders SELECT i, i % 7, i FROM generate_series(1, 100) i;
	CREATE FUNCTION rated(numeric) RETURNS numeric IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 1.1';
	CREATE VIEW big AS SELECT * FROM orders WHERE amount > 20; ALTER VIEW big OWNER TO "the owner"});
$node->create_stream_table('dropped', 'SELECT 1 AS one FROM orders');
$node->drop_stream_table('dropped');
$node->sql(
	q{SET ROLE "the owner";
	SELECT pgtrickle.create_stream_table('totals', 'SELECT customer, avg(amount) AS a, max(amount) AS m FROM big GROUP BY customer', 'continuous');
	SELECT pgtrickle.create_stream_table('"odd schema"."The Rows"', 'SELECT rated(amount) AS r FROM orders', '1s');
	SELECT pgtrickle.create_stream_table('upper', 'SELECT count(*) AS n, sum(m) AS s FROM totals', 'continuous');
	SELECT pgtrickle.create_stream_table('full_one', 'SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY amount) AS p FROM orders', '1s', 'FULL');
	CREATE INDEX ON totals (a)});
my @names = ('totals', '"odd schema"."The Rows"', 'upper', 'full_one');
$node->refresh($_) foreach @names;

sub all_follow
{
	my ($at, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$at->sql('INSERT INTO orders SELECT max(id) + 1, 3, 50 FROM orders; UPDATE orders SET amount = amount + 1 WHERE id % 10 = 3;
		DELETE FROM orders WHERE id = (SELECT min(id) FROM orders)');
	foreach my $name (@names)
	{
		$at->refresh($name);
		$at->verify($name, "$what: $name");
	}
	return;
}

# --- a dump -----------------------------------------------------------------------------------------------------

my $dump = $node->basedir . '/dump.sql';
foreach my $format ('plain', 'custom')
{
	my $other = StreamTables::Cluster->new("restored_$format")->boot(setup => 'none');
	$other->sql('CREATE ROLE "the owner"; CREATE ROLE pgtrickle_applier LOGIN REPLICATION');
	command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-F', $format, '-f', $dump ], "$format: dumped");
	my @restore =
	  $format eq 'plain' ? ('psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump) : ('pg_restore', '-e', $dump);
	command_ok([ @restore, '-d', $other->connstr('postgres') ], 'restored');
	$other->run_program('setup');
	is($other->sql('SELECT pgtrickle.restore_stream_tables()'), 4, 'and told so');
	is($other->sql('SELECT pgtrickle.restore_stream_tables()'), 0, 'once is enough');
	is($other->sql('SELECT count(*) FROM totals'), 7, 'the rows are there before anybody refreshes');
	$other->start_applier;
	all_follow($other, "after a $format dump");
	is($other->sql(q{SELECT pg_get_userbyid(pgt_owner) FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'totals'}),
		'the owner', 'the owner is the same');
	like($other->psql_error('DELETE FROM totals'), qr/cannot change stream table/, 'it is guarded');
	$other->create_stream_table('one_more', 'SELECT count(*) AS n FROM totals');
	$other->verify('one_more', 'one more can be created');
	is($other->sql(q{SELECT pgtrickle.create_or_replace_stream_table('full_one', 'SELECT max(amount)::float8 AS p FROM orders', '1s', 'FULL')}),
		'replaced in place', 'and a query changed');
	$other->assert_no_fallback('one_more');
	$other->drop_stream_table($_) foreach ('upper', 'one_more', 'totals');
	is($other->sql(q{SELECT count(*) FROM pgtrickle.pgt_state_tables JOIN pgtrickle.pgt_definitions d USING (pgt_id) WHERE d.relid::text ~ 'totals'}),
		0, 'and one dropped');
	$other->teardown_node;
}

# --- a physical backup ------------------------------------------------------------------------------------------

$node->backup('base');
$node->sql('INSERT INTO orders VALUES (1001, 1, 1)');
$node->refresh('upper');
$node->safe_psql('postgres', 'SELECT pg_switch_wal(); CHECKPOINT');
foreach my $timeline (1, 2)
{
	my $copy = StreamTables::Cluster->new("copy_$timeline");
	$copy->init_from_backup($node, 'base');
	if ($timeline == 2)
	{
		$copy->append_conf('postgresql.conf',
			    "restore_command = 'cp \"" . $node->data_dir . "/pg_wal/%f\" \"%p\"'\n"
			  . "recovery_target_timeline = 'current'\nrecovery_target_action = 'promote'\n");
		append_to_file($copy->data_dir . '/recovery.signal', '');
	}
	$copy->start;
	$copy->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
	my $ack = $copy->sql('SELECT ack_lsn FROM pgtrickle.pgt_progress');
	$copy->run_program('setup');
	$copy->start_applier;
	all_follow($copy, "copy on timeline $timeline");
	is($copy->sql('SELECT count(*) FROM orders WHERE id = 1001'), $timeline - 1, 'it is the moment that was wanted');
	is($copy->sql(q{SELECT count(*) > 0 FROM pgtrickle.pgt_history WHERE action = 'FULL' AND reason IS NOT NULL AND initiated_by = 'SCHEDULER'}),
		't', 'what the stream could not bring came by full refreshes');
	$copy->teardown_node;
}
all_follow($node, 'and the origin goes on');

done_testing();
