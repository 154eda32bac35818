# t/041_api_privileges.pl
#
# Goal: an ordinary role can neither see nor disturb stream tables that are not its own, nor act as the applier.
# Method: three owners and a stranger; every function of the extension is called as the stranger, by whatever rights it has.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster qw(sql_literal);
use Test::More;

my $node = StreamTables::Cluster->new('privileges')->boot(setup => 'extension');
$node->sql(
	q{
	CREATE ROLE alice; CREATE ROLE bob; CREATE ROLE team; CREATE ROLE carol IN ROLE team;
	CREATE ROLE watcher IN ROLE pg_monitor; CREATE ROLE mover;
	GRANT CREATE ON SCHEMA public TO alice, bob, team;
	SET ROLE alice;
	CREATE TABLE secrets (id int PRIMARY KEY, v text);
	INSERT INTO secrets VALUES (1, 'hidden');
	SELECT pgtrickle.create_stream_table('mine', 'SELECT v, count(*) AS n FROM secrets GROUP BY v', '5s', initialize => false);
	RESET ROLE;
	SET ROLE team;
	CREATE TABLE notes (id int PRIMARY KEY);
	SELECT pgtrickle.create_stream_table('ours', 'SELECT id FROM notes', '5s', initialize => false);
});
my $id = $node->sql(q{SELECT pgt_id FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'mine'});

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

is($node->sql(q{SELECT relowner::regrole FROM pg_class WHERE relname = 'mine'}),
	'alice', 'the creator owns the stream table');

# --- owner, member of the owner, stranger, monitor, superuser -----------------------------------------------

my $my_error = qr/^42501: must be owner of stream table "public.mine"/;
foreach my $call (
	q{alter_stream_table('mine', schedule => '1m')},
	q{pause_stream_table('mine')},
	q{resume_stream_table('mine')},
	q{repair_stream_table('mine')},
	q{refresh_stream_table('mine')},
	q{refresh_if_stale('mine')},
	q{drop_stream_table('mine')},
	q{drop_stream_table('mine', true)},
	q{bulk_alter_stream_tables('{mine}', '{}')},
	q{bulk_drop_stream_tables('{mine}')},
	qq{change_definition($id, '{"schedule": "1m"}')},
	q{stream_table_id('mine')},
	q{create_or_replace_stream_table('mine', 'SELECT 1 AS one')})
{
	like(error_as('bob', "SELECT pgtrickle.$call"), $my_error, "a stranger cannot call $call");
}
my $see_error = qr/^42501: permission denied for table public.mine/;
foreach my $call (
	'explain_st', 'explain_stream_table', 'index_advice', 'step_plans',
	'explain_refresh_mode', 'list_sources',
	'get_refresh_history', 'diagnose_errors',
	'stream_table_definition', 'export_definition',
	'get_staleness', 'staleness_seconds',
	'verify', 'verify_answer',
	'wait_fresh', 'stream_table_id_to_see')
{
	like(error_as('bob', "SELECT pgtrickle.$call('mine')"), $see_error, "nor $call");
}
is(as('bob', qq{SELECT count(*) FROM (SELECT pgtrickle.$_) x}), '0', "nor learn anything from $_")
  foreach (
	"state_by_id($id)", "modes_by_id($id)", "sources_by_id($id)",
	"history_by_id($id, 10)", "errors_by_id($id)", "staleness_by_id($id)",
	"definition_to_change($id)", 'dependency_tree()', 'pgt_status()',
	'refresh_timeline()', 'st_refresh_stats()', 'refresh_efficiency()',
	'verify_all()', 'check_cdc_health()');
is(as('bob', "SELECT pgtrickle.definition_by_id($id)"), '', 'nor from definition_by_id');
is(as('bob', "SELECT count(*) FROM pgtrickle.$_"), '0', "nor from the view $_")
  foreach (
	'pgt_stream_tables', 'pg_stat_stream_tables', 'stream_tables_info',
	'pgt_dependencies', 'pgt_refresh_history', 'pgt_freshness');
is(as('bob', 'SELECT total_stream_tables, status FROM pgtrickle.quick_health'),
	'0|EMPTY', 'nor from quick_health');
is(as('bob', 'SELECT pgtrickle.pause_all(), pgtrickle.resume_all()'),
	'0|0', 'pause_all leaves the tables of others alone');
like(error_as('bob', "SELECT pgtrickle.drop_by_id($id, true)"),
	qr/^P0002/, 'drop_by_id does not find what the caller may not see');
like(error_as('bob', qq{SELECT pgtrickle.replace_definition($id, 'SELECT 1', '{"schedule": "1s", "refresh_mode": "AUTO", "options": {}}')}),
	qr/^42501: must be owner of stream table/, 'nor does replace_definition change it');
like(error_as('bob', qq{SELECT pgtrickle.redefine_stream_table($id, 'SELECT 1', '1s', 'AUTO', '{}')}),
	qr/^42501: must be owner of stream table/, 'nor redefine_stream_table');
is(as('bob', "SELECT pgtrickle.drop_ids('{$id}'); SELECT to_regclass('mine')"),
	"1\nmine", 'nor drop_ids');
is(as('bob', 'SELECT count(*) FROM pgtrickle.pgt_applier'),
	'1', 'whether there is an applier is no secret');
like(error_as('bob', 'DROP TABLE mine'), qr/^42501/, 'and DROP TABLE does not work either');

is(as('carol', q{SELECT name FROM pgtrickle.pgt_status()}),
	'public.ours', 'a member of the owning role sees the stream table');
as('carol', q{SELECT pgtrickle.alter_stream_table('ours', schedule => '1m')});
is(as('carol', 'SELECT schedule FROM pgtrickle.pgt_stream_tables'), '1m', 'and may alter it');
is(as('watcher', 'SELECT count(*) FROM pgtrickle.pgt_stream_tables'), '2', 'pg_monitor sees all');
like(error_as('watcher', q{SELECT pgtrickle.alter_stream_table('mine', schedule => '1m')}),
	$my_error, 'but may not alter them');

# --- readers ------------------------------------------------------------------------------------------------

$node->sql("SELECT pgtrickle.applier_failed($id, '22012', 'division by zero in row hidden', 1000)");
$node->sql('GRANT SELECT ON mine TO bob');
is(as('bob', q{SELECT name FROM pgtrickle.pgt_status()}),
	'public.mine', 'SELECT on the stream table lets its status be seen');
is(as('bob', q{SELECT error_type, error_message FROM pgtrickle.diagnose_errors('mine')}),
	'22012|', 'but not what an error said');
is(as('bob', q{SELECT last_error_message FROM pgtrickle.pgt_stream_tables}), '', 'not even there');
is( as('alice', q{SELECT error_message FROM pgtrickle.diagnose_errors('mine')}),
	'division by zero in row hidden',
	'which its owner sees');
is( as( 'watcher',
		q{SELECT last_error_message FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'mine'}),
	'division by zero in row hidden',
	'and pg_monitor');
like(as('bob', q{SELECT string_agg(property, ',') FROM pgtrickle.explain_st('mine')}),
	qr/step 1/, 'a reader may have it explained');
like(error_as('bob', q{SELECT pgtrickle.pause_stream_table('mine')}), $my_error,
	'but not alter it');

# --- what nobody but the applier may call ---------------------------------------------------------------------

my $internal = $node->sql(
	q{
	SELECT string_agg(oid::regprocedure::text, E'\n' ORDER BY oid) FROM pg_proc
	WHERE pronamespace = 'pgtrickle'::regnamespace AND proname ~ '^(applier_|tick_|fence$|grant_|revoke_|emit_|on_|apply_|prune_|program_|definitions_changed|tell_|rebound_|refuse_|former_|ddl_)'
		AND proname <> 'applier_functions'});
foreach my $function (split /\n/, $internal)
{
	is($node->sql("SELECT has_function_privilege('bob', '$function', 'EXECUTE')"),
		'f', "not for everybody: $function");
}
is( $node->sql(
		q{SELECT string_agg(relname, ' ') FROM pg_class WHERE relnamespace = 'pgtrickle'::regnamespace AND relkind IN ('r', 'S')
	AND has_table_privilege('bob', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')}),
	'',
	'tables of the extension are closed');
is( $node->sql(
		q{SELECT string_agg(relname, ' ') FROM pg_class WHERE relnamespace = 'pgtrickle'::regnamespace AND relkind = 'v'
	AND has_table_privilege('bob', oid, 'INSERT, UPDATE, DELETE, TRUNCATE')}),
	'',
	'its views cannot be written');
like(error_as('bob', 'CREATE TABLE pgtrickle.x (a int)'),
	qr/^42501/, 'nor can anything be put into its schema');

$node->sql(q{SELECT pgtrickle.grant_applier('mover')});
is(as('mover', 'SELECT count(*) FROM pgtrickle.applier_catalog()'),
	'2', 'grant_applier lets a role act as the applier');
as('mover',
	q{SELECT pgtrickle.applier_started('s', NULL), pgtrickle.fence('nonce'), pgtrickle.applier_heartbeat('0/1', '0/1')}
);
as('mover',
		'BEGIN ISOLATION LEVEL REPEATABLE READ; LOCK TABLE '
	  . as('mover', "SELECT pgtrickle.tick_lock_list('{$id}')")
	  . ' IN ACCESS SHARE MODE; COMMIT');
pass('and lock the sources');
like(error_as('mover', q{SELECT pgtrickle.grant_applier('bob')}),
	qr/^42501/, 'but not make others so');
like(error_as('mover', q{SELECT pgtrickle.alter_stream_table('mine', schedule => '1m')}),
	$my_error, 'nor alter stream tables');
like(error_as('mover', 'SELECT * FROM pgtrickle.pgt_definitions; INSERT INTO secrets VALUES (2)'),
	qr/^42501/, 'nor write');
$node->sql(q{SELECT pgtrickle.revoke_applier('mover')});
like(error_as('mover', 'SELECT pgtrickle.applier_catalog()'),
	qr/^42501/, 'revoke_applier takes that back');

# --- creating -------------------------------------------------------------------------------------------------

like(
	error_as('bob', q{SELECT pgtrickle.create_stream_table('theirs', 'SELECT v FROM secrets')}),
	qr/^42501: permission denied for table secrets/,
	'sources need SELECT');
like(
	error_as('watcher', q{SELECT pgtrickle.create_stream_table('theirs', 'SELECT 1 AS one')}),
	qr/^42501: permission denied for schema public/,
	'and the schema CREATE');

# --- traps: search_path, bad values through internal functions, other people's functions --------------------------

as( 'bob', q{
	CREATE TABLE own (id int PRIMARY KEY);
	CREATE FUNCTION public.trap(oid, int) RETURNS boolean LANGUAGE plpgsql AS $$
		BEGIN RAISE 'trapped as %', current_user; END $$;
	CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = int, FUNCTION = public.trap);
	CREATE FUNCTION public.trap(text, text) RETURNS boolean LANGUAGE plpgsql AS $$
		BEGIN RAISE 'trapped as %', current_user; END $$;
	CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = text, FUNCTION = public.trap);
	CREATE OPERATOR public.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = public.trap);
	CREATE FUNCTION public.format(text, text, text) RETURNS text LANGUAGE plpgsql AS $$
		BEGIN RAISE 'trapped as %', current_user; END $$;
	SET search_path = public, pg_catalog;
	SELECT pgtrickle.create_stream_table('trapped', 'SELECT id FROM own', '5s', initialize => false);
	SELECT pgtrickle.create_or_replace_stream_table('trapped', 'SELECT id FROM own', '6s');
	SELECT pgtrickle.alter_stream_table('trapped', schedule => '7s');
	SELECT count(*) FROM pgtrickle.pgt_status();
	SELECT count(*) FROM pgtrickle.explain_st('trapped');
	SELECT count(*) FROM pgtrickle.get_staleness('trapped');
	SELECT pgtrickle.stream_table_definition('trapped');
	ALTER TABLE own ADD COLUMN x int;
	SELECT pgtrickle.drop_stream_table('trapped');
	DROP OPERATOR public.= (oid, int); DROP OPERATOR public.= (text, text); DROP OPERATOR public.<> (text, text);
	DROP FUNCTION public.trap(oid, int), public.trap(text, text), public.format(text, text, text);
});
pass('operators and functions in the caller\'s search_path are not run for the extension');

as('bob',
	q{SELECT pgtrickle.create_stream_table('his', 'SELECT id FROM own', '5s', initialize => false)}
);
my $his = as('bob', q{SELECT pgtrickle.stream_table_id('his')});
like(error_as('bob', qq{SELECT pgtrickle.change_definition($his, '{"schedule": "never"}')}),
	qr/^22023/, 'an owner cannot write a schedule that nobody can read');
like(
	error_as(
		'bob',
		qq{SELECT pgtrickle.change_definition($his, '{"options": {"fuse_ceiling": "much"}}')}),
	qr/^22P02/,
	'nor such options');
like(
	error_as(
		'bob',
		q{SELECT pgtrickle.create_stream_table_core('bad', 'SELECT id FROM own', 'never', 'AUTO', false, '{}')}
	),
	qr/^22023/,
	'nor create one with them');
is($node->sql('SELECT count(*) FROM pgtrickle.applier_catalog()'),
	'3', 'the applier can read its catalog');

$node->sql(
	q{
	CREATE FUNCTION bob_drops() RETURNS void LANGUAGE sql SECURITY DEFINER
		AS $$ SELECT pgtrickle.drop_stream_table('public.mine') $$;
	ALTER FUNCTION bob_drops() OWNER TO bob});
like($node->psql_error('SELECT bob_drops()'),
	$my_error, 'a superuser who calls somebody\'s function lends it no rights');

# A tick reads values with receive functions, and those of an array of a domain call the domain's checks.
$node->sql(
	q{SELECT pg_create_logical_replication_slot('ticks', 'pgtrickle_decoder');
	CREATE TABLE who (name text); GRANT INSERT ON who TO PUBLIC;
	CREATE FUNCTION note() RETURNS boolean LANGUAGE plpgsql AS $$
		BEGIN INSERT INTO public.who VALUES (current_user); RETURN true; END $$;
	CREATE FUNCTION checked(int) RETURNS boolean LANGUAGE sql AS 'SELECT public.note()';
	CREATE DOMAIN number AS int CHECK (checked(VALUE));
	GRANT USAGE ON SCHEMA public TO alice;
	SET ROLE alice;
	CREATE TABLE lists (id int PRIMARY KEY, numbers number[]);
	SELECT pgtrickle.create_stream_table('copies', 'SELECT id, numbers, ''{2}''::number[] AS more FROM lists', '5s');
	INSERT INTO lists VALUES (1, '{1}');
	RESET ROLE; TRUNCATE who});
my $copies = $node->sql(q{SELECT pgtrickle.stream_table_id('copies')});
$node->sql(
	qq{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pgtrickle.tick_begin();
	SELECT pgtrickle.tick_plan('{$copies}', '{1}', '{delta+verify:n}');
	SELECT pgtrickle.tick_stage(1, data) FROM pg_logical_slot_get_binary_changes('ticks', NULL, NULL, 'proto_version', '1', 'interest', '*');
	SELECT pgtrickle.tick_execute('0/1', '0/2'); COMMIT});
is($node->sql('TABLE copies'), '1|{1}|{2}', 'a tick by hand');
is($node->sql('SELECT DISTINCT name FROM who'),
	'alice', 'code of users that a value or a literal runs in a tick has the rights of their owner');

# The delta of a count reads nothing but the staged changes; the right on the source counts all the same.
$node->sql(
	q{CREATE TABLE lent (id int PRIMARY KEY, n int);
	GRANT SELECT ON lent TO alice;
	SET ROLE alice;
	SELECT pgtrickle.create_stream_table('borrowed', 'SELECT n, count(*) AS c FROM lent GROUP BY n', '5s');
	RESET ROLE;
	INSERT INTO lent VALUES (1, 1)});
my $borrowed = $node->sql(q{SELECT pgtrickle.stream_table_id('borrowed')});
my $tick = qq{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pgtrickle.tick_begin();
	SELECT pgtrickle.tick_plan('{$borrowed}', '{1}', '{delta}');
	SELECT pgtrickle.tick_stage(1, data) FROM pg_logical_slot_peek_binary_changes('ticks', NULL, NULL, 'proto_version', '1', 'interest', '*');
	SELECT pgtrickle.tick_execute('0/1', '0/2'); COMMIT};
$node->sql('REVOKE SELECT ON lent FROM alice');
like($node->psql_error($tick), qr/^42501: permission denied for table lent/, 'a refresh by delta without a right fails');
$node->sql('GRANT SELECT (id, n) ON lent TO alice');
$node->sql($tick);
is($node->sql('TABLE borrowed'), '1|1', 'and the right on the columns is enough');

# --- roles and owners ------------------------------------------------------------------------------------------

$node->sql('ALTER TABLE mine OWNER TO bob');
as('bob', q{SELECT pgtrickle.alter_stream_table('mine', schedule => '2m')});
is(as('bob', q{SELECT schedule FROM pgtrickle.pgt_stream_tables WHERE pgt_name = 'mine'}),
	'2m', 'ALTER TABLE ... OWNER moves the rights');
like(error_as('alice', q{SELECT pgtrickle.alter_stream_table('mine', schedule => '1m')}),
	$my_error, 'away from the old owner');

$node->stop;
done_testing();
