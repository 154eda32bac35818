# t/lib/StreamTables/Rounds.pm
#
# Rounds of random changes against a list of stream tables: what tests of single constructs have in common.
#
# All stream tables must be maintained by delta from their first fill on.  After each round they are compared with their queries twice:
# from outside, with writers stopped, and by verify(), which compares images.
#
# A query that has several right answers, because it leaves an order open, is given as a reference (\q{...}) and compared by verify() only,
# which knows the order that was chosen.
#
#   run_rounds($node, stories => [name => query, ...], changes => sub { an SQL statement }, rounds => 8);
package StreamTables::Rounds;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use StreamTables::Cluster;
use Test::More;

our @EXPORT_OK = qw(create_stories compare_stories run_rounds);

# Creates them, each by delta; dies with the reason when one cannot be.
sub create_stories
{
	my ($node, @stories) = @_;

	while (my ($name, $query) = splice @stories, 0, 2)
	{
		$node->create_stream_table($name, ref $query ? $$query : $query, refresh_mode => 'DIFFERENTIAL');
	}
	return;
}

# A statement whose rows say how a stream table and its query differ.  Rows are compared as text, because not every type
# has an equality.
sub _difference_sql
{
	my ($name, $query) = @_;

	# the aliases must not be names of columns
	my $have = "SELECT have_::text AS difference_ FROM $name have_";
	my $want = "SELECT want_::text AS difference_ FROM ($query) want_";
	return "(SELECT '$name', 'surplus', difference_ FROM ($have EXCEPT ALL $want) x_ LIMIT 5)
		UNION ALL (SELECT '$name', 'missing', difference_ FROM ($want EXCEPT ALL $have) x_ LIMIT 5)";
}

# One test: every stream table equals its query.
sub compare_stories
{
	my ($node, $what, @stories) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	my %query_of = @stories;
	my @names = map { $stories[ 2 * $_ ] } 0 .. $#stories / 2;
	my $wrong = $node->sql(join ";\n", map { "SELECT v.* FROM pgtrickle.verify('$_') v" } @names);
	# compiling a hundred branches takes longer than running them
	my $different = $node->sql("SET jit = off;\n" . join "\nUNION ALL\n", map { _difference_sql($_, $query_of{$_}) } grep { !ref $query_of{$_} } @names);
	return is("$wrong$different", '', $what);
}

# Named arguments:
#   stories => [name => query, ...]
#   changes => sub          one SQL statement, at random
#   rounds => n             default 8; PGTRICKLE_LONG=1 makes it ten times as many
#   fixed => [what => SQL]  rounds with known changes, before the random ones
sub run_rounds
{
	my ($node, %opt) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	my @stories = @{ $opt{stories} };
	my @fixed = @{ $opt{fixed} // [] };
	my $rounds = ($opt{rounds} // 8) * ($ENV{PGTRICKLE_LONG} ? 10 : 1);

	create_stories($node, @stories);
	compare_stories($node, 'after the first fill', @stories);
	while (my ($what, $changes) = splice @fixed, 0, 2)
	{
		$node->sql("BEGIN; $changes; COMMIT");
		compare_stories($node, $what, @stories);
	}
	foreach my $round (1 .. $rounds)
	{
		my @statements = map { $opt{changes}->() } 1 .. 1 + int rand 6;
		my $text = join ";\n", @statements;

		$text = "BEGIN;\n$text;\nCOMMIT" if rand() < 0.7;
		$node->sql($text);
		compare_stories($node, "round $round", @stories) or diag($text);
	}
	$node->assert_no_fallback($stories[ 2 * $_ ]) foreach 0 .. $#stories / 2;
	return;
}

1;
