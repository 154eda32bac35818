# t/620_copying.pl
#
# Goal: "pgtrickle copy" copies tables in parts, resumes after a kill where it was, respects its limits, and says what stands in
#       its way.
# Method: two clusters, the worker run by hand (no applier): what the daemon would say about the stream is said by the test.  Rows that
# nobody changes meanwhile must be there once and as they were; what writers do is for the stream to bring.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster qw(sql_literal);
use StreamTables::Replica;
use Test::More;
use Time::HiRes qw(time usleep);

my $replica = StreamTables::Replica->new('copying');
my ($source, $target) = ($replica->source, $replica->target);
my $remote_id = $target->sql('SELECT remote_id FROM pgtrickle.remote_catalog()');

$source->sql(
	q{CREATE SCHEMA app;
	CREATE TABLE app.orders (id bigint PRIMARY KEY, customer text, amount numeric);
	INSERT INTO app.orders SELECT i * 3, 'customer ' || i % 100, i FROM generate_series(1, 20000) i;
	CREATE TABLE app.pairs (a int, b text, note text, PRIMARY KEY (b, a));
	INSERT INTO app.pairs SELECT i, 'b' || i % 50, 'n' FROM generate_series(1, 5000) i;
	CREATE TABLE app.scattered (id uuid PRIMARY KEY, n int);
	INSERT INTO app.scattered SELECT md5(i::text)::uuid, i FROM generate_series(1, 20000) i;
	CREATE TABLE app.log (at int, line text);
	ALTER TABLE app.log REPLICA IDENTITY FULL;
	INSERT INTO app.log SELECT i % 1000, 'line' FROM generate_series(1, 10000) i;
	CREATE TABLE app.empty (id int PRIMARY KEY);
	ANALYZE});

sub copies
{
	my ($columns, $condition) = @_;

	return $target->sql("SELECT $columns FROM pgtrickle.copy_catalog() WHERE "
		  . ($condition // 'true')
		  . ' ORDER BY remote_table');
}

# What the daemon does when the stream carries the tables.
sub stream_carries_them
{
	return $target->sql(
		"SELECT pgtrickle.remote_streams($remote_id, (SELECT array_agg(remote_relid) FROM pgtrickle.copy_catalog()), '0/1')");
}

# Rows and their sum, of the loaded table or of the remote's.
sub contents
{
	my ($node, $table) = @_;

	return $node->sql("SELECT count(*), sum(hashtext(t::text)) FROM $table t");
}

sub is_loaded
{
	my ($table, $test_name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $loaded = copies('load_table', 'remote_table = ' . sql_literal($table));
	return is(contents($target, $loaded), contents($source, "app.$table"), $test_name);
}

# --- defining

$replica->request("app.$_") foreach qw(orders pairs log empty scattered);
$target->sql("SELECT pgtrickle.remote_started($remote_id, '1', 1, 'postgres', '0/1', NULL)");
$target->run_program('copy');
is(copies('remote_table, status, has_key'),
	"empty|WANTED|t\nlog|WANTED|f\norders|WANTED|t\npairs|WANTED|t\nscattered|WANTED|t", 'the tables are made');
is($target->sql(q{SELECT string_agg(pg_get_indexdef(indexrelid), ' ') ~ '\(b, a\)$' FROM pg_index WHERE indrelid = 'app.pairs'::regclass}),
	't', 'with the key in its order');
like($target->psql_error('INSERT INTO app.orders VALUES (1)'), qr/read-only/, 'and nobody else writes them');

# --- copying while writers are at work

is(stream_carries_them(), '5', 'the stream carries them');
my $stop = 0;
my $writer = $source->background_psql('postgres', on_error_stop => 1);
$writer->query_safe(
	q{CREATE PROCEDURE app.write() LANGUAGE plpgsql AS $$
	BEGIN
		FOR i IN 1 .. 100000 LOOP
			INSERT INTO app.orders VALUES (i * 3 + 1, 'new', i);
			DELETE FROM app.orders WHERE id = (i - 50) * 3 + 1;
			COMMIT;
			EXIT WHEN EXISTS (SELECT FROM app.empty);
		END LOOP;
	END $$});
$writer->{stdin} .= "CALL app.write();\n";
$writer->{run}->pump_nb;

# Slow enough to be killed in the middle.
sub start_worker
{
	my (@arguments) = @_;

	my ($out, $err) = ('', '');
	return IPC::Run::start([ $target->_program('copy', @arguments) ], '<', \undef, '>', \$out, '2>', \$err);
}

my $worker = start_worker('--chunk-rows', 500, '--rate-limit', '200kB');
$target->wait_until(q{SELECT count(*) >= 10 FROM pgtrickle.copy_catalog() c, pgtrickle.copy_chunk_list(c.copy_id) k
	WHERE c.remote_table = 'orders' AND k.status = 'DONE'}, 'some parts are done');
my ($ok, $stdout, $stderr) = $target->try_program('copy');
like($stderr, qr/another worker copies from remote "shop"/, 'a second worker leaves the remote to the first one');
$worker->signal('KILL');
$worker->finish;

my $chunks = q{SELECT count(*), count(*) FILTER (WHERE k.status = 'DONE'), sum(k.row_count) FROM pgtrickle.copy_catalog() c, pgtrickle.copy_chunk_list(c.copy_id) k WHERE c.remote_table = 'orders'};
$target->wait_until(q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'pgtrickle copy'});
my ($all, $done, $rows) = split /\|/, $target->sql($chunks);
cmp_ok($done, '<', $all, "the worker was killed when $done of $all parts were done");
my $load_table = copies('load_table', q{remote_table = 'orders'});
is($target->sql("SELECT count(*) FROM $load_table"), $rows, 'what is done has its rows, and nothing else is there');
my $first = $target->sql("SELECT max(xmin::text::bigint) FROM $load_table");

my $began = time;
$target->run_program('copy', '--chunk-rows', 500);
is(copies('load_table', q{remote_table = 'orders'}), $load_table, 'the next worker goes on with the same table');
my $kept = $target->sql("SELECT count(*) FROM $load_table WHERE xmin::text::bigint <= $first");
is($kept, $rows, 'and does not copy again what was done');
is(copies('remote_table, status'),
	"empty|COPIED\nlog|COPIED\norders|COPIED\npairs|COPIED\nscattered|COPIED", 'everything is copied');
$source->sql('INSERT INTO app.empty VALUES (1)');
$writer->quit;

is( $target->sql("SELECT count(*), sum(amount) FROM $load_table WHERE id % 3 = 0"),
	$source->sql('SELECT count(*), sum(amount) FROM app.orders WHERE id % 3 = 0'),
	'rows that nobody changed are there once');
is_loaded('pairs', 'a key of two columns');
is_loaded('scattered', 'a key whose order is not that of the rows');
is($target->sql(q{SELECT count(*) BETWEEN 2 AND 16 FROM pgtrickle.copy_catalog() c, pgtrickle.copy_chunk_list(c.copy_id) WHERE c.remote_table = 'scattered'}),
	't', 'in a few parts, since each may read the whole table');
is_loaded('log', 'a table without a key, by one snapshot');
is($target->sql('SELECT bool_and(copied_lsn >= copied_from) FROM pgtrickle.copy_catalog()'), 't', 'the positions are in order');
is($target->sql(q{SELECT bool_and((copied_snapshot IS NULL) = has_key) FROM pgtrickle.pgt_copy_states}),
	't', 'and the snapshot is known where it is needed');
is( $target->sql(
		q{SELECT count(*) FROM pgtrickle.pgt_copy_states WHERE rows_copied > 0 AND bytes_copied > 0 AND ended_at >= started_at}),
	'4', 'progress is told');
is( $source->sql(q{SELECT count(*) FROM pg_replication_slots}) . $source->sql(
		q{SELECT count(*) FROM pg_class WHERE relname LIKE 'pgt%'}),
	'00', 'nothing is left on the remote');

# --- limits

sub copy_again
{
	my ($table) = @_;

	$target->sql("SELECT pgtrickle.recopy('app.$table', 'test')");
	return stream_carries_them();
}

copy_again('pairs');
$began = time;
$target->run_program('copy', '--rate-limit', '40kB');
my $bytes = $target->sql(q{SELECT bytes_copied FROM pgtrickle.pgt_copy_states JOIN pgtrickle.pgt_copies USING (copy_id) WHERE remote_table = 'pairs'});
cmp_ok(time - $began, '>=', $bytes / 40960 * 0.8 - 0.2, 'the rate limit is kept');

# --- a copying that is given up while it runs

copy_again('orders');
$worker = start_worker('--chunk-rows', 500, '--rate-limit', '200kB');
$target->wait_until(q{SELECT count(*) >= 2 FROM pgtrickle.copy_catalog() c, pgtrickle.copy_chunk_list(c.copy_id) k
	WHERE c.remote_table = 'orders' AND k.status = 'DONE'});
$target->sql(q{SELECT pgtrickle.recopy('app.orders', 'from the beginning')});
ok(!$worker->finish, 'the worker notices that its copying was given up');
is(copies('status', q{remote_table = 'orders'}), 'WANTED', 'and leaves the new state alone');

# --- a transaction that may be in neither the stream nor the snapshots

stream_carries_them();
my $old = $source->background_psql('postgres', on_error_stop => 1);
$old->query_safe(q{BEGIN; INSERT INTO app.orders VALUES (-1, 'old', 0)});
$worker = start_worker();
$source->wait_until(q{SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'pgtrickle copy' AND query ~ 'pg_snapshot_xmin'});
is(copies('load_table', q{remote_table = 'orders'}), '', 'the worker waits for a transaction that is older than the copying');
$old->query_safe('COMMIT');
$old->quit;
ok($worker->finish, 'and goes on when it has ended');
is( $target->sql('SELECT count(*) FROM ' . copies('load_table', q{remote_table = 'orders'}) . ' WHERE id = -1'),
	'1', 'with its row');

# --- what cannot be reached

$source->stop;
copy_again('orders');
($ok, $stdout, $stderr) = $target->try_program('copy');
ok(!$ok, 'the worker fails when the remote is down');
like($stderr, qr/ERROR:  remote "shop": could not connect/, 'and says so');
like($target->sql('SELECT last_error_message FROM pgtrickle.pgt_remote_states'), qr/could not connect/, 'also in the catalog');
$source->start;
$target->run_program('copy');
is(copies('status', q{remote_table = 'orders'}), 'COPIED', 'later it is copied');
($ok, $stdout, $stderr) = $target->try_program('copy', '--remote', 'nowhere');
like($stderr, qr/remote "nowhere" does not exist/, 'a remote that is not there');

done_testing();
