# t/131_dag_schedules.pl
#
# Goal: readers never see stream tables of different moments side by side, whichever way the rows came; and stream tables may come
#       and go while writers run.
# Method: a chain and a diamond over one source, whose sums must agree in every snapshot; a reader that compares them in one
#         statement as often as it can while writers move amounts. Then creating and dropping under load, and stream tables
#         whose schedules differ from those they read.
use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Utils ();
use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('dag')->boot;
$node->start_applier;
$node->sql(q{
	CREATE TABLE entries (id int PRIMARY KEY, kind int, amount bigint);
	INSERT INTO entries SELECT i, i % 7, i FROM generate_series(1, 200) i});

my @names = qw(by_kind grand kept odd even halves);
$node->create_stream_table('by_kind', 'SELECT kind, count(*) AS n, sum(amount) AS total FROM entries GROUP BY kind');
$node->create_stream_table('grand', 'SELECT sum(n) AS n, sum(total) AS total FROM by_kind');
$node->create_stream_table('kept', 'SELECT id, kind, amount FROM entries');
$node->create_stream_table('odd', 'SELECT kind, total FROM by_kind WHERE kind % 2 = 1');
$node->create_stream_table('even', 'SELECT kind, total FROM by_kind WHERE kind % 2 = 0');
$node->create_stream_table('halves', 'SELECT kind, total FROM odd UNION ALL SELECT kind, total FROM even');

sub start_pgbench
{
	my ($name, $clients, $seconds, $script, @more) = @_;

	my $file = PostgreSQL::Test::Utils::tempdir() . "/$name.sql";
	PostgreSQL::Test::Utils::append_to_file($file, $script);
	my $output = '';
	my $run = IPC::Run::start(
		[
			$node->installed_command('pgbench'), '-n', '-c', $clients, '-T', $seconds, '--max-tries', 10, @more, '-f', $file,
			$node->connstr($node->dbname)
		],
		'<', \undef, '>&', \$output);
	return [ $run, \$output ];
}

sub finish_pgbench
{
	my ($pgbench, $what) = @_;

	return ok(IPC::Run::finish($pgbench->[0]), $what) || diag(${ $pgbench->[1] });
}

my $WRITER = q{
\set id random(1, 220)
\set kind random(0, 7)
\set amount random(-50, 50)
BEGIN;
INSERT INTO entries VALUES (:id, :kind, :amount) ON CONFLICT (id) DO UPDATE SET kind = :kind, amount = :amount;
DELETE FROM entries WHERE id = (:id + :kind) % 220;
COMMIT;
};

# --- one snapshot, one moment

# Division by zero as soon as two stream tables disagree; pgbench then fails.
my $READER = q{
SELECT 1 / (count(*) = 0)::int FROM (
	SELECT coalesce(sum(total), 0), coalesce(sum(n), 0) FROM by_kind
	EXCEPT ALL SELECT coalesce(total, 0), coalesce(n, 0) FROM grand
	UNION ALL (SELECT kind, sum(amount) FROM kept GROUP BY kind EXCEPT ALL SELECT kind, total FROM by_kind)
	UNION ALL (SELECT kind, total FROM by_kind EXCEPT ALL SELECT kind, total FROM halves)
	UNION ALL (SELECT kind, total FROM halves EXCEPT ALL SELECT kind, total FROM by_kind)) different;
};
my $before = $node->sql('SELECT sum(total_refreshes) FROM pgtrickle.pgt_frontiers');
my $writers = start_pgbench('writer', 3, 5, $WRITER, '-R', 150);
my $reader = start_pgbench('reader', 2, 5, $READER, '-R', 200);
finish_pgbench($reader, 'a reader never sees two moments');
finish_pgbench($writers, 'the writers finished');
cmp_ok($node->sql('SELECT sum(total_refreshes) FROM pgtrickle.pgt_frontiers'),
	'>', $before + 10, 'while there were refreshes');
$node->wait_fresh(@names);
$node->is_current($_) foreach @names;

# --- coming and going under load, and different schedules

$writers = start_pgbench('writer', 3, 5, $WRITER, '-R', 100);
$node->create_stream_table('slow', 'SELECT total, count(*) AS n FROM by_kind GROUP BY total', schedule => '2s');
$node->create_stream_table('fast_over_slow', 'SELECT n, count(*) AS times FROM slow GROUP BY n');
$node->create_stream_table('slow_join',
	'SELECT k.id, b.total FROM kept k JOIN by_kind b ON b.kind = k.kind', schedule => '500ms');
foreach my $round (1 .. 4)
{
	$node->create_stream_table('brief', 'SELECT kind, max(amount) AS most FROM kept GROUP BY kind');
	$node->create_stream_table('brief_too', 'SELECT b.kind, b.most, g.total FROM brief b JOIN by_kind g ON g.kind = b.kind');
	$node->verify('brief_too', "created under load, round $round");
	$node->verify('slow', "a slow one over a fast one, round $round");
	$node->verify('fast_over_slow', "a fast one over a slow one, round $round");
	$node->drop_stream_table('brief_too');
	$node->drop_stream_table('brief');
}
finish_pgbench($writers, 'the writers finished');
push @names, qw(slow fast_over_slow slow_join);
foreach my $name (@names)
{
	$node->refresh($name);
	$node->is_current($name, "$name at the end");
}
is($node->sql('SELECT count(*) FROM pgtrickle.pgt_frontiers WHERE failed_refreshes > 0'), 0, 'no refresh failed');

$node->stop_applier;
done_testing();
