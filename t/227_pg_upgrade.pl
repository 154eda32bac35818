# t/227_pg_upgrade.pl
#
# Goal: stream tables survive pg_upgrade to a newer server, and are maintained again after one command.
# Method: stream tables of several kinds on an old server, pg_upgrade to this one, `pgtrickle setup`, an applier; compare, write, compare. Needs an
#         installation of an older server with pgtrickle, which PGTRICKLE_OLD_BINDIR names: tools/check-upgrade makes one.
use strict;
use warnings FATAL => 'all';

use File::Basename qw(dirname);
use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;

my $old_bindir = $ENV{PGTRICKLE_OLD_BINDIR};
plan skip_all => 'PGTRICKLE_OLD_BINDIR names no older server: see tools/check-upgrade' if !$old_bindir;

my $old = StreamTables::Cluster->new('old', install_path => dirname($old_bindir));
$old->boot;
$old->start_applier;
$old->sql(
	q{CREATE ROLE "the owner"; CREATE SCHEMA mart AUTHORIZATION "the owner"; GRANT CREATE ON SCHEMA public TO "the owner";
	CREATE TYPE mood AS ENUM ('sad', 'ok');
	CREATE TABLE orders (id int PRIMARY KEY, customer int, amount numeric(10,2), m mood); ALTER TABLE orders OWNER TO "the owner";
	INSERT INTO orders SELECT i, i % 7, i, 'ok' FROM generate_series(1, 100) i;
	CREATE FUNCTION rated(numeric) RETURNS numeric IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1 * 2; END'; ALTER FUNCTION rated OWNER TO "the owner";
	CREATE TABLE parts (id int, k int) PARTITION BY LIST (k); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1); INSERT INTO parts VALUES (1, 1);
	ALTER TABLE parts OWNER TO "the owner"; ALTER TABLE parts_1 OWNER TO "the owner";
	SET ROLE "the owner";
	SELECT pgtrickle.create_stream_table('totals', 'SELECT customer, m, avg(amount) AS a, max(amount) AS x FROM orders GROUP BY customer, m', 'continuous');
	SELECT pgtrickle.create_stream_table('mart."The Rows"', 'SELECT rated(amount) AS r FROM orders', '1s');
	SELECT pgtrickle.create_stream_table('upper', 'SELECT count(*) AS n, sum(x) AS s FROM totals', 'continuous');
	SELECT pgtrickle.create_stream_table('full_one', 'SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY amount) AS p FROM orders', '1s', 'FULL');
	SELECT pgtrickle.create_stream_table('part_counts', 'SELECT k, count(*) AS n FROM parts GROUP BY k', 'continuous');
	CREATE INDEX ON totals (a); COMMENT ON TABLE totals IS 'kept'});
my @names = ('totals', 'mart."The Rows"', 'upper', 'full_one', 'part_counts');
$old->refresh($_) foreach @names;
my $version = $old->sql('SHOW server_version');
$old->stop_applier;
# the last changes that the old server sees have not been applied when it stops
$old->sql(q{INSERT INTO orders VALUES (1001, 3, 77, 'sad')});
my $oids = $old->sql(q{SELECT string_agg(pgt_relid::text, ' ' ORDER BY pgt_id) FROM pgtrickle.pgt_stream_tables});
# Minor releases of 15 that note a version of each column have come out before the minor releases of newer servers that can read it.  It stops
# pg_upgrade of any table, which is not our concern here.
$old->safe_psql($_, q{SET allow_system_table_mods = on; UPDATE pg_attribute SET attoptions =
		nullif(ARRAY(SELECT o FROM unnest(attoptions) o WHERE o NOT LIKE 'pg\_attver=%'), '{}') WHERE attoptions::text LIKE '%pg\_attver=%'})
  foreach ('postgres', 'template1');
$old->sql(q{SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots});
$old->stop;

my $new = StreamTables::Cluster->new('new');
$new->init(allows_streaming => 'logical', extra => [ '--encoding=UTF8', '--locale=C', $new->pg_version >= 18 ? '--no-data-checksums' : () ]);
$new->append_conf('postgresql.conf', $new->_settings);
my $new_bindir = $new->config_data('--bindir');
chdir $new->basedir or die $!;
command_ok(
	[ 'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $old_bindir, '-B', $new_bindir,
		'-s', $new->host, '-p', $old->port, '-P', $new->port ],
	"pg_upgrade from $version");
$new->start;
is($new->sql(q{SELECT string_agg(pgt_relid::text, ' ' ORDER BY pgt_id) FROM pgtrickle.pgt_stream_tables}), $oids, 'definitions and tables are the same');
is($new->sql('SELECT count(*) FROM totals'), 7, 'with their rows');
$new->run_program('setup');
$new->start_applier;

sub all_follow
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	foreach my $name (@names)
	{
		$new->refresh($name);
		$new->verify($name, "$what: $name");
	}
	return;
}

all_follow('after the upgrade');
is($new->sql(q{SELECT count(*) FROM totals WHERE m = 'sad'}), 1, 'what was committed last is in');
my $known = $new->sql('SELECT max(refresh_id) FROM pgtrickle.pgt_history');
$new->sql(q{INSERT INTO orders SELECT i, 3, 50, 'ok' FROM generate_series(2001, 2010) i; UPDATE orders SET amount = amount + 1 WHERE id % 10 = 3;
	DELETE FROM orders WHERE id = 5; INSERT INTO parts VALUES (2, 1)});
all_follow('and later');
is( $new->sql("SELECT count(*) FROM pgtrickle.pgt_history JOIN pgtrickle.pgt_definitions d USING (pgt_id)
		WHERE action = 'FULL' AND refresh_id > $known AND d.relid IN ('totals'::regclass, 'upper'::regclass)"), 0, 'by delta');
$new->sql('CREATE OR REPLACE FUNCTION rated(numeric) RETURNS numeric IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN $1 * 3; END$$');
$new->verify('mart."The Rows"', 'functions are followed, whose OIDs are others now');
like($new->psql_error('DELETE FROM totals'), qr/cannot change stream table/, 'they are guarded');
is($new->sql(q{SELECT pgtrickle.create_or_replace_stream_table('totals', 'SELECT customer, m, avg(amount) AS a, min(amount) AS x FROM orders GROUP BY customer, m', 'continuous')}),
	'replaced in place', 'and can be changed');
all_follow('and followed');
$new->stop_applier;
$new->sql('DROP EXTENSION pgtrickle CASCADE');
is($new->sql(q{SELECT count(*) FROM pg_class WHERE relname ~ '^pgt_state_' OR relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'pgtrickle')}),
	0, 'DROP EXTENSION leaves nothing behind');

done_testing();
