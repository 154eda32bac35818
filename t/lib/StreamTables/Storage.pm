# t/lib/StreamTables/Storage.pm
#
# The storage half of delta/, callable from SQL: builds t/modules/storage_test beside the test's data and
# creates its functions in schema storage_test.  With it a bag of rows kept in Perl, to compare tables with.
package StreamTables::Storage;

use strict;
use warnings FATAL => 'all';

use Cwd            qw(abs_path);
use Exporter       qw(import);
use File::Basename qw(dirname);
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT_OK = qw(install_storage_test rows_as_query differing_rows);

# Builds the module and creates the functions in the node's database.
sub install_storage_test
{
	my ($node) = @_;

	my $source = abs_path(dirname(__FILE__) . '/../../modules/storage_test');
	my $build = PostgreSQL::Test::Utils::tempdir();
	my $output =
	  `cd '$build' && make -s -f '$source/Makefile' VPATH='$source' PG_CONFIG=pg_config 2>&1`;
	BAIL_OUT("could not build storage_test: $output") if !-e "$build/storage_test.so";

	my @command = ('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-v', "module=$build/storage_test");
	PostgreSQL::Test::Utils::run_log(
		[ @command, '-f', "$source/storage_test.sql", '-d', $node->connstr($node->dbname) ])
	  or BAIL_OUT('could not create the functions of storage_test');
	return;
}

# A query for rows with weights.  Each row is [weight, value, ...], values as SQL expressions; `types` are those of
# the columns, which a query without rows has too.
sub rows_as_query
{
	my ($types, @rows) = @_;

	my @nulls = map { "NULL::$_" } @$types;
	my $query = 'SELECT ' . join(', ', @nulls, '1::integer AS __w') . ' WHERE false';
	foreach my $row (@rows)
	{
		my ($weight, @values) = @$row;
		my @typed = map { "CAST($values[$_] AS $types->[$_])" } 0 .. $#values;
		$query .= "\nUNION ALL SELECT " . join(', ', @typed, $weight);
	}
	return $query;
}

# Rows in which two queries differ, as bags of texts (so that json and point can be compared, and 1.0 and 1.00 differ).
sub differing_rows
{
	my ($node, $have, $want, $before) = @_;

	return $node->sql(($before // '') . <<"SQL");
SELECT 'surplus', d.* FROM (SELECT r::text COLLATE "C" FROM ($have) r EXCEPT ALL SELECT r::text COLLATE "C" FROM ($want) r) d
UNION ALL
SELECT 'missing', d.* FROM (SELECT r::text COLLATE "C" FROM ($want) r EXCEPT ALL SELECT r::text COLLATE "C" FROM ($have) r) d
LIMIT 10
SQL
}

1;
