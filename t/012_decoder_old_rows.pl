# t/012_decoder_old_rows.pl
#
# Goal: the stream says which parts of a row the server logged: NULL, unchanged and unknown never look alike.
# Method: the same changes under every replica identity, with values in and out of line, small and huge.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use StreamTables::Stream;
use Test::More;

my $node = StreamTables::Cluster->new('old_rows')->boot(setup => 'none');

# --- replica identities --------------------------------------------------------------------------------

$node->sql(
	q{
	CREATE TABLE d (id int PRIMARY KEY, code text NOT NULL, note text);
	CREATE UNIQUE INDEX d_code ON d (code);
	CREATE TABLE no_key (id int, note text);
});
my $stream = StreamTables::Stream->new($node);

sub change_all
{
	$node->sql(
		q{
		BEGIN;
		INSERT INTO d VALUES (1, 'a', NULL), (2, 'b', 'x');
		UPDATE d SET note = 'y' WHERE id = 1;
		UPDATE d SET id = 3 WHERE id = 1;
		UPDATE d SET code = 'c' WHERE id = 2;
		DELETE FROM d WHERE id = 3;
		DELETE FROM d;
		COMMIT;
	});
	return;
}

change_all();
$stream->says(<<'END', 'DEFAULT: old keys only, and only when they change');
begin
relation d public.d as d identity d: id@1:23* code@2:25 note@3:25
insert d new: id=1 code='a' note=NULL
insert d new: id=2 code='b' note='x'
update d new: id=1 code='a' note='y' !old_row_missing
update d old: id=1 code=NOT_LOGGED note=NOT_LOGGED new: id=3 code='a' note='y' !old_row_key_only
update d new: id=2 code='c' note='x' !old_row_missing
delete d old: id=3 code=NOT_LOGGED note=NOT_LOGGED !old_row_key_only
delete d old: id=2 code=NOT_LOGGED note=NOT_LOGGED !old_row_key_only
commit rows 7
END

$node->sql('ALTER TABLE d REPLICA IDENTITY USING INDEX d_code');
change_all();
$stream->says(<<'END', 'USING INDEX: the same with another key');
begin
relation d public.d as d identity i: id@1:23 code@2:25* note@3:25
insert d new: id=1 code='a' note=NULL
insert d new: id=2 code='b' note='x'
update d new: id=1 code='a' note='y' !old_row_missing
update d new: id=3 code='a' note='y' !old_row_missing
update d old: id=NOT_LOGGED code='b' note=NOT_LOGGED new: id=2 code='c' note='x' !old_row_key_only
delete d old: id=NOT_LOGGED code='a' note=NOT_LOGGED !old_row_key_only
delete d old: id=NOT_LOGGED code='c' note=NOT_LOGGED !old_row_key_only
commit rows 7
END

$node->sql('ALTER TABLE d REPLICA IDENTITY NOTHING');
change_all();
$stream->says(<<'END', 'NOTHING: deletes come all the same');
begin
relation d public.d as d identity n: id@1:23 code@2:25 note@3:25
insert d new: id=1 code='a' note=NULL
insert d new: id=2 code='b' note='x'
update d new: id=1 code='a' note='y' !old_row_missing
update d new: id=3 code='a' note='y' !old_row_missing
update d new: id=2 code='c' note='x' !old_row_missing
delete d !old_row_missing
delete d !old_row_missing
commit rows 7
END

$node->sql('ALTER TABLE d REPLICA IDENTITY FULL');
change_all();
$stream->says(<<'END', 'FULL: everything');
begin
relation d public.d as d identity f: id@1:23* code@2:25* note@3:25*
insert d new: id=1 code='a' note=NULL
insert d new: id=2 code='b' note='x'
update d old: id=1 code='a' note=NULL new: id=1 code='a' note='y'
update d old: id=1 code='a' note='y' new: id=3 code='a' note='y'
update d old: id=2 code='b' note='x' new: id=2 code='c' note='x'
delete d old: id=3 code='a' note='y'
delete d old: id=2 code='c' note='x'
commit rows 7
END

$node->sql(
	q{
	BEGIN; INSERT INTO no_key VALUES (1, 'x'); UPDATE no_key SET id = 2; DELETE FROM no_key; COMMIT;
	BEGIN; INSERT INTO no_key VALUES (3, 'y');
	ALTER TABLE no_key REPLICA IDENTITY FULL; UPDATE no_key SET id = 4; COMMIT;
});
$stream->says(
	<<'END', 'without a key DEFAULT is NOTHING; a change of identity counts from where it stands');
begin
relation no_key public.no_key as no_key identity d: id@1:23 note@2:25
insert no_key new: id=1 note='x'
update no_key new: id=2 note='x' !old_row_missing
delete no_key !old_row_missing
commit rows 3
begin
insert no_key new: id=3 note='y'
relation no_key public.no_key as no_key identity f: id@1:23* note@2:25*
update no_key old: id=3 note='y' new: id=4 note='y'
commit rows 2
END

# --- TOAST -------------------------------------------------------------------------------------------

# Values that stay out of line because they do not compress, and one that is compressed in line.
$node->sql(
	q{
	CREATE FUNCTION noise(bytes int) RETURNS text LANGUAGE sql AS
		$$SELECT string_agg(md5(i::text), '') FROM generate_series(1, bytes / 32) i$$;
	CREATE TABLE toasted (id int PRIMARY KEY, big text, packed text, n int);
	INSERT INTO toasted VALUES (1, noise(9600), repeat('abc ', 2000), 0), (2, NULL, '', 0);
});
$stream->forget;
$node->sql(
	q{
	BEGIN;
	UPDATE toasted SET n = 1;
	UPDATE toasted SET big = noise(6400) || 'end' WHERE id = 1;
	UPDATE toasted SET big = NULL WHERE id = 1;
	COMMIT;
});
$stream->says(<<'END', 'an unchanged value out of line is UNCHANGED, a compressed one is there');
begin
relation toasted public.toasted as toasted identity d: id@1:23* big@2:25 packed@3:25 n@4:23
update toasted new: id=1 big=UNCHANGED packed='abc abc abc abc abc abc abc abc abc abc abc abc abc abc abc abc '...(8000 bytes) n=1 !old_row_missing
update toasted new: id=2 big=NULL packed='' n=1 !old_row_missing
update toasted new: id=1 big='c4ca4238a0b923820dcc509a6f75849bc81e728d9d4c2f636f067f89cc14862c'...(6403 bytes) packed='abc abc abc abc abc abc abc abc abc abc abc abc abc abc abc abc '...(8000 bytes) n=1 !old_row_missing
update toasted new: id=1 big=NULL packed='abc abc abc abc abc abc abc abc abc abc abc abc abc abc abc abc '...(8000 bytes) n=1 !old_row_missing
commit rows 4
END

$node->sql(
	q{
	ALTER TABLE toasted REPLICA IDENTITY FULL;
	UPDATE toasted SET big = noise(9600) WHERE id = 1;
	UPDATE toasted SET n = 2 WHERE id = 1;
	DELETE FROM toasted WHERE id = 1;
});
my $text = $stream->text =~ s/ packed='\S[^']*'\.{3}\(8000 bytes\)//gr;
is($text, <<'END', 'FULL: what is unchanged in the new row stands in the old one');
begin
relation toasted public.toasted as toasted identity f: id@1:23* big@2:25* packed@3:25* n@4:23*
update toasted old: id=1 big=NULL n=1 new: id=1 big='c4ca4238a0b923820dcc509a6f75849bc81e728d9d4c2f636f067f89cc14862c'...(9600 bytes) n=1
commit rows 1
begin
update toasted old: id=1 big='c4ca4238a0b923820dcc509a6f75849bc81e728d9d4c2f636f067f89cc14862c'...(9600 bytes) n=1 new: id=1 big=UNCHANGED n=2
commit rows 1
begin
delete toasted old: id=1 big='c4ca4238a0b923820dcc509a6f75849bc81e728d9d4c2f636f067f89cc14862c'...(9600 bytes) n=2
commit rows 1
END

$node->sql(
	q{
	CREATE TABLE wide_key (id text PRIMARY KEY, n int);
	ALTER TABLE wide_key ALTER id SET STORAGE EXTERNAL;
	CREATE TABLE shapes (id int PRIMARY KEY, j jsonb, a text[], b bytea);
	INSERT INTO shapes SELECT 1, jsonb_build_object('k', noise(6400)),
		ARRAY[noise(6400), 'x'], decode(noise(6400), 'hex');
	INSERT INTO wide_key VALUES (noise(2400), 1);
});
$stream->forget;
$node->sql(
	q{UPDATE wide_key SET n = 2; UPDATE shapes SET id = 2; UPDATE shapes SET j = j || '{"z": 1}'});
$stream->says(<<'END', 'keys and other types can be out of line too');
begin
relation wide_key public.wide_key as wide_key identity d: id@1:25* n@2:23
update wide_key old: id='c4ca4238a0b923820dcc509a6f75849bc81e728d9d4c2f636f067f89cc14862c'...(2400 bytes) n=NOT_LOGGED new: id=UNCHANGED n=2 !old_row_key_only
commit rows 1
begin
relation shapes public.shapes as shapes identity d: id@1:23* j@2:3802 a@3:1009 b@4:17
update shapes old: id=1 j=NOT_LOGGED a=NOT_LOGGED b=NOT_LOGGED new: id=2 j=UNCHANGED a=UNCHANGED b=UNCHANGED !old_row_key_only
commit rows 1
begin
update shapes new: id=2 j=\x017b226b223a20226334636134323338613062393233383230646363353039613666373538343962633831653732386439643463326636333666303637663839...(6418 bytes) a=UNCHANGED b=UNCHANGED !old_row_missing
commit rows 1
END

# --- too large --------------------------------------------------------------------------------------------

$stream = StreamTables::Stream->new($node, options => { value_bytes_max => 100 });
$node->sql(
	q{
	CREATE TABLE sized (id int PRIMARY KEY, t text, j jsonb, u uuid);
	ALTER TABLE sized REPLICA IDENTITY FULL;
	INSERT INTO sized VALUES (1, repeat('x', 100), '{}', NULL), (2, repeat('x', 101), '{}', NULL),
		(3, '', jsonb_build_object('k', noise(320)), NULL), (4, repeat('x', 10000), NULL, NULL),
		(5, noise(9600), '[]', NULL);
	UPDATE sized SET t = '' WHERE id = 2;
	UPDATE sized SET id = 6 WHERE id = 5;
});
is($stream->text =~ s/x{64}/xx/gr,
	<<'END', 'a value above the limit is flagged, by its length without compression');
begin
relation sized public.sized as sized identity f: id@1:23* t@2:25* j@3:3802* u@4:2950*
insert sized new: id=1 t='xx'...(100 bytes) j=\x017b7d u=NULL
insert sized new: id=2 t=NOT_LOGGED j=\x017b7d u=NULL !value_too_large
insert sized new: id=3 t='' j=NOT_LOGGED u=NULL !value_too_large
insert sized new: id=4 t=NOT_LOGGED j=NULL u=NULL !value_too_large
insert sized new: id=5 t=NOT_LOGGED j=\x015b5d u=NULL !value_too_large
commit rows 5
begin
update sized old: id=2 t=NOT_LOGGED j=\x017b7d u=NULL new: id=2 t='' j=\x017b7d u=NULL !value_too_large
commit rows 1
begin
update sized old: id=5 t=NOT_LOGGED j=\x015b5d u=NULL new: id=6 t=UNCHANGED j=\x015b5d u=NULL !value_too_large
commit rows 1
END

# 100 MB in one value: sent when it may be, flagged when it may not.
$node->sql(
	q{
	CREATE TABLE huge (id int, v bytea);
	ALTER TABLE huge ALTER v SET STORAGE EXTERNAL;
});
$stream = StreamTables::Stream->new(
	$node,
	interest => ['huge'],
	options => { value_bytes_max => 10_000_000 });
my $generous = StreamTables::Stream->new($node, interest => ['huge']);
$node->sql(q{INSERT INTO huge SELECT 1, convert_to(repeat('0123456789abcdef', 6553600), 'UTF8')});
$node->sql(q{INSERT INTO huge VALUES (2, 'small')});
$stream->says(<<'END', '100 MB are too large for a limit of 10 MB');
begin
relation huge public.huge as huge identity d: id@1:23 v@2:17
insert huge new: id=1 v=NOT_LOGGED !value_too_large
commit rows 1
begin
insert huge new: id=2 v=\x736d616c6c
commit rows 1
END
my $lengths =
  $node->sql($generous->statement =~ s/SELECT encode\(data, 'hex'\)/SELECT length(data)/r);
like($lengths, qr/^1048576\d\d$/m, 'and are sent by default');

# Many values that are each small enough do not add up to more than twice the limit (or 64 MB).
$node->sql(
	q{
	CREATE TABLE several (id int, a bytea, b bytea, c bytea, d int);
	ALTER TABLE several ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL,
		ALTER c SET STORAGE EXTERNAL;
});
$stream = StreamTables::Stream->new(
	$node,
	interest => ['several'],
	options  => { value_bytes_max => 30_000_000 });
$node->sql(
	q{INSERT INTO several SELECT 1, v, v, v, 2 FROM convert_to(repeat('0123456789abcdef', 1562500), 'UTF8') AS v}
);
my $start = '\\x' . '30313233343536373839616263646566' x 4 . '...(25000000 bytes)';
$stream->says(<<"END", 'a record has a limit, too');
begin
relation several public.several as several identity d: id\@1:23 a\@2:17 b\@3:17 c\@4:17 d\@5:23
insert several new: id=1 a=$start b=$start c=NOT_LOGGED d=2 !value_too_large
commit rows 1
END

done_testing();
