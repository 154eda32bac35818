# t/013_decoder_shapes.pl
#
# Goal: a row is described by the shape that its table had when the row was written, whatever DDL came around it.
# Method: ALTER TABLE between and inside transactions; look at relations, attribute numbers and values.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use StreamTables::Stream;
use Test::More;

my $node = StreamTables::Cluster->new('shapes')->boot(setup => 'none');
my $stream = StreamTables::Stream->new($node);

$node->sql(
	q{
	CREATE TABLE t (a int, b text, c int);
	ALTER TABLE t REPLICA IDENTITY FULL;
	INSERT INTO t VALUES (1, 'x', 10);
	ALTER TABLE t DROP COLUMN b;
	INSERT INTO t VALUES (2, 20);
	ALTER TABLE t ADD COLUMN d text DEFAULT 'fast', ADD COLUMN e int;
	UPDATE t SET e = 5 WHERE a = 1;
	ALTER TABLE t RENAME COLUMN c TO cc;
	ALTER TABLE t RENAME TO tt;
	DELETE FROM tt WHERE a = 2;
	ALTER TABLE tt ALTER COLUMN cc TYPE bigint;
	UPDATE tt SET cc = cc + 1;
});
$stream->says(
	<<'END', 'dropped columns vanish, numbers stay, a fast default has its value in old rows');
begin
relation tt public.t as tt identity f: a@1:23* b@2:25* c@3:23*
insert t new: a=1 b='x' c=10
commit rows 1
begin
relation tt public.t as tt identity f: a@1:23* c@3:23*
insert t new: a=2 c=20
commit rows 1
begin
relation tt public.t as tt identity f: a@1:23* c@3:23* d@4:25* e@5:23*
update t old: a=1 c=10 d='fast' e=NULL new: a=1 c=10 d='fast' e=5
commit rows 1
begin
relation tt public.tt as tt identity f: a@1:23* cc@3:23* d@4:25* e@5:23*
delete tt old: a=2 cc=20 d='fast' e=NULL
commit rows 1
begin
relation tt public.tt as tt identity f: a@1:23* cc@3:20* d@4:25* e@5:23*
update tt old: a=1 cc=10 d='fast' e=5 new: a=1 cc=11 d='fast' e=5
commit rows 1
END

$node->sql(
	q{
	BEGIN;
	CREATE TABLE n (id int PRIMARY KEY);
	INSERT INTO n VALUES (1);
	ALTER TABLE n ADD COLUMN v text DEFAULT 'seven';
	INSERT INTO n VALUES (2);
	SAVEPOINT s;
	ALTER TABLE n DROP COLUMN v;
	INSERT INTO n VALUES (3);
	ROLLBACK TO s;
	INSERT INTO n VALUES (4);
	UPDATE n SET id = 11 WHERE id = 1;
	ALTER TABLE n ADD COLUMN w timestamptz DEFAULT clock_timestamp();
	DELETE FROM n WHERE id = 2;
	COMMIT;
});
$stream->says(
	<<'END', 'also inside of a transaction, savepoints included; a rewrite brings no rows');
begin
relation n public.n as n identity d: id@1:23*
insert n new: id=1
relation n public.n as n identity d: id@1:23* v@2:25
insert n new: id=2 v='seven'
insert n new: id=4 v='seven'
update n old: id=1 v=NOT_LOGGED new: id=11 v='seven' !old_row_key_only
relation n public.n as n identity d: id@1:23* v@2:25 w@3:1184
delete n old: id=2 v=NOT_LOGGED w=NOT_LOGGED !old_row_key_only
commit rows 5
END

$node->sql(
	q{
	CREATE TABLE g (a int, twice int GENERATED ALWAYS AS (a * 2) STORED, id int GENERATED ALWAYS AS IDENTITY);
	INSERT INTO g (a) VALUES (21);
	CREATE TABLE empty ();
	INSERT INTO empty DEFAULT VALUES;
	ALTER TABLE empty ADD COLUMN later int;
	ALTER TABLE empty DROP COLUMN later;
	INSERT INTO empty DEFAULT VALUES;
	CREATE TABLE "Odd ""name""" ("a b" int, "\u00e9" text);
	INSERT INTO "Odd ""name""" VALUES (1, 'x');
} =~ s/\\u00e9/\x{c3}\x{a9}/r);
$stream->says(<<"END", 'generated columns, no columns, odd names');
begin
relation g public.g as g identity d: a\@1:23 twice\@2:23 id\@3:23
insert g new: a=21 twice=42 id=1
commit rows 1
begin
relation empty public.empty as empty identity d:
insert empty new:
commit rows 1
begin
insert empty new:
commit rows 1
begin
relation Odd "name" public.Odd "name" as Odd "name" identity d: a b\@1:23 \x{c3}\x{a9}\@2:25
insert Odd "name" new: a b=1 \x{c3}\x{a9}='x'
commit rows 1
END

SKIP:
{
	skip 'the server has no virtual generated columns', 1 if $node->pg_version < 18;
	$node->sql(
		q{CREATE TABLE virtual (a int, v int GENERATED ALWAYS AS (a * 2) VIRTUAL, b int);
		INSERT INTO virtual VALUES (1, DEFAULT, 2)});
	$stream->says(<<'END', 'virtual generated columns are not there');
begin
relation virtual public.virtual as virtual identity d: a@1:23 b@3:23
insert virtual new: a=1 b=2
commit rows 1
END
}

# --- invalidations -----------------------------------------------------------------------------------------

$node->sql(
	q{
	CREATE SCHEMA one;
	CREATE TABLE one.s (id int);
	INSERT INTO one.s VALUES (1);
	ALTER SCHEMA one RENAME TO two;
	INSERT INTO two.s VALUES (2);
	ALTER TABLE two.s SET SCHEMA public;
	INSERT INTO s VALUES (3);
});
$stream->says(<<'END', 'schemas are renamed and changed');
begin
relation s one.s as s identity d: id@1:23
insert s new: id=1
commit rows 1
begin
relation s two.s as s identity d: id@1:23
insert s new: id=2
commit rows 1
begin
relation s public.s as s identity d: id@1:23
insert s new: id=3
commit rows 1
END

$node->sql(
	q{
	INSERT INTO s VALUES (4);
	ANALYZE s;
	CREATE INDEX s_id ON s (id);
	VACUUM FULL s;
	GRANT SELECT ON s TO PUBLIC;
	COMMENT ON TABLE s IS 'the same';
	INSERT INTO s VALUES (5);
	ALTER TABLE s SET (fillfactor = 50);
	CLUSTER s USING s_id;
	INSERT INTO s VALUES (6);
});
$stream->says(<<'END', 'what does not change the shape does not announce the relation again');
begin
relation s public.s as s identity d: id@1:23
insert s new: id=4
commit rows 1
begin
insert s new: id=5
commit rows 1
begin
insert s new: id=6
commit rows 1
END

# A storm: tables come and go, and DDL runs in a transaction with many savepoints, while rows are written.
$node->sql(
	q{
	DO $$
	BEGIN
		FOR i IN 1 .. 300 LOOP
			EXECUTE format('CREATE TABLE storm_%s (id int); INSERT INTO storm_%s VALUES (%s)', i, i, i);
			INSERT INTO s VALUES (i);
			IF i % 2 = 0 THEN
				EXECUTE format('DROP TABLE storm_%s', i);
			END IF;
			BEGIN
				EXECUTE format('ALTER TABLE s ADD COLUMN x%s int', i);
				INSERT INTO s (id) VALUES (-i);
				RAISE 'undo';
			EXCEPTION WHEN raise_exception THEN
				NULL;
			END;
			COMMIT;
		END LOOP;
	END
	$$});
my $text = $stream->text;
is(() = $text =~ /^insert s new: id=\d+$/mg, 300, 'in a storm of invalidations every row comes');
is(() = $text =~ /^insert storm_\d+ new: id=\d+$/mg, 300, 'of every table');
is(() = $text =~ /^relation \S+ public\.s /mg, 1, 'and the shape that was rolled back is not seen');

done_testing();
