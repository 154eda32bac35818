# t/226_names_and_types.pl
#
# Goal: stream tables follow schemas that get other names, types that change, policies that come and go, columns and partitions, or say what is wrong.
# Method: after each change and some writes verify all; a failure must name its cause, keep the rows, and end when the cause has gone.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('names')->boot;
$node->start_applier;

sub wrong_ones
{
	my @wrong;
	foreach my $name (
		split /\n/, $node->sql(q{SELECT format('%I.%I', pgt_schema, pgt_name) FROM pgtrickle.pgt_stream_tables ORDER BY pgt_id}))
	{
		my ($rc, $stdout, $stderr) = $node->psql('postgres', "SELECT * FROM pgtrickle.verify('$name')");
		push @wrong, "$name: $stdout$stderr" if $rc != 0 || $stdout ne '';
	}
	return join("\n", @wrong);
}

sub all_right
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(wrong_ones(), '', $what);
}

# Runs a statement, and returns what it warned of.
sub warnings_of
{
	my ($sql) = @_;

	my ($rc, $stdout, $stderr) = $node->psql('postgres', $sql, on_error_stop => 1);
	is($rc, 0, "no error: $sql") or diag $stderr;
	return $stderr;
}

# --- schemas --------------------------------------------------------------------------------------------------

$node->sql(
	q{CREATE SCHEMA raw; CREATE SCHEMA mart; CREATE ROLE dev; GRANT ALL ON SCHEMA raw, mart TO dev; GRANT CREATE ON DATABASE postgres TO dev;
	ALTER SCHEMA raw OWNER TO dev; SET ROLE dev;
	CREATE TYPE raw.mood AS ENUM ('sad', 'ok');
	CREATE TABLE raw.orders (id int PRIMARY KEY, k int, m raw.mood);
	INSERT INTO raw.orders SELECT i, i % 5, 'ok' FROM generate_series(1, 50) i;
	CREATE FUNCTION raw.f(x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN x * 2; END';
	CREATE VIEW raw.some AS SELECT * FROM raw.orders WHERE id < 40;
	SELECT pgtrickle.create_stream_table('raw.inside',
		$$SELECT raw.k, raw.f(count(*)::int) AS n, count(*) FILTER (WHERE m = 'ok'::raw.mood) AS "raw.ok" FROM raw.some AS raw WHERE 'raw.x' <> '' GROUP BY 1$$, 'continuous');
	SELECT pgtrickle.create_stream_table('raw.upper', 'SELECT sum(n) AS n FROM raw.inside', 'continuous');
	SELECT pgtrickle.create_stream_table('mart.outside', 'SELECT k, count(*) AS n FROM raw.orders GROUP BY k', 'continuous');
	SELECT pgtrickle.create_stream_table('mart.far', 'SELECT sum(n) AS n FROM mart.outside', 'continuous')});
all_right('at first');
my $oid = $node->sql(q{SELECT 'raw.inside'::regclass::oid});
my $warnings = warnings_of('SET ROLE dev; ALTER SCHEMA raw RENAME TO "Landing zone"');
like(
	$warnings,
	qr/WARNING:  stream tables still read from schema "raw": mart.outside\nDETAIL:  They keep.*\nHINT: .*follow_schema\('raw', 'Landing zone'\)/,
	'who renames a schema is told what reads from it by its old name');
$node->sql(q{INSERT INTO "Landing zone".orders VALUES (100, 1, 'sad'); UPDATE "Landing zone".orders SET k = k + 1 WHERE id % 4 = 0});
$node->verify('"Landing zone".inside', 'a stream table in the schema goes along');
$node->verify('"Landing zone".upper', 'and what reads it there');
is($node->sql(q{SELECT '"Landing zone".inside'::regclass::oid}), $oid, 'it is the same');
like(
	$node->sql(q{SELECT defining_query FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'inside'}),
	qr/SELECT k,\s+"Landing zone"\.f\(.*'ok'::"Landing zone"\.mood.*"raw\.ok"\s+FROM "Landing zone"\."some" raw\s+WHERE.*'raw\.x'/s,
	'what means the schema has its new name, aliases and texts have theirs');
like($node->psql_error(q{SELECT pgtrickle.refresh_stream_table('mart.outside')}), qr/"raw.orders" does not exist|schema "raw" does not exist/, 'one elsewhere misses its source');
is($node->sql('SELECT sum(n) FROM mart.outside'), 50, 'and keeps its rows');
like($node->psql_error(q{SET ROLE dev; SELECT pgtrickle.rename_schema_in_query(1, 'x', 'pg_catalog')}), qr/cannot have had another name/, 'schemas of the server stay what they are');
like($node->psql_error(q{CREATE ROLE nobody; SET ROLE nobody; SELECT pgtrickle.rename_schema_in_query(1, 'raw', 'mart')}), qr/42501/, 'queries are for their owners');
is($node->sql(q{SET ROLE nobody; SELECT pgtrickle.follow_schema('raw', 'mart')}), 0, 'nor has a stranger any');
is($node->sql(q{SET ROLE dev; SELECT pgtrickle.follow_schema('raw', 'Landing zone')}), 1, 'told to, it reads from the schema of the new name');
all_right('and all is right');
$node->sql('ALTER SCHEMA "Landing zone" RENAME TO raw');
all_right('two in the schema go back with it') if $node->sql(q{SELECT pgtrickle.follow_schema('Landing zone', 'raw')}) == 1;
is( $node->sql(q{SELECT string_agg(DISTINCT source_schema, ' ') FROM pgtrickle.pgt_dependencies}), 'mart raw', 'and are known to read from there');

# Two schemas change places, as when a new version of everything goes live.
$node->sql(
	q{CREATE SCHEMA next; GRANT ALL ON SCHEMA next TO dev; ALTER SCHEMA next OWNER TO dev; SET ROLE dev; CREATE TABLE next.orders (id int PRIMARY KEY, k int);
	INSERT INTO next.orders SELECT i, 7 FROM generate_series(1, 9) i;
	BEGIN; ALTER SCHEMA raw RENAME TO last; ALTER SCHEMA next RENAME TO raw; COMMIT;
	INSERT INTO raw.orders VALUES (10, 8); INSERT INTO last.orders VALUES (200, 1, 'ok')});
all_right('two schemas have changed places');
is($node->sql('SELECT string_agg(k || $$:$$ || n, $$ $$ ORDER BY k) FROM mart.outside'), '7:9 8:1', 'one elsewhere reads what has the name now');
is($node->sql('SELECT n FROM last.upper'), $node->sql(q{SELECT 2 * count(*) FROM last.some}), 'one inside what it read before');
$node->sql('UPDATE raw.orders SET k = 8 WHERE id = 1; DELETE FROM last.orders WHERE id = 3');
all_right('and both follow');
$node->sql('DROP SCHEMA last CASCADE');
is($node->sql('SELECT string_agg(pgt_name, $$ $$ ORDER BY pgt_name) FROM pgtrickle.pgt_stream_tables'), 'far outside', 'the old schema goes with what is in it');
all_right('which nobody misses');

$node->sql('DROP TABLE mart.far, mart.outside');

# --- types ----------------------------------------------------------------------------------------------------

$node->sql(
	q{CREATE TYPE pair AS (a int, b text); CREATE TYPE nest AS (p pair, x int); CREATE TABLE rowlike (a int, b int); CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE DOMAIN outer_positive AS positive;
	CREATE TABLE typed (id int PRIMARY KEY, p pair, d positive, dd outer_positive, n numeric(6,2), t varchar(5), o nest[], r rowlike);
	INSERT INTO typed SELECT i, ROW(i, 'x' || i)::pair, i, i, i / 3.0, 'a' || i, ARRAY[ROW(ROW(i, 'y')::pair, 3)::nest], ROW(i, 3)::rowlike FROM generate_series(1, 20) i});
$node->create_stream_table('pairs', 'SELECT id, p::text AS p, (p).b AS b FROM typed');
$node->create_stream_table('nested', 'SELECT id, o::text AS o, r::text AS r FROM typed');
$node->create_stream_table('domains', 'SELECT d, dd, count(*) AS n FROM typed GROUP BY d, dd');
$node->create_stream_table('amounts', 'SELECT t::text AS t, sum(n)::numeric(12,4) AS s, max(t)::text AS m FROM typed GROUP BY t');
my $next = 1000;
my @changes = (
	'ALTER TYPE pair ADD ATTRIBUTE c int' => 'a composite type with one more attribute',
	'ALTER TABLE rowlike ADD COLUMN c int' => 'a table whose rows are a type',
	'ALTER TYPE pair RENAME ATTRIBUTE a TO aa' => 'one with another name',
	'ALTER TYPE pair DROP ATTRIBUTE aa' => 'one less',
	'ALTER DOMAIN positive DROP CONSTRAINT positive_check; INSERT INTO typed (id, d) VALUES (900, -5)' => 'a domain without its constraint',
	q{DELETE FROM typed WHERE id = 900; SELECT pgtrickle.wait_fresh('domains'); ALTER DOMAIN positive ADD CONSTRAINT above CHECK (VALUE > -3)} => 'and with another',
	'ALTER DOMAIN outer_positive SET DEFAULT 4; ALTER DOMAIN outer_positive RENAME TO renamed_positive' => 'a domain of another name',
	'ALTER TABLE typed ALTER n TYPE numeric(12,4)' => 'a wider type',
	'ALTER TABLE typed ALTER t TYPE text USING upper(t)' => 'another type, with a rewrite',
	'ALTER TABLE typed ALTER n TYPE numeric(6,1)' => 'a narrower type that rounds',
	'ALTER TABLE typed ALTER n SET DEFAULT 5, ALTER n SET NOT NULL' => 'defaults and constraints',
	'ALTER TABLE typed ADD COLUMN late int DEFAULT 3' => 'a column with a default',
	'ALTER TABLE typed DROP COLUMN late, ADD COLUMN g int GENERATED ALWAYS AS (id * 2) STORED' => 'one less, and a generated one');
while (my ($statement, $what) = splice @changes, 0, 2)
{
	$node->sql($statement);
	all_right($what);
	$next++;
	$node->sql("INSERT INTO typed (id, d, dd, n, t) VALUES ($next, 2, 2, 1.5, 'z'); UPDATE typed SET d = d + 1, n = n + 1 WHERE id % 5 = $next % 5");
	all_right("$what: and it goes on");
}

$node->sql('DROP TABLE pairs, nested, domains, amounts');

# --- policies -------------------------------------------------------------------------------------------------

$node->sql(
	q{CREATE TABLE secrets (id int PRIMARY KEY, k int); INSERT INTO secrets SELECT i, i % 4 FROM generate_series(1, 40) i;
	ALTER TABLE secrets REPLICA IDENTITY FULL; GRANT SELECT ON secrets TO dev; CREATE TABLE allowed (k int); GRANT SELECT ON allowed TO dev; INSERT INTO allowed VALUES (1);
	ALTER TABLE allowed REPLICA IDENTITY FULL; CREATE SCHEMA devs AUTHORIZATION dev; SET ROLE dev;
	SELECT pgtrickle.create_stream_table('devs.seen', 'SELECT k, count(*) AS n FROM secrets GROUP BY k', 'continuous')});
my %rows = (
	'ALTER TABLE secrets ENABLE ROW LEVEL SECURITY' => 0,
	'CREATE POLICY p ON secrets USING (k < 3)' => 30,
	'ALTER POLICY p ON secrets USING (k = 1)' => 10,
	'CREATE POLICY q ON secrets USING (k = 2)' => 20,
	'ALTER POLICY p ON secrets USING (k IN (SELECT a.k FROM allowed a)); DROP POLICY q ON secrets' => 10,
	'INSERT INTO allowed VALUES (0), (2)' => 30,
	'DELETE FROM allowed WHERE k = 2; UPDATE secrets SET k = 0 WHERE id = 2' => 21,
	'DROP POLICY p ON secrets' => 0,
	'ALTER TABLE secrets DISABLE ROW LEVEL SECURITY' => 40);
foreach my $statement (
	'ALTER TABLE secrets ENABLE ROW LEVEL SECURITY', 'CREATE POLICY p ON secrets USING (k < 3)', 'ALTER POLICY p ON secrets USING (k = 1)',
	'CREATE POLICY q ON secrets USING (k = 2)',
	'ALTER POLICY p ON secrets USING (k IN (SELECT a.k FROM allowed a)); DROP POLICY q ON secrets',
	'INSERT INTO allowed VALUES (0), (2)', 'DELETE FROM allowed WHERE k = 2; UPDATE secrets SET k = 0 WHERE id = 2',
	'DROP POLICY p ON secrets', 'ALTER TABLE secrets DISABLE ROW LEVEL SECURITY')
{
	$node->sql($statement);
	$node->verify('devs.seen', $statement);
	is($node->sql('SELECT coalesce(sum(n), 0) FROM devs.seen'), $rows{$statement}, 'with the rows that its owner may see');
}
$node->sql('REVOKE SELECT ON secrets FROM dev');
$node->sql('INSERT INTO secrets VALUES (100, 1)');
like($node->psql_error(q{SELECT pgtrickle.refresh_stream_table('devs.seen')}), qr/permission denied for table secrets/, 'an owner who may not read any more');
is($node->sql('SELECT sum(n) FROM devs.seen'), 40, 'keeps the last rows: not even a delta that reads no table goes on');
$node->sql('GRANT SELECT (k) ON secrets TO dev');
$node->verify('devs.seen', 'until he may again, if only the column that the query reads');
$node->sql('CREATE ROLE readers; GRANT SELECT ON secrets TO readers; GRANT readers TO dev; REVOKE SELECT (k) ON secrets FROM dev; INSERT INTO secrets VALUES (101, 1)');
$node->verify('devs.seen', 'or as a member of a role that may');
$node->sql('REVOKE readers FROM dev; INSERT INTO secrets VALUES (102, 1)');
like($node->psql_error(q{SELECT pgtrickle.refresh_stream_table('devs.seen')}), qr/permission denied for table secrets/, 'which he is not any more');
is($node->sql('SELECT sum(n) FROM devs.seen'), 42, 'so the last row is not in');
$node->sql('GRANT SELECT ON secrets TO dev');
$node->verify('devs.seen', 'until he may again');

$node->sql('DROP TABLE devs.seen');

# What stands in a view of somebody else is read with that one's rights.
$node->sql(
	q{CREATE TABLE hidden (id int PRIMARY KEY, k int); INSERT INTO hidden SELECT i, i % 4 FROM generate_series(1, 40) i; ALTER TABLE hidden REPLICA IDENTITY FULL;
	CREATE VIEW shown AS SELECT id, k FROM hidden WHERE id > 4; GRANT SELECT ON shown TO dev; SET ROLE dev;
	SELECT pgtrickle.create_stream_table('devs.by_view', 'SELECT k, count(*) AS n FROM shown GROUP BY k', 'continuous')});
is($node->sql(q{SELECT effective_refresh_mode, downgrade_reason FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'by_view'}),
	q{FULL|a view reads table hidden with rights of the view's owner}, 'who may read only the view gets full refreshes');
$node->sql('INSERT INTO hidden VALUES (100, 1); DELETE FROM hidden WHERE id = 7');
$node->verify('devs.by_view', 'which are right');
$node->sql(q{GRANT SELECT ON hidden TO dev; SET ROLE dev; SELECT pgtrickle.create_stream_table('devs.too', 'SELECT k, max(id) AS m FROM shown GROUP BY k', 'continuous')});
is($node->sql(q{SELECT effective_refresh_mode FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'too'}), 'DIFFERENTIAL', 'who may read the table, too, gets deltas');
$node->sql('ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON hidden USING (k < 2); INSERT INTO hidden VALUES (101, 3)');
$node->verify($_, "$_: policies that do not hold for the view's owner") foreach qw(devs.by_view devs.too);
$node->sql('UPDATE hidden SET k = 3 WHERE id = 10; DELETE FROM hidden WHERE id = 11');
$node->verify($_, "$_ goes on") foreach qw(devs.by_view devs.too);
$node->sql('ALTER TABLE hidden DISABLE ROW LEVEL SECURITY; INSERT INTO hidden VALUES (102, 3)');
$node->verify($_, "$_ without policies") foreach qw(devs.by_view devs.too);
$node->sql('DROP TABLE devs.by_view, devs.too');

# --- partitions -----------------------------------------------------------------------------------------------

$node->sql(
	q{CREATE TABLE parts (id int, day int, k int) PARTITION BY RANGE (day);
	CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10) PARTITION BY LIST (k);
	CREATE TABLE parts_1_a PARTITION OF parts_1 FOR VALUES IN (0, 1); CREATE TABLE parts_1_b PARTITION OF parts_1 FOR VALUES IN (2);
	INSERT INTO parts SELECT i, i % 10, i % 3 FROM generate_series(1, 60) i});
$node->create_stream_table('days', 'SELECT day, count(*) AS n, sum(id) AS s FROM parts GROUP BY day');
$node->create_stream_table('only_part', 'SELECT k, count(*) AS n FROM parts_1 GROUP BY k');
foreach my $statement (
	'CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20); INSERT INTO parts VALUES (100, 12, 1)',
	'CREATE TABLE parts_d PARTITION OF parts DEFAULT; INSERT INTO parts VALUES (101, 112, 1)',
	'UPDATE parts SET day = day + 9 WHERE id % 7 = 0',
	'TRUNCATE parts_1_b',
	'DROP TABLE parts_1_b',
	'CREATE TABLE parts_1_c (k int, extra text, day int, id int); ALTER TABLE parts_1_c DROP COLUMN extra; INSERT INTO parts_1_c VALUES (2, 3, 200); ALTER TABLE parts_1 ATTACH PARTITION parts_1_c FOR VALUES IN (2)',
	'INSERT INTO parts VALUES (300, 4, 2); UPDATE parts SET id = id + 1 WHERE k = 2; DELETE FROM parts WHERE id = 201',
	'ALTER TABLE parts DETACH PARTITION parts_1; INSERT INTO parts_1 VALUES (400, 1, 1)',
	'ALTER TABLE parts ATTACH PARTITION parts_1 FOR VALUES FROM (0) TO (10); INSERT INTO parts_1 VALUES (401, 1, 1)',
	'ALTER TABLE parts ADD COLUMN more int DEFAULT 1; ALTER TABLE parts ALTER id TYPE bigint USING id + 1; ALTER TABLE parts ALTER id TYPE int',
	'DROP TABLE parts_2; ALTER TABLE parts DROP COLUMN more',
	'BEGIN; CREATE TABLE parts__new (LIKE parts); INSERT INTO parts__new SELECT * FROM parts; DROP TABLE parts CASCADE; ALTER TABLE parts__new RENAME TO parts; CREATE TABLE parts_1 AS SELECT * FROM parts; COMMIT',
	'INSERT INTO parts VALUES (500, 5, 1); INSERT INTO parts_1 VALUES (501, 5, 1); DELETE FROM parts WHERE id % 9 = 0')
{
	$node->sql($statement);
	all_right($statement);
}

# The server plans a query over a partition with a lock on the table above.  A tick has that lock first, as ALTER TABLE has, else the two would stop each other.
$node->sql(q{CREATE TABLE wholes (id int, k int) PARTITION BY LIST (k); CREATE TABLE wholes_0 PARTITION OF wholes FOR VALUES IN (0)});
$node->create_stream_table('one_part', 'SELECT id, count(*) AS n FROM wholes_0 GROUP BY id', schedule => 'manual');
my $altering = $node->background_psql('postgres', on_error_stop => 0);
my $refreshing = $node->background_psql('postgres', on_error_stop => 1);
$node->sql('INSERT INTO wholes VALUES (1, 0)');
$altering->query_safe('BEGIN; LOCK TABLE ONLY wholes IN ACCESS EXCLUSIVE MODE');
$refreshing->query_until(qr/asked/, qq{\\echo asked\nSELECT pgtrickle.refresh_stream_table('one_part');\n});
$node->wait_until(q{SELECT count(*) > 0 FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE c.relname = 'wholes' AND NOT l.granted}, 'a tick waits for the table above');
$altering->query(q{LOCK TABLE wholes_0 IN ACCESS EXCLUSIVE MODE; COMMIT});
is($altering->{stderr}, '', 'without holding the partition');
$altering->quit;
$refreshing->quit;
$node->verify('one_part', 'and goes on afterwards');

is($node->sql(q{SELECT count(*) FROM pgtrickle.pgt_status() WHERE status <> 'ACTIVE' OR consecutive_errors > 0}), 0, 'in the end all are well');
done_testing();
