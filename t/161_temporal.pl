# t/161_temporal.pl
#
# Goal: rows enter and leave as time passes, by delta and without any write, whatever stands above and beside the condition on the moment,
#       whatever changes at the same time, and in whichever direction the clock has moved.
# Method: rows that come up and expire within a second or two; writers beside them; verify() compares at the same now().  Days and clocks
#         that were set back are simulated: rows and stored moment of the last refresh are replaced by those of another time.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use Test::More;

StreamTables::Cluster::random_seed();
my $node = StreamTables::Cluster->new('temporal')->boot(conf => 'autovacuum = off');
$node->start_applier;
$node->sql(
	q{CREATE TABLE events (id serial PRIMARY KEY, kind int, at timestamptz, until timestamptz, local timestamp, day date, n int);
	CREATE TABLE kinds (kind int PRIMARY KEY, name text, valid_from timestamptz, valid_to timestamptz);
	INSERT INTO kinds SELECT g, 'kind ' || g, now() - interval '1 hour', 'infinity' FROM generate_series(1, 4) g;
	CREATE FUNCTION put(how_many int) RETURNS void LANGUAGE sql AS $$
		INSERT INTO events (kind, at, until, local, day, n)
		SELECT 1 + (random() * 4)::int, m.at, CASE WHEN random() < 0.9 THEN m.at + random() * interval '2 s' END,
			m.at::timestamp, m.at::date, (random() * 5)::int
		FROM (SELECT now() + (random() - 0.5) * interval '3 s' AS at FROM generate_series(1, how_many)) m
	$$;
	CREATE FUNCTION stir() RETURNS void LANGUAGE sql AS $$
		SELECT put(6);
		DELETE FROM events WHERE id IN (SELECT id FROM events ORDER BY random() LIMIT 3);
		UPDATE events SET until = until + (random() - 0.5) * interval '2 s', n = n + 1 WHERE id IN (SELECT id FROM events ORDER BY random() LIMIT 3);
		UPDATE kinds SET valid_to = now() + (random() - 0.3) * interval '2 s', valid_from = now() + (random() - 0.7) * interval '2 s'
			WHERE random() < 0.3;
	$$});

my %query = (
	# one condition, in each direction and each way of writing it
	recent => q{SELECT id, at FROM events WHERE at > now() - interval '1 second'},
	recent_closed => q{SELECT id, at FROM events WHERE now() - interval '1 s' <= at},
	past => q{SELECT id, at FROM events WHERE at <= current_timestamp},
	coming => q{SELECT id FROM events WHERE current_timestamp(0) < at},
	local_time => q{SELECT id, local FROM events WHERE local >= localtimestamp - interval '700 ms'},
	mixed_types => q{SELECT id FROM events WHERE local > now() - interval '1 s'},
	day_begun => q{SELECT id, day FROM events WHERE day <= current_date AND at < transaction_timestamp()},
	# several
	window_of_time => q{SELECT id, at FROM events WHERE at BETWEEN now() - interval '1 s' AND now() + interval '500 ms'},
	valid => q{SELECT id, kind FROM events WHERE at <= now() AND until > now() AND n > 1},
	outside => q{SELECT id FROM events WHERE at NOT BETWEEN now() - interval '1 s' AND now()},
	# of no form that an index could serve
	by_expression => q{SELECT id FROM events WHERE at + n * interval '200 ms' > now()},
	either => q{SELECT id FROM events WHERE n = 3 OR at > now() - interval '500 ms'},
	in_range => q{SELECT id FROM events WHERE tstzrange(at, greatest(at, until)) @> now()},
	whole_seconds => q{SELECT id FROM events WHERE n = extract(second FROM now())::int % 5},
	case_of => q{SELECT id FROM events WHERE CASE WHEN n > 2 THEN at > now() ELSE until < now() END},
	# below joins, aggregates, unions, DISTINCT, windows, other stream tables
	joined => q{SELECT e.id, k.name FROM events e JOIN kinds k ON k.kind = e.kind AND k.valid_to > now() WHERE e.until > now() AND k.valid_from <= now()},
	twice => q{SELECT a.id AS a, b.id AS b FROM events a, events b WHERE a.at > now() - interval '1 s' AND b.n = a.n AND b.until < now()},
	counted => q{SELECT kind, count(*) AS n, sum(n) AS total, min(at) AS first, max(n) AS most FROM events WHERE at > now() - interval '1 s' GROUP BY kind},
	in_all => q{SELECT count(*) AS n, avg(n) AS mean FROM events WHERE until > now()},
	listed => q{SELECT kind, string_agg(id::text, ',' ORDER BY id) AS ids FROM events WHERE until > now() GROUP BY kind HAVING count(*) > 1},
	grouped_join => q{SELECT k.name, count(DISTINCT e.n) AS n FROM events e JOIN kinds k USING (kind) WHERE e.until > now() AND k.valid_to > now() GROUP BY k.name},
	different => q{SELECT DISTINCT n FROM events WHERE at > now() - interval '500 ms'},
	both => q{SELECT id FROM events WHERE at < now() - interval '1 s' UNION ALL SELECT kind FROM kinds WHERE valid_to > now()},
	either_set => q{SELECT n FROM events WHERE until > now() EXCEPT SELECT kind FROM kinds WHERE valid_to > now()},
	of_subquery => q{SELECT k.name, t.n FROM kinds k JOIN (SELECT kind, count(*) AS n FROM events WHERE until > now() GROUP BY kind) t USING (kind)},
	left_of => q{SELECT e.id, k.name FROM events e LEFT JOIN kinds k ON k.kind = e.kind AND k.kind < 4 WHERE e.until > now()},
	right_of => q{SELECT e.id, k.name FROM events e LEFT JOIN (SELECT * FROM kinds WHERE valid_to > now()) k USING (kind) WHERE e.at > now() - interval '1 s'},
	full_of => q{SELECT e.id, k.kind, k.name FROM (SELECT * FROM events WHERE until > now()) e FULL JOIN (SELECT * FROM kinds WHERE valid_to > now()) k USING (kind)},
	ranked => q{SELECT id, rank() OVER (PARTITION BY kind ORDER BY n, id) AS place FROM events WHERE until > now()},
	above => q{SELECT kind, n FROM counted WHERE n > 1},
	above_and_timed => q{SELECT r.id, k.name FROM recent r JOIN events e USING (id) JOIN kinds k USING (kind) WHERE k.valid_to > now()},
);
my @order = ((sort grep { !/^above/ } keys %query), 'above', 'above_and_timed');
$node->sql('SELECT put(60)');
$node->create_stream_table($_, $query{$_}, refresh_mode => 'DIFFERENTIAL', schedule => $_ =~ /^[a-m]/ ? 'continuous' : '300ms')
  foreach @order;

# --- time alone
$node->sql(q{INSERT INTO events (kind, at, until) VALUES (1, now() + interval '1 s', 'infinity')});
my $id = $node->sql('SELECT max(id) FROM events');
$node->wait_fresh('valid');
is($node->sql("SELECT count(*) FROM valid WHERE id = $id"), 0, 'a row whose time has not come is not in it');
$node->sql("UPDATE events SET n = 2 WHERE id = $id");
$node->wait_until("SELECT count(*) = 1 FROM valid WHERE id = $id", 'it enters');
pass('it enters when its time comes');
$node->sql("UPDATE events SET until = now() + interval '1 s' WHERE id = $id");
$node->wait_until("SELECT count(*) = 0 FROM valid WHERE id = $id", 'it leaves');
pass('and leaves when its time is over');
$node->verify($_, "$_ after a while without writes") foreach @order;

# --- with changes at the same time
my $failed = '';
foreach (1 .. ($ENV{PGTRICKLE_LONG} ? 1000 : 40))
{
	$node->sql('SELECT stir()');
	my $name = $order[ int rand @order ];
	my $answer = $node->sql("SELECT * FROM pgtrickle.verify('$name')");
	$failed = "$name: $answer" if $answer ne '';
	last if $failed ne '';
}
is($failed, '', 'each of them equals its query while rows are written, enter and leave');
$node->sql('TRUNCATE events');
$node->sql('SELECT put(20)');
$node->verify($_, "$_ after TRUNCATE") foreach @order;
$node->sql('DELETE FROM events');
$node->verify($_, "$_ when all is gone") foreach @order;
is( $node->sql(
		q{SELECT string_agg(DISTINCT reason, '; ') FROM pgtrickle.pgt_refresh_history
		WHERE action = 'FULL' AND initiated_by <> 'INITIAL' AND reason !~ 'truncated|while it was filled'}),
	'', 'nothing but TRUNCATE led to a full refresh');

# --- the wrong times: a stream table as it would have been at another moment is brought to this one
$node->create_stream_table('today', 'SELECT id, day FROM events WHERE day = current_date', schedule => 'manual');
$node->create_stream_table('week', 'SELECT id FROM events WHERE day BETWEEN current_date - 3 AND current_date + 3', schedule => 'manual');
$node->create_stream_table('hours', q{SELECT id FROM events WHERE at > now() - interval '6 hours' AND until <= now()}, schedule => 'manual');
$node->sql(q{INSERT INTO events (at, until, day)
	SELECT m, m + interval '5 h', m::date FROM (SELECT now() + h * interval '1 hour' AS m FROM generate_series(-200, 200) h) s});

sub set_moment
{
	my ($name, $moment) = @_;

	my $query = $node->defining_query($name);
	$query =~ s/CURRENT_DATE/('$moment'::timestamptz::date)/g;
	$query =~ s/now\(\)/('$moment'::timestamptz)/g;
	# the guard is in the way, for which there is no door; a new session does not know of it
	$node->sql("SET allow_system_table_mods = on;
		UPDATE pg_trigger SET tgenabled = 'D' WHERE tgname = 'pgtrickle_guard' AND tgrelid = '$name'::regclass");
	$node->sql("DELETE FROM $name; INSERT INTO $name $query;
		UPDATE pgtrickle.pgt_frontiers SET query_now = '$moment'
		WHERE pgt_id = (SELECT pgt_id FROM pgtrickle.pgt_definitions WHERE relid = '$name'::regclass)");
	return;
}
foreach my $name (qw(today week hours))
{
	$node->refresh($name);
	foreach my $hours (-30, -1, 0, 2, 26, 150, -150, 'now')
	{
		my $moment = $node->sql($hours eq 'now' ? 'SELECT now()' : "SELECT now() + interval '$hours hours'");
		set_moment($name, $moment);
		$node->sql(q{UPDATE events SET until = until + interval '3 hours', day = day + 1 WHERE id % 7 = 0;
			DELETE FROM events WHERE id % 11 = 0;
			INSERT INTO events (at, until, day) SELECT now(), now(), current_date}) if $hours ne 'now';
		$node->verify($name, "$name, last refreshed when the clock showed $hours hours from now");
	}
	$node->assert_no_fallback($name);
}
is($node->sql('SELECT pgtrickle.previous_now() IS NULL'), 't', 'previous_now() is unknown outside of refreshes');

# --- another query for the same stream table begins at its own moment
$node->create_stream_table('replaced', q{SELECT id FROM events WHERE at > now()}, schedule => 'manual');
set_moment('replaced', $node->sql(q{SELECT now() - interval '3 days'}));
$node->sql(q{SELECT pgtrickle.create_or_replace_stream_table('replaced', $$SELECT id FROM events WHERE at > now() - interval '1 day'$$, 'manual')});
$node->verify('replaced', 'a stream table whose query was replaced');
$node->refresh('replaced');
$node->is_current('replaced');

# --- an index makes it cheap
$node->sql(
	q{CREATE TABLE readings (id int PRIMARY KEY, at timestamptz NOT NULL);
	INSERT INTO readings SELECT g, now() - g * interval '1 minute' FROM generate_series(1, 20000) g;
	CREATE INDEX ON readings (at);
	ANALYZE readings});
$node->create_stream_table('last_hour', q{SELECT id, at FROM readings WHERE at > now() - interval '1 hour' AND at <= now()});
my $rows_read = q{SELECT coalesce(sum(seq_tup_read), 0) FROM pg_stat_user_tables WHERE relname = 'readings'};
my $index_scans = q{SELECT coalesce(sum(idx_scan), 0) FROM pg_stat_user_tables WHERE relname = 'readings'};
my $refreshes = q{SELECT total_refreshes FROM pgtrickle.pg_stat_stream_tables WHERE pgt_name = 'last_hour'};
$node->sql('SELECT pgtrickle.refresh_stream_table(\'last_hour\')');
my ($scans, $read, $count) = map { $node->sql($_) } ($index_scans, $rows_read, $refreshes);
$node->wait_until("SELECT ($refreshes) >= $count + 2 AND ($index_scans) > $scans", 'refreshes by the clock use the index');
cmp_ok($node->sql($rows_read), '<=', $read + 20000, 'refreshes by the clock do not read the table');
$node->verify('last_hour');

# --- what has no rule says why
my %reason = (
	q{SELECT id, now() - at AS age FROM events} => qr/the result of now\(\) changes without any change/,
	q{SELECT count(*) AS n FROM events HAVING max(at) > now()} => qr/the result of now\(\) changes/,
	q{SELECT e.id, k.name FROM events e LEFT JOIN kinds k ON k.kind = e.kind AND k.valid_to > current_timestamp} =>
	  qr/the current date, time or user changes/,
	q{SELECT id FROM events e WHERE EXISTS (SELECT FROM kinds k WHERE k.kind = e.kind AND k.valid_to > now())} =>
	  qr/the result of now\(\) changes/,
	q{SELECT id FROM events WHERE at > statement_timestamp()} => qr/the result of statement_timestamp\(\) changes/,
	q{SELECT id FROM events WHERE age(at) > '1 day'} => qr/the result of age\(\) changes/,
);
foreach my $query (sort keys %reason)
{
	like(
		$node->sql("SELECT result FROM pgtrickle.validate_query(\$\$$query\$\$) WHERE check_name = 'full_refresh_reason'"),
		$reason{$query}, "in full: $query");
}
$node->create_stream_table('ages', 'SELECT id, now() - at AS age FROM events WHERE until > now()', schedule => '200ms');
my $before = $node->sql('SELECT max(age) FROM ages');
$node->wait_until("SELECT max(age) > '$before' FROM ages", 'a column that shows the age grows older by the clock');
$node->verify('ages');

$node->stop_applier;
done_testing();
