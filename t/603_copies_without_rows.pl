# t/603_copies_without_rows.pl
#
# Goal: a copy with storage 'none' keeps no rows where refreshes by delta do not read them, and gets them back when something does.
# Method: changes on the source, ticks by hand; the stream tables are compared with their queries on the source.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use StreamTables::Remote;
use Test::More;

my $node = StreamTables::Cluster->new('rowless')->boot(setup => 'extension');
my $remote = StreamTables::Remote->new($node);
$remote->create_both('CREATE TABLE events (id int PRIMARY KEY, kind text, v int, note text)');
$remote->source(q{ALTER TABLE events REPLICA IDENTITY FULL; ALTER TABLE events ALTER note SET STORAGE EXTERNAL;
	INSERT INTO events SELECT i, 'k' || i % 3, i, repeat('n', 3000) FROM generate_series(1, 30) i});
$remote->tick;
$remote->define('events', key => 'events_pkey', storage => 'none');
my %queries = (
	totals => 'SELECT kind, count(*) AS n, sum(v) AS total FROM events GROUP BY kind',
	few => 'SELECT id, v, note FROM events WHERE v % 5 = 0');
$node->create_stream_table($_, $queries{$_}, initialize => 'true') foreach sort keys %queries;

sub is_right
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(join("\n", map { $remote->differences($queries{$_}, "SELECT * FROM $_") } sort keys %queries) =~ s/^\n+//r, '', $name);
	return;
}

# What the applier does after a tick that failed at the copy.
sub fails_and_is_copied_again
{
	my ($message) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like($remote->tick_fails, $message, "a tick fails: $message");
	$node->sql('SELECT pgtrickle.applier_failed(' . $remote->id('events') . q{, 'PTR02', 'rows are needed', 10)});
	is($remote->state('events'), 'WANTED', 'and the table is copied again');
	return;
}

sub rows
{
	return $node->sql('SELECT count(*) FROM events');
}

# Stream tables over it stand still meanwhile.
sub copy_again
{
	$remote->streams('events');
	$remote->source(q{UPDATE events SET v = v + 1 WHERE id <= 3});
	$remote->tick(without => 1);
	$remote->copy_rows('events');
	# what has to be filled waits until the load table has caught up
	$remote->tick(without => 1, once => 1);
	$remote->tick;
	return;
}

copy_again();
is(rows(), '30', 'at first the rows are there');
is_right('to fill the stream tables with');
$remote->source(q{UPDATE events SET v = v + 1 WHERE id <= 10});
$remote->tick;
is(rows(), '0', 'when they are filled, the rows go');
is($remote->state('events', 'status, status_reason'), 'ACTIVE|only changes are needed, no rows are kept', 'which the copy says');
is_right('and nobody misses them');
$remote->source(q{INSERT INTO events SELECT i, 'k9', i, 'x' FROM generate_series(50, 60) i; UPDATE events SET kind = NULL WHERE id < 5; UPDATE events SET v = 100 WHERE id = 7;
	DELETE FROM events WHERE id BETWEEN 20 AND 25; UPDATE events SET id = id + 1000 WHERE id = 10; UPDATE events SET note = 'y' WHERE id = 15});
like($remote->tick, qr/events COPY \+\d+ -\d+/, 'changes pass through');
is_right('to the stream tables');
is(rows(), '0', 'and leave nothing behind');
like($node->sql(q{SELECT value FROM pgtrickle.explain_st('totals') WHERE property LIKE 'copy%'}), qr/refreshes by delta read only its changes, and its rows are dropped when nobody needs them$/, 'explain says why');
like($node->psql_error(q{SELECT pgtrickle.verify('totals')}), qr/^55000: the stream table reads a copy that keeps no rows/, 'there is nothing to verify with');
is($node->sql('SELECT count(*) FROM pgtrickle.verify_all()'), '0', 'for all of them');

# --- when the rows are needed ---------------------------------------------------------------------------------

$node->sql(q{SELECT pgtrickle.repair_stream_table('totals')});
$remote->source('UPDATE events SET v = 5 WHERE id = 1');
fails_and_is_copied_again(qr/^PTR02: stream table "public.totals" needs rows that its copy has dropped/);
$remote->{position} = $remote->target('SELECT position FROM pgtrickle.pgt_remote_states');
$remote->target($remote->{again} =~ s/tick_plan\('\{(\d+)[^']*', '[^']*', '[^']*'/tick_plan('{$1}', '{1}', '{copy}'/r);
$remote->{position} = $remote->target('SELECT position FROM pgtrickle.pgt_remote_states');
copy_again();
is_right('the stream tables are filled anew');
$remote->source('UPDATE events SET v = 6 WHERE id = 1');
$remote->tick;
is(rows(), '0', 'and then the rows go again');

$queries{largest} = 'SELECT kind, max(v) AS m FROM events GROUP BY kind';
$node->create_stream_table('largest', $queries{largest}, initialize => 'true');
is($remote->state('events', 'status, status_reason'), 'WANTED|a stream table needs its rows', 'a new stream table needs them');
copy_again();
is_right('and gets them');
$remote->source('DELETE FROM events WHERE v > 50; UPDATE events SET v = 8 WHERE id = 2');
$remote->tick;
is_right('a maximum needs them for good');
cmp_ok(rows(), '>', 10, 'so they stay');
$node->sql(q{SELECT pgtrickle.drop_stream_table('largest')});
delete $queries{largest};
$remote->source('UPDATE events SET v = 9 WHERE id = 2');
$remote->tick;
is(rows(), '0', 'until that is gone');

# --- what went by --------------------------------------------------------------------------------------------

$remote->source('UPDATE events SET v = 10 WHERE id = 2');
$remote->tick(without => 1);
is($node->sql(q{SELECT string_agg(DISTINCT refill_reason, ',') FROM pgtrickle.pgt_frontiers WHERE needs_refill}), 'changes of a copy without rows went by', 'who was not there is refreshed in full later on');
$remote->target('SELECT pgtrickle.want_copy(' . $remote->id('events') . q{, 'test', false)});
copy_again();
is_right('and right again');
$remote->source('UPDATE events SET v = 11 WHERE id = 2');
$remote->tick;
is(rows(), '0', 'without rows');
$remote->source(q{TRUNCATE events; INSERT INTO events VALUES (1, 'first', 1, 'again')});
fails_and_is_copied_again(qr/^PTR02: table public.events was truncated, and copy public.events does not have its rows/);
$remote->again;
copy_again();
is_right('a truncated table is right, too');
$remote->source('UPDATE events SET v = 2');
$remote->tick;
$remote->source('ALTER TABLE events REPLICA IDENTITY DEFAULT; UPDATE events SET v = 3');
like($remote->tick_fails, qr/^PTR03: cannot follow table public.events: no rows are kept here, and a row was changed without its old values/, 'old rows have to come with the stream');

$node->stop;
done_testing();
