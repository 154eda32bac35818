# t/223_first_fill.pl
#
# Goal: a long first fill is seen, can be cancelled, makes no writer wait, and misses nothing.
# Method: a query made slow by a function, writers on its source, whose longest wait is measured; look at the progress; cancel; let it finish; create
#         several over one source at once; compare.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;
use Time::HiRes qw(time usleep);

my $node = StreamTables::Cluster->new('fill')->boot;
$node->start_applier;
$node->sql(
	q{CREATE TABLE src (id int PRIMARY KEY, k int, v int);
	INSERT INTO src SELECT i, i % 10, i FROM generate_series(1, 3000) i;
	CREATE FUNCTION slow(x int) RETURNS int IMMUTABLE PARALLEL RESTRICTED LANGUAGE plpgsql COST 1000 AS 'BEGIN PERFORM pg_sleep(0.001); RETURN x; END'});
my $create = q{SELECT pgtrickle.create_stream_table('slowly', 'SELECT id, k, slow(v) AS v FROM src', 'continuous')};

sub start_psql
{
	my ($sql) = @_;

	my %session = (out => '', err => '');
	$session{run} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', $sql ],
		'<', \undef, '>', \$session{out}, '2>', \$session{err});
	return \%session;
}

# --- seen and cancelled ------------------------------------------------------------------------------------------

my $creating = start_psql($create);
$node->wait_until(q{SELECT count(*) = 1 FROM pgtrickle.pgt_fill_progress WHERE phase = 'running the query' AND rows_done > 500},
	'the fill is seen');
is($node->sql('SELECT rows_estimated BETWEEN 1000 AND 10000, running_for > $$0.1s$$, query LIKE $$%slowly%$$ FROM pgtrickle.pgt_fill_progress'),
	't|t|t', 'with what is expected and since when');
is($node->sql(q{SELECT count(*) FROM pg_locks WHERE relation = 'src'::regclass AND mode NOT IN ('AccessShareLock') AND pid IN (SELECT pid FROM pgtrickle.pgt_fill_progress)}),
	0, 'the source is locked like by a reader');
$node->sql('SELECT pg_cancel_backend(pid) FROM pgtrickle.pgt_fill_progress');
$creating->{run}->finish;
like($creating->{err}, qr/canceling statement due to user request/, 'it can be cancelled');
is($node->sql('SELECT count(*) FROM pgtrickle.pgt_fill_progress'), 0, 'and is not seen any more');
is($node->sql(q{SELECT to_regclass('slowly') IS NULL AND NOT EXISTS (SELECT FROM pgtrickle.pgt_definitions)}), 't', 'nothing is left');

# --- under load ------------------------------------------------------------------------------------------------------

my $writer = $node->background_psql('postgres', on_error_stop => 1);
my $longest = 0;
my $next = 10_000;

sub write_some
{
	my $started_at = time;
	$next++;
	$writer->query_safe("INSERT INTO src VALUES ($next, $next % 7, 1)");
	$writer->query_safe("UPDATE src SET v = v + 1, k = k + 1 WHERE id = $next % 2900 + 1");
	$writer->query_safe("DELETE FROM src WHERE id = " . ($next - 5)) if $next % 3 == 0;
	my $took = time - $started_at;
	$longest = $took if $took > $longest;
	return;
}

write_some() foreach 1 .. 20;
$longest = 0;
my $started_at = time;
$creating = start_psql($create);
my $writes = 0;
while ($creating->{run}->pumpable)
{
	write_some();
	$writes++;
	$creating->{run}->pump_nb;
	last if time - $started_at > 60;
}
my $took = time - $started_at;
$creating->{run}->finish;
is($creating->{err}, '', 'it is created');
cmp_ok($took, '>', 2.5, 'which took long');
cmp_ok($writes, '>', 50, 'there were many writes meanwhile');
cmp_ok($longest, '<', 1, 'none of which waited for it');
note sprintf 'fill %.1f s, %d writes, the longest %.0f ms', $took, $writes, $longest * 1000;
write_some() foreach 1 .. 10;
$node->sql("SET pgtrickle.refresh_timeout = '120s'; SELECT pgtrickle.refresh_stream_table('slowly')");
is( $node->sql(
		'SELECT count(*) FROM (SELECT id, k, v FROM src EXCEPT ALL SELECT id, k, v FROM slowly) x'), 0, 'nothing is missing');
is($node->sql('SELECT count(*) FROM (SELECT id, k, v FROM slowly EXCEPT ALL SELECT id, k, v FROM src) x'), 0, 'nothing is twice');
is($node->sql(q{SELECT relreplident FROM pg_class WHERE relname = 'src'}), 'f', 'old rows are logged from now on');
my $known = $node->sql('SELECT max(refresh_id) FROM pgtrickle.pgt_history');
write_some() foreach 1 .. 10;
$node->wait_fresh('slowly');
is($node->sql("SELECT count(*) FROM pgtrickle.pgt_history WHERE action = 'FULL' AND refresh_id > $known"), 0, 'so what follows comes by delta');
$writer->quit;

# --- several at once ---------------------------------------------------------------------------------------------------

$node->sql('CREATE TABLE one (id int PRIMARY KEY, v int); CREATE TABLE two (id int PRIMARY KEY, v int);
	INSERT INTO one SELECT i, i FROM generate_series(1, 1000) i; INSERT INTO two SELECT i, i FROM generate_series(1, 1000) i');
$started_at = time;
my @sessions = map {
	my ($left, $right) = $_ % 2 ? ('one', 'two') : ('two', 'one');
	start_psql("SELECT pgtrickle.create_stream_table('both_$_', 'SELECT a.id, a.v + b.v AS v FROM $left a JOIN $right b USING (id) WHERE a.v % $_ = 0', 'continuous')")
} 1 .. 4;
$_->{run}->finish foreach @sessions;
is(join('', map { $_->{err} } @sessions), '', 'several that read the same sources can be created at once');
cmp_ok(time - $started_at, '<', 4, 'without waiting for each other');
is($node->sql(q{SELECT string_agg(relreplident, '') FROM pg_class WHERE relname IN ('one', 'two')}), 'ff', 'old rows are logged');
$node->sql('UPDATE one SET v = v + 1; DELETE FROM two WHERE id < 10');
$node->verify("both_$_") foreach 1 .. 4;

# --- a lock that cannot be had --------------------------------------------------------------------------------------------

$node->sql('CREATE TABLE busy (id int PRIMARY KEY)');
my $blocker = $node->background_psql('postgres', on_error_stop => 1);
$blocker->query_safe('BEGIN; INSERT INTO busy VALUES (1)');
my ($rc, $stdout, $stderr) = $node->psql('postgres',
	q{SET pgtrickle.replica_identity_lock_timeout = '300ms'; SELECT pgtrickle.create_stream_table('over_busy', 'SELECT id FROM busy', 'continuous')});
like($stderr, qr/WARNING:  source "busy" does not log old rows\nDETAIL:  Its lock could not be had in time/, 'who cannot have the lock is told');
$blocker->query_safe('COMMIT');
$blocker->quit;
$node->sql('UPDATE busy SET id = 2');
$node->verify('over_busy', 'and it is right all the same');

done_testing();
