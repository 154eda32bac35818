# t/188_immediate_corners.pl
#
# Goal: IMMEDIATE stream tables where statements end in odd ways, where their queries are replaced below and above each other, and where changes come from replication.
# Method: each case followed by a comparison, in the same transaction where that is possible.
use strict;
use warnings FATAL => 'all';

use Cwd            qw(abs_path);
use File::Basename qw(dirname);
use PostgreSQL::Test::Utils;
use StreamTables::Cluster qw(sql_literal);
use Test::More;

my $node = StreamTables::Cluster->new('immediate_corners')->boot;
$node->sql(
	q{CREATE TABLE items (id int PRIMARY KEY, k int, n int); CREATE TABLE names (k int PRIMARY KEY, name text);
	CREATE TABLE log (id int, k int) PARTITION BY LIST (k);
	CREATE TABLE log_0 PARTITION OF log FOR VALUES IN (0); CREATE TABLE log_1 (k int, id int); ALTER TABLE log ATTACH PARTITION log_1 FOR VALUES IN (1);
	INSERT INTO items SELECT g, g % 3, g FROM generate_series(1, 20) g; INSERT INTO names SELECT g, 'name ' || g FROM generate_series(0, 2) g;
	INSERT INTO log SELECT g, g % 2 FROM generate_series(1, 10) g});

sub immediate
{
	my ($name, $query) = @_;

	return $node->sql("SELECT pgtrickle.create_or_replace_stream_table('$name', " . sql_literal($query) . q{, refresh_mode => 'IMMEDIATE')});
}
immediate('sums', 'SELECT k, count(*) AS n, sum(n) AS total FROM items GROUP BY k');
immediate('joined', 'SELECT i.id, t.name FROM items i LEFT JOIN names t USING (k)');
immediate('logged', 'SELECT k, count(*) AS n FROM log GROUP BY k');
my @all = qw(sums joined logged);

# Statements in one transaction, then the differences; after it, too.
sub follows
{
	my ($what, @statements) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($rc, $out, $err) = $node->psql($node->dbname, join(";\n", 'BEGIN', @statements, map({ $node->difference_query($_) } @all), 'COMMIT'), on_error_stop => 1);
	$out =~ s/^(?!surplus|missing).*\n?//mg;
	return is("$out$err", '', $what);
}

# --- statements that are not fetched to their end ---
my $module = abs_path(dirname(__FILE__) . '/modules/immediate_test');
my $build = PostgreSQL::Test::Utils::tempdir();
my $output = `cd '$build' && make -s -f '$module/Makefile' VPATH='$module' PG_CONFIG=pg_config 2>&1`;
BAIL_OUT("could not build immediate_test: $output") if !-e "$build/immediate_test.so";
$node->sql(qq{CREATE FUNCTION execute_limited(statement text, row_count bigint) RETURNS bigint LANGUAGE c AS '$build/immediate_test', 'immediate_test_execute'});
$node->sql(
	q{CREATE FUNCTION first_of(statement text) RETURNS int LANGUAGE plpgsql AS $$DECLARE r record; BEGIN
		FOR r IN EXECUTE statement LOOP RETURN r.id; END LOOP; RETURN NULL; END$$;
	CREATE FUNCTION by_cursor(fetched int) RETURNS void LANGUAGE plpgsql AS $$DECLARE c refcursor; x int; BEGIN
		OPEN c FOR EXECUTE 'INSERT INTO items SELECT g, 1, g FROM generate_series(300, 310) g RETURNING id';
		FOR i IN 1 .. fetched LOOP FETCH c INTO x; END LOOP; CLOSE c; END$$;
	CREATE FUNCTION of_with() RETURNS int LANGUAGE plpgsql AS $$DECLARE x int; BEGIN
		WITH w AS (DELETE FROM items WHERE k = 1 RETURNING id), v AS (INSERT INTO names VALUES (7, 'seven') RETURNING k) SELECT w.id INTO x FROM w, v; RETURN x; END$$;
	CREATE FUNCTION in_sql() RETURNS int LANGUAGE sql AS 'UPDATE items SET n = n + 1 RETURNING id';
	CREATE FUNCTION set_in_sql() RETURNS SETOF int LANGUAGE sql AS 'UPDATE items SET n = n + 1 RETURNING id';
	CREATE FUNCTION too_many() RETURNS text LANGUAGE plpgsql AS $$DECLARE x int; BEGIN
		INSERT INTO items SELECT g, 1, g FROM generate_series(400, 410) g RETURNING id INTO x; RETURN 'one';
		EXCEPTION WHEN too_many_rows THEN INSERT INTO items VALUES (500, 2, 5); RETURN 'many'; END$$});
follows('a loop over RETURNING that is left', q{SELECT first_of('INSERT INTO items SELECT g, 2, g FROM generate_series(100, 130) g RETURNING id')});
is($node->sql('SELECT count(*) FROM items WHERE id BETWEEN 100 AND 130'), 31, '... has written all rows');
follows('a cursor over RETURNING that is closed', 'SELECT by_cursor(1)');
follows('... or was never read', 'DELETE FROM items WHERE id >= 300', 'SELECT by_cursor(0)');
is($node->sql('SELECT count(*) FROM items WHERE id >= 300'), 0, '... and has written nothing');
follows('one row of a query with data-modifying WITH', 'SELECT of_with()');
is($node->sql('SELECT count(*) FROM items WHERE k = 1'), 0, '... which has written all');
follows('functions in SQL that return one row', 'SELECT in_sql()');
follows('... or of which one is taken', 'SELECT set_in_sql() LIMIT 1');
follows('INTO with too many rows, caught', 'SELECT too_many()');
is($node->sql('SELECT count(*) FROM items WHERE id >= 400'), 1, '... undoes them');
follows('SPI with a limit that is not reached', q{SELECT execute_limited('INSERT INTO items VALUES (600, 1, 1), (601, 2, 2) RETURNING id', 10)});
follows('SPI with a limit and no RETURNING', q{SELECT execute_limited('INSERT INTO items VALUES (602, 1, 1), (603, 2, 2)', 1)});
is($node->sql('SELECT count(*) FROM items WHERE id BETWEEN 602 AND 603'), 2, '... which counts rows that are returned only');
my $stopped = q{SELECT execute_limited('INSERT INTO items VALUES (610, 1, 1), (611, 2, 2), (612, 1, 1) RETURNING id', 1)};
like($node->psql_error($stopped), qr/^55000: a statement on table "items" was not run to its end/, 'SPI that stops a statement with RETURNING fails the transaction');
like($node->psql_error("BEGIN; $stopped; INSERT INTO items VALUES (613, 1, 1); COMMIT"), qr/^55000: a statement on table "items" was not run to its end/, '... whatever follows');
follows('... unless it is rolled back to a savepoint', 'SAVEPOINT s', $stopped, 'ROLLBACK TO s', 'INSERT INTO items VALUES (614, 1, 1)');
is($node->sql('SELECT string_agg(id::text, $$ $$ ORDER BY id) FROM items WHERE id >= 610'), 614, '... of which nothing stays');

# --- session_replication_role ---
foreach my $role ('replica', 'local')
{
	follows("session_replication_role = $role", "SET session_replication_role = $role", 'INSERT INTO items VALUES (700, 0, 7), (701, 5, 8)',
		'UPDATE items SET k = 2 WHERE id % 7 = 0', 'DELETE FROM items WHERE id >= 700', 'UPDATE log SET k = 1 - k WHERE id < 5');
	follows('... TRUNCATE and COPY among it', "SET session_replication_role = $role", 'TRUNCATE log_1', q{INSERT INTO log_1 VALUES (1, 900)},
		"MERGE INTO names t USING (VALUES (0, 'nil'), (9, 'nine')) v (k, name) ON t.k = v.k WHEN MATCHED THEN UPDATE SET name = v.name WHEN NOT MATCHED THEN INSERT VALUES (v.k, v.name)");
}

# --- other queries, below and above ---
$node->sql(q{SELECT pgtrickle.create_stream_table('scheduled_above', 'SELECT n, total FROM sums', 'continuous')});
immediate('above', 'SELECT n, count(*) AS k, sum(total) AS total FROM sums GROUP BY n');
push @all, 'above';
$node->start_applier;

sub redefine
{
	my ($name, $query, $mode, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$node->sql("SELECT pgtrickle.create_or_replace_stream_table('$name', " . sql_literal($query) . ", refresh_mode => '$mode')");
	is(join('', map { $node->difference($_) } @all), '', $what);
	follows('... then writes', 'UPDATE items SET k = (k + 1) % 4, n = n + 1 WHERE id % 3 = 0', q{INSERT INTO names VALUES (3, 'three') ON CONFLICT DO NOTHING});
	$node->wait_fresh('scheduled_above');
	return $node->is_current('scheduled_above', '... with a schedule above, too');
}
redefine('sums', 'SELECT k, count(*) AS n, sum(n) AS total FROM items WHERE n > 3 GROUP BY k', 'IMMEDIATE', 'another condition below an IMMEDIATE and a scheduled one');
redefine('sums', 'SELECT i.k, count(*) AS n, sum(n) AS total FROM items i JOIN names USING (k) GROUP BY i.k', 'IMMEDIATE', 'another source');
redefine('sums', 'SELECT name AS k, count(*) AS n, sum(n) AS total FROM items i JOIN names USING (k) GROUP BY name', 'IMMEDIATE', 'another type of a column that nobody reads');
redefine('sums', 'SELECT k, count(*) AS n, sum(n) AS total, max(n) AS most FROM items GROUP BY k', 'IMMEDIATE', 'one more column, and a source less');
redefine('above', 'SELECT max(total) AS most FROM sums', 'IMMEDIATE', 'another query above');
redefine('above', 'SELECT i.id, s.total FROM sums s JOIN items i ON i.n = s.n', 'IMMEDIATE', '... with a source of the one below');
like($node->psql_error(q{SELECT pgtrickle.create_or_replace_stream_table('sums', 'SELECT k, count(*) AS n, sum(n) AS total FROM items GROUP BY k')}),
	qr/^55000: stream table "public.sums" must stay IMMEDIATE/, 'one that an IMMEDIATE one reads cannot get a schedule in this way either');
pop @all;
redefine('above', 'SELECT n, count(*) AS k FROM sums GROUP BY n', 'AUTO', 'the one above gets a schedule');
$node->wait_fresh('above');
$node->is_current('above', '... and follows');
shift @all;
redefine('sums', 'SELECT k, count(*) AS n, sum(n) AS total FROM items GROUP BY k', 'AUTO', '... then so may the one below');
$node->wait_fresh('above');
$node->is_current($_, "... $_ follows") foreach qw(sums above);
unshift @all, 'sums';
redefine('sums', 'SELECT k, count(*) AS n, sum(n) AS total FROM items WHERE id > 2 GROUP BY k', 'IMMEDIATE', 'and back, with another query');
$node->stop_applier;

# --- workers of logical replication ---
my $publisher = StreamTables::Cluster->new('immediate_publisher')->boot(setup => 'none');
$publisher->sql('CREATE TABLE items (id int PRIMARY KEY, k int, n int); CREATE TABLE names (k int PRIMARY KEY, name text); CREATE TABLE log (id int, k int); ALTER TABLE log REPLICA IDENTITY FULL;
	CREATE PUBLICATION p FOR TABLE items, names, log');
$node->sql('TRUNCATE items, names, log; CREATE SUBSCRIPTION s CONNECTION ' . sql_literal($publisher->connstr('postgres')) . ' PUBLICATION p');
$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_subscription_rel WHERE srsubstate <> 'r'});

sub replicated
{
	my ($what, $changes) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$publisher->sql($changes);
	$publisher->wait_for_catchup('s');
	my @counts = map { my $n = $_; join ' ', map { $n->sql("SELECT count(*) FROM $_") } qw(items names log) } $publisher, $node;
	return is(join('', map { $node->difference($_) } @all) . $counts[1], $counts[0], $what);
}
replicated('a worker inserts', q{INSERT INTO items SELECT g, g % 3, g FROM generate_series(1, 50) g; INSERT INTO names SELECT g, 'n' || g FROM generate_series(0, 3) g; INSERT INTO log SELECT g, g % 2 FROM generate_series(1, 9) g});
replicated('... updates and deletes, both sides of a join in a transaction', q{BEGIN; UPDATE items SET k = (k + 1) % 4; UPDATE names SET name = name || '!' WHERE k < 2; DELETE FROM items WHERE id % 4 = 0; DELETE FROM names WHERE k = 3;
	SAVEPOINT s; DELETE FROM items; ROLLBACK TO s; COMMIT});
replicated('... moves keys', 'UPDATE items SET id = id + 1000 WHERE k = 1; UPDATE names SET k = k + 10 WHERE k = 2');
replicated('... moves rows between partitions', 'UPDATE log SET k = 1 - k WHERE id % 2 = 0');
replicated('... truncates', 'TRUNCATE log, names');
$node->sql('ALTER SUBSCRIPTION s DISABLE');
$publisher->stop;

done_testing();
