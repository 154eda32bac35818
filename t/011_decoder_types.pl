# t/011_decoder_types.pl
#
# Goal: a value of any type arrives as its type's send function writes it, and its receive function takes it back.
# Method: a table with a column per built-in type and its array type, and of types that users make; compare
# each value in the stream with the send function's answer, then COPY the stream's bytes back in.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster qw(sql_literal);
use StreamTables::Stream;
use Test::More;

my $node = StreamTables::Cluster->new('types')->boot(setup => 'none');

# Literals for every built-in type that a column can have.
my %literals = (
	bit => ['1'],
	bool => [ 't', 'f' ],
	box => ['(1,2),(-3,4.5)'],
	bpchar => [ 'padded   ', '' ],
	bytea => [ '', '\x00ff10', '\x' . 'ab' x 3000 ],
	char => [ 'x', '' ],
	cid => [ '0', '4294967295' ],
	cidr => [ '10.0.0.0/8', '2001:db8::/32' ],
	circle => ['<(1,2),3>'],
	date => [ '2024-02-29', 'infinity', '-infinity', '4713-01-01 BC' ],
	datemultirange => [ '{}', '{[2024-01-01,2024-02-01), [2025-01-01,)}' ],
	daterange => [ '[2024-01-01,2024-02-01)', 'empty' ],
	float4 => [ '1.5', 'NaN', 'Infinity', '-Infinity', '-0', '1e-40' ],
	float8 => [ '0.1', 'NaN', 'Infinity', '-Infinity', '-0', '1.7976931348623157e308' ],
	inet => [ '192.168.0.1/24', '::1' ],
	int2 => [ '-32768', '32767', '0' ],
	int2vector => ['1 -2 3'],
	int4 => [ '-2147483648', '2147483647' ],
	int4multirange => ['{[1,3), [5,)}'],
	int4range => [ '[1,10)', '(,)', 'empty' ],
	int8 => [ '-9223372036854775808', '9223372036854775807' ],
	int8multirange => ['{[1,3), [5,)}'],
	int8range => ['[1,10)'],
	interval => [ '1 year -2 days 03:04:05.678', '-178000000 years' ],
	json => [ '{"a" :  [1, null]}', '"x"' ],
	jsonb => [ '{"a": [1, null, "\u00e9"]}', '1e5' ],
	jsonpath => ['$.a[*] ? (@ > 1)'],
	line => ['{1,2,3}'],
	lseg => ['[(1,2),(3,4)]'],
	macaddr => ['08:00:2b:01:02:03'],
	macaddr8 => ['08:00:2b:01:02:03:04:05'],
	money => [ '12.34', '-92233720368547758.08' ],
	name => [ 'a name', 'x' x 63 ],
	numeric => [
		'0', '1.500', '-1.5', '12345678901234567890.123456789',
		'NaN', 'Infinity', '-Infinity', '1e-20', '1e1000', '0.00'
	],
	nummultirange => ['{[1.5,2.5)}'],
	numrange => ['[1.5,2.5]'],
	oid => [ '0', '4294967295' ],
	oidvector => ['1 2 4294967295'],
	path => [ '[(1,2),(3,4)]', '((0,0),(1,1),(2,0))' ],
	pg_lsn => [ '0/0', 'FFFFFFFF/FFFFFFFF' ],
	pg_snapshot => ['10:20:10,14,15'],
	point => [ '(1,-2.5)', '(NaN,Infinity)' ],
	polygon => ['((0,0),(1,1),(2,0))'],
	refcursor => ['a cursor'],
	regclass => ['pg_class'],
	regcollation => ['"C"'],
	regconfig => ['english'],
	regdictionary => ['english_stem'],
	regnamespace => ['pg_catalog'],
	regoper => ['pg_catalog.||/'],
	regoperator => ['+(integer,integer)'],
	regproc => ['textsend'],
	regprocedure => ['lower(text)'],
	regrole => ['pg_monitor'],
	regtype => ['integer'],
	text => [ '', 'plain', "\x{e9}\x{4e2d}\x{1f600}", "a\tb\nc\\d'e", 'long ' x 2000 ],
	tid => ['(42,7)'],
	time => [ '00:00', '24:00:00', '12:34:56.789' ],
	timestamp => [ '2024-02-29 12:34:56.789', 'infinity', '-infinity', '4713-01-01 00:00:00 BC' ],
	timestamptz => [ '2024-02-29 12:34:56.789+05:30', 'infinity', '-infinity' ],
	timetz => [ '12:34:56+05:30', '00:00-12' ],
	tsmultirange => ['{[2024-01-01,2024-02-01)}'],
	tsquery => [q{'fat' & ( 'rat' | !'cat':*A )}],
	tsrange => ['[2024-01-01,infinity)'],
	tstzmultirange => ['{[2024-01-01 00:00+00,)}'],
	tstzrange => ['[2024-01-01 00:00+00,)'],
	tsvector => [ q{'a':1A 'cat':5,7B 'fat'}, '' ],
	txid_snapshot => ['10:20:10,14,15'],
	uuid => ['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'],
	varbit => [ '', '101', '1' x 1000 ],
	varchar => ['varying'],
	xid => [ '0', '4294967295' ],
	xid8 => ['18446744073709551615'],
	xml => [ '<a b="c">d</a>', '<?xml version="1.0"?><a/>' ],);

# No send function, or a receive function that refuses: these come as text.
my %as_text = map { $_ => 1 }
  qw(aclitem gtsvector pg_node_tree pg_ndistinct pg_dependencies pg_mcv_list
  pg_brin_bloom_summary pg_brin_minmax_multi_summary);

my @server_types = split /\n/, $node->sql(
	q{
	SELECT typname FROM pg_type
	WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm') AND typisdefined
	  AND NOT (typelem <> 0 AND typsubscript = 'array_subscript_handler'::regproc AND typlen = -1
	           AND typname LIKE '\_%')
	ORDER BY 1});
is(join(' ', grep { !$literals{$_} && !$as_text{$_} } @server_types),
	'', 'this test has values for every built-in type');

# --- a table with all of them --------------------------------------------------------------------------

$node->sql(
	q{
	CREATE EXTENSION citext;
	CREATE TYPE mood AS ENUM ('sad', 'so so', 'happy');
	CREATE TYPE pair AS (a int, gone text, "b c" numeric);
	ALTER TYPE pair DROP ATTRIBUTE gone;
	CREATE TYPE nest AS (p pair, moods mood[]);
	CREATE DOMAIN positive AS int CHECK (VALUE > 0);
	CREATE DOMAIN words AS text[];
	CREATE TYPE moodrange AS RANGE (subtype = mood);
});
my %user_literals = (
	mood => [ 'sad', 'so so' ],
	'mood[]' => ['{happy,NULL,sad}'],
	pair => [ '(1,2.50)', '(,)' ],
	nest => ['("(1,2)","{sad,happy}")'],
	'nest[]' => ['{"(\"(1,2)\",\"{sad,happy}\")",NULL}'],
	positive => ['7'],
	'positive[]' => ['{7,8}'],
	words => ['{a,NULL,"b c"}'],
	moodrange => ['[sad,"so so"]'],
	citext => ['Case'],
	'citext[]' => ['{Case,fold}'],
	'int4[]' => [ '{}', '[0:1]={1,2}', '{{1,2},{3,4}}' ],
	'varchar(5)' => ['abcde'],
	'char(5)' => ['ab'],
	'bit(4)' => ['1010'],
	'numeric(10,2)' => ['1.00'],
	'timestamp(0)' => ['2024-01-01 00:00:01'],
	'interval day' => ['3 days'],);

my @columns;    # [name, type, literals]
foreach my $type (sort grep { $literals{$_} } @server_types)
{
	my $quoted = $type eq 'char' ? '"char"' : "pg_catalog.$type";
	push @columns, [ "c_$type", $quoted, $literals{$type} ];
	my $array =
	  $node->sql('SELECT typarray FROM pg_type WHERE oid = ' . sql_literal($quoted) . '::regtype');
	push @columns, [ "a_$type", "$quoted\[]", ["ARRAY"] ] if $array;
}
my $number = 0;
push @columns, map { [ 'u_' . ++$number, $_, $user_literals{$_} ] } sort keys %user_literals;

# Row i holds the i-th literal of every column that has so many, NULL in the others.
sub row_values
{
	my ($row) = @_;

	return map {
		my ($name, $type, $values) = @$_;
		my $value = $values->[$row];

		!defined $value       ? 'NULL'
		  : $value eq 'ARRAY' ? array_of($name, $type)
		  :                     sql_literal($value) . "::$type";
	} @columns;
}

sub array_of
{
	my ($name, $type) = @_;

	(my $element = $name)      =~ s/^a_//;
	(my $element_type = $type) =~ s/\[\]$//;
	return
		'ARRAY['
	  . join(', ', 'NULL', map { sql_literal($_) . "::$element_type" } @{ $literals{$element} })
	  . "]::$type";
}

$node->sql(
		'CREATE TABLE everything (id int PRIMARY KEY, '
	  . join(', ', map { "$_->[0] $_->[1]" } @columns)
	  . '); ALTER TABLE everything REPLICA IDENTITY FULL;
	ALTER TABLE everything SET (toast_tuple_target = 8160)');
my $stream = StreamTables::Stream->new($node, interest => ['everything']);
$stream->{options} = { batch_bytes => 100 };
foreach my $row (0 .. 10)
{
	$node->sql("SET bytea_output = hex; INSERT INTO everything VALUES ($row, "
		  . join(', ', row_values($row))
		  . ')');
}

# --- as the send functions say ----------------------------------------------------------------------------

# Rows of the stream as hashes of column => hex or NULL.
sub rows_of
{
	my ($text) = @_;

	my @rows;
	foreach my $line (split /\n/, $text)
	{
		next if $line !~ s/^insert everything new: //;
		push @rows, { map { split /=/, $_, 2 } split / /, $line };
	}
	return @rows;
}

my $text = $stream->text(arguments => [ '--full', '--hex' ]);
my @rows = rows_of($text);
is(scalar(@rows), 11, 'all rows have come');
unlike($text, qr/~/, 'all of these types come in binary');
unlike($text, qr/!/, 'and without a flaw');

foreach my $column (@columns)
{
	my ($name, $type) = @$column;
	my $send = $node->sql(
		'SELECT typsend::regproc FROM pg_type WHERE oid = ' . sql_literal($type) . '::regtype');
	my $argument = $send eq 'textsend' ? "$name\::text" : $name;    # refcursor borrows it
	my @sent = split /\n/,
	  $node->sql(
		"SELECT coalesce('\\x' || encode($send($argument), 'hex'), 'NULL') FROM everything ORDER BY id"
	  );

	is_deeply([ map { $_->{$name} } @rows ], \@sent, "$type as $send writes it");
}

# --- and back ---------------------------------------------------------------------------------------------

# The rows in the format of COPY ... BINARY.
sub copy_binary
{
	my (@names) = @_;

	my $data = "PGCOPY\n\377\r\n\0" . pack('NN', 0, 0);
	foreach my $row (@rows)
	{
		$data .= pack('n', scalar @names);
		foreach my $name (@names)
		{
			my $value = $row->{$name};
			$data .=
			  $value eq 'NULL'
			  ? pack('N', 0xffffffff)
			  : pack('N/a*', pack('H*', substr($value, 2)));
		}
	}
	return $data . pack('n', 0xffff);
}

my $file = PostgreSQL::Test::Utils::tempdir() . '/everything.copy';
open my $handle, '>:raw', $file or die "could not write $file: $!";
print $handle copy_binary('id', map { $_->[0] } @columns);
close $handle or die "could not write $file: $!";
$node->sql("CREATE TABLE again (LIKE everything); COPY again FROM '$file' (FORMAT binary)");

# Two types are not the same image after a round trip, whoever makes it: xml gets a declaration with an
# encoding if it had one without, and tsquery's items are laid out anew.
my %is_rewritten = map { ("c_$_" => 1, "a_$_" => 1) } qw(xml tsquery);

foreach my $column (@columns)
{
	my ($name, $type) = @$column;
	my $comparison =
	  $is_rewritten{$name} ? "format('%s', e.$name) = format('%s', a.$name)" : 'e *= a';
	my $differing = $node->sql(
		"SELECT e, a FROM (SELECT id, $name FROM everything) e
		JOIN (SELECT id, $name FROM again) a USING (id) WHERE NOT $comparison ORDER BY id");

	is($differing, '', "$type comes back through its receive function");
}

# --- as text -------------------------------------------------------------------------------------------------

$node->sql(
	q{
	CREATE TYPE grants AS (acl aclitem, since date);
	CREATE TABLE textual (acl aclitem PRIMARY KEY, acls aclitem[], deep grants, deeper grants[]);
	ALTER TABLE textual REPLICA IDENTITY FULL;
} =~ s/ PRIMARY KEY//r);
$stream = StreamTables::Stream->new($node, interest => ['textual']);
my $user = $node->sql('SELECT current_user');
$node->sql(
	qq{INSERT INTO textual SELECT a, ARRAY[a], ROW(a, '2024-02-01')::grants, ARRAY[ROW(a, NULL)::grants]
	FROM (SELECT '$user=r/$user'::aclitem) AS acl (a)});
if ($node->sql(q{SELECT typsend FROM pg_type WHERE typname = 'aclitem'}) eq '-')
{
	my $text = $stream->text =~ s/\b\Q$user\E\b/me/gr =~ s/:\d+~/:~/gr;
	is($text, <<'END', 'types without a send function, at any depth, come as text');
begin
relation textual public.textual as textual identity f: acl@1:~* acls@2:~* deep@3:~* deeper@4:~*
insert textual new: acl='me=r/me' acls='{me=r/me}' deep='(me=r/me,2024-02-01)' deeper='{"(me=r/me,)"}'
commit rows 1
END
}

# A type whose send function fails: enum_send on something that is no enum.
$node->sql(
	q{
	CREATE TYPE brittle;
	CREATE FUNCTION brittle_in(cstring) RETURNS brittle LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
	CREATE FUNCTION brittle_out(brittle) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
	CREATE FUNCTION brittle_recv(internal) RETURNS brittle LANGUAGE internal IMMUTABLE STRICT AS 'int4recv';
	CREATE FUNCTION brittle_send(brittle) RETURNS bytea LANGUAGE internal IMMUTABLE STRICT AS 'enum_send';
	CREATE TYPE brittle (INPUT = brittle_in, OUTPUT = brittle_out, RECEIVE = brittle_recv, SEND = brittle_send,
		INTERNALLENGTH = 4, PASSEDBYVALUE, ALIGNMENT = int4);
	CREATE TABLE fragile (id int, b brittle, bs brittle[], t text);
	ALTER TABLE fragile REPLICA IDENTITY FULL;
});
$stream = StreamTables::Stream->new($node, interest => ['fragile']);
$node->sql(
	q{INSERT INTO fragile VALUES (1, '42', NULL, 'x'), (2, NULL, '{1,2}', 'y'), (3, NULL, '{}', 'z')}
);
$node->sql(q{UPDATE fragile SET id = 4 WHERE id = 1});
is($stream->text =~ s/:\d+\*/*/gr =~ s/(\\x0{16})\w{8}/$1/r,
	<<'END', 'a send function that fails loses its value, nothing else');
begin
relation fragile public.fragile as fragile identity f: id@1* b@2* bs@3* t@4*
insert fragile new: id=1 b=NOT_LOGGED bs=NULL t='x' !value_unsendable
insert fragile new: id=2 b=NULL bs=NOT_LOGGED t='y' !value_unsendable
insert fragile new: id=3 b=NULL bs=\x0000000000000000 t='z'
commit rows 3
begin
update fragile old: id=1 b=NOT_LOGGED bs=NULL t='x' new: id=4 b=NOT_LOGGED bs=NULL t='x' !value_unsendable
commit rows 1
END

done_testing();
