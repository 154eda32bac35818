# t/186_immediate_ddl.pl
#
# Goal: IMMEDIATE stream tables follow DDL on their sources, other queries, dumps, and subscriptions; what cannot be followed is suspended, visibly.
# Method: after each command a statement is run on the sources, and the stream table is compared with its query.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster qw(sql_literal);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = StreamTables::Cluster->new('immediate_ddl')->boot(setup => 'extension');
$node->sql(
	q{CREATE TABLE items (id int PRIMARY KEY, kind text, amount int, rank int);
	CREATE TABLE log (at int, kind text) PARTITION BY RANGE (at);
	CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM (0) TO (10);
	INSERT INTO items SELECT g, 'k' || g % 3, g, g % 4 FROM generate_series(1, 12) g; INSERT INTO log SELECT g, 'k' || g % 3 FROM generate_series(1, 9) g;
	CREATE VIEW big AS SELECT kind, amount FROM items WHERE amount > 5});

my %query = (
	kinds => 'SELECT i.kind, count(*) AS n FROM items i GROUP BY i.kind',
	entries => 'SELECT l.kind, count(*) AS n FROM log l GROUP BY l.kind',
	joined => 'SELECT i.id, l.at FROM items i JOIN log l USING (kind)',
	ranks => "SELECT max(rank::text) AS top FROM items",
	viewed => 'SELECT kind, sum(amount) AS total FROM big GROUP BY kind');
$node->create_stream_table($_, $query{$_}, refresh_mode => 'IMMEDIATE') foreach sort keys %query;
$node->create_stream_table('kinds_over', 'SELECT sum(n) AS n FROM kinds', refresh_mode => 'IMMEDIATE');
$query{kinds_over} = 'SELECT sum(n) AS n FROM kinds';

sub follow
{
	my ($what, @names) = @_;

	foreach my $name (@names ? @names : sort keys %query)
	{
		is($node->sql($node->difference_query($name)), '', "$what: $name");
	}
	return;
}

$node->sql(q{CREATE TABLE log_2 PARTITION OF log FOR VALUES FROM (10) TO (20); INSERT INTO log_2 VALUES (11, 'k1'); INSERT INTO log VALUES (12, 'k9')});
follow('a new partition', qw(entries joined));
$node->sql(q{CREATE TABLE log_3 (kind text, at int); INSERT INTO log_3 VALUES ('k2', 25); ALTER TABLE log ATTACH PARTITION log_3 FOR VALUES FROM (20) TO (30)});
follow('a partition attached with rows', qw(entries joined));
$node->sql(q{INSERT INTO log_3 VALUES ('k1', 26); UPDATE log SET kind = 'k0' WHERE at = 25});
follow('... and written', qw(entries joined));
$node->sql('ALTER TABLE log DETACH PARTITION log_2');
follow('detached', qw(entries joined));
$node->sql(q{INSERT INTO log_2 VALUES (13, 'k1'); DROP TABLE log_3});
follow('dropped', qw(entries joined));

$node->sql(q{ALTER TABLE items ALTER COLUMN rank TYPE text USING 'r' || rank; UPDATE items SET amount = 7 WHERE id = 1});
follow('another type', 'kinds', 'joined', 'ranks');
$node->sql(q{ALTER TABLE items ADD COLUMN extra int DEFAULT 3; INSERT INTO items VALUES (100, 'k1', 4, 'r9', 4)});
follow('a column added', 'kinds', 'joined');
$node->sql(q{ALTER TABLE items DROP COLUMN extra; INSERT INTO items VALUES (101, 'k1', 4)});
follow('a column dropped', 'kinds', 'joined');

# --- what cannot be followed ---
my (undef, undef, $warnings) = $node->psql($node->dbname, 'ALTER TABLE log RENAME COLUMN kind TO sort');
like($warnings, qr/WARNING:  IMMEDIATE stream table "public\.(entries|joined)" is suspended/, 'a renamed column: suspended, with a warning');
is($node->sql(q{SELECT status FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'entries'}), 'SUSPENDED', '... visibly');
$node->sql(q{INSERT INTO log VALUES (3, 'k1')});
pass('writers go on');
$node->sql('ALTER TABLE log RENAME COLUMN sort TO kind');
follow('renamed back', 'entries', 'joined');

# --- rebuilt sources ---
$node->sql(q{ALTER TABLE items RENAME TO items_old; CREATE TABLE items (id int PRIMARY KEY, kind text, amount bigint);
	INSERT INTO items VALUES (1, 'new', 1), (2, 'new', 2)});
follow('a source of the same name', 'kinds', 'kinds_over', 'joined');
$node->sql(q{INSERT INTO items VALUES (3, 'k1', 1); UPDATE items SET kind = 'k0' WHERE id = 1});
follow('... and written', 'kinds', 'kinds_over', 'joined');

# --- another query ---
$query{kinds} = 'SELECT i.kind, count(*) AS n FROM items i WHERE i.amount > 1 GROUP BY i.kind';
is($node->sql("SELECT pgtrickle.create_or_replace_stream_table('kinds', \$q\$$query{kinds}\$q\$, refresh_mode => 'IMMEDIATE')"), 'replaced in place', 'another query');
follow('replaced in place', 'kinds', 'kinds_over');
$node->sql(q{INSERT INTO items VALUES (4, 'k1', 1), (5, 'k5', 7)});
follow('... and written', 'kinds', 'kinds_over');
is($node->sql(q{SELECT pgtrickle.create_or_replace_stream_table('entries', 'SELECT id FROM items WHERE amount > 2', refresh_mode => 'IMMEDIATE')}), 'rebuilt', 'other columns, other sources');
$node->sql(q{INSERT INTO items VALUES (6, 'k1', 9); DELETE FROM items WHERE id = 5});
follow('rebuilt', 'entries');

# --- out of a dump ---
my $dump = "$PostgreSQL::Test::Utils::tmp_check/dump.sql";
$node->run_log([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ]);
$node->sql('CREATE DATABASE restored');
$node->run_log([ 'psql', '-Xq', '-d', $node->connstr('restored'), '-f', $dump ]);
is($node->safe_psql('restored', "SELECT count(*) FROM pg_trigger WHERE tgfoid = 'pgtrickle.immediate_trigger'::regproc"), 0, 'a dump is without the triggers');
$node->safe_psql('restored', 'SELECT pgtrickle.restore_stream_tables()');
$node->safe_psql('restored', q{INSERT INTO items VALUES (7, 'k7', 9)});
is($node->safe_psql('restored', q{SELECT n FROM kinds WHERE kind = 'k7'}), 1, 'restored stream tables are maintained');

# --- a subscriber ---
$node->sql('CREATE TABLE published (id int PRIMARY KEY, n int); CREATE PUBLICATION p FOR TABLE published; INSERT INTO published SELECT g, g FROM generate_series(1, 5) g');
my $subscriber = StreamTables::Cluster->new('immediate_subscriber')->boot(setup => 'extension');
$subscriber->sql('CREATE TABLE published (id int PRIMARY KEY, n int)');
$subscriber->create_stream_table('sums', 'SELECT n % 2 AS odd, sum(n) AS total FROM published GROUP BY 1', refresh_mode => 'IMMEDIATE');
$subscriber->sql('CREATE SUBSCRIPTION s CONNECTION ' . sql_literal($node->connstr('postgres')) . ' PUBLICATION p');
$subscriber->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_subscription_rel WHERE srsubstate <> 'r'});
is($subscriber->sql($subscriber->difference_query('sums')), '', 'the first copy of a subscription');
$node->sql('INSERT INTO published VALUES (6, 60), (7, 70); UPDATE published SET n = n + 1 WHERE id < 4; DELETE FROM published WHERE id = 5');
$node->wait_for_catchup('s');
is($subscriber->sql('SELECT sum(n) FROM published'), $node->sql('SELECT sum(n) FROM published'), 'changes have arrived');
is($subscriber->sql($subscriber->difference_query('sums')), '', 'what the worker of a subscription writes');
$node->sql('TRUNCATE published');
$node->wait_for_catchup('s');
is($subscriber->sql($subscriber->difference_query('sums')), '', '... TRUNCATE among it');
$subscriber->sql('ALTER SUBSCRIPTION s DISABLE');
$subscriber->stop;

done_testing();
