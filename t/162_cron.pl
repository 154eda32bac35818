# t/162_cron.pl
#
# Goal: cron expressions are read as every cron reads them, mean the time of a place, and refresh stream tables at their times.
# Method: next_cron_time() against a search through all minutes in SQL, for random expressions; the days on which clocks are changed; then
#         stream tables that are due every other second, and some that were due while nobody was there.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster qw(random_seed pick);
use Test::More;

random_seed();
my $node = StreamTables::Cluster->new('cron')->boot(conf => "timezone = 'UTC'");
$node->start_applier;
$node->sql('CREATE TABLE orders (id serial PRIMARY KEY, amount int)');

# --- what is none
my %error = (
	'* * * *' => 'A cron expression has five fields, or six with seconds in front; this one has 4.',
	'* * * * * * *' => 'A cron expression has five fields, or six with seconds in front; this one has 7.',
	'60 * * * *' => '60 is no value of the field "minute", which goes from 0 to 59.',
	'* 24 * * *' => '24 is no value of the field "hour", which goes from 0 to 23.',
	'* * 0 * *' => '0 is no value of the field "day of the month", which goes from 1 to 31.',
	'* * * foo *' => 'A value of the field "month" is expected at "foo *".',
	'* * * * mon-' => 'A value of the field "day of the week" is expected at "".',
	'* * * * fri-mon' => 'The range 5-1 in the field "day of the week" runs backwards.',
	'*/0 * * * *' => '0 is no step for the field "minute".',
	'*/ * * * *' => 'A step is expected after "/" in the field "minute".',
	'1,,2 * * * *' => 'A value of the field "minute" is expected at ",2 * * * *".',
	'* * * * 5L' => '"L" is not understood in the field "day of the week".',
	'0 0 30 2 *' => 'There is no such day.',
	'@reboot' => '"@reboot" is none of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually.',
	'@daily 5' => 'Nothing may follow "@daily".',
	'CRON_TZ=Nowhere/City * * * * *' => 'Time zone "Nowhere/City" is not recognized.',
	'CRON_TZ= * * * * *' => 'A time zone is expected after CRON_TZ=.',
);
foreach my $schedule (sort keys %error)
{
	like($node->psql_error("SELECT pgtrickle.create_stream_table('t', 'SELECT id FROM orders', '$schedule')"),
		qr/^22023: invalid schedule "\Q$schedule\E"\nDETAIL:  \Q$error{$schedule}\E\nHINT: /,
		"\"$schedule\" is refused");
}
is( $node->sql(q{SELECT string_agg(pgtrickle.check_schedule(s), ';' ORDER BY n)
		FROM unnest(ARRAY['  0  6 * *   MON-Fri ', '@Daily', 'cron_tz=Europe/Berlin 0 6 * * *']) WITH ORDINALITY u (s, n)}),
	'0 6 * * mon-fri;@daily;CRON_TZ=Europe/Berlin 0 6 * * *', 'cron expressions are put into a normal form');

# --- the next time
sub next_time
{
	my ($schedule, $after, $zone) = @_;

	$zone //= 'UTC';
	return $node->sql(
		"SELECT to_char(pgtrickle.next_cron_time('$schedule', timestamptz '$after', '$zone') AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')");
}

# A random field and the values that it stands for.
sub random_field
{
	my ($min, $max, $is_open) = @_;

	return ('*', [ $min .. $max ]) if $is_open;
	my %values;
	my @parts = map {
		my $first = $min + int rand($max - $min + 1);
		my $last = $first + int rand($max - $first + 1);
		my $step = 1 + int rand 4;
		my ($text, @list) = @{ pick(
				[ $first, $first ],
				[ "$first-$last", $first .. $last ],
				[ "$first-$last/$step", grep { ($_ - $first) % $step == 0 } $first .. $last ],
				[ "*/$step", grep { ($_ - $min) % $step == 0 } $min .. $max ]) };
		$values{$_} = 1 foreach @list;
		$text;
	} 1 .. 1 + int rand 3;
	return (join(',', @parts), [ sort { $a <=> $b } keys %values ]);
}

my $wrong = '';
foreach my $try (1 .. 25)
{
	my ($minute, $minutes) = random_field(0, 59, rand() < 0.3);
	my ($hour, $hours) = random_field(0, 23, rand() < 0.4);
	my ($day, $days) = random_field(1, 31, rand() < 0.5);
	my ($month, $months) = random_field(1, 12, rand() < 0.6);
	my ($week_day, $week_days) = random_field(0, 6, rand() < 0.5);
	my $expression = "$minute $hour $day $month $week_day";
	my $either = (grep { /(^|,)\*(,|$)/ } $day, $week_day) ? 'AND' : 'OR';
	my $after = $node->sql("SELECT timestamptz '2026-01-01' + random() * interval '360 days'");
	my ($mins, $hrs, $dys, $mons, $wks) = map { join ',', @$_ } ($minutes, $hours, $days, $months, $week_days);
	my $expected = $node->sql(
		"SELECT to_char(min(t), 'YYYY-MM-DD HH24:MI:SS') FROM generate_series(date_trunc('minute', timestamptz '$after') + interval '1 minute',
			timestamptz '$after' + interval '400 days', '1 day') d,
			LATERAL (SELECT date_trunc('day', d) AS midnight) m,
			LATERAL (SELECT midnight + h * interval '1 hour' + mi * interval '1 minute' AS t FROM unnest('{$hrs}'::int[]) h, unnest('{$mins}'::int[]) mi) times
		WHERE t > '$after' AND extract(month FROM t) IN ($mons)
			AND (extract(day FROM t) IN ($dys) $either extract(dow FROM t) IN ($wks))");
	# none within the year that was searched
	next if $expected eq '';
	my $got = next_time($expression, $after);
	$wrong .= "$expression after $after: $got instead of $expected\n" if $got ne $expected;
}
is($wrong, '', 'random expressions have the next time that a search through all minutes finds');

is(next_time('*/15 * * * * *', '2026-03-01 10:00:15'), '2026-03-01 10:00:30', 'a sixth field in front is for seconds');
is(next_time('* * * * *', '2026-03-01 10:00:00'), '2026-03-01 10:01:00', 'the next time is later');
is(next_time('@weekly', '2026-03-04 10:00'), '2026-03-08 00:00:00', '@weekly is on Sundays');
is(next_time('0 0 * * 7', '2026-03-04 10:00'), '2026-03-08 00:00:00', 'so is 7');
is(next_time('0 12 13 * fri', '2026-03-01'), '2026-03-06 12:00:00', 'of two days one is enough');
is(next_time('0 0 29 feb *', '2026-03-01'), '2028-02-29 00:00:00', 'a leap day is found');
is(next_time('0 6 * * *', '2026-01-10 12:00', 'America/New_York'), '2026-01-11 11:00:00', 'times are those of a place');
is(next_time('CRON_TZ=Asia/Kolkata 0 6 * * *', '2026-01-10 12:00', 'America/New_York'),
	'2026-01-11 00:30:00', 'which the expression may name');

# Berlin, 2026-03-29: 02:00 becomes 03:00 (01:00 UTC); 2026-10-25: 03:00 becomes 02:00 (01:00 UTC).
is(next_time('30 2 * * *', '2026-03-28 12:00', 'Europe/Berlin'), '2026-03-29 01:30:00', 'a time that is left out comes as much later');
is(next_time('30 2 * * *', '2026-03-29 01:30', 'Europe/Berlin'), '2026-03-30 00:30:00', 'and once');
is(next_time('30 2 * * *', '2026-10-24 12:00', 'Europe/Berlin'), '2026-10-25 01:30:00', 'a time that is shown twice comes once');
is(next_time('30 2 * * *', '2026-10-25 00:45', 'Europe/Berlin'), '2026-10-25 01:30:00', 'also for who asks between the two');
is(next_time('30 2 * * *', '2026-10-25 01:30', 'Europe/Berlin'), '2026-10-26 01:30:00', 'and not again');
is(next_time('*/20 * * * *', '2026-10-25 00:40', 'Europe/Berlin'), '2026-10-25 01:00:00', 'every so many minutes goes on while the clock is put back');
is(next_time('*/20 * * * *', '2026-03-29 00:50', 'Europe/Berlin'), '2026-03-29 01:00:00', 'and while it is put on');
is(next_time('0 * * * sun', '2026-10-25 22:30', 'Europe/Berlin'), '2026-10-31 23:00:00', 'a day ends where the place has it end');

# --- refreshes
my $every_other_second = '*/2 * * * * *';
$node->create_stream_table('timed', 'SELECT id, amount FROM orders', schedule => $every_other_second);
$node->create_stream_table('below', 'SELECT amount, count(*) AS n FROM orders GROUP BY amount', schedule => 'calculated');
$node->create_stream_table('above', 'SELECT count(*) AS n FROM below', schedule => $every_other_second);
$node->create_stream_table('late', 'SELECT count(*) AS n FROM orders', schedule => '@yearly');
is($node->sql("SELECT schedule FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'late'"), '@yearly', 'the schedule is shown as it was given');
foreach my $round (1 .. 2)
{
	my $inserted_at = $node->sql('INSERT INTO orders (amount) SELECT 7 RETURNING clock_timestamp()');
	$node->wait_until("SELECT (SELECT count(*) FROM timed) = $round AND (SELECT sum(n) FROM below) = $round", 'both are refreshed');
	cmp_ok(
		$node->sql("SELECT max(extract(epoch FROM data_timestamp - to_timestamp(2 * floor(extract(epoch FROM data_timestamp) / 2))))
			FROM pgtrickle.pgt_stream_tables WHERE pgt_name IN ('timed', 'above')"),
		'<', 1, 'at their time');
}
my $moment = $node->sql("SELECT data_timestamp FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'above'");
$node->wait_until("SELECT data_timestamp > '$moment' FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'above'",
	'the next time comes also when nothing has changed');
$node->verify($_) foreach qw(timed below above);
is($node->sql('SELECT n FROM late'), 0, 'one whose time has not come waits');

# A time that passed while nobody was there; it is made up for once.
sub miss
{
	my ($name, $since) = @_;

	$node->sql("UPDATE pgtrickle.pgt_frontiers SET data_timestamp = data_timestamp - interval '$since'
		WHERE pgt_id = (SELECT pgt_id FROM pgtrickle.pgt_definitions WHERE relid = '$name'::regclass)");
	return;
}
$node->stop_applier;
miss('late', '400 days');
$node->start_applier;
$node->wait_until('SELECT n = 2 FROM late', 'it is refreshed');
my $refreshes = $node->sql("SELECT total_refreshes FROM pgtrickle.pg_stat_stream_tables WHERE pgt_name = 'late'");
$node->sql('INSERT INTO orders (amount) VALUES (8)');
$node->wait_until('SELECT count(*) = 3 FROM timed', 'another round');
is($node->sql("SELECT total_refreshes FROM pgtrickle.pg_stat_stream_tables WHERE pgt_name = 'late'"),
	$refreshes, 'a time that was missed is made up for, once');

# In the time zone in which the stream table was created, unless the schedule names one.
$node->sql(q{SET timezone = 'America/New_York'; SELECT pgtrickle.create_stream_table('of_place', 'SELECT id FROM orders', '0 6 * * *')});
$node->create_stream_table('of_other_place', 'SELECT id FROM orders', schedule => 'CRON_TZ=Asia/Tokyo 0 6 * * *');
is( $node->sql(
		q{SELECT string_agg(to_char(cron_at AT TIME ZONE CASE pgt_name WHEN 'of_place' THEN 'America/New_York' ELSE 'Asia/Tokyo' END, 'HH24:MI'), ' ')
		FROM pgtrickle.applier_catalog() WHERE pgt_name LIKE 'of%place'}),
	'06:00 06:00', 'a stream table goes by the time zone of its creation or of its schedule');
$node->sql(q{SELECT pgtrickle.alter_stream_table('late', schedule => '*/2 * * * * *')});
$node->wait_until('SELECT n = 3 FROM late', 'a schedule can be altered to another');
$node->is_current($_) foreach qw(late);
$node->stop_applier;
done_testing();
