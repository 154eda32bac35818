# t/lib/StreamTables/Fuzz/Schema.pm
#
# Random tables for the fuzzer, and what the generators must know of types.
#
# A type here is a word.  It stands for a type of SQL and for what may be done with its values:
#   exact      equal values have equal bytes, so which of them a group or a DISTINCT shows is no choice.  `num`, a numeric of any scale,
#              and `ci`, a text under a collation that ignores case, are not: they are joined, compared, summed and shown, but never grouped by
#   ordered    has a btree operator class
# Floats are multiples of a quarter, and small: sums of them are exact, whatever the order of addition.
# Values are few, so that keys meet, groups empty and revive, and duplicates and NULLs are everywhere.
package StreamTables::Fuzz::Schema;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use StreamTables::Cluster;

our @EXPORT_OK = qw(pick chance random_schema literal type_name is_exact is_ordered value);

sub pick { return StreamTables::Cluster::pick(@_); }

sub chance
{
	my ($probability) = @_;

	return rand() < $probability;
}

my %TYPES = (
	int => { sql => 'integer', exact => 1, ordered => 1, values => [ 0 .. 5 ] },
	big => { sql => 'bigint', exact => 1, ordered => 1, values => [ -1, 0, 1, 5, 4000000000 ] },
	num0 => { sql => 'numeric(8,0)', exact => 1, ordered => 1, values => [ -2, 0, 7 ] },
	num2 => { sql => 'numeric(10,2)', exact => 1, ordered => 1, values => [ -3.5, 0, 1, 2.25, 10.1 ] },
	num => { sql => 'numeric', ordered => 1, values => [ 0, 1, '1.0', '1.000', 2.5, -3.75, 10.125, q{'NaN'} ] },
	float => { sql => 'float8', exact => 1, ordered => 1, values => [ -1.25, 0, 0.5, 2, 7.75 ] },
	# what depends on the order of additions: shown, never used
	approx => { sql => 'float8', values => [ 0.5 ] },
	text => { sql => 'text', exact => 1, ordered => 1, values => [ q{''}, map { "'$_'" } qw(x y Alice Oslo), q{it''s}, 'two words' ] },
	chr => { sql => 'char(4)', exact => 1, ordered => 1, values => [ map { "'$_'" } qw(a b abcd) ] },
	ci => { sql => 'text COLLATE ci', ordered => 1, values => [ map { "'$_'" } qw(a A b B) ] },
	date => { sql => 'date', exact => 1, ordered => 1, values => [ map { "'2024-01-0$_'" } 1 .. 4 ] },
	ts => { sql => 'timestamp', exact => 1, ordered => 1, values => [ map { "'2024-01-01 0$_:30'" } 1 .. 4 ] },
	bool => { sql => 'boolean', exact => 1, ordered => 1, values => [qw(true false)] },
	mood => { sql => 'mood', exact => 1, ordered => 1, values => [ map { "'$_'" } qw(sad ok happy) ] },
	ints => { sql => 'integer[]', exact => 1, ordered => 1, values => [ q{'{}'}, q{'{1}'}, q{'{1,2,2}'}, q{'{3,NULL}'} ] },
	range => { sql => 'int4range', exact => 1, ordered => 1, values => [ q{'[1,3)'}, q{'[2,5)'}, q{'empty'}, q{'(,4)'} ] },
	jsonb => { sql => 'jsonb', exact => 1, ordered => 1, values => [ q{'{"a": 1, "b": "x"}'}, q{'{"a": 2}'}, q{'[1, 2, 3]'}, q{'"s"'}, q{'null'} ] },
	json => { sql => 'json', values => [ q{'{"a": 1}'}, q{'{"a":  1}'}, q{'[1,2]'} ] },
	pair => { sql => 'pair', exact => 1, ordered => 1, values => [ q{'(1,x)'}, q{'(2,)'} ] },
	point => { sql => 'point', values => [ q{'(1,2)'}, q{'(0,0)'} ] },
	# too long for an index, so no key: compared and shown, in TOAST
	big_text => { sql => 'text', ordered => 1, values => [ "repeat('long ', 1200)", q{'short'},
		q{(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 66) i)} ] });
my @OPTIONAL = qw(big num0 num2 num2 num num float chr ci date date ts bool mood ints range jsonb jsonb json point big_text);

sub type_name { return $TYPES{ $_[0] }{sql}; }
sub is_exact { return $TYPES{ $_[0] }{exact}; }
sub is_ordered { return $TYPES{ $_[0] }{ordered}; }

# A value of a type as it stands in VALUES or SET; now and then NULL.
sub value
{
	my ($type, $null) = @_;

	return chance($null // 0.15) ? 'NULL' : pick(map { /^'|^\(|^repeat|^[-\dtf]/ ? $_ : "'$_'" } @{ $TYPES{$type}{values} });
}

# The same with its type, for anywhere in an expression.
sub literal
{
	my ($type) = @_;

	(my $name = $TYPES{$type}{sql}) =~ s/ COLLATE ci//;
	my $literal = '(' . value($type, 0.05) . ")::$name";
	return $type eq 'ci' ? "($literal COLLATE ci)" : $literal;
}

# What every schema needs once per database.
sub types_sql
{
	return q{
		CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
		CREATE TYPE pair AS (a integer, b text);
		CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);};
}

sub table_sql
{
	my ($table) = @_;

	my $key = $table->{key};
	my @columns = map {
		"$_->{name} " . type_name($_->{type}) . ($_->{name} eq 'id' && $key eq 'primary' ? ' PRIMARY KEY' : '') . ($_->{rest} // '')
	} @{ $table->{columns} };
	push @columns, 'UNIQUE (id, k)' if $key eq 'unique';
	my $name = $table->{name};
	my $sql = "CREATE TABLE $name (" . join(', ', @columns) . ')';
	$sql .= ' PARTITION BY HASH (k)' if $table->{kind} eq 'partitioned';
	$sql .= ";\n";
	$sql .= "CREATE TABLE ${name}_$_ PARTITION OF $name FOR VALUES WITH (MODULUS 2, REMAINDER $_);\n" foreach $table->{kind} eq 'partitioned' ? (0, 1) : ();
	$sql .= "CREATE TABLE ${name}_child (extra text) INHERITS ($name);\n" if $table->{kind} eq 'parent';
	$sql .= "CREATE INDEX ON $name (k);\n" if $table->{indexed};
	return $sql;
}

# Tables t1, t2, ... as { name, key, kind, columns => [{ name, type }], next_id }, each with id, k and g, and columns of other types.
sub random_schema
{
	my ($count) = @_;

	my @tables;
	foreach my $number (1 .. $count)
	{
		my $kind = chance(0.12) ? 'partitioned' : chance(0.1) ? 'parent' : 'plain';
		my $table = { name => "t$number", kind => $kind, key => $kind ne 'plain' ? 'none' : pick(qw(primary primary primary unique none)),
			indexed => chance(0.4), next_id => 1 };
		my @types = map { pick(@OPTIONAL) } 1 .. 3 + int rand 4;
		my $i = 0;
		$table->{columns} = [ { name => 'id', type => 'int' }, { name => 'k', type => 'int' }, { name => 'g', type => 'text' },
			map { { name => 'c' . ++$i, type => $_ } } @types ];
		# a reference that makes foreign keys useful: to an earlier table with a primary key
		my ($parent) = grep { $_->{key} eq 'primary' } @tables;
		if ($parent && $kind eq 'plain' && chance(0.5))
		{
			push @{ $table->{columns} }, { name => 'ref', type => 'int', parent => $parent->{name},
				rest => (chance(0.4) ? ' NOT NULL' : '') . " REFERENCES $parent->{name} ON UPDATE CASCADE ON DELETE CASCADE" . (chance(0.3) ? ' DEFERRABLE INITIALLY DEFERRED' : '') };
		}
		push @{ $table->{columns} }, { name => 'made', type => 'int', made => 1, rest => ' GENERATED ALWAYS AS (id % 3) STORED' } if $kind eq 'plain' && chance(0.2);
		push @tables, $table;
	}
	return @tables;
}

1;
