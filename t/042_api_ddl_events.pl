# t/042_api_ddl_events.pl
#
# Goal: DDL on sources reaches the WAL as messages, DDL on stream tables is refused or followed, and other DDL is left alone.
# Method: no applier; read the messages from a slot with test_decoding.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('ddl_events')->boot(setup => 'extension');
$node->sql(q{SELECT pg_create_logical_replication_slot('messages', 'test_decoding')});

# The messages since the last call, relation OIDs replaced by names; `what` picks those that start so.
sub messages
{
	my ($what) = @_;

	my $text = $node->sql(
		q{
		SELECT regexp_replace(data, '^.*content:', '') FROM pg_logical_slot_get_changes('messages', NULL, NULL)
		WHERE data LIKE 'message: % prefix: pgtrickle,%'});
	my %seen;
	my @messages = grep { !$seen{$_}++ } grep { /^$what/ } split /\n/, $text;
	s/^interest \d+/interest/ foreach @messages;
	return join("\n", @messages);
}

sub oid_of
{
	my ($name) = @_;

	return $node->sql("SELECT '$name'::regclass::oid");
}

sub create
{
	my ($name, $query) = @_;

	$node->create_stream_table($name, $query, initialize => 'false');
	messages('');
	return;
}

# --- without stream tables -------------------------------------------------------------------------------

$node->sql(
	q{CREATE TABLE orders (id int PRIMARY KEY, customer int, note text); ALTER TABLE orders ADD COLUMN x int; ALTER TABLE orders DROP COLUMN x;
	CREATE TABLE unrelated (a int); CREATE VIEW v AS SELECT * FROM unrelated});
is(messages(''), '', 'without stream tables DDL writes nothing');

# --- sources ---------------------------------------------------------------------------------------------

create('per_customer', 'SELECT customer, count(*) AS n FROM orders GROUP BY customer');
my $orders = oid_of('orders');
my %effects = (
	'ALTER TABLE orders ADD COLUMN y int DEFAULT 1' => 1,
	'ALTER TABLE orders ALTER COLUMN customer TYPE bigint' => 1,
	'ALTER TABLE orders RENAME COLUMN note TO remark' => 1,
	'ALTER TABLE orders DROP COLUMN remark' => 1,
	'ALTER TABLE orders ENABLE ROW LEVEL SECURITY' => 1,
	'CREATE POLICY p ON orders USING (true)' => 1,
	'ALTER POLICY p ON orders USING (id > 0)' => 1,
	'DROP POLICY p ON orders' => 1,
	'ALTER TABLE orders DROP CONSTRAINT orders_pkey' => 1,
	'ALTER TABLE orders SET UNLOGGED' => 1,
	'ALTER TABLE orders SET (fillfactor = 80)' => 0,
	'ALTER TABLE orders REPLICA IDENTITY FULL' => 0,
	'ALTER TABLE orders ALTER COLUMN customer SET STATISTICS 200' => 0,
	'ALTER TABLE orders ALTER COLUMN customer SET DEFAULT 3' => 0,
	'ALTER TABLE orders ADD CHECK (customer > 0)' => 0,
	'ALTER TABLE orders DISABLE TRIGGER ALL' => 0,
	'CREATE INDEX ON orders (customer)' => 0,
	'GRANT SELECT ON orders TO PUBLIC' => 0,
	'COMMENT ON TABLE orders IS \'x\'' => 0,
	'ALTER TABLE unrelated ADD COLUMN b int' => 0,
	'CREATE OR REPLACE VIEW v AS SELECT a FROM unrelated' => 0,
	'CREATE TEMP TABLE t (a int)' => 0);
foreach my $statement (
	map { $_->[1] } sort { $a->[0] <=> $b->[0] || $a->[1] cmp $b->[1] }
	map {
		[
			  /DROP POLICY|DROP COLUMN|UNLOGGED|DROP CONSTRAINT/ ? 2
			: /POLICY p ON/                                      ? (/CREATE/ ? 0 : 1)
			: 0,
			$_
		]
	} keys %effects)
{
	next if $statement =~ /CREATE OR REPLACE VIEW/;
	$node->sql($statement);
	is( messages('ddl'),
		$effects{$statement} ? "ddl $orders" : '',
		($effects{$statement} ? 'told: ' : 'harmless: ') . $statement);
}
$node->sql('BEGIN; ALTER TABLE orders ADD COLUMN z int; ROLLBACK');
is(messages('ddl'), '', 'a rolled-back change is not told');

# --- sources by name ----------------------------------------------------------------------------------------

$node->sql('DROP TABLE orders');
is(messages('ddl'), "ddl $orders", 'a dropped source is told');
is($node->sql(q{SELECT count(*) FROM pgtrickle.pgt_definitions}), '1', 'its stream table lives on');
$node->sql('CREATE TABLE orders (id int PRIMARY KEY)');
is(messages('interest'), '', 'a new one of its name that does not fit is not followed yet');
$node->sql('ALTER TABLE orders ADD COLUMN customer int');
my $new_orders = oid_of('orders');
is( messages('ddl|interest'),
	"interest $new_orders\nddl $orders,$new_orders",
	'one that fits is: interest first, then the change, under both');
is($node->sql(q{SELECT source_oid, columns_used FROM pgtrickle.list_sources('per_customer')}),
	"$new_orders|{customer}", 'the stream table is bound to it');
$node->sql('DROP TABLE orders; CREATE TABLE other (id int PRIMARY KEY, customer int)');
messages('');
$node->sql('ALTER TABLE other RENAME TO orders');
my $renamed = oid_of('orders');
is( messages('ddl|interest'),
	"interest $renamed\nddl $new_orders,$renamed",
	'also one that gets the name later');
$node->sql(
	'CREATE SCHEMA archive; ALTER TABLE orders SET SCHEMA archive; CREATE VIEW orders AS SELECT * FROM archive.orders'
);
my $view = oid_of('orders');
like(messages('ddl|interest'), qr/^interest $renamed\nddl $renamed,$view$/m, 'or a view');
is( $node->sql(
		q{SELECT source_oid, source_type FROM pgtrickle.list_sources('per_customer') ORDER BY 1}),
	"$renamed|TABLE\n$view|VIEW",
	'with the table behind it');
$node->sql('DROP VIEW orders; ALTER SCHEMA archive RENAME TO attic');
like(messages('ddl'), qr/$renamed/, 'a renamed schema is told');
$node->sql('ALTER TABLE attic.orders SET SCHEMA public');
$node->sql('DROP TABLE per_customer, orders');
is($node->sql(q{SELECT count(*) FROM pgtrickle.pgt_definitions}),
	'0', 'DROP TABLE drops a stream table');
messages('');

# --- partitions and children --------------------------------------------------------------------------------

$node->sql(
	q{CREATE TABLE events (id int, day int) PARTITION BY RANGE (day);
	CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
	CREATE TABLE events_1a PARTITION OF events_1 FOR VALUES FROM (0) TO (1000);
	CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (10) TO (20)});
create('per_day', 'SELECT day, count(*) AS n FROM events GROUP BY day');
my $events = oid_of('events');
foreach my $statement (
	'ALTER TABLE events DETACH PARTITION events_2',
	'ALTER TABLE events ATTACH PARTITION events_2 FOR VALUES FROM (10) TO (20)',
	'ALTER TABLE events_1a ALTER COLUMN id SET NOT NULL, ALTER COLUMN id DROP NOT NULL',
	'DROP TABLE events_2',
	'DROP TABLE events_1a',
	'CREATE TABLE events_3 PARTITION OF events FOR VALUES FROM (20) TO (30)')
{
	$node->sql($statement);
	is(messages('ddl'), "ddl $events", "told for the partitioned table: $statement");
}
$node->sql('DROP TABLE per_day, events');

$node->sql('CREATE TABLE parent (a int); CREATE TABLE child () INHERITS (parent)');
create('family', 'SELECT a FROM parent');
my $parent = oid_of('parent');
$node->sql('ALTER TABLE child NO INHERIT parent');
like(messages('ddl'), qr/$parent/, 'a child that leaves is told');
$node->sql('ALTER TABLE child INHERIT parent');
like(messages('ddl'), qr/$parent/, 'one that comes, too');
$node->sql('DROP TABLE child');
like(messages('ddl'), qr/$parent/, 'and one that is dropped');
$node->sql('DROP TABLE family, parent');

# --- views ---------------------------------------------------------------------------------------------------

$node->sql(
	q{CREATE TABLE base (id int PRIMARY KEY, v int); CREATE VIEW inner_view AS SELECT id, v FROM base;
	CREATE VIEW outer_view AS SELECT id, v FROM inner_view; CREATE MATERIALIZED VIEW kept AS SELECT id FROM base}
);
create('through_views', 'SELECT id, v FROM outer_view');
my ($inner_view, $outer_view) = (oid_of('inner_view'), oid_of('outer_view'));
is( $node->sql(
		q{SELECT source_table, source_type FROM pgtrickle.list_sources('through_views') ORDER BY 1}
	),
	"public.base|TABLE\npublic.inner_view|VIEW\npublic.outer_view|VIEW",
	'views are among the sources');
$node->sql('CREATE OR REPLACE VIEW inner_view AS SELECT id, v + 1 AS v FROM base');
is(messages('ddl'), "ddl $inner_view", 'a replaced view is told, however deep it is');
$node->sql('DROP VIEW outer_view');
is(messages('ddl'), "ddl $outer_view", 'so is a dropped one');
$node->sql('CREATE VIEW outer_view AS SELECT id, v FROM inner_view');
is( messages('ddl'),
	"ddl $outer_view," . oid_of('outer_view'),
	'and one that takes its place, under both');
$node->sql('DROP TABLE through_views');
create('over_kept', 'SELECT id FROM kept');
my $kept = oid_of('kept');
$node->sql('REFRESH MATERIALIZED VIEW kept');
is(messages('ddl'), "ddl $kept", 'a refreshed materialized view is told');
$node->sql('DROP TABLE over_kept; DROP TABLE base CASCADE');

# --- stream tables -------------------------------------------------------------------------------------------

$node->sql('CREATE TABLE src (id int PRIMARY KEY, v int); CREATE TABLE st_parent (v int)');
create('st', 'SELECT v, count(*) AS n, avg(v) AS a FROM src GROUP BY v');
foreach my $statement (
	'INSERT INTO st VALUES (1)',
	'UPDATE st SET n = 1',
	'DELETE FROM st',
	'TRUNCATE st',
	'MERGE INTO st USING src ON st.v = src.v WHEN NOT MATCHED THEN INSERT (v) VALUES (1)')
{
	my ($command) = $statement =~ /^(\w+)/;
	$command = 'INSERT' if $command eq 'MERGE';
	is( $node->psql_error($statement),
		"55000: cannot change stream table \"public.st\" directly\n"
		  . "DETAIL:  $command was refused: the rows of a stream table are those of its defining query.\n"
		  . "HINT:  Change the tables that its query reads, or drop it with pgtrickle.drop_stream_table('public.st')."
		  . " An incremental model of dbt replaces it when run with --full-refresh.",
		"refused: $statement");
}
like(
	$node->psql_error($_),
	qr/^0A000: cannot alter stream table "public.st" this way/,
	"refused: $_")
  foreach (
	'ALTER TABLE st ADD COLUMN x int',
	'ALTER TABLE st DROP COLUMN n',
	'ALTER TABLE st ALTER COLUMN n TYPE numeric',
	'ALTER TABLE st SET UNLOGGED',
	'ALTER TABLE st DISABLE TRIGGER pgtrickle_guard',
	'ALTER TABLE st DISABLE TRIGGER ALL',
	'ALTER TABLE st ADD FOREIGN KEY (v) REFERENCES src (id)',
	'ALTER TABLE st INHERIT st_parent');
like(
	$node->psql_error('CREATE TABLE r (v int REFERENCES st (v))'),
	qr/^0A000: a foreign key cannot reference a stream table/,
	'refused: a foreign key to it');
$node->sql($_)
  foreach (
	'CREATE INDEX ON st (n)',
	'ALTER TABLE st SET (fillfactor = 50)',
	'COMMENT ON TABLE st IS \'counts\'',
	'GRANT SELECT ON st TO PUBLIC',
	'CLUSTER st USING st_n_idx',
	'VACUUM FULL st',
	'ALTER TABLE st RENAME TO st2',
	'CREATE SCHEMA elsewhere',
	'ALTER TABLE st2 SET SCHEMA elsewhere');
is($node->sql('SELECT name FROM pgtrickle.pgt_status()'),
	'elsewhere.st2', 'it can be renamed and moved');
like(messages('catalog'), qr/catalog/, 'which the applier is told');
my $state_tables =
  q{SELECT count(*) FROM pg_class WHERE relnamespace = 'pgtrickle'::regnamespace AND relname LIKE 'pgt_state\_%' AND relname <> 'pgt_state_tables' AND relkind = 'r'};
isnt($node->sql($state_tables), '0', 'it has a state table');
$node->sql('DROP SCHEMA elsewhere CASCADE');
is($node->sql("SELECT count(*) FROM pgtrickle.pgt_definitions"),
	'0', 'DROP SCHEMA ... CASCADE drops it');
is($node->sql($state_tables), '0', 'with its state table');

$node->sql(
	q{CREATE ROLE gone; GRANT CREATE ON SCHEMA public TO gone; SET ROLE gone; CREATE TABLE gone_src (id int PRIMARY KEY, v int);
	SELECT pgtrickle.create_stream_table('gone_st', 'SELECT v, count(*) FROM gone_src GROUP BY v', initialize => false);
	RESET ROLE; DROP OWNED BY gone; DROP ROLE gone});
is($node->sql("SELECT count(*) FROM pgtrickle.pgt_definitions"), '0', 'so does DROP OWNED');

$node->sql(
	q{BEGIN; SELECT pgtrickle.create_stream_table('st', 'SELECT v FROM src', initialize => false); DROP TABLE st; COMMIT}
);
is($node->sql("SELECT count(*) FROM pgtrickle.pgt_definitions"),
	'0', 'created and dropped in one transaction leaves nothing');

# --- a broken extension must not stand in the way ----------------------------------------------------------------

create('st', 'SELECT v FROM src');
$node->sql('ALTER TABLE pgtrickle.pgt_sources RENAME TO pgt_sources_away');
my ($rc, $stdout, $stderr) = $node->psql('postgres',
	'CREATE TABLE fine (a int); ALTER TABLE fine ADD COLUMN b int; DROP TABLE fine');
is($rc, 0, 'DDL works although the applier cannot be told');
like($stderr, qr/WARNING:  could not tell the applier about (CREATE|ALTER) TABLE/,
	'with a warning');
$node->sql('ALTER TABLE pgtrickle.pgt_sources_away RENAME TO pgt_sources');

# --- the end ----------------------------------------------------------------------------------------------------

like($node->psql_error('DROP EXTENSION pgtrickle'),
	qr/^2BP01/, 'the extension is not dropped under stream tables');
create('grouped', 'SELECT v, count(*) AS n FROM src GROUP BY v');
$node->sql('DROP EXTENSION pgtrickle CASCADE');
is($node->sql(q{SELECT to_regnamespace('pgtrickle')}),
	'', 'DROP EXTENSION ... CASCADE leaves no schema behind');
$node->sql(
	'INSERT INTO st VALUES (1); ALTER TABLE st ADD COLUMN x int; DROP TABLE st; CREATE EXTENSION pgtrickle'
);
is($node->sql('SELECT count(*) FROM pgtrickle.pgt_status()'),
	'0', 'with CASCADE, stream tables become ordinary tables');

$node->stop;
done_testing();
