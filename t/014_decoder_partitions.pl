# t/014_decoder_partitions.pl
#
# Goal: rows of a partition count for every relation above it that somebody asked for, as the tree was at that time.
# Method: trees with different column orders; attach, detach, inherit; interest in root, middle and leaf.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use StreamTables::Stream;
use Test::More;

my $node = StreamTables::Cluster->new('partitions')->boot(setup => 'none');
$node->sql(
	q{
	CREATE TABLE root (id int, k int, v text) PARTITION BY RANGE (k);
	CREATE TABLE low PARTITION OF root FOR VALUES FROM (0) TO (10);
	CREATE TABLE middle (v text, gone int, k int, id int) PARTITION BY LIST (k);
	ALTER TABLE middle DROP COLUMN gone;
	ALTER TABLE root ATTACH PARTITION middle FOR VALUES FROM (10) TO (20);
	CREATE TABLE leaf (gone int, k int, id int, v text);
	ALTER TABLE leaf DROP COLUMN gone;
	ALTER TABLE middle ATTACH PARTITION leaf FOR VALUES IN (10, 11);
	ALTER TABLE low REPLICA IDENTITY FULL;
	ALTER TABLE leaf REPLICA IDENTITY FULL;
});
my $stream = StreamTables::Stream->new($node, interest => ['root']);
my $both = StreamTables::Stream->new($node, interest => [ 'root', 'leaf' ]);
my $inner = StreamTables::Stream->new($node, interest => ['middle']);

$node->sql(
	q{INSERT INTO root VALUES (1, 1, 'a'), (2, 10, 'b'); UPDATE root SET k = 11 WHERE k = 1; INSERT INTO leaf VALUES (10, 3, 'c')}
);
$stream->says(
	<<'END', 'the root gets all rows, in the leaf\'s own columns; the others on the way are skipped');
begin
skipped low
relation low public.low as root identity f: id@1:23* k@2:23* v@3:25*
insert low new: id=1 k=1 v='a'
skipped leaf
skipped middle
relation leaf public.leaf as root identity f: k@2:23* id@3:23* v@4:25*
insert leaf new: k=10 id=2 v='b'
commit rows 2
begin
skipped low
delete low old: id=1 k=1 v='a'
skipped leaf
skipped middle
insert leaf new: k=11 id=1 v='a'
commit rows 2
begin
skipped leaf
skipped middle
insert leaf new: k=10 id=3 v='c'
commit rows 1
END
$both->says(<<'END', 'rows count for several relations at once');
begin
skipped low
relation low public.low as root identity f: id@1:23* k@2:23* v@3:25*
insert low new: id=1 k=1 v='a'
skipped middle
relation leaf public.leaf as leaf root identity f: k@2:23* id@3:23* v@4:25*
insert leaf new: k=10 id=2 v='b'
commit rows 2
begin
skipped low
delete low old: id=1 k=1 v='a'
skipped middle
insert leaf new: k=11 id=1 v='a'
commit rows 2
begin
skipped middle
insert leaf new: k=10 id=3 v='c'
commit rows 1
END
$inner->says(<<'END', 'or for one in the middle');
begin
skipped low
skipped root
skipped leaf
relation leaf public.leaf as middle identity f: k@2:23* id@3:23* v@4:25*
insert leaf new: k=10 id=2 v='b'
commit rows 1
begin
skipped low
skipped root
skipped leaf
insert leaf new: k=11 id=1 v='a'
commit rows 1
begin
skipped leaf
skipped root
insert leaf new: k=10 id=3 v='c'
commit rows 1
END

# --- the tree changes --------------------------------------------------------------------------------------

$node->sql(
	q{
	INSERT INTO leaf VALUES (10, 5, 'in');
	ALTER TABLE root DETACH PARTITION middle;
	INSERT INTO leaf VALUES (10, 6, 'out, by the middle');
	ALTER TABLE root ATTACH PARTITION middle FOR VALUES FROM (10) TO (20);
	INSERT INTO leaf VALUES (10, 7, 'in again');
	BEGIN;
	INSERT INTO leaf VALUES (10, 8, 'in');
	ALTER TABLE middle DETACH PARTITION leaf;
	INSERT INTO leaf VALUES (10, 9, 'out');
	SAVEPOINT s;
	ALTER TABLE middle ATTACH PARTITION leaf FOR VALUES IN (10, 11);
	INSERT INTO leaf VALUES (10, 9, 'never');
	ROLLBACK TO s;
	COMMIT;
});
$node->sql('ALTER TABLE middle ATTACH PARTITION leaf FOR VALUES IN (10, 11)');
$node->sql('ALTER TABLE middle DETACH PARTITION leaf CONCURRENTLY');
$node->sql(q{INSERT INTO leaf VALUES (10, 10, 'out')});
$stream->says(<<'END', 'attach and detach count from where they stand, also two levels up');
begin
skipped leaf
skipped middle
relation leaf public.leaf as root identity f: k@2:23* id@3:23* v@4:25*
insert leaf new: k=10 id=5 v='in'
commit rows 1
begin
skipped leaf
skipped middle
commit rows 0
begin
skipped leaf
skipped middle
relation leaf public.leaf as root identity f: k@2:23* id@3:23* v@4:25*
insert leaf new: k=10 id=7 v='in again'
commit rows 1
begin
skipped leaf
skipped middle
insert leaf new: k=10 id=8 v='in'
commit rows 1
begin
skipped leaf
commit rows 0
END

$node->sql(
	q{
	CREATE TABLE parent (id int, v text);
	CREATE TABLE other (id int, w int);
	CREATE TABLE child (x int) INHERITS (parent, other);
	CREATE TABLE grandchild () INHERITS (child);
});
$stream = StreamTables::Stream->new($node, interest => [ 'parent', 'other' ]);
$node->sql(
	q{
	INSERT INTO parent VALUES (1, 'p');
	INSERT INTO child VALUES (2, 'c', 0, 0);
	INSERT INTO grandchild VALUES (3, 'g', 0, 0);
	ALTER TABLE child NO INHERIT other;
	INSERT INTO grandchild VALUES (4, 'g', 0, 0);
});
$stream->says(<<'END', 'inheritance counts like partitioning, with several parents');
begin
relation parent public.parent as parent identity d: id@1:23 v@2:25
insert parent new: id=1 v='p'
commit rows 1
begin
skipped child
relation child public.child as parent other identity d: id@1:23 v@2:25 w@3:23 x@4:23
insert child new: id=2 v='c' w=0 x=0
commit rows 1
begin
skipped grandchild
skipped child
relation grandchild public.grandchild as parent other identity d: id@1:23 v@2:25 w@3:23 x@4:23
insert grandchild new: id=3 v='g' w=0 x=0
commit rows 1
begin
skipped grandchild
skipped child
relation grandchild public.grandchild as parent identity d: id@1:23 v@2:25 w@3:23 x@4:23
insert grandchild new: id=4 v='g' w=0 x=0
commit rows 1
END

# --- truncate --------------------------------------------------------------------------------------------------

$stream = StreamTables::Stream->new($node, interest => ['root']);
$node->sql('ALTER TABLE middle ATTACH PARTITION leaf FOR VALUES IN (10, 11)');
$node->sql('TRUNCATE leaf; TRUNCATE root; TRUNCATE parent');
$stream->says(<<'END', 'truncating a partition concerns the root, once');
begin
skipped leaf
skipped middle
truncate root whole leaf
commit rows 0
begin
skipped low
skipped middle
skipped leaf
truncate root whole root low middle leaf
commit rows 0
begin
skipped parent
skipped child
skipped grandchild
commit rows 0
END

done_testing();
