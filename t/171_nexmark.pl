# t/171_nexmark.pl
#
# Goal: the queries of Nexmark equal their text after every tick, and are maintained by delta.
# Method: small batches of the benchmark's own events, and between them what an auction never does: bids and persons change and go.
# More: bench/nexmark.py takes the times.
use strict;
use warnings FATAL => 'all';

use File::Basename qw(dirname);
use PostgreSQL::Test::Utils ();
use StreamTables::Cluster;
use Test::More;

my $folder = dirname(__FILE__) . '/../bench/nexmark';
my ($before, %query_of) = split /^-- (Q\d+)\n/m, PostgreSQL::Test::Utils::slurp_file("$folder/queries.sql");
my $events = PostgreSQL::Test::Utils::slurp_file("$folder/events.sql");

my $node = StreamTables::Cluster->new('nexmark')->boot;
$node->sql(PostgreSQL::Test::Utils::slurp_file("$folder/schema.sql"));
$node->start_applier;

sub add_events
{
	my ($first, $last) = @_;

	(my $sql = $events) =~ s/:first::/$first\::/g;
	$sql =~ s/:last::/$last\::/g;
	$node->sql($sql);
	return;
}

add_events(0, 1999);
my @names = map { "q$_" } grep { $_ != 12 } 0 .. 22;
foreach my $name (@names)
{
	$node->create_stream_table($name, $query_of{ uc $name }, schedule => 'manual', refresh_mode => 'DIFFERENTIAL');
}
$node->create_stream_table('all_of_them', join(' UNION ALL ', map { "SELECT '$_' AS name FROM $_" } @names), schedule => 'manual');

my @changes = (
	'bids and auctions come' => sub { add_events(2000, 2999) },
	'bids change and go, a price rises' => sub {
		$node->sql(q{BEGIN; UPDATE bid SET price = price + 20000 WHERE price % 41 = 0; DELETE FROM bid WHERE price % 17 = 0;
			UPDATE auction SET category = 10, expires = expires + interval '9 seconds' WHERE id % 9 = 1; COMMIT});
	},
	'persons and auctions go, others change hands' => sub {
		$node->sql(q{BEGIN; DELETE FROM auction WHERE id % 11 = 3; UPDATE auction SET seller = seller / 2 WHERE id % 5 = 0; DELETE FROM person WHERE id % 7 = 2;
			UPDATE person SET state = 'OR' WHERE id % 3 = 0; UPDATE bid SET auction = auction + 3 WHERE price % 19 = 0;
			UPDATE side_input SET value = 'other' WHERE key < 50; COMMIT});
		add_events(3000, 3499);
	});
while (my ($what, $change) = splice @changes, 0, 2)
{
	$change->();
	$node->refresh('all_of_them');
	$node->verify($_, "$what: $_ equals its query") foreach @names;
}
foreach my $name (@names)
{
	isnt($node->sql("SELECT count(*) FROM $name"), 0, "$name has rows");
	$node->assert_no_fallback($name);
}

$node->stop_applier;
done_testing();
