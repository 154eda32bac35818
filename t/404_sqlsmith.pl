# t/404_sqlsmith.pl
#
# Goal: no query, however odd, brings down a server that has stream tables.
# Method: SQLsmith writes random statements over the catalog of a database with sources, stream tables and our functions; each is rolled back.
#         Errors are what most of them end with; crashes are not.  Afterwards everything still works.
# More: PGTRICKLE_SQLSMITH_QUERIES (default 1500; `make sqlsmith` runs 200000); PGTRICKLE_SEED repeats a run.
use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Utils ();
use StreamTables::Cluster;
use Test::More;

my $sqlsmith = `sh -c 'command -v sqlsmith'`;
plan skip_all => 'sqlsmith is not installed' if $sqlsmith eq '';
my $queries = $ENV{PGTRICKLE_SQLSMITH_QUERIES} // 1500;
my $seed = StreamTables::Cluster::random_seed();

my $node = StreamTables::Cluster->new('sqlsmith')->boot(conf => "restart_after_crash = on\nstatement_timeout = '2s'");
$node->sql(q{
	ALTER ROLE CURRENT_USER SET statement_timeout = '2s';
	CREATE TABLE l (id int PRIMARY KEY, k int, name text, n numeric, j jsonb, a int[]);
	CREATE TABLE r (id int PRIMARY KEY, k int, label text, d date, f float8);
	INSERT INTO l SELECT i, i % 5, 'n' || i, i / 3.0, jsonb_build_object('i', i), ARRAY[i, i + 1] FROM generate_series(1, 30) i;
	INSERT INTO r SELECT i, i % 4, 'l' || i, date '2024-01-01' + i, i / 2.0 FROM generate_series(1, 20) i});
$node->start_applier;
$node->create_stream_table('joined', 'SELECT l.id, r.id AS r_id, l.name, r.label FROM l LEFT JOIN r ON r.k = l.k');
$node->create_stream_table('grouped', 'SELECT k, count(*) AS c, sum(n) AS s, array_agg(name ORDER BY id) AS names FROM l GROUP BY k');
$node->create_stream_table('ranked', 'SELECT id, k, rank() OVER (PARTITION BY k ORDER BY d) AS r FROM r');

my $output;
my $ok = IPC::Run::run([ 'sqlsmith', '--target=' . $node->connstr($node->dbname), "--seed=$seed", "--max-queries=$queries" ],
	'<', \undef, '>&', \$output, IPC::Run::timeout(60 + $queries / 5));
ok($ok, "sqlsmith made its $queries queries") or diag(substr $output, -2000);

my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
my ($crash) = $log =~ /^(.*(?:was terminated by signal|PANIC:|TRAP:).*(?:\n.*){0,4})/m;
is($crash, undef, 'no session of the server crashed');

$node->sql(q{INSERT INTO l VALUES (100, 1, 'x', 1); DELETE FROM r WHERE k = 2});
foreach my $name (qw(joined grouped ranked))
{
	$node->wait_fresh($name);
	$node->verify($name, "$name follows afterwards");
}

$node->stop_applier;
done_testing();
