# t/002_isolation.pl
#
# Goal: the search through interleavings, on which the tests of IMMEDIATE stand, runs them all, sees who waits, and finds what is wrong.
# Method: tables that hand-written triggers maintain, with mistakes that only some interleavings show, and without them.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use StreamTables::Isolation;
use Test::More;

my $node = StreamTables::Cluster->new('isolation')->boot(setup => 'none', conf => 'deadlock_timeout = 50ms');

sub interleave
{
	my (%spec) = @_;

	return StreamTables::Isolation->new($node, %spec)->run;
}

# ---- what runs, and who waits

$node->sql('CREATE TABLE t (k int PRIMARY KEY, n int)');
my $setup = 'TRUNCATE t; INSERT INTO t VALUES (1, 0), (2, 0)';

my $spec = interleave(setup => $setup, sessions => [ [ 'SELECT 1', 'SELECT 2' ], [ 'SELECT 1', 'SELECT 2' ] ]);
is($spec->{interleavings}, 6, 'two sessions with two steps have six interleavings');
is($spec->{waits}, 0, 'nobody waits for a reader');

$spec = interleave(setup => $setup, sessions => [ ['SELECT 1'], ['SELECT 1'], [ 'SELECT 1', 'SELECT 2' ] ]);
is($spec->{interleavings}, 12, 'three sessions with one, one and two steps have twelve');
$spec = interleave(setup => $setup, limit => 5, sessions => [ ['SELECT 1'], ['SELECT 1'], [ 'SELECT 1', 'SELECT 2' ] ]);
is($spec->{interleavings}, 5, 'as many as the limit says');

sub increment
{
	my ($k) = @_;

	return [ "BEGIN; UPDATE t SET n = n + 1 WHERE k = $k", 'COMMIT' ];
}

$spec = interleave(setup => $setup, sessions => [ increment(1), increment(2) ],
	checks => ['SELECT k, n FROM t WHERE n NOT IN (0, 1)']);
is("$spec->{interleavings} $spec->{waits}", '6 0', 'writers of different rows do not wait');
is($spec->findings, '', 'and nothing is found');

# The second writer of the row waits, so that it cannot commit next: a1 b1 a2 b2, b1 a1 b2 a2, and two without overlap.
$spec = interleave(setup => $setup, sessions => [ increment(1), increment(1) ], checks => ['SELECT k, n FROM t WHERE n NOT IN (0, 1, 2)']);
is("$spec->{interleavings} $spec->{waits}", '4 2', 'writers of one row wait, and what waits has no next step');
is($spec->findings, '', 'both increments are there');

$spec = interleave(setup => $setup, settings => ['SET default_transaction_isolation = "repeatable read"'],
	sessions => [ increment(1), increment(1) ], may_fail => ['40001']);
is($spec->{errors}{40001}, 2, 'REPEATABLE READ fails where READ COMMITTED waited');
is($spec->findings, '', 'which is no finding where it may');

$spec = interleave(setup => $setup, may_fail => ['40P01'], sessions => [
	[ 'BEGIN; UPDATE t SET n = 1 WHERE k = 1', 'UPDATE t SET n = 1 WHERE k = 2', 'COMMIT' ],
	[ 'BEGIN; UPDATE t SET n = 2 WHERE k = 2', 'UPDATE t SET n = 2 WHERE k = 1', 'COMMIT' ] ]);
cmp_ok($spec->{errors}{'40P01'} // 0, '>', 0, 'deadlocks end');
is($spec->findings, '', 'and are told apart from waiting');

$spec = interleave(setup => $setup, sessions => [ [ 'SELECT 1', 'SELECT 1/0', 'SELECT 3' ] ]);
like($spec->findings, qr/22012 division by zero/, 'an error that may not be is a finding');

# ---- what is found

$node->sql(q{
	CREATE TABLE l (k int, v int);
	CREATE TABLE r (k int, w int);
	CREATE TABLE joined (k int, v int, w int);
	CREATE FUNCTION join_follows() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF current_setting('test.locks') = 'on' THEN
			LOCK TABLE joined IN EXCLUSIVE MODE;
		END IF;
		IF TG_TABLE_NAME = 'l' THEN
			INSERT INTO joined SELECT k, v, w FROM new_rows JOIN r USING (k);
		ELSE
			INSERT INTO joined SELECT k, v, w FROM l JOIN new_rows USING (k);
		END IF;
		RETURN NULL;
	END $$;
	CREATE TRIGGER follows AFTER INSERT ON l REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION join_follows();
	CREATE TRIGGER follows AFTER INSERT ON r REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION join_follows()});
my %joined = (
	setup => 'TRUNCATE l, r, joined',
	sessions => [ [ 'BEGIN; INSERT INTO l VALUES (1, 10)', 'COMMIT' ], [ 'BEGIN; INSERT INTO r VALUES (1, 20)', 'COMMIT' ] ],
	checks => [ StreamTables::Cluster::_difference_sql('TABLE joined', 'SELECT k, v, w FROM l JOIN r USING (k)') ]);

$spec = interleave(%joined, settings => ['SET test.locks = off']);
like($spec->findings, qr/missing\|\(1,10,20\)/, 'a join whose sides miss each other is found');
is(scalar @{ $spec->{found} }, 4, 'in the four interleavings that overlap, once each');
$spec = interleave(%joined, settings => ['SET test.locks = on']);
is($spec->findings, '', 'with a lock it is right, in all that can happen');
is("$spec->{interleavings} $spec->{waits}", '4 2', 'and that lock is waited for');
$spec = interleave(%joined, settings => [ 'SET test.locks = on', 'SET default_transaction_isolation = "repeatable read"' ]);
like($spec->findings, qr/missing\|\(1,10,20\)/, 'a snapshot of before the lock is not enough');

done_testing();
