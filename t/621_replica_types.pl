# t/621_replica_types.pl
#
# Goal: a copy holds what the remote's table holds, whatever its columns are: the server's types, users' types, extensions' types,
#       arrays and domains of all of them, collations, names that need quotes; partitions as one table; what cannot be copied is refused
#       with a reason before anything is copied.
# Method: one table per kind, copied with rows in it, changed afterwards, compared as text on both sides.
use strict;
use warnings FATAL => 'all';

use StreamTables::Replica;
use Test::More;

my $replica = StreamTables::Replica->new('types');
my ($source, $target) = ($replica->source, $replica->target);

$source->sql(
	q{CREATE SCHEMA app; CREATE SCHEMA "Other place";
	CREATE EXTENSION hstore; CREATE EXTENSION citext SCHEMA app;
	CREATE TYPE app.mood AS ENUM ('sad', 'it''s ok', 'happy');
	CREATE DOMAIN app.email AS app.citext CHECK (VALUE ~ '@');
	CREATE TYPE app.address AS (street text, nr int, mood app.mood);
	CREATE TYPE app.span AS RANGE (SUBTYPE = float8, MULTIRANGE_TYPE_NAME = app.many_spans);
	CREATE TYPE "Other place"."Odd type" AS ENUM ('"');

	CREATE TABLE app.builtin (id int PRIMARY KEY, a smallint, b bigint, c numeric, d numeric(10, 2), e real, f double precision,
		g boolean, h "char", i char(5), j varchar(7), k text, l bytea, m date, n time, o timetz, p timestamp(3), q timestamptz,
		r interval, s uuid, t json, u jsonb, v xml, w inet, x cidr, y macaddr, z bit(3), aa varbit, ab point, ac int4range, ad money,
		ae tsvector, af pg_lsn, ag oid, ah name, ai int[], aj text[], ak timestamptz[], al int4multirange, am box[], an jsonpath);
	INSERT INTO app.builtin VALUES (1, -1, 2 ^ 60, 'NaN', 1.5, 'Infinity', 0.1 + 0.2, true, 'x', 'ab', 'seven', E'tab\t"\\\\x', '\x0001ff',
		'infinity', '12:34:56.789', '12:34+05', '2020-01-01 00:00:00.1239', '2020-01-01 12:00+00', '1 mon -3 days 04:05:06.7',
		'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a":  1}', '{"b": [1.10]}', '<a>b</a>', '10.0.0.1/8', '10.0.0.0/8', '08:00:2b:01:02:03', '101', '1101',
		'(1.5,2)', '[1,5)', '12.34', 'a fat cat', '0/16B3748', 4000000000, 'some name', '{{1,NULL},{3,4}}', '{"a,b","c\"d",NULL,""}',
		'{2020-01-01 12:00+00,NULL}', '{[1,3),[5,6)}', '{(1,1),(0,0)}', '$.a[*]'),
		(2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
		NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

	CREATE TABLE app.users (id int PRIMARY KEY, mood app.mood, moods app.mood[], mail app.email, mails app.email[], address app.address,
		addresses app.address[], span app.span, spans app.many_spans, pairs hstore, ci app.citext, odd "Other place"."Odd type",
		c text COLLATE "C", relation regclass, relations regclass[]);
	INSERT INTO app.users SELECT i, 'it''s ok', '{happy,NULL}', 'A@b', '{a@b,c@d}', ROW('x "y", z', i, 'sad'::app.mood)::app.address, ARRAY[ROW(NULL, 7, 'happy'::app.mood)::app.address],
		'[1.5,2.5)', '{[1,2),[5,6)}', 'a=>1,b=>NULL', 'Abc', '"', 'é', 'app.builtin', '{app.builtin}' FROM generate_series(1, 5) i;

	CREATE TABLE app."Table with "" quotes" ("Id ""1""" int, "select" text, dropped int, "ünï" text, PRIMARY KEY ("select", "Id ""1"""));
	ALTER TABLE app."Table with "" quotes" DROP COLUMN dropped;
	INSERT INTO app."Table with "" quotes" VALUES (1, 'a', 'x'), (2, 'a', NULL);
	COMMENT ON TABLE app."Table with "" quotes" IS 'it''s odd';

	CREATE TABLE app.generated (id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2) STORED, c int DEFAULT 5, d int GENERATED ALWAYS AS IDENTITY);
	INSERT INTO app.generated (id, a) VALUES (1, 10), (2, 20);

	CREATE TABLE app.parted (id int, place text, v int, PRIMARY KEY (id, place)) PARTITION BY LIST (place);
	CREATE TABLE app.parted_a PARTITION OF app.parted FOR VALUES IN ('a');
	CREATE TABLE app.parted_b (v int, dropped int, place text NOT NULL, id int NOT NULL);
	ALTER TABLE app.parted_b DROP COLUMN dropped;
	ALTER TABLE app.parted ATTACH PARTITION app.parted_b FOR VALUES IN ('b');
	INSERT INTO app.parted SELECT i, CASE WHEN i % 2 = 0 THEN 'a' ELSE 'b' END, i FROM generate_series(1, 20) i;

	CREATE TABLE app.by_index (id int, code text NOT NULL, v text);
	CREATE UNIQUE INDEX by_index_code ON app.by_index (code);
	ALTER TABLE app.by_index REPLICA IDENTITY USING INDEX by_index_code;
	INSERT INTO app.by_index VALUES (1, 'x', 'y'), (1, 'z', NULL);

	CREATE TABLE app.bag (a int, b app.mood);
	ALTER TABLE app.bag REPLICA IDENTITY FULL;
	INSERT INTO app.bag VALUES (1, 'sad'), (1, 'sad'), (NULL, NULL), (NULL, NULL);

	CREATE TABLE app.parent (id int PRIMARY KEY);
	CREATE TABLE app.child () INHERITS (app.parent);
	INSERT INTO app.parent VALUES (1); INSERT INTO app.child VALUES (2)});

# --- what is refused, before anything is copied

$source->sql(
	q{CREATE UNLOGGED TABLE app.fleeting (id int PRIMARY KEY);
	CREATE VIEW app.a_view AS SELECT 1 AS a;
	CREATE TABLE app.no_type (id int PRIMARY KEY, acl aclitem);
	CREATE COLLATION app.mine (provider = icu, locale = 'de');
	CREATE TABLE app.no_collation (id int PRIMARY KEY, t text COLLATE app.mine);
	CREATE TABLE app.row_of (id int PRIMARY KEY, r app.parent);
	CREATE TYPE app.clash AS (a int);
	CREATE TABLE app.clashes (id int PRIMARY KEY, c app.clash);
	CREATE TABLE app.taken (id int PRIMARY KEY)});
$target->sql(q{CREATE SCHEMA app; GRANT ALL ON SCHEMA app TO PUBLIC; CREATE TYPE app.clash AS (a text);});
my %refused = (
	fleeting => qr/it is unlogged HINT: .*SET LOGGED/,
	a_view => qr/it is a view HINT:  Copy the tables behind it/,
	no_type => qr/cannot copy column "acl" .* type aclitem HINT:  Name the columns/,
	no_collation => qr/collation "mine" of column "t" does not exist on the target HINT: .*CREATE COLLATION "app"."mine"/,
	row_of => qr/type app.parent does not exist on the target HINT:  Copy that table first/,
	clashes => qr/type app.clash is not the same on remote and target/,
	taken => qr/table "app"."taken" exists on the target HINT:  Drop it/,
	nowhere => qr/the remote has no table "app.nowhere"/);
$replica->request("app.$_") foreach sort keys %refused;
$replica->request([ 'shop', 'app.generated', target => 'app.without_key', columns => '{a}' ]);
$target->sql('CREATE TABLE app.taken (id int)');
my ($ok, $stdout, $stderr) = $target->try_program('copy');
ok(!$ok, 'the worker fails when something is refused');
foreach my $table (sort keys %refused)
{
	like($target->sql("SELECT status || ' ' || status_reason FROM pgtrickle.copy_catalog() WHERE remote_table = '$table'"),
		qr/^ERROR .*$refused{$table}/, "$table is refused");
}
like( $target->sql(q{SELECT status_reason FROM pgtrickle.copy_catalog() WHERE target_table = 'without_key'}),
	qr/without column "id" of its key/, 'so are columns without the key');
is($target->sql(q{SELECT count(*) FROM pg_class WHERE relname ~ 'pgt_load'}), '0', 'nothing was copied');
is($target->sql(q{SELECT count(*) FROM pg_tables WHERE schemaname = 'app'}), '1', 'and no table made');
$target->sql(q{SELECT pgtrickle.drop_copy(format('%I.%I', target_schema, target_table)) FROM pgtrickle.copy_catalog()});

# --- everything else

my @tables = ('builtin', 'users', '"Table with "" quotes"', 'generated', 'parted', 'by_index', 'bag', 'parent');
$target->start_applier;
$replica->request("app.$_") foreach @tables;
$replica->request([ 'shop', 'app.generated', target => 'app.some', columns => '{id,b}', row_filter => 'id > 1' ]);
$replica->wait_copied;

sub all_equal
{
	my ($when) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$replica->is_equal("app.$_", "$_: $when") foreach grep { $_ ne 'parent' } @tables;
	is($target->sql('SELECT * FROM app.some ORDER BY 1'), $source->sql('SELECT id, b FROM app.generated WHERE id > 1 ORDER BY 1'),
		"some columns of some rows: $when");
	return;
}

all_equal('copied');
is($target->sql('SELECT * FROM app.parent'), '1', 'rows of tables that inherit are not the parent\'s');
is($target->sql(q{SELECT obj_description('app."Table with "" quotes"'::regclass)}), "it's odd", 'comments come along');
is( $target->sql(
		q{SELECT string_agg(conrelid::regclass || ' ' || pg_get_constraintdef(oid), '; ' ORDER BY conrelid::regclass::text COLLATE "C" DESC) FROM pg_constraint WHERE conname ~ 'pgt_key' AND conrelid::regclass::text ~ 'parted|quotes'}
	),
	'app.parted PRIMARY KEY (id, place); app."Table with "" quotes" PRIMARY KEY ("select", "Id ""1""")',
	'primary keys are primary keys');
is($target->sql(q{SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'app.builtin'::regclass AND attname = 'p'}),
	'timestamp(3) without time zone', 'with their modifiers');

$source->sql(
	q{UPDATE app.builtin SET b = 5, k = repeat('é', 5000), aj = '{x}', q = '2021-06-01 00:00+02', ae = NULL WHERE id = 1;
	INSERT INTO app.builtin (id, c, l, r) VALUES (3, 12345.678900, '\x', '-1 year');
	UPDATE app.builtin SET a = 7 WHERE id = 1;
	UPDATE app.users SET mood = 'happy', addresses = addresses || ROW('new', 1, 'sad')::app.address, span = '(,)', pairs = pairs || 'c=>"x y"' WHERE id < 3;
	DELETE FROM app.users WHERE id = 5;
	UPDATE app."Table with "" quotes" SET "Id ""1""" = 3 WHERE "Id ""1""" = 1;
	UPDATE app.generated SET a = a + 1; INSERT INTO app.generated (id, a) VALUES (3, NULL);
	UPDATE app.parted SET place = 'b' WHERE id = 4; DELETE FROM app.parted WHERE id = 5; INSERT INTO app.parted VALUES (100, 'b', 1);
	UPDATE app.by_index SET v = 'new' WHERE code = 'x'; UPDATE app.by_index SET code = 'q' WHERE code = 'z';
	DELETE FROM app.bag WHERE ctid = (SELECT min(ctid) FROM app.bag WHERE a = 1); INSERT INTO app.bag VALUES (NULL, NULL)});
$replica->wait_positions;
all_equal('followed');
$replica->were_copied_once;

$target->stop_applier;
done_testing();
