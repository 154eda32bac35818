# t/130_dag.pl
#
# Goal: readers never see a mixed snapshot of a DAG, and making and dropping stream tables under load loses nothing.
# Method: writers move amounts between rows, so that totals are constant at every snapshot; a reader compares all stream tables
#         of a chain and a diamond in one statement, again and again.  Meanwhile stream tables over the same sources come and go.
use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;

my $seconds = $ENV{PGTRICKLE_LONG} ? 60 : 6;
my $node = StreamTables::Cluster->new('dag')->boot(conf => 'pgtrickle.cost_based = off');
$node->sql(
	q{CREATE TABLE parts (id int PRIMARY KEY, grp int NOT NULL, amount int NOT NULL);
	INSERT INTO parts SELECT g, g % 10, 100 FROM generate_series(1, 100) g});
$node->start_applier;
$node->create_stream_table('left_side', 'SELECT grp, sum(amount) AS total FROM parts GROUP BY grp');
$node->create_stream_table('right_side', 'SELECT grp, count(*) AS n, max(id) AS top FROM parts GROUP BY grp');
$node->create_stream_table('bottom', 'SELECT l.grp, l.total, r.n, r.top FROM left_side l JOIN right_side r USING (grp)');
$node->create_stream_table('chain2', 'SELECT grp, total * 2 AS total FROM bottom');
$node->create_stream_table('chain3', 'SELECT count(*) AS groups, sum(total) AS total FROM chain2');
# slower than what it reads: the changes in between come back through the stream
$node->create_stream_table('slow', 'SELECT grp, total FROM bottom WHERE grp < 5', schedule => '700ms');

my $file = "$PostgreSQL::Test::Utils::tmp_check/move.pgbench";
append_to_file($file, q{
\set a random(1, 100)
\set b random(1, 100)
\set g random(0, 9)
BEGIN;
UPDATE parts SET amount = amount - 1 WHERE id = least(:a, :b);
UPDATE parts SET amount = amount + 1 WHERE id = greatest(:a, :b);
UPDATE parts SET grp = :g WHERE id = least(:a, :b);
COMMIT;
});
my ($out, $err) = ('', '');
my $writers = IPC::Run::start([ 'pgbench', '-n', '-c', 3, '-R', 400, '-T', $seconds, '-f', $file, $node->connstr('postgres') ],
	'>', \$out, '2>', \$err);

# at every snapshot: one total everywhere, and the sides agree with what is joined from them
my $mixed = q{
	SELECT (SELECT sum(total) FROM left_side) <> 10000
		OR (SELECT total FROM chain3) <> 20000
		OR EXISTS (TABLE bottom EXCEPT ALL SELECT l.grp, l.total, r.n, r.top FROM left_side l JOIN right_side r USING (grp))
		OR EXISTS (SELECT grp, total * 2 FROM bottom EXCEPT ALL TABLE chain2)};
my $looks = 0;
my $mixed_looks = 0;
my $made = 0;
my $until = time + $seconds - 1;
while (time < $until)
{
	my $answers = $node->sql(join ';', ($mixed) x 20);
	$looks += () = $answers =~ /^[tf]$/mg;
	$mixed_looks += () = $answers =~ /^t$/mg;

	# one more comes and is compared by the server itself, while writers go on
	$made++;
	$node->create_stream_table("passing$made", 'SELECT l.grp, p.id, p.amount FROM parts p JOIN left_side l USING (grp) WHERE p.id % 3 = 0');
	$node->verify("passing$made") or last;
	$node->drop_stream_table("passing$made");
}
ok($writers->finish, 'writers ran to the end') or diag $err;
cmp_ok($looks, '>', 100, "the reader looked often enough: $looks times");
is($mixed_looks, 0, 'the reader never saw two snapshots at once');
cmp_ok($made, '>', 2, "$made stream tables came and went");

foreach my $name (qw(left_side right_side bottom chain2 chain3 slow))
{
	$node->refresh($name);
	$node->is_current($name);
	$node->assert_no_fallback($name) if $name ne 'slow';
}
is($node->sql("SELECT count(*) FROM pg_class WHERE relname LIKE 'pgt_state_%' AND relkind = 'r' AND relname <> 'pgt_state_tables'"),
	$node->sql('SELECT count(*) FROM pgtrickle.pgt_state_tables'), 'dropped stream tables leave no state tables behind');

done_testing();
