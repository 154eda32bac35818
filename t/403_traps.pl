# t/403_traps.pl
#
# Goal: the changes that are known to break incremental maintenance break nothing here.
# Method: for each of them, tables, stream tables and a list of changes that are made three times: in one transaction, in one transaction each
#         with a refresh after each, and in one transaction each with one refresh at the end; always from a state that is not empty, and once more
#         afterwards.  After each refresh verify().
# See t/README.md for the list, and for those that have tests of their own.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster qw(sql_literal);
use Test::More;

my $TABLES = q{
	CREATE TABLE l (id int PRIMARY KEY, k int, name text, n numeric);
	CREATE TABLE r (id int PRIMARY KEY, k int, label text, n numeric(10,2));
	CREATE TABLE m (k int, v bigint);
	INSERT INTO l SELECT i, nullif(i % 5, 0), 'n' || i % 3, i * 1.5 FROM generate_series(1, 12) i;
	INSERT INTO r SELECT i, nullif(i % 4, 0), 'label ' || i % 2, i FROM generate_series(1, 8) i;
	INSERT INTO m SELECT i % 3 + 1, i % 2 FROM generate_series(1, 7) i;};
my $KEY_MOVES = [ 'UPDATE l SET k = 7 WHERE k = 1', 'DELETE FROM r WHERE k = 1', 'INSERT INTO r VALUES (20, 7, \'seven\', 7)', 'UPDATE l SET k = 2 WHERE k = 7', 'DELETE FROM r WHERE id = 20' ];

# number => [what, { name => query, ... in alphabetical order }, [changes], more tables]
my @TRAPS = (
	1 => [ 'the key of one side changes and its old partner goes', { q1 => 'SELECT l.id, r.id AS r_id, r.label FROM l JOIN r ON r.k = l.k' }, $KEY_MOVES ],
	2 => [ 'the same over three and four inputs', {
			q1 => 'SELECT l.id, r.id AS r_id, m.v FROM l JOIN r ON r.k = l.k JOIN m ON m.k = r.k',
			q2 => 'SELECT r.label, sum(l.n * m.v) AS s FROM l JOIN r ON r.k = l.k JOIN m ON m.k = r.k JOIN m m2 ON m2.v = m.v GROUP BY r.label' },
		[ @$KEY_MOVES, 'UPDATE m SET k = 7 WHERE k = 1', 'DELETE FROM m WHERE k = 2' ] ],
	3 => [ 'both sides insert rows that match', { q1 => 'SELECT l.id, r.id AS r_id FROM l JOIN r ON r.k = l.k', q2 => 'SELECT count(*) AS c FROM l, r, m WHERE l.k = r.k AND m.k = l.k' },
		[ q{INSERT INTO l VALUES (30, 9, 'x', 1)}, q{INSERT INTO r VALUES (30, 9, 'x', 1)}, 'INSERT INTO m VALUES (9, 9), (9, 9)' ] ],
	4 => [ 'a left join of a stream table with a table, both change', { q1 => 'SELECT k, count(*) AS c FROM l GROUP BY k', q2 => 'SELECT q1.k, q1.c, r.label FROM q1 LEFT JOIN r ON r.k = q1.k' },
		[ q{INSERT INTO l VALUES (30, 3, 'x', 1)}, 'UPDATE r SET label = label || \'!\' WHERE k = 3', 'DELETE FROM r WHERE k = 2', 'UPDATE l SET k = 11 WHERE k = 4', q{INSERT INTO r VALUES (30, 11, 'y', 1)} ] ],
	5 => [ 'two left joins in a chain onto aggregates with extremes', {
			q1 => 'WITH a AS (SELECT k, min(n) AS lo, max(n) AS hi FROM r GROUP BY k), b AS (SELECT k, max(v) AS v, count(*) AS c FROM m GROUP BY k)
				SELECT l.id, a.lo, a.hi, b.v, b.c FROM l LEFT JOIN a ON a.k = l.k LEFT JOIN b ON b.k = a.k' },
		[ 'INSERT INTO r VALUES (30, 1, \'low\', -5)', 'INSERT INTO m VALUES (1, 99)', 'DELETE FROM r WHERE id = 30', 'UPDATE l SET k = 1 WHERE id < 4', 'DELETE FROM m WHERE v = 99', 'DELETE FROM r WHERE k = 1' ] ],
	6 => [ 'rows without a partner get one, lose it, and have NULL keys', {
			q1 => 'SELECT l.id, l.k, r.id AS r_id FROM l LEFT JOIN r ON r.k = l.k', q2 => 'SELECT l.id, r.id AS r_id FROM l RIGHT JOIN r ON r.k = l.k AND l.n > 3',
			q3 => 'SELECT l.k, count(r.id) AS c FROM l LEFT JOIN r ON r.k = l.k GROUP BY l.k' },
		[ 'DELETE FROM r WHERE k = 3', 'UPDATE l SET n = n + 1 WHERE k = 3', q{INSERT INTO r VALUES (30, 3, 'first', 1)}, 'UPDATE l SET k = NULL WHERE k = 3', 'UPDATE r SET k = NULL WHERE id = 30', 'UPDATE l SET k = 3 WHERE k IS NULL', 'UPDATE r SET k = 3 WHERE k IS NULL' ] ],
	7 => [ 'full joins, grouped by either key, with sums that become NULL', {
			q1 => 'SELECT l.id, r.id AS r_id FROM l FULL JOIN r ON r.k = l.k', q2 => 'SELECT coalesce(l.k, r.k) AS k, sum(r.n) AS s, count(l.id) AS c FROM l FULL JOIN r ON r.k = l.k GROUP BY coalesce(l.k, r.k)' },
		[ 'DELETE FROM r WHERE k = 2', 'DELETE FROM l WHERE k = 3', q{INSERT INTO r VALUES (30, 12, 'alone', 5)}, q{INSERT INTO l VALUES (30, 12, 'joined', 5)}, 'UPDATE r SET k = NULL WHERE k = 12' ] ],
	8 => [ 'a join of two stream tables that change together', { q1 => 'SELECT k, sum(n) AS s FROM l GROUP BY k', q2 => 'SELECT k, count(*) AS c FROM r GROUP BY k', q3 => 'SELECT q1.k, q1.s, q2.c FROM q1 JOIN q2 ON q2.k = q1.k' },
		[ q{INSERT INTO l VALUES (30, 1, 'x', 1)}, q{INSERT INTO r VALUES (30, 1, 'x', 1)}, 'UPDATE l SET k = k + 1', 'DELETE FROM r WHERE k = 2', 'UPDATE r SET k = k % 2 + 1' ] ],
	9 => [ 'an aggregate without groups over nothing', { q1 => 'SELECT sum(n) AS s, count(*) AS c, max(name) AS m FROM l', q2 => 'SELECT avg(l.n) AS a FROM l JOIN r ON r.k = l.k' },
		[ 'UPDATE l SET n = NULL', 'DELETE FROM l', q{INSERT INTO l VALUES (1, 1, 'back', NULL)}, 'UPDATE l SET n = 3', 'DELETE FROM r' ] ],
	10 => [ 'averages of numbers with many digits', { q1 => 'SELECT k, avg(n) AS a, sum(n) AS s FROM l GROUP BY k' },
		[ 'UPDATE l SET n = n / 3', 'UPDATE l SET n = n / 7 WHERE id % 2 = 0', 'UPDATE l SET n = n * 3', 'UPDATE l SET n = 1.00 WHERE k = 1', 'DELETE FROM l WHERE id % 3 = 0' ] ],
	11 => [ 'groups cross the threshold of HAVING', { q1 => 'SELECT k, count(*) AS c, sum(n) AS s FROM l GROUP BY k HAVING count(*) > 2', q2 => 'SELECT name FROM l GROUP BY name HAVING sum(n) > 30' },
		[ q{INSERT INTO l VALUES (30, 1, 'n1', 50)}, q{INSERT INTO l VALUES (31, 4, 'n2', 1), (32, 4, 'n2', 1)}, 'DELETE FROM l WHERE id = 30', 'UPDATE l SET k = 4 WHERE k = 1', 'UPDATE l SET n = -n WHERE id = 12' ] ],
	12 => [ 'sums of CASE over a join whose tables have columns of the same names', {
			q1 => q{SELECT "R".label, sum(CASE WHEN l.name = 'n1' AND "R".n > 2 THEN l.n ELSE "R".n END) AS "Sum" FROM l JOIN r "R" ON "R".k = l.k GROUP BY "R".label} },
		[ q{UPDATE l SET name = 'n1' WHERE id % 4 = 0}, 'UPDATE r SET n = n * 2', q{UPDATE r SET label = 'it''s', n = 1 WHERE id = 3}, q{UPDATE l SET name = NULL WHERE k = 2} ] ],
	13 => [ 'keys that are NULL, NaN, minus zero, of several scales, equal but not the same', {
			q1 => 'SELECT k, name, count(*) AS c FROM l GROUP BY k, name', q2 => 'SELECT n, count(*) AS c FROM l GROUP BY n', q3 => 'SELECT f, count(*) AS c FROM odd GROUP BY f', q4 => 'SELECT DISTINCT t FROM odd', q5 => 'SELECT a.id, b.id AS b FROM odd a JOIN odd b ON a.t = b.t AND a.f = b.f' },
		[ q{INSERT INTO l VALUES (30, NULL, NULL, 'NaN'), (31, NULL, NULL, 1.0), (32, 1, '', 1.00)}, q{UPDATE l SET n = 1 WHERE id = 12}, 'DELETE FROM l WHERE id = 31', q{INSERT INTO odd VALUES (5, '-0', 'A'), (6, 'NaN', 'a')},
			q{DELETE FROM odd WHERE id = 1}, q{UPDATE odd SET t = 'B' WHERE t = 'b'}, q{UPDATE l SET n = 1.000 WHERE n = 1}, 'DELETE FROM odd WHERE id = 6' ],
		q{CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
			CREATE TABLE odd (id int PRIMARY KEY, f float8, t text COLLATE ci); INSERT INTO odd VALUES (1, 0, 'a'), (2, '-0', 'A'), (3, 'NaN', 'b'), (4, NULL, NULL)} ],
	14 => [ 'groups empty and revive, extremes go and come', { q1 => 'SELECT k, count(*) AS c, min(n) AS lo, max(n) AS hi FROM l GROUP BY k', q2 => 'SELECT max(l.n) AS hi, min(r.n) AS lo FROM l JOIN r ON r.k = l.k' },
		[ 'DELETE FROM l WHERE k = 1', q{INSERT INTO l VALUES (30, 1, 'x', 5)}, 'DELETE FROM l WHERE n = (SELECT max(n) FROM l)', q{INSERT INTO l VALUES (31, 2, 'x', 1000)}, 'DELETE FROM l WHERE id = 31', 'DELETE FROM r WHERE n = (SELECT min(n) FROM r)' ] ],
	15 => [ 'aggregates inside expressions', { q1 => q{SELECT k, 100 * sum(n) / CASE WHEN sum(id) = 0 THEN 1 ELSE sum(id) END AS share, coalesce(max(name), '?') || count(*) AS t, extract(year FROM max(date '2024-01-01' + id)) AS y FROM l GROUP BY k} },
		[ 'UPDATE l SET n = n + 1', 'UPDATE l SET name = NULL WHERE k = 1', 'UPDATE l SET k = 1 WHERE k = 2', 'DELETE FROM l WHERE k = 3' ] ],
	16 => [ 'updates of columns that one stream table uses and another does not', { q1 => 'SELECT id, name FROM l', q2 => 'SELECT id, n FROM l', q3 => 'SELECT k, count(*) AS c FROM l GROUP BY k' },
		[ 'UPDATE l SET n = n + 1', q{UPDATE l SET name = name || '.'}, 'UPDATE l SET k = k', 'UPDATE l SET n = NULL, k = 9 WHERE id < 4' ] ],
	17 => [ 'a sum over a join stays right over many changes', { q1 => q{SELECT r.label, l.name, sum(l.n * (1 - r.n / 100)) AS revenue FROM l JOIN r ON r.k = l.k JOIN m ON m.k = l.k WHERE (r.label = 'label 0' AND l.name = 'n1') OR (r.label = 'label 1' AND l.name = 'n2') GROUP BY r.label, l.name} },
		[ map { ("UPDATE l SET n = n + $_ WHERE id % 3 = $_ % 3", "UPDATE r SET label = 'label ' || (id + $_) % 2 WHERE id % 2 = 0", "UPDATE l SET k = (k + $_) % 4 WHERE id % 4 = $_ % 4", "UPDATE m SET k = k % 3 + 1") } 1 .. 3 ] ],
	18 => [ 'EXISTS, NOT EXISTS and IN, with groups inside', {
			q1 => 'SELECT id FROM l WHERE EXISTS (SELECT 1 FROM r WHERE r.k = l.k)', q2 => 'SELECT id FROM l WHERE NOT EXISTS (SELECT 1 FROM r WHERE r.k = l.k AND r.n > l.id)',
			q3 => 'SELECT id FROM l WHERE k IN (SELECT k FROM r GROUP BY k HAVING count(*) > 1)', q4 => 'SELECT id FROM l WHERE EXISTS (SELECT 1 FROM m WHERE m.k = l.k GROUP BY m.v HAVING sum(m.v) > 1)' },
		[ 'DELETE FROM r WHERE k = 1', 'UPDATE l SET k = 1 WHERE id = 2', q{INSERT INTO r VALUES (30, 1, 'x', 99), (31, 1, 'x', 1)}, 'INSERT INTO m VALUES (4, 1), (4, 1)', 'UPDATE m SET v = 0', 'DELETE FROM r WHERE id = 31' ] ],
	19 => [ 'subqueries inside CASE, COALESCE and arguments', {
			q1 => q{SELECT id, CASE WHEN EXISTS (SELECT 1 FROM r WHERE r.k = l.k) THEN 'yes' ELSE 'no' END AS e, coalesce((SELECT max(v) FROM m WHERE m.k = l.k), -1) AS v, length((SELECT min(label) FROM r WHERE r.k = l.k)) AS n FROM l} },
		[ 'DELETE FROM r WHERE k = 1', 'INSERT INTO m VALUES (1, 77)', q{INSERT INTO r VALUES (30, 1, '', 1)}, 'DELETE FROM m WHERE k = 2', 'UPDATE l SET k = k + 1' ] ],
	20 => [ 'NOT IN with NULLs on either side', { q1 => 'SELECT id FROM l WHERE k NOT IN (SELECT k FROM r)', q2 => 'SELECT id FROM l WHERE k NOT IN (SELECT v FROM m WHERE m.k = l.id)', q3 => q{SELECT id FROM l WHERE (k, name) NOT IN (SELECT k, label FROM r)} },
		[ 'UPDATE r SET k = 5 WHERE k IS NULL', 'UPDATE l SET k = 6 WHERE id = 1', 'UPDATE r SET k = NULL WHERE id = 1', 'INSERT INTO m VALUES (2, NULL)', 'DELETE FROM r', 'INSERT INTO r VALUES (1, NULL, NULL, 1)' ] ],
	21 => [ 'a row equals an extreme that moves', { q1 => 'SELECT id, n FROM l WHERE n = (SELECT max(n) FROM l)', q2 => 'SELECT id FROM l WHERE n = (SELECT min(x.n) FROM l x WHERE x.k = l.k)', q3 => 'WITH s AS (SELECT k, sum(n) AS t FROM l GROUP BY k) SELECT k, t FROM s WHERE t = (SELECT max(t) FROM s)' },
		[ q{INSERT INTO l VALUES (30, 1, 'top', 500)}, 'UPDATE l SET n = 501 WHERE id = 2', 'DELETE FROM l WHERE id = 30', 'UPDATE l SET n = 501 WHERE id = 3', 'DELETE FROM l WHERE n = 501', 'UPDATE l SET n = NULL' ] ],
	23 => [ 'set operations in projections and chains', {
			q1 => 'SELECT k + 1 AS k1 FROM (SELECT k FROM l EXCEPT ALL SELECT k FROM r) d', q2 => 'SELECT k FROM l INTERSECT SELECT k FROM r EXCEPT SELECT k FROM m', q3 => 'SELECT k FROM l UNION (SELECT k FROM r EXCEPT ALL SELECT k FROM m) UNION ALL SELECT k FROM m' },
		[ 'DELETE FROM r WHERE k = 1', 'INSERT INTO m VALUES (1, 1), (1, 1)', 'UPDATE l SET k = 2', 'DELETE FROM m WHERE v = 0', 'UPDATE r SET k = NULL WHERE id < 5' ] ],
	24 => [ 'ORDER BY with LIMIT below, filters on columns that are not shown', { q1 => 'SELECT count(*) AS c, sum(n) AS s FROM (SELECT n FROM l ORDER BY n DESC, id LIMIT 3) t', q2 => 'SELECT name FROM l WHERE n > 5', q3 => 'SELECT id FROM l ORDER BY name LIMIT 4 OFFSET 1' },
		[ q{INSERT INTO l VALUES (30, 1, 'a', 100)}, 'UPDATE l SET n = 0 WHERE n = 18', 'DELETE FROM l WHERE id = 30', q{UPDATE l SET name = 'a' WHERE id = 12}, 'UPDATE l SET n = 6 WHERE id = 1' ] ],
	25 => [ 'windows: the partition changes, ranks tie, windows over windows', {
			q1 => 'SELECT id, k, rank() OVER (PARTITION BY k ORDER BY name) AS r, row_number() OVER (PARTITION BY k ORDER BY name) AS rn, lag(n) OVER (PARTITION BY k ORDER BY id) AS before, lead(n) OVER (PARTITION BY k ORDER BY id) AS after FROM l',
			q2 => 'SELECT k, r, count(*) OVER (PARTITION BY r) AS c FROM (SELECT k, dense_rank() OVER (PARTITION BY k ORDER BY name) AS r FROM l) t', q3 => 'SELECT id, sum(n) OVER (ORDER BY id) AS running FROM l' },
		[ 'UPDATE l SET k = 2 WHERE k = 1', q{UPDATE l SET name = 'same'}, 'DELETE FROM l WHERE id IN (2, 7)', q{INSERT INTO l VALUES (0, 2, 'first', 0), (40, 2, 'last', 0)}, 'UPDATE l SET k = NULL WHERE k = 3' ] ],
	26 => [ 'recursion: an edge goes that others replace, and what is derived along the way changes', {
			q1 => 'WITH RECURSIVE reach (a, b) AS (SELECT a, b FROM edge UNION SELECT reach.a, edge.b FROM reach JOIN edge ON edge.a = reach.b) SELECT a, b FROM reach',
			q2 => q{WITH RECURSIVE path (id, way) AS (SELECT id, name FROM node WHERE parent IS NULL UNION ALL SELECT node.id, path.way || '>' || node.name FROM path JOIN node ON node.parent = path.id) SELECT id, way FROM path} },
		[ 'DELETE FROM edge WHERE a = 1 AND b = 2', 'DELETE FROM edge WHERE a = 1 AND b = 3', 'INSERT INTO edge VALUES (4, 1), (1, 2)', 'DELETE FROM edge WHERE a = 4', q{UPDATE node SET name = 'root' WHERE id = 1}, 'UPDATE node SET parent = 3 WHERE id = 4', 'DELETE FROM node WHERE id = 2' ],
		q{CREATE TABLE edge (a int, b int); INSERT INTO edge VALUES (1, 2), (2, 4), (1, 3), (3, 4), (4, 5), (5, 4);
			CREATE TABLE node (id int PRIMARY KEY, parent int, name text); INSERT INTO node VALUES (1, NULL, 'a'), (2, 1, 'b'), (3, 1, 'c'), (4, 2, 'd'), (5, 4, 'e')} ],
	27 => [ 'the two ways of a diamond bring changes of one row', { q1 => 'SELECT DISTINCT k, name FROM l', q2 => 'SELECT DISTINCT k FROM l UNION SELECT k FROM r', q3 => 'SELECT DISTINCT q1.k, q2.k AS k2 FROM q1 JOIN q2 ON q2.k = q1.k OR q1.k = 1' },
		[ 'UPDATE l SET k = 2 WHERE k = 1', 'DELETE FROM r WHERE k = 2', 'UPDATE l SET k = 1 WHERE id % 2 = 0', q{INSERT INTO l VALUES (30, 8, 'x', 1), (31, 8, 'x', 1)}, 'DELETE FROM l WHERE id = 30' ] ],
	28 => [ 'equal rows of a table without a key', { q1 => 'SELECT k, v FROM m', q2 => 'SELECT k, count(*) AS c FROM m GROUP BY k', q3 => 'SELECT m.v, l.name FROM m JOIN l ON l.k = m.k' },
		[ 'INSERT INTO m VALUES (5, 5), (5, 5), (5, 5)', 'DELETE FROM m WHERE ctid = (SELECT min(ctid) FROM m WHERE k = 5)', 'UPDATE m SET v = 6 WHERE ctid = (SELECT max(ctid) FROM m WHERE k = 5)', 'INSERT INTO m VALUES (5, 5), (NULL, NULL), (NULL, NULL)', 'DELETE FROM m WHERE k = 5' ] ],
	29 => [ 'rows whose columns give the same text when put together', { q1 => 'SELECT a, b FROM words', q2 => 'SELECT a, b, count(*) AS c FROM words GROUP BY a, b', q3 => 'SELECT DISTINCT a, b FROM words' },
		[ q{INSERT INTO words VALUES ('a|b', 'c'), ('a', 'b|c'), ('', NULL), (NULL, '')}, q{DELETE FROM words WHERE a = 'a' AND b = 'b|c'}, q{UPDATE words SET a = NULL WHERE a = ''}, q{INSERT INTO words VALUES ('Alice Smith', 'it''s null'), (' null', '"')} ],
		q{CREATE TABLE words (a text, b text); INSERT INTO words VALUES ('a', 'b|c'), ('a|b', 'c'), ('null', NULL), (NULL, 'null'), ('', '')} ],
	30 => [ 'keys with NULL, keys that change, and updates that go through two stream tables', { q1 => 'SELECT code, k FROM u', q2 => 'SELECT q1.k, count(*) AS c, max(q1.code) AS m FROM q1 GROUP BY q1.k', q3 => 'SELECT q2.c, l.id FROM q2 JOIN l ON l.k = q2.k' },
		[ q{UPDATE u SET code = 'z' WHERE code IS NULL AND k = 1}, 'UPDATE u SET code = NULL WHERE k = 2', 'UPDATE l SET id = id + 100', 'UPDATE l SET id = id - 99', 'UPDATE u SET k = 1', 'DELETE FROM u WHERE code IS NULL' ],
		q{CREATE TABLE u (code text UNIQUE, k int); INSERT INTO u VALUES ('a', 1), ('b', 2), (NULL, 1), (NULL, 2), (NULL, 2)} ]);

my $node = StreamTables::Cluster->new('traps')->boot(conf => "max_locks_per_transaction = 256\npgtrickle.cost_based = off");
$node->start_applier;

# The script of one way to make the changes.
sub script
{
	my ($schema, $how, $queries, $changes, $more) = @_;

	my @names = sort keys %$queries;
	my $check = join '', map { "SELECT pgtrickle.refresh_stream_table('$_');\n" } $names[-1];
	$check .= join '', map { "SELECT '$_', v.* FROM pgtrickle.verify('$_') v;\n" } @names;
	my $script = "SET client_min_messages = error; CREATE SCHEMA $schema; SET search_path = $schema;\n$TABLES;\n" . ($more // '') . ";\n";
	$script .= join '', map { 'SELECT pgtrickle.create_stream_table(' . sql_literal($_) . ', ' . sql_literal($queries->{$_}) . ", 'manual');\n" } @names;
	# one change before, so that the first tick is not the one that is looked at
	foreach my $statements ([ 'UPDATE l SET n = n + 1 WHERE id = 5; UPDATE r SET n = n + 1 WHERE id = 5' ], $changes)
	{
		$script .= "BEGIN;\n" . join(";\n", @$statements) . ";\nCOMMIT;\n$check" if $how eq 'one';
		$script .= join '', map { "$_;\n$check" } @$statements if $how eq 'each';
		$script .= join(";\n", @$statements) . ";\n$check" if $how eq 'many';
	}
	return $script;
}

my %SAID = (one => 'in one transaction', each => 'with a refresh after each change', many => 'in many transactions and one refresh');
while (my ($number, $trap) = splice @TRAPS, 0, 2)
{
	my ($what, $queries, $changes, $more) = @$trap;
	foreach my $how (qw(one each many))
	{
		my $answer = $node->sql(script("trap_${number}_$how", $how, $queries, $changes, $more));
		$answer =~ s/^\n+//mg;
		is($answer, '', "$number: $what, $SAID{$how}");
	}
}
# Those with subqueries in expressions may need full refreshes.
my $may_be_full = q{pgt_schema ~ '^trap_(18|19|20|21)_'};
is($node->sql("SELECT pgt_schema || '.' || pgt_name || ': ' || downgrade_reason FROM pgtrickle.pgt_stream_tables WHERE downgrade_reason <> '' AND NOT $may_be_full"),
	'', 'all are maintained by delta');
is($node->sql("SELECT pgt_schema || '.' || pgt_name || ': ' || h.reason FROM pgtrickle.pgt_refresh_history h JOIN pgtrickle.pgt_stream_tables USING (pgt_id)
		WHERE h.action = 'FULL' AND h.initiated_by <> 'INITIAL' AND NOT $may_be_full"), '', 'and none was refreshed in full');

# 22: more than one row where one must be: the refresh fails with the server's error, and goes on when the reason is gone
$node->sql(q{CREATE TABLE l (id int PRIMARY KEY, k int); CREATE TABLE r (id int PRIMARY KEY, k int); INSERT INTO l VALUES (1, 1), (2, 2); INSERT INTO r VALUES (10, 1)});
$node->create_stream_table('scalar', 'SELECT id, (SELECT r.id FROM r WHERE r.k = l.k) AS r FROM l', schedule => 'manual');
$node->sql('INSERT INTO r VALUES (11, 1)');
like($node->psql_error(q{SELECT pgtrickle.refresh_stream_table('scalar')}), qr/^21000: could not refresh/, '22: two rows from a scalar subquery are an error');
is($node->sql('SELECT * FROM scalar ORDER BY id'), "1|10\n2|", '22: the rows of before stay');
$node->sql('DELETE FROM r WHERE id = 10; INSERT INTO r VALUES (12, 2)');
$node->refresh('scalar');
$node->verify('scalar', '22: and it goes on afterwards');

$node->stop_applier;
done_testing();
