# t/630_pgoutput.pl
#
# Goal: where the decoder cannot be installed, pgoutput and a publication serve as well: the same copies, exactly.
# Method: a source that loads no other plugin; tables with every kind of identity, types of the source's own, partitions, long values that do not
# change, key changes, savepoints, truncation; a pair with another encoding, over TLS; compared with the source after each step.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster qw(sql_literal);
use StreamTables::Replica;
use Test::More;

my $replica = StreamTables::Replica->new('published', remotes => []);
my $target = $replica->target;
my $source = $replica->add_source('shop', conf => StreamTables::Cluster::server_has_setting('output_plugin_libraries')
	? "output_plugin_libraries = 'pgoutput'" : '');

$source->sql(
	q{CREATE SCHEMA app;
	CREATE TYPE app.mood AS ENUM ('sad', 'so so', 'happy');
	CREATE TYPE app.pair AS (a int, m app.mood);
	CREATE DOMAIN app.positive AS numeric CHECK (VALUE > 0);
	CREATE TABLE app.orders (id int PRIMARY KEY, customer int, amount numeric(10,2), note text, m app.mood, ms app.mood[], p app.pair,
		pos app.positive, at timestamptz, b bytea, f float8, iv interval, j jsonb);
	ALTER TABLE app.orders ALTER note SET STORAGE EXTERNAL;
	CREATE TABLE app.coded (code text NOT NULL, v int, gone int);
	CREATE UNIQUE INDEX coded_code ON app.coded (code);
	ALTER TABLE app.coded REPLICA IDENTITY USING INDEX coded_code;
	ALTER TABLE app.coded DROP COLUMN gone;
	CREATE TABLE app.bag (a int, t text);
	ALTER TABLE app.bag REPLICA IDENTITY FULL;
	CREATE TABLE app.parts (id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
	CREATE TABLE app.parts_1 PARTITION OF app.parts FOR VALUES IN (1);
	CREATE TABLE app.parts_2 (k int, v text, id int);
	ALTER TABLE app.parts_2 ALTER id SET NOT NULL, ALTER k SET NOT NULL;
	ALTER TABLE app.parts ATTACH PARTITION app.parts_2 FOR VALUES IN (2);
	CREATE TABLE app.unpublished (id int PRIMARY KEY);
	INSERT INTO app.orders SELECT i, i % 7, i / 3.0, repeat(md5(i::text), i % 200), 'sad', '{sad,NULL,"so so"}', ('(' || i || ',happy)')::app.pair, i, '2024-01-01 12:00+02'::timestamptz + i * interval '1 hour',
		decode(md5(i::text), 'hex'), i / 7.0, i * interval '1 day 2 hours', jsonb_build_object('i', i) FROM generate_series(1, 300) i;
	INSERT INTO app.coded SELECT 'c' || i, i FROM generate_series(1, 100) i;
	INSERT INTO app.bag SELECT i % 10, 't' || i % 3 FROM generate_series(1, 100) i;
	INSERT INTO app.parts SELECT i, 1 + i % 2, 'v' FROM generate_series(1, 100) i;
	CREATE PUBLICATION "for pgtrickle" FOR TABLE app.orders, app.coded, app.bag, app.parts WITH (publish_via_partition_root = true)});
# What the role says of how values look must not matter.
$source->sql(
	q{CREATE ROLE reader REPLICATION LOGIN; GRANT USAGE ON SCHEMA app TO reader; GRANT SELECT ON ALL TABLES IN SCHEMA app TO reader;
	ALTER ROLE reader SET DateStyle = 'German'; ALTER ROLE reader SET IntervalStyle = 'sql_standard'; ALTER ROLE reader SET extra_float_digits = 0;
	ALTER ROLE reader SET bytea_output = escape});
$replica->add_remote('shop', output_plugin => 'pgoutput', publication => 'for pgtrickle', conninfo => $source->connstr('postgres') . ' user=reader');
$target->start_applier;
my @tables = qw(app.orders app.coded app.bag app.parts);
$replica->copy(@tables);
$replica->settle;

sub all_equal
{
	my ($when) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$replica->wait_positions;
	$replica->is_equal($_, "$when: $_") foreach @tables;
	return;
}

all_equal('after the first copy');
$target->create_stream_table('totals',
	'SELECT o.customer, o.m, sum(o.amount) AS total, count(*) AS n, sum(length(o.note)) AS letters FROM app.orders o GROUP BY o.customer, o.m');
$target->create_stream_table('joined', 'SELECT p.k, count(*) AS n, sum(c.v) AS v FROM app.parts p JOIN app.coded c ON c.v = p.id GROUP BY p.k');
$target->create_stream_table('bags', 'SELECT a, count(*) AS n FROM app.bag GROUP BY a');
$target->wait_fresh(qw(totals joined bags));

sub step
{
	my ($what, $sql) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$source->sql($sql);
	all_equal($what);
	$target->wait_fresh(qw(totals joined bags));
	$target->is_current($_, "$what: $_") foreach qw(totals joined bags);
	return;
}

step('values that do not change and are not sent', q{UPDATE app.orders SET amount = amount + 1 WHERE id % 3 = 0; UPDATE app.orders SET m = 'happy' WHERE id < 50});
step('other keys', q{UPDATE app.orders SET id = id + 1000 WHERE id % 10 = 0; UPDATE app.coded SET code = 'x' || code WHERE v % 4 = 0});
step('bags', q{INSERT INTO app.bag SELECT 1, 'twice' FROM generate_series(1, 3); UPDATE app.bag SET a = a + 1 WHERE t = 't1';
	DELETE FROM app.bag WHERE ctid IN (SELECT ctid FROM app.bag WHERE a = 1 LIMIT 5); INSERT INTO app.bag VALUES (NULL, NULL), (NULL, '')});
step('partitions', q{UPDATE app.parts SET k = 3 - k WHERE id % 5 = 0; INSERT INTO app.parts VALUES (1000, 2, 'new'); DELETE FROM app.parts WHERE id = 7});
step('subtransactions', q{BEGIN; INSERT INTO app.coded VALUES ('s1', 1); SAVEPOINT s; DELETE FROM app.coded; ROLLBACK TO s; UPDATE app.coded SET v = -v WHERE code = 's1'; COMMIT;
	BEGIN; DELETE FROM app.orders; ROLLBACK});
step('types', q{INSERT INTO app.orders (id, m, ms, p, pos, at, b, f, iv) VALUES (5000, 'so so', '{}', '(,)', 1e-10, 'infinity', '', 'NaN', '-1 year 2 days -03:04'),
	(5001, NULL, NULL, NULL, NULL, '2024-03-04 05:06:07.89+00', '\x00ff', 0.1, '1 mon')});
step('truncation', q{TRUNCATE app.bag, app.parts; INSERT INTO app.parts VALUES (1, 1, 'after')});
$source->sql('INSERT INTO app.unpublished VALUES (1)');
$replica->were_copied_once;

# --- over TLS, with a service file and a password file -----------------------------------------------------------------

my $folder = PostgreSQL::Test::Utils::tempdir();
my $port = $source->port;
PostgreSQL::Test::Utils::run_log(
	[ 'openssl', 'req', '-new', '-x509', '-days', '2', '-nodes', '-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1',
		'-keyout', $source->data_dir . '/server.key', '-out', $source->data_dir . '/server.crt' ]);
chmod 0600, $source->data_dir . '/server.key';
$source->sql(q{SET password_encryption = 'scram-sha-256'; ALTER ROLE reader PASSWORD 'secret'});
$source->append_conf('postgresql.conf', "ssl = on\nlisten_addresses = '127.0.0.1'");
my $hba = slurp_file($source->data_dir . '/pg_hba.conf');
write_file($source->data_dir . '/pg_hba.conf', "hostssl all reader 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 reject\n$hba");
write_file("$folder/services", "[shop]\nhost=127.0.0.1\nport=$port\ndbname=postgres\nuser=reader\nsslmode=verify-full\nsslrootcert=" . $source->data_dir . "/server.crt\n");
write_file("$folder/passwords", "127.0.0.1:$port:*:reader:secret\n");
chmod 0600, "$folder/passwords";
$target->stop_applier;
$source->restart;
$target->sql(q{SELECT pgtrickle.alter_remote('shop', conninfo => 'service=shop')});
$target->start_applier(env => { PGSERVICEFILE => "$folder/services", PGPASSFILE => "$folder/passwords" });
step('over TLS', q{UPDATE app.coded SET v = v + 1; INSERT INTO app.orders (id, m) VALUES (6000, 'sad')});
is( $source->sql(q{SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)}), 't', 'the stream is encrypted');
# But for the table whose partitions have been truncated: who looks at their files cannot know that all of that came.
is($target->sql(q{SELECT string_agg(relid::text, ' ') FROM pgtrickle.pgt_copies JOIN pgtrickle.pgt_copy_states USING (copy_id) WHERE times_copied > 1 AND relid <> 'app.parts'::regclass}),
	'', 'nothing was copied again for it');

sub write_file
{
	my ($path, $text) = @_;

	open my $handle, '>', $path or die "could not write $path: $!";
	print $handle $text;
	close $handle or die "could not write $path: $!";
	return;
}

# --- another encoding ---------------------------------------------------------------------------------------------

my $latin = StreamTables::Cluster->new('latin');
$latin->init(allows_streaming => 'logical', extra => [ '--encoding=LATIN1', '--locale=C' ]);
$latin->append_conf('postgresql.conf', $latin->_settings);
$latin->start;
$replica->{sources}{latin} = $latin;
foreach my $plugin (qw(pgoutput pgtrickle_decoder))
{
	my $table = $plugin eq 'pgoutput' ? 'words' : 'phrases';
	$latin->sql(
		qq{SET client_encoding = UTF8; CREATE SCHEMA IF NOT EXISTS l; CREATE TYPE l."m\x{c3}\x{b6}$table" AS ENUM ('d\x{c3}\x{b6}d', 'x');
		CREATE TABLE l.$table (id int PRIMARY KEY, "w\x{c3}\x{b6}rd" text, j jsonb, m l."m\x{c3}\x{b6}$table", a text[]);
		INSERT INTO l.$table VALUES (1, 'caf\x{c3}\x{a9}', '"\x{c3}\x{a9}"', 'd\x{c3}\x{b6}d', '{\x{c3}\x{bc}}');
		CREATE PUBLICATION $table FOR TABLE l.$table});
	$replica->add_remote("latin_$table", output_plugin => $plugin, publication => $table, conninfo => $latin->connstr('postgres'));
	$replica->copy([ "latin_$table", "l.$table" ]);
	$latin->sql(
		qq{SET client_encoding = UTF8; UPDATE l.$table SET "w\x{c3}\x{b6}rd" = "w\x{c3}\x{b6}rd" || '\x{c3}\x{9f}', m = 'x'; INSERT INTO l.$table VALUES (2, '\x{c3}\x{80}', '{"\x{c3}\x{80}": 1}', 'd\x{c3}\x{b6}d', '{a,\x{c3}\x{a4}}')});
	my $lsn = $latin->sql('SELECT pg_current_wal_flush_lsn()');
	$target->wait_until("SELECT position >= '$lsn' FROM pgtrickle.remote_catalog() WHERE remote_name = 'latin_$table'");
	is( $target->sql("SELECT * FROM l.$table ORDER BY id"),
		$latin->sql("SET client_encoding = UTF8; SELECT * FROM l.$table ORDER BY id"),
		"$plugin from LATIN1 to UTF8");
}

$target->stop_applier;
done_testing();
