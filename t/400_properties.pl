# t/400_properties.pl
#
# Goal: whatever the schema, the queries and the transactions, every stream table equals its query, by delta alone.
# Method: from a printed seed: random tables, random stream tables of the grammar that has delta rules, some over each
#         other and with different schedules; then rounds of random transactions over several tables, with kill -9 of
#         the applier and of the server in between.  After each round writers stop and every stream table is compared with its
#         query from outside, and by verify() from inside.
# More: PGTRICKLE_PROPERTY_WORLDS and PGTRICKLE_PROPERTY_ROUNDS, or PGTRICKLE_LONG=1; a seed is repeated with PGTRICKLE_SEED.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use StreamTables::Random qw(create_schema random_query random_transaction);
use Test::More;

my $long = $ENV{PGTRICKLE_LONG};
my $worlds = $ENV{PGTRICKLE_PROPERTY_WORLDS} // ($long ? 60 : 2);
my $rounds = $ENV{PGTRICKLE_PROPERTY_ROUNDS} // ($long ? 25 : 8);
my $tables_per_world = 12;

StreamTables::Cluster::random_seed();
my $node = StreamTables::Cluster->new('properties')->boot;
$node->append_conf('postgresql.conf', "restart_after_crash = on\nwork_mem = '256kB'");
$node->restart;
$node->start_applier;

sub create_stream_tables
{
	my (@tables) = @_;

	my %query_of;
	my @upstream;
	foreach my $number (1 .. $tables_per_world)
	{
		my $query = random_query(\@upstream, @tables);
		my $name = "st$number";

		$node->create_stream_table($name, $query, refresh_mode => 'DIFFERENTIAL',
			schedule => StreamTables::Cluster::pick('continuous', 'continuous', '200ms'));
		$query_of{$name} = $query;
		my $column = $node->sql("SELECT attname FROM pg_attribute WHERE attrelid = '$name'::regclass AND attnum = 1");
		push @upstream, [ $name, $column ];
	}
	return %query_of;
}

# What goes wrong with processes while transactions run.
sub disturb
{
	if (rand() < 0.15)
	{
		$node->kill9_applier;
		$node->start_applier;
	}
	elsif (rand() < 0.05)
	{
		$node->stop('immediate');
		$node->start;
		$node->wait_for_streaming if $node->can('wait_for_streaming');
	}
	return;
}

sub compare_all
{
	my ($what, %query_of) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	my @wrong;
	foreach my $name (sort { substr($a, 2) <=> substr($b, 2) } keys %query_of)
	{
		$node->refresh($name);
		my $difference = $node->difference($name);
		my $verified = $node->sql("SELECT * FROM pgtrickle.verify('$name')");

		push @wrong, "$name: $query_of{$name}\nfrom outside:\n$difference\nverify:\n$verified" if $difference ne '' || $verified ne '';
	}
	return is(join("\n", @wrong), '', $what);
}

# Full refreshes happen after a TRUNCATE, and when a fill and a refresh of what it reads cross; nowhere else.
sub check_fallbacks
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return is($node->sql(
			q{SELECT d.defining_query, h.reason FROM pgtrickle.pgt_history h JOIN pgtrickle.pgt_definitions d USING (pgt_id)
			WHERE h.action = 'FULL' AND h.initiated_by <> 'INITIAL' AND h.reason NOT LIKE '%truncated%'
			AND h.reason <> 'an upstream stream table was refreshed while it was filled'}),
		'', $what);
}

foreach my $world (1 .. $worlds)
{
	my @tables = create_schema($node, 4);
	my %query_of = create_stream_tables(@tables);

	foreach my $round (1 .. $rounds)
	{
		foreach (1 .. 1 + int rand 6)
		{
			$node->sql(random_transaction(@tables));
			disturb();
		}
		last if !compare_all("world $world, round $round", %query_of);
	}
	check_fallbacks("world $world: no full refresh without a TRUNCATE");
	# later ones read earlier ones, never the other way round
	$node->drop_stream_table("st$_") foreach reverse 1 .. $tables_per_world;
	$node->sql("DROP TABLE $_->{name}") foreach @tables;
}

done_testing();
