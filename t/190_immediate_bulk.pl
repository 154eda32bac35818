# t/190_immediate_bulk.pl
#
# Goal: deltas that do not fit in memory are applied exactly, though they are consolidated key by key only.
# Method: statements that change both sides of a join in many rows, so that terms of its delta cancel each other, with little work_mem; with a key, with
#         one that several rows have, without one, and with an IMMEDIATE stream table above.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('immediate_bulk')->boot(setup => 'extension');
$node->sql(q{
	CREATE TABLE account (id int PRIMARY KEY, branch int, balance int);
	CREATE TABLE branch (id int PRIMARY KEY, k int, city text);
	INSERT INTO account SELECT g, g % 10, g % 7 FROM generate_series(1, 6000) g;
	INSERT INTO branch SELECT g, g % 5, 'city ' || g FROM generate_series(0, 9) g});
my %QUERY = (
	per_account => 'SELECT a.id, a.balance, b.city FROM account a JOIN branch b ON b.id = a.branch',
	# a row for each branch with the same k
	per_pair => 'SELECT a.id, b.id AS bid, a.balance, b.city FROM account a JOIN branch b ON b.k = a.branch',
	no_key => 'SELECT a.balance, b.city FROM account a JOIN branch b ON b.id = a.branch',
	below => 'SELECT a.id, a.balance + 1 AS more, b.k FROM account a JOIN branch b ON b.id = a.branch');
$node->sql("SELECT pgtrickle.create_stream_table('$_', \$q\$$QUERY{$_}\$q\$, refresh_mode => 'IMMEDIATE')") foreach sort keys %QUERY;
$QUERY{above} = 'SELECT id, more * 2 AS twice FROM below WHERE k < 4';
$node->sql("SELECT pgtrickle.create_stream_table('above', \$q\$$QUERY{above}\$q\$, refresh_mode => 'IMMEDIATE')");

sub is_exact
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	my @wrong = grep { $node->sql(StreamTables::Cluster::_difference_sql("SELECT * FROM $_", $QUERY{$_})) ne '' } sort keys %QUERY;
	is("@wrong", '', $name);
}

my %STATEMENT = (
	'all rows of one side' => 'UPDATE account SET balance = balance + 1',
	'both sides, so that terms cancel' => q{WITH a AS (UPDATE account SET balance = balance + 1 WHERE id % 3 > 0) UPDATE branch SET city = city || '!'},
	'both sides, to other partners' => q{WITH a AS (UPDATE account SET branch = 9 - branch) UPDATE branch SET k = (k + 1) % 5, city = upper(city)},
	'some go, some come, some change' => q{WITH a AS (DELETE FROM account WHERE id % 4 = 0), b AS (INSERT INTO account SELECT g, g % 10, 1 FROM generate_series(7001, 9000) g)
		UPDATE account SET balance = 0 WHERE id % 4 = 1},
	'the key changes' => 'UPDATE account SET id = id + 20000',
	'all rows go' => 'DELETE FROM account');
foreach my $name ('all rows of one side', 'both sides, so that terms cancel', 'both sides, to other partners', 'some go, some come, some change', 'the key changes', 'all rows go')
{
	$node->sql("SET work_mem = '64kB'; $STATEMENT{$name}");
	is_exact($name);
}

done_testing();
