# t/lib/StreamTables/Fuzz/Changes.pm
#
# Random transactions for the fuzzer: over several tables, with every kind of statement.
#
# A transaction is a list of statements without BEGIN and COMMIT, so that a failing one can be made smaller.  Some fail (foreign keys,
# unique keys): then the whole transaction is rolled back, which is a case as well.
package StreamTables::Fuzz::Changes;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use StreamTables::Fuzz::Schema qw(pick chance value);

our @EXPORT_OK = qw(insert_rows random_changes transaction_sql);

sub writable
{
	my ($table) = @_;

	return grep { !$_->{made} } @{ $table->{columns} };
}

sub new_id
{
	my ($table) = @_;

	return $table->{key} eq 'none' ? int rand 12 : $table->{next_id}++;
}

# A value for a foreign key that mostly exists.
sub parent_row
{
	my ($column) = @_;

	return 'NULL' if $column->{rest} !~ /NOT NULL/ && chance(0.05);
	return "(SELECT coalesce(min(id) FILTER (WHERE id > " . int(rand 14) . "), min(id)) FROM $column->{parent})";
}

sub insert_rows
{
	my ($table, $rows, $name) = @_;

	my @columns = writable($table);
	my @tuples;
	foreach (1 .. $rows)
	{
		push @tuples, '(' . join(', ', map {
				$_->{name} eq 'id' ? new_id($table) : $_->{parent} ? parent_row($_) : value($_->{type})
			} @columns) . ')';
	}
	# rows that are equal in all columns
	push @tuples, $tuples[0] if $table->{key} eq 'none' && chance(0.4);
	return 'INSERT INTO ' . ($name // $table->{name}) . ' (' . join(', ', map { $_->{name} } @columns) . ') VALUES ' . join(",\n  ", @tuples);
}

sub some_rows
{
	return pick('id % 5 = ' . int rand 5, 'k = ' . int rand 6, 'k IS NULL', q{g = 'x'}, 'id < ' . int rand 15, 'id = ' . int rand 12,
		'id % 2 = 0', 'g IS NULL', 'k > 2');
}

sub update
{
	my ($table) = @_;

	my $name = $table->{name};
	return "UPDATE $name SET id = -id WHERE " . some_rows() if chance(0.12);
	return "UPDATE $name SET k = k + 1 WHERE " . some_rows() if chance(0.1);
	my %set;
	$set{ $_->{name} } = $_->{parent} ? parent_row($_) : value($_->{type}) foreach map { pick(grep { $_->{name} ne 'id' } writable($table)) } 1 .. pick(1, 1, 2, 3);
	return "UPDATE $name SET " . join(', ', map { "$_ = $set{$_}" } sort keys %set) . ' WHERE ' . some_rows();
}

sub statement
{
	my ($table) = @_;

	my $name = $table->{name};
	return insert_rows($table, 1 + int rand 6, $table->{kind} eq 'parent' && chance(0.4) ? "${name}_child" : $name) if chance(0.38);
	return update($table) if chance(0.55);
	return "TRUNCATE $name CASCADE" if chance(0.03);
	return "DELETE FROM $name" if chance(0.07);
	return "DELETE FROM $name WHERE ctid IN (SELECT min(ctid) FROM $name WHERE id IS NOT NULL)" if $table->{kind} eq 'plain' && chance(0.15);
	# the group goes and comes back
	my $key = int rand 6;
	return "DELETE FROM $name WHERE k = $key", insert_rows($table, 1), "UPDATE $name SET k = $key WHERE k IS DISTINCT FROM $key AND id % 4 = 1" if chance(0.2);
	return "DELETE FROM $name WHERE " . some_rows();
}

# A list of statements that mostly touch two tables or more.
sub random_changes
{
	my (@tables) = @_;

	my @statements;
	foreach my $i (1 .. 2 + int rand 5)
	{
		my @parts = statement(pick(@tables));
		@parts = ("SAVEPOINT s$i", @parts, "ROLLBACK TO s$i") if chance(0.06);
		@parts = ("SAVEPOINT s$i", @parts, "RELEASE s$i") if chance(0.06);
		push @statements, @parts;
	}
	return \@statements;
}

sub transaction_sql
{
	my ($statements) = @_;

	return join(";\n", 'BEGIN', @$statements, 'COMMIT') . ";\n";
}

1;
