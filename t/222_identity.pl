# t/222_identity.pl
#
# Goal: a stream table is a table of its owner's like any other, except for its columns and rows; and dropping it leaves nothing behind.
# Method: rename, move, swap, index, comment, grant, cluster and publish stream tables while they are refreshed; try what must be refused; drop them in every
#         way there is and look what is left.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('identity')->boot;
$node->start_applier;
$node->sql(
	q{CREATE ROLE dev; GRANT CREATE ON SCHEMA public TO dev; GRANT CREATE ON DATABASE postgres TO dev; CREATE SCHEMA mart AUTHORIZATION dev; CREATE ROLE reader;
	CREATE TABLE orders (id int PRIMARY KEY, customer int, amount int);
	ALTER TABLE orders OWNER TO dev;
	INSERT INTO orders SELECT i, i % 7, i FROM generate_series(1, 100) i;
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'});
my $define = q{SELECT pgtrickle.create_stream_table('totals', 'SELECT customer, sum(amount) AS total FROM orders GROUP BY customer', 'continuous');
	SELECT pgtrickle.create_stream_table('counts', 'SELECT customer, count(*) AS total FROM orders GROUP BY customer', 'continuous');
	SELECT pgtrickle.create_stream_table('upper', 'SELECT sum(total) AS t, count(*) AS n FROM totals', 'continuous')};
$node->sql("SET ROLE dev; $define");

my $next = 1000;

sub all_follow
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$next++;
	$node->sql("INSERT INTO orders VALUES ($next, $next % 9, $next); UPDATE orders SET amount = amount + 1 WHERE id % 10 = $next % 10");
	my @wrong;
	foreach my $name (
		split /\n/, $node->sql(q{SELECT format('%I.%I', pgt_schema, pgt_name) FROM pgtrickle.pgt_stream_tables ORDER BY pgt_id}))
	{
		my ($rc, $stdout, $stderr) = $node->psql('postgres', "SELECT * FROM pgtrickle.verify('$name')");
		push @wrong, "$name: $stdout$stderr" if $rc != 0 || $stdout ne '';
	}
	return is(join("\n", @wrong), '', $what);
}

# --- what the owner may do ------------------------------------------------------------------------------------

all_follow('at first');
my @allowed = (
	'ALTER TABLE counts RENAME TO "Some Counts"' => 'renamed',
	'ALTER TABLE "Some Counts" SET SCHEMA mart' => 'moved',
	'ALTER TABLE mart."Some Counts" RENAME TO counts; ALTER TABLE mart.counts SET SCHEMA public' => 'and back',
	'BEGIN; ALTER TABLE totals RENAME TO swapped; ALTER TABLE counts RENAME TO totals; ALTER TABLE swapped RENAME TO counts; COMMIT' =>
	  'swapped: what reads one of them by name reads the other now',
	'BEGIN; ALTER TABLE totals RENAME TO swapped; ALTER TABLE counts RENAME TO totals; ALTER TABLE swapped RENAME TO counts; COMMIT' =>
	  'and back again',
	'CREATE INDEX ON totals (total DESC); CREATE UNIQUE INDEX ON totals (customer, total)' => 'indexes',
	'ALTER TABLE totals ADD CONSTRAINT positive CHECK (total > 0)' => 'a constraint that holds',
	q{COMMENT ON TABLE totals IS 'sums'; COMMENT ON COLUMN totals.total IS 'the sum'} => 'comments',
	'GRANT SELECT ON totals TO reader; REVOKE SELECT ON totals FROM reader' => 'grants',
	'CREATE TRIGGER noted AFTER INSERT ON totals FOR EACH STATEMENT EXECUTE FUNCTION note()' => 'a trigger',
	'ALTER TABLE totals ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON totals USING (customer < 3)' =>
	  'policies',
	'ALTER TABLE totals FORCE ROW LEVEL SECURITY' => 'for the owner, too: what reads it reads less',
	'ALTER TABLE totals NO FORCE ROW LEVEL SECURITY; ALTER TABLE totals DISABLE ROW LEVEL SECURITY' => 'and without',
	'VACUUM FULL totals' => 'VACUUM FULL',
	'CLUSTER totals USING totals_customer_total_idx' => 'CLUSTER',
	'REINDEX TABLE totals; ANALYZE totals' => 'REINDEX',
	'ALTER TABLE totals SET (fillfactor = 70); ALTER TABLE totals ALTER total SET STATISTICS 500' => 'storage parameters',
	'ALTER TABLE totals SET UNLOGGED' => undef,
	'ALTER TABLE totals CLUSTER ON totals_customer_total_idx' => 'a clustering index',
	'CREATE PUBLICATION pub FOR TABLE totals; ALTER TABLE totals REPLICA IDENTITY FULL' => 'a publication',
	'ALTER TABLE totals OWNER TO dev' => 'an owner');
while (my ($statement, $what) = splice @allowed, 0, 2)
{
	my ($rc, $stdout, $stderr) = $node->psql('postgres', "SET ROLE dev; $statement");
	# VACUUM and its like want to be alone
	($rc, $stdout, $stderr) = $node->psql('postgres', $_) foreach $stderr =~ /cannot run inside|cannot be executed/ ? ($statement) : ();
	if (!defined $what)
	{
		like($stderr, qr/cannot alter stream table/, "$statement is refused");
		next;
	}
	is($stderr, '', "no error: $statement");
	all_follow($what);
}
$node->sql('DROP INDEX totals_customer_total_idx; ALTER TABLE totals DROP CONSTRAINT positive; ALTER TABLE totals ADD PRIMARY KEY (customer)');
all_follow('a primary key');

# --- what nobody may do -----------------------------------------------------------------------------------------

my $refused = qr/cannot (change|alter) stream table "(public\.)?totals".*\nDETAIL: .*\nHINT: /;
like($node->psql_error($_), $refused, "refused: $_")
  foreach (
	q{INSERT INTO totals VALUES (1, 1)},
	q{UPDATE totals SET total = 1},
	q{DELETE FROM totals},
	q{TRUNCATE totals},
	q{COPY totals FROM STDIN},
	q{MERGE INTO totals USING orders ON false WHEN NOT MATCHED THEN INSERT VALUES (1, 1)},
	q{SET session_replication_role = replica; DELETE FROM totals},
	q{SET session_replication_role = local; INSERT INTO totals VALUES (1, 1)},
	q{ALTER TABLE totals ADD COLUMN x int},
	q{ALTER TABLE totals DROP COLUMN total},
	q{ALTER TABLE totals ALTER total TYPE text},
	q{ALTER TABLE totals RENAME total TO sum},
	q{ALTER TABLE totals DISABLE TRIGGER pgtrickle_guard},
	q{ALTER TABLE totals DISABLE TRIGGER ALL},
	q{DROP TRIGGER pgtrickle_guard ON totals},
	q{ALTER TRIGGER pgtrickle_guard ON totals RENAME TO harmless},
	q{CREATE TABLE child () INHERITS (totals)},
	q{CREATE TABLE child (LIKE totals); ALTER TABLE child INHERIT totals},
	q{DROP INDEX pgt_key_1},
	q{ALTER TABLE totals ADD CONSTRAINT f FOREIGN KEY (customer) REFERENCES orders NOT VALID});
like($node->psql_error('CREATE TABLE f (c int REFERENCES totals (customer))'), qr/foreign key|no unique constraint/, 'nor may a foreign key point to it');
all_follow('and nothing has happened');

# a constraint that the rows break: an error that says so, the last good rows, and it goes on when the constraint is gone
$node->sql('ALTER TABLE counts ADD CONSTRAINT few CHECK (total < 1000)');
$node->sql('INSERT INTO orders SELECT i, 3, 0 FROM generate_series(10001, 11100) i');
like($node->psql_error(q{SELECT pgtrickle.refresh_stream_table('counts')}), qr/violates check constraint "few"/, 'a broken constraint is an error');
is($node->sql('SELECT max(total) < 1000 FROM counts'), 't', 'with the last good rows');
$node->sql('ALTER TABLE counts DROP CONSTRAINT few; DELETE FROM orders WHERE id > 10000');
all_follow('and all is well without it');
$node->sql('ALTER TABLE counts ADD CONSTRAINT one UNIQUE (customer) DEFERRABLE INITIALLY DEFERRED');
like($node->psql_error('INSERT INTO counts VALUES (1, 1)'), qr/cannot change/, 'a deferrable constraint changes nothing');
$node->sql('ALTER TABLE counts DROP CONSTRAINT one');
all_follow('either');

# --- what dropping leaves ----------------------------------------------------------------------------------------

sub left_over
{
	return $node->sql(
		q{SELECT count(*) FROM (
		SELECT pgt_id::text FROM pgtrickle.pgt_definitions UNION ALL SELECT pgt_id::text FROM pgtrickle.pgt_frontiers
		UNION ALL SELECT pgt_id::text FROM pgtrickle.pgt_sources UNION ALL SELECT pgt_id::text FROM pgtrickle.pgt_state_tables
		UNION ALL SELECT relname::text FROM pg_class WHERE relname ~ '^pgt_(state|key)_[0-9]') x});
}

$node->sql('DROP PUBLICATION pub; DROP TABLE orders CASCADE');
is($node->sql('SELECT count(*) FROM pgtrickle.pgt_stream_tables'), 3, 'a cascade on a source takes no stream table along');
is($node->sql('SELECT count(*) > 0 FROM totals'), 't', 'which keeps its rows');
$node->sql('CREATE TABLE orders (id int PRIMARY KEY, customer int, amount int); ALTER TABLE orders OWNER TO dev; INSERT INTO orders VALUES (1, 1, 1)');
all_follow('and follows the next source of that name');
$node->sql('DROP TABLE upper; DROP TABLE totals, counts');
is(left_over(), 0, 'DROP TABLE leaves nothing');
my @ways = (
	'DROP SCHEMA mart CASCADE' => 'DROP SCHEMA',
	'DROP OWNED BY dev CASCADE' => 'DROP OWNED',
	q{SELECT pgtrickle.drop_stream_table('mart.totals', true); DROP TABLE mart.counts} => 'drop_stream_table',
	'BEGIN; SAVEPOINT a; DROP TABLE mart.upper; ROLLBACK TO a; DROP SCHEMA mart CASCADE; COMMIT' => 'a drop in a transaction');
while (my ($statement, $what) = splice @ways, 0, 2)
{
	$node->sql('CREATE SCHEMA IF NOT EXISTS mart AUTHORIZATION dev; GRANT CREATE ON SCHEMA public TO dev; GRANT CREATE ON DATABASE postgres TO dev');
	$node->sql(q{CREATE TABLE IF NOT EXISTS orders (id int PRIMARY KEY, customer int, amount int); ALTER TABLE orders OWNER TO dev});
	$node->sql("SET ROLE dev; SET search_path = mart, public; $define");
	$node->refresh('mart.upper');
	$node->sql($statement);
	is(left_over(), 0, "$what leaves nothing");
}
$node->sql('CREATE TABLE IF NOT EXISTS orders (id int PRIMARY KEY, customer int, amount int)');
$node->sql($define);
$node->stop_applier;
$node->sql('DROP EXTENSION pgtrickle CASCADE');
is($node->sql(q{SELECT count(*) FROM pg_class WHERE relname ~ '^pgt_state_' OR relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'pgtrickle')}),
	0, 'DROP EXTENSION leaves no state tables');
is($node->sql('SELECT count(*) FROM orders'), 0, 'and the sources');
$node->sql('CREATE TABLE totals_2 AS SELECT * FROM totals; DELETE FROM totals; DROP TABLE totals');
pass('what were stream tables are tables now');

done_testing();
