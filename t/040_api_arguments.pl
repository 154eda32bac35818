# t/040_api_arguments.pl
#
# Goal: bad input to the functions that users call is a clear error with the right SQLSTATE, and changes nothing.
# Method: no applier; call each function with what people get wrong, and compare the whole message.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster qw(sql_literal);
use Test::More;

my $node = StreamTables::Cluster->new('arguments')->boot(setup => 'extension');
$node->sql(
	q{
	CREATE TABLE orders (id int PRIMARY KEY, customer int, amount numeric);
	CREATE SCHEMA sales;
	CREATE TABLE sales.regions (id int PRIMARY KEY, name text);
});

my $SCHEDULE_HINT =
  "HINT:  Use a duration such as '500ms', '5s', '1m' or '1h30m', a cron expression such as '*/5 * * * *', or 'continuous', 'calculated' or 'manual'.";

sub create_error
{
	my ($name, $query, $rest) = @_;

	return $node->psql_error('SELECT pgtrickle.create_stream_table('
		  . sql_literal($name) . ', '
		  . sql_literal($query)
		  . ($rest ? ", $rest" : '')
		  . ')');
}

# --- schedules and modes -----------------------------------------------------------------------------

my %schedules = (
	'' => 'The schedule is empty.',
	'soon' => 'A number and a unit are expected at "soon".',
	'5' => 'A number and a unit are expected at "5".',
	'5 parsecs' => 'Unit "parsecs" is none of ms, s, m, h, d, w.',
	'5s 3' => 'A number and a unit are expected at "3".',
	'-5s' => 'A number and a unit are expected at "-5s".',
	'10ms' => q{The shortest duration is 100ms; 'continuous' is faster.},
	'0s' => q{The shortest duration is 100ms; 'continuous' is faster.},
	'53w' => 'The longest duration is 366d.',
	'99999999999999999999s' => 'The number at "99999999999999999999s" is out of range.',
	'9999999999999999d' => 'The duration is out of range.');
foreach my $schedule (sort keys %schedules)
{
	is( create_error('totals', 'SELECT id FROM orders', 'schedule => ' . sql_literal($schedule)),
		"22023: invalid schedule \"$schedule\"\nDETAIL:  $schedules{$schedule}\n$SCHEDULE_HINT",
		"schedule \"$schedule\" is refused");
}
is( create_error('totals', 'SELECT id FROM orders', 'schedule => NULL'),
	"22004: schedule must not be null\n"
	  . "HINT:  Use 'calculated' for a schedule that follows the stream tables which read this one.",
	'no schedule is refused');
is( create_error('totals', 'SELECT id FROM orders', "refresh_mode => 'FAST'"),
	"22023: invalid refresh mode \"FAST\"\nHINT:  Use 'AUTO', 'DIFFERENTIAL', 'FULL' or 'IMMEDIATE'.",
	'an unknown refresh mode is refused');
like(create_error('totals', 'SELECT id FROM orders', 'refresh_mode => NULL'),
	qr/^22004: /, 'no refresh mode is refused');
is( $node->sql(
		q{SELECT pgtrickle.check_schedule(s) FROM unnest('{" 5S ",1h 30m,Continuous,MANUAL,1w2d3h4m5s6ms}'::text[]) s}
	),
	"5s\n1h30m\ncontinuous\nmanual\n1w2d3h4m5s6ms",
	'schedules are put into a normal form');
is( $node->sql(
		q{SELECT pgtrickle.parse_duration_seconds('1w2h3s'), pgtrickle.parse_duration_seconds('999ms')}
	),
	'612003|0',
	'durations are read');
like(
	$node->psql_error(q{SELECT pgtrickle.parse_duration_seconds('x')}),
	qr/^22023: invalid duration "x"/,
	'or refused');

# --- names -------------------------------------------------------------------------------------------

is( create_error('orders', 'SELECT id FROM orders'),
	"42P07: relation \"public.orders\" already exists\nHINT:  Choose another name, or drop it first.",
	'a taken name is refused');
like(
	create_error('nowhere.totals', 'SELECT id FROM orders'),
	qr/^3F000: schema "nowhere" does not exist/,
	'a missing schema is refused');
like(
	create_error('pgtrickle.totals', 'SELECT id FROM orders'),
	qr/^42939: schema "pgtrickle" cannot hold stream tables/,
	'our schema is reserved');
like(
	create_error('pg_catalog.totals', 'SELECT id FROM orders'),
	qr/^42939: schema "pg_catalog" cannot hold stream tables/,
	'so is that of the server');
like(
	create_error('pg_temp.totals', 'SELECT id FROM orders'),
	qr/^0A000: stream tables cannot be temporary/,
	'stream tables are not temporary');
like(
	create_error('__pgt_totals', 'SELECT id FROM orders'),
	qr/^42939: relation name "__pgt_totals" is reserved/,
	'our prefix is reserved');
like(
	create_error('', 'SELECT id FROM orders'),
	qr/^42602: invalid name syntax/,
	'an empty name is refused');
like(
	create_error('a.b.c', 'SELECT id FROM orders'),
	qr/^0A000: cross-database references/,
	'another database is refused');
like(
	create_error('"unfinished', 'SELECT id FROM orders'),
	qr/^42602: invalid name syntax/,
	'unbalanced quotes are refused');

my $LIST_HINT = 'pgtrickle.pgt_status() lists the stream tables.';
foreach my $call (
	'refresh_stream_table(%s)', 'wait_fresh(%s)',
	'verify(%s)', 'get_staleness(%s)',
	'staleness_seconds(%s)', 'alter_stream_table(%s)',
	'drop_stream_table(%s)', 'pause_stream_table(%s)',
	'resume_stream_table(%s)', 'repair_stream_table(%s)',
	'explain_st(%s)', 'explain_stream_table(%s)', 'index_advice(%s)', 'step_plans(%s)',
	'explain_refresh_mode(%s)', 'list_sources(%s)',
	'get_refresh_history(%s)', 'diagnose_errors(%s)',
	'stream_table_definition(%s)', 'export_definition(%s)',
	'refresh_if_stale(%s)')
{
	my ($function) = $call =~ /^(\w+)/;
	is( $node->psql_error('SELECT pgtrickle.' . sprintf($call, "'sales.nothing'")),
		"42P01: stream table \"sales.nothing\" does not exist\nHINT:  $LIST_HINT",
		"$function: a missing stream table");
	is( $node->psql_error('SELECT pgtrickle.' . sprintf($call, "'sales.regions'")),
		"42809: \"sales.regions\" is not a stream table\nHINT:  $LIST_HINT",
		"$function: an ordinary table");
}
is( $node->psql_error(q{SELECT pgtrickle.refresh_stream_table('regions')}),
	"42P01: stream table \"regions\" does not exist\n"
	  . "HINT:  Name its schema if that is not in search_path; $LIST_HINT",
	'an unqualified name is looked up in search_path');

# --- queries -----------------------------------------------------------------------------------------

like(
	create_error('totals', 'SELEC id FROM orders'),
	qr/^42601: syntax error at or near "SELEC"/,
	'a syntax error is the server\'s own');
like(
	create_error('totals', 'SELECT id FROM nothing'),
	qr/^42P01: relation "nothing" does not exist/,
	'so is a missing table');
like(
	create_error('totals', 'SELECT nothing FROM orders'),
	qr/^42703: column "nothing" does not exist/,
	'so is a missing column');
like(
	create_error('totals', 'SELECT id, random() FROM orders'),
	qr/^0A000: .*random/,
	'a volatile function is named');
like(create_error('totals', 'DELETE FROM orders'),
	qr/^\w{5}: /, 'a statement that is no query is refused');
like(create_error('totals', 'SELECT id FROM orders; SELECT 1'),
	qr/^\w{5}: /, 'two statements are refused');
like(
	create_error('totals', 'SELECT id FROM orders FOR UPDATE'),
	qr/^0A000: .*FOR UPDATE/,
	'row locks are refused');
like($node->psql_error(q{SELECT * FROM pgtrickle.validate_query('SELECT id FROM nothing')}),
	qr/^42P01: /, 'validate_query raises what creation would');
is($node->sql('SELECT count(*) FROM pgtrickle.pgt_definitions'),
	'0', 'nothing of all that was created');

# --- the arguments without effect ----------------------------------------------------------------------

like(
	create_error('totals', 'SELECT id FROM orders', "cdc_mode => 'magic'"),
	qr/^22023: invalid value for argument "cdc_mode": "magic"\nHINT:  Available values: auto, trigger, wal\./,
	'their values are checked');
like(
	create_error('totals', 'SELECT id FROM orders', 'max_delta_fraction => 2'),
	qr/^22023: argument "max_delta_fraction" is out of range: 2/,
	'and their ranges');
my ($rc, $stdout, $stderr) = $node->psql(
	'postgres', q{
	SELECT pgtrickle.create_stream_table('totals', 'SELECT customer, sum(amount) AS total FROM orders GROUP BY customer', '5s', 'AUTO',
		false, 'atomic', NULL, 'wal', true)});
is($rc, 0, 'they are accepted in their old places');
like(
	$stderr,
	qr/NOTICE:  argument "append_only" has no effect/,
	'a notice says which have no effect');
unlike($stderr, qr/diamond_consistency|cdc_mode/, 'but not about what is so anyway');
is( $node->sql(q{SELECT options FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'totals'}),
	'{"cdc_mode": "wal", "append_only": true, "diamond_consistency": "atomic"}',
	'they are recorded');

# --- altering, replacing ----------------------------------------------------------------------------------

is( $node->psql_error(q{SELECT pgtrickle.alter_stream_table('totals', status => 'ASLEEP')}),
	"22023: invalid status \"ASLEEP\"\nHINT:  Use 'ACTIVE' or 'PAUSED'.",
	'an unknown status is refused');
like(
	$node->psql_error(q{SELECT pgtrickle.alter_stream_table('totals', schedule => 'soon')}),
	qr/^22023: invalid schedule "soon"/,
	'so is a bad schedule');
like(
	$node->psql_error(q{SELECT pgtrickle.alter_stream_table('totals', query => 'SELECT nothing')}),
	qr/^42703: column "nothing" does not exist/,
	'and a query that makes no sense');
like(
	$node->psql_error(
		q{SELECT pgtrickle.alter_stream_table('totals', refresh_mode => 'at once')}),
	qr/^22023: invalid refresh mode "at once"/,
	'and a mode that there is not');
$node->sql(
	q{SELECT pgtrickle.alter_stream_table('totals', schedule => '1M', refresh_mode => 'full', status => 'paused')}
);
is( $node->sql(
		'SELECT schedule, refresh_mode, effective_refresh_mode, status FROM pgtrickle.pgt_stream_tables'
	),
	'1m|FULL|FULL|PAUSED',
	'what is right is changed');
$node->sql(q{SELECT pgtrickle.resume_stream_table('totals')});
is($node->sql('SELECT status, needs_reinit FROM pgtrickle.pgt_stream_tables'),
	'INITIALIZING|t', 'resuming leads to a refill');

my $oid = $node->sql(q{SELECT 'totals'::regclass::oid});
$node->sql(
	q{SELECT pgtrickle.create_or_replace_stream_table('totals',
	'select   customer, sum((amount)) total from public.orders group by customer', '2m', 'AUTO')});
is($node->sql(q{SELECT pgt_relid, schedule, refresh_mode FROM pgtrickle.pgt_stream_tables}),
	"$oid|2m|AUTO", 'the same query in other words only changes schedule and mode');
($rc, $stdout, $stderr) = $node->psql('postgres',
	q{SELECT pgtrickle.create_stream_table_if_not_exists('totals', 'SELECT 1')});
like(
	$stderr,
	qr/NOTICE:  stream table "totals" already exists, skipping/,
	'create_stream_table_if_not_exists leaves it alone');
like(
	$node->psql_error(q{SELECT pgtrickle.create_stream_table_if_not_exists('orders', 'SELECT 1')}),
	qr/^42P07: /,
	'but not over an ordinary table');

# --- dropping ---------------------------------------------------------------------------------------------

$node->sql(
	q{SELECT pgtrickle.create_stream_table('big', 'SELECT customer FROM totals WHERE total > 100', initialize => false)}
);
is( $node->psql_error(q{SELECT pgtrickle.drop_stream_table('totals')}),
	"2BP01: stream table public.totals has dependent stream tables: public.big\n"
	  . "HINT:  Use cascade => true to drop them automatically.",
	'a stream table that is read is not dropped');
$node->sql(q{SELECT pgtrickle.drop_stream_table('totals', true)});
is( $node->sql(
		q{SELECT to_regclass('totals'), to_regclass('big'), count(*) FROM pgtrickle.pgt_definitions}
	),
	'||0',
	'but with cascade');

# --- several at once -----------------------------------------------------------------------------------------

is( $node->sql(
		q{SELECT jsonb_path_query_array(pgtrickle.bulk_create(
	'[{"name": "a", "query": "SELECT id, customer FROM orders", "initialize": false},
	  {"name": "b", "query": "SELECT customer FROM a", "schedule": "5s", "initialize": false}]'), '$[*].name')}
	),
	'["a", "b"]',
	'stream tables are created in the order of the array');
my %definitions = (
	'{}' => 'definitions must be a JSON array of objects',
	'[1]' => 'each definition must be an object with "name" and "query"',
	'[{"name": "c"}]' => 'each definition must be an object with "name" and "query"',
	'[{"name": "c", "query": "SELECT 1", "scedule": "5s"}]' =>
	  'unknown key "scedule" in the definition of stream table "c"');
like(
	$node->psql_error('SELECT pgtrickle.bulk_create(' . sql_literal($_) . ')'),
	qr/^22023: \Q$definitions{$_}\E/,
	"refused: $_") foreach sort keys %definitions;
like(
	$node->psql_error(
		q{SELECT pgtrickle.bulk_create('[{"name": "c", "query": "SELECT id FROM orders", "initialize": false}, {"name": "d", "query": "SELECT"}]')}
	),
	qr/^\w{5}: /,
	'one bad definition');
is($node->sql(q{SELECT to_regclass('c')}), '', 'undoes the others');
is($node->sql(q{SELECT pgtrickle.bulk_alter_stream_tables('{a,b}', '{"schedule": "3s"}')}),
	'2', 'several are altered');
is($node->sql('SELECT DISTINCT schedule FROM pgtrickle.pgt_stream_tables'), '3s', 'alike');
like(
	$node->psql_error(q{SELECT pgtrickle.bulk_alter_stream_tables('{a,b}', '{"name": "x"}')}),
	qr/^22023: unknown parameter "name"/,
	'an unknown parameter is refused');
like(
	$node->psql_error(q{SELECT pgtrickle.bulk_drop_stream_tables('{a}')}),
	qr/^2BP01: stream table public.b reads one of these/,
	'not without those that read them');
is($node->sql(q{SELECT pgtrickle.bulk_drop_stream_tables('{a,b}')}),
	'2', 'several are dropped, in whatever order');

# --- settings -------------------------------------------------------------------------------------------------

is( $node->sql(
		q{SELECT pgtrickle.setting('history_retention'), pgtrickle.setting('max_consecutive_errors')}
	),
	'7d|5',
	'settings have their defaults');
like(
	$node->psql_error(
		q{SELECT pgtrickle.version(); SELECT pgtrickle.setting('refresh_timeout'); SET pgtrickle.default_schedule = 'calculated'}
	),
	qr/^22023: invalid value for parameter "pgtrickle.default_schedule": "calculated"/,
	'the default schedule cannot follow others');
like($node->psql_error(q{SELECT pgtrickle.setting('nothing')}),
	qr/^42704: /, 'an unknown setting is refused');

$node->stop;
done_testing();
