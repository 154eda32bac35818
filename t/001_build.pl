# t/001_build.pl
#
# Goal: what was built and installed fits together.
# Method: load each piece in a cluster without set-up, and compare versions.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('build')->boot(setup => 'extension');

my $version = $node->sql(q{SELECT extversion FROM pg_extension WHERE extname = 'pgtrickle'});
like($version, qr/^\d+\.\d+$/, 'the extension can be created');
is( $node->sql(
		q{SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
	WHERE nspname = 'pgtrickle' AND obj_description(p.oid, 'pg_proc') IS NULL}),
	'0',
	'every function has a comment');

command_like([ 'pgtrickle', '--version' ], qr/\b\Q$version\E\b/,
	'the program has the same version');
program_help_ok('pgtrickle');
command_fails_like([ 'pgtrickle', 'dance' ], qr/dance/,
	'a subcommand that does not exist is named');

$node->sql(q{SELECT pg_create_logical_replication_slot('s', 'pgtrickle_decoder')});
pass('the output plugin can be loaded');
$node->sql(q{SELECT pg_drop_replication_slot('s')});

$node->sql('DROP EXTENSION pgtrickle');
is( $node->sql(
		q{SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE nspname = 'pgtrickle'}
	),
	'0',
	'and it can be dropped without a trace');

done_testing();
