# t/030_setup.pl
#
# Goal: "pgtrickle setup" makes what the applier needs or leaves nothing behind; doctor finds every fault
#       and names its repair; drop takes away what set-up made; bad command lines are refused.
# Method: run the subcommands against a cluster that starts out unprepared.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('setup')->boot(setup => 'none', dbname => 'shop-1');
my $slot = 'pgtrickle_shop_1';

# What the database has of ours.
sub inventory
{
	return $node->sql(
		q{SELECT concat_ws(' ',
		(SELECT 'extension' FROM pg_extension WHERE extname = 'pgtrickle'),
		(SELECT 'role' FROM pg_roles WHERE rolname = 'pgtrickle_applier'),
		(SELECT 'slot' FROM pg_replication_slots WHERE plugin = 'pgtrickle_decoder'),
		(SELECT 'plugin' FROM pg_settings WHERE name = 'output_plugin_libraries' AND setting ~ 'pgtrickle'))}
	);
}

sub doctor_says
{
	my ($pattern, $test_name) = @_;

	my ($ok, $stdout) = $node->try_program('doctor');
	ok(!$ok, "doctor fails: $test_name");
	like($stdout, $pattern, "doctor names the fault and its repair: $test_name");
	return;
}

my $knows_libraries = StreamTables::Cluster::server_has_setting('output_plugin_libraries');
my $plugin = $knows_libraries ? ' plugin' : '';

# --- a server that is not ready

doctor_says(qr/FAILED +database shop-1 has no extension pgtrickle\n +repair: pgtrickle setup/,
	'no extension');
doctor_says(qr/FAILED +replication slot $slot does not exist\n +repair: pgtrickle setup/,
	'no slot');

SKIP:
{
	skip 'the server does not know output_plugin_libraries', 9 if !$knows_libraries;

	$node->sql(q{ALTER SYSTEM SET output_plugin_libraries = 'test_decoding', 'pgoutput'});
	$node->reload;
	$node->wait_until(
		q{SELECT current_setting('output_plugin_libraries') = 'test_decoding, pgoutput'});
	doctor_says(
		qr/FAILED +output_plugin_libraries does not name pgtrickle_decoder\n +repair: ALTER SYSTEM SET output_plugin_libraries = 'test_decoding', 'pgoutput', 'pgtrickle_decoder'; SELECT pg_reload_conf\(\);/,
		'the plugin may not be loaded');

	my ($ok, $stdout, $stderr) = $node->try_program('setup');
	ok(!$ok, 'set-up does not change a setting unasked');
	like(
		$stderr,
		qr/^pgtrickle: error: the server may not load output plugin "pgtrickle_decoder"\nHINT:  Run ALTER SYSTEM/,
		'but says how');
	is(inventory(), '', 'and leaves nothing behind');

	# A failure at the last step: the slot's name is taken.
	$node->sql("SELECT pg_create_logical_replication_slot('$slot', 'test_decoding')");
	($ok, $stdout, $stderr) = $node->try_program('setup', '--fix');
	ok(!$ok, 'set-up fails when the name of the slot is taken');
	like($stderr, qr/replication slot "$slot" exists and is not one of pgtrickle/, 'and says so');
	is(inventory(), '', 'everything that was done before is undone');
	$node->wait_until(
		q{SELECT current_setting('output_plugin_libraries') = 'test_decoding, pgoutput'},
		'output_plugin_libraries is what it was');
	is($node->sql(q{SELECT count(*) FROM pg_replication_slots}),
		1, 'and the slot of others is left alone');
	$node->sql("SELECT pg_drop_replication_slot('$slot')");
}

# --- set-up, with a role that is there already

$node->sql('CREATE ROLE pgtrickle_applier LOGIN');
my $output = $node->run_program('setup', '--fix');
like(
	$output,
	qr/^created extension "pgtrickle" in database "shop-1"$/m,
	'set-up tells what it does');
like(
	$output,
	qr/^gave LOGIN and REPLICATION to role "pgtrickle_applier"$/m,
	'an existing role is used');
like($output, qr/^created replication slot "$slot"$/m, 'a slot is made');
is(inventory(), "extension role slot$plugin", 'everything is there');
is( $node->sql(q{SELECT current_setting('output_plugin_libraries', true)}),
	$knows_libraries ? 'test_decoding, pgoutput, pgtrickle_decoder' : '',
	'other output plugins are still allowed');

$output = $node->run_program('setup');
unlike($output, qr/created|gave|added/, 'set-up again changes nothing');

# --- the applier runs as its role

$node->sql(q{CREATE SCHEMA shop; CREATE TABLE shop.orders (customer text, amount int)});
$node->start_applier(args => [ '--dbname', $node->connstr('shop-1') . ' user=pgtrickle_applier' ]);
my ($ok, $stdout, $stderr) = $node->try_program('doctor', '--role', 'pgtrickle_applier');
ok($ok, 'doctor is content when the applier runs') or diag($stdout);
like($stdout, qr/^0 failures/m, 'without a failure');
like($stdout, qr/^ok +less than 1 GB of changes waits in the spools$/m, 'and has looked at what waits');
($ok, $stdout, $stderr) = $node->try_program('doctor', '--dbname', $node->connstr('shop-1') . ' user=pgtrickle_applier', '--role', 'pgtrickle_applier');
ok($ok, 'doctor works as the role of the applier') or diag($stdout, $stderr);
like(
	$node->run_program('status'),
	qr/$slot +streaming to process \d+.*\n\nno stream tables/s,
	'status shows the slot');

$node->sql(
	q{SELECT pgtrickle.create_stream_table('shop.totals',
	'SELECT customer, sum(amount) AS total FROM shop.orders GROUP BY customer', '5s')});
like(
	$node->run_program('status'),
	qr/^shop\.totals +ACTIVE +5 s +DIFFERENTIAL/m,
	'and the stream tables');
$node->sql(q{INSERT INTO shop.orders VALUES ('Ann', 3), ('Bob', 4), ('Ann', 5)});
$node->refresh('shop.totals');
$node->is_current('shop.totals', 'the role has all the rights that the applier needs');

($ok, $stdout) = $node->try_program('doctor', '--role', 'nobody');
ok(!$ok && $stdout =~ /FAILED +role nobody does not exist/,
	'doctor checks the role it is asked about');
$node->sql('CREATE ROLE clerk LOGIN');
($ok, $stdout) = $node->try_program('doctor', '--role', 'clerk');
like(
	$stdout,
	qr/FAILED +role clerk may not log in and replicate\n +repair: ALTER ROLE clerk LOGIN REPLICATION;/,
	'its attributes');
like(
	$stdout,
	qr/FAILED +role clerk may not call \d+ functions of the applier.*\n +repair: SELECT pgtrickle.grant_applier\('clerk'\);/,
	'and its rights');
$node->sql('ALTER TABLE shop.orders REPLICA IDENTITY DEFAULT');
($ok, $stdout) = $node->try_program('doctor');
like(
	$stdout,
	qr/warning +updates and deletes of shop.orders may not carry the old row.*\n +repair: ALTER TABLE shop.orders REPLICA IDENTITY FULL;/,
	'a source without old rows is a warning');

# --- taking it away

($ok, $stdout, $stderr) = $node->try_program('drop');
ok(!$ok, 'the slot of a running applier is not dropped');
like(
	$stderr,
	qr/could not drop replication slot "$slot": .*is active.*\nHINT:  Stop the applier first\./,
	'and the error says why');
$node->stop_applier;
doctor_says(qr/FAILED +nobody streams from replication slot $slot\n +repair: start the applier/,
	'the applier is not running');

like($node->run_program('drop'),
	qr/^dropped replication slot "$slot"\ndropped role "pgtrickle_applier"$/m, 'drop');
is(inventory(), "extension$plugin", 'drop leaves the extension and its stream tables');
is($node->sql('SELECT count(*) FROM shop.totals'), 2, 'which are still there');
like(
	$node->run_program('drop', '--extension'),
	qr/does not exist.*\ndropped extension "pgtrickle"/s,
	'unless it is asked to');
is(inventory(), $plugin =~ s/ //r, 'now nothing is left');

# --- a role of another name, another slot

$node->run_program('setup', '--role', 'Keeper of "tables"', '--slot', 'other_slot');
is($node->sql(q{SELECT rolreplication FROM pg_roles WHERE rolname = 'Keeper of "tables"'}),
	't', 'names are quoted');
is($node->sql(q{SELECT slot_name FROM pg_replication_slots}),
	'other_slot', 'the slot has the name it was given');
$node->run_program('drop', '--role', 'Keeper of "tables"', '--slot', 'other_slot', '--extension');

# --- the command line

sub refuses
{
	my ($arguments, $pattern) = @_;

	my ($stdout, $stderr) = ('', '');
	IPC::Run::run([ $node->installed_command('pgtrickle'), @$arguments ],
		'<', \undef, '>', \$stdout, '2>', \$stderr);
	is($? >> 8, 2, "\"pgtrickle @$arguments\" is refused");
	like($stderr, $pattern, 'with a reason');
	return;
}

refuses([], qr/no command/);
refuses(['florp'], qr/unknown command "florp"/);
refuses([ 'run', '--florp' ], qr/unknown or incomplete option "--florp"/);
refuses([ 'run', '--buffer-mb', 'many' ], qr/bad value for --buffer-mb/);
refuses([ 'run', '--slot', 'No-Slot' ], qr/bad value for --slot/);
refuses([ 'status', '--fix' ], qr/does not take --fix/);
refuses([ 'status', 'now' ], qr/too many arguments/);
like(scalar run_simple('help'), qr/^Commands:\n  setup /m, 'help lists the commands');
like(scalar run_simple('version'), qr/^pgtrickle \d/, 'version says it');

sub run_simple
{
	my ($command) = @_;

	my $stdout = '';
	IPC::Run::run([ $node->installed_command('pgtrickle'), $command ], '>', \$stdout);
	return $stdout;
}

# A connection that cannot be made: its own exit code, and no password in sight.
my $said = '';
IPC::Run::run(
	[
		$node->installed_command('pgtrickle'),
		'status', '--dbname', 'host=' . $node->host . ' port=1 user=me password=sesame'
	],
	'<',
	\undef,
	'>',
	\$said,
	'2>',
	\$said);
is($? >> 8, 3, 'no connection has an exit code of its own');
like($said, qr/could not connect/, 'and says so');
unlike($said, qr/sesame/, 'without the password');

done_testing();
