# t/641_versions.pl
#
# Goal: source and target may be of different major versions, whichever is newer.
# Method: a pair in each direction; a column of every type that both have, user's types, values at the ends of their ranges; copied, then changed;
# compared.  Needs an installation of an older server with pgtrickle, which PGTRICKLE_OLD_BINDIR names: tools/check-upgrade makes one.
use strict;
use warnings FATAL => 'all';

use File::Basename qw(dirname);
use PostgreSQL::Test::Utils;
use StreamTables::Replica;
use Test::More;

my $old_bindir = $ENV{PGTRICKLE_OLD_BINDIR};
plan skip_all => 'PGTRICKLE_OLD_BINDIR names no older server: see tools/check-upgrade' if !$old_bindir;

my %old = (install_path => dirname($old_bindir));
my @columns = (
	[ 'bool', 'true' ], [ '"char"', q{'x'} ], [ 'int2', '-32768' ], [ 'int8', '9223372036854775807' ],
	[ 'float4', q{'1e-40'} ], [ 'float8', q{'-Infinity'} ], [ 'numeric', '1234567890.000123' ], [ 'money', q{'12.34'} ],
	[ 'text', q{E'\u4e2d\t\\\\'} ], [ 'varchar(10)', q{''} ], [ 'bpchar(5)', q{'ab'} ], [ 'name', q{'n'} ],
	[ 'bytea', q{'\x00ff'} ], [ 'date', q{'4713-01-01 BC'} ], [ 'time', q{'24:00'} ], [ 'timetz', q{'12:34+05'} ],
	[ 'timestamp', q{'infinity'} ], [ 'timestamptz', q{'2024-02-29 12:34:56.789+05:30'} ], [ 'interval', q{'-1 year 2 days -03:04:05.6'} ],
	[ 'uuid', q{'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'} ], [ 'json', q{'{"a" :  1}'} ], [ 'jsonb', q{'{"a": [1, null]}'} ],
	[ 'jsonpath', q{'$.a[*] ? (@ > 1)'} ], [ 'xml', q{'<a>b</a>'} ], [ 'inet', q{'10.0.0.1/8'} ], [ 'cidr', q{'10.0.0.0/8'} ],
	[ 'macaddr', q{'08:00:2b:01:02:03'} ], [ 'bit(3)', q{B'101'} ], [ 'varbit', q{B''} ], [ 'point', q{'(1,NaN)'} ], [ 'polygon', q{'((0,0),(1,1),(2,0))'} ],
	[ 'tsvector', q{'a:1A b:2'} ], [ 'tsquery', q{'a & b'} ], [ 'int4range', q{'[1,5)'} ], [ 'nummultirange', q{'{[1,2),[3,4)}'} ],
	[ 'tstzrange', q{'[2024-01-01 00:00+00,)'} ], [ 'xid8', q{'18446744073709551615'} ], [ 'pg_lsn', q{'1/2A'} ], [ 'pg_snapshot', q{'10:20:10,14'} ],
	[ 'regtype', q{'integer'} ], [ 'int4[]', q{'[0:1]={1,NULL}'} ], [ 'text[]', q{'{a,"b c",NULL}'} ], [ 'numeric[]', q{'{{1,2},{3,4}}'} ],
	[ 'app.mood', q{'so so'} ], [ 'app.mood[]', q{'{sad,NULL}'} ], [ 'app.pair', q{'(1,sad)'} ], [ 'app.pair[]', q{'{"(1,sad)"}'} ],
	[ 'app.positive', '7' ], [ 'app.moods', q{'[sad,"so so"]'} ],);
my $definition = join ', ', map { "c$_ $columns[$_][0]" } 0 .. $#columns;
my $values = join ', ', map { $_->[1] } @columns;

sub run_pair
{
	my ($name, %opt) = @_;

	my $replica = StreamTables::Replica->new($name, %opt);
	my ($source, $target) = ($replica->source, $replica->target);
	my $what = 'from ' . $source->sql('SHOW server_version_num') . ' to ' . $target->sql('SHOW server_version_num');
	isnt(int($source->pg_version), int($target->pg_version), "$name: $what");
	$source->sql(
		qq{CREATE SCHEMA app; CREATE TYPE app.mood AS ENUM ('sad', 'so so'); CREATE TYPE app.pair AS (a int, m app.mood);
		CREATE DOMAIN app.positive AS int CHECK (VALUE > 0); CREATE TYPE app.moods AS RANGE (subtype = app.mood);
		CREATE TABLE app.everything (id int PRIMARY KEY, $definition);
		INSERT INTO app.everything VALUES (1, $values); INSERT INTO app.everything VALUES (2); CREATE TABLE app.bag (a int, m app.mood); ALTER TABLE app.bag REPLICA IDENTITY FULL});
	$target->start_applier;
	$replica->copy('app.everything', 'app.bag');
	$target->create_stream_table('counts', 'SELECT m, count(*) AS n FROM app.bag GROUP BY m');
	$source->sql(
		qq{INSERT INTO app.everything VALUES (3, $values); UPDATE app.everything SET id = 20, c2 = 5 WHERE id = 2; UPDATE app.everything SET c0 = false WHERE id = 1;
		INSERT INTO app.bag SELECT i % 3, CASE WHEN i % 2 = 0 THEN 'sad'::app.mood END FROM generate_series(1, 20) i; DELETE FROM app.bag WHERE a = 1});
	$replica->settle('counts');
	$replica->is_equal('app.everything', "$name: a row of every type");
	$replica->is_equal('app.bag', "$name: a bag");
	$target->is_current('counts', "$name: and the stream table over it");
	$source->sql(q{ALTER TABLE app.everything ADD COLUMN late text DEFAULT 'fast'; INSERT INTO app.everything (id) VALUES (30); TRUNCATE app.bag});
	$replica->settle('counts');
	$replica->is_equal('app.everything', "$name: and a new column");
	$target->is_current('counts', "$name: and a truncation");
	$target->stop_applier;
	$_->stop foreach $source, $target;
	return;
}

run_pair('to_newer', source => {%old});
run_pair('to_older', target => {%old});

done_testing();
