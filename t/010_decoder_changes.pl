# t/010_decoder_changes.pl
#
# Goal: every change of a committed transaction comes, in order, once; nothing of what was rolled back does.
# Method: write in all the ways there are, and compare the stream's text.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use StreamTables::Stream;
use Test::More;

my $node = StreamTables::Cluster->new('changes')->boot(setup => 'none');
$node->sql(
	q{
	CREATE TABLE t (id int PRIMARY KEY, v text);
	CREATE TABLE u (id int PRIMARY KEY, t_id int REFERENCES t);
	ALTER TABLE t REPLICA IDENTITY FULL;
	ALTER TABLE u REPLICA IDENTITY FULL;
});
my $stream = StreamTables::Stream->new($node);

$node->sql(q{INSERT INTO t VALUES (1, 'one'), (2, NULL), (3, '')});
$stream->says(<<'END', 'inserts come with their relation; NULL is not the empty string');
begin
relation t public.t as t identity f: id@1:23* v@2:25*
insert t new: id=1 v='one'
insert t new: id=2 v=NULL
insert t new: id=3 v=''
commit rows 3
END

$node->sql(
	q{BEGIN; UPDATE t SET v = 'two' WHERE id = 2; INSERT INTO u VALUES (7, 2); DELETE FROM t WHERE id = 3; COMMIT}
);
$stream->says(<<'END', 'a new connection learns the relations again, in the order of their use');
begin
relation t public.t as t identity f: id@1:23* v@2:25*
update t old: id=2 v=NULL new: id=2 v='two'
relation u public.u as u identity f: id@1:23* t_id@2:23*
insert u new: id=7 t_id=2
delete t old: id=3 v=''
commit rows 3
END

$node->sql(
	q{
	BEGIN;
	INSERT INTO t VALUES (10, 'kept');
	SAVEPOINT a;
	INSERT INTO t VALUES (11, 'lost');
	SAVEPOINT b;
	INSERT INTO t VALUES (12, 'lost too');
	RELEASE b;
	ROLLBACK TO a;
	SAVEPOINT c;
	INSERT INTO t VALUES (13, 'kept too');
	RELEASE c;
	UPDATE t SET v = v || '!' WHERE id = 10;
	COMMIT;
	BEGIN;
	INSERT INTO t VALUES (14, 'lost');
	ROLLBACK;
});
$stream->says(<<'END', 'subtransactions that were rolled back leave nothing');
begin
relation t public.t as t identity f: id@1:23* v@2:25*
insert t new: id=10 v='kept'
insert t new: id=13 v='kept too'
update t old: id=10 v='kept' new: id=10 v='kept!'
commit rows 3
END

$node->sql(
	q{
	COPY t FROM PROGRAM 'printf "20\ta\n21\t\\\\\\\\N\n22\tc\n"';
	INSERT INTO t VALUES (20, 'taken'), (30, 'new') ON CONFLICT DO NOTHING;
	INSERT INTO t VALUES (20, 'taken'), (31, 'new') ON CONFLICT (id) DO UPDATE SET v = excluded.v;
});
$stream->says(<<'END', 'COPY and ON CONFLICT come as the changes they make');
begin
relation t public.t as t identity f: id@1:23* v@2:25*
insert t new: id=20 v='a'
insert t new: id=21 v=NULL
insert t new: id=22 v='c'
commit rows 3
begin
insert t new: id=30 v='new'
commit rows 1
begin
update t old: id=20 v='a' new: id=20 v='taken'
insert t new: id=31 v='new'
commit rows 2
END

$node->sql(
	q{BEGIN; INSERT INTO t VALUES (40, 'prepared'); PREPARE TRANSACTION 'p'; BEGIN; INSERT INTO t VALUES (41, 'undone'); PREPARE TRANSACTION 'q'}
);
$stream->says('', 'a prepared transaction does not come');
$node->sql(q{INSERT INTO t VALUES (42, 'between')});
$node->sql(q{COMMIT PREPARED 'p'});
$node->sql(q{ROLLBACK PREPARED 'q'});
$stream->says(<<'END', 'until it is committed');
begin
relation t public.t as t identity f: id@1:23* v@2:25*
insert t new: id=42 v='between'
commit rows 1
begin
insert t new: id=40 v='prepared'
commit rows 1
END

$node->sql(
	q{TRUNCATE t, u; BEGIN; INSERT INTO t VALUES (1, 'before'); TRUNCATE t CASCADE; INSERT INTO t VALUES (2, 'after'); COMMIT}
);
$stream->says(<<'END', 'TRUNCATE comes in its place, with what it cascades to');
begin
truncate t u whole t u
commit rows 0
begin
relation t public.t as t identity f: id@1:23* v@2:25*
insert t new: id=1 v='before'
truncate t u whole t u
insert t new: id=2 v='after'
commit rows 2
END

$node->sql(
	q{
	SELECT pg_logical_emit_message(false, 'pgtrickle', 'fence a');
	BEGIN;
	INSERT INTO t VALUES (50, 'x');
	SELECT pg_logical_emit_message(true, 'pgtrickle', 'filled 1');
	SELECT pg_logical_emit_message(true, 'other', 'not ours');
	SELECT pg_logical_emit_message(false, 'pgtrickle', 'fence b');
	INSERT INTO t VALUES (51, 'y');
	COMMIT;
	BEGIN;
	SELECT pg_logical_emit_message(true, 'pgtrickle', 'lost');
	SELECT pg_logical_emit_message(false, 'pgtrickle', E'kept \x01 ''');
	ROLLBACK;
	SELECT pg_logical_emit_message(true, 'pgtrickle', 'catalog');
	SELECT pg_logical_emit_message(false, 'pgtrickle', repeat('x', 2000000));
});
$stream->says(<<'END', 'messages come in order inside of a transaction, or at once');
message 'fence a'
message 'fence b'
begin
relation t public.t as t identity f: id@1:23* v@2:25*
insert t new: id=50 v='x'
message transactional 'filled 1'
insert t new: id=51 v='y'
commit rows 2
message 'kept \x01 \''
begin
message transactional 'catalog'
commit rows 0
END

# One message to the client per small transaction, several for a long one.
$node->sql(q{INSERT INTO t SELECT i, 'x' FROM generate_series(100, 199) i});
$node->sql(q{UPDATE t SET v = 'z' WHERE id = 100});
is(scalar(my @lines = split /\n/, $stream->batches), 2, 'a transaction is one message');

$stream->{options} = { batch_bytes => 200 };
$node->sql(
	q{INSERT INTO t SELECT i, repeat('y', 1 + 400 * (i % 2)) FROM generate_series(200, 299) i});
@lines = split /\n/, $stream->batches;
cmp_ok(scalar(@lines), '>', 90, 'a long one is several');
is(scalar(grep { length($_) > 2 * 200 && length($_) < 2 * 400 } @lines),
	0, 'none longer than asked for, except for a single long record');
like(
	$stream->dump(join "\n", @lines),
	qr/\Abegin\nrelation .*\n(insert .*\n){100}commit rows 100\n\z/,
	'and nothing is missing');

done_testing();
