# t/402_regressions.pl
#
# Goal: what the fuzzer (401) once found does not come back.
# Method: one case after another: tables, a stream table, changes in one transaction, verify().  Each says what was wrong.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('regressions')->boot;
$node->start_applier;

# name => { setup, query, changes: what is done in one transaction, or a list of them, since: the server's version }
my @CASES = (
	# The rows of an outer join that have no partner are selected with NULL in place of its columns; a condition NULL IN (SELECT ...) was
	# folded into a constant inside the subquery's test, which the server cannot print.
	'a subquery over VALUES above an outer join' => {
		setup => q{CREATE TABLE l (k int, g text); INSERT INTO l VALUES (1, 'y'), (2, 'z'), (NULL, 'y');
			CREATE TABLE r (k int, n int); INSERT INTO r VALUES (1, 10), (3, 30)},
		query => q{SELECT l.g, r.n FROM l RIGHT JOIN r ON l.k = r.k WHERE l.g NOT IN (SELECT v.w FROM (VALUES (10, 'z'), (30, 'y')) v (n, w) WHERE v.n = r.n)},
		changes => q{UPDATE l SET k = 3 WHERE k = 2; INSERT INTO r VALUES (4, 40); UPDATE r SET k = 2 WHERE n = 10} },

	# The columns of a subquery were asked for after it had been taken to pieces, and then had the names of a piece.
	'HAVING with a subquery, below a join' => {
		setup => q{CREATE TABLE l (k int, g text); CREATE TABLE r (k int, g text)},
		query => q{SELECT a.n FROM (SELECT l.g AS f, sum(DISTINCT l.k) AS n FROM l GROUP BY 1 HAVING count(*) >= (SELECT count(*) / 4 FROM r)) a
			JOIN r ON a.f = r.g},
		changes => [
			q{INSERT INTO l SELECT i, 'g' || i % 7 FROM generate_series(1, 50) i; INSERT INTO r SELECT i, 'g' || i % 7 FROM generate_series(1, 20) i},
			q{DELETE FROM l WHERE k % 3 = 0; INSERT INTO r SELECT i, 'g' || i % 7 FROM generate_series(21, 30) i} ] },

	# What is VALUES alone and under a subquery's join was printed with a FROM below a FROM.
	'a subquery that decides about VALUES' => {
		setup => q{CREATE TABLE r (k int); INSERT INTO r VALUES (1), (NULL)},
		query => q{SELECT v.w, v.n < ANY (SELECT r.k + 1 FROM r WHERE r.k = v.n) AS less FROM (VALUES (5, 'y'), (1, 'z'), (NULL, 'x')) v (n, w)
			WHERE (v.n < ANY (SELECT r.k FROM r WHERE r.k > v.n)) IS NOT TRUE},
		changes => q{INSERT INTO r VALUES (5), (6); DELETE FROM r WHERE k = 1} },

	# A branch without tables was compiled, which took its outer join to pieces; printing it crashed the server.
	'UNION with an outer join of VALUES' => {
		setup => q{CREATE TABLE r (k int, g text); INSERT INTO r VALUES (1, 'a'), (NULL, 'b')},
		query => q{SELECT k, g FROM r UNION SELECT v.n, 'x' FROM (VALUES (1, 'y'), (0, 'x')) v (n, w) LEFT JOIN (VALUES (1, 'z'), (2, 'y')) u (n, w) ON v.n = u.n},
		changes => q{INSERT INTO r VALUES (0, 'x'), (5, 'c'); DELETE FROM r WHERE k = 1} },

	# A sum of many terms, with old states in a WITH of its own, got the WITH of the state tables in front.
	'more than four changed inputs, one of them a state table' => {
		setup => q{CREATE TABLE a (id int, k int); CREATE TABLE b (id int, k int); CREATE TABLE c (id int, k int)},
		query => q{SELECT a2.k, b.id FROM a a1 LEFT JOIN (SELECT c.k AS f, unnest(ARRAY[c.id]) AS n FROM c) x ON a1.k = x.f FULL JOIN a a2 ON x.f = a2.id
			JOIN b ON a2.k = b.k WHERE EXISTS (SELECT FROM b e WHERE e.k = a1.id)},
		changes => [
			q{INSERT INTO a SELECT i, i % 5 FROM generate_series(1, 20) i; INSERT INTO b SELECT i, i % 5 FROM generate_series(1, 20) i;
				INSERT INTO c SELECT i, i % 5 FROM generate_series(1, 20) i},
			q{UPDATE b SET k = k + 1; INSERT INTO a SELECT i, i % 5 FROM generate_series(3, 9) i; DELETE FROM c WHERE id % 2 = 0} ] },

	# What is moved out of FROM left the entries of joins behind whose sides were no longer there; the server's printer looked for them, and crashed.
	'an outer join that reads no table, below one with subqueries' => {
		setup => q{CREATE TABLE l (k int, g text); INSERT INTO l VALUES (1, 'y'), (2, 'z'), (NULL, 'y'); CREATE TABLE r (k int); INSERT INTO r VALUES (1), (NULL)},
		query => q{SELECT a.v, count(*) AS n FROM (VALUES (5, 'x'), (1, 'y')) a (v, w) FULL JOIN (VALUES (5), (2)) b (v) ON a.v = b.v LEFT JOIN l ON a.v = l.k
			WHERE l.k NOT IN (SELECT r.k FROM r WHERE r.k = l.k) OR a.v > 1 GROUP BY 1},
		changes => [ q{UPDATE l SET k = 5 WHERE k = 2; DELETE FROM r WHERE k = 1}, q{INSERT INTO r VALUES (5), (2); INSERT INTO l VALUES (2, 'a')} ] },

	# Where an inner join had been taken apart its entry stayed, and the deparser read beyond the columns that it no longer found.
	# This one and the next were found on a server with assertions.
	'a join of VALUES that a subquery decides about' => {
		setup => q{CREATE TABLE r (k int, g text); INSERT INTO r VALUES (1, 'x'), (2, 'y'), (NULL, NULL)},
		query => q{SELECT a.w, b.v, a.v AS av FROM (VALUES (1, 'x'), (5, NULL)) a (v, w) JOIN (VALUES (2, 'x'), (4, 'y')) b (v, w) ON a.w = b.w OR b.v = 4
			WHERE a.w NOT IN (SELECT r.g FROM r WHERE r.g = b.w) OR b.v = 4},
		changes => [ q{DELETE FROM r WHERE k = 1}, q{INSERT INTO r VALUES (3, 'x'), (4, NULL); UPDATE r SET g = 'x' WHERE k = 2} ] },

	# The entry of an outer join lacked the columns of a side that reads no table.
	'VALUES on one side of an outer join' => {
		setup => q{CREATE TABLE r (k int, g text); INSERT INTO r VALUES (1, 'x'), (2, 'y')},
		query => q{SELECT v.n, v.w, r.g FROM (VALUES (1, 'a'), (NULL, 'b'), (3, 'c')) v (n, w) LEFT JOIN r ON r.k = v.n},
		changes => [ q{INSERT INTO r VALUES (3, 'z'), (3, NULL); DELETE FROM r WHERE k = 1}, q{UPDATE r SET k = 1} ] },

	# A column was taken for never NULL.
	'NOT NULL that is not valid yet' => {
		since => 180000,
		setup => q{CREATE TABLE l (k int); INSERT INTO l VALUES (1), (2), (3); CREATE TABLE r (k int, n int UNIQUE); INSERT INTO r VALUES (1, NULL), (2, 5), (2, NULL);
			ALTER TABLE r ADD CONSTRAINT filled NOT NULL n NOT VALID},
		query => q{SELECT l.k FROM l LEFT JOIN r ON r.k = l.k WHERE r.n IS NULL},
		changes => [ q{INSERT INTO l VALUES (1), (4); INSERT INTO r VALUES (3, 7)}, q{DELETE FROM r WHERE k = 1; DELETE FROM l WHERE k = 2} ] });

while (my ($what, $case) = splice @CASES, 0, 2)
{
	next if $node->sql('SHOW server_version_num') < ($case->{since} // 0);
	$node->sql($case->{setup});
	$node->create_stream_table('st', $case->{query}, refresh_mode => 'DIFFERENTIAL', schedule => 'manual');
	foreach my $changes (ref $case->{changes} ? @{ $case->{changes} } : $case->{changes})
	{
		$node->sql("BEGIN; $changes; COMMIT");
		$node->refresh('st');
		$node->verify('st', $what);
	}
	$node->assert_no_fallback('st', "$what: by delta");
	$node->drop_stream_table('st');
	$node->sql(q{DO $$ DECLARE t regclass; BEGIN
		FOR t IN SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v') LOOP
			IF EXISTS (SELECT FROM pg_class WHERE oid = t) THEN EXECUTE 'DROP TABLE IF EXISTS ' || t || ' CASCADE'; END IF;
		END LOOP; END $$});
}

$node->stop_applier;
done_testing();
