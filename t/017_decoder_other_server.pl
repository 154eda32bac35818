# t/017_decoder_other_server.pl
#
# Goal: a reader on another server gets values that mean the same there: no OIDs of this one, its encoding.
# Method: options text_types and encoding on databases in UTF8 and LATIN1; types of every kind that users make; text
# that the other encoding lacks; the bytes of each value against what the server itself says.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster qw(sql_literal);
use StreamTables::Stream;
use Test::More;

my $node = StreamTables::Cluster->new('other')->boot(setup => 'none');

# --- types that users make ----------------------------------------------------------------------------------

$node->sql(
	q{
	CREATE EXTENSION citext;
	CREATE SCHEMA app;
	CREATE TYPE app.mood AS ENUM ('sad', 'so so');
	CREATE TYPE app."Pair" AS (a int, m app.mood);
	CREATE DOMAIN positive AS int CHECK (VALUE > 0);
	CREATE DOMAIN words AS text;
	CREATE TYPE app.moods AS RANGE (subtype = app.mood);
	CREATE TABLE u (id int PRIMARY KEY, m app.mood, ms app.mood[], p app."Pair", d positive, w words, r app.moods,
		ci citext, rc regclass, rcs regclass[], n numeric(10,2), ia int[], x information_schema.sql_identifier);
	ALTER TABLE u REPLICA IDENTITY FULL;
});
my $stream = StreamTables::Stream->new($node, interest => ['u'], options => { text_types => 'user' });
my $plain = StreamTables::Stream->new($node, interest => ['u']);
$node->sql(
	q{INSERT INTO u VALUES (1, 'sad', '{sad,NULL,"so so"}', '(7,"so so")', 5, 'plain', '[sad,"so so"]', 'Case',
		'pg_class', '{u,pg_type}', 1.5, '{1,2}', 'name');
	INSERT INTO u VALUES (2)});
$stream->says(<<'END', 'values of such types come as text, their types by name');
begin
relation u public.u as u identity f: id@1:23* m@2:app.mood~* ms@3:app.mood[]~* p@4:app."Pair"~* d@5:public.positive~* w@6:public.words~* r@7:app.moods~* ci@8:public.citext~* rc@9:2205~* rcs@10:2210~* n@11:1700(655366)* ia@12:1007* x@13:information_schema.sql_identifier~*
insert u new: id=1 m='sad' ms='{sad,NULL,"so so"}' p='(7,"so so")' d='5' w='plain' r='[sad,"so so"]' ci='Case' rc='pg_class' rcs='{u,pg_type}' n=\x000200000000000200011388 ia=\x000000010000000000000017000000020000000100000004000000010000000400000002 x='name'
commit rows 1
begin
insert u new: id=2 m=NULL ms=NULL p=NULL d=NULL w=NULL r=NULL ci=NULL rc=NULL rcs=NULL n=NULL ia=NULL x=NULL
commit rows 1
END
unlike($plain->text, qr/~|app\./, 'a reader in the same database gets binary values and no names');

$node->sql(
	q{ALTER TYPE app.mood RENAME TO feeling; ALTER TABLE u ADD COLUMN late int; UPDATE u SET late = 1 WHERE id = 2});
like($stream->text, qr/m\@2:app\.feeling~\*/, 'a renamed type has its new name when the relation is described again');

foreach my $value ('users', '', 'OIDs', '16385')
{
	like(
		$node->psql_error(
				"SELECT count(*) FROM pg_logical_slot_peek_binary_changes('"
			  . $stream->slot
			  . "', NULL, NULL, 'proto_version', '1', 'text_types', "
			  . sql_literal($value) . ')'),
		qr/^22023: invalid value for output plugin option "text_types": "$value"\nHINT:  Give "user"/,
		"text_types \"$value\" is refused");
}

# --- encodings --------------------------------------------------------------------------------------------------

foreach my $value ('UTF-9', '', 'BIG5', 'SJIS')
{
	like(
		$node->psql_error(
				"SELECT count(*) FROM pg_logical_slot_peek_binary_changes('"
			  . $stream->slot
			  . "', NULL, NULL, 'proto_version', '1', 'encoding', "
			  . sql_literal($value) . ')'),
		qr/^22023: invalid value for output plugin option "encoding": "$value"\nHINT:  Give the encoding of a database/,
		"encoding \"$value\" is refused");
}

# The bytes that columns have in the stream, and those that convert_to() makes of the same columns.
my $columns = q{t text, v varchar(20), c char(12), n name, j json, jb jsonb, x xml, ta text[], m "m\u00f6d", b bytea, ts tsvector,
	f float8} =~ s/\\u00f6/\x{c3}\x{b6}/r;
my $values = sub {
	my ($letters) = @_;

	return qq{'$letters', '$letters', '$letters', '$letters', '"$letters"', '"$letters"', '<a>$letters</a>',
		ARRAY['$letters', NULL], 'd\x{c3}\x{b6}d', convert_to('$letters', 'UTF8'), '$letters'::tsvector, 0.1};
};

sub make_encoded_table
{
	my ($dbname) = @_;

	$node->safe_psql($dbname, <<"SQL");
SET client_encoding = UTF8;
CREATE TYPE "m\x{c3}\x{b6}d" AS ENUM ('d\x{c3}\x{b6}d');
CREATE TABLE "t\x{c3}\x{a4}b" ("\x{c3}\x{a9}" int PRIMARY KEY, $columns);
SQL
	return;
}

sub insert_encoded
{
	my ($dbname, $id, $letters) = @_;

	$node->safe_psql($dbname,
		"SET client_encoding = UTF8; INSERT INTO \"t\x{c3}\x{a4}b\" VALUES ($id, " . $values->($letters) . ')');
	return;
}

sub stream_of
{
	my ($dbname, $slot, %options) = @_;

	my $list = join ', ', map { sql_literal($_) . ', ' . sql_literal($options{$_}) } sort keys %options;
	my $hex = $node->safe_psql($dbname,
		"SELECT encode(data, 'hex') FROM pg_logical_slot_peek_binary_changes('$slot', NULL, NULL,
			'proto_version', '1', 'interest', '*', $list)");
	return $stream->dump($hex, arguments => [ '--stable', '--full' ]);
}

$node->safe_psql('postgres', "CREATE DATABASE latin ENCODING LATIN1 LOCALE 'C' TEMPLATE template0");
foreach my $dbname ('postgres', 'latin')
{
	make_encoded_table($dbname);
	$node->safe_psql($dbname, "SELECT pg_create_logical_replication_slot('encoded_$dbname', 'pgtrickle_decoder')");
	insert_encoded($dbname, 1, "caf\x{c3}\x{a9}");
	insert_encoded($dbname, 2, 'plain');
}
my $as_it_is = stream_of('postgres', 'encoded_postgres', text_types => 'user');
like($as_it_is, qr/insert t\x{c3}\x{a4}b new: \x{c3}\x{a9}=1 t='caf\x{c3}\x{a9}'/, 'text comes as it is stored');

sub without_oids
{
	my ($text) = @_;

	return $text =~ s/(relation )\S+( public\.\S+ as )\S+/$1OID$2OID/gr;
}

is( without_oids(stream_of('latin', 'encoded_latin', text_types => 'user', encoding => 'UTF8')),
	without_oids($as_it_is),
	'a LATIN1 database says the same in UTF8, names included');
my $latin = stream_of('postgres', 'encoded_postgres', text_types => 'user', encoding => 'LATIN1');
is(without_oids($latin), without_oids(stream_of('latin', 'encoded_latin', text_types => 'user')),
	'and a database in UTF8 the same in LATIN1');
like($latin, qr/t='caf\xe9'/, 'which has one byte for a letter with an accent');
unlike($latin, qr/!/, 'nothing is flagged');

insert_encoded('postgres', 3, "\x{e4}\x{b8}\x{ad} ");
insert_encoded('postgres', 4, 'plain again');
$latin = stream_of('postgres', 'encoded_postgres', text_types => 'user', encoding => 'LATIN1');
my ($third) = $latin =~ /^(insert \S+ new: \S+=3 .*)$/m;
is( join(' ', $third =~ /(\w+)=NOT_LOGGED/g),
	't v c n j jb x ta ts',
	'values that the encoding cannot express are left out');
like($third, qr/!value_unsendable$/, 'and flagged');
like($third, qr/b=\\xe4b8ad20 .* f=\\x3fb999999999999a/, 'other values of the row are there');
like($latin, qr/^insert \S+ new: \S+=4 t='plain again' .*'plain again' [^!]*$/m, 'the next row is whole');

$node->sql("CREATE TABLE \"\x{e4}\x{b8}\x{ad}\" (\"\x{e4}\x{b8}\x{ad}\" int)");
$node->sql("INSERT INTO \"\x{e4}\x{b8}\x{ad}\" VALUES (1)");
like(
	stream_of('postgres', 'encoded_postgres', encoding => 'LATIN1'),
	qr/^relation \S+ public\.\?\?\? as \S+ identity d: \?\?\?\@1:23$/m,
	'names that it cannot express fit nothing, and stop nothing');

# Long text is converted in pieces; the limit is on what is sent.
$node->sql("INSERT INTO \"t\x{c3}\x{a4}b\" (\"\x{c3}\x{a9}\", t) SELECT 5, repeat('x\x{c3}\x{a9}', 1000000)");
my ($long) =
  stream_of('postgres', 'encoded_postgres', encoding => 'LATIN1') =~ /^insert \S+ new: \S+=5 t='([^']*)'/m;
ok($long eq "x\xe9" x 1_000_000, 'long text is converted to its end');

# --- without an encoding ------------------------------------------------------------------------------------------

$node->safe_psql('postgres', "CREATE DATABASE ascii ENCODING SQL_ASCII LOCALE 'C' TEMPLATE template0");
$node->safe_psql('ascii', "CREATE TABLE t (id int PRIMARY KEY, v text, j jsonb)");
$node->safe_psql('ascii', "SELECT pg_create_logical_replication_slot('encoded_ascii', 'pgtrickle_decoder')");
$node->safe_psql('ascii', "INSERT INTO t VALUES (1, E'\\303\\251', E'\"\\303\\251\"'), (2, E'\\351', E'\"\\351\"')");
my $ascii = stream_of('ascii', 'encoded_ascii', encoding => 'UTF8');
like($ascii, qr/new: id=1 v='\x{c3}\x{a9}' j=\\x0122c3a922$/m, 'bytes that are UTF8 by chance pass');
like($ascii, qr/new: id=2 v=NOT_LOGGED j=NOT_LOGGED !value_unsendable$/m, 'others are flagged');
like(stream_of('postgres', 'encoded_postgres', encoding => 'SQL_ASCII'),
	qr/t='caf\x{c3}\x{a9}'/, 'a reader without encoding gets what is stored');

done_testing();
