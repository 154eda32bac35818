# t/132_changed_during_tick.pl
#
# Goal: what was committed after a tick's snapshot and before the tick read the catalog is neither lost nor taken for older than it is.
# Method: no applier; ticks by hand in one session, as it makes them, and another session that creates, drops or redefines stream tables between
#         snapshot and plan.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('during')->boot(setup => 'extension');
my $tick = $node->background_psql('postgres', on_error_stop => 0);

sub id_of
{
	my ($name) = @_;

	return $node->sql("SELECT pgtrickle.stream_table_id('$name')");
}

# One tick over stream tables, given as [id, action]; `between` happens after its snapshot.  Returns what the server said to the plan.
sub tick
{
	my ($between, @entries) = @_;

	$tick->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$tick->query_safe('SELECT * FROM pgtrickle.tick_begin()');
	$between->();
	my $ids = join ',', map { $_->[0] } @entries;
	my $sets = join ',', map { 1 } @entries;
	my $actions = join ',', map { qq{"$_->[1]"} } @entries;
	my $said = $tick->query("SELECT pgtrickle.tick_plan('{$ids}', '{$sets}', '{$actions}')");
	if ($tick->{stderr} =~ /ERROR:\s+(.*)/)
	{
		my $error = $1;
		$tick->{stderr} = '';
		$tick->query_safe('ROLLBACK');
		return $error;
	}
	$tick->query_safe("SELECT * FROM pgtrickle.tick_execute(NULL, NULL)");
	$tick->query_safe('COMMIT');
	return $said;
}

sub nothing { }

$node->sql('CREATE TABLE src (id int PRIMARY KEY, k int); INSERT INTO src SELECT i, i % 3 FROM generate_series(1, 9) i');
$node->create_stream_table('up', 'SELECT k, count(*) AS n FROM src GROUP BY k', schedule => 'manual');
my $up = id_of('up');

# --- a consumer that appears while the tick has begun: the session that ran it hands it what comes afterwards
tick(
	sub { $node->create_stream_table('down', 'SELECT k, n FROM up WHERE n > 1', schedule => 'manual') },
	[ $up, 'full:by hand' ]);
my $down = id_of('down');
foreach my $change ('INSERT INTO src VALUES (10, 1)', 'DELETE FROM src WHERE k = 2', 'UPDATE src SET k = 2 WHERE id < 5')
{
	$node->sql($change);
	tick(\&nothing, [ $up, 'full:by hand' ], [ $down, 'delta' ]);
	$node->is_current('down', "after $change, a consumer made during a tick has the change");
}

# --- another mode
tick(sub { $node->sql(q{SELECT pgtrickle.alter_stream_table('down', refresh_mode => 'FULL')}) }, [ $up, 'full:by hand' ]);
$node->sql('INSERT INTO src VALUES (11, 1)');
tick(\&nothing, [ $up, 'full:by hand' ], [ $down, 'delta' ]);
is($node->sql("SELECT action FROM pgtrickle.pgt_refresh_history WHERE pgt_id = $down ORDER BY refresh_id DESC LIMIT 1"),
	'FULL', 'a mode that was changed during a tick counts in the next one');

# --- another query, and none: this tick is too old for them, and none of them is to blame
like(
	tick(sub { $node->sql(q{SELECT pgtrickle.create_or_replace_stream_table('down', 'SELECT k, n FROM up WHERE n > 2', 'manual')}) }, [ $up, 'full:by hand' ], [ $down, 'full:by hand' ]),
	qr/could not serialize access/, 'a stream table that got another query during a tick');
like(
	tick(sub { $node->drop_stream_table('down') }, [ $up, 'full:by hand' ], [ $down, 'full:by hand' ]),
	qr/could not serialize access/, 'a stream table that was dropped during a tick');

$tick->quit;
done_testing();
