# t/601_remotes_in_sql.pl
#
# Goal: what people call and see about remotes and copies does what the reference says.
# Method: no program; a remote whose changes a slot hands over, and ticks by hand.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster qw(sql_literal);
use StreamTables::Remote;
use Test::More;

my $node = StreamTables::Cluster->new('remotes')->boot(setup => 'extension');

# --- definitions -------------------------------------------------------------------------------------------

is($node->sql(q{SELECT pgtrickle.add_remote('shop', 'service=shop', schema_map => '{"public": "shop"}')}), '1', 'a remote is added');
is($node->sql(q{SELECT slot_name, status, copies FROM pgtrickle.pgt_remotes_status}), 'pgtrickle_postgres_shop|ACTIVE|0', 'with a slot of its own');
like($node->psql_error(q{SELECT pgtrickle.add_remote('other', 'x', output_plugin => 'pgoutput')}), qr/^23514/, 'pgoutput needs a publication');
like($node->psql_error(q{SELECT pgtrickle.copy_table('nix', 'a')}), qr/^42704: remote "nix" does not exist/, 'a remote must be there');
is($node->sql(q{SELECT pgtrickle.copy_table('shop', 'orders')}), '1', 'a table is to be copied');
is($node->sql(q{SELECT pgtrickle.copy_table('shop', 'sales."Odd Name"', target => '"My Schema".odd', demand => 'on_demand')}), '2', 'another under another name');
is( $node->sql('SELECT remote_table, copy_schema, copy_name, demand, status FROM pgtrickle.pgt_copies_status ORDER BY copy_id'),
	qq{public.orders|shop|orders|always|REQUESTED\nsales."Odd Name"|My Schema|odd|on_demand|REQUESTED},
	'the view shows what was asked for');
like($node->psql_error(q{SELECT pgtrickle.copy_table('shop', 'deltas', storage => 'else')}), qr/^23514/, 'there is no other storage');
like($node->psql_error(q{SELECT pgtrickle.copy_table('shop', 'orders')}), qr/^42710: table "shop.orders" is a copy already/, 'not twice');
$node->sql('CREATE TABLE mine (a int)');
like($node->psql_error(q{SELECT pgtrickle.copy_table('shop', 'x.mine', target => 'public.mine')}), qr/^42P07: relation "public.mine" already exists/, 'not in place of something else');
is($node->sql(q{SELECT pgtrickle.copy_schema('shop', 'public'), pgtrickle.copy_schema('shop', 'public', 'always')}), '1|1', 'a schema is recorded once');
is($node->sql(q{SELECT pgtrickle.copy_found(1, '{orders,customers}')}), '1', 'of the tables that the program finds in it, new ones are copied');
is($node->sql(q{SELECT copy_schema, demand FROM pgtrickle.pgt_copies_status WHERE copy_name = 'customers'}), 'shop|always', 'as the schema is');
$node->sql(q{SELECT pgtrickle.pause_remote('shop')});
is($node->sql(q{SELECT status FROM pgtrickle.remote_catalog()}), 'PAUSED', 'a remote can be paused');
$node->sql(q{SELECT pgtrickle.resume_remote('shop'), pgtrickle.alter_remote('shop', conninfo => 'service=shop2')});
is($node->sql(q{SELECT status, conninfo, schema_map FROM pgtrickle.remote_catalog()}), 'ACTIVE|service=shop2|{"public": "shop"}', 'and altered');

# --- rights -------------------------------------------------------------------------------------------------

$node->sql('CREATE ROLE bob LOGIN; CREATE ROLE keeper LOGIN; GRANT EXECUTE ON FUNCTION pgtrickle.recopy TO keeper; CREATE ROLE watcher IN ROLE pg_monitor');
foreach my $call (q{add_remote('x', 'y')}, q{copy_table('shop', 'z')}, q{drop_remote('shop', true)}, q{recopy('shop.orders')}, 'remote_catalog()', q{drop_copy('shop.orders')})
{
	like($node->psql_error("SET ROLE bob; SELECT pgtrickle.$call"), qr/^42501/, "a stranger may not call $call");
}
is($node->sql('SET ROLE bob; SELECT count(*) FROM pgtrickle.pgt_copies_status'), '0', 'nor see copies that he may not read');
is($node->sql('SET ROLE bob; SELECT count(*) FROM pgtrickle.pgt_remotes_status'), '0', 'nor remotes');
is($node->sql('SET ROLE watcher; SELECT count(*) FROM pgtrickle.pgt_copies_status'), '3', 'pg_monitor sees all');
is($node->psql_error(q{SET ROLE keeper; SELECT pgtrickle.recopy('shop.orders')}), '', 'who was granted a function may call it');
$node->sql(q{SELECT pgtrickle.drop_remote('shop', true)});
is($node->sql('SELECT count(*) FROM pgtrickle.pgt_copies'), '0', 'a remote goes with its copies');

# --- rows and columns that are not wanted ------------------------------------------------------------------

$node->sql('DELETE FROM pgtrickle.pgt_remotes; ALTER TABLE pgtrickle.pgt_remotes ALTER remote_id RESTART');
my $remote = StreamTables::Remote->new($node);
$remote->source('CREATE TABLE orders (id int PRIMARY KEY, region text, amount int, secret text, note text)');
$remote->target('CREATE TABLE orders (id int PRIMARY KEY, region text, amount int)');
$remote->source(q{INSERT INTO orders SELECT i, CASE WHEN i % 2 = 0 THEN 'eu' ELSE 'us' END, i, 'secret', repeat('x', i) FROM generate_series(1, 20) i});
$remote->tick;
$remote->define('orders', key => 'orders_pkey', filter => q{region = 'eu' AND amount < 100}, columns => [qw(id region amount)], demand => 'on_demand');
is($remote->state('orders'), 'DECLARED', 'a table on demand is declared');
like($node->psql_error(q{SELECT pgtrickle.create_stream_table('now_or_never', 'SELECT region, count(*) AS n FROM orders GROUP BY region', refresh_mode => 'IMMEDIATE')}),
	qr/^0A000: stream table "public.now_or_never" cannot be IMMEDIATE, because "public.orders" is a copy\nDETAIL:  The rows of a copy are written by the applier/,
	'IMMEDIATE over a copy is refused, and why');
$node->create_stream_table('totals', 'SELECT region, count(*) AS n, sum(amount) AS total FROM orders GROUP BY region', initialize => 'true');
is($remote->state('orders'), 'WANTED', 'it is wanted when a stream table reads it');
like($node->psql_error(q{SELECT pgtrickle.alter_stream_table('totals', refresh_mode => 'IMMEDIATE')}), qr/^0A000/, 'which cannot become IMMEDIATE');
$remote->copy('orders');
my $wanted = q{SELECT id, region, amount FROM orders WHERE region = 'eu' AND amount < 100};
is($remote->differences($wanted, 'SELECT * FROM orders'), '', 'only what is wanted was copied');
$remote->source(q{UPDATE orders SET region = 'us' WHERE id = 2; UPDATE orders SET region = 'eu' WHERE id IN (1, 3); UPDATE orders SET amount = 500 WHERE id = 4;
	DELETE FROM orders WHERE id IN (5, 6); INSERT INTO orders VALUES (30, 'us', 1), (31, 'eu', 1), (32, NULL, 1); UPDATE orders SET secret = 'other';
	UPDATE orders SET id = 40 WHERE id = 7; UPDATE orders SET id = 41, region = 'eu' WHERE id = 9; UPDATE orders SET id = 42, region = 'us' WHERE id = 8});
like($remote->tick, qr/^\d+ DIFFERENTIAL \+1 -1, orders COPY \+4 -4$/, 'rows come in and go out');
is($remote->differences($wanted, 'SELECT * FROM orders'), '', 'as the condition says');
is($remote->differences("SELECT region, count(*), sum(amount) FROM ($wanted) w GROUP BY region", 'SELECT * FROM totals'), '', 'also for stream tables');
$remote->source('ALTER TABLE orders ADD later int; UPDATE orders SET later = 1, amount = amount + 1');
like($remote->tick, qr/orders COPY/, 'a new column is nothing to a copy of some columns');
foreach my $filter ('amount', 'amount < (SELECT 1)', 'now() > $$2000-01-01$$', 'true) OR (true; DROP TABLE mine', 'nix = 1')
{
	isnt($node->psql_error("SELECT pgtrickle.check_row_filter('orders'::regclass, " . sql_literal($filter) . ')'), '', "not a row filter: $filter");
}
is($node->sql('SELECT count(*) FROM mine'), '0', 'and no way to something else');

# --- what people see ------------------------------------------------------------------------------------------

like($node->sql(q{SELECT value FROM pgtrickle.explain_st('totals') WHERE property LIKE 'copy %'}),
	qr/^public.orders of remote app, active, rows with region = 'eu' AND amount < 100; refreshes by delta read only its changes, full ones its rows$/, 'explain says which copies there are and why');
$node->create_stream_table('pairs', 'SELECT a.id, b.amount FROM orders a JOIN orders b ON b.id = a.amount', initialize => 'true');
$node->create_stream_table('largest', 'SELECT region, max(amount) AS m FROM orders GROUP BY region', initialize => 'true');
is($node->sql(q{SELECT string_agg(t || ' ' || operators, '; ') FROM unnest('{pairs,largest,totals}'::text[]) t, pgtrickle.rows_read(t)}), 'pairs join; largest aggregate', 'or which steps read its rows');
$node->sql('DROP TABLE pairs; DROP TABLE largest');
is($node->sql(q{SELECT status, percent_copied, read_by, times_copied FROM pgtrickle.pgt_copies_status}), 'ACTIVE|100|1|1', 'the state of a copy');
is($node->sql(q{SELECT position = '} . $remote->{position} . q{', lag < '1 minute', copies_active FROM pgtrickle.pgt_remotes_status}), 't|t|1', 'the state of a remote');
$node->sql(q{UPDATE pgtrickle.pgt_remote_states SET position_at = clock_timestamp() - interval '1 hour'});
is($node->sql(q{SELECT staleness BETWEEN '59 minutes' AND '61 minutes' FROM pgtrickle.get_staleness('totals')}), 't', 'a stream table is as stale as the remotes that it reads');
is($node->sql(q{SELECT pgtrickle.wait_fresh('totals', '50ms', source_lsn => 'FFFF/0')}), 'f', 'a position of the remote is waited for');
is($node->sql('SELECT pgtrickle.wait_position(1, ' . "'$remote->{position}', '1s')"), 't', 'until it is there');
is($node->sql(q{SELECT pgtrickle.wait_copied(), pgtrickle.wait_copied('orders', '50ms')}), 't|t', 'nothing is left to be copied');
$node->sql(q{SELECT pgtrickle.recopy('orders', 'to be sure')});
is($node->sql(q{SELECT pgtrickle.wait_copied('orders', '50ms'), status, status_reason FROM pgtrickle.pgt_copies_status}), 'f|WANTED|to be sure', 'but now there is');
is($node->sql(q{SELECT status FROM pgtrickle.applier_catalog() WHERE refresh_mode = 'COPY'}), 'ACTIVE', 'its readers go on');
like($node->psql_error(q{SELECT pgtrickle.wait_copied('mine')}), qr/^42704/, 'not for anything else');
like($node->psql_error(q{SELECT pgtrickle.drop_copy('orders')}), qr/^2BP01: cannot drop copy "public.orders" because stream tables read it\nDETAIL:  They are: public.totals./, 'a copy with readers stays');

# --- out of a dump --------------------------------------------------------------------------------------------

my $dump = "$PostgreSQL::Test::Utils::tmp_check/dump.sql";
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'the target can be dumped');
$node->sql('CREATE DATABASE restored');
$node->command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $dump ], 'and restored');
is($node->safe_psql('restored', 'SELECT count(*) FROM pgtrickle.pgt_copies_status'), '0', 'nobody sees the copies before restore_stream_tables()');
$node->safe_psql('restored', 'SELECT pgtrickle.restore_stream_tables()');
is( $node->safe_psql('restored', 'SELECT status, status_reason, is_populated, (SELECT count(*) FROM orders) > 5 FROM pgtrickle.pgt_copies_status'),
	'REQUESTED|restored from a dump|t|t',
	'afterwards they are to be copied again, and show their rows');
like($node->safe_psql('restored', q{SELECT pgtrickle.copy_table('app', 'more')}), qr/^[2-9]$/, 'new ones get new ids');

# --- dropping --------------------------------------------------------------------------------------------------

$node->sql('DROP TABLE totals; DROP TABLE orders');
is($node->sql('SELECT count(*) FROM pgtrickle.pgt_copies'), '0', 'a copy that is dropped like a table is gone');
is($node->psql_error(q{SELECT pgtrickle.drop_remote('app')}), '', 'and then its remote may go');

$node->stop;
done_testing();
