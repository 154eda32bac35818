# t/182_immediate_snapshots.pl
#
# Goal: in REPEATABLE READ and SERIALIZABLE transactions an IMMEDIATE stream table equals its query at their snapshot, or the statement fails with 40001;
#       and who does not touch the same rows does not fail.
# Method: all interleavings of two transactions, each of which takes its snapshot first; compared after every step, inside and outside.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use StreamTables::Isolation;
use Test::More;

my $node = StreamTables::Cluster->new('immediate_snapshots')->boot(setup => 'extension', conf => 'deadlock_timeout = 50ms');
$node->sql(
	q{CREATE TABLE sides (k int, name text); CREATE TABLE parts (id int, k int, n int);
	SELECT pgtrickle.create_stream_table('sums', 'SELECT k, count(*) AS c, sum(n) AS s, min(n) AS least FROM parts GROUP BY k', refresh_mode => 'IMMEDIATE');
	SELECT pgtrickle.create_stream_table('joined', 'SELECT s.name, p.n FROM sides s JOIN parts p USING (k)', refresh_mode => 'IMMEDIATE')});
my $setup = q{DELETE FROM parts; DELETE FROM sides; INSERT INTO sides VALUES (1, 'one'), (2, 'two'); INSERT INTO parts VALUES (1, 1, 10), (2, 1, 20), (3, 2, 30)};

# The first statement takes the snapshot.
sub writer
{
	my ($statement) = @_;

	return [ 'BEGIN; SELECT FROM sides', $statement, 'COMMIT' ];
}

sub interleave
{
	my ($level, $checked, @statements) = @_;

	return StreamTables::Isolation->new($node, setup => $setup, settings => ["SET default_transaction_isolation = '$level'"],
		sessions => [ map { writer($_) } @statements ], checks => [ map { $node->difference_query($_) } @$checked ], may_fail => ['40001'])->run;
}

foreach my $level ('repeatable read', 'serializable')
{
	my $spec = interleave($level, [qw(sums joined)], 'INSERT INTO parts VALUES (4, 1, 5)', 'DELETE FROM parts WHERE id = 1');
	is($spec->findings, '', "$level: two writers of a group");
	cmp_ok($spec->{errors}{40001} // 0, '>', 0, '... one of which fails');

	$spec = interleave($level, [qw(sums joined)], 'INSERT INTO parts VALUES (4, 7, 5)', 'INSERT INTO parts VALUES (5, 7, 6)');
	is($spec->findings, '', "$level: two writers of a group that does not exist yet");

	$spec = interleave($level, ['joined'], q{INSERT INTO sides VALUES (5, 'five')}, 'INSERT INTO parts VALUES (6, 5, 1)');
	is($spec->findings, '', "$level: both sides of a join");
	cmp_ok($spec->{errors}{40001} // 0, '>', 0, '... one of which fails');
}

# A row that is there several times: the new copy lies before the old ones, where an index finds it first.  The groups, which change, would fail earlier.
$node->sql(q{SELECT pgtrickle.pause_stream_table('sums')});
$setup = q{DELETE FROM parts; DELETE FROM sides; INSERT INTO sides VALUES (1, 'one'); INSERT INTO parts VALUES (99, 1, 77);
	INSERT INTO parts VALUES (1, 1, 10), (2, 1, 10), (3, 1, 10); DELETE FROM parts WHERE id = 99; VACUUM (INDEX_CLEANUP ON) joined};
foreach my $level ('repeatable read', 'serializable')
{
	my $spec = interleave($level, ['joined'], 'INSERT INTO parts VALUES (4, 1, 10)', 'DELETE FROM parts WHERE id = 1');
	is($spec->findings, '', "$level: a copy of a row is taken away that the transaction sees");
}
$setup = q{DELETE FROM parts; DELETE FROM sides; INSERT INTO sides VALUES (1, 'one'), (2, 'two'); INSERT INTO parts VALUES (1, 1, 10), (2, 1, 20), (3, 2, 30)};
$node->sql(q{SELECT pgtrickle.resume_stream_table('sums')});

# Computed anew as a whole: what joins with a row that somebody else has inserted, and that changed nothing before.
$node->sql(q{CREATE TABLE divided (id int, k int) PARTITION BY LIST (k); CREATE TABLE divided_1 PARTITION OF divided FOR VALUES IN (1, 5);
	SELECT pgtrickle.create_stream_table('whole', 'SELECT d.id, s.name FROM divided d JOIN sides s USING (k)', refresh_mode => 'IMMEDIATE')});
$setup .= '; DELETE FROM divided';
my $merge = 'MERGE INTO divided d USING (VALUES (9, 5)) v (id, k) ON d.id = v.id WHEN MATCHED THEN UPDATE SET k = v.k WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.k)';
foreach my $level ('repeatable read', 'serializable')
{
	my $spec = interleave($level, ['whole'], q{INSERT INTO sides VALUES (5, 'five')}, $merge);
	is($spec->findings, '', "$level: a stream table that is computed anew");
	cmp_ok($spec->{errors}{40001} // 0, '>', 0, '... or the statement fails');
}

my $spec = interleave('repeatable read', [qw(sums joined)], 'UPDATE parts SET n = n + 1 WHERE id = 1', 'UPDATE parts SET n = n + 1 WHERE id = 3');
is($spec->findings, '', 'repeatable read: writers of different groups');
is($spec->{errors}{40001} // 0, 0, '... do not fail');
is($spec->{waits}, 0, '... and do not wait');

done_testing();
