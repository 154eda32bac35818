# t/191_immediate_few_rows.pl
#
# Goal: statements that change a few rows, for which maintenance groups and looks up by itself (merge.c, direct_join.c), leave what the server's grouping and
#       joining would have left.
# Method: stream tables over each kind of aggregate, key, condition and index that decides whether that is done, and how; after every statement all are
#         compared with their queries in the session that ran it.  Counts of scans tell whether an index has been used in place of a plan that reads the table.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('few')->boot(setup => 'extension');
$node->sql(
	q{CREATE TABLE places (id int PRIMARY KEY, code text UNIQUE, region int, open bool NOT NULL DEFAULT true, far int, near smallint, UNIQUE (far, near));
	CREATE TABLE sales (id int PRIMARY KEY, place int, big bigint, code varchar, far bigint, near int, amount int, price bigint, exact numeric, paid bool, grade numeric);
	CREATE FUNCTION slow_double(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN 2 * $1; END';
	INSERT INTO places SELECT g, 'p' || g, g % 3, g % 4 > 0, g / 2, g % 2 FROM generate_series(1, 12) g;
	INSERT INTO sales SELECT g, nullif(g % 13, 0), g % 14, 'p' || g % 14, g % 7, g % 2, g, g * 1000000000000, g / 7.0, g % 3 > 0, (ARRAY[1.0, 1.00, 2, NULL])[1 + g % 4]
		FROM generate_series(1, 120) g;
	ANALYZE places, sales});

my %query = (
	sums => 'SELECT p.id, count(*) AS n, sum(s.amount) AS total, avg(s.amount) AS mean FROM sales s JOIN places p ON p.id = s.place GROUP BY p.id',
	bigs => 'SELECT p.region, sum(s.price) AS total, avg(s.price) AS mean, count(s.exact) AS n FROM sales s JOIN places p ON p.id = s.place GROUP BY p.region',
	exacts => 'SELECT p.region, sum(s.exact) AS total, count(*) AS n FROM sales s JOIN places p ON p.id = s.place GROUP BY p.region',
	truths => 'SELECT p.region, bool_and(s.paid) AS every, bool_or(s.paid) AS some, count(*) FILTER (WHERE s.paid) AS n
		FROM sales s JOIN places p ON p.id = s.place GROUP BY p.region',
	extremes => 'SELECT p.id, min(s.amount) AS least, max(s.amount) AS most, count(*) AS n FROM sales s JOIN places p ON p.id = s.place GROUP BY p.id',
	grades => 'SELECT grade, count(*) AS n, sum(amount) AS total FROM sales GROUP BY grade',
	alone => 'SELECT place, paid, count(*) AS n, sum(amount) AS total FROM sales GROUP BY place, paid',
	whole => 'SELECT count(*) AS n, sum(amount) AS total FROM sales',
	wider => 'SELECT p.id, count(*) AS n FROM sales s JOIN places p ON p.id = s.big GROUP BY p.id',
	coded => 'SELECT p.code, sum(s.amount) AS total FROM sales s JOIN places p ON p.code = s.code GROUP BY p.code',
	paired => 'SELECT p.id, sum(s.amount) AS total FROM sales s JOIN places p ON p.far = s.far AND p.near = s.near GROUP BY p.id',
	opened => q{SELECT p.id, sum(s.amount) AS total FROM sales s JOIN places p ON p.id = s.place AND p.open AND s.amount < p.id * 10 WHERE s.amount <> 5 GROUP BY p.id},
	computed => 'SELECT p.id + s.amount % 2 AS k, sum(CASE WHEN s.paid THEN s.amount END) AS total FROM sales s JOIN places p ON p.id = s.place + 1 GROUP BY 1',
	guarded => 'SELECT p.id, count(*) AS n FROM sales s JOIN places p ON p.id = 24 / s.amount AND 10 / p.region > 0 WHERE s.amount <> 0 AND p.region <> 0 GROUP BY p.id',
	doubled => 'SELECT p.id, sum(slow_double(s.amount)) AS total FROM sales s JOIN places p ON p.id = s.place GROUP BY p.id',
	rows => 'SELECT s.id, p.code, s.amount FROM sales s JOIN places p ON p.id = s.place',
	by_region => 'SELECT p.region, q.id, count(*) AS n FROM sales s JOIN places p ON p.id = s.place JOIN places q ON q.region = p.region GROUP BY 1, 2');
$node->create_stream_table($_, $query{$_}, refresh_mode => 'IMMEDIATE') foreach sort keys %query;

my $check = join(' UNION ALL ', map {
	"(SELECT '$_' AS name, 'missing' AS kind, d::text FROM (($query{$_}) EXCEPT ALL SELECT * FROM $_) d LIMIT 3)
	 UNION ALL (SELECT '$_', 'surplus', d::text FROM (SELECT * FROM $_ EXCEPT ALL ($query{$_})) d LIMIT 3)" } sort keys %query);
$check = "SELECT 'differs', c.* FROM ($check) c;\n";

sub follows
{
	my ($what, @statements) = @_;

	my $script = "SET jit = off;\n" . join('', map { "$_;\n$check" } @statements);
	my ($rc, $out, $err) = $node->psql($node->dbname, $script, on_error_stop => 1);

	is($rc, 0, "$what: runs") or diag($err);
	unlike($out, qr/^differs/m, "$what: equal after every statement") or diag(join("\n", grep { /^differs/ } split(/\n/, $out)));
	return;
}

my @changes = (
	q{INSERT INTO sales VALUES (1000, 3, 3, 'p3', 1, 1, 7, 9000000000000000, 0.50, true, 1.000)},
	q{UPDATE sales SET amount = amount + 1, price = -price, exact = exact * 2, paid = NOT paid WHERE id = 1000},
	q{UPDATE sales SET place = 4, big = 5, code = 'p6', near = 0, grade = 2.0 WHERE id = 1000},
	q{UPDATE sales SET place = NULL, amount = NULL, code = NULL, price = NULL, paid = NULL, grade = NULL WHERE id = 1000},
	q{UPDATE sales SET place = 77, amount = 1, big = 5000000000 WHERE id = 1000},
	q{UPDATE sales SET amount = amount + place WHERE id IN (1, 14, 27, 2, 3)},
	q{UPDATE sales SET place = 13 - place, grade = grade + 0.0 WHERE id BETWEEN 30 AND 37},
	q{UPDATE sales SET amount = 5 WHERE id BETWEEN 1 AND 20},
	q{UPDATE sales SET amount = amount - 1, paid = false},
	q{UPDATE sales SET amount = 8 WHERE id IN (21, 22)},
	q{UPDATE sales SET amount = 0 WHERE id IN (21, 22, 23)},
	q{UPDATE sales SET amount = id - 20 WHERE id IN (21, 22, 23)},
	q{DELETE FROM sales WHERE place = 5},
	q{INSERT INTO sales SELECT 2000 + g, 5, 5, 'p5', 2, g % 2, g, g, g, true, 1.00 FROM generate_series(1, 3) g},
	q{DELETE FROM sales WHERE id = 1000},
	q{UPDATE places SET region = 7 WHERE id = 3},
	q{UPDATE places SET open = NOT open WHERE id < 3},
	q{DELETE FROM places WHERE id = 4},
	q{INSERT INTO places VALUES (4, 'p4', 1, true, 2, 0)},
	q{WITH p AS (UPDATE places SET region = 2 WHERE id = 6) UPDATE sales SET place = 6 WHERE id = 50});
follows('read committed', @changes);
follows('one transaction, savepoints', 'BEGIN', @changes[0 .. 2], 'SAVEPOINT s', @changes[3 .. 7], 'ROLLBACK TO s', @changes[4 .. 6], 'DELETE FROM sales WHERE id = 1000', 'COMMIT');
follows('repeatable read', 'BEGIN ISOLATION LEVEL REPEATABLE READ', @changes[0 .. 6], 'DELETE FROM sales WHERE id >= 1000', 'COMMIT');
follows('serializable', 'BEGIN ISOLATION LEVEL SERIALIZABLE', @changes[0 .. 6], 'DELETE FROM sales WHERE id >= 1000', 'COMMIT');

# What is kept of a plan goes when the plan does: in one session, everything that a look-up stands on changes between two updates.
my $update = 'UPDATE sales SET amount = amount + 1, place = place % 12 + 1 WHERE id = 7';
follows('indexes and tables change', $update, $update,
	'REINDEX TABLE places', $update,
	'ALTER TABLE places DROP CONSTRAINT places_pkey', $update,
	'INSERT INTO places VALUES (8, NULL, 2, true, NULL, NULL)', $update, 'UPDATE sales SET place = 8 WHERE id = 7',
	'DELETE FROM places WHERE id = 8 AND code IS NULL', 'ALTER TABLE places ADD PRIMARY KEY (id)', $update,
	'VACUUM FULL places', $update, 'ANALYZE places', $update);

# A plan reads the table by an index that leaves out the rows for which another condition fails; the look-up finds them by the key.
$node->sql(q{CREATE TABLE parts (id int PRIMARY KEY, kind int, size int);
	INSERT INTO parts SELECT g, g % 500, (g % 500 = 1)::int FROM generate_series(1, 5000) g;
	CREATE INDEX ON parts (kind);
	ANALYZE parts});
$query{sized} = 'SELECT p.id, count(*) AS n FROM sales s JOIN parts p ON p.id = s.amount AND 10 / p.size > 0 WHERE p.kind = 1 GROUP BY p.id';
$node->create_stream_table('sized', $query{sized}, refresh_mode => 'IMMEDIATE');
is($node->psql_error('SET enable_nestloop = off; SET enable_mergejoin = off; SET enable_bitmapscan = off; UPDATE sales SET amount = amount + 1 WHERE id = 7'), '',
	'the conditions that an index serves come first');

# Twelve rows are on one page, so a plan reads them all; a look-up uses the index.
my $scans = q{SELECT seq_scan || ' ' || coalesce(idx_scan, 0) FROM pg_stat_user_tables WHERE relname = 'places'};
$node->sql("SELECT pgtrickle.drop_stream_table('$_')") foreach grep { $_ ne 'sums' } sort keys %query;
my ($seq_before, $idx_before) = split(/ /, $node->sql($scans));
$node->sql(join(";\n", ('UPDATE sales SET amount = amount + 1 WHERE id = 9') x 10));
$node->wait_until("SELECT idx_scan >= 10 + $idx_before FROM pg_stat_user_tables WHERE relname = 'places'", 'each update looks its row up');
is((split(/ /, $node->sql($scans)))[0], $seq_before, 'the joined table is not read from beginning to end');
done_testing();
