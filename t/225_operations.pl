# t/225_operations.pl
#
# Goal: operators can hold refreshes back during a bulk load, drain, keep copies and look after stream tables of others, and no more than that.
# Method: close and open gates under load; drain; snapshots and publications; then try as a reader, an operator, an admin and a stranger what each may
#         and may not.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('operations')->boot;
$node->start_applier;
$node->sql(
	q{SELECT pgtrickle.create_roles(), pgtrickle.create_roles();
	CREATE ROLE owner; CREATE ROLE stranger; CREATE ROLE looker IN ROLE pgtrickle_reader; CREATE ROLE op IN ROLE pgtrickle_operator;
	CREATE ROLE boss IN ROLE pgtrickle_admin; GRANT CREATE ON SCHEMA public TO owner, stranger; GRANT CREATE ON DATABASE postgres TO owner;
	CREATE TABLE src (id int PRIMARY KEY, k int); CREATE TABLE other (id int PRIMARY KEY, k int);
	ALTER TABLE src OWNER TO owner; GRANT SELECT ON other TO owner;
	INSERT INTO src SELECT i, i % 5 FROM generate_series(1, 50) i;
	ALTER TABLE other REPLICA IDENTITY FULL;
	SET ROLE owner;
	SELECT pgtrickle.create_stream_table('counts', 'SELECT k, count(*) AS n FROM src GROUP BY k', 'continuous');
	SELECT pgtrickle.create_stream_table('upper', 'SELECT sum(n) AS s FROM counts', 'continuous');
	SELECT pgtrickle.create_stream_table('others', 'SELECT id, k FROM other', 'continuous')});
$node->refresh('upper');

sub as
{
	my ($role, $sql) = @_;

	return $node->sql("SET ROLE $role; $sql");
}

sub error_as
{
	my ($role, $sql) = @_;

	return $node->psql_error("SET ROLE $role; $sql");
}

# --- gates ----------------------------------------------------------------------------------------------------

as('owner', q{SELECT pgtrickle.gate_source('src')});
is($node->sql('SELECT source_table, schema_name, gated, gated_by FROM pgtrickle.source_gates()'), 'src|public|t|owner', 'a gate is closed');
$node->sql('INSERT INTO src SELECT i, i % 7 FROM generate_series(100, 5000) i; INSERT INTO other VALUES (1, 1)');
$node->wait_fresh('others');
is($node->sql('SELECT count(*) FROM others'), 1, 'what does not read it goes on');
is($node->sql('SELECT s FROM upper'), 50, 'what reads it, or reads what reads it, stands still');
like(error_as('owner', q{SELECT pgtrickle.refresh_stream_table('counts')}), qr/^55000: the gate of a source .*HINT: .*ungate_source/s, 'and says so');
is($node->sql('SELECT affected_stream_tables, gate_duration > $$0$$ FROM pgtrickle.bootstrap_gate_status()'), '1|t', 'how long, and whom it concerns');
$node->kill9_applier;
$node->start_applier;
is($node->sql('SELECT s FROM upper'), 50, 'also after a crash of the applier');
as('owner', q{SELECT pgtrickle.ungate_source('src')});
$node->refresh('upper');
is($node->sql('SELECT s FROM upper'), 4951, 'with the gate open all comes');
$node->verify($_) foreach qw(counts upper others);
$node->sql('DELETE FROM src WHERE id > 4000');
$node->verify('upper', 'and it goes on');
is($node->sql('SELECT gated, ungated_at IS NOT NULL FROM pgtrickle.source_gates()'), 'f|t', 'the gate is open');
like($node->psql_error(q{SELECT pgtrickle.gate_source('pg_class')}), qr/no stream table reads/, 'only what is read has a gate');

# --- draining ----------------------------------------------------------------------------------------------------

$node->sql('INSERT INTO src SELECT i, 1 FROM generate_series(10001, 12000) i');
is($node->sql('SELECT pgtrickle.drain(60)'), 't', 'drained');
is($node->sql('SELECT sum(n) FROM counts'), $node->sql('SELECT count(*) FROM src'), 'all that was committed is in');
is($node->sql('SELECT pgtrickle.drain(60)'), 't', 'when nobody writes, too');
$node->stop_applier;
is($node->sql('SELECT pgtrickle.drain(0), pgtrickle.is_drained()'), 'f|f', 'without an applier nothing drains');
$node->start_applier;

# --- snapshots and publications ---------------------------------------------------------------------------------------

my $snapshot = as('owner', q{SELECT pgtrickle.snapshot_stream_table('counts')});
as('owner', q{SELECT pgtrickle.snapshot_stream_table('counts', '"Odd name"')});
is($node->sql(qq{SELECT count(*) FROM (TABLE counts EXCEPT TABLE $snapshot) x}), 0, 'a snapshot has the same rows');
is(as('owner', q{SELECT count(*), min(row_count), bool_and(frontier->>'lsn' IS NOT NULL), max(snapshot_table) FROM pgtrickle.list_snapshots('counts')}),
	"2|7|t|$snapshot", 'they are listed');
as('stranger', q[CREATE TABLE nonsense (); COMMENT ON TABLE nonsense IS '{"pgtrickle_snapshot_of": oh']);
is(as('owner', q{SELECT count(*) FROM pgtrickle.list_snapshots('counts')}), 2, 'comments of others do no harm');
like(error_as('owner', q{SELECT pgtrickle.drop_snapshot('src')}), qr/is not a snapshot/, 'nothing else is dropped');
as('owner', qq{SELECT pgtrickle.drop_snapshot('$snapshot'), pgtrickle.drop_snapshot('"Odd name"')});
is(as('owner', q{SELECT count(*) FROM pgtrickle.list_snapshots('counts')}), 0, 'they are dropped');
as('owner', q{SELECT pgtrickle.stream_table_to_publication('counts')});
is($node->sql('SELECT pubname, tablename FROM pg_publication_tables'), 'pgt_publication_1|counts', 'a publication');
as('owner', q{SELECT pgtrickle.drop_stream_table_publication('counts')});
is($node->sql('SELECT count(*) FROM pg_publication'), 0, 'is gone again');

# --- who may what ----------------------------------------------------------------------------------------------------------

my $id = $node->sql(q{SELECT pgt_id FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'counts'});
my %calls = (
	see => 'SELECT 1 / count(*) FROM pgtrickle.pgt_stream_tables',
	pause => q{SELECT pgtrickle.pause_stream_table('counts'), pgtrickle.resume_stream_table('counts')},
	repair => q{SELECT pgtrickle.repair_stream_table('counts')},
	gate => q{SELECT pgtrickle.gate_source('other'), pgtrickle.ungate_source('other')},
	schedule => q{SELECT pgtrickle.alter_stream_table('counts', schedule => '1s'), pgtrickle.alter_stream_table('counts', schedule => 'continuous')},
	query => q{SELECT pgtrickle.alter_stream_table('counts', query => 'SELECT k, 1::bigint AS n FROM src')},
	redefine => qq{SELECT pgtrickle.redefine_stream_table($id, 'SELECT 1', '1s', 'AUTO', '{}')},
	read => 'SELECT count(*) FROM counts',
	explain => q{SELECT count(*) FROM pgtrickle.verify('counts')},
	drop => q{SELECT pgtrickle.drop_stream_table('counts', true)},
	drop_table => 'DROP TABLE counts',
	catalog => 'SELECT count(*) FROM pgtrickle.pgt_definitions',
	state => 'SELECT count(*) FROM pgtrickle.pgt_state_1_1',
	message => q{SELECT pgtrickle.emit_message('refresh 0 x', false, true)},
	gates => 'SELECT count(*) FROM pgtrickle.pgt_source_gates',
	apply => qq{SELECT pgtrickle.apply_change($id, '{"status": "PAUSED"}', true)},
	take_over => qq{SELECT pgtrickle.take_over_definition($id, $id, 1)},
	apply_gate => q{SELECT pgtrickle.apply_gate('src'::regclass, true, 'x')});
my %may = (
	stranger => [],
	looker => ['see'],
	op => [qw(see pause repair gate)],
	boss => [qw(see pause repair gate schedule)]);
foreach my $role (sort keys %may)
{
	foreach my $call (sort keys %calls)
	{
		my $said = error_as($role, $calls{$call});
		if (grep { $_ eq $call } @{ $may{$role} })
		{
			is($said, '', "$role may $call");
		}
		else
		{
			like($said, $call eq 'see' ? qr/^22012/ : qr/^42501/, "$role may not $call");
		}
	}
}
is(as('op', 'SELECT pgtrickle.pause_all(), pgtrickle.resume_all()'), '3|3', 'an operator pauses and resumes all');
is(as('stranger', 'SELECT pgtrickle.pause_all(), pgtrickle.resume_all()'), '0|0', 'a stranger none');
$node->verify($_) foreach qw(counts upper others);

# Whatever runs with the rights of the extension's owner is for the applier or event triggers, is reviewed, and named here.
is( $node->sql(
		q{SELECT string_agg(proname, ' ' ORDER BY proname) FROM pg_proc WHERE pronamespace = 'pgtrickle'::regnamespace AND prosecdef
		AND proname !~ '^(applier|tick)_'}
	),
	'consumers_of on_ddl_command_end on_sql_drop on_table_rewrite program_report prune_history waits_in_spool',
	'SECURITY DEFINER: what there is');
is( $node->sql(
		q{SELECT string_agg(proname, ' ' ORDER BY proname) FROM pg_proc WHERE pronamespace = 'pgtrickle'::regnamespace AND prosecdef
		AND NOT coalesce(proconfig, '{}') @> '{"search_path=pg_catalog, pg_temp"}'}
	),
	'',
	'all of it with a search_path of its own');
is( $node->sql(
		q{SELECT string_agg(proname, ' ' ORDER BY proname) FROM pg_proc WHERE pronamespace = 'pgtrickle'::regnamespace AND prosecdef
		AND has_function_privilege('stranger', oid, 'EXECUTE')}
	),
	'consumers_of waits_in_spool',
	'only the names of consumers, and whether the spool holds something, are for everybody');

done_testing();
