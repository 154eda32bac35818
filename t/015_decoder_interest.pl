# t/015_decoder_interest.pl
#
# Goal: rows come only of relations that somebody asked for; of the others it is told, once per transaction, that
# they changed; asking works at any time, in the order of the WAL.
# Method: interest by option and by message, on relations of every kind.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use StreamTables::Stream;
use Test::More;

my $node = StreamTables::Cluster->new('interest')->boot(setup => 'none');
$node->sql(
	q{
	CREATE TABLE wanted (id int);
	CREATE TABLE other (id int);
	CREATE TABLE third (id int);
	CREATE SCHEMA pgtrickle;
	CREATE TABLE pgtrickle.state (id int);
	CREATE UNLOGGED TABLE unlogged (id int);
	CREATE MATERIALIZED VIEW mv AS SELECT 1 AS id;
	CREATE UNIQUE INDEX ON mv (id);
});
my $stream = StreamTables::Stream->new($node, interest => ['wanted']);

$node->sql(
	q{
	INSERT INTO other SELECT generate_series(1, 5);
	BEGIN;
	INSERT INTO other VALUES (1);
	INSERT INTO wanted VALUES (1);
	INSERT INTO third VALUES (1);
	SAVEPOINT a;
	INSERT INTO other VALUES (2);
	UPDATE third SET id = 2;
	SAVEPOINT b;
	INSERT INTO wanted VALUES (2);
	COMMIT;
	TRUNCATE other, wanted;
	TRUNCATE other;
});
$stream->says(<<'END', 'changes of others come as one Skipped per transaction and relation');
begin
skipped other
commit rows 0
begin
skipped other
relation wanted public.wanted as wanted identity d: id@1:23
insert wanted new: id=1
skipped third
insert wanted new: id=2
commit rows 2
begin
skipped other
truncate wanted whole wanted
commit rows 0
begin
skipped other
commit rows 0
END

$node->sql(
	q{
	INSERT INTO pgtrickle.state VALUES (1);
	INSERT INTO unlogged VALUES (1);
	CREATE TEMP TABLE temporary (id int);
	INSERT INTO temporary VALUES (1);
	CREATE TABLE made AS SELECT 1 AS id;
	DROP TABLE made;
	BEGIN; DELETE FROM mv; ROLLBACK;
} =~ s/BEGIN; DELETE.*//r);
$node->sql('REFRESH MATERIALIZED VIEW mv');
$node->sql('REFRESH MATERIALIZED VIEW CONCURRENTLY mv');
$node->sql(
	q{CREATE OR REPLACE VIEW v AS SELECT 1; ALTER TABLE other ADD COLUMN r float8 DEFAULT random(); VACUUM FULL other; VACUUM ANALYZE}
);
$node->sql(
	q{CREATE TABLE information_schema.odd (id int); DROP TABLE information_schema.odd; SELECT lo_create(0); CREATE SEQUENCE s; SELECT nextval('s')}
);
my $text = $stream->text =~ s/skipped \d+/skipped made/r;
is($text,
	<<'END', 'catalogs, our own schema, temporary and unlogged tables, views and rewrites are no news');
begin
skipped made
commit rows 0
END

my $all = StreamTables::Stream->new($node);
my $own = StreamTables::Stream->new($node, interest => ['pgtrickle.state']);
$node->sql('INSERT INTO pgtrickle.state VALUES (2); INSERT INTO third VALUES (3)');
$all->says(<<'END', 'also when all relations are asked for');
begin
relation third public.third as third identity d: id@1:23
insert third new: id=3
commit rows 1
END
$own->says(<<'END', 'our own schema is sent when asked for by name');
begin
relation state pgtrickle.state as state identity d: id@1:23
insert state new: id=2
commit rows 1
begin
skipped third
commit rows 0
END
$stream->forget;

# --- at run time -----------------------------------------------------------------------------------------

# A transaction whose rows lie before the message but whose commit lies behind it is sent whole.
my $open = $node->background_psql('postgres');
$open->query_safe(q{BEGIN; INSERT INTO other VALUES (10)}) if $open->can('query_safe');
SKIP:
{
	skip 'this server\'s test modules have no background session with query_safe', 1
	  if !$open->can('query_safe');
	my $relid = $node->sql(q{SELECT 'other'::regclass::oid});
	$node->sql(
		qq{
		INSERT INTO other VALUES (11);
		BEGIN;
		SELECT pg_logical_emit_message(false, 'pgtrickle', 'interest ' || txid_current() || ' $relid,1');
		INSERT INTO other VALUES (12);
		ROLLBACK;
	});
	$open->query_safe(q{INSERT INTO other VALUES (13); COMMIT});
	$open->quit;
	$node->sql(q{INSERT INTO other VALUES (14)});
	my $text = $stream->text =~ s/interest \d+ \d+/interest x other/r =~ s/ r=\\x\w+/ r=0/gr;
	is($text, <<'END', 'a message adds to the interest, for every commit read from then on');
begin
skipped other
commit rows 0
message 'interest x other,1'
begin
relation other public.other as other identity d: id@1:23 r@2:701
insert other new: id=10 r=0
insert other new: id=13 r=0
commit rows 2
begin
insert other new: id=14 r=0
commit rows 1
END
}

$node->sql(q{INSERT INTO other VALUES (20)});
$stream->says(<<'END', 'and ends with the connection');
begin
skipped other
commit rows 0
END

my $third = $node->sql(q{SELECT 'third'::regclass::oid});
foreach my $payload (
	"interest $third",
	'interest',
	'interest ',
	"interest 1 ",
	"interest 1 x",
	"interest 1 $third,",
	"interest 1 ,$third",
	"interest 1 99999999999,$third",
	"interest 1 0",
	"interest 1 -1",
	"Interest 1 $third",
	"interest  $third $third x")
{
	$node->sql("SELECT pg_logical_emit_message(false, 'pgtrickle', '$payload')");
}
$node->sql("SELECT pg_logical_emit_message(true, 'pgtrickle', 'interest 1 $third')");
$node->sql("SELECT pg_logical_emit_message(false, 'other', 'interest 1 $third')");
$node->sql('INSERT INTO third VALUES (4)');
like($stream->text, qr/skipped third\ncommit rows 0\n\z/, 'malformed messages change nothing');

$node->sql(
	q{SELECT pg_logical_emit_message(false, 'pgtrickle', 'interest 1 '
	|| string_agg((20000 + i)::text, ',') || ',' || 'third'::regclass::oid) FROM generate_series(1, 110000) i}
);
$node->sql('INSERT INTO third VALUES (5)');
like(
	$stream->text,
	qr/skipped third\ncommit rows 0\n\z/,
	'the interest has a limit, beyond which rows are skipped');

done_testing();
