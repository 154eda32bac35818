# t/602_copies_at_the_edges.pl
#
# Goal: copies of tables that are not like most: large values whose keys change while they are copied, partitions, types of users, dropped columns,
# indexes that are made anew, identities that change.
# Method: one table each; changes on the source, ticks by hand.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use StreamTables::Remote;
use Test::More;

my $node = StreamTables::Cluster->new('edges')->boot(setup => 'extension');
my $remote = StreamTables::Remote->new($node);

# A tick is about all of them; this says what became of one.
sub tick_of
{
	my ($table, %opt) = @_;

	my ($said) = $remote->tick(%opt) =~ /\b\Q$table\E (\w+ \+\d+ -\d+)/;
	return $said // 'nothing';
}

# --- large values ---------------------------------------------------------------------------------------

$remote->create_both('CREATE TABLE large (id int PRIMARY KEY, v text, note text); ALTER TABLE large ALTER v SET STORAGE EXTERNAL');
$remote->source(q{INSERT INTO large SELECT i, repeat('v' || i, 2000), 'n' FROM generate_series(1, 5) i});
$remote->tick;
$remote->define('large', key => 'large_pkey');
$remote->streams('large');
my $part = 0;
$remote->copy_rows('large', parts => [ 'id >= 10', 'id < 10' ], between => sub {
	$remote->source(q{UPDATE large SET id = id + 10 WHERE id IN (1, 2)}) if ++$part == 1;
});
$remote->source(q{UPDATE large SET v = 'small now' WHERE id = 11; DELETE FROM large WHERE id = 12});
is(tick_of('large', before => "SET work_mem = '64kB';\n"), 'SWITCH +4 -0', 'a value that nobody has seen is not missed if a later change brings it, or takes the row away');
is($remote->differences('SELECT * FROM large'), '', 'and the copy is right');

$remote->target('SELECT pgtrickle.want_copy(' . $remote->id('large') . q{, 'asked for', false)});
$remote->streams('large');
$part = 0;
$remote->copy_rows('large', parts => [ 'id >= 10', 'id < 10' ], between => sub {
	$remote->source(q{UPDATE large SET id = 13, note = 'moved' WHERE id = 3}) if ++$part == 1;
});
like($remote->tick_fails, qr/^PTR02: copy public.large lacks a large value of a row whose key changed while it was copied/, 'but it is noticed if there is none');
is($node->sql('SELECT pgtrickle.tick_failed_id()'), '0', 'a session knows which copy that was; another one does not');
$node->sql('SELECT pgtrickle.applier_failed(' . $remote->id('large') . q{, 'PTR02', 'lacks a value', 10)});
$remote->again;
$remote->copy('large');
is($remote->differences('SELECT * FROM large'), '', 'the table is copied again');
$remote->source(q{UPDATE large SET id = 23 WHERE id = 13; UPDATE large SET id = 33, note = 'twice' WHERE id = 23; UPDATE large SET note = 'x' WHERE id = 33});
is(tick_of('large'), 'COPY +1 -1', 'later a value moves with its row');
is($remote->differences('SELECT * FROM large'), '', 'however often its key changes');
$remote->source(q{ALTER TABLE large REPLICA IDENTITY FULL; UPDATE large SET id = 43 WHERE id = 33; DELETE FROM large WHERE id = 4});
is(tick_of('large'), 'COPY +1 -2', 'whole old rows are as good');
is($remote->differences('SELECT * FROM large'), '', 'as keys');
$remote->source(q{ALTER TABLE large REPLICA IDENTITY NOTHING; INSERT INTO large VALUES (50, 'v'); UPDATE large SET note = 'y' WHERE id = 50});
is(tick_of('large'), 'COPY +1 -0', 'updates that leave the key alone need no old row');
$remote->source(q{DELETE FROM large WHERE id = 50});
like($remote->tick_fails, qr/^PTR03: cannot follow table public.large: a row was deleted without its key/, 'deletes do');
$node->sql('SELECT pgtrickle.applier_failed(' . $remote->id('large') . q{, 'PTR03', 'deleted without its key', 10)});
is($remote->state('large', 'status, status_reason'), 'SUSPENDED|deleted without its key', 'such a copy is given up, and says why');
$remote->again;

# --- partitions -------------------------------------------------------------------------------------------

$remote->source(
	'CREATE TABLE parts (id int, region text, v int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
	CREATE TABLE parts_eu PARTITION OF parts FOR VALUES IN (\'eu\'); CREATE TABLE parts_us (v int, gone int, region text NOT NULL, id int NOT NULL);
	ALTER TABLE parts_us DROP gone; ALTER TABLE parts ATTACH PARTITION parts_us FOR VALUES IN (\'us\')');
$remote->target('CREATE TABLE parts (id int, region text, v int, PRIMARY KEY (id, region))');
$remote->source(q{INSERT INTO parts SELECT i, CASE WHEN i % 2 = 0 THEN 'eu' ELSE 'us' END, i FROM generate_series(1, 10) i});
$remote->tick;
$remote->define('parts', key => 'parts_pkey', partitioned => 1);
$remote->copy('parts');
is($remote->differences('SELECT * FROM parts'), '', 'a partitioned table is one copy');
$remote->source(q{UPDATE parts SET region = 'us' WHERE id = 2; UPDATE parts SET v = v + 1; DELETE FROM parts WHERE id = 3});
is(tick_of('parts'), 'COPY +9 -10', 'rows move between partitions');
is($remote->differences('SELECT * FROM parts'), '', 'whose columns are in another order');
$remote->source('TRUNCATE parts_us');
like($remote->tick_fails, qr/^PTR02: a partition of table public.parts was truncated/, 'what was in a truncated partition is not known');
$node->sql('SELECT pgtrickle.applier_failed(' . $remote->id('parts') . q{, 'PTR02', 'truncated', 10)});
$remote->again;
$remote->copy('parts');
is($remote->differences('SELECT * FROM parts'), '', 'so it is copied again');
$remote->source(q{TRUNCATE parts; INSERT INTO parts VALUES (77, 'us', 7)});
like(tick_of('parts'), qr/^COPY \+1 -\d+$/, 'where all of it is, that is known');
is($remote->differences('SELECT * FROM parts'), '', 'and done');

# --- types of users, columns that were dropped here --------------------------------------------------------

$remote->target('CREATE TYPE unrelated AS (a int)');
$remote->create_both(
	q{CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE TYPE pair AS (a int, m mood);
	CREATE TABLE typed (dropped int, id positive PRIMARY KEY, m mood, p pair, ms mood[], r int4range, f float8, j jsonb)});
$remote->target('ALTER TABLE typed DROP dropped');
$remote->source('ALTER TABLE typed DROP dropped');
$remote->source(q{INSERT INTO typed SELECT i, 'sad', ROW(i, 'ok'::mood)::pair, '{sad,ok}', '[1,5)', i / 3.0, '{"a": 1}' FROM generate_series(1, 5) i});
my $options = q{, 'text_types', 'user'};
$remote->tick(options => $options);
$remote->define('typed', key => 'typed_pkey');
$remote->streams('typed');
$remote->copy_rows('typed');
$remote->source(q{UPDATE typed SET m = 'ok', p = NULL WHERE id = 2; UPDATE typed SET ms = '{ok,NULL}', f = 'NaN' WHERE id = 3; INSERT INTO typed VALUES (9)});
is(tick_of('typed', options => $options), 'SWITCH +6 -0', 'types of users have other numbers here');
$remote->source(q{UPDATE typed SET p = ROW(7, 'sad'::mood)::pair WHERE id = 9; UPDATE typed SET id = 10 WHERE id = 1; DELETE FROM typed WHERE id = 4});
is(tick_of('typed', options => $options), 'COPY +2 -3', 'and change as others');
is($remote->differences('SELECT id, m, p, ms, r, f, j FROM typed'), '', 'to the same values');
$remote->source('ALTER TABLE typed ALTER f TYPE numeric; UPDATE typed SET f = 1');
like($remote->tick_fails(options => $options), qr/^PTR01: table public.typed has another shape than its copy public.typed: column "f" has another type/, 'another type is another shape');
$node->sql('SELECT pgtrickle.applier_failed(' . $remote->id('typed') . q{, 'PTR01', 'another type', 10)});
like($node->psql_error($remote->{again}), qr/^PTR01: the definition of copy public.typed has to be compared/, 'which stops the copy until somebody has compared them');
$remote->target('ALTER TABLE typed ALTER f TYPE numeric');
$remote->define('typed', key => 'typed_pkey', recopy => 'another type');
is($remote->state('typed', 'status, status_reason'), 'WANTED|another type', 'and the table is copied again');
$remote->again;
$remote->streams('typed');
$remote->copy_rows('typed');
is(tick_of('typed', options => $options), 'SWITCH +5 -5', 'the difference is put into the rows');
is($remote->differences('SELECT id, m, p, ms, r, f, j FROM typed'), '', 'with the new type');

# --- indexes -----------------------------------------------------------------------------------------------

$remote->create_both('CREATE TABLE heap (a int, b text)');
$remote->source('ALTER TABLE heap REPLICA IDENTITY FULL');
$remote->source(q{INSERT INTO heap SELECT i % 3, 'b' FROM generate_series(1, 9) i});
$remote->tick;
$remote->define('heap');
$remote->copy('heap');
$node->sql('REINDEX TABLE CONCURRENTLY heap');
$node->sql('REINDEX TABLE CONCURRENTLY parts');
$remote->source(q{DELETE FROM heap WHERE ctid = '(0,1)'; UPDATE heap SET b = NULL WHERE a = 2; UPDATE parts SET v = 0});
is(tick_of('heap'), 'COPY +3 -4', 'an index that was made anew finds rows without a key');
is($remote->differences('SELECT * FROM heap'), '', 'one by one');
is($remote->differences('SELECT * FROM parts'), '', 'and by key');
$node->sql('REINDEX TABLE heap');
$remote->source(q{TRUNCATE heap; INSERT INTO heap VALUES (1, 'after')});
is(tick_of('heap'), 'COPY +1 -8', 'a truncation takes all rows');
is($remote->differences('SELECT * FROM heap'), '', 'that were there before it');

$node->stop;
done_testing();
