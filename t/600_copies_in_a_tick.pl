# t/600_copies_in_a_tick.pl
#
# Goal: copies of tables of another database, and stream tables over them, equal the source after every tick.
# Method: random transactions on the source, a slot that hands over the changes, ticks by hand; no applier.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster qw(random_seed pick);
use StreamTables::Remote;
use Test::More;

my $seed = random_seed();
note("PGTRICKLE_SEED=$seed");
my $node = StreamTables::Cluster->new('copies')->boot(setup => 'extension');
my $remote = StreamTables::Remote->new($node);

$remote->create_both(
	q{CREATE TABLE items (id numeric PRIMARY KEY, grp int, price numeric(10,2), note text, big text);
	CREATE TABLE lines (item numeric, pos int, qty int, PRIMARY KEY (item, pos));
	CREATE TABLE bag (a int, b text, c jsonb)});
$remote->source('ALTER TABLE bag REPLICA IDENTITY FULL');
$remote->source(
	q{INSERT INTO items SELECT i, i % 5, i, 'n' || i, repeat(md5(i::text), 200) FROM generate_series(1, 40) i;
	ALTER TABLE items ALTER big SET STORAGE EXTERNAL;
	INSERT INTO lines SELECT i, p, p FROM generate_series(1, 30) i, generate_series(1, 2) p;
	INSERT INTO bag SELECT i % 7, 'b' || i % 3, '{"k": 1}' FROM generate_series(1, 30) i});
$remote->tick;

# --- the first copy ------------------------------------------------------------------------------------

$remote->define('items', key => 'items_pkey');
$remote->define('lines', key => 'lines_pkey');
$remote->define('bag');
is($remote->state('items'), 'WANTED', 'a copy that is defined wants to be copied');
$node->create_stream_table('sums', 'SELECT grp, count(*) AS n, sum(price) AS total, count(note) AS notes FROM items GROUP BY grp', initialize => 'true');
$node->create_stream_table('joined', 'SELECT i.id, i.note, l.pos, l.qty FROM items i JOIN lines l ON l.item = i.id', initialize => 'true');
$node->create_stream_table('counted', 'SELECT b, count(*) AS n, max(a) AS biggest FROM bag GROUP BY b', initialize => 'true');
$node->create_stream_table('above', 'SELECT j.id, s.total FROM joined j JOIN sums s ON s.grp = j.pos', initialize => 'true');
my %queries = (
	sums => 'SELECT grp, count(*) AS n, sum(price) AS total, count(note) AS notes FROM items GROUP BY grp',
	joined => 'SELECT i.id, i.note, l.pos, l.qty FROM items i JOIN lines l ON l.item = i.id',
	counted => 'SELECT b, count(*) AS n, max(a) AS biggest FROM bag GROUP BY b',
	above => 'SELECT i.id, s.total FROM items i JOIN lines l ON l.item = i.id JOIN (SELECT grp, sum(price) AS total FROM items GROUP BY grp) s ON s.grp = l.pos');

sub is_equal
{
	my ($name) = @_;

	my @wrong;
	foreach my $table (qw(items lines bag))
	{
		my $differences = $remote->differences("SELECT * FROM $table");
		push @wrong, "$table:\n$differences" if $differences ne '';
	}
	foreach my $table (sort keys %queries)
	{
		my $differences = $remote->differences($queries{$table}, "SELECT * FROM $table");
		push @wrong, "$table:\n$differences" if $differences ne '';
	}
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(join("\n", @wrong), '', $name);
	return;
}

$remote->streams(qw(items lines bag));
is($remote->state('items'), 'COPYING', 'the stream carries it');
$remote->source(q{UPDATE items SET price = price + 1 WHERE id <= 10; DELETE FROM lines WHERE item = 3; INSERT INTO bag VALUES (1, 'x', NULL)});
like($remote->tick(without => 1), qr/items KEEP .*lines KEEP/, 'changes of a table that is being copied are kept');
is($remote->target('SELECT count(*) FROM items'), '0', 'and the copy shows nothing yet');

# writers go on between the parts
my $changes = 0;
my $between = sub {
	$changes++;
	$remote->source(
		qq{UPDATE items SET note = 'during $changes', price = $changes WHERE id IN (5, 15, 25);
		UPDATE items SET id = id + 100 WHERE id = 2 * $changes;
		DELETE FROM items WHERE id IN (30 + $changes, 20 - $changes); INSERT INTO items VALUES (200 + $changes, 1, 1, NULL, 'small'), ($changes + 0.25, 2, 2, 'two', NULL);
		UPDATE items SET note = 'toasted stays' WHERE id IN (7, 27, 39);
		INSERT INTO bag VALUES ($changes, 'during', '{"x": 1}'); DELETE FROM bag WHERE a = $changes});
	$remote->tick(without => 1);
};
$remote->copy_rows('items', parts => [ 'id < 10', 'id >= 10 AND id < 20', 'id >= 20 AND id < 30', 'id >= 30' ], between => $between);
$remote->copy_rows('lines', parts => [ 'item < 15', 'item >= 15' ], between => $between);
$remote->copy_rows('bag', between => $between);
is($remote->state('bag'), 'COPIED', 'all rows are there');
is($remote->target('SELECT count(*) FROM bag'), '0', 'but not in the copy');
is( $remote->target(q{SELECT string_agg(refill_reason, ', ' ORDER BY pgt_id) FROM pgtrickle.pgt_frontiers WHERE needs_refill}),
	'first copy of public.items, first copy of public.lines',
	'stream tables over a copy that was switched in a tick without them are to be refreshed in full');
like($remote->tick, qr/bag SWITCH/, 'the next tick switches');
is($remote->state('items'), 'ACTIVE', 'and then the copy is active');
is($remote->target(q{SELECT count(*) FROM pg_class WHERE relname LIKE 'pgt\_load\_%'}), '0', 'nothing is left behind');
is($remote->target('SELECT count(*) FROM pgtrickle.pgt_copy_spool'), '0', 'in the spool neither');
is_equal('copies and stream tables over them equal the source');
is( $remote->target(q{SELECT string_agg(DISTINCT reason, ', ') FROM pgtrickle.pgt_history WHERE reason LIKE 'first copy%'}),
	'first copy of public.bag, first copy of public.items, first copy of public.lines',
	'the stream tables were refreshed in full, and say why');

# --- random transactions --------------------------------------------------------------------------------

srand($seed);
my $big = 0;

sub random_statement
{
	my $id = int(rand(50)) + (rand() < 0.2 ? 0.5 : 0);
	my $other = int(rand(60));
	my $value = pick('NULL', "'v" . int(rand(9)) . "'", "''");
	my $huge = pick('NULL', "'short'", "repeat(md5('" . $big++ . "'), 150)");
	my $n = int(rand(8));
	return pick(
		"INSERT INTO items VALUES ($id, $n, $n.5, $value, $huge) ON CONFLICT (id) DO UPDATE SET price = excluded.price + 1",
		"UPDATE items SET note = $value WHERE id BETWEEN $id AND $id + 3",
		"UPDATE items SET big = $huge WHERE id = $id",
		"UPDATE items SET grp = NULL, price = price * 2 WHERE id % 7 = $n AND price < 10000",
		"UPDATE items SET id = $other WHERE id = $id AND NOT EXISTS (SELECT FROM items WHERE id = $other)",
		"UPDATE items SET id = round(id, 2) WHERE id = $id",
		"DELETE FROM items WHERE id = $id; INSERT INTO items VALUES ($id, $n, 1, 'again', $huge)",
		"DELETE FROM items WHERE id BETWEEN $id AND $id + 1",
		"INSERT INTO lines VALUES ($id, $n, $n) ON CONFLICT DO NOTHING",
		"UPDATE lines SET qty = qty + 1 WHERE item < $id",
		"UPDATE lines SET pos = pos + 10, item = item + 1 WHERE item = $id",
		"DELETE FROM lines WHERE pos = $n AND item > $id",
		"INSERT INTO bag SELECT $n, $value, '{\"n\": $n}' FROM generate_series(1, 2)",
		"UPDATE bag SET a = a + 1 WHERE a = $n",
		"UPDATE bag SET c = '{\"r\": 1.0}' WHERE b IS NULL",
		"DELETE FROM bag WHERE ctid = (SELECT ctid FROM bag WHERE a = $n LIMIT 1)",
		rand() < 0.1 ? 'TRUNCATE items' : 'SELECT 1',
		rand() < 0.1 ? 'TRUNCATE bag; INSERT INTO bag VALUES (1)' : 'SELECT 1',
		"SAVEPOINT s; DELETE FROM items; ROLLBACK TO s");
}

my $rounds = $ENV{PGTRICKLE_LONG} ? 150 : 12;
my $ticks = 0;
my $wrong = 0;
foreach my $round (1 .. $rounds)
{
	foreach my $transaction (1 .. 1 + int(rand(4)))
	{
		my @statements = map { random_statement() } 1 .. 1 + int(rand(6));
		# some fail, and then all of the transaction does
		$node->psql('app', join(";\n", 'BEGIN', @statements, pick('COMMIT', 'COMMIT', 'COMMIT', 'ROLLBACK')), on_error_stop => 0);
	}
	# rows are written and forgotten many times within a tick when there is little memory
	$remote->tick(before => $round % 3 ? '' : "SET work_mem = '64kB';\n");
	is_equal("round $round") if $round % 4 == 0 || $ENV{PGTRICKLE_LONG};
}
is_equal("after $rounds rounds of random transactions, seed $seed");
is($remote->target(q{SELECT string_agg(DISTINCT status || coalesce(status_reason, ''), ',') FROM pgtrickle.pgt_copy_states}),
	'ACTIVE', 'no copy was copied again');
is($remote->target(q{SELECT count(*) FROM pgtrickle.pgt_history WHERE action = 'DIFFERENTIAL'}) > 3, 1, 'by deltas');
cmp_ok($remote->target(q{SELECT count(*) FROM pgtrickle.pgt_history WHERE was_full_fallback}), '<=', 4, 'and only the first refreshes were full ones');

# --- copied again ------------------------------------------------------------------------------------------

$remote->target('SELECT pgtrickle.want_copy(' . $remote->id('items') . ", 'asked for', true)");
$remote->source(q{INSERT INTO items VALUES (500, 1, 5, 'while wanted', NULL)});
like($remote->tick, qr/items COPY \+1 -0/, 'a copy that is exact goes on while it waits to be copied again');
$remote->streams('items');
$remote->copy_rows('items', parts => [ 'id < 20', 'id >= 20' ], between => sub {
	$remote->source(q{UPDATE items SET note = 'again' WHERE id IN (500, 4, 8); INSERT INTO items VALUES (600 + random() * 100, 1, 1, 'x', 'y')});
	like($remote->tick, qr/items COPY/, 'it follows while it is copied');
	is_equal('and stays equal');
});
like($remote->tick, qr/items SWITCH \+0 -0/, 'what was copied is what it was');
is_equal('after the switch');

$remote->source('INSERT INTO items VALUES (900, 0, 0)');
$remote->tick;
$remote->target(q{ALTER TABLE items DISABLE TRIGGER ALL; UPDATE items SET price = -1 WHERE id = 500; DELETE FROM items WHERE id = 900;
	INSERT INTO items VALUES (4000, 1, 1, 'spurious', NULL); ALTER TABLE items ENABLE ALWAYS TRIGGER pgtrickle_guard;
	-- without an applier nobody tells the stream tables of this
	UPDATE pgtrickle.pgt_frontiers SET needs_refill = true, refill_reason = 'damaged'});
$remote->source('UPDATE items SET price = 1 WHERE id = 900');
like($remote->tick_fails, qr/^PTR02: copy public.items lacks a row that was changed/, 'a row that is not there is noticed');
$remote->target('SELECT pgtrickle.applier_failed(' . $remote->id('items') . q{, 'PTR02', 'lacks a row', 10)});
is($remote->state('items', 'status, live_follows'), 'WANTED|f', 'the copy is copied again, and stands still until then');
$remote->again;
$remote->source('INSERT INTO lines VALUES (77, 7, 7)');
is($remote->tick =~ /items/ ? 1 : 0, 0, 'the others go on');
$remote->copy('items');
is_equal('the difference was applied');

# --- what does not fit --------------------------------------------------------------------------------------

like($node->psql_error('INSERT INTO items VALUES (1)'), qr/^55000: cannot change table "public.items": pgtrickle copies are read-only/, 'copies are read-only');
like($node->psql_error('TRUNCATE bag'), qr/^55000/, 'also for TRUNCATE');
like($node->psql_error("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pgtrickle.tick_remote(1, 1, '0/1', '0/2', NULL)"), qr/^40001: remote 1 has been followed to another position/, 'an applier that has lost track is refused');

$remote->source('ALTER TABLE lines ADD extra int; INSERT INTO lines VALUES (88, 8, 8, 8)');
like($remote->tick_fails, qr/^PTR01: table public.lines has another shape than its copy public.lines: column "extra" is new/, 'a new column is another shape');
$remote->target('SELECT pgtrickle.applier_failed(' . $remote->id('lines') . q{, 'PTR01', 'column "extra" is new', 10)});
is($remote->state('lines'), 'REDEFINE', 'the definition has to be compared');
$remote->target('ALTER TABLE lines ADD extra int');
$remote->define('lines', key => 'lines_pkey');
is($remote->state('lines'), 'ACTIVE', 'an altered copy goes on');
$remote->again;
is_equal('with what came before');
$remote->source('ALTER TABLE lines RENAME extra TO more; UPDATE lines SET more = 9 WHERE item = 88');
like($remote->tick, qr/lines COPY/, 'a column with another name is still the same');
is($remote->state('lines', 'status, live_follows'), 'REDEFINE|t', 'but somebody shall have a look');
$remote->target('ALTER TABLE lines RENAME extra TO more');
$remote->define('lines', key => 'lines_pkey');
$remote->source('ALTER TABLE lines DROP more; UPDATE lines SET qty = 100 WHERE item = 88');
like($remote->tick, qr/lines COPY/, 'one that was dropped is in nobody\'s way');
$remote->target('ALTER TABLE lines DROP more');
$remote->define('lines', key => 'lines_pkey');
is_equal('and the copy equals the table');

$remote->source('ALTER TABLE bag REPLICA IDENTITY DEFAULT; UPDATE bag SET a = 1');
like($remote->tick_fails, qr/^PTR03: cannot follow table public.bag: it has no key, and a row was changed without its old values/, 'a bag needs old rows');

$node->stop;
done_testing();
