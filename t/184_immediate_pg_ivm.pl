# t/184_immediate_pg_ivm.pl
#
# Goal: what pg_ivm, the other extension that maintains views in the writer's transaction, cannot do or got wrong, IMMEDIATE stream tables do, or refuse
#       with a reason.
# Method: a stream table for each restriction in its documentation, and each report in its issues that is about results; one session changes their sources
#         with every kind of statement and compares all of them after each one, inside its transaction.  What needs two sessions or a dump comes after.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster qw(sql_literal);
use StreamTables::Isolation;
use StreamTables::Session;
use Test::More;

my $node = StreamTables::Cluster->new('pg_ivm')->boot(setup => 'extension', conf => "deadlock_timeout = 20ms\ntimezone = 'UTC'");

$node->sql(
	q{CREATE TABLE a (gone int, id int PRIMARY KEY, k int, v numeric, t text);
	ALTER TABLE a DROP COLUMN gone;
	CREATE TABLE b (id int PRIMARY KEY, k int, w int);
	CREATE TABLE c (id int PRIMARY KEY, b_id int REFERENCES b ON DELETE CASCADE ON UPDATE CASCADE, x int);
	CREATE TABLE odd (id int, j json, p point, x xml, n numeric);
	CREATE TABLE parts (id int, k int) PARTITION BY LIST (k);
	CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1, 2);
	CREATE TABLE parts_2 PARTITION OF parts DEFAULT;
	CREATE TABLE parent (id int, k int); CREATE TABLE child (more text) INHERITS (parent);
	CREATE VIEW seen AS SELECT k, sum(v) AS total FROM a GROUP BY k;
	CREATE MATERIALIZED VIEW kept AS SELECT 1 AS one;
	CREATE TABLE log (id int, k int);
	CREATE FUNCTION log_a() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES (new.id, new.k); UPDATE b SET w = w + 1 WHERE k = new.k; RETURN new; END $$;
	CREATE TRIGGER log_a AFTER INSERT OR UPDATE ON a FOR EACH ROW EXECUTE FUNCTION log_a();
	INSERT INTO b SELECT g, g % 4, g FROM generate_series(1, 8) g;
	INSERT INTO a SELECT g, nullif(g % 5, 4), g * 1.50, chr(96 + g % 3) FROM generate_series(1, 20) g;
	INSERT INTO c SELECT g, g, g FROM generate_series(1, 8) g;
	INSERT INTO odd VALUES (1, '{"a": 1}', '(1,2)', '<a/>', 1.0), (1, '{"a": 1}', '(1,2)', '<a/>', 1.0), (2, NULL, NULL, NULL, 'NaN');
	INSERT INTO parts SELECT g, g % 4 FROM generate_series(1, 12) g;
	INSERT INTO parent VALUES (1, 1); INSERT INTO child VALUES (2, 1, 'x')});

# What is maintained: restriction or report => query.
my @CASES = (
	'expressions over aggregates' => 'SELECT k, sum(v) * 2 AS double, count(*) + 1 AS more FROM a GROUP BY k',
	'GROUP BY without its column in the list' => 'SELECT count(*) AS n FROM a GROUP BY k',
	'GROUP BY an expression' => 'SELECT k % 2 AS odd, count(*) AS n FROM a GROUP BY 1',
	'HAVING (pgsql-ivm 29)' => 'SELECT k, count(*) AS n FROM a GROUP BY k HAVING count(*) > 3',
	'FILTER' => q{SELECT k, count(*) FILTER (WHERE t = 'a') AS n FROM a GROUP BY k},
	'DISTINCT in an aggregate' => 'SELECT k, count(DISTINCT t) AS n FROM a GROUP BY k',
	'ORDER BY in an aggregate' => 'SELECT k, string_agg(t, \',\' ORDER BY id) AS all FROM a GROUP BY k',
	'arrays and JSON (pgsql-ivm 3)' => 'SELECT k, array_agg(id ORDER BY id) AS ids, jsonb_agg(v ORDER BY id) AS vs FROM a GROUP BY k',
	'statistics' => 'SELECT k, variance(id) AS spread, bool_and(v > 3) AS large FROM a GROUP BY k',
	'ordered sets' => 'SELECT k, percentile_disc(0.5) WITHIN GROUP (ORDER BY id) AS middle FROM a GROUP BY k',
	'min and max that are deleted (62)' => 'SELECT k, min(v) AS low, max(t) AS high FROM a GROUP BY k',
	'DISTINCT ON' => 'SELECT DISTINCT ON (k) k, id, v FROM a ORDER BY k, v DESC, id',
	'DISTINCT' => 'SELECT DISTINCT k, t FROM a',
	'window functions (pgsql-ivm 9)' => 'SELECT id, k, row_number() OVER (PARTITION BY k ORDER BY v, id) AS place FROM a',
	'LIMIT and OFFSET' => 'SELECT id, v FROM a ORDER BY v DESC, id LIMIT 4 OFFSET 1',
	'UNION' => 'SELECT k FROM a UNION SELECT k FROM b',
	'UNION ALL' => 'SELECT k FROM a UNION ALL SELECT k FROM b',
	'INTERSECT ALL' => 'SELECT k FROM a INTERSECT ALL SELECT k FROM b',
	'EXCEPT' => 'SELECT k FROM a EXCEPT SELECT k FROM b WHERE w > 5',
	'EXCEPT ALL' => 'SELECT k FROM a EXCEPT ALL SELECT k FROM b',
	'GROUPING SETS' => 'SELECT k, t, count(*) AS n, grouping(k, t) AS what FROM a GROUP BY ROLLUP (k, t)',
	'VALUES in a join' => q{SELECT a.id, v.name FROM a JOIN (VALUES (1, 'one'), (2, 'two')) v (k, name) ON v.k = a.k},
	'views (pgsql-ivm 33)' => 'SELECT s.k, s.total, b.w FROM seen s JOIN b ON b.k = s.k',
	'partitioned tables (20)' => 'SELECT k, count(*) AS n FROM parts GROUP BY k',
	'parents of tables' => 'SELECT k, count(*) AS n, sum(id) AS total FROM parent GROUP BY k',
	'aggregates in a subquery' => 'SELECT x.k, x.n, b.w FROM (SELECT k, count(*) AS n FROM a GROUP BY k) x JOIN b ON b.k = x.k',
	'DISTINCT in a subquery' => 'SELECT x.k, b.id FROM (SELECT DISTINCT k FROM a) x JOIN b ON b.k = x.k',
	'a subquery in the list' => 'SELECT b.id, (SELECT count(*) FROM a WHERE a.k = b.k) AS n FROM b',
	'a subquery of no outer column in the list' => 'SELECT b.id, (SELECT max(v) FROM a) AS top FROM b',
	'NOT EXISTS' => 'SELECT b.id FROM b WHERE NOT EXISTS (SELECT FROM a WHERE a.k = b.k AND a.v > 10)',
	'EXISTS under OR' => 'SELECT b.id FROM b WHERE b.w > 6 OR EXISTS (SELECT FROM a WHERE a.k = b.k)',
	'IN and NOT IN with NULLs' => 'SELECT id FROM b WHERE k NOT IN (SELECT k FROM a WHERE v > 20)',
	'WITH' => 'WITH x AS (SELECT k, sum(v) AS total FROM a GROUP BY k) SELECT x.k, total, w FROM x JOIN b USING (k)',
	'WITH RECURSIVE' => 'WITH RECURSIVE r AS (SELECT id, k FROM a WHERE id = 1 UNION SELECT a.id, a.k FROM r JOIN a ON a.id = r.id + r.k + 1) SELECT id FROM r',
	'outer join with aggregates' => 'SELECT b.k, count(a.id) AS n, sum(a.v) AS total FROM b LEFT JOIN a ON a.k = b.k GROUP BY b.k',
	'outer join without its keys in the list' => 'SELECT a.t, b.w FROM a LEFT JOIN b ON a.k = b.k',
	'outer join on two conditions' => 'SELECT a.id, b.id AS other FROM a FULL JOIN b ON a.k = b.k AND a.id = b.w',
	'outer join with WHERE' => 'SELECT a.id, b.id AS other FROM a LEFT JOIN b ON a.k = b.k WHERE coalesce(b.w, 0) < 5',
	'outer join and subqueries' => 'SELECT x.k, b.id FROM b LEFT JOIN (SELECT k, count(*) AS n FROM a GROUP BY k) x ON x.k = b.k',
	'outer join on NULL (159)' => 'SELECT x.id, y.id AS other FROM a x LEFT JOIN a y ON x.k = y.k AND y.id > 15',
	'cross join (159)' => 'SELECT a.id, b.id AS other FROM a CROSS JOIN b WHERE a.id < 4 AND b.id < 4',
	'self-join (121)' => 'SELECT x.id, y.id AS other FROM a x JOIN a y ON x.k = y.k',
	'self-join of three (121)' => 'SELECT x.k, count(*) AS n FROM a x JOIN a y ON x.k = y.k JOIN a z ON z.k = y.k GROUP BY x.k',
	'several tables in one statement (162)' => 'SELECT a.id, b.id AS other, b.w FROM a JOIN b ON a.k = b.k',
	'what triggers write (162, 127)' => 'SELECT l.k, count(*) AS n, sum(b.w) AS total FROM log l JOIN b ON b.k = l.k GROUP BY l.k',
	'types without equality (162)' => 'SELECT id, j, p, x FROM odd',
	'types without equality in a join (162)' => 'SELECT o.id, o.j, o.p, b.w FROM odd o JOIN b ON b.id = o.id',
	'sums of any scale and NaN' => 'SELECT id, sum(n) AS total, avg(n) AS mean FROM odd GROUP BY id',
	'dropped columns (117)' => 'SELECT a FROM a',
	'no rows, no columns (141)' => 'SELECT id FROM a WHERE false',
	'names with __ivm' => 'SELECT id AS __ivm_count__, k AS "__ivm" FROM b',
	'foreign keys that cascade' => 'SELECT b.id, count(c.id) AS n, sum(c.x) AS total FROM b LEFT JOIN c ON c.b_id = b.id GROUP BY b.id');

# What is refused: query => the reason.
my @REFUSED = (
	'mutable functions (pgsql-ivm 58)' => [ 'SELECT id, random() AS r FROM a', qr/volatile/ ],
	'the moment' => [ q{SELECT id FROM a WHERE v < extract(epoch FROM now())}, qr/now\(\)|without any change/ ],
	'system columns' => [ 'SELECT ctid, id FROM a', qr/system column|ctid/ ],
	'TABLESAMPLE' => [ 'SELECT id FROM a TABLESAMPLE system (50)', qr/TABLESAMPLE/ ],
	'FOR UPDATE' => [ 'SELECT id FROM a FOR UPDATE', qr/FOR (UPDATE|SHARE)|lock/i ],
	'materialized views (130)' => [ 'SELECT one FROM kept', qr/materialized view|no table whose changes/ ],
	'data-modifying WITH' => [ 'WITH x AS (DELETE FROM a RETURNING id) SELECT id FROM x', qr/WITH|data-modifying|SELECT/ ]);

my (%query, %case, @names);
while (my ($case, $query) = splice @CASES, 0, 2)
{
	my $name = 'st' . (1 + @names);
	$node->sql("SELECT pgtrickle.create_stream_table('$name', " . sql_literal($query) . ", refresh_mode => 'IMMEDIATE')");
	push @names, $name;
	@query{$name} = $query;
	$case{$name} = $case;
}
# IMMEDIATE over IMMEDIATE (130)
$node->sql("SELECT pgtrickle.create_stream_table('over', 'SELECT s.n, count(*) AS groups FROM st4 s GROUP BY s.n', refresh_mode => 'IMMEDIATE')");
push @names, 'over';
$query{over} = "SELECT s.n, count(*) AS groups FROM ($query{st4}) s GROUP BY s.n";
$case{over} = 'IMMEDIATE over IMMEDIATE (130)';

while (my ($case, $refused) = splice @REFUSED, 0, 2)
{
	my ($query, $reason) = @$refused;
	like($node->psql_error("SELECT pgtrickle.create_stream_table('refused', " . sql_literal($query) . ", refresh_mode => 'IMMEDIATE')"), $reason, "refused: $case");
}

# ---- one session ----

my $session = StreamTables::Session->new($node);
$session->run('SET jit = off');
my %wrong;

# Runs a statement, and compares everything.
sub follows
{
	my ($statement) = @_;

	my $answer = $session->run($statement);
	is("$answer->{state} $answer->{message}", '00000 ', $statement);
	# in pieces: the server takes long to plan all of it at once
	my @left = @names;
	while (my @some = splice @left, 0, 10)
	{
		$answer = $session->run(join ' UNION ALL ', map {
			my ($have, $want) = ("SELECT s::text FROM $_ s", "SELECT q::text FROM ($query{$_}) q");
			"(SELECT '$_', 'surplus', d FROM (($have) EXCEPT ALL ($want)) d (d) LIMIT 2) UNION ALL (SELECT '$_', 'missing', d FROM (($want) EXCEPT ALL ($have)) d (d) LIMIT 2)"
		} @some);
		$wrong{'comparison'} //= "$answer->{text} after $statement" if $answer->{state} ne '00000';
		foreach my $line (split /\n/, $answer->{rows})
		{
			my ($name, $rest) = split /\|/, $line, 2;
			$wrong{$name} //= "$rest, first after: $statement";
		}
	}
	return;
}

follows($_) foreach (
	'BEGIN',
	q{INSERT INTO a VALUES (21, 1, 2.5, 'a'), (22, NULL, 3.25, 'b'), (23, 9, 100, 'c')},
	'WITH x AS (INSERT INTO a VALUES (31, 2, 7, NULL) RETURNING k), y AS (DELETE FROM a WHERE id = 3 RETURNING k), z AS (UPDATE odd SET n = n + 1) UPDATE b SET w = w + 1 WHERE k IN (SELECT k FROM x) OR k IN (SELECT k FROM y)',
	'UPDATE a SET k = k + 1 WHERE id % 3 = 0',
	'SAVEPOINT s',
	'DELETE FROM a WHERE k = 1',
	'UPDATE b SET id = id + 100 WHERE id < 4',
	'ROLLBACK TO s',
	'DELETE FROM a WHERE v = (SELECT max(v) FROM a) OR v = (SELECT min(v) FROM a)',
	'DELETE FROM b WHERE id IN (2, 3)',
	'UPDATE b SET id = id + 100 WHERE id > 6',
	q{INSERT INTO a VALUES (21, 3, 9, 'a'), (41, 3, 9, 'a') ON CONFLICT (id) DO UPDATE SET v = excluded.v + 1, k = excluded.k},
	'MERGE INTO b USING (VALUES (1, 50), (300, 60)) s (id, w) ON s.id = b.id WHEN MATCHED THEN UPDATE SET w = s.w WHEN NOT MATCHED THEN INSERT VALUES (s.id, 2, s.w)',
	'COMMIT',
	'BEGIN',
	'DELETE FROM odd WHERE id = 1',
	q{INSERT INTO odd VALUES (1, '{"a":1}', '(3,4)', '<b/>', 1.000), (1, '{"a": 1}', '(1,2)', '<a/>', 2.5)},
	'UPDATE parts SET k = 3 WHERE k = 1',
	'INSERT INTO parts VALUES (99, 2), (98, NULL)',
	'UPDATE child SET k = 2',
	'DELETE FROM parent WHERE id = 1',
	'DELETE FROM a',
	'ROLLBACK',
	'DELETE FROM a WHERE k IS NOT NULL',
	q{INSERT INTO a SELECT g, g % 3, g, 'x' FROM generate_series(100, 110) g},
	'TRUNCATE log',
	'TRUNCATE b CASCADE',
	'INSERT INTO b VALUES (1, 1, 1), (2, 2, 2)',
	'UPDATE a SET v = v');
is($wrong{comparison}, undef, 'the comparisons worked');
is($wrong{$_}, undef, "maintained: $case{$_}") foreach @names;
$session->quit;

# 34, 45: a batch, here one whose rows do not fit into memory.  (The rows of such a statement were once freed twice, which ended the server.)
$node->sql(q{CREATE TABLE batch (id int PRIMARY KEY, k int, t text); INSERT INTO batch SELECT g, g % 7, 'row ' || g FROM generate_series(1, 6000) g;
	SELECT pgtrickle.create_stream_table('batched', 'SELECT x.id, x.t, b.w FROM batch x JOIN b ON b.k = x.k', refresh_mode => 'IMMEDIATE')});
$node->sql(q{SET work_mem = '64kB'; UPDATE batch SET t = t || repeat('x', 100); DELETE FROM batch WHERE id % 3 = 0; INSERT INTO batch SELECT g, 1, 'new' FROM generate_series(6001, 9000) g});
$node->is_current('batched', 'statements that change more rows than fit into memory (34)');

# ---- several sessions ----

# 104: a row is inserted while the view is created; here the one who creates waits for the one who writes, or the other way round.
my $while_created = StreamTables::Isolation->new($node,
	setup => q{DO $$ BEGIN PERFORM pgtrickle.drop_stream_table('created') FROM pg_class WHERE relname = 'created'; END $$; DROP TABLE IF EXISTS z; CREATE TABLE z (k int); INSERT INTO z VALUES (1)},
	sessions => [
		[ 'BEGIN; INSERT INTO z VALUES (1)', 'COMMIT' ],
		[ q{BEGIN; SELECT pgtrickle.create_stream_table('created', 'SELECT k, count(*) AS n FROM z GROUP BY k', refresh_mode => 'IMMEDIATE')}, 'COMMIT' ] ],
	at_end => [ StreamTables::Cluster::_difference_sql('TABLE created', 'SELECT k, count(*) AS n FROM z GROUP BY k') ])->run;
is($while_created->findings, '', 'created while somebody writes (104)');
cmp_ok($while_created->{waits}, '>', 0, 'and one waits for the other');

# 33: nine views over one table, whose writers deadlocked.
$node->sql('CREATE TABLE nine (id int PRIMARY KEY, k int, v int); INSERT INTO nine SELECT g, g, g FROM generate_series(1, 4) g');
$node->sql("SELECT pgtrickle.create_stream_table('nine$_', 'SELECT k, count(*) AS n, sum(v + $_) AS total FROM nine GROUP BY k', refresh_mode => 'IMMEDIATE')") foreach 1 .. 9;
my $nine = StreamTables::Isolation->new($node, limit => 6,
	setup => 'UPDATE nine SET v = 0',
	sessions => [ map { [ "BEGIN; UPDATE nine SET v = v + 1 WHERE id = $_", 'COMMIT' ] } 1 .. 3 ],
	checks => [ map { StreamTables::Cluster::_difference_sql("TABLE nine$_", "SELECT k, count(*) AS n, sum(v + $_) AS total FROM nine GROUP BY k") } 1, 9 ],
	may_fail => [])->run;
is($nine->findings, '', 'nine over one table: no deadlock, and exact (33)');
is($nine->{waits}, 0, 'and writers of different groups do not wait');

done_testing();
