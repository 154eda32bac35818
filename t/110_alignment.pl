# t/110_alignment.pl
#
# Goal: every refresh equals the defining query at its own snapshot, whatever the order in which commits become visible.
# Method: 8 clients with savepoints, rollbacks, deletes, upserts, asynchronous and two-phase commits, while every tick verifies
#         itself before it commits (pgtrickle.paranoid_verify); then a writer that is stalled after its commit record has been
#         written, so that the applier receives a transaction which no snapshot can see yet.
use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;

my $seconds = $ENV{PGTRICKLE_LONG} ? 120 : 8;
my $node = StreamTables::Cluster->new('alignment')->boot(conf => 'pgtrickle.cost_based = off');
$node->append_conf('postgresql.conf', "max_prepared_transactions = 50\npgtrickle.paranoid_verify = on");
$node->restart;
$node->sql(
	q{CREATE TABLE accounts (id int PRIMARY KEY, branch int, balance numeric NOT NULL);
	CREATE TABLE branches (id int PRIMARY KEY, region text);
	CREATE TABLE log (account int, amount numeric, note text);
	INSERT INTO branches SELECT g, 'r' || g % 3 FROM generate_series(1, 10) g;
	INSERT INTO accounts SELECT g, 1 + g % 10, 0 FROM generate_series(1, 200) g});
$node->start_applier;
$node->create_stream_table('by_region',
	'SELECT b.region, count(*) AS n, sum(a.balance) AS total, max(a.balance) AS top
	FROM accounts a JOIN branches b ON b.id = a.branch GROUP BY b.region');
$node->create_stream_table('moves', 'SELECT account, amount, note FROM log WHERE amount > 0');
$node->create_stream_table('per_account',
	'SELECT a.id, count(*) AS n, sum(l.amount) AS moved FROM accounts a JOIN log l ON l.account = a.id GROUP BY a.id',
	schedule => '100ms');
$node->create_stream_table('busy', 'SELECT n, count(*) AS accounts FROM per_account GROUP BY n');

my %scripts = (
	transfer => q{
\set a random(1, 200)
\set b random(1, 200)
BEGIN;
UPDATE accounts SET balance = balance - 1 WHERE id = least(:a, :b);
SAVEPOINT s;
INSERT INTO log VALUES (:a, 99, 'undone');
ROLLBACK TO s;
UPDATE accounts SET balance = balance + 1 WHERE id = greatest(:a, :b);
INSERT INTO log VALUES (:a, 1, 'transfer'), (:b, -1, 'transfer');
COMMIT;
},
	asynchronous => q{
\set a random(1, 200)
BEGIN;
SET LOCAL synchronous_commit = off;
INSERT INTO log VALUES (:a, 2, 'asynchronous');
DELETE FROM log WHERE account = :a AND note = 'transfer';
COMMIT;
},
	upsert => q{
\set a random(150, 250)
\set c random(1, 10)
INSERT INTO accounts VALUES (:a, :c, 0) ON CONFLICT (id) DO UPDATE SET branch = excluded.branch;
},
	rolled_back => q{
\set a random(1, 200)
BEGIN;
DELETE FROM log WHERE account = :a;
UPDATE branches SET region = NULL WHERE id = 1 + :a % 10;
ROLLBACK;
},
	region => q{
\set c random(1, 10)
UPDATE branches SET region = CASE region WHEN 'r1' THEN NULL ELSE 'r1' END WHERE id = :c;
},
	two_phase => q{
\set a random(1, 200)
BEGIN;
INSERT INTO log VALUES (:a, 3, 'prepared');
PREPARE TRANSACTION 'p:client_id';
COMMIT PREPARED 'p:client_id';
});
my @files;
foreach my $name (sort keys %scripts)
{
	my $file = "$PostgreSQL::Test::Utils::tmp_check/$name.pgbench";
	append_to_file($file, $scripts{$name});
	push @files, '-f', $file;
}
my ($stdout, $stderr) = ('', '');
my $ok = IPC::Run::run(
	[ 'pgbench', '-n', '-c', 8, '-T', $seconds, '--max-tries=10', @files, $node->connstr('postgres') ],
	'>', \$stdout, '2>', \$stderr);
ok($ok, "clients ran to the end: " . ($stdout =~ /number of transactions actually processed: (\d+)/)[0]) or diag $stderr;

my @names = qw(by_region moves per_account busy);
foreach my $name (@names)
{
	$node->refresh($name);
	$node->is_current($name);
}
is($node->sql('SELECT sum(failed_refreshes) FROM pgtrickle.pgt_frontiers'), 0, 'no tick found a difference or failed');
cmp_ok($node->sql('SELECT sum(total_refreshes) FROM pgtrickle.pgt_frontiers'), '>', 50, 'there were many ticks');
$node->assert_no_fallback($_) foreach @names;

# ---- received, but not yet visible ----

$node->sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
$node->reload;
my $stalled = $node->background_psql('postgres');
$stalled->{stdin} .= "INSERT INTO log VALUES (1, 1000, 'stalled');\n";
$stalled->{run}->pump_nb;
$node->wait_until("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'", 'the writer is stalled');
$node->sql("SET synchronous_commit = local; INSERT INTO log VALUES (2, 1000, 'later, but visible first')");
$node->wait_until("SELECT count(*) = 1 FROM moves WHERE amount = 1000", 'a later commit is applied');
is($node->sql('SELECT note FROM moves WHERE amount = 1000'), 'later, but visible first',
	'the stalled transaction has been received, but is not applied');
$node->sql('ALTER SYSTEM RESET synchronous_standby_names');
$node->reload;
$node->wait_until('SELECT count(*) = 2 FROM moves WHERE amount = 1000', 'the stalled transaction is applied');
$stalled->{stdin} .= "\\q\n";
$stalled->{run}->finish;
foreach my $name (@names)
{
	$node->refresh($name);
	$node->is_current($name, "$name after the stall");
}
is($node->sql('SELECT sum(failed_refreshes) FROM pgtrickle.pgt_frontiers'), 0, 'no tick failed during the stall');

done_testing();
