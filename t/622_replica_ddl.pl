# t/622_replica_ddl.pl
#
# Goal: what is done to a remote's tables reaches their copies, though nobody there tells: by ALTER where rows stay what they are, by copying
#       again where they do not; and stream tables over the copies follow.
# Method: one change after the other on the remote, each between writes, with the applier running or not; after each the copy equals the table, and
#         it is known whether it had to be copied again.  With PGTRICKLE_LONG more kinds of changes.
use strict;
use warnings FATAL => 'all';

use StreamTables::Replica;
use Test::More;

my $replica = StreamTables::Replica->new('ddl');
my ($source, $target) = ($replica->source, $replica->target);

$source->sql(
	q{CREATE SCHEMA app;
	CREATE TYPE app.mood AS ENUM ('sad', 'happy');
	CREATE TABLE app.orders (id int PRIMARY KEY, customer text NOT NULL, amount int, mood app.mood, spare int);
	INSERT INTO app.orders SELECT i, 'c' || i % 7, i, 'sad', i FROM generate_series(1, 200) i;
	CREATE TABLE app.log (line text, n int);
	ALTER TABLE app.log REPLICA IDENTITY FULL;
	INSERT INTO app.log SELECT 'line ' || i % 5, i % 3 FROM generate_series(1, 50) i});
$target->start_applier;
$replica->copy('app.orders', 'app.log');
$target->create_stream_table('totals', 'SELECT customer, sum(amount::numeric) AS amount, count(*) AS n FROM app.orders GROUP BY customer');

my $next_id = 100_000;

sub write_rows
{
	$next_id++;
	$source->sql("INSERT INTO app.orders (id, customer, amount) VALUES ($next_id, 'new', 5);
		UPDATE app.orders SET amount = amount + 1 WHERE id % 50 = 0; DELETE FROM app.orders WHERE id = $next_id - 99990;
		INSERT INTO app.log (line) VALUES ('more'); DELETE FROM app.log WHERE ctid = (SELECT min(ctid) FROM app.log)");
	return;
}

sub times_copied
{
	my ($table) = @_;

	return $target->sql("SELECT times_copied FROM pgtrickle.pgt_copies JOIN pgtrickle.pgt_copy_states USING (copy_id) WHERE remote_table = '$table'");
}

# A copy that is being altered has another status for a moment.
sub settle
{
	$replica->wait_positions;
	$replica->wait_copied;
	return;
}

# The daemon compares once a minute.  (Its own worker may be at work: then ours does nothing.)
sub look
{
	for (1 .. 100)
	{
		my ($ok, $stdout, $stderr) = $target->try_program('copy');
		last if $stderr !~ /another worker/;
	}
	return;
}

# Does something between two writes, and compares.  `again`: the table that has to be copied again.
sub follows
{
	my ($ddl, $test_name, %opt) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $table = $opt{table} // 'orders';
	my $before = times_copied($table);
	write_rows();
	$source->sql($ddl);
	write_rows();
	look() if $opt{look};
	settle();
	$replica->is_equal("app.$table", $test_name);
	my $after = times_copied($table);
	is($after > $before ? 1 : 0, $opt{again} // 0, $opt{again} ? '... copied again' : '... without being copied again')
	  if !$opt{either};
	return;
}

sub shape
{
	my ($table) = @_;

	return $target->sql("SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = '$table'::regclass AND attnum > 0 AND NOT attisdropped");
}

my $is_long = $ENV{PGTRICKLE_LONG};

follows(q{ALTER TABLE app.orders ADD COLUMN note text; ALTER TABLE app.orders ADD COLUMN state text NOT NULL DEFAULT 'open'},
	'columns are added, with a constant default or without');
follows('ALTER TABLE app.orders DROP COLUMN spare; ALTER TABLE app.orders RENAME COLUMN note TO between; ALTER TABLE app.orders RENAME COLUMN state TO note; ALTER TABLE app.orders RENAME COLUMN between TO state',
	'a column is dropped, two exchange their names');
follows('ALTER TABLE app.orders ADD COLUMN lucky double precision DEFAULT random()', 'a column has a value of its own in each row', again => 1);
follows(q{ALTER TABLE app.orders ALTER COLUMN note DROP NOT NULL; UPDATE app.orders SET note = NULL WHERE id % 3 = 0}, 'a column may be NULL');
follows(q{ALTER TYPE app.mood ADD VALUE 'so so' BEFORE 'happy'}, 'an enum has a new label') if $is_long;
if ($is_long)
{
	follows(q{UPDATE app.orders SET mood = 'so so' WHERE id < 20}, 'which is used');
	follows(q{ALTER TABLE app.orders ALTER COLUMN note SET DEFAULT 'closed'}, 'another default is for new rows');
	follows('ALTER TABLE app.orders ALTER COLUMN amount TYPE bigint USING amount * 10', 'a column has another type and other values', again => 1);
	follows('TRUNCATE app.orders', 'a table is truncated');
	follows('ALTER TABLE app.log ADD COLUMN extra int DEFAULT 3; UPDATE app.log SET extra = 4 WHERE n = 1', 'a column of a table without a key', table => 'log');
	follows('ALTER TABLE app.log DROP COLUMN n', 'is dropped there', table => 'log', either => 1);
}
else
{
	follows('ALTER TABLE app.orders ALTER COLUMN amount TYPE bigint USING amount * 10', 'a column has another type and other values', again => 1);
}
like(shape('app.orders'), qr/^id integer, customer text, amount bigint, mood app.mood, state text, note text, lucky double precision$/, 'the copy has the shape of the table');
$target->wait_fresh('totals');
$target->is_current('totals', 'the stream table over it has followed');
follows(q{DROP TABLE app.orders; CREATE TABLE app.orders (id int PRIMARY KEY, customer text, amount bigint, fresh bool); INSERT INTO app.orders SELECT i, 'x', i, true FROM generate_series(1, 2000) i},
	'a table is created again', again => 1, look => 1);
$target->wait_fresh('totals');
$target->is_current('totals', 'the stream table over it has followed that');

# --- while nobody was there

$target->stop_applier;
follows_stopped();

sub follows_stopped
{
	write_rows();
	$source->sql('ALTER TABLE app.orders DROP COLUMN fresh; ALTER TABLE app.orders ADD COLUMN a int; ALTER TABLE app.orders ADD COLUMN b int DEFAULT 7');
	write_rows();
	$source->sql('ALTER TABLE app.orders RENAME COLUMN a TO c; UPDATE app.orders SET c = 1 WHERE id < 100');
	write_rows();
	$target->start_applier;
	settle();
	$replica->is_equal('app.orders', 'several changes while the applier was not running');
	return;
}

# --- gone, and what is in the way

$source->sql('ALTER TABLE app.log RENAME TO log_of_yore');
look();
like($target->sql(q{SELECT status, status_reason FROM pgtrickle.copy_catalog() WHERE remote_table = 'log'}),
	qr/^ERROR\|.*the remote has no table "app.log" HINT:  If it has been renamed/, 'a table that is gone is told');
cmp_ok($target->sql('SELECT count(*) FROM app.log'), '>', 0, 'and its copy keeps its rows');
$source->sql('ALTER TABLE app.log_of_yore RENAME TO log');
$target->sql(q{SELECT pgtrickle.recopy('app.log')});
settle();
$replica->is_equal('app.log', 'when it is back the copy goes on');

$target->sql('CREATE VIEW in_the_way AS SELECT c FROM app.orders');
$source->sql('ALTER TABLE app.orders DROP COLUMN c; UPDATE app.orders SET b = 8 WHERE id = 50');
$target->wait_until(q{SELECT last_error_message ~ 'cannot drop column c of table app.orders because other objects depend on it' FROM pgtrickle.pgt_copy_states JOIN pgtrickle.pgt_copies USING (copy_id) WHERE remote_table = 'orders'},
	'a view of ours that is in the way is told');
$target->sql(q{DROP VIEW in_the_way; SELECT pgtrickle.recopy('app.orders', 'the view is gone')});
settle();
$replica->is_equal('app.orders', 'when it is out of the way the copy follows');

$target->stop_applier;
done_testing();
