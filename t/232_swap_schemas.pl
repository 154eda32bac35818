# t/232_swap_schemas.pl
#
# Goal: every statement sees all of the old version or all of the new one while schemas change places; who waits for whom; nobody loses a deadlock.
# Method: two versions told apart by a number; readers of several names at full speed, each statement comparing the numbers it finds, while the schemas are
#         swapped to and fro. Then single sessions in every order, with a lock held here and wanted there.
use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use StreamTables::Session;
use Test::More;
use Time::HiRes qw(time);

my $SECONDS = $ENV{PGTRICKLE_LONG} ? 60 : 3;
my $node = StreamTables::Cluster->new('swap')->boot(conf => 'deadlock_timeout = 400ms');

# What reads across the schemas is inside (a stream table, a view) and outside (a view, a view over it, a stream table); a sequence and a materialized view are there, too.
my $version = q{CREATE TABLE %1$s.facts (version int, id int PRIMARY KEY, amount int);
	INSERT INTO %1$s.facts SELECT %3$s, g, g FROM generate_series(1, 20) g;
	SELECT pgtrickle.create_stream_table('%2$s.totals', 'SELECT version, sum(amount) AS total FROM %1$s.facts GROUP BY version', schedule => 'continuous');
	CREATE VIEW %2$s.inner_view AS SELECT version FROM %2$s.totals;
	CREATE MATERIALIZED VIEW %1$s.frozen AS SELECT %3$s AS version;
	CREATE SEQUENCE %1$s.numbers START %3$s;};
$node->sql('CREATE SCHEMA silver; CREATE SCHEMA gold; CREATE SCHEMA silver_next; CREATE SCHEMA gold_next; CREATE SCHEMA apps;'
	  . sprintf($version, 'silver', 'gold', 1) . sprintf($version, 'silver_next', 'gold_next', 2));
$node->sql(
	q{CREATE VIEW apps.outer_view AS SELECT version FROM gold.totals;
	CREATE VIEW apps.over_view AS SELECT version + 0 AS version FROM apps.outer_view;
	SELECT pgtrickle.create_stream_table('apps.copied', 'SELECT version, total FROM gold.totals', schedule => 'continuous')});
$node->start_applier;

my $swap = q{pgtrickle.swap_schemas('{silver,gold}', '{silver_next,gold_next}')};

sub all_are_current
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @names = ('gold.totals', 'gold_next.totals', 'apps.copied');
	$node->wait_fresh(@names);
	$node->is_current($_, "$_ equals its query") foreach @names;
	return;
}

# --- at full speed ---
# 1 / 0 stops the client that finds two versions.
my @looks = (
	'(SELECT max(version) FROM silver.facts), (SELECT version FROM gold.totals)',
	'(SELECT version FROM gold.totals), (SELECT max(version) FROM silver.facts)',
	'(SELECT version FROM gold.inner_view), (SELECT version FROM silver.frozen)',
	'(SELECT version FROM apps.over_view), (SELECT max(version) FROM silver.facts)',
	'(SELECT max(version) FROM silver.facts), (SELECT version FROM apps.outer_view)',
	'(SELECT version FROM silver.frozen), (SELECT last_value FROM silver.numbers)');
my $script = $node->basedir . '/looks.sql';
append_to_file($script, join '', map { "SELECT 1 / (a = b)::int FROM (SELECT $_) v (a, b);\n" } @looks);
my @readers;
foreach my $mode ('simple', 'prepared')
{
	my ($out, $err) = ('', '');
	push @readers, { mode => $mode, out => \$out, err => \$err, run => IPC::Run::start(
			[ 'pgbench', '-n', '-c', 2, '-T', $SECONDS, '-M', $mode, '-f', $script, $node->connstr ], '<', \undef, '>', \$out, '2>', \$err) };
}
my $swapper = StreamTables::Session->new($node);
my ($swaps, $failures, $longest, $until) = (0, 0, 0, time + $SECONDS);
while (time < $until)
{
	my $began = time;
	my $answer = $swapper->run("SELECT $swap");
	diag $answer->{text} if $answer->{state} ne '00000' && !$failures++;
	$longest = time - $began if time - $began > $longest;
	$swaps++;
	$node->sql('UPDATE silver.facts SET amount = amount + 1 WHERE id = 1; UPDATE silver_next.facts SET amount = amount + 1 WHERE id = 1');
}
foreach my $reader (@readers)
{
	$reader->{run}->finish;
	is(${ $reader->{err} } =~ s/^pgbench:? \(.*\n//mr, '', "no statement ($reader->{mode}) has seen two versions, or failed");
	my ($read) = ${ $reader->{out} } =~ /transactions actually processed: (\d+)/;
	cmp_ok($read // 0, '>', 20, '... of many');
	note "$reader->{mode}: $read times six statements";
}
is($failures, 0, 'every swap has succeeded');
cmp_ok($swaps, '>', 1, '... of several') or diag "$swaps swaps, the longest took $longest s";
note "$swaps swaps, the longest took $longest s";
all_are_current();

# --- one after the other ---
sub versions
{
	return '(SELECT max(version) FROM silver.facts) || \' \' || (SELECT version FROM gold.totals) || \' \' || (SELECT version FROM apps.over_view)';
}

my ($live, $next) = $node->sql('SELECT max(version) FROM silver.facts') == 1 ? (1, 2) : (2, 1);
my $one = StreamTables::Session->new($node);
my $two = StreamTables::Session->new($node);

$one->run('BEGIN');
$one->run('SELECT count(*) FROM silver.facts');
$swapper->send("SELECT $swap");
is($swapper->poll(0.6), undef, 'a transaction that has read one relation is waited for');
is($one->run('SELECT ' . versions())->{rows}, "$live $live $live\n", '... and goes on reading the same version, without waiting for long');
is($two->run('SELECT ' . versions())->{rows}, "$live $live $live\n", '... as do others');
$one->run('COMMIT');
is($swapper->wait->{state}, '00000', 'then the schemas change places');
is($one->run('SELECT ' . versions())->{rows}, "$next $next $next\n", '... for everybody');

$swapper->run('BEGIN');
$swapper->run("SELECT $swap");
$one->send('SELECT ' . versions());
$two->send('SELECT count(*) FROM apps.copied');
is($two->wait->{rows}, "1\n", 'who reads a stream table outside does not wait');
is($one->poll(0.5), undef, 'who reads what is swapped waits for the end of the transaction');
$swapper->run('COMMIT');
is($one->wait->{rows}, "$live $live $live\n", '... and sees what is live then');

$swapper->run('BEGIN');
$swapper->run("SELECT $swap");
$one->send('SELECT ' . versions());
$swapper->run('ROLLBACK');
is($one->wait->{rows}, "$live $live $live\n", 'a swap that is rolled back was none');

# A refresh, say: it holds what comes last, and wants what comes first.
$one->run('BEGIN');
$one->run('LOCK TABLE gold_next.totals IN ROW EXCLUSIVE MODE');
$swapper->send("SELECT $swap");
$node->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'gold_next.totals'::regclass)});
is($one->run('SELECT count(*) FROM silver.facts')->{state}, '00000', 'who wants in the other order gets it');
is($one->run('COMMIT')->{state}, '00000', '... and keeps it');
is($swapper->wait->{state}, '00000', '... and the swap succeeds after that');
is($node->sql('SELECT ' . versions()), "$next $next $next", '... and is complete');

# --- with writers of what IMMEDIATE stream tables inside read ---
$node->sql(
	q{CREATE SCHEMA near; CREATE SCHEMA near_next; CREATE TABLE raw (id int PRIMARY KEY, k int, v int); INSERT INTO raw SELECT g, g % 5, 1 FROM generate_series(1, 100) g;
	SELECT pgtrickle.create_stream_table('near.sums', 'SELECT k, sum(v) AS total FROM raw GROUP BY k', refresh_mode => 'IMMEDIATE');
	SELECT pgtrickle.create_stream_table('near_next.sums', 'SELECT k, sum(v) AS total FROM raw GROUP BY k', refresh_mode => 'IMMEDIATE')});
my $change = $node->basedir . '/change.sql';
append_to_file($change, "\\set id random(1, 100)\nUPDATE raw SET v = v + 1 WHERE id = :id;\n");
my ($load_out, $load_err) = ('', '');
my $load = IPC::Run::start([ 'pgbench', '-n', '-c', 3, '-T', 2, '-f', $change, $node->connstr ], '<', \undef, '>', \$load_out, '2>', \$load_err);
$node->poll_query_until('postgres', 'SELECT max(v) > 1 FROM raw');
is($swapper->run(q{SELECT pgtrickle.swap_schemas('{near}', '{near_next}')})->{state}, '00000', 'IMMEDIATE stream tables are swapped while their source is written');
$load->finish;
is($load_err =~ s/^pgbench:? \(.*\n//mr, '', '... and no writer has failed');
is($node->sql(q{SELECT count(*) FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'sums' AND status = 'ACTIVE'}), 2, '... and both go on');
$node->is_current($_, "$_ equals its query") foreach 'near.sums', 'near_next.sums';

# --- what can make it fail ---
sub is_refused
{
	my ($sql, $state, $message, $test_name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $answer = $swapper->run($sql);
	return like("$answer->{state} $answer->{message}", qr/\A$state $message/, $test_name);
}

$swapper->run(q{SET lock_timeout = '250ms'});
$one->run('BEGIN');
$one->run('SELECT count(*) FROM gold.totals');
is_refused("SELECT $swap", '55P03', qr/could not lock relation gold.totals within 250 ms/, 'lock_timeout ends the waiting');
$one->run('COMMIT');
$one->run('BEGIN');
$one->run('CREATE TABLE silver_next.being_made ()');
is_refused("SELECT $swap", '55P03', qr/could not lock schema silver_next within 250 ms/, 'a relation that is being created is waited for');
$one->run('ROLLBACK');
is_refused("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT $swap", '25001', qr/cannot swap schemas in a transaction with one snapshot/, 'one snapshot will not do');
$swapper->run('ROLLBACK; RESET lock_timeout');

$one->run('BEGIN');
$one->run('SELECT count(*) FROM gold.totals');
$swapper->run('BEGIN; LOCK TABLE apps.copied');
$one->send('SELECT count(*) FROM apps.copied');
$node->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'apps.copied'::regclass)});
$one->poll(0.5);
is_refused("SELECT $swap", '40P01', qr/deadlock detected/, 'a deadlock with what was locked before ends the swap, not the reader');
$swapper->run('ROLLBACK');
is($one->wait->{state}, '00000', '... who gets an answer');
$one->run('COMMIT');

$node->sql('CREATE ROLE nobody; GRANT CREATE ON DATABASE postgres TO nobody; GRANT USAGE ON SCHEMA silver, gold TO nobody');
is_refused("SET ROLE nobody; SELECT pgtrickle.lock_for_swap('{silver,gold}')", '42501', qr/must be owner of schema silver/, 'only owners may keep others out');
$swapper->run('RESET ROLE');
is($node->sql('SELECT ' . versions()), "$next $next $next", 'nothing was swapped by what failed');
all_are_current();
done_testing();
