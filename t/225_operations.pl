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

# --- reports ---------------------------------------------------------------------------------------------------------

is($node->sql(q{SELECT (pgtrickle.preflight()::jsonb)->>'ok'}), 'true', 'nothing is critical');
is($node->sql(q{SELECT count(*), bool_and(refresh_count > 0 AND p99_ms >= p95_ms AND avg_ms > 0) FROM pgtrickle.pgtrickle_refresh_stats()}), '3|t', 'how long refreshes took');
is(as('owner', q{SELECT s->>'schedule', jsonb_array_length(s->'columns'), s#>>'{sources,0,name}' FROM pgtrickle.stream_table_spec('counts') s}), 'continuous|2|src', 'a definition as JSON');
like(as('owner', q{SELECT pgtrickle.explain_diff_sql('counts')}), qr/^-- step 1.*SELECT.*__w/s, 'a program as SQL');
like(error_as('stranger', q{SELECT pgtrickle.stream_table_spec('counts')}), qr/^42501/, 'for those who may read it');

# --- snapshots and publications ---------------------------------------------------------------------------------------

my $snapshot = as('owner', q{SELECT pgtrickle.snapshot_stream_table('counts')});
as('owner', q{SELECT pgtrickle.snapshot_stream_table('counts', '"Odd name"')});
is($node->sql(qq{SELECT count(*) FROM (TABLE counts EXCEPT TABLE $snapshot) x}), 0, 'a snapshot has the same rows');
is(as('owner', q{SELECT count(*), min(row_count), bool_and(frontier->>'lsn' IS NOT NULL), max(snapshot_table) FROM pgtrickle.list_snapshots('counts')}),
	"2|7|t|$snapshot", 'they are listed');
as('stranger', q[CREATE TABLE nonsense (); COMMENT ON TABLE nonsense IS '{"pgtrickle_snapshot_of": oh']);
is(as('owner', q{SELECT count(*) FROM pgtrickle.list_snapshots('counts')}), 2, 'comments of others do no harm');
like(error_as('owner', q{SELECT pgtrickle.drop_snapshot('src')}), qr/is not a snapshot/, 'nothing else is dropped');
$node->sql('INSERT INTO src SELECT i, 77 FROM generate_series(20001, 20100) i');
$node->refresh('upper');
my $bad = $node->sql('SELECT string_agg(k || $$:$$ || n, $$ $$ ORDER BY k) FROM counts');
like(error_as('stranger', qq{SELECT pgtrickle.restore_from_snapshot('counts', '$snapshot')}), qr/^42501/, 'nobody else puts a snapshot back');
like(error_as('op', qq{SELECT pgtrickle.restore_from_snapshot('counts', '$snapshot')}), qr/^42501/, 'nor an operator');
like(error_as('owner', q{SELECT pgtrickle.restore_from_snapshot('counts', 'src')}), qr/^42809: "public.src" is not a snapshot of stream table "public.counts"/, 'only a snapshot of it');
like(error_as('owner', qq{SELECT pgtrickle.restore_from_snapshot('upper', '$snapshot')}), qr/is not a snapshot of stream table "public.upper"/, 'of it, not of another');
like(error_as('owner', qq{SELECT pgtrickle.put_rows(1, '$snapshot'::regclass)}), qr/^55000: .*is not paused/, 'and not while it is followed');
as('owner', qq{BEGIN; SELECT pgtrickle.restore_from_snapshot('counts', '$snapshot'); ROLLBACK});
$node->verify('counts', 'rolled back, nothing has happened');
my $reader = $node->background_psql('postgres', on_error_stop => 1);
$reader->query_safe('BEGIN; SELECT count(*) FROM counts');
as('owner', qq{SELECT pgtrickle.restore_from_snapshot('counts', '$snapshot')});
$reader->query_safe('COMMIT');
$reader->quit;
is($node->sql(qq{SELECT count(*) FROM (TABLE counts EXCEPT ALL TABLE $snapshot) x}), 0, 'who wants to reads the rows of the snapshot again');
is($node->sql(qq{SELECT count(*) FROM (TABLE $snapshot EXCEPT ALL TABLE counts) x}), 0, 'all of them');
is($node->sql(q{SELECT status, needs_reinit, data_timestamp < now() - interval '1 ms' FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'counts'}),
	'PAUSED|t|t', 'it is paused, and says how old they are');
$node->sql('INSERT INTO src VALUES (30001, 1), (30002, 78)');
is($node->sql('SELECT count(*) FROM counts WHERE k = 78'), 0, 'nothing moves');
$node->kill9_applier;
$node->start_applier;
as('owner', q{SELECT pgtrickle.resume_stream_table('counts')});
$node->refresh('upper');
is($node->sql('SELECT count(*) FROM counts WHERE k IN (77, 78)'), 2, 'resumed, it is up to date');
$node->verify($_, "$_ after the snapshot") foreach qw(counts upper);
$node->sql('DELETE FROM src WHERE id > 20000; UPDATE src SET k = k + 1 WHERE id < 5');
$node->verify($_, "$_ goes on") foreach qw(counts upper);
as('owner', q{SELECT pgtrickle.alter_stream_table('counts', query => 'SELECT k, count(*)::int AS n FROM src GROUP BY k')});
like(error_as('owner', qq{SELECT pgtrickle.restore_from_snapshot('counts', '$snapshot')}), qr/^42804: .*does not have column "n"/, 'with other columns a snapshot does not fit any more');
as('owner', q{SELECT pgtrickle.alter_stream_table('counts', query => 'SELECT k, count(*) AS n FROM src GROUP BY k')});
as('owner', qq{SELECT pgtrickle.drop_snapshot('$snapshot'), pgtrickle.drop_snapshot('"Odd name"')});
is(as('owner', q{SELECT count(*) FROM pgtrickle.list_snapshots('counts')}), 0, 'they are dropped');
as('owner', q{SELECT pgtrickle.stream_table_to_publication('counts')});
is($node->sql('SELECT pubname, tablename FROM pg_publication_tables'), 'pgt_publication_1|counts', 'a publication');
as('owner', q{SELECT pgtrickle.drop_stream_table_publication('counts')});
is($node->sql('SELECT count(*) FROM pg_publication'), 0, 'is gone again');

# --- groups -----------------------------------------------------------------------------------------------------------------

as('owner', q{SELECT pgtrickle.create_stream_table('quick', 'SELECT sum(id) AS s FROM src', 'continuous');
	SELECT pgtrickle.create_stream_table('late', 'SELECT sum(id) + 0 AS s FROM src', 'manual')});
$node->sql('UPDATE src SET id = id + 100000 WHERE id < 5');
$node->wait_fresh('quick');
is($node->sql('SELECT q.s = l.s FROM quick q, late l'), 'f', 'by their schedules they differ');
like(as('owner', q{SELECT pgtrickle.create_refresh_group('both', '{quick,late}')}), qr/^\d+$/, 'a group');
is($node->sql('SELECT group_name, member_count, isolation FROM pgtrickle.refresh_groups()'), 'both|2|read_committed', 'is listed');
$node->sql('UPDATE src SET id = id + 100000 WHERE id < 10');
$node->wait_fresh('quick');
is($node->sql('SELECT q.s = l.s FROM quick q, late l'), 't', 'now they move together');
my $group_writer = $node->background_psql('postgres', on_error_stop => 1);
my $apart = 0;
foreach my $round (1 .. 40)
{
	$group_writer->query_safe("INSERT INTO src VALUES (300000 + $round, 1)");
	$apart++ if $node->sql('SELECT q.s = l.s FROM quick q, late l') ne 't';
}
$group_writer->quit;
is($apart, 0, 'whenever one looks');
is($node->sql(q{SELECT count(DISTINCT frontier->>'snapshot') FROM pgtrickle.pgt_stream_tables WHERE pgt_name IN ('quick', 'late')}), 1, 'at one snapshot');
$node->kill9_applier;
$node->sql('INSERT INTO src VALUES (400000, 1)');
$node->start_applier;
$node->wait_fresh('quick');
is($node->sql('SELECT q.s = l.s FROM quick q, late l'), 't', 'also after a crash of the applier');
# the failure of one holds back the others, until it is given up
$node->sql('ALTER TABLE late ADD CONSTRAINT small CHECK (s < 100000000)');
my $held = $node->sql('SELECT s FROM quick');
$node->sql('INSERT INTO src VALUES (200000000, 1)');
$node->wait_until(q{SELECT consecutive_errors > 0 FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'late'}, 'one fails');
is($node->sql('SELECT s FROM quick'), $held, 'the other waits for it');
as('owner', q{SELECT pgtrickle.pause_stream_table('late')});
$node->wait_fresh('quick');
is($node->sql('SELECT s > 200000000 FROM quick'), 't', 'but not for one that is stopped');
$node->sql('ALTER TABLE late DROP CONSTRAINT small');
as('owner', q{SELECT pgtrickle.resume_stream_table('late')});
$node->sql('DELETE FROM src WHERE id >= 200000000');
$node->refresh('late');
$node->verify($_, "$_ is right") foreach qw(quick late);
like(error_as('owner', q{SELECT pgtrickle.create_refresh_group('both', '{counts}')}), qr/^42710/, 'a name is taken once');
like(error_as('owner', q{SELECT pgtrickle.create_refresh_group('more', '{counts,late}')}), qr/^55000: .*"public.late" is in a refresh group already/, 'a stream table is in one group');
like(error_as('owner', q{SELECT pgtrickle.create_refresh_group('more', '{counts}', 'serializable')}), qr/^22023/, 'an isolation that is none');
like(error_as('stranger', q{SELECT pgtrickle.create_refresh_group('more', '{counts}')}), qr/^42501/, 'groups are for owners');
like(error_as('op', q{SELECT pgtrickle.create_refresh_group('more', '{counts}')}), qr/^42501/, 'not for operators');
like(error_as('stranger', q{SELECT pgtrickle.drop_refresh_group('both')}), qr/^42704/, 'nor can others dissolve them');
is($node->sql('SELECT count(*) FROM pgtrickle.refresh_groups()'), 1, 'and nothing has changed');
as('owner', q{SELECT pgtrickle.drop_refresh_group('both'); SELECT pgtrickle.create_refresh_group('again', '{late}')});
is($node->sql('SELECT group_name FROM pgtrickle.refresh_groups()'), 'again', 'dissolved, they can be in another one');
as('owner', 'DROP TABLE quick, late');
is($node->sql('SELECT count(*) FROM pgtrickle.refresh_groups()'), 0, 'which goes with the last of them');

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
		AND proname !~ '^(applier|tick|remote|copy)_'}
	),
	'add_remote alter_remote consumers_of copies_read_by drop_copy drop_copy_schema drop_remote has_all_rows on_ddl_command_end on_sql_drop on_table_rewrite on_unbound pause_remote program_report'
	  . ' prune_history recopy resume_remote standing_upstream stands_still waits_in_spool',
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
	'consumers_of copies_read_by has_all_rows remote_freshness remote_waited_for stands_still waits_in_spool',
	'only the names of consumers, and whether something is in the way of being fresh, are for everybody');

done_testing();
