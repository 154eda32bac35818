# t/043_api_reference.pl
#
# Goal: the reference names every function, view and setting with its real arguments and columns, and every object keeps the rules
# of the house: a comment, a fixed search_path, no rights that nobody meant to give.
# Method: compare docs/reference/sql.md with the catalog of a fresh installation.
use strict;
use warnings FATAL => 'all';

use File::Basename qw(dirname);
use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('reference')->boot(setup => 'extension');
my $reference = slurp_file(dirname(__FILE__) . '/../docs/reference/sql.md');
my %named = map { $_ => 1 } $reference =~ /`([a-z_.0-9]+)(?:\([^`]*\))?`/g;

sub list
{
	return split /\n/, $node->sql($_[0]);
}

# --- everything is named ------------------------------------------------------------------------------

my @functions = list(
	q{SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'pgtrickle'::regnamespace ORDER BY 1}
);
cmp_ok(scalar @functions, '>', 90, 'the functions are there');
is(join(' ', grep { !$named{$_} } @functions), '', 'every function is in the reference');
is( join(
		' ',
		grep { !$named{$_} } list(
			q{SELECT relname FROM pg_class WHERE relnamespace = 'pgtrickle'::regnamespace AND relkind IN ('r', 'v', 'm', 'p')}
		)),
	'',
	'every table and view is in the reference');
is( join(' ',
		grep { !$named{$_} }
		  list(q{LOAD 'pgtrickle'; SELECT name FROM pg_settings WHERE name LIKE 'pgtrickle.%'})),
	'',
	'every setting is in the reference');

# --- what is named is there ---------------------------------------------------------------------------------

my %settings =
  map { split /\|/, $_, 2 }
  list(
	q{LOAD 'pgtrickle'; SELECT name, current_setting(name) FROM pg_settings WHERE name LIKE 'pgtrickle.%'}
  );
my %documented_settings = $reference =~ /^\| `(pgtrickle\.\w+)` \| `([^`]+)` \|/mg;
$settings{'pgtrickle.refresh_timeout'} =~ s/^1min$/60s/;
is_deeply(\%documented_settings, \%settings, 'settings have the defaults that the reference says');

my %views = $reference =~ /^\| `(\w+)` \| ((?:all of `\w+`, )?\w+, [\w, ]+) \|$/mg;
foreach my $view (
	list(
		q{SELECT relname FROM pg_class WHERE relnamespace = 'pgtrickle'::regnamespace AND relkind = 'v'
	AND has_table_privilege('pg_monitor', oid, 'SELECT') ORDER BY 1}))
{
	my $columns = $views{$view} // '(not there)';
	$columns =~ s/all of `(\w+)`/$views{$1}/;
	is( $columns,
		$node->sql(
			"SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute
		WHERE attrelid = 'pgtrickle.$view'::regclass AND attnum > 0"),
		"view $view has the columns that the reference says");
}

# Headings read: `name(arguments)` → result, `other(...)` → result
my @headings;
foreach my $line ($reference =~ /^###+ (`.*)$/mg)
{
	while ($line =~ /`(\w+)\(([^)]*)\)` → (table \((?:[^()]|\([^)]*\))*\)|[\w ]+)/g)
	{
		push @headings, { name => $1, arguments => $2, result => $3 };
	}
}
cmp_ok(scalar @headings, '>', 40, 'the reference has a heading for each public function');
foreach my $heading (@headings)
{
	my ($arguments, $result) = split /\|/, $node->sql(
		qq{
		SELECT pg_get_function_arguments(oid), pg_get_function_result(oid) FROM pg_proc
		WHERE pronamespace = 'pgtrickle'::regnamespace AND proname = '$heading->{name}'}),
	  2;
	if (!defined $arguments)
	{
		fail("function $heading->{name} exists");
		next;
	}
	(my $real_names = join ',', map { /^\s*(\w+)/ } split /,/, $arguments) =~ s/\s//g;
	(my $said_names = join ',', map { /^\s*(\w+)/ } split /,/, $heading->{arguments}) =~ s/\s//g;
	$real_names = substr($real_names, 0, length $said_names) if $heading->{arguments} =~ /…/;
	is($said_names, $real_names, "$heading->{name}: arguments");
	is(column_names($heading->{result}), column_names($result), "$heading->{name}: result");
}

sub column_names
{
	my ($result) = @_;

	return lc $result if $result !~ /^table\s*\((.*)\)$/i;
	return join ',', map { /^\s*(\w+)/ } split /,/, $1;
}

# What operators know from elsewhere is here, or the reference says why not.
my %exists = map { $_ => 1 } @functions;
my ($left_out) = $reference =~ /^## Compatibility\n(.*)/ms;
is( join(
		' ',
		grep { !$exists{$_} && $left_out !~ /`$_`/ }
		  qw(bulk_create bulk_alter_stream_tables bulk_drop_stream_tables resume_stream_table pause_all resume_all repair_stream_table set_stream_table_sla
		  recommend_schedule schedule_recommendations export_definition stream_table_definition stream_table_spec snapshot_stream_table restore_from_snapshot
		  list_snapshots drop_snapshot stream_table_to_publication drop_stream_table_publication refresh_if_stale write_and_refresh reset_fuse drain is_drained
		  pause_scheduler resume_scheduler create_refresh_group drop_refresh_group refresh_groups health_summary refresh_timeline st_refresh_stats pgtrickle_refresh_stats sla_summary
		  refresh_efficiency fuse_status metrics_summary reliability_counters cache_stats dedup_stats scheduler_overhead cluster_worker_summary preflight version
		  version_check explain_delta explain_diff_sql explain_stream_table explain_query_rewrite diagnose_errors recommend_refresh_mode list_auxiliary_columns
		  stream_table_lineage st_auto_threshold explain_dag check_cdc_health slot_health change_buffer_sizes wal_source_status gate_source ungate_source
		  source_gates bootstrap_gate_status parse_duration_seconds restore_stream_tables)),
	'',
	'what is not here is named, with a reason');

# --- the rules of the house ------------------------------------------------------------------------------------

is( $node->sql(
		q{SELECT string_agg(oid::regprocedure::text, E'\n') FROM pg_proc
	WHERE pronamespace = 'pgtrickle'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL}),
	'',
	'every function has a comment');
is( $node->sql(
		q{SELECT string_agg(relname, E'\n') FROM pg_class
	WHERE relnamespace = 'pgtrickle'::regnamespace AND relkind = 'v' AND obj_description(oid, 'pg_class') IS NULL}
	),
	'',
	'every view has a comment');
is( $node->sql(
		q{SELECT string_agg(oid::regprocedure::text, E'\n') FROM pg_proc
	WHERE pronamespace = 'pgtrickle'::regnamespace AND prosecdef AND NOT coalesce(proconfig, '{}') @> '{"search_path=pg_catalog, pg_temp"}'}
	),
	'',
	'every SECURITY DEFINER function has a fixed search_path');
is( $node->sql(
		q{SELECT string_agg(oid::regprocedure::text, E'\n') FROM pg_proc
	WHERE pronamespace = 'pgtrickle'::regnamespace AND prosecdef AND has_function_privilege('pg_monitor', oid, 'EXECUTE')
	AND proname NOT IN ('consumers_of', 'waits_in_spool', 'stands_still', 'copies_read_by', 'remote_freshness', 'remote_waited_for', 'has_all_rows')}),
	'',
	'nobody but the applier may call them, but for three that views call');
# Without a search_path of their own only those that resolve a name for their caller, which hold no operators.
is( $node->sql(
		q{SELECT string_agg(p.oid::regprocedure::text, E'\n') FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
	WHERE pronamespace = 'pgtrickle'::regnamespace AND l.lanname IN ('sql', 'plpgsql') AND proconfig IS NULL
	AND regexp_replace(prosrc, $$'[^']*'|:=|=>|\*(?= FROM)|--[^\n]*$$, '', 'g') ~ '[-+*/<>=~!@#%^&|`?]'}
	),
	'',
	'functions that use the caller\'s search_path contain no operators');
is( $node->sql(
		q{SELECT string_agg(relname, E'\n') FROM pg_class WHERE relnamespace = 'pgtrickle'::regnamespace AND relkind = 'v'
	AND has_table_privilege('pg_monitor', oid, 'SELECT') AND relname <> 'pgt_applier' AND NOT coalesce(reloptions, '{}') @> '{security_barrier=true}'}
	),
	'',
	'views that hide rows are security barriers');

# The catalog's tables are never analyzed, and small: a plan that looks dear is compiled to machine code for half a second.
is( join(
		' ',
		grep {
			my ($cost) = $node->sql("EXPLAIN SELECT * FROM pgtrickle.$_") =~ /cost=[\d.]+\.\.([\d.]+)/;
			$cost >= 100_000
		} list(q{SELECT relname FROM pg_class WHERE relnamespace = 'pgtrickle'::regnamespace AND relkind = 'v'})),
	'',
	'no view is dear enough to be compiled');

$node->stop;
done_testing();
