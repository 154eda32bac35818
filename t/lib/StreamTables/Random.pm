# t/lib/StreamTables/Random.pm
#
# Random schemas, queries of the grammar that is maintained by delta, and random transactions, for the property test.
#
# All come from Perl's rand, so a seed repeats them.  Values are few on purpose: keys meet, groups empty and revive, duplicates
# and NULLs are everywhere.  A numeric value always comes with the same scale, so that max() of equal values has one image.
package StreamTables::Random;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use StreamTables::Cluster;

our @EXPORT_OK = qw(create_schema random_query random_transaction);

# Columns of every table; "id" is the primary key of some of them, and repeats itself in the others.
my @COLUMNS = qw(id k g n b d f);
my %VALUES = (
	k => [ 'NULL', 0 .. 4 ],
	g => [ 'NULL', q{''}, map { "'$_'" } qw(x y Alice Oslo) ],
	n => [ 'NULL', 0, 1, 2.5, -3.75, 10.125, q{'NaN'} ],
	b => [ 'NULL', -1, 0, 5, 4000000000 ],
	d => [ 'NULL', map { "'2024-01-0$_'" } 1 .. 4 ],
	f => [ 'NULL', 'true', 'false' ]);

sub pick
{
	return StreamTables::Cluster::pick(@_);
}

# Creates `count` tables and returns descriptions: { name, keyed, next_id }.
sub create_schema
{
	my ($node, $count) = @_;

	my @tables;
	foreach my $number (1 .. $count)
	{
		my $keyed = rand() < 0.6;
		my $table = { name => "t$number", keyed => $keyed, next_id => 1 };

		$node->sql("CREATE TABLE t$number (id int" . ($keyed ? ' PRIMARY KEY' : '')
			  . ', k int, g text, n numeric, b bigint, d date, f boolean)');
		$node->sql("CREATE INDEX ON t$number (k)") if rand() < 0.5;
		$node->sql(insert_statement($table, 20 + int rand 30));
		push @tables, $table;
	}
	return @tables;
}

# ---- queries ----

sub condition
{
	my ($alias) = @_;

	return pick(
		"$alias.k > 1", "$alias.n IS NOT NULL", "$alias.g LIKE 'A%'", "$alias.f",
		"$alias.d >= '2024-01-02'", "$alias.b IN (0, 5)", "$alias.id % 3 <> 0",
		"($alias.k IS NULL OR $alias.g = 'x')");
}

sub join_condition
{
	my ($left, $right) = @_;

	return pick(
		"$left.k = $right.k", "$left.k = $right.k", "$left.id = $right.id", "$left.g = $right.g AND $left.k < $right.k",
		"$left.k = $right.k AND $left.id <> $right.id", "$left.d = $right.d AND $left.f = $right.f");
}

# FROM and WHERE over one to four tables; returns the text and the aliases.
sub from_clause
{
	my (@tables) = @_;

	my $inputs = pick(1, 1, 2, 2, 2, 3, 4);
	my @aliases = map { "r$_" } 1 .. $inputs;
	my $text = 'FROM ';
	my @where;
	foreach my $i (0 .. $#aliases)
	{
		my $name = pick(@tables)->{name};
		if ($i == 0)
		{
			$text .= "$name r1";
		}
		elsif (rand() < 0.7)
		{
			$text .= " JOIN $name $aliases[$i] ON " . join_condition($aliases[ int rand $i ], $aliases[$i]);
		}
		else
		{
			$text .= " CROSS JOIN $name $aliases[$i]";
			push @where, join_condition($aliases[ int rand $i ], $aliases[$i]);
		}
	}
	# four tables with few distinct keys multiply; keep them small
	push @where, map { "$_.id % 4 = 1" } @aliases if $inputs > 2;
	push @where, condition(pick(@aliases)) if rand() < 0.6;
	$text .= ' WHERE ' . join ' AND ', @where if @where;
	return ($text, @aliases);
}

sub rows_query
{
	my (@tables) = @_;

	my ($from, @aliases) = from_clause(@tables);
	my @columns = map { "$_.id AS id_$_" } @aliases;
	my $first = $aliases[0];
	push @columns, "$first.k", pick("$aliases[-1].g", "upper($aliases[-1].g) AS g"),
	  pick("$first.n", "$first.n * 2 + 1 AS n"), "CASE WHEN $first.f THEN 'yes' ELSE 'no' END AS f";
	# without the ids it is a bag
	@columns = grep { !/\.id / } @columns if rand() < 0.3;
	return 'SELECT ' . join(', ', @columns) . " $from";
}

my @AGGREGATES = (
	'count(*)', 'count(%s.n)', 'sum(%s.k)', 'sum(%s.n)', 'avg(%s.n)', 'sum(%s.b)', 'avg(%s.b)', 'avg(%s.k)',
	'min(%s.d)', 'max(%s.g)', 'min(%s.n)', 'max(%s.b)', 'max(%s.id)', 'sum(%s.n) FILTER (WHERE %s.f)',
	'count(*) FILTER (WHERE %s.k > 1)', 'sum(CASE WHEN %s.g = \'x\' THEN %s.k ELSE 0 END)',
	'100 * sum(%s.k) / NULLIF(count(%s.b), 0)');
my @RECOMPUTED = (
	'count(DISTINCT %s.g)', 'bool_and(%s.f)', 'array_agg(%s.id ORDER BY %s.id)',
	'string_agg(%s.g, \',\' ORDER BY %s.g)');

sub aggregate_list
{
	my (@aliases) = @_;

	my @choices = rand() < 0.7 ? @AGGREGATES : (@AGGREGATES, @RECOMPUTED, @RECOMPUTED);
	my @calls;
	foreach my $i (1 .. 1 + int rand 4)
	{
		my $call = pick(@choices);
		my $alias = pick(@aliases);

		$call =~ s/%s/$alias/g;
		push @calls, "$call AS a$i";
	}
	return join ', ', @calls;
}

sub grouped_query
{
	my (@tables) = @_;

	my ($from, @aliases) = from_clause(@tables);
	my $aggregates = aggregate_list(@aliases);
	return "SELECT $aggregates $from" if rand() < 0.15;

	my @keys = (pick(@aliases) . '.' . pick(qw(k g d f)));
	push @keys, pick(@aliases) . '.' . pick(qw(k g)) if rand() < 0.3;
	my $list = join ', ', map { "$keys[$_] AS key" . ($_ + 1) } 0 .. $#keys;
	$list = '' if rand() < 0.1;		# groups that do not show their keys
	my $query = 'SELECT ' . ($list ? "$list, " : '') . "$aggregates $from GROUP BY " . join ', ', @keys;
	$query .= ' HAVING count(*) > ' . pick(1, 2, 3) if rand() < 0.3;
	return $query;
}

sub over_aggregate_query
{
	my (@tables) = @_;

	my ($left, $right) = (pick(@tables)->{name}, pick(@tables)->{name});
	my $inner = "SELECT k, count(*) AS c, max(id) AS m FROM $right GROUP BY k";
	return pick(
		"SELECT l.id, l.k, s.c, s.m FROM $left l JOIN ($inner) s ON s.k = l.k",
		"WITH s AS ($inner) SELECT s.c, count(*) AS n, sum(l.n) AS t FROM $left l JOIN s ON s.k = l.k GROUP BY s.c",
		"WITH s AS ($inner) SELECT a.k, a.c + b.m AS x FROM s a JOIN s b ON a.k = b.c",
		"SELECT DISTINCT s.c FROM ($inner HAVING count(*) > 1) s");
}

sub set_query
{
	my (@tables) = @_;

	my @branches = map {
		my $name = pick(@tables)->{name};
		"SELECT k, g FROM $name WHERE " . condition($name)
	} 1 .. 2 + int rand 2;
	return pick(
		join(' UNION ALL ', @branches),
		join(' UNION ', @branches),
		'SELECT DISTINCT r.k, r.g, r.d FROM ' . pick(@tables)->{name} . ' r',
		'SELECT u.k, count(*) AS n FROM (' . join(' UNION ALL ', @branches) . ') u GROUP BY u.k');
}

# A query over other stream tables: `upstream` holds [name, first column] pairs.
sub over_stream_tables_query
{
	my ($upstream, @tables) = @_;

	my ($name, $column) = @{ pick(@$upstream) };
	my ($other, $other_column) = @{ pick(@$upstream) };
	my $table = pick(@tables)->{name};
	return pick(
		"SELECT u.$column AS c, count(*) AS n FROM $name u GROUP BY u.$column",
		"SELECT DISTINCT u.$column AS c FROM $name u",
		"SELECT u.${column}::text AS a, v.${other_column}::text AS b FROM $name u JOIN $other v ON u.${column}::text = v.${other_column}::text",
		"SELECT t.id, u.$column AS c FROM $table t JOIN $name u ON u.${column}::text = t.k::text WHERE t.id % 3 = 1");
}

sub random_query
{
	my ($upstream, @tables) = @_;

	return over_stream_tables_query($upstream, @tables) if @$upstream > 1 && rand() < 0.3;
	my $kind = pick(\&rows_query, \&rows_query, \&grouped_query, \&grouped_query, \&grouped_query,
		\&over_aggregate_query, \&set_query);
	return $kind->(@tables);
}

# ---- transactions ----

sub insert_statement
{
	my ($table, $rows) = @_;

	my @tuples;
	foreach (1 .. $rows)
	{
		my $id = $table->{keyed} ? $table->{next_id}++ : int rand 30;
		push @tuples, '(' . join(', ', $id, map { pick(@{ $VALUES{$_} }) } @COLUMNS[ 1 .. $#COLUMNS ]) . ')';
	}
	return "INSERT INTO $table->{name} VALUES " . join(', ', @tuples) . ';';
}

sub some_rows
{
	return pick('id % 7 = ' . int rand 7, 'k = ' . int rand 5, 'k IS NULL', "g = 'x'", 'id < ' . int rand 20,
		'f', 'id % 2 = 0');
}

sub statement
{
	my ($table) = @_;

	my $name = $table->{name};
	return insert_statement($table, 1 + int rand 8) if rand() < 0.4;
	if (rand() < 0.55)
	{
		my $column = pick(qw(k k g n b d f));
		return "UPDATE $name SET $column = " . pick(@{ $VALUES{$column} }) . ' WHERE ' . some_rows() . ';';
	}
	return "UPDATE $name SET id = -id WHERE " . some_rows() . ';' if rand() < 0.15;
	return "TRUNCATE $name;" if rand() < 0.03;
	return "DELETE FROM $name;" if rand() < 0.05;
	return "DELETE FROM $name WHERE " . some_rows() . ';';
}

# One transaction over several tables, with savepoints, and now and then rolled back.
sub random_transaction
{
	my (@tables) = @_;

	my @statements;
	foreach my $i (1 .. 1 + int rand 6)
	{
		my $statement = statement(pick(@tables));
		$statement = "SAVEPOINT s$i; $statement ROLLBACK TO s$i;" if rand() < 0.1;
		$statement = "SAVEPOINT s$i; $statement RELEASE s$i;" if rand() < 0.1;
		push @statements, $statement;
	}
	return join(' ', 'BEGIN;', @statements, rand() < 0.1 ? 'ROLLBACK;' : 'COMMIT;');
}

1;
