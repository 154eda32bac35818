# t/623_replica_setup.pl
#
# Goal: "pgtrickle setup --source" makes a remote ready or leaves nothing behind; setup and doctor find every fault on the remote and name its repair;
#       the role there needs REPLICATION, CONNECT and SELECT, nothing else; status and drop know remotes.
# Method: a remote that starts out unprepared, with a role that has no rights; each fault is repaired by what was printed.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use Test::More;

my $source = StreamTables::Cluster->new('shop');
$source->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
$source->append_conf('postgresql.conf', "wal_level = replica\nmax_replication_slots = 1\nmax_wal_senders = 4\nmax_slot_wal_keep_size = '1GB'\n");
my $knows_libraries = StreamTables::Cluster::server_has_setting('output_plugin_libraries');
$source->append_conf('postgresql.conf', "output_plugin_libraries = 'test_decoding'\n") if $knows_libraries;
$source->start;
$source->sql(
	q{CREATE ROLE reader LOGIN; CREATE SCHEMA app;
	CREATE TABLE app.orders (id int PRIMARY KEY, v text);
	CREATE TABLE app.visits (at int);
	CREATE TABLE app.secret (id int PRIMARY KEY);
	ALTER TABLE app.secret ENABLE ROW LEVEL SECURITY;
	INSERT INTO app.orders SELECT i, 'v' FROM generate_series(1, 10) i; INSERT INTO app.visits VALUES (1)});
my $target = StreamTables::Cluster->new('target')->boot(setup => 'none');
my $dsn = $source->connstr('postgres') . ' user=reader';
my @source = ('--source', $dsn, '--name', 'shop');

sub setup_says
{
	my ($arguments, $pattern, $test_name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($ok, $stdout, $stderr) = $target->try_program('setup', @source, @$arguments);
	ok(!$ok, "set-up fails: $test_name");
	like($stderr, $pattern, 'and says what to do');
	return;
}

# What there is of ours, on both sides.
sub inventory
{
	return $target->sql(
		q{SELECT count(*) FROM pg_extension WHERE extname = 'pgtrickle'}) . $source->sql(
		q{SELECT count(*) FROM pg_replication_slots WHERE slot_name ~ 'pgtrickle'});
}

# --- a remote that is not ready

setup_says([ '--table', 'app.orders' ], qr/FAILED +remote: wal_level is replica\n +repair: ALTER SYSTEM SET wal_level = 'logical'/, 'wal_level');
is(inventory(), '00', 'nothing was changed');
$source->sql(q{ALTER SYSTEM SET wal_level = 'logical'});
$source->restart;
setup_says(
	[ '--table', 'app.orders', '--table', 'app.secret', '--table', 'app.nothing' ],
	qr/FAILED +remote: role "reader" may not replicate\n +repair: ALTER ROLE "reader" REPLICATION;
FAILED +remote: role "reader" may not use schema "app" of the remote\n +repair: Run on the remote: GRANT USAGE ON SCHEMA app TO "reader";
.*FAILED +remote: the remote has no table "app.nothing"/s,
	'the role has no rights');
$source->sql('ALTER ROLE "reader" REPLICATION; GRANT USAGE ON SCHEMA app TO "reader"');
setup_says([ '--table', 'app.orders' ],
	qr/FAILED +remote: role "reader" may not read table "app.orders" of the remote\n +repair: Run on the remote: GRANT SELECT ON "app"."orders" TO "reader";/, 'it may not read');
$source->sql('GRANT SELECT ON ALL TABLES IN SCHEMA app TO "reader"');
setup_says([ '--table', 'app.secret' ],
	qr/FAILED +remote: row-level security hides rows of table "app.secret" .*\n +repair: Run on the remote: ALTER ROLE "reader" BYPASSRLS;/, 'rows are hidden from it');
if ($knows_libraries)
{
	setup_says([ '--table', 'app.orders' ],
		qr/pgtrickle: error: could not create replication slot "pgtrickle_postgres_shop" on the remote: .*\n/, 'the plugin may not be loaded');
	is(inventory(), '00', 'everything that was done before is undone');
	$source->sql(q{ALTER SYSTEM SET output_plugin_libraries = 'test_decoding', 'pgtrickle_decoder', 'pgoutput'});
	$source->reload;
	$source->wait_until(q{SELECT current_setting('output_plugin_libraries') ~ 'pgtrickle'});
}
$source->sql(q{SELECT pg_create_physical_replication_slot('other')});
setup_says([ '--table', 'app.orders' ],
	qr/FAILED +remote: all 1 replication slots are in use\n +repair: ALTER SYSTEM SET max_replication_slots = 11;/, 'no slot is free');
$source->sql(q{SELECT pg_drop_replication_slot('other')});
is(inventory(), '00', 'nothing was left behind');

# --- set-up

my $output = $target->run_program('setup', @source, '--table', 'app.orders', '--table', 'app.visits');
like($output, qr/^added remote "shop"\ncreated replication slot "pgtrickle_postgres_shop" on the remote\ncopies of "app.orders" are asked for\n/m, 'set-up tells what it does');
is(inventory(), '11', 'everything is there');
$output = $target->run_program('setup', @source, '--table', 'app.orders', '--table', 'app.visits');
unlike($output, qr/added|created|asked/, 'set-up again changes nothing');
is($source->sql(q{SELECT count(*) FROM pg_extension WHERE extname <> 'plpgsql'}) . $source->sql('SELECT count(*) FROM pg_event_trigger'),
	'00', 'the remote has no extension and no trigger of ours');

$target->start_applier(args => [ '--dbname', $target->connstr('postgres') . ' user=pgtrickle_applier' ]);
$target->sql(q{SELECT pgtrickle.wait_copied(timeout => '100s')});
is($target->sql('SELECT count(*) FROM app.orders'), '10', 'the roles have all the rights that copying needs');
is($target->sql(q{SELECT tableowner FROM pg_tables WHERE tablename = 'orders'}), 'pgtrickle_applier', 'the copies belong to the applier');
$source->sql(q{INSERT INTO app.orders VALUES (11, 'new')});
$target->wait_until('SELECT count(*) = 11 FROM app.orders', 'and following does');

# --- doctor and status

my ($ok, $stdout, $stderr) = $target->try_program('doctor', '--role', 'pgtrickle_applier');
ok($ok, 'doctor is content') or diag($stdout);
like($stdout, qr/^ok +remote shop: replication slot "pgtrickle_postgres_shop" is in use$/m, 'it has looked at the remote');
like($stdout, qr/^ok +remote shop: table "app.orders" can be copied$/m, 'and at the tables');
like($stdout, qr/^warning +remote shop: table "app.visits" can be copied as long as .*\n +repair: ALTER TABLE "app"."visits" REPLICA IDENTITY FULL;$/m,
	'a table without a key is a warning');
$output = $target->run_program('status');
like($output, qr/^remote +status +slot.*\nshop +ACTIVE +pgtrickle_postgres_shop +0\//m, 'status shows the remote');
like($output, qr/^app.orders +shop +ACTIVE/m, 'and its copies');

$source->sql('REVOKE SELECT ON app.orders FROM reader; ALTER TABLE app.visits RENAME TO visitors');
$target->sql(q{SELECT pgtrickle.recopy('app.visits')});
$target->wait_until(q{SELECT status = 'ERROR' FROM pgtrickle.copy_catalog() WHERE remote_table = 'visits'});
($ok, $stdout) = $target->try_program('doctor');
ok(!$ok, 'doctor finds what has happened to a remote');
like($stdout, qr/^FAILED +remote shop: role "reader" may not read table "app.orders" of the remote\n +repair: .*GRANT SELECT/m, 'a right that is gone');
like($stdout, qr/^FAILED +remote shop: copy app.visits has status ERROR: .*\n +repair: remove the cause, then SELECT pgtrickle.recopy\('app.visits'\);$/m, 'a copy that stands still');

# --- taking it away

($ok, $stdout, $stderr) = $target->try_program('drop', '--remote', 'shop');
ok(!$ok, 'the slot of a running applier is not dropped');
like($stderr, qr/could not drop replication slot "pgtrickle_postgres_shop" of remote "shop".*\nHINT:  Stop the applier first, or pause it/, 'and the error says why');
$target->stop_applier;
like($target->run_program('drop', '--remote', 'shop'), qr/^dropped replication slot "pgtrickle_postgres_shop" on the remote\ndropped remote "shop" and its copies$/m, 'drop');
is(inventory(), '10', 'the slot is gone');
is($target->sql(q{SELECT count(*) FROM pg_tables WHERE schemaname = 'app'}), '0', 'and the copies');

# --- the server's own plugin

$source->sql('GRANT SELECT ON ALL TABLES IN SCHEMA app TO reader');
setup_says([ '--publication', 'sales', '--table', 'app.orders' ],
	qr/could not create publication "sales" on the remote: .*\nHINT:  Have the owner of its tables run there: CREATE PUBLICATION "sales" FOR TABLE "app"."orders" WITH \(publish_via_partition_root = true\);/,
	'the role may not make a publication');
is($source->sql('SELECT count(*) FROM pg_replication_slots'), '0', 'nothing is left behind');
$source->sql('CREATE PUBLICATION sales FOR TABLE app.visitors');
setup_says([ '--publication', 'sales', '--table', 'app.orders' ],
	qr/publication "sales" does not have it\n +repair: Run on the remote: ALTER PUBLICATION "sales" ADD TABLE "app"."orders";/, 'the publication lacks a table');
setup_says([ '--publication', 'sales', '--table', 'app.visitors' ], qr/it has no key, and no REPLICA IDENTITY FULL/, 'a table without a key');
$source->sql('ALTER PUBLICATION sales ADD TABLE app.orders');
$target->run_program('setup', @source, '--publication', 'sales', '--table', 'app.orders');
is($source->sql('SELECT plugin FROM pg_replication_slots'), 'pgoutput', 'its slot has the server\'s plugin');
$target->run_program('drop');
is($source->sql('SELECT count(*) FROM pg_replication_slots'), '0', 'dropping everything drops the slots of remotes');

done_testing();
