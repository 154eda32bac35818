# t/220_redefine.pl
#
# Goal: a stream table gets another query while it is read, refreshed and consumed, and keeps what belongs to it.
# Method: create_or_replace_stream_table with the same query, other options, another query, more columns and other columns; compare what the
#         owner gave it before and after; let writers and readers run; roll back; kill the applier in between.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;
use Time::HiRes qw(usleep);

my $node = StreamTables::Cluster->new('redefine')->boot;
$node->start_applier;
$node->sql(
	q{CREATE ROLE reader; CREATE ROLE analyst; GRANT CREATE, USAGE ON SCHEMA public TO analyst;
	CREATE TABLE orders (id int PRIMARY KEY, customer int, amount numeric(10,2), status text);
	INSERT INTO orders SELECT i, i % 10, i, 'new' FROM generate_series(1, 500) i;
	CREATE VIEW open_orders AS SELECT id, customer, amount FROM orders WHERE status = 'new';
	CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'});

sub define
{
	my ($name, $query, $more) = @_;

	return $node->sql("SELECT pgtrickle.create_or_replace_stream_table('$name', "
		  . StreamTables::Cluster::sql_literal($query) . ", 'continuous'" . ($more // '') . ')');
}

sub identity
{
	my ($name) = @_;

	return $node->sql("SELECT '$name'::regclass::oid, pg_relation_filenode('$name')");
}

sub all_verified
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @wrong;
	foreach my $name (split /\n/, $node->sql('SELECT pgt_name FROM pgtrickle.pgt_stream_tables ORDER BY pgt_id'))
	{
		my ($rc, $stdout, $stderr) =
		  $node->psql('postgres', "SELECT * FROM pgtrickle.verify('$name')");
		push @wrong, "$name: $stdout$stderr" if $rc != 0 || $stdout ne '';
	}
	return is(join("\n", @wrong), '', $what);
}

# --- nothing, options -------------------------------------------------------------------------------------

my $totals = 'SELECT customer, sum(amount) AS total FROM orders GROUP BY customer';
is(define('totals', $totals), 'created', 'a new one is created');
$node->create_stream_table('upper', 'SELECT count(*) AS n, sum(total) AS s FROM totals');
$node->sql(
	q{CREATE VIEW doubled WITH (security_barrier=true) AS SELECT customer, total * 2 AS twice FROM totals;
	CREATE VIEW over_doubled AS SELECT max(twice) AS m FROM doubled;
	GRANT SELECT ON doubled, over_doubled TO reader;
	CREATE INDEX totals_by_total ON totals (total);
	CREATE INDEX "odd ON %s" ON totals ((total + 1)) WHERE customer > 0;
	GRANT SELECT ON totals TO reader; GRANT SELECT (customer) ON totals TO analyst;
	COMMENT ON TABLE totals IS 'it''s 100% right'; COMMENT ON COLUMN totals.total IS 'all of it';
	CREATE TRIGGER touched BEFORE INSERT ON totals FOR EACH ROW EXECUTE FUNCTION touch();
	ALTER TABLE totals ENABLE ROW LEVEL SECURITY;
	CREATE POLICY even ON totals FOR SELECT TO reader USING (customer % 2 = 0);
	ALTER TABLE totals SET (autovacuum_enabled = false);
	CREATE STATISTICS totals_stats ON customer, total FROM totals;
	CREATE PUBLICATION pub FOR TABLE totals WHERE (customer > 1)});
my $before = identity('totals');
$node->refresh('upper');
my $lsn = $node->lsn('insert');
is(define('totals', "select  customer, -- hello\n sum(amount) total from public.orders GROUP BY 1"),
	'unchanged', 'the same in other words is unchanged');
is($node->sql("SELECT pg_current_wal_insert_lsn() - '$lsn' < 300"), 't', 'and writes nothing');
is($node->sql(
		"SELECT pgtrickle.create_or_replace_stream_table('totals', '$totals', '2s')"),
	'altered', 'another schedule alters');
is(define('totals', $totals), 'altered', 'and back');
is(identity('totals'), $before, 'the table is the same');

# --- the same columns -------------------------------------------------------------------------------------

all_verified('right, with all that the owner gives it');
my $known = $node->sql('SELECT max(refresh_id) FROM pgtrickle.pgt_history');
my $properties = q{SELECT what, statement FROM pgtrickle.table_properties('totals'::regclass,
	(SELECT key_index FROM pgtrickle.pgt_definitions WHERE relid = 'totals'::regclass))
	WHERE what <> 'tablespace' ORDER BY 1, 2};
my $had = $node->sql($properties);
is( scalar(split /\n/, $had), 13, 'the properties are found') or diag $had;
is(define('totals', 'SELECT customer, sum(amount) AS total FROM open_orders WHERE id > 100 GROUP BY customer'),
	'replaced in place', 'another query with the same columns is replaced in place');
is(identity('totals'), $before, 'OID and file are the same');
all_verified('and both are right');
$node->sql(q{INSERT INTO orders VALUES (1001, 3, 5, 'new'), (1002, 30, 7, 'new'); UPDATE orders SET status = 'done' WHERE id = 200;
	DELETE FROM orders WHERE customer = 4});
all_verified('and follow');
is($node->sql("SELECT count(*) FROM pgtrickle.pgt_history WHERE action = 'FULL' AND refresh_id > $known"), 0,
	'the one above took the difference, not all');
is(define('totals', 'SELECT id AS customer, amount + 0 AS total FROM orders WHERE id % 2 = 0'),
	'replaced in place', 'also with another key');
is(identity('totals'), $before, 'in the same table');
all_verified('which is right');
is(define('totals', 'SELECT (id % 3) AS customer, trunc(amount) + 0 AS total FROM orders'),
	'replaced in place', 'and from a key to none');
$node->sql(q{UPDATE orders SET amount = amount + 1 WHERE id % 5 = 0});
all_verified('right again');
is(define('totals', $totals), 'replaced in place', 'and back to groups');
$node->sql(q{UPDATE orders SET amount = amount + 1 WHERE id % 5 = 0});
all_verified('right once more');
is($node->sql($properties), $had, 'all that the owner gave it is still there');

# --- more columns, other columns ----------------------------------------------------------------------------

is(define('totals', 'SELECT customer, sum(amount) AS total, count(*) AS n, max(status) AS last FROM orders GROUP BY customer'),
	'columns added', 'columns at the end are added');
is((split /\|/, identity('totals'))[0], (split /\|/, $before)[0], 'to the same table');
all_verified('with the right contents');
is($node->sql($properties), $had, 'and the same properties');

is(define('totals', 'SELECT customer, count(*) AS n, sum(amount) AS total FROM orders GROUP BY customer'),
	'rebuilt', 'columns in another order mean a new table');
isnt((split /\|/, identity('totals'))[0], (split /\|/, $before)[0], 'of another OID');
is($node->sql($properties), $had, 'which has got all that the old one had');
is($node->sql('SELECT count(*) FROM over_doubled'), 1, 'views over it, and over them, work');
is($node->sql(q{SELECT reloptions FROM pg_class WHERE relname = 'doubled'}), '{security_barrier=true}',
	'a view keeps its options');
is($node->sql(q{SELECT has_table_privilege('reader', 'doubled', 'SELECT')}), 't', 'and its grants');
all_verified('all is right');
$node->sql(q{INSERT INTO orders VALUES (2001, 3, 5, 'new'), (2002, 31, 7, 'new')});
all_verified('and follows');
like($node->psql_error(q{INSERT INTO totals VALUES (1, 1, 1)}), qr/cannot change stream table/, 'it is guarded');
my ($rc, $stdout, $stderr) = $node->psql('postgres',
	q{SELECT pgtrickle.create_or_replace_stream_table('totals', 'SELECT customer, sum(amount)::int AS n FROM orders GROUP BY customer', 'continuous')}
);
like($stderr, qr/ERROR:  cannot change the columns of stream table "public.totals": view public.doubled depends on it/,
	'a view that cannot live with it is named');
all_verified('and nothing has changed');
$node->sql('GRANT USAGE ON SCHEMA public TO analyst; GRANT SELECT ON totals TO analyst; SET ROLE analyst; CREATE VIEW theirs AS SELECT customer FROM totals');
$node->sql(q{CREATE ROLE maker; GRANT CREATE ON SCHEMA public TO maker; GRANT SELECT ON orders TO maker; ALTER TABLE totals OWNER TO maker; ALTER VIEW doubled OWNER TO maker});
like(
	$node->psql_error(
		q{SET ROLE maker; SELECT pgtrickle.create_or_replace_stream_table('totals', 'SELECT count(*) AS n, customer, sum(amount) AS total FROM orders GROUP BY customer', 'continuous')}
	),
	qr/^2BP01: cannot change the columns of stream table "public.totals": view public.theirs depends on it\nDETAIL:  It belongs to somebody else: must be owner of view theirs.\nHINT:  Have its owner drop it/,
	'a view of somebody else is named, with what to do');
all_verified('and nothing has changed');
is( $node->sql(
		q{SET ROLE maker; SELECT pgtrickle.create_or_replace_stream_table('totals', 'SELECT customer, count(*) AS n, sum(amount) AS total, 1 AS one FROM orders GROUP BY customer', 'continuous')}
	),
	'columns added',
	'which columns at the end do not need');
is(define('totals', 'SELECT customer, count(*) AS n, sum(amount) AS total, 1 AS one FROM orders GROUP BY customer'), 'unchanged', 'whoever asks');
$node->sql('DROP VIEW theirs; ALTER TABLE totals OWNER TO CURRENT_USER; ALTER VIEW doubled OWNER TO CURRENT_USER');
$node->sql('DROP VIEW over_doubled, doubled; ALTER PUBLICATION pub DROP TABLE totals');
is(define('totals', 'SELECT customer, sum(amount)::int AS n FROM orders GROUP BY customer'), 'rebuilt', 'without it that works');
$node->verify('totals');
$node->wait_until(
	q{SELECT last_error_message LIKE '%column totals.total does not exist%' OR last_error_message LIKE '%"total" does not exist%' FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'upper'},
	'what reads a column that is gone says so');
is(define('upper', 'SELECT count(*) AS n, sum(n)::numeric AS s FROM totals'), 'replaced in place', 'until it is changed, too');
all_verified('then all is right');
like($node->psql_error(q{SELECT pgtrickle.create_or_replace_stream_table('totals', 'SELECT n::int AS customer, n::int FROM upper')}),
	qr/cannot read the stream table itself/, 'a circle is refused');
like($node->psql_error(q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pgtrickle.create_or_replace_stream_table('totals', 'SELECT 1')}),
	qr/^25001: .*\nHINT/, 'and one snapshot for all');

$node->sql('CREATE TABLE keyless AS SELECT i % 3 AS a FROM generate_series(1, 9) i');
define('bag', 'SELECT a FROM keyless');
is(define('bag', 'SELECT a, a + 1 AS b FROM keyless'), 'columns added', 'columns are added to rows without a key');
all_verified('of which there are copies');

# --- alter, rollback ------------------------------------------------------------------------------------------

$before = identity('totals');
$node->sql(qq{BEGIN; SELECT pgtrickle.alter_stream_table('totals', query => 'SELECT 1 AS one'); ROLLBACK});
is(identity('totals'), $before, 'rolled back: nothing has happened');
all_verified('and all is right');
is( $node->sql(
		q{SELECT count(*) FROM pg_class c WHERE relkind = 'r' AND (relname LIKE '\_\_pgt%' OR relname ~ '^pgt_state_[0-9]')
		AND NOT EXISTS (SELECT FROM pgtrickle.pgt_state_tables s WHERE s.relid = c.oid)}
	),
	0,
	'no table is left over');
$node->sql(q{SELECT pgtrickle.alter_stream_table('totals', query => 'SELECT customer, count(*)::int AS n FROM orders GROUP BY customer')});
is(identity('totals'), $before, 'alter_stream_table does the same');
all_verified('all is right');
$node->sql(
	q{BEGIN; INSERT INTO orders VALUES (3001, 3, 5, 'new');
	SELECT pgtrickle.alter_stream_table('totals', query => 'SELECT customer, sum(id)::int AS n FROM orders GROUP BY customer');
	INSERT INTO orders VALUES (3002, 3, 5, 'new');
	SELECT pgtrickle.alter_stream_table('upper', query => 'SELECT count(*) + 1 AS n, sum(n)::numeric AS s FROM totals');
	UPDATE orders SET customer = 77 WHERE id = 3001; COMMIT});
all_verified('what the same transaction writes before and after is in, once');

# --- under load -------------------------------------------------------------------------------------------------

my $writer = $node->background_psql('postgres', on_error_stop => 1);
$writer->query_safe('SET application_name = writer');
my @queries = (
	'SELECT customer, sum(amount)::int AS n FROM orders GROUP BY customer',
	'SELECT customer, count(*)::int AS n FROM orders WHERE id % 3 <> 0 GROUP BY customer',
	'SELECT customer, sum(amount)::int AS n, min(status) AS m FROM orders GROUP BY customer',
	'SELECT id AS customer, amount::int AS n FROM orders WHERE id % 7 = 1');
my @script;
for my $i (1 .. 400)
{
	push @script, 'INSERT INTO orders VALUES (' . (10_000 + $i) . ", $i % 13, $i, 's$i')";
	push @script, 'UPDATE orders SET amount = amount + 1, customer = customer + 1 WHERE id % 50 = ' . ($i % 50);
	push @script, "DELETE FROM orders WHERE id = $i";
}
my $file = $node->basedir . '/writes.sql';
open my $out, '>', $file or die $!;
print $out join(";\n", @script), ";\n";
close $out;
my $started = IPC::Run::start([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-f', $file ],
	'<', \undef, '>', \my $writer_out, '2>', \my $writer_err);
my $empty = 0;
for my $round (1 .. 8)
{
	my $done = define('totals', $queries[ $round % @queries ]);
	ok($done ne 'unchanged', "round $round: $done");
	$empty++ if $node->sql('SELECT count(*) FROM totals') == 0;
	if ($round == 3)
	{
		$node->kill9_applier;
		define('upper', "SELECT count(*) + $round AS n, sum(n)::numeric AS s FROM totals");
		define('totals', $queries[1]);
		$node->start_applier;
	}
	$node->verify('totals', "round $round: totals") if $round % 2;
	$node->verify('upper', "round $round: upper") if $round % 3 == 0;
}
$started->finish;
is($writer_err, '', 'the writer was not disturbed');
is($empty, 0, 'no reader has seen it empty');
all_verified('all is right at the end');
$writer->quit;

done_testing();
