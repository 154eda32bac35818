# t/160_clock.pl
#
# Goal: a stream table whose answer changes without any change in the WAL is refreshed when its schedule says so; a source that
#       cannot be read costs nobody but its own stream tables their freshness.
# Method: now(), a file, a table of another server, an unlogged table, a function that reads; nothing else is written after they were
#         filled.  Then the file and the other server go away and come back.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('clock')->boot(conf => "pgtrickle.max_consecutive_errors = 2");
my $remote = PostgreSQL::Test::Cluster->new('remote');
$remote->init;
$remote->start;
$remote->safe_psql('postgres', 'CREATE TABLE prices (item text, price int)');
my $stock = "$PostgreSQL::Test::Utils::tmp_check/stock.csv";
write_stock("apple,3\n");

my ($host, $port) = ($remote->host, $remote->port);
$node->sql(
	qq{CREATE EXTENSION file_fdw;
	CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
	CREATE FOREIGN TABLE stock (item text, n int) SERVER files OPTIONS (filename '$stock', format 'csv');
	CREATE EXTENSION postgres_fdw;
	CREATE SERVER shop FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres', connect_timeout '5');
	CREATE USER MAPPING FOR CURRENT_USER SERVER shop;
	CREATE FOREIGN TABLE prices (item text, price int) SERVER shop;
	CREATE UNLOGGED TABLE drafts (id int);
	CREATE TABLE hidden (n int);
	INSERT INTO hidden VALUES (1);
	CREATE FUNCTION hidden_n() RETURNS int LANGUAGE sql STABLE BEGIN ATOMIC SELECT n FROM hidden; END;
	CREATE TABLE orders (id int PRIMARY KEY, item text);
	INSERT INTO orders VALUES (1, 'apple')});
$node->start_applier;

sub write_stock
{
	my ($text) = @_;

	# in one step, so that nobody reads half of it
	unlink "$stock.new";
	append_to_file("$stock.new", $text);
	rename "$stock.new", $stock or die "could not rename $stock.new: $!";
	return;
}

# The refreshes that are no first fill, and what they did.
sub history
{
	my ($name, $what, $where) = @_;

	return $node->sql(
		"SELECT $what FROM pgtrickle.pgt_refresh_history h JOIN pgtrickle.pgt_stream_tables USING (pgt_id)
		WHERE pgt_name = '$name' AND initiated_by = 'SCHEDULER' AND $where");
}

# Its upstream may have been refreshed while it was created; apart from that it has followed by delta.
sub by_delta
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(history($name, "string_agg(reason, '; ')", "action = 'FULL' AND reason !~ 'refreshed while it was filled'"),
		'', "$name follows by delta");
	return;
}

# --- what follows the clock, and what does not
$node->create_stream_table('moment', 'SELECT id, now() AS at FROM orders', schedule => '300ms');
$node->create_stream_table('of_file', 'SELECT item, n FROM stock', schedule => '300ms');
$node->create_stream_table('of_shop', 'SELECT item, price FROM prices', schedule => '300ms');
$node->create_stream_table('of_drafts', 'SELECT count(*) AS n FROM drafts', schedule => '300ms');
$node->create_stream_table('of_function', 'SELECT id, hidden_n() AS n FROM orders', schedule => '300ms');
$node->create_stream_table('whenever', 'SELECT id, now() AS at FROM orders', schedule => 'manual');
$node->create_stream_table('steady', 'SELECT id, item, current_user AS owner FROM orders', schedule => '300ms');
# consumers, by delta
$node->create_stream_table('joined', 'SELECT o.id, s.n FROM orders o JOIN of_file s USING (item)');
$node->create_stream_table('priced', 'SELECT o.id, p.price FROM orders o JOIN of_shop p USING (item)');

is($node->sql('SELECT string_agg(pgt_name, \' \' ORDER BY pgt_name) FROM pgtrickle.pgt_stream_tables WHERE clock_reason IS NOT NULL'),
	'moment of_drafts of_file of_function of_shop whenever', 'those that look at what is not in the WAL follow the clock');
like($node->sql("SELECT clock_reason FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'of_shop'"),
	qr/"prices" is a foreign table, whose changes are not in the WAL/, 'with the reason');

# --- nothing but the world outside changes from here on
my $before = $node->sql('SELECT at FROM moment');
my $whenever = $node->sql('SELECT at FROM whenever');
$node->wait_until("SELECT at > '$before' FROM moment", 'time goes on in a stream table with now()');
pass('time goes on in a stream table with now()');

write_stock("apple,4\npear,1\n");
$node->wait_until('SELECT count(*) = 2 AND sum(n) = 5 FROM of_file', 'a file is followed');
$node->wait_until('SELECT n = 4 FROM joined', 'the consumer follows');
$node->verify('joined', 'what changed in a file reaches a consumer');
by_delta('joined');

$remote->safe_psql('postgres', q{INSERT INTO prices VALUES ('apple', 10), ('pear', 20)});
$node->wait_until('SELECT count(*) = 2 FROM of_shop', 'a table on another server is followed');
$node->wait_until('SELECT price = 10 FROM priced', 'the consumer follows');
$remote->safe_psql('postgres', q{UPDATE prices SET price = 11 WHERE item = 'apple'});
$node->wait_until('SELECT price = 11 FROM priced', 'the consumer follows an update');
by_delta('priced');
is(history('of_shop', 'max(rows_inserted + rows_deleted)', 'rows_deleted > 0'),
	2, 'a full refresh writes only the difference');

$node->sql('INSERT INTO drafts VALUES (1), (2)');
$node->wait_until('SELECT n = 2 FROM of_drafts', 'an unlogged table is followed');
$node->sql('UPDATE hidden SET n = 7');
$node->wait_until('SELECT n = 7 FROM of_function', 'what a STABLE function reads is followed');

is($node->sql('SELECT at FROM whenever'), $whenever, 'a manual one waits until somebody asks');
$node->refresh('whenever');
isnt($node->sql('SELECT at FROM whenever'), $whenever, 'and then follows');
is(history('steady', 'count(*)', 'true'), 0, 'what only depends on the owner is not refreshed by the clock');

# Each of them against its query at one moment: only a tick can do that.
$node->verify($_) foreach qw(moment of_file of_shop of_drafts of_function whenever steady priced);

# --- a consumer that is asked brings the clocks of everything upstream along
$node->create_stream_table('late', 'SELECT count(*) AS n, max(at) AS at FROM whenever');
$before = $node->sql('SELECT at FROM whenever');
$node->verify('late', 'a stream table over one that follows the clock is verified down to the sources');
cmp_ok($node->sql("SELECT at > '$before' FROM whenever"), 'eq', 't', 'for which the one below was refreshed');

# --- refreshes that change nothing share rows of the history
write_stock("apple,5\n");
$node->wait_until('SELECT sum(n) = 5 FROM of_file', 'the file is read again');
my $refreshes = history('of_file', 'sum(refreshes)', 'true');
$node->wait_until("SELECT total_refreshes > $refreshes + 5 FROM pgtrickle.pg_stat_stream_tables WHERE pgt_name = 'of_file'",
	'more refreshes');
cmp_ok(history('of_file', 'max(refreshes)', 'rows_inserted + rows_deleted = 0'), '>', 2,
	'refreshes by the clock that change nothing are summed up');

# --- sources that are gone
my $last_refresh = $node->sql("SELECT max(refresh_id) FROM pgtrickle.pgt_refresh_history");
$remote->stop('immediate');
unlink $stock;
$node->wait_until("SELECT count(*) = 2 FROM pgtrickle.pgt_stream_tables WHERE pgt_name IN ('of_file', 'of_shop') AND consecutive_errors >= 3",
	'both fail, more often than others may before they are suspended');
is($node->sql(q{SELECT count(*) FROM pgtrickle.pgt_stream_tables WHERE pgt_name IN ('of_file', 'of_shop') AND status = 'ACTIVE'}),
	2, 'they are tried again and not suspended');
is($node->sql('SELECT item, price FROM of_shop ORDER BY item'), "apple|11\npear|20", 'the last rows stay');
like($node->sql("SELECT last_error_message FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'of_shop'"),
	qr/could not connect to server "shop"/, 'the error of the server is shown');
like($node->sql("SELECT last_error_message FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'of_file'"),
	qr/could not open file/, 'and that of the file');
is(history('of_shop', "count(*) > 0", "h.status = 'FAILED' AND refresh_id > $last_refresh"), 't', 'in the history, too');
is($node->sql(q{SELECT status FROM pgtrickle.quick_health}), 'CRITICAL', 'and in the overview');

$before = $node->sql('SELECT at FROM moment');
$node->sql(q{INSERT INTO orders VALUES (2, 'pear')});
$node->wait_until('SELECT count(*) = 2 FROM priced', 'a consumer goes on with the last rows');
$node->wait_until("SELECT count(*) = 2 FROM moment WHERE at > '$before'", 'and so does everybody else');
pass('others go on');

$remote->start;
$remote->safe_psql('postgres', q{UPDATE prices SET price = 12 WHERE item = 'apple'});
write_stock("apple,6\n");
$node->refresh('of_shop');
is($node->sql('SELECT price FROM of_shop WHERE item = \'apple\''), 12, 'a server that is back is read again');
$node->wait_until('SELECT n = 6 FROM joined', 'and so is a file, by itself');
$node->wait_until("SELECT bool_and(consecutive_errors = 0) FROM pgtrickle.pgt_stream_tables", 'no error is left');
$node->verify($_) foreach qw(of_file of_shop joined priced);

# --- what is wrong in a foreign table is wrong only for a while: nobody has to say that it has been put right
write_stock("apple,many\n");
$node->wait_until("SELECT consecutive_errors >= 3 FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'of_file'", 'a wrong row fails again and again');
is($node->sql(q{SELECT status, last_error_message LIKE 'invalid input syntax%' FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'of_file'}), 'ACTIVE|t',
	'and is no reason to suspend');
write_stock("apple,8\n");
$node->wait_until("SELECT consecutive_errors = 0 FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'of_file'", 'put right, it goes on by itself');
is($node->sql('SELECT n FROM of_file'), 8, 'with the new rows');

# --- materialized views need no clock: their refreshes are noticed
$node->sql('CREATE MATERIALIZED VIEW kept AS SELECT count(*) AS n FROM drafts');
$node->create_stream_table('of_kept', 'SELECT n FROM kept', schedule => '300ms');
$node->sql('INSERT INTO drafts VALUES (3); REFRESH MATERIALIZED VIEW kept');
$node->wait_until('SELECT n = 3 FROM of_kept', 'a materialized view is followed when it is refreshed');
is($node->sql("SELECT clock_reason IS NULL FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'of_kept'"),
	't', 'a materialized view is followed without the clock');

# --- a view that begins to look at the clock
$node->sql('CREATE VIEW seen AS SELECT id, item FROM orders');
$node->create_stream_table('of_view', 'SELECT * FROM seen', schedule => '300ms');
is($node->sql("SELECT clock_reason IS NULL FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'of_view'"),
	't', 'a view over a table does not follow the clock');
$node->sql(q{CREATE OR REPLACE VIEW seen AS SELECT id, now()::text AS item FROM orders});
$node->wait_until("SELECT clock_reason IS NOT NULL FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'of_view'",
	'it does when the view is replaced by one with now()');
$before = $node->sql('SELECT max(item) FROM of_view');
$node->wait_until("SELECT max(item) <> '$before' FROM of_view", 'and time goes on');
$node->sql(q{CREATE OR REPLACE VIEW seen AS SELECT id, item FROM orders});
$node->wait_until("SELECT clock_reason IS NULL FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'of_view'",
	'until it is replaced again');
$node->verify('of_view');

$node->stop_applier;
$remote->stop;
done_testing();
