# t/181_immediate_modes.pl
#
# Goal: what can be IMMEDIATE and what cannot, changing the mode, pausing, and who may do what.
# Method: the applier runs, so that scheduled stream tables over IMMEDIATE ones, and ones that change their mode, are checked with both.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('immediate_modes')->boot;
$node->sql(
	q{CREATE TABLE sales (id int PRIMARY KEY, shop int NOT NULL, amount int NOT NULL);
	CREATE TABLE shops (shop int PRIMARY KEY, city text NOT NULL);
	INSERT INTO shops SELECT g, 'city ' || g % 3 FROM generate_series(1, 6) g;
	INSERT INTO sales SELECT g, g % 6 + 1, g FROM generate_series(1, 60) g;
	CREATE TABLE parent (a int); CREATE TABLE child (b int) INHERITS (parent);
	CREATE ROLE owner; CREATE ROLE writer; CREATE SCHEMA mine AUTHORIZATION owner;
	GRANT SELECT ON sales, shops TO owner; GRANT SELECT, INSERT, UPDATE, DELETE ON sales TO writer});
$node->start_applier;

my $query = 'SELECT s.city, count(*) AS n, sum(x.amount) AS total FROM sales x JOIN shops s USING (shop) GROUP BY s.city';

# In one session, without waiting for anything: the statements, then the difference to the query.
sub differs_after
{
	my ($name, $against, @statements) = @_;

	return $node->sql(join(';', @statements,
		"SELECT count(*) FROM ((($against) EXCEPT ALL SELECT * FROM $name) UNION ALL (SELECT * FROM $name EXCEPT ALL ($against))) d"));
}

# --- what cannot be IMMEDIATE ---
my %refused = (
	'SELECT id FROM sales WHERE amount > extract(hour FROM now())' => qr/Its rows change without any change in its sources/,
	'SELECT b FROM child' => qr/"child" is a partition or child of another table/,
	'SELECT a FROM ONLY parent' => qr/It reads ONLY "parent"/);
foreach my $refused (sort keys %refused)
{
	my $error = $node->psql_error("SELECT pgtrickle.create_stream_table('r', \$q\$$refused\$q\$, refresh_mode => 'IMMEDIATE')");

	like($error, qr/^0A000: stream table "public.r" cannot be IMMEDIATE/, "refused: $refused");
	like($error, $refused{$refused}, '... with the reason');
}
like($node->psql_error("SELECT pgtrickle.create_stream_table('r', 'SELECT id FROM sales', refresh_mode => 'IMMEDIATE', initialize => false)"),
	qr/^0A000: stream table "public.r" cannot be IMMEDIATE and empty/, 'refused: an empty one');
like($node->psql_error("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pgtrickle.create_stream_table('r', 'SELECT id FROM sales', refresh_mode => 'IMMEDIATE')"),
	qr/^25001: stream table "public.r" cannot become IMMEDIATE in a transaction with one snapshot/, 'refused: in a transaction with one snapshot');

# --- rights ---
like($node->psql_error("SET ROLE owner; SELECT pgtrickle.create_stream_table('mine.totals', '$query', refresh_mode => 'IMMEDIATE')"),
	qr/^42501: permission denied for table sales/, 'who has no TRIGGER privilege on the sources cannot slow their writers down');
$node->sql(qq{GRANT TRIGGER ON sales, shops TO owner; SET ROLE owner; SELECT pgtrickle.create_stream_table('mine.totals', '$query', refresh_mode => 'IMMEDIATE')});
is(differs_after('mine.totals', $query, 'SET ROLE writer', 'UPDATE sales SET amount = amount + 1 WHERE id < 5', 'RESET ROLE'), 0,
	'a writer needs no rights on the stream table');
$node->sql(q{CREATE FUNCTION mine.spy(x int) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT current_user::text'});
$node->sql(q{ALTER FUNCTION mine.spy(int) OWNER TO owner; SET ROLE owner;
	SELECT pgtrickle.create_stream_table('mine.spied', 'SELECT id, mine.spy(amount) AS who FROM sales', refresh_mode => 'IMMEDIATE')});
$node->sql(q{SET ROLE writer; UPDATE sales SET amount = 1000 WHERE id = 7});
is($node->sql('SELECT DISTINCT who FROM mine.spied'), 'owner', 'functions in a query run as the owner of the stream table, never as the writer');
$node->drop_stream_table('mine.spied');

# --- errors ---
$node->sql(q{SELECT pgtrickle.create_stream_table('inverse', 'SELECT id, 1000 / amount AS part FROM sales WHERE amount <> 13', refresh_mode => 'IMMEDIATE')});
my (undef, undef, $error) = $node->psql($node->dbname, 'UPDATE sales SET amount = 0 WHERE id = 9');
like($error, qr/ERROR:  division by zero/, 'an error in maintenance is one of the statement');
like($error, qr/IMMEDIATE maintenance of stream table "public.inverse"; pgtrickle.pause_stream_table\(\) stops it/,
	'... which names the stream table and says what to do');
is($node->sql('SELECT amount <> 0 FROM sales WHERE id = 9'), 't', '... and undoes the statement');

# --- functions that wait for the applier elsewhere ---
$node->refresh('inverse');
is($node->sql(q{SELECT pgtrickle.wait_fresh('inverse')}), 't', 'an IMMEDIATE one is fresh');
is($node->sql(q{BEGIN; UPDATE sales SET amount = 21 WHERE id = 20; SELECT count(*) FROM pgtrickle.verify('inverse'); ROLLBACK}), 0,
	'verify() compares it on the spot, with what the transaction has written');
is($node->sql(q{SELECT effective_refresh_mode, staleness < '1s', stale IS NOT TRUE FROM pgtrickle.stream_tables_info WHERE pgt_name = 'inverse'}), 'IMMEDIATE|t|t', 'it is never stale');
is($node->sql(q{SELECT value FROM pgtrickle.explain_st('inverse') WHERE property = 'effective_refresh_mode'}), 'IMMEDIATE', 'explain_st() says so');

# --- pausing ---
$node->sql(q{SELECT pgtrickle.alter_stream_table('inverse', status => 'PAUSED')});
$node->sql('UPDATE sales SET amount = 0 WHERE id = 9; UPDATE sales SET amount = 9 WHERE id = 9; UPDATE sales SET amount = 50 WHERE id = 10');
isnt(differs_after('inverse', 'SELECT id, 1000 / amount AS part FROM sales WHERE amount <> 13'), 0, 'a paused one stands still');
is($node->sql("SELECT status FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'inverse'"), 'PAUSED', '... and says so');
$node->sql(q{SELECT pgtrickle.alter_stream_table('inverse', status => 'ACTIVE')});
is(differs_after('inverse', 'SELECT id, 1000 / amount AS part FROM sales WHERE amount <> 13'), 0, 'resuming brings it up to date');
is(differs_after('inverse', 'SELECT id, 1000 / amount AS part FROM sales WHERE amount <> 13', 'UPDATE sales SET amount = 51 WHERE id = 11'), 0, '... and it follows again');

# --- scheduled over IMMEDIATE, IMMEDIATE over scheduled ---
$node->create_stream_table('over', 'SELECT city, total FROM mine.totals WHERE n > 5');
$node->sql('UPDATE sales SET amount = amount + 10 WHERE shop = 2');
$node->wait_fresh('over');
$node->is_current('over', 'a scheduled stream table over an IMMEDIATE one follows through the stream');
like($node->psql_error(q{SELECT pgtrickle.create_stream_table('r', 'SELECT * FROM over', refresh_mode => 'IMMEDIATE')}),
	qr/^0A000: .* cannot be IMMEDIATE.*It reads stream table "over", which is refreshed on schedule/s, 'an IMMEDIATE one over a scheduled one is refused');

# --- changing the mode ---
$node->create_stream_table('changing', $query);
$node->sql('UPDATE sales SET amount = amount + 10 WHERE shop = 3');
$node->sql(q{SELECT pgtrickle.alter_stream_table('changing', refresh_mode => 'IMMEDIATE')});
is(differs_after('changing', $query), 0, 'becoming IMMEDIATE: current at once');
is(differs_after('changing', $query, 'UPDATE sales SET amount = amount + 10 WHERE shop = 4', q{INSERT INTO shops VALUES (9, 'nine')}, 'INSERT INTO sales VALUES (900, 9, 9)'), 0,
	'... and after statements');
$node->sql(q{SELECT pgtrickle.create_stream_table('above', 'SELECT sum(n) AS n FROM changing', refresh_mode => 'IMMEDIATE')});
like($node->psql_error(q{SELECT pgtrickle.alter_stream_table('changing', refresh_mode => 'AUTO')}),
	qr/^55000: stream table "public.changing" must stay IMMEDIATE/, 'one that an IMMEDIATE one reads stays IMMEDIATE');
$node->drop_stream_table('above');
$node->sql(q{SELECT pgtrickle.alter_stream_table('changing', refresh_mode => 'AUTO')});
$node->sql('UPDATE sales SET amount = amount + 10 WHERE shop = 5');
$node->refresh('changing');
$node->is_current('changing', 'back on schedule');
$node->sql('DELETE FROM sales WHERE shop = 5');
$node->wait_fresh('changing');
$node->is_current('changing', '... it follows by the stream');
is($node->sql("SELECT effective_refresh_mode FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'changing'"), 'DIFFERENTIAL', '... by delta');

# --- triggers come, go, and stay ---
is(differs_after('mine.totals', $query, 'ALTER TABLE sales DISABLE TRIGGER ALL', 'UPDATE sales SET amount = amount + 1 WHERE id = 30', 'ALTER TABLE sales ENABLE TRIGGER ALL'),
	0, 'DISABLE TRIGGER ALL does not stop maintenance');
is(differs_after('mine.totals', $query, q{SET session_replication_role = replica}, 'UPDATE sales SET amount = amount + 1 WHERE id = 30'), 0, '... nor does ENABLE make it less');
my $triggers = q{SELECT count(*) FROM pg_trigger WHERE tgfoid = 'pgtrickle.immediate_trigger'::regproc};
isnt($node->sql($triggers), 0, 'triggers are there');
$node->drop_stream_table($_) foreach qw(over mine.totals inverse);
is($node->sql($triggers), 0, 'the last IMMEDIATE stream table over a source takes the triggers along');

done_testing();
