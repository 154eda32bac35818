# t/lib/StreamTables/Tpch.pm
#
# The statements of bench/tpch/ for tests: the 22 queries one by one, and the changes of a round.
package StreamTables::Tpch;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use File::Basename          qw(dirname);
use PostgreSQL::Test::Utils ();

our @EXPORT_OK = qw(tpch_file tpch_queries tpch_changes);

my $FOLDER = dirname(__FILE__) . '/../../../bench/tpch';

sub tpch_file
{
	my ($name) = @_;

	return PostgreSQL::Test::Utils::slurp_file("$FOLDER/$name");
}

# What must be run before the queries, and then ([name, query], ...): q1 to q22.
sub tpch_queries
{
	my ($before, @rest) = split /^-- (Q\d+)\n/m, tpch_file('queries.sql');
	my @queries;
	while (my ($name, $query) = splice @rest, 0, 2)
	{
		push @queries, [ lc $name, $query ];
	}
	return ($before, @queries);
}

# One transaction; the variables are those that changes.sql explains.
sub tpch_changes
{
	my (%value_of) = @_;

	my $changes = tpch_file('changes.sql');
	$changes =~ s/(?<!:):(every|round|dimensions)\b/$value_of{$1}/g;
	return $changes;
}

1;
