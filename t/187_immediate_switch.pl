# t/187_immediate_switch.pl
#
# Goal: a stream table becomes IMMEDIATE, ceases to be, stops and goes on while its sources are written: exact at every moment, and nobody waits while a query runs.
# Method: queries call a function that counts its calls and can be held by an advisory lock, so that a test sees what is computed and writes meanwhile. Then
#         writers at full speed while stream tables of several kinds change to and fro, compared all the time.
use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Utils;
use StreamTables::Cluster qw(mode_sql status_sql);
use StreamTables::Session;
use Test::More;

my $LONG = $ENV{PGTRICKLE_LONG};
my $node = StreamTables::Cluster->new('immediate_switch')->boot(conf => 'deadlock_timeout = 200ms');
$node->sql(
	q{CREATE SEQUENCE calls;
	CREATE FUNCTION held(x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
		'BEGIN PERFORM nextval(''public.calls''), pg_advisory_lock_shared(77), pg_advisory_unlock_shared(77); RETURN x; END';
	CREATE TABLE sales (id int PRIMARY KEY, shop int NOT NULL, amount int NOT NULL);
	CREATE TABLE shops (shop int PRIMARY KEY, city text NOT NULL);
	CREATE TABLE parts (id int, k int, note text) PARTITION BY LIST (k);
	CREATE TABLE parts_0 PARTITION OF parts FOR VALUES IN (0);
	CREATE TABLE parts_1 (note text, gone int, k int, id int); ALTER TABLE parts_1 DROP COLUMN gone;
	ALTER TABLE parts ATTACH PARTITION parts_1 FOR VALUES IN (1);
	INSERT INTO shops SELECT g, 'city ' || g % 3 FROM generate_series(1, 6) g;
	INSERT INTO sales SELECT g, g % 6 + 1, g FROM generate_series(1, 600) g;
	INSERT INTO parts SELECT g, g % 2, repeat('n' || g, 50) FROM generate_series(1, 200) g});
$node->start_applier;

my $locker = StreamTables::Session->new($node);
my $switcher = StreamTables::Session->new($node);
my $writer = StreamTables::Session->new($node);

sub calls
{
	return $node->sql('SELECT last_value FROM calls');
}

sub is_answered
{
	my ($session, $sql, $test_name, $expected) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $answer = $session->run($sql);
	return is($answer->{state} . ' ' . $answer->{message}, ($expected // '00000') . ' ' . $answer->{message}, $test_name);
}

# Until somebody waits for a lock of this kind.
sub wait_for_lock
{
	my ($type) = @_;

	return $node->poll_query_until($node->dbname, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = '$type')");
}

my $counted = 'SELECT shop, count(*) AS n, sum(held(amount)) AS total FROM sales GROUP BY shop';

# --- from a schedule: what the applier has done is not done again ---
$node->create_stream_table('counted', $counted, schedule => '1h');
$node->sql('UPDATE sales SET amount = amount + 1 WHERE id <= 10');
my $before = calls();
my $said = $switcher->run(mode_sql('counted', 'IMMEDIATE'));
is($said->{message}, '', 'switching says nothing special');
cmp_ok(calls() - $before, '<=', 60, '... and computes what has changed, not the query');
$node->is_current('counted', '... and is exact');
is($node->sql("SELECT count(*) FROM pgtrickle.pgt_history WHERE action = 'FULL' AND initiated_by <> 'INITIAL'"), 0, '... without a full refresh');

# --- back: goes on from where it is ---
$before = calls();
is_answered($switcher, 'BEGIN; UPDATE sales SET amount = amount + 1 WHERE id = 11; ' . mode_sql('counted', 'AUTO')
	. q{; UPDATE sales SET amount = amount + 1 WHERE id IN (11, 12); COMMIT}, 'back to a schedule, between writes of the same transaction');
$node->sql('DELETE FROM sales WHERE id = 13');
$node->refresh('counted');
cmp_ok(calls() - $before, '<=', 60, '... which goes on by delta');
$node->is_current('counted', '... what was written before is in, what was written after follows');
is($node->sql("SELECT count(*) FROM pgtrickle.pgt_history WHERE action = 'FULL' AND initiated_by <> 'INITIAL'"), 0, '... without a full refresh');

# --- without an applier: the query runs, and writers go on meanwhile ---
sub write_meanwhile
{
	my ($what) = @_;

	$locker->run('SELECT pg_advisory_lock(77)');
	return sub {
		wait_for_lock('advisory');
		is_answered($writer, q{SET lock_timeout = '1s'; BEGIN; INSERT INTO sales VALUES (1000, 1, 5), (1001, 2, 6); UPDATE sales SET shop = 3 WHERE id = 1000;
			SAVEPOINT s; UPDATE sales SET amount = 77 WHERE id = 20; ROLLBACK TO s; UPDATE sales SET amount = 78 WHERE id = 21; DELETE FROM sales WHERE id = 22; COMMIT},
			"$what: writers do not wait for the query");
		is_answered($writer, 'DELETE FROM sales WHERE id >= 1000', '... however often they write');
		is_answered($writer, 'INSERT INTO sales VALUES (1002, 4, 1); UPDATE sales SET amount = amount + 1 WHERE shop = 5', '... and whatever');
		$locker->run('SELECT pg_advisory_unlock(77)');
	};
}
$node->stop_applier;
# --- made IMMEDIATE ---
my $release = write_meanwhile('made IMMEDIATE');
$switcher->send(q{SELECT pgtrickle.create_stream_table('made', 'SELECT s.city, held(x.amount) AS amount FROM sales x JOIN shops s USING (shop)', refresh_mode => 'IMMEDIATE')});
$release->();
is($switcher->wait->{state}, '00000', '... which is done when its first fill is');
$node->is_current('made', '... and exact');
is_answered($writer, 'UPDATE sales SET amount = amount + 1 WHERE id < 4; DELETE FROM sales WHERE id = 1002', 'writers maintain it');
$node->is_current('made', '... exactly');
$node->drop_stream_table('made');
$release = write_meanwhile('becoming IMMEDIATE without an applier');
$switcher->send('SET client_min_messages = notice; ' . mode_sql('counted', 'IMMEDIATE'));
$release->();
$said = $switcher->wait;
is($said->{state}, '00000', '... which is done when the query is');
like($said->{text}, qr/NOTICE:  stream table "public.counted" is brought up to date by running its query\n.*No applier is connected/, '... and says why it was run');
$node->is_current('counted', '... and exact, with what was written meanwhile');
is_answered($writer, 'DELETE FROM sales WHERE id = 1002', 'writers maintain it');
$node->is_current('counted', '... exactly');

# --- pausing and resuming ---
is_answered($writer, 'BEGIN; UPDATE sales SET amount = amount + 1 WHERE id = 30', 'somebody has maintained it and goes on');
$switcher->send(status_sql('counted', 'PAUSED'));
wait_for_lock('advisory');
is($switcher->poll(0), undef, 'pausing waits for it');
is_answered($writer, 'UPDATE sales SET amount = amount + 1 WHERE id = 31; COMMIT', '... and does not hinder it');
is($switcher->wait->{state}, '00000', '... and is done then');
$node->is_current('counted', 'a paused one is what the last writers made of it');
is_answered($writer, 'UPDATE sales SET amount = amount + 1 WHERE id = 30', 'after that nobody maintains it');
isnt($node->difference('counted'), '', '... so that it is stale');
$release = write_meanwhile('resuming');
$switcher->send(status_sql('counted', 'ACTIVE'));
$release->();
is($switcher->wait->{state}, '00000', '... which is done when the query is');
$node->is_current('counted', '... and exact');
$node->start_applier;

# --- a writer that does not end ---
is_answered($writer, 'BEGIN; UPDATE sales SET amount = amount + 1 WHERE id = 40', 'a transaction has written and stays open');
$node->create_stream_table('second', 'SELECT s.city, x.id, x.amount FROM sales x JOIN shops s USING (shop)');
$switcher->send(mode_sql('second', 'IMMEDIATE'));
ok($node->poll_query_until($node->dbname, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"), 'switching waits for it');
is_answered($locker, q{SET lock_timeout = '1500ms'; UPDATE sales SET amount = amount + 1 WHERE id = 41}, '... but others go on') foreach 1 .. 3;
is_answered($writer, 'COMMIT', '... until it ends');
is($switcher->wait->{state}, '00000', '... then it is done');
$node->is_current('second', '... with its changes');

# --- what the query means changes while it is run ---
$node->sql(q{SELECT pgtrickle.create_stream_table('spread', 'SELECT k, count(*) AS n, min(held(id)) AS first FROM parts GROUP BY k', refresh_mode => 'IMMEDIATE')});
$node->sql(status_sql('spread', 'PAUSED'));
$node->sql(q{CREATE TABLE parts_2 (LIKE parts); INSERT INTO parts_2 SELECT g, 2, 'two' FROM generate_series(1, 10) g});
$locker->run('SELECT pg_advisory_lock(77)');
$switcher->send(status_sql('spread', 'ACTIVE'));
wait_for_lock('advisory');
is_answered($writer, 'ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES IN (2)', 'a partition comes while the query runs');
is_answered($writer, 'UPDATE parts SET k = 1 - k WHERE id % 3 = 0 AND k < 2', '... and rows move');
$locker->run('SELECT pg_advisory_unlock(77)');
is($switcher->wait->{state}, '00000', '... resuming goes on');
$node->is_current('spread', '... and counts its rows');
is_answered($writer, "DELETE FROM parts_2 WHERE id < 3", 'writes of the new partition');
$node->is_current('spread', '... are followed');

# --- what reads one that goes on ---
$node->sql(q{SELECT pgtrickle.create_stream_table('above', 'SELECT n, count(*) AS shops, sum(total) AS total FROM counted GROUP BY n', refresh_mode => 'IMMEDIATE')});
$node->create_stream_table('beside', 'SELECT n, total FROM counted WHERE n > 0');
$node->sql(status_sql('counted', 'PAUSED'));
$node->sql('DELETE FROM sales WHERE id BETWEEN 100 AND 150');
$release = write_meanwhile('resuming below others');
$switcher->send(status_sql('counted', 'ACTIVE'));
$release->();
is($switcher->wait->{state}, '00000', '... is done');
$node->is_current($_, "... $_ is exact") foreach qw(counted above);
$node->wait_fresh('beside');
$node->is_current('beside', '... so is one with a schedule over it');
$node->drop_stream_table($_) foreach qw(above beside counted second spread);

# --- to and fro under load ---
my %kinds = (
	groups => 'SELECT shop, count(*) AS n, sum(amount) AS total, avg(amount) AS mean FROM sales GROUP BY shop',
	joined => 'SELECT s.city, x.id, x.amount FROM sales x LEFT JOIN shops s ON s.shop = x.shop AND x.amount % 5 > 0',
	nested => 'SELECT s.city, max(g.n) AS most FROM shops s JOIN (SELECT shop, count(*) AS n FROM sales GROUP BY shop) g USING (shop) GROUP BY s.city',
	divided => 'SELECT k, count(*) AS n, sum(id) AS ids, min(left(note, 5)) AS least FROM parts GROUP BY k');
$node->create_stream_table($_, $kinds{$_}, schedule => 'continuous') foreach sort keys %kinds;
$node->sql(q{SELECT pgtrickle.create_stream_table('over', 'SELECT n, count(*) AS k FROM groups GROUP BY n', schedule => 'continuous')});
my $script = $node->basedir . '/load.sql';
append_to_file($script, <<'SQL');
\set id random(1, 600)
\set shop random(1, 6)
\set new random(10000, 10000000)
BEGIN;
UPDATE sales SET amount = amount + 1, shop = :shop WHERE id = :id;
INSERT INTO sales VALUES (:new, :shop, :id) ON CONFLICT DO NOTHING;
SAVEPOINT s;
DELETE FROM sales WHERE id > 10000 AND shop = :shop;
ROLLBACK TO s;
DELETE FROM sales WHERE id > 10000 AND amount % 20 < 2 AND shop = :shop;
UPDATE parts SET k = 1 - k WHERE id = :id AND k < 2;
COMMIT;
SQL
my ($load_out, $load_err) = ('', '');
my $load = IPC::Run::start(
	[ 'pgbench', '-n', '-c', 2, '-T', $LONG ? 120 : 4, '-R', 150, '-f', $script, '--max-tries', 1000, $node->connstr ],
	'<', \undef, '>', \$load_out, '2>', \$load_err);
my $rounds = 0;
my @wrong;
while ($load->pumpable)
{
	foreach my $name (sort keys %kinds)
	{
		my @states = (mode_sql($name, 'IMMEDIATE'), status_sql($name, 'PAUSED'), status_sql($name, 'ACTIVE'), mode_sql($name, 'AUTO'));
		foreach my $step (@states)
		{
			my ($rc, $out, $err) = $node->psql($node->dbname, $step);
			push @wrong, "$step: $err" if $rc != 0;
			next if $step =~ /PAUSED|AUTO/;
			my $difference = $node->difference($name);
			push @wrong, "after $step: $difference" if $difference ne '';
		}
		my ($rc, $out, $err) = $node->psql($node->dbname, "SELECT * FROM pgtrickle.verify('$name')");
		push @wrong, "$name on schedule: $out$err" if $out . $err ne '';
	}
	$rounds++;
	$load->pump_nb;
}
$load->finish;
is(join("\n", @wrong), '', "to and fro under load, $rounds times");
unlike($load_err, qr/error|aborted/i, 'writers notice nothing') or diag $load_err;
foreach my $name (sort(keys %kinds), 'over')
{
	$node->wait_fresh($name);
	$node->is_current($name, "$name at the end");
}
is($node->sql(q{SELECT string_agg(DISTINCT reason, '; ') FROM pgtrickle.pgt_history WHERE action = 'FULL' AND initiated_by <> 'INITIAL' AND NOT reason LIKE '%cheaper%'}), '',
	'nothing was filled again by the applier');

done_testing();
