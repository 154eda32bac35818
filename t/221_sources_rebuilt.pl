# t/221_sources_rebuilt.pl
#
# Goal: stream tables follow whatever is done to their sources by other names, functions and types, while writers run and the applier dies.
# Method: after each change verify all; then the nightly dance of a tool that builds each table beside, renames the old one away, puts the new
#         one in its place and drops the old one with CASCADE, in one transaction or several, under load.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('rebuilt')->boot;
$node->start_applier;
$node->sql(
	q{CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy'); CREATE DOMAIN mood_list AS mood[];
	CREATE TABLE s (id int PRIMARY KEY, v int, m mood, l mood_list);
	INSERT INTO s SELECT i, i % 5, 'sad', '{sad,ok}' FROM generate_series(1, 50) i;
	CREATE FUNCTION twice(x int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT x * 2';
	CREATE FUNCTION more(x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN x + 1; END';
	CREATE FUNCTION add(a int, b int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT a + coalesce(b, 0)';
	CREATE AGGREGATE total(int) (SFUNC = add, STYPE = int, INITCOND = '0');
	CREATE VIEW over_s AS SELECT id, more(v) AS w FROM s;
	CREATE TABLE p (id int, day int) PARTITION BY RANGE (day);
	CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
	CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
	INSERT INTO p SELECT i, i % 20 FROM generate_series(1, 60) i});
$node->create_stream_table('moods', 'SELECT m::text AS m, count(*) AS n FROM s GROUP BY m');
$node->create_stream_table('lists', 'SELECT l::text AS l FROM s');
$node->create_stream_table('doubled', 'SELECT id, twice(v) AS v FROM s');
$node->create_stream_table('summed', 'SELECT sum(w) AS w FROM over_s');
$node->create_stream_table('totals', 'SELECT m, total(v) AS t FROM s GROUP BY m');
$node->create_stream_table('days', 'SELECT day, count(*) AS n FROM p GROUP BY day');

sub wrong_ones
{
	my @wrong;
	foreach my $name (
		split /\n/, $node->sql('SELECT pgt_schema || $$.$$ || pgt_name FROM pgtrickle.pgt_stream_tables ORDER BY pgt_id'))
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

all_right('at first');
my @changes = (
	q{ALTER TYPE mood RENAME VALUE 'sad' TO 'gloomy'} => 'another label of an enum',
	q{ALTER TYPE mood ADD VALUE 'angry' BEFORE 'ok'} => 'one more label',
	q{CREATE OR REPLACE FUNCTION twice(x int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT x * 3'} =>
	  'another body of a function',
	q{CREATE OR REPLACE FUNCTION more(x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN x + 10; END'} =>
	  'of one behind a view',
	q{CREATE OR REPLACE FUNCTION add(a int, b int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT a + 2 * coalesce(b, 0)'} =>
	  'of one behind an aggregate',
	q{ALTER FUNCTION twice(int) RENAME TO thrice; CREATE FUNCTION twice(x int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT x * 4'} =>
	  'a function renamed and made again',
	q{DROP FUNCTION twice(int); INSERT INTO s VALUES (100, 1, 'ok'); CREATE FUNCTION twice(x int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT x * 5'} =>
	  'a function dropped and made again',
	q{ALTER TABLE p DETACH PARTITION p2 CONCURRENTLY} => 'a partition detached concurrently',
	q{UPDATE p2 SET id = id + 1; INSERT INTO p VALUES (1, 3)} => 'and changed',
	q{ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20)} => 'and attached again',
	q{UPDATE p2 SET id = id + 1; UPDATE p SET day = 19 - day; TRUNCATE p1} => 'which counts again',
	q{ALTER TABLE s SET UNLOGGED} => 'a table made unlogged',
	q{UPDATE s SET v = v + 1} => 'and changed',
	q{ALTER TABLE s SET LOGGED} => 'and logged again',
	q{UPDATE s SET v = v + 1 WHERE id % 2 = 0} => 'and changed again',
	q{ALTER TABLE s REPLICA IDENTITY DEFAULT; UPDATE s SET v = v + 1 WHERE id < 9; DELETE FROM s WHERE id = 9} =>
	  'less of a replica identity',
	q{ALTER TABLE s REPLICA IDENTITY FULL; UPDATE s SET v = v + 1 WHERE id < 9} => 'and all of it again');
while (my ($statement, $what) = splice @changes, 0, 2)
{
	$node->psql('postgres', $statement, on_error_die => 1);
	all_right($what);
}
$node->psql('postgres', 'ALTER TABLE s RENAME v TO vv', on_error_die => 1);
like($node->psql_error(q{SELECT pgtrickle.refresh_stream_table('doubled')}),
	qr/column "v" does not exist/, 'a column of another name is missed');
is($node->sql('SELECT count(*) > 0 FROM doubled'), 't', 'the last rows stay');
is($node->sql(q{SELECT last_error_message FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'doubled'}),
	'column "v" does not exist', 'and the state says why');
$node->psql('postgres', 'ALTER TABLE s RENAME vv TO v', on_error_die => 1);
all_right('until it is back');

# --- the nightly dance ------------------------------------------------------------------------------------------

$node->sql(
	q{CREATE TABLE raw (id int, region text, amount int);
	INSERT INTO raw SELECT i, 'r' || i % 7, i FROM generate_series(1, 200) i;
	CREATE TABLE events AS SELECT * FROM raw; CREATE VIEW staged AS SELECT id, upper(region) AS region, amount FROM events WHERE amount > 0});
$node->create_stream_table('cleaned', 'SELECT id, region, amount FROM staged WHERE id % 10 <> 0');
$node->create_stream_table('summary', 'SELECT region, sum(amount) AS total FROM cleaned GROUP BY region');
$node->sql('CREATE VIEW report AS SELECT count(*) AS n FROM summary');
$node->refresh('summary');
my $oid = $node->sql(q{SELECT 'cleaned'::regclass::oid});

my @table_dance = (
	'CREATE TABLE events__tmp AS SELECT * FROM raw',
	'ALTER TABLE events RENAME TO events__backup',
	'ALTER TABLE events__tmp RENAME TO events',
	'DROP TABLE events__backup CASCADE');
my @view_dance = (
	'CREATE VIEW staged__tmp AS SELECT id, upper(region) AS region, amount FROM events WHERE amount > 0',
	'ALTER VIEW IF EXISTS staged RENAME TO staged__backup',
	'ALTER VIEW staged__tmp RENAME TO staged',
	'DROP VIEW IF EXISTS staged__backup CASCADE');

sub dance
{
	my ($in_one) = @_;

	my @all = (@table_dance, @view_dance);
	$node->psql('postgres', ($in_one ? 'BEGIN;' : '') . join(';', @all) . ($in_one ? '; COMMIT' : ''), on_error_die => 1);
	return;
}

foreach my $in_one (1, 0)
{
	my $how = $in_one ? 'in one transaction' : 'in several';
	my $known = $node->sql('SELECT max(refresh_id) FROM pgtrickle.pgt_history');
	dance($in_one);
	all_right("danced $how");
	is($node->sql(q{SELECT 'cleaned'::regclass::oid}), $oid, 'the stream table is still the same');
	is($node->sql('SELECT n >= 7 FROM report'), 't', 'and what is over it');
	is( $node->sql(
			"SELECT sum(rows_inserted + rows_deleted) FROM pgtrickle.pgt_history JOIN pgtrickle.pgt_definitions USING (pgt_id)
			WHERE relid = 'summary'::regclass AND refresh_id > $known"), 0, 'nothing has changed for who reads it')
	  if $in_one;
	$node->sql(q{INSERT INTO events VALUES (1000, 'new', 5); UPDATE events SET amount = amount + 1 WHERE id % 3 = 0});
	all_right('it follows the new table');
	$node->sql('INSERT INTO raw SELECT max(id) + 1, $$later$$, 8 FROM raw');
}

# --- a view replaced by its like ---------------------------------------------------------------------------------

# dbt does this on every run.  Nobody has to be refreshed in full for it, neither what reads the view nor what else reads the tables behind it.
$node->create_stream_table('beside', 'SELECT count(*) AS n FROM events');
sub full_refreshes
{
	my ($known) = @_;

	return $node->sql("SELECT coalesce(string_agg(DISTINCT relid::text, ',' ORDER BY relid::text), '') FROM pgtrickle.pgt_history JOIN pgtrickle.pgt_definitions USING (pgt_id)
		WHERE refresh_id > $known AND action = 'FULL' AND relid IN ('cleaned'::regclass, 'summary'::regclass, 'beside'::regclass)");
}

sub fulls_of_dance
{
	my (@statements) = @_;

	all_right('before the dance');
	my $known = $node->sql('SELECT max(refresh_id) FROM pgtrickle.pgt_history');
	$node->psql('postgres', join(';', 'BEGIN', @statements, 'COMMIT'), on_error_die => 1);
	$node->sql('INSERT INTO events SELECT max(id) + 1, $$danced$$, 8 FROM events');
	all_right('after the dance');
	return full_refreshes($known);
}

is(fulls_of_dance(@view_dance), '', 'the same view again: no full refresh');
is(fulls_of_dance(map { s/upper/\n  UPPER/r } @view_dance), '', 'nor for white space');
is($node->sql(q{SELECT count(*) FROM pgtrickle.list_sources('cleaned') WHERE source_oid = 'staged'::regclass}), 1, 'the new view is known');
is(fulls_of_dance('CREATE OR REPLACE VIEW staged AS SELECT id, upper(region) AS region, amount FROM events WHERE amount > 0'), '', 'nor when it is replaced by itself');
is(fulls_of_dance(map { s/amount > 0/amount > 1/r } @view_dance), 'cleaned', 'another query: a full refresh of what reads it');
is(fulls_of_dance('CREATE ROLE viewer', 'GRANT SELECT ON events TO viewer', 'ALTER VIEW staged OWNER TO viewer'), 'cleaned', 'another owner, whose rights count, too');
is(fulls_of_dance('ALTER VIEW staged OWNER TO CURRENT_USER', @view_dance), 'cleaned', 'two changes at once');
is(fulls_of_dance(map { /DROP VIEW/ ? () : $_ } @view_dance), '', 'and the like again, the old view kept');
$node->sql('DROP VIEW staged__backup; ALTER VIEW staged RENAME TO staged__gone');
$node->sql('INSERT INTO events SELECT max(id) + 1, $$lost$$, 8 FROM events');
$node->wait_until(q{SELECT last_error_message LIKE '%staged%' FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'cleaned'}, 'that the view is gone is said');
$node->sql('ALTER VIEW staged__gone RENAME TO staged');
all_right('and it goes on when the view is back');
is($node->sql('SELECT count(*) FROM pgtrickle.pgt_unbound'), 0, 'nothing is left over');

# --- two at once -------------------------------------------------------------------------------------------------

# Who rebuilds one source while another is locked cannot compile the query that reads both: the tick binds it then, and misses nothing.
$node->sql(
	'CREATE TABLE l (id int PRIMARY KEY, v int); CREATE TABLE r (id int PRIMARY KEY, v int);
	INSERT INTO l SELECT i, i FROM generate_series(1, 20) i; INSERT INTO r SELECT i, i FROM generate_series(1, 20) i');
$node->create_stream_table('l_and_r', 'SELECT l.id, l.v + r.v AS v FROM l JOIN r USING (id)');
my $locker = $node->background_psql('postgres', on_error_stop => 1);
$locker->query_safe('BEGIN; LOCK TABLE l IN ACCESS EXCLUSIVE MODE');
$node->sql('CREATE TABLE r_new AS SELECT * FROM r; DROP TABLE r; ALTER TABLE r_new RENAME TO r; ALTER TABLE r REPLICA IDENTITY FULL; INSERT INTO r VALUES (21, 21)');
is($node->sql(q{SELECT count(*) FROM pgtrickle.list_sources('l_and_r') WHERE source_oid = 'r'::regclass}), 0, 'a source could not be bound');
$locker->query_safe('COMMIT');
$locker->quit;
$node->sql('INSERT INTO l VALUES (21, 21)');
all_right('the next refresh binds it');
is($node->sql(q{SELECT count(*) FROM pgtrickle.list_sources('l_and_r') WHERE source_oid = 'r'::regclass}), 1, 'so it is known');
$node->wait_until(q{SELECT NOT needs_reinit FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'l_and_r'}, 'what could have been missed is made up for');
my $last = $node->sql('SELECT max(refresh_id) FROM pgtrickle.pgt_history');
$node->sql('UPDATE r SET v = v + 1; DELETE FROM l WHERE id = 3');
all_right('and it follows');
is($node->sql("SELECT count(*) FROM pgtrickle.pgt_history JOIN pgtrickle.pgt_definitions USING (pgt_id)
	WHERE relid = 'l_and_r'::regclass AND refresh_id > $last AND action = 'FULL'"), 0, 'by delta');

# A tick makes states anew while the view that it reads is dropped under it: what it holds must not go.
my $since = $node->sql('SELECT pg_postmaster_start_time()');
$node->sql('CREATE TABLE quick (id int, v int); INSERT INTO quick SELECT i, i FROM generate_series(1, 50) i; CREATE VIEW over_quick AS SELECT id, v FROM quick');
$node->create_stream_table('quick_sums', 'SELECT v % 5 AS v, sum(id) AS s FROM over_quick GROUP BY 1');
$node->sql(
	join ';',
	(   map { ('SELECT pg_sleep(0.0' . int(rand 4) . ')', $_) } (
			'CREATE TABLE quick__tmp AS SELECT * FROM quick', 'ALTER TABLE quick RENAME TO quick__backup', 'ALTER TABLE quick__tmp RENAME TO quick',
			'DROP TABLE quick__backup CASCADE', 'CREATE VIEW over_quick AS SELECT id, v FROM quick'))) foreach 1 .. 15;
is($node->sql('SELECT pg_postmaster_start_time()'), $since, 'the server stands');
all_right('and what was danced so quickly is right');

my $script = $node->basedir . '/writes.sql';
open my $out, '>', $script or die $!;
foreach my $i (1 .. 600)
{
	my $id = 5000 + $i;
	print $out "INSERT INTO events VALUES ($id, 'w', $i);\nUPDATE events SET amount = amount + 1 WHERE id % 40 = $i % 40;\n";
	print $out "DELETE FROM events WHERE id = $i;\n" if $i % 3 == 0;
}
close $out;
my $writer = IPC::Run::start([ 'psql', '-X', '-q', '-d', $node->connstr('postgres'), '-f', $script ],
	'<', \undef, '>', \my $writer_out, '2>', \my $writer_err);
foreach my $round (1 .. 6)
{
	dance($round % 2);
	if ($round == 3)
	{
		$node->kill9_applier;
		dance(0);
		$node->start_applier;
	}
	all_right("round $round under load") if $round % 2 == 0;
}
$writer->finish;
all_right('at the end');
unlike($writer_err, qr/deadlock|lock timeout/, 'no writer was in the way');
is($node->sql(q{SELECT count(*) FROM pg_replication_slots WHERE wal_status = 'lost'}), 0, 'the slot is well');

done_testing();
