# t/610_replica.pl
#
# Goal: copies of another server's tables and the stream tables over them are, at every moment and whoever is killed when, what a standby of that
#       server would show; and nothing is copied twice to get there.
# Method: writers on the source whose transactions keep sums constant; a reader on the target that looks at copies and stream tables in one
#         snapshot; everybody is killed in turn, inside ticks as well; at the end, with writers stopped, every copy equals its table.
#         PGTRICKLE_LONG=1: more rounds, and in each every stop point.
use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Utils;
use StreamTables::Cluster qw(random_seed pick);
use StreamTables::Replica;
use Test::More;
use Time::HiRes qw(usleep);

random_seed();
my $rounds = $ENV{PGTRICKLE_LONG} ? 6 : 1;
my $accounts = 40;
my $crash = 'restart_after_crash = on';
my $replica = StreamTables::Replica->new('replica', source => { conf => $crash }, target => { conf => $crash });
my ($source, $target) = ($replica->source, $replica->target);

$source->sql(
	qq{CREATE SCHEMA app;
	CREATE TABLE app.accounts (id int PRIMARY KEY, city text, balance int NOT NULL);
	INSERT INTO app.accounts SELECT i, 'city ' || i % 5, 100 FROM generate_series(1, $accounts) i;
	CREATE TABLE app.orders (id serial PRIMARY KEY, account int, amount numeric, note text);
	ALTER TABLE app.orders ALTER note SET STORAGE EXTERNAL;
	INSERT INTO app.orders (account, amount, note) SELECT 1 + i % $accounts, i, repeat('x', i % 7 * 1000) FROM generate_series(1, 200) i;
	CREATE TABLE app.events (kind int, at timestamptz DEFAULT now());
	ALTER TABLE app.events REPLICA IDENTITY FULL;
	INSERT INTO app.events SELECT i % 3 FROM generate_series(1, 50) i;
	CREATE TABLE app.unread (i int)});

# One transaction: money is moved, never made; an order is made, changed, removed or gets another key; bags get and lose duplicates.
$source->sql(
	qq{CREATE PROCEDURE app.write(transactions int, seed float) LANGUAGE plpgsql AS \$\$
	DECLARE
		giver int; taker int; sum int;
	BEGIN
		PERFORM setseed(seed);
		FOR i IN 1 .. transactions LOOP
			giver := 1 + floor(random() * $accounts); taker := 1 + floor(random() * $accounts); sum := floor(random() * 20);
			UPDATE app.accounts SET balance = balance - sum WHERE id = least(giver, taker);
			UPDATE app.accounts SET balance = balance + sum, city = 'city ' || floor(random() * 5) WHERE id = greatest(giver, taker);
			INSERT INTO app.orders (account, amount, note) SELECT giver, sum, repeat(chr(97 + sum), (random() * 5000)::int) FROM generate_series(1, 1 + sum % 3);
			IF random() < 0.4 THEN
				UPDATE app.orders SET amount = amount + 1 WHERE account = taker;
			END IF;
			IF random() < 0.2 THEN
				UPDATE app.orders SET id = nextval('app.orders_id_seq') WHERE id = (SELECT max(id) FROM app.orders WHERE account = giver);
			END IF;
			IF random() < 0.5 THEN
				DELETE FROM app.orders WHERE ctid IN (SELECT ctid FROM app.orders ORDER BY random() LIMIT 2);
			END IF;
			BEGIN
				DELETE FROM app.accounts;
				RAISE EXCEPTION 'not really';
			EXCEPTION WHEN raise_exception THEN NULL;
			END;
			INSERT INTO app.events (kind) SELECT sum % 3 FROM generate_series(1, 2);
			DELETE FROM app.events WHERE ctid = (SELECT ctid FROM app.events LIMIT 1);
			INSERT INTO app.unread VALUES (i);
			IF random() < 0.02 THEN
				TRUNCATE app.events;
			END IF;
			COMMIT;
			PERFORM pg_sleep(0.005);
		END LOOP;
	END \$\$});

my @writers;

sub start_writers
{
	foreach my $i (1 .. 2)
	{
		my $seed = rand;
		my $said = '';
		push @writers,
		  IPC::Run::start(
			[ $source->installed_command('psql'), '-XAtq', '-d', $source->connstr($source->dbname), '-c', "CALL app.write(100000, $seed)" ],
			'<', \undef, '>&', \$said);
	}
	return;
}

sub stop_writers
{
	$source->sql(q{SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE query LIKE 'CALL app.write%' AND pid <> pg_backend_pid()});
	$_->kill_kill foreach @writers;
	@writers = ();
	return;
}

$target->start_applier;
start_writers();
$replica->copy(qw(app.accounts app.orders app.events));
pass('tables are copied while they are written to');

$target->sql(q{CREATE TABLE regions (city text PRIMARY KEY, region text); INSERT INTO regions SELECT 'city ' || i, 'region ' || i % 2 FROM generate_series(0, 4) i});
my %query = (
	money => 'SELECT count(*) AS n, sum(balance) AS total FROM app.accounts',
	by_account => 'SELECT account, count(*) AS n, sum(amount) AS total, sum(length(note)) AS letters FROM app.orders GROUP BY account',
	by_region => 'SELECT r.region, count(*) AS n, sum(o.amount) AS total FROM app.orders o JOIN app.accounts a ON a.id = o.account
		JOIN regions r ON r.city = a.city GROUP BY r.region',
	kinds => 'SELECT kind, count(*) AS n FROM app.events GROUP BY kind',
	rich => 'SELECT account, total FROM by_account WHERE total > 100');
my @fast = qw(money by_account by_region kinds rich);
$target->create_stream_table($_, $query{$_}) foreach @fast;
$target->create_stream_table('slow', 'SELECT count(*) AS n, sum(amount) AS total FROM app.orders', schedule => '2s');
$target->wait_fresh(@fast, 'slow');
my $made_at = $target->sql('SELECT clock_timestamp()');

# One statement is one snapshot: the sums are those of the source at some moment, and each stream table equals its query over the copies.
my $look = 'SELECT (SELECT count(*) = ' . $accounts . ' AND sum(balance) = ' . 100 * $accounts . ' FROM app.accounts)'
  . join('', map { ', (SELECT count(*) = 0 FROM (' . $target->difference_query($_) . ') d)' } @fast);
my $good = join('|', ('t') x (1 + @fast));
my ($looks, @bad) = (0);

sub look
{
	my ($when) = @_;

	foreach (1 .. 2)
	{
		my ($rc, $seen) = $target->psql($target->dbname, $look);
		next if $rc != 0;    # the target is down
		$looks++;
		push @bad, "$when: $seen" if $seen ne $good;
	}
	return;
}

sub is_well
{
	my ($after) = @_;

	look($after);
	stop_writers();
	$replica->settle(@fast, 'slow');
	look("$after, at rest");
	my $equal = 1;
	$equal &= $replica->is_equal($_, "$_ equals its table after $after") foreach qw(app.accounts app.orders app.events);
	$target->is_current($_, "$_ is right after $after") foreach @fast, 'slow';
	BAIL_OUT('nothing that follows would mean anything') if !$equal;
	start_writers();
	return;
}

sub wait_for_progress
{
	my $lsn = $source->sql('SELECT pg_current_wal_flush_lsn()');
	$target->wait_until("SELECT position >= '$lsn' FROM pgtrickle.remote_catalog()", 'the target has gone on');
	return;
}

look('the start') foreach 1 .. 3;
is_well('the start');

sub stop_at
{
	my ($point) = @_;

	$target->stop_applier;
	$target->start_applier(env => { PGTRICKLE_STOP_AT => "$point:" . (1 + int rand 4) }, wait => 0);
	my $status;
	foreach (1 .. 1000)
	{
		last if defined($status = $target->applier_ended);
		look($point);
	}
	is($status, 9, "the applier is killed: $point");
	$target->start_applier;
	wait_for_progress();
	look($point);
	return;
}

# One of its processes is killed in the middle of whatever it does, so the whole server is: it starts again by itself.
sub crash
{
	my ($node, $process) = @_;

	my $pid = $node->sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'pgtrickle $process'");
	is(kill(9, $pid), 1, "a server process is killed: $process");
	foreach (1 .. 600)
	{
		my ($rc, $alive) = $node->psql($node->dbname, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid");
		last if $rc == 0 && $alive == 0;
		usleep(50_000);
	}
	return;
}

my %deed = (
	'the walsender was ended' => sub {
		$source->wait_until(
			q{SELECT count(pg_terminate_backend(pid)) = 1 FROM pg_stat_replication WHERE application_name = 'pgtrickle stream'},
			'the walsender is ended');
	},
	'the applier was killed' => sub { $target->kill9_applier; $target->start_applier },
	'the source crashed' => sub { crash($source, 'stream'); stop_writers(); start_writers() },
	'the target crashed' => sub { crash($target, 'refresh') });

foreach my $round (1 .. $rounds)
{
	my @points = qw(before_execute before_commit after_commit before_feedback);
	@points = splice @points, rand 3, 2 if !$ENV{PGTRICKLE_LONG};
	stop_at($_) foreach @points;
	is_well('the applier was killed inside of ticks');
	foreach my $what (sort keys %deed)
	{
		$deed{$what}->();
		wait_for_progress();
		look($what);
	}
	is_well(join ', ', sort keys %deed);
}

is_deeply(\@bad, [], "$looks looks at the target saw one state of the source each");
cmp_ok($looks, '>', 20, 'and there were enough of them');
$replica->were_copied_once;
is( $target->sql(
		qq{SELECT d.relid::regclass, h.reason FROM pgtrickle.pgt_history h JOIN pgtrickle.pgt_definitions d USING (pgt_id)
		WHERE h.start_time > '$made_at' AND h.action IN ('FULL', 'REINITIALIZE') AND h.reason NOT LIKE 'cheaper than by delta%'}),
	'',
	'no stream table had to be refreshed in full');
stop_writers();
cmp_ok(
	$source->sql('SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) FROM pg_replication_slots'),
	'<', 64 * 1024 * 1024,
	'the slot on the source moves on');
$target->stop_applier;
done_testing();
