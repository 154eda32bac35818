# t/000_harness.pl
#
# Goal: what the other tests stand on does what it says, before anything of ours is in the game.
# Method: a cluster without set-up; ask it for settings, errors, differences and seeds.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster qw(random_seed sql_literal);
use Test::More;

my $node = StreamTables::Cluster->new('harness')->boot(setup => 'none', dbname => 'other');

is($node->sql('SHOW wal_level'), 'logical', 'the cluster writes what logical decoding needs');
is($node->sql('SELECT current_database()'), 'other', 'statements go to the chosen database');

SKIP:
{
	skip 'the server does not know output_plugin_libraries', 1
	  if !StreamTables::Cluster::server_has_setting('output_plugin_libraries');
	like($node->sql('SHOW output_plugin_libraries'),
		qr/pgtrickle_decoder/, 'our output plugin may be loaded');
}

is($node->psql_error('SELECT 1'), '', 'a statement that works has no error');
is( $node->psql_error(
		q{DO $$BEGIN RAISE 'no' USING ERRCODE = '22023', DETAIL = 'Some.', HINT = 'Try.'; END$$}),
	"22023: no\nDETAIL:  Some.\nHINT:  Try.",
	'an error is SQLSTATE, message, detail and hint');
like($node->psql_error('SELEC'), qr/^42601: syntax error at or near "SELEC"/,
	'also a syntax error');

$node->sql(
	q{CREATE TABLE have AS VALUES (1, 'a'), (1, 'a'), (2, NULL);
	CREATE TABLE want AS VALUES (1, 'a'), (2, NULL), (3, 'c')});
is( $node->_difference_of('TABLE have', 'TABLE want'),
	"surplus|(1,a)\nmissing|(3,c)",
	'a difference counts duplicates and treats NULLs as equal');
is($node->_difference_of("SELECT '{}'::json", "SELECT '{}'::json"),
	undef, 'types without equality are noticed');

is( $node->sql('SELECT ' . sql_literal(q{it's a \ 'thing'})),
	q{it's a \ 'thing'},
	'literals are quoted');

{
	local $ENV{PGTRICKLE_SEED} = 42;
	is(random_seed(), 42, 'the seed can be given');
	my $first = rand;
	random_seed();
	is(rand, $first, 'and repeats the same numbers');
}

done_testing();
