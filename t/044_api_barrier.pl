# t/044_api_barrier.pl
#
# Goal: refresh_stream_table, wait_fresh and verify return when what they promise holds, and not before, or say why it never will.
# Method: a real applier; write in one session, wait in another, compare at once. Never wait in the test itself.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster qw(sql_literal);
use Test::More;
use Time::HiRes qw(time);

my $node = StreamTables::Cluster->new('barrier')->boot;
$node->sql(
	q{CREATE TABLE orders (id int PRIMARY KEY, customer int, amount numeric);
	INSERT INTO orders SELECT i, i % 10, i FROM generate_series(1, 100) i});
$node->start_applier;
$node->create_stream_table('totals',
	'SELECT customer, sum(amount) AS total, count(*) AS n FROM orders GROUP BY customer');
$node->create_stream_table('lazy', 'SELECT count(*) AS n FROM orders', schedule => '1h');
$node->create_stream_table(
	'slow',
	'SELECT id, amount FROM orders WHERE amount > 10',
	schedule => 'manual');

my $next_id = 1000;

sub write_order
{
	$next_id++;
	$node->sql("INSERT INTO orders VALUES ($next_id, $next_id % 10, 1)");
	return;
}

sub count_of
{
	my ($name) = @_;

	return $node->sql(
		  $name eq 'lazy' ? 'SELECT n FROM lazy'
		: $name eq 'slow' ? 'SELECT count(*) FROM slow'
		:                   'SELECT sum(n) FROM totals');
}

# --- refresh ---------------------------------------------------------------------------------------------

foreach my $name (qw(totals lazy slow))
{
	my $late = 0;
	foreach (1 .. 5)
	{
		$node->sql('INSERT INTO orders VALUES (' . ++$next_id . ', 1, 100)');
		$node->refresh($name);
		my $expected =
		  $node->sql('SELECT count(*) FROM orders' . ($name eq 'slow' ? ' WHERE amount > 10' : ''));
		$late++ if count_of($name) ne $expected;
	}
	is($late, 0, "after refresh_stream_table $name has what was committed before");
	$node->refresh($name);
	pass("a refresh of $name without changes returns as well");
}
is( $node->sql(
		q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) > 0 FROM lazy; SELECT pgtrickle.refresh_stream_table('lazy'); COMMIT}
	),
	"t\n",
	'also with an old snapshot');
my ($rc, $stdout, $stderr) = $node->psql('postgres',
	"BEGIN; INSERT INTO orders VALUES (0, 0, 0); SELECT pgtrickle.refresh_stream_table('lazy'); ROLLBACK"
);
is($rc, 0, 'a refresh with changes of its own');
like(
	$stderr,
	qr/NOTICE:  stream table "public.lazy" will not contain the changes of the current transaction/,
	'says that they are not in');

# --- wait_fresh --------------------------------------------------------------------------------------------

my $late = 0;
foreach (1 .. 20)
{
	write_order();
	$late++
	  if $node->sql(q{SELECT pgtrickle.wait_fresh('totals', '20s')}) ne 't'
	  || count_of('totals') ne $node->sql('SELECT count(*) FROM orders');
}
is($late, 0, 'after wait_fresh a continuous stream table has what was committed before');
is($node->sql(q{SELECT pgtrickle.wait_fresh('totals', '20s')}),
	't', 'and when nothing has changed since');
$node->sql('CREATE TABLE unrelated AS SELECT generate_series(1, 1000)');
is($node->sql(q{SELECT pgtrickle.wait_fresh('totals', '20s')}), 't', 'and when something else has');
is($node->sql(q{SELECT pgtrickle.wait_fresh('totals', '20s', pg_current_wal_insert_lsn())}),
	't', 'or with a position of the WAL');
is( $node->sql(
		q{SELECT pgtrickle.wait_fresh('totals', '300ms', pg_current_wal_insert_lsn() + 100000000)}),
	'f',
	'that must have been reached');

# A record that fills its page leaves the insert position behind the header of a page that is not there yet.
is( $node->sql(
		q{DO $$
		DECLARE
			before_lsn pg_lsn;
			empty_bytes int;
			free_bytes int;
			fresh int := 0;
		BEGIN
			FOR i IN 1 .. 200 LOOP
				before_lsn := pg_current_wal_insert_lsn();
				empty_bytes := pg_logical_emit_message(false, 'x', '') - before_lsn;
				free_bytes := 8192 - (pg_current_wal_insert_lsn() - '0/0') % 8192;
				CONTINUE WHEN empty_bytes > 100 OR free_bytes < 300;
				PERFORM pg_logical_emit_message(false, 'x', repeat('x', free_bytes - 208));
				free_bytes := 8192 - (pg_current_wal_insert_lsn() - '0/0') % 8192;
				CONTINUE WHEN free_bytes < empty_bytes OR free_bytes > 1000;
				PERFORM pg_logical_emit_message(false, 'x', repeat('x', free_bytes - empty_bytes));
				CONTINUE WHEN (pg_current_wal_insert_lsn() - '0/0') % 8192 <> 24;
				ASSERT pgtrickle.wait_fresh('totals', '20s');
				fresh := fresh + 1;
				EXIT WHEN fresh = 5;
			END LOOP;
			ASSERT fresh = 5, format('%s pages were filled', fresh);
		END $$; SELECT 'done'}),
	'done',
	'also at the end of a page of the WAL');

write_order();
my $before = count_of('lazy');
is($node->sql(q{SELECT pgtrickle.wait_fresh('lazy', '300ms')}),
	'f', 'wait_fresh does not hasten a schedule');
is(count_of('lazy'), $before, 'the stream table stays as it is');
is($node->sql(q{SELECT pgtrickle.wait_fresh('slow', '300ms')}),
	'f', 'nor does it refresh a manual one');


# --- verify --------------------------------------------------------------------------------------------------

foreach my $name (qw(totals lazy slow))
{
	$node->verify($name);
}
is($node->sql('SELECT count(*), sum(difference_count) FROM pgtrickle.verify_all()'),
	'3|0', 'verify_all takes them all');
is( $node->sql(
		q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1; SELECT count(*) FROM pgtrickle.verify('totals'); COMMIT}
	),
	"1\n0",
	'verify works with an old snapshot');

# --- no applier, errors, dropping ------------------------------------------------------------------------------

$node->sql(
	q{CREATE TABLE ratios (id int PRIMARY KEY, a int, b int); INSERT INTO ratios VALUES (1, 1, 1)});
$node->create_stream_table('quotients', 'SELECT id, a / b AS q FROM ratios');
$node->sql('INSERT INTO ratios VALUES (2, 1, 0)');
like(
	$node->psql_error(q{SELECT pgtrickle.refresh_stream_table('quotients')}),
	qr/^22012: could not refresh stream table "public.quotients"\nDETAIL:  division by zero\nHINT: /,
	'a refresh that fails is an error with the reason');
is( $node->sql(
		q{SELECT error_type, error_message FROM pgtrickle.diagnose_errors('quotients') LIMIT 1}),
	'22012|division by zero',
	'which diagnose_errors knows');
$node->sql('DELETE FROM ratios WHERE id = 2');
$node->refresh('quotients');
is($node->sql('TABLE quotients'), '1|1', 'and which goes away with its cause');

my $started = time;
$node->stop_applier;
like(
	$node->psql_error(q{SELECT pgtrickle.refresh_stream_table('totals')}),
	qr/^55000: no applier is connected to replication slot/,
	'without an applier a refresh fails');
cmp_ok(time - $started, '<', 15, 'after a short grace');
write_order();
$node->start_applier;
$node->wait_fresh('totals');
is(count_of('totals'), $node->sql('SELECT count(*) FROM orders'), 'a new applier catches up');

$node->sql(q{SELECT pgtrickle.pause_stream_table('totals')});
write_order();
like(
	$node->psql_error(q{SELECT pgtrickle.wait_fresh('totals')}),
	qr/^55000: stream table "public.totals" is paused/,
	'nobody waits for a paused stream table');
$node->sql(q{SELECT pgtrickle.resume_stream_table('totals')});
$node->wait_fresh('totals');
is(count_of('totals'), $node->sql('SELECT count(*) FROM orders'), 'a resumed one catches up');
$node->verify('totals');

$node->stop_applier;
$node->stop;
done_testing();
