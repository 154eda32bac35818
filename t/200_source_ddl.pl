# t/200_source_ddl.pl
#
# Goal: stream tables survive what people do to their sources: they follow it, or keep their last rows and say why.
# Method: a DAG over tables, views, partitions and a materialized view; after each change refresh all and compare.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('source_ddl')->boot;
$node->start_applier;
$node->sql(
	q{CREATE TABLE src (id int PRIMARY KEY, v int, unused text);
	INSERT INTO src SELECT i, i % 3, 'x' FROM generate_series(1, 20) i;
	CREATE VIEW positive AS SELECT id, v FROM src WHERE v > 0;
	CREATE TABLE parts (id int, day int) PARTITION BY RANGE (day);
	CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
	INSERT INTO parts SELECT i, i % 10 FROM generate_series(1, 30) i;
	CREATE MATERIALIZED VIEW kept AS SELECT v, count(*) AS n FROM src GROUP BY v;
	CREATE TABLE other (id int PRIMARY KEY, w int); INSERT INTO other VALUES (1, 10)});
$node->create_stream_table('counts', 'SELECT v, count(*) AS n, sum(id) AS s FROM src GROUP BY v');
$node->create_stream_table('over_view', 'SELECT id, v FROM positive');
$node->create_stream_table('upper', 'SELECT v, count(*) AS n FROM over_view GROUP BY v');
$node->create_stream_table('days', 'SELECT day, count(*) AS n FROM parts GROUP BY day');
$node->create_stream_table('over_kept', 'SELECT v, n FROM kept');
$node->create_stream_table('joined', 'SELECT src.id, v, w FROM src JOIN other USING (id)');

sub all_current
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @wrong;
	foreach my $name (qw(counts over_view upper days over_kept joined))
	{
		my ($rc, $stdout, $stderr) =
		  $node->psql('postgres', "SELECT pgtrickle.refresh_stream_table('$name')");
		push @wrong, "$name: $stderr" if $rc != 0;
		my $difference = eval { $node->difference($name) } // $@;
		push @wrong, "$name: $difference" if $difference ne '';
	}
	return is(join("\n", @wrong), '', $what);
}

sub refresh_error
{
	my ($name) = @_;

	return $node->psql_error("SELECT pgtrickle.refresh_stream_table('$name')");
}

all_current('at first');

# --- what they follow --------------------------------------------------------------------------------------

my @changes = (
	'ALTER TABLE src ADD COLUMN z int DEFAULT 3; INSERT INTO src VALUES (100, 1)' =>
	  'an added column',
	'ALTER TABLE src DROP COLUMN unused; INSERT INTO src VALUES (101, 1)' =>
	  'a dropped column that nobody reads',
	'CREATE OR REPLACE VIEW positive AS SELECT id, v + 1 AS v FROM src; INSERT INTO src VALUES (102, 2)'
	  => 'a replaced view',
	'DROP VIEW positive; INSERT INTO src VALUES (103, 2); CREATE VIEW positive AS SELECT id, v FROM src WHERE v > 1'
	  => 'a view dropped and created again',
	'CREATE TABLE parts_2 (id int, day int); INSERT INTO parts_2 VALUES (1, 15), (2, 16); ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES FROM (10) TO (20); INSERT INTO parts VALUES (3, 17)'
	  => 'an attached partition',
	'DROP TABLE parts_1; INSERT INTO parts VALUES (4, 18)' => 'a dropped partition',
	'ALTER TABLE parts DETACH PARTITION parts_2; UPDATE parts_2 SET day = 12' =>
	  'a detached partition',
	'REFRESH MATERIALIZED VIEW kept' => 'a refreshed materialized view',
	'INSERT INTO src VALUES (104, 1); TRUNCATE src; INSERT INTO src VALUES (105, 1), (1, 2)' =>
	  'a truncated table',
	'ALTER TABLE src RENAME TO old_src; CREATE TABLE src (id int PRIMARY KEY, v int); INSERT INTO src VALUES (1, 7)'
	  => 'a table renamed and created again',
	'INSERT INTO src VALUES (2, 7), (3, 8); UPDATE src SET v = 9 WHERE id = 1' =>
	  'changes of the new one',
	'INSERT INTO old_src VALUES (900, 900)' => 'but none of the old one',
	'BEGIN; DROP TABLE src CASCADE; CREATE TABLE src AS SELECT i AS id, i % 4 AS v FROM generate_series(1, 9) i; CREATE OR REPLACE VIEW positive AS SELECT id, v FROM src; COMMIT'
	  => 'a table replaced with what depends on it, in one transaction',
	'UPDATE src SET v = v + 1; DELETE FROM src WHERE id = 3' => 'and its changes',
	'CREATE TABLE base_2 AS SELECT * FROM src; DROP TABLE src CASCADE; CREATE VIEW src AS SELECT id, v FROM base_2 WHERE id > 2; CREATE VIEW positive AS SELECT id, v FROM src'
	  => 'a table replaced by a view',
	'INSERT INTO base_2 VALUES (50, 1); DELETE FROM base_2 WHERE id = 4' =>
	  'and changes of the table behind it',
	'VACUUM FULL base_2; CLUSTER other USING other_pkey; INSERT INTO other VALUES (50, 3)' =>
	  'rewritten tables');
while (my ($statements, $what) = splice @changes, 0, 2)
{
	$node->psql('postgres', $statements, on_error_die => 1);
	all_current($what);
}

# --- what stops them -----------------------------------------------------------------------------------------

my $rows = $node->sql('SELECT count(*) FROM joined');
$node->sql('DROP TABLE other');
like(
	refresh_error('joined'),
	qr/^42P01: could not refresh stream table "public.joined"\nDETAIL:  relation "public.other" does not exist/,
	'without its source a stream table is not refreshed');
is($node->sql('SELECT count(*) FROM joined'), $rows, 'and keeps its rows');
$node->refresh('upper');
pass('the others go on');
refresh_error('joined') foreach 1 .. 4;
is($node->sql(q{SELECT status FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'joined'}),
	'SUSPENDED', 'after five errors it is suspended');
$node->sql(
	'CREATE TABLE other (id int PRIMARY KEY, w int); INSERT INTO other VALUES (50, 4), (7, 7)');
all_current('when the source is there again it goes on by itself');

$node->sql('ALTER TABLE other ALTER COLUMN w TYPE bigint');
like(
	refresh_error('joined'),
	qr/^42804: .*\nDETAIL:  column "w" of stream table "public.joined" is of type integer, but its query now gives bigint/,
	'a column of another type stops it');
$node->sql('ALTER TABLE other ALTER COLUMN w TYPE int; INSERT INTO other VALUES (8, 8)');
all_current('until the type is changed back');

is( $node->sql(
		'SELECT string_agg(DISTINCT status, $$ $$), max(consecutive_errors) FROM pgtrickle.pgt_status()'
	),
	'ACTIVE|0',
	'in the end all are well');

$node->stop_applier;
$node->stop;
done_testing();
