# t/022_storage_stage.pl
#
# Goal: records of the change stream become rows with weights that add up to what happened; what cannot be told from
# the records is an obstacle; and no bytes whatever do harm.
# Method: random statements on tables with all kinds of columns, decoded by the plugin; records made by hand for what
# the plugin does not do by itself; damaged copies of real batches.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster qw(random_seed pick);
use StreamTables::Storage qw(install_storage_test differing_rows);
use Test::More;

my $node = StreamTables::Cluster->new('storage_stage')->boot(setup => 'none');
install_storage_test($node);
random_seed();

# --- everything that happens, in the end -------------------------------------------------------------

$node->sql(
	q{
	CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
	CREATE TYPE pair AS (a integer, b text);
	CREATE DOMAIN short AS varchar(5) CHECK (value <> 'bad');
	CREATE TABLE source (gone integer, id integer, b boolean, i2 smallint, i8 bigint, f4 real, f8 double precision,
		n numeric, n2 numeric(10, 2), t text, vc varchar(10), c char(5), nm name, by bytea, d date, tm time, tmz timetz,
		ts timestamp, ts3 timestamp(3), tsz timestamptz, iv interval, u uuid, j json, jb jsonb, x xml, ip inet, p point,
		ia integer[], ta text[], m mood, pr pair, sh short, r int4range, mo money, o oid, bits bit(3), v tsvector, big text);
	ALTER TABLE source DROP COLUMN gone;
	ALTER TABLE source REPLICA IDENTITY FULL;
	CREATE FUNCTION noise(n integer) RETURNS text LANGUAGE sql AS
		$$SELECT string_agg(md5((g * n)::text), '') FROM generate_series(1, 100) g$$;
	-- a random row; about a third of the columns are NULL
	CREATE FUNCTION maybe(value anyelement) RETURNS anyelement LANGUAGE sql VOLATILE AS
		$$SELECT CASE WHEN random() < 0.7 THEN value END$$;
	CREATE FUNCTION random_source() RETURNS source LANGUAGE sql VOLATILE AS $$
		SELECT ROW(z, maybe(z % 2 = 0), maybe(z::smallint), maybe(z * 10000000000), maybe((z / 7.0)::real), maybe(z / 7.0::float8),
			maybe(CASE z WHEN 1 THEN 'NaN' WHEN 2 THEN 1e40 ELSE z / 3.0 END::numeric), maybe((z / 3.0)::numeric(10, 2)),
			maybe((ARRAY['', 'plain', 'Ünïcode €', repeat('x', 3000)])[1 + z % 4]), maybe(('vc' || z)::varchar(10)),
			maybe(('é' || z)::char(5)), maybe(('nm' || z)::name), maybe(decode(md5(z::text), 'hex')),
			maybe(CASE z WHEN 3 THEN 'infinity' ELSE date '2000-02-29' + z * 1000 END::date), maybe((z || ':30')::time),
			maybe((z || ':30+02')::timetz), maybe(CASE z WHEN 3 THEN '-infinity' ELSE timestamp '1999-12-31' + z * interval '1 day' END::timestamp),
			maybe((now() + z * interval '1 ms')::timestamp(3)), maybe(now() + z * interval '1 h'),
			maybe(z * interval '1 mon 2 days 3.5 s'), maybe(md5(z::text)::uuid), maybe(json_build_object('z', z)),
			maybe(jsonb_build_object('z', z)), maybe(('<z>' || z || '</z>')::xml), maybe(('10.0.0.' || z)::inet), maybe(point(z, -z)),
			maybe(ARRAY[z, NULL, 3]), maybe(ARRAY['a', NULL, 'ü' || z]), maybe((ARRAY['sad', 'ok', 'happy'])[1 + z % 3]::mood),
			maybe(ROW(z, 'p')::pair), maybe(('s' || z)::short), maybe(int4range(z, z + 5)), maybe(z::money), maybe(z::oid),
			maybe((z % 8)::bit(3)), maybe(to_tsvector('simple', 'word' || z)), maybe(noise(z)))::source
		FROM (SELECT (random() * 20)::integer) x(z)$$;
	SELECT pg_create_logical_replication_slot('slot', 'pgtrickle_decoder');
	CREATE TABLE so_far (LIKE source, w integer)});

my $statements = {
	insert => 'INSERT INTO source SELECT (random_source()).* FROM generate_series(1, %d)',
	delete =>
	  'DELETE FROM source WHERE ctid IN (SELECT ctid FROM source ORDER BY random() LIMIT %d)',
	'update of one column' =>
	  'UPDATE source SET t = (random_source()).t WHERE ctid IN (SELECT ctid FROM source ORDER BY random() LIMIT %d)',
	'update of everything' =>
	  'UPDATE source s SET (id, b, i2, n, c, ts, ia, x, big) = (SELECT (q.r).id, (q.r).b, (q.r).i2, (q.r).n,
		(q.r).c, (q.r).ts, (q.r).ia, (q.r).x, (q.r).big FROM (SELECT random_source() AS r, s.id) q)
		WHERE ctid IN (SELECT ctid FROM source ORDER BY random() LIMIT %d)'
};

my $get =
  q{(SELECT array_agg(data) FROM pg_logical_slot_get_binary_changes('slot', NULL, NULL, 'proto_version', '1', 'interest', '*'))};
my $all_columns = $node->sql(
	q{SELECT array_agg(attname) FROM pg_attribute WHERE attrelid = 'source'::regclass AND attnum > 0 AND NOT attisdropped}
);
my $names = $all_columns =~ tr/{}//dr;
my $different = '';
for my $round (1 .. ($ENV{PGTRICKLE_LONG} ? 200 : 25))
{
	my $script = '';
	for (1 .. pick(1, 2, 5))
	{
		my $statement = pick(sort values %$statements);
		$script .= sprintf($statement, pick(1, 3, 40)) . ";\n";
	}
	my $memory = pick('64kB', '4MB');
	$script .= "SET work_mem = '$memory';";
	$script .= pick('', q{SET client_encoding = 'LATIN1';}) if $round % 2;
	# The batches are longer than one statement's memory of the stage would allow for, on purpose.
	$script .= <<"SQL";
DO \$do\$ BEGIN PERFORM storage_test.stage('source', '$all_columns', $get, 1,
	'INSERT INTO so_far SELECT $names, __w FROM __pgt_delta_' || 'source'::regclass::oid); END \$do\$;
RESET client_encoding;
SQL
	$different = $node->sql($script . <<"SQL");
SELECT r, sum(w) FROM (SELECT ROW($names)::text COLLATE "C" AS r, w FROM so_far
	UNION ALL SELECT ROW($names)::text, -1 FROM source) x GROUP BY r HAVING sum(w) <> 0 LIMIT 5
SQL
	last if $different ne '';
}
is($different, '', 'the staged rows of random statements add up to the table');

sub stage
{
	my ($relation, $columns, $show) = @_;

	my $answer = $node->sql(<<"SQL");
CREATE TEMP TABLE answer (row text);
SELECT storage_test.stage('$relation', '{$columns}', $get, 1,
	\$show\$INSERT INTO answer SELECT @{[ $show // 'NULL' ]} FROM __pgt_delta_\$show\$ || '$relation'::regclass::oid)->>'obstacle';
SELECT row FROM answer ORDER BY row COLLATE "C";
SQL
	return $answer =~ s/\A\n|\n\z//gr;
}

# --- updates that do not matter, values that did not change ------------------------------------------

$node->sql(
	q{TRUNCATE source; INSERT INTO source (id, t, big) VALUES (1, 'one', noise(1)), (2, 'two', noise(2))}
);
stage('source', 'id');
$node->sql(q{UPDATE source SET t = 'eins' WHERE id = 1});
is(stage('source', 'id,big', q{id}), '', 'an update of columns that nobody reads adds nothing');
$node->sql(q{UPDATE source SET t = 'un' WHERE id = 1});
is( stage('source', 'id,t,big', q{format('%s %s %s %s', __w, id, t, big = noise(id))}),
	"-1 1 eins t\n1 1 un t",
	'a value out of line that did not change is taken from the old row');
$node->sql(q{UPDATE source SET t = 'un' WHERE id = 1});
is(stage('source', 'id,t', 'id'), '', 'nor does an update that changes nothing');

# --- partitions and their ancestors ------------------------------------------------------------------

$node->sql(
	q{
	CREATE TABLE parts (gone integer, id integer, name text, amount numeric) PARTITION BY LIST (id);
	ALTER TABLE parts DROP COLUMN gone;
	CREATE TABLE part1 (amount numeric, gone1 text, gone2 text, name text, id integer);
	ALTER TABLE part1 DROP COLUMN gone1, DROP COLUMN gone2;
	ALTER TABLE parts ATTACH PARTITION part1 FOR VALUES IN (1);
	CREATE TABLE part2 PARTITION OF parts DEFAULT;
	ALTER TABLE part1 REPLICA IDENTITY FULL;
	ALTER TABLE part2 REPLICA IDENTITY FULL});
my $parts_oid = $node->sql(q{SELECT 'parts'::regclass::oid});
{
	my $get_all = $get;
	$get =~ s/'\*'/'$parts_oid'/;
	$node->sql(
		q{INSERT INTO parts VALUES (1, 'one', 1.5), (2, 'two', 2.5); UPDATE parts SET id = 3 WHERE id = 1; DELETE FROM parts WHERE id = 2}
	);
	is( stage('parts', 'id,name,amount', q{format('%s %s %s %s', __w, id, name, amount)}),
		"-1 1 one 1.5\n-1 2 two 2.5\n1 1 one 1.5\n1 2 two 2.5\n1 3 one 1.5",
		'rows of partitions count for the partitioned table, by the names of their columns');
	$get = $get_all;
}

# --- obstacles ---------------------------------------------------------------------------------------

$node->sql(
	q{CREATE TABLE keyed (id integer PRIMARY KEY, v text, w text); INSERT INTO keyed VALUES (1, 'a', 'b'), (2, 'c', 'd')}
);
stage('keyed', 'id');
$node->sql(q{UPDATE keyed SET v = 'x' WHERE id = 1});
is(stage('keyed', 'id', 'id'), '', 'with the key only, an update of something else adds nothing');
$node->sql(q{UPDATE keyed SET id = 10 WHERE id = 1; DELETE FROM keyed WHERE id = 2});
is( stage('keyed', 'id', q{format('%s %s', __w, id)}),
	"-1 1\n-1 2\n1 10",
	'and an update or delete of the key is complete');
$node->sql(q{UPDATE keyed SET v = 'y'});
is(stage('keyed', 'id,v'), 'a change came without its old row', 'an update without its old row');
$node->sql(q{DELETE FROM keyed});
is(stage('keyed', 'v'), 'a change came without its old row', 'a delete with nothing but the key');
$node->sql(q{INSERT INTO keyed VALUES (5, 'v', 'w'); ALTER TABLE keyed REPLICA IDENTITY NOTHING});
is(stage('keyed', 'id,v', q{format('%s %s %s', __w, id, v)}),
	'1 5 v', 'an insert needs no identity');
$node->sql(q{UPDATE keyed SET id = 6; DELETE FROM keyed});
is(stage('keyed', '', '__w'), '-1', 'rows of which no column is read can be counted');
$node->sql(q{INSERT INTO keyed VALUES (7); TRUNCATE keyed; INSERT INTO keyed VALUES (8)});
is(stage('keyed', 'id'), 'the source was truncated', 'a truncated table');
$node->sql(q{INSERT INTO keyed VALUES (9); ALTER TABLE keyed ALTER id TYPE bigint});
is(stage('keyed', 'id'), q{the source's columns have changed}, 'a column whose type has changed');
$node->sql(
	q{INSERT INTO keyed VALUES (10, 'v'); ALTER TABLE keyed RENAME v TO vv; INSERT INTO keyed VALUES (11, 'vv')}
);
is(stage('keyed', 'id,vv'), q{the source's columns have changed},
	'a column whose name has changed');
$node->sql(
	q{INSERT INTO keyed VALUES (12); ALTER TABLE keyed ADD extra integer DEFAULT 5; INSERT INTO keyed VALUES (13)}
);
is(stage('keyed', 'id', q{format('%s %s', __w, id)}),
	"1 12\n1 13", 'a new column that nobody reads does no harm');

# --- records made by hand ----------------------------------------------------------------------------

sub varint
{
	my ($value) = @_;

	my $bytes = '';
	while ($value >= 0x80)
	{
		$bytes .= chr($value & 0x7f | 0x80);
		$value >>= 7;
	}
	return $bytes . chr($value);
}

sub number_field { my ($number, $value) = @_; return varint($number << 3) . varint($value); }

sub bytes_field
{
	my ($number, $bytes) = @_;
	return varint($number << 3 | 2) . varint(length $bytes) . $bytes;
}
sub record { return bytes_field(1, join '', @_); }

# A row: values as bytes, undef for NULL, \'unchanged' and \'missing'.
sub row
{
	my (@values) = @_;
	my %kinds = (unchanged => 2, missing => 3);
	my @kinds = (0) x (4 * int((@values + 3) / 4));
	my $present = '';

	for my $i (0 .. $#values)
	{
		if    (!defined $values[$i]) { $kinds[$i] = 1; }
		elsif (ref $values[$i])      { $kinds[$i] = $kinds{ ${ $values[$i] } }; }
		else                         { $present .= bytes_field(2, $values[$i]); }
	}
	my $packed = '';
	for (my $i = 0; $i < @kinds; $i += 4)
	{
		$packed .=
		  chr($kinds[$i] | $kinds[ $i + 1 ] << 2 | $kinds[ $i + 2 ] << 4 | $kinds[ $i + 3 ] << 6);
	}
	return bytes_field(1, $packed) . $present;
}

$node->sql(
	q{CREATE TABLE hand (id integer, name text, at timestamptz, flag boolean, code varchar(3), d date)}
);
my $hand_oid = $node->sql(q{SELECT 'hand'::regclass::oid});
my %types = (id => 23, name => 25, at => 1184, flag => 16, code => 1043, d => 1082);

sub relation_record
{
	my ($number, @columns) = @_;

	my $def =
		number_field(1, $number)
	  . number_field(2, $hand_oid)
	  . bytes_field(3, 'public')
	  . bytes_field(4, 'hand')
	  . bytes_field(5, varint($hand_oid))
	  . number_field(6, ord 'f');
	foreach my $column (@columns)
	{
		my $typmod = $column eq 'code' ? 2 * 7 : 1;
		$def .= bytes_field(7,
				bytes_field(1, $column)
			  . number_field(2, 1)
			  . number_field(3, $types{$column})
			  . number_field(4, $typmod)
			  . number_field(5, 1)
			  . number_field(6, 1));
	}
	return record(number_field(1, 2), bytes_field(7, $def));
}

sub insert_record
{
	my ($number, @values) = @_;
	return record(number_field(1, 3), number_field(2, $number), bytes_field(4, row(@values)));
}

sub update_record
{
	my ($number, $old, $new, $flaws) = @_;
	return record(
		number_field(1, 4),
		number_field(2, $number),
		($old ? bytes_field(3, row(@$old)) : ''),
		bytes_field(4, row(@$new)),
		($flaws ? number_field(5, $flaws) : ''));
}

sub delete_record
{
	my ($number, $old, $flaws) = @_;
	return record(
		number_field(1, 5),
		number_field(2, $number),
		bytes_field(3, row(@$old)),
		($flaws ? number_field(5, $flaws) : ''));
}

sub hand_stage
{
	my ($columns, @batches) = @_;

	my $batches = join ', ', map { q{'\x} . unpack('H*', $_) . q{'::bytea} } @batches;
	return
	  "SELECT storage_test.stage('hand', '{$columns}', ARRAY[$batches], 1, \$\$INSERT INTO answer SELECT h::text FROM __pgt_delta_$hand_oid h\$\$)->>'obstacle'";
}

sub hand_rows
{
	my $answer = $node->sql(
		"CREATE TEMP TABLE answer (row text);\n" . hand_stage(@_) . ";\nSELECT row FROM answer;");
	return $answer =~ s/\A\n|\n\z//gr;
}

my $int = sub { pack 'N', $_[0] };
my $two = relation_record(1, 'name', 'id');

is( hand_rows(
		'id,name',
		$two . insert_record(1, 'a', $int->(7)) . insert_record(1, undef, $int->(-1 & 0xffffffff))),
	"(7,a,,,,,1)\n(-1,,,,,,1)",
	'columns in another order');
is( hand_rows(
		'id,name', $two,
		$two . insert_record(1, 'a', $int->(1)),
		relation_record(1, 'id', 'name') . insert_record(1, $int->(2), 'b'),
		$two . insert_record(1, 'c', $int->(3))),
	"(1,a,,,,,1)\n(2,b,,,,,1)\n(3,c,,,,,1)",
	'a description again, and another one for the same number');
is(hand_rows('id', $two . update_record(1, [ 'a', $int->(1) ], [ \'missing', $int->(2) ], 4)),
	"(1,,,,,,-1)\n(2,,,,,,1)", 'a value that is too large and that nobody reads');
is( hand_rows('name', $two . update_record(1, [ 'a', $int->(1) ], [ \'missing', $int->(2) ], 4)),
	'a change came without one of its values',
	'a value that is too large');
is( hand_rows('name', $two . delete_record(1, [ \'missing', $int->(2) ], 4)),
	'a change came without one of its values',
	'also in the old row');
is( hand_rows(
		'id',
		$two
		  . update_record(1, [ 'a', $int->(1) ], [ 'b', $int->(1) ])
		  . record(
			number_field(1, 6),
			bytes_field(8, bytes_field(1, varint(99999) . varint($hand_oid))))),
	'the source was truncated',
	'one of several truncated tables');
is( hand_rows(
		'id',
		record(number_field(1, 9), bytes_field(11, ''))
		  . record(number_field(1, 8), bytes_field(10, number_field(1, 5)))),
	'',
	'records for the applier are ignored');

sub hand_error { return $node->psql_error(hand_stage(@_)); }

like(
	hand_error('id', insert_record(9, 'a')),
	qr/^08P01: could not read a change: relation number 9 has not been described\nDETAIL:  Change set 1\./,
	'an unknown relation');
like(
	hand_error('id', $two . insert_record(1, 'a')),
	qr/^08P01: could not read a change to table public\.hand: .*\nDETAIL:  Byte \d+ of \d+, change set 1\./,
	'a row with too few values');
like(
	hand_error('id', $two . insert_record(1, 'a', $int->(1), 'x')),
	qr/^08P01: could not read a change to table public\.hand: /,
	'a row with too many');
like(
	hand_error(
		'id', $two . insert_record(1, \'unchanged', $int->(1)) . insert_record(1, 'a', \'unchanged')
	),
	qr/^08P01: .*an inserted row has an unchanged value/,
	'an inserted row with an unchanged value');
like(
	hand_error('name', $two . update_record(1, [ \'unchanged', $int->(1) ], [ 'a', $int->(1) ])),
	qr/^08P01: .*an old row has an unchanged value/,
	'an old row with one');
like(
	hand_error('id', $two . insert_record(1, 'a', 'abc')),
	qr/^08P01: insufficient data left in message/,
	'a number that is too short');
like(
	hand_error('id', $two . insert_record(1, 'a', 'abcde')),
	qr/^22P03: incorrect binary data format: 4 of 5 bytes were used/,
	'a number that is too long');
like(
	hand_error('name', $two . insert_record(1, "a\xff", $int->(1))),
	qr/^22021: invalid byte sequence for encoding "UTF8": 0xff/,
	'text in another encoding');
like(hand_error('name', $two . insert_record(1, "a\0b", $int->(1))),
	qr/^22021: /, 'text with a zero byte');
like(
	hand_error('at', relation_record(1, 'at') . insert_record(1, pack('q>', 9223372036854775806))),
	qr/^22008: timestamp out of range/,
	'a time that does not exist');
like(
	hand_error('d', relation_record(1, 'd') . insert_record(1, pack('l>', 2147483000))),
	qr/^22008: date out of range/,
	'nor such a date');
like(
	hand_error('code', relation_record(1, 'code') . insert_record(1, 'abcd')),
	qr/^22001: value too long/,
	'text that is too long for its column');
is( hand_rows(
		'at,d,flag,code',
		relation_record(1, 'at', 'd', 'flag', 'code')
		  . insert_record(
			1, pack('q>', 9223372036854775807),
			pack('l>', -2147483648), "\2",
			"\xc3\xa4\xc3\xb6\xc3\xbc")),
	'(,,infinity,t,äöü,-infinity,1)',
	'values at the edge');
like(
	hand_error('id', "\x0a\x05\x08\x63"),
	qr/^08P01: could not read changes: .*\nDETAIL:  Byte \d+ of 4, change set 1\./,
	'a batch that is cut off');

# --- damaged batches ---------------------------------------------------------------------------------

$node->sql(
	q{TRUNCATE source; INSERT INTO source SELECT (random_source()).* FROM generate_series(1, 3); UPDATE source SET t = 'changed'; DELETE FROM source WHERE ctid = (SELECT min(ctid) FROM source)}
);
$node->sql("CREATE TABLE batches AS SELECT unnest($get) AS batch");
my $iterations = $ENV{PGTRICKLE_LONG} ? 20000 : 1500;
my $seed = rand;
my $codes = $node->sql(<<"SQL");
SELECT setseed($seed);
CREATE TEMP TABLE codes (code text);
DO \$do\$
DECLARE
	good bytea := (SELECT string_agg(batch, NULL) FROM batches);
	bad bytea;
BEGIN
	FOR i IN 1 .. $iterations LOOP
		bad := good;
		FOR j IN 1 .. 1 + (random() * 5)::integer LOOP
			bad := set_byte(bad, (random() * (length(bad) - 1))::integer, (random() * 255)::integer);
		END LOOP;
		IF random() < 0.1 THEN
			bad := substr(bad, 1, (random() * length(bad))::integer);
		END IF;
		BEGIN
			PERFORM storage_test.stage('source', '$all_columns', ARRAY[bad]);
		EXCEPTION WHEN OTHERS THEN
			INSERT INTO codes VALUES (SQLSTATE);
		END;
	END LOOP;
END \$do\$;
SELECT DISTINCT code FROM codes WHERE left(code, 2) NOT IN ('08', '22', '42', '54') AND code NOT IN ('2200M', '23514') ORDER BY code;
SQL
is($codes =~ s/\A\n*//r, '', 'damaged batches are refused as bad data, or harmless');

done_testing();
