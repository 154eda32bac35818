# t/228_retained_history.pl
#
# Goal: a stream table with retain_history tells what each refresh changed in it, to those who may read it, for as long as that says, whatever happens to it
#       meanwhile; and what it was at any moment in between.
# Method: one history through a life: changes of every kind compared with what as_of() makes of them, followers with LISTEN, other columns, rebuilding,
#         pruning, switching off, a dump; then who may read it, and what is refused.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('history')->boot;
$node->start_applier;
$node->sql(
	q{CREATE TABLE sales (id int PRIMARY KEY, city text, amount numeric, at timestamptz DEFAULT '2026-01-01 12:00+00', ratio float8 DEFAULT 0.1);
	ALTER TABLE sales REPLICA IDENTITY FULL;
	INSERT INTO sales SELECT i, 'c' || i % 3, i FROM generate_series(1, 9) i;
	SELECT pgtrickle.create_stream_table('totals', 'SELECT city, sum(amount) AS total, count(*) AS n, max(at) AS last, sum(ratio) AS t FROM sales GROUP BY city',
		'continuous', retain_history => '1hr');
	SELECT pgtrickle.create_stream_table('bag', 'SELECT city, amount FROM sales', 'continuous', 'FULL', retain_history => '1d');
	SELECT pgtrickle.create_stream_table('plain', 'SELECT id FROM sales', 'continuous')});

# The moment of the last refresh, and the rows at that moment.
my (@moments, @rows);

sub note_moment
{
	my ($name) = @_;

	$node->refresh($name);
	push @moments, $node->sql("SELECT data_timestamp FROM pgtrickle.pgt_stream_tables WHERE pgt_name = '$name'");
	push @rows, $node->sql("SELECT the_row::text FROM $name the_row ORDER BY 1");
	return;
}

sub check_moments
{
	my ($name, $what) = @_;

	is($node->sql("SET TimeZone = 'Asia/Kolkata'; SET IntervalStyle = 'iso_8601'; SET extra_float_digits = 0; CREATE TEMP TABLE past AS
			SELECT * FROM pgtrickle.as_of(NULL::$name, '$moments[$_]'); RESET ALL; SELECT the_row::text FROM past the_row ORDER BY 1"),
		$rows[$_], "$what: as of moment $_")
	  foreach 0 .. $#moments;
	return;
}

# --- what it says -----------------------------------------------------------------------------------------------------

note_moment('totals');
is($node->sql(q{SELECT count(*) FROM pgtrickle.history('totals')}), 0, 'the first fill is no change');
$node->sql(q{INSERT INTO sales VALUES (10, 'c0', 5, '2026-03-01 00:00+00', 0.2)});
note_moment('totals');
is($node->sql(q{SELECT weight, row_data->>'total', row_data->>'n', row_data->>'last' FROM pgtrickle.history('totals')}),
	"-1|18|3|2026-01-01T12:00:00+00:00\n1|23|4|2026-03-01T00:00:00+00:00", 'a changed row went and came');
$node->sql(q{DELETE FROM sales WHERE city = 'c1'; INSERT INTO sales VALUES (11, NULL, 1)});
note_moment('totals');
$node->sql(q{UPDATE sales SET city = 'c1' WHERE id = 10; UPDATE sales SET amount = amount WHERE id = 2});
note_moment('totals');
$node->sql(q{TRUNCATE sales; INSERT INTO sales SELECT i, 'c' || i % 2, i FROM generate_series(1, 4) i});
note_moment('totals');
check_moments('totals', 'by delta and in full');
is($node->sql(q{SELECT count(*) FROM pgtrickle.as_of(NULL::bag, statement_timestamp())}), 4, 'of a bag refreshed in full, too');
is($node->sql(q{SELECT bool_and(f.weights = 0) FROM (SELECT sum(weight) AS weights FROM (
		SELECT to_jsonb(b) AS row_data, 1 AS weight FROM bag b UNION ALL SELECT row_data, -weight FROM pgtrickle.history('bag')
		UNION ALL SELECT jsonb_build_object('city', 'c' || i % 3, 'amount', i), -1 FROM generate_series(1, 9) i) x GROUP BY row_data) f}),
	't', 'the first rows and all changes give the rows there are');
is($node->sql(q{SELECT count(DISTINCT data_timestamp) = count(DISTINCT change_id) FILTER (WHERE first) FROM (
		SELECT change_id, data_timestamp, change_id = min(change_id) OVER (PARTITION BY data_timestamp) AS first FROM pgtrickle.history('totals')) h}),
	't', 'changes of one refresh have its moment');

# --- following it -----------------------------------------------------------------------------------------------------------

my $position = $node->sql(q{SELECT pgtrickle.history_position('totals')});
is($node->sql(qq{SELECT count(*) FROM pgtrickle.history('totals', after_change => $position)}), 0, 'a follower is at the end');
my $listener = $node->background_psql('postgres');
$listener->query_safe('LISTEN pgtrickle_history');
$node->sql(q{INSERT INTO sales VALUES (20, 'c9', 7)});
$node->wait_until(qq{SELECT count(*) = 1 FROM pgtrickle.history('totals', after_change => $position)});
like($listener->query('SELECT 1'), qr/notification "pgtrickle_history" with payload "\{"schema" : "public", "name" : "(totals|bag)", "change_id" : \d+\}"/,
	'and who listens is told');
$listener->quit;
is($node->sql(qq{SELECT (jsonb_populate_record(NULL::totals, row_data)).* FROM pgtrickle.history('totals', $position)}), 'c9|7|1|2026-01-01 12:00:00+00|0.1',
	'only what came later, as a row of the stream table');
is($node->sql(qq{SELECT count(*) FROM pgtrickle.history('totals', since => '$moments[-1]')}), 1, 'or after a moment');

# --- other definitions --------------------------------------------------------------------------------------------------------

$node->sql(q{SELECT pgtrickle.create_or_replace_stream_table('totals', 'SELECT city, sum(amount) + 1 AS total, count(*) AS n, max(at) AS last, sum(ratio) AS t
	FROM sales GROUP BY city', 'continuous')});
note_moment('totals');
check_moments('totals', 'another query');
my @short = @rows;
$node->sql(q{SELECT pgtrickle.alter_stream_table('totals', 'SELECT city, sum(amount) AS total, count(*) AS n, max(at) AS last, sum(ratio) AS t, min(amount) AS least
	FROM sales GROUP BY city')});
$node->sql(q{INSERT INTO sales VALUES (21, 'c8', 8)});
s/\)$/,)/mg foreach @rows;
note_moment('totals');
check_moments('totals', 'a column more');
is($node->sql(q{SELECT options->>'retain_history' FROM pgtrickle.pgt_definitions WHERE relid = 'totals'::regclass}), '01:00:00', 'the option stays');
$position = $node->sql(q{SELECT pgtrickle.history_position('totals')});
is($node->sql(q{SELECT pgtrickle.create_or_replace_stream_table('totals', 'SELECT city, sum(amount)::text AS total FROM sales GROUP BY city', 'continuous')}),
	'rebuilt', 'other columns');
like($node->psql_error("SELECT pgtrickle.as_of(NULL::totals, '$moments[-1]')"), qr/^55000: the history .* does not reach back .*DETAIL: .*begins at/s,
	'rebuilt: what was before cannot be told');
like($node->psql_error("SELECT pgtrickle.history('totals', $position)"), qr/^55000: .* has a gap after change $position.*HINT: .*history_position/s,
	'and who follows learns of it');
cmp_ok($node->sql(q{SELECT count(*) FROM pgtrickle.history('totals')}), '>', 10, 'the changes themselves are still there');
@moments = @rows = ();
note_moment('totals');
$node->sql(q{INSERT INTO sales VALUES (30, 'c7', 1)});
note_moment('totals');
check_moments('totals', 'rebuilt');
is($node->sql(qq{SELECT count(*) FROM pgtrickle.history('totals', pgtrickle.history_position('totals') - 1)}), 1, 'and followed again');

# --- how long -------------------------------------------------------------------------------------------------------------------

my $before = $node->sql('SELECT clock_timestamp()');
like($node->psql_error(q{SELECT pgtrickle.history('plain')}), qr/^55000: .*does not retain its history.*HINT: .*alter_stream_table/s, 'without the option there is none');
$node->sql(q{SELECT pgtrickle.alter_stream_table('plain', retain_history => '1w')});
is($node->sql(q{SELECT pgt_name, retention FROM pgtrickle.pgt_retained_histories ORDER BY 1}), "bag|1 day\nplain|7 days\ntotals|01:00:00", 'switched on later');
$node->sql('DELETE FROM sales WHERE id = 30');
$node->wait_until(q{SELECT count(*) = 1 FROM pgtrickle.history('plain')}, 'the change of a stream table whose history began later is kept');
like($node->psql_error("SELECT pgtrickle.as_of(NULL::plain, '$before')"), qr/does not reach back/, 'not from before');
$node->sql(q{SELECT pgtrickle.alter_stream_table('bag', retain_history => '10ms')});
$node->sql('SELECT pgtrickle.prune_history()');
is($node->sql(q{SELECT count(*) FROM pgtrickle.pgt_changes WHERE pgt_id = (SELECT pgt_id FROM pgtrickle.pgt_definitions WHERE relid = 'bag'::regclass)}),
	0, 'what is older is pruned');
like($node->psql_error(q{SELECT pgtrickle.history('bag', 1)}), qr/has a gap after change 1/, 'who comes too late learns of it');
$node->sql(q{SELECT pgtrickle.alter_stream_table('bag', retain_history => '1 day')});
like($node->psql_error("SELECT pgtrickle.as_of(NULL::bag, '$before')"), qr/does not reach back/, 'a longer time does not bring it back');
$node->sql(q{SELECT pgtrickle.alter_stream_table('bag', retain_history => '0')});
like($node->psql_error(q{SELECT pgtrickle.history('bag')}), qr/does not retain/, 'switched off');
is($node->sql(q{SELECT options FROM pgtrickle.pgt_definitions WHERE relid = 'bag'::regclass}), '{}', 'without a trace');
like($node->psql_error(q{SELECT pgtrickle.alter_stream_table('bag', retain_history => '-1 day')}), qr/^22023: invalid value for argument "retain_history"/, 'checked');

# --- who may read it ----------------------------------------------------------------------------------------------------------------

$node->sql(q{CREATE ROLE reader; CREATE ROLE stranger; CREATE ROLE limited; GRANT SELECT ON totals TO reader; GRANT SELECT (city) ON totals TO limited});
cmp_ok($node->sql(q{SET ROLE reader; SELECT count(*) FROM pgtrickle.history('totals')}), '>', 10, 'who may read the stream table reads its history');
is($node->sql(qq{SET ROLE reader; SELECT count(*) FROM pgtrickle.as_of(NULL::totals, '$moments[-1]')}), $node->sql('SELECT count(*) + 1 FROM totals'), 'and its past');
like($node->psql_error("SET ROLE $_; SELECT pgtrickle.history('totals')"), qr/^42501/, "not so $_") foreach qw(stranger limited);
is($node->sql('SET ROLE stranger; SELECT count(*) FROM pgtrickle.pgt_stream_table_changes'), 0, 'who sees nothing in the view');
like($node->psql_error('SET ROLE reader; SELECT * FROM pgtrickle.pgt_changes'), qr/^42501/, 'nobody reads the table');
$node->sql(q{ALTER TABLE totals ENABLE ROW LEVEL SECURITY; CREATE POLICY one_city ON totals USING (city = 'c0')});
like($node->psql_error(q{SET ROLE reader; SELECT pgtrickle.history('totals')}), qr/^42501: .*row-level security/, 'with row-level security there is nothing to see');
is($node->sql('SET ROLE reader; SELECT count(*) FROM pgtrickle.pgt_stream_table_changes'), 0, 'in the view, too');
$node->sql('ALTER TABLE totals DISABLE ROW LEVEL SECURITY');

# --- what cannot have one -------------------------------------------------------------------------------------------------------------

like($node->psql_error(q{SELECT pgtrickle.create_stream_table('at_once', 'SELECT id FROM sales', refresh_mode => 'IMMEDIATE', retain_history => '1h')}),
	qr/^0A000: stream table "public.at_once" cannot be IMMEDIATE and retain its history.*DETAIL: .*no order.*HINT: .*SELECT \* FROM public\.at_once/s, 'IMMEDIATE is refused');
like($node->psql_error(q{SELECT pgtrickle.alter_stream_table('totals', refresh_mode => 'IMMEDIATE')}), qr/^0A000/, 'later, too');

# --- a dump ---------------------------------------------------------------------------------------------------------------------------

$node->stop_applier;
my $history = q{SELECT change_id, data_timestamp, weight, row_data FROM pgtrickle.history('totals')};
my $kept = $node->sql($history);
my $dump = $node->basedir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'dumped');
$node->sql('CREATE DATABASE restored');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $node->connstr('restored') ], 'restored');
$node->safe_psql('restored', 'SELECT pgtrickle.restore_stream_tables()');
is($node->safe_psql('restored', q{SELECT change_id, data_timestamp, weight, row_data FROM pgtrickle.pgt_stream_table_changes c
		WHERE pgt_id = (SELECT pgt_id FROM pgtrickle.pgt_definitions WHERE relid = 'totals'::regclass) ORDER BY change_id}), $kept, 'the history is part of a dump');
is($node->safe_psql('restored', q{SELECT nextval('pgtrickle.pgt_changes_change_id_seq')}), $node->sql(q{SELECT nextval('pgtrickle.pgt_changes_change_id_seq')}),
	'and numbers are not given twice');

# --- dropped -----------------------------------------------------------------------------------------------------------------------

$node->sql('DROP TABLE totals, plain');
is($node->sql('SELECT count(*) FROM pgtrickle.pgt_changes'), 0, 'it goes with its stream table');
done_testing();
