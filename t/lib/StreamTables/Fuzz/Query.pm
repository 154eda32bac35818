# t/lib/StreamTables/Fuzz/Query.pm
#
# Random queries of the whole grammar: a query is { sql, columns => [{ name, type }] }.
#
# Levels call one another with less depth each time.  What a level needs is in `context`: { tables, upstream (stream tables), with (names of WITH
# queries in scope), number (for aliases), features (which were used, for the report) }.
package StreamTables::Fuzz::Query;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use StreamTables::Fuzz::Expression qw(column_of expression any_expression simple_condition aggregate window_function);
use StreamTables::Fuzz::Schema     qw(pick chance literal is_exact is_ordered type_name);

our @EXPORT_OK = qw(random_query);

sub alias
{
	my ($context) = @_;

	return 'a' . ++$context->{number};
}

sub uses
{
	my ($context, $feature) = @_;

	$context->{features}{$feature}++;
	return;
}

sub columns_as
{
	my ($alias, @columns) = @_;

	return map { { ref => "$alias.$_->{name}", type => $_->{type} } } @columns;
}

# ---- FROM ----

# Something to read from: (text with alias, columns).
sub relation
{
	my ($context, $depth) = @_;

	my $alias = alias($context);
	if ($depth > 0 && chance(0.22))
	{
		my $query = level($context, $depth - 1);
		return ("($query->{sql}) $alias", columns_as($alias, @{ $query->{columns} }));
	}
	if (@{ $context->{with} } && chance(0.6))
	{
		my $with = pick(@{ $context->{with} });
		return ("$with->{name} $alias", columns_as($alias, @{ $with->{columns} }));
	}
	if (@{ $context->{upstream} } && chance(0.2))
	{
		my $upstream = pick(@{ $context->{upstream} });
		uses($context, 'stream table');
		return ("$upstream->{name} $alias", columns_as($alias, @{ $upstream->{columns} }));
	}
	if (chance(0.04))
	{
		uses($context, 'VALUES');
		my $rows = join ', ', map { '(' . literal('int') . ', ' . literal('text') . ')' } 1 .. 3;
		return ("(VALUES $rows) $alias (v, w)", columns_as($alias, { name => 'v', type => 'int' }, { name => 'w', type => 'text' }));
	}
	my $table = pick(@{ $context->{tables} });
	return ("$table->{name} $alias", columns_as($alias, @{ $table->{columns} }));
}

# An equality between the two sides, mostly with k or id, and now and then something beside it.
# Comparisons that see more, or less, than the equality of the columns' types: pairs of types, and how they are compared.
my @ODD_COMPARISONS = (
	[ 'text', 'text', '%l COLLATE ci = %r' ], [ 'text', 'text', '%l = %r COLLATE ci' ], [ 'text', 'text', '%l COLLATE ci > %r' ],
	[ 'ci', 'text', '%l COLLATE "C" > %r' ], [ 'ci', 'text', '%l COLLATE "C" = %r' ], [ 'ci', 'ci', '%l > %r COLLATE "C"' ], [ 'chr', 'text', '%l::text COLLATE ci = %r' ],
	[ 'num', 'text', '%l::text <> %r' ], [ 'num', 'num', '%l::text = %r::text' ], [ 'num', 'num2', '%l = %r' ], [ 'num', 'float', '%l = %r' ], [ 'int', 'num', '%l = %r' ],
	[ 'int', 'int', '%l IS NOT DISTINCT FROM %r' ], [ 'int', 'int', '%l + 1 = %r' ], [ 'int', 'int', '%l < %r' ], [ 'int', 'int', 'coalesce(%l, 0) = coalesce(%r, 1)' ],
	[ 'pair', 'pair', '%l *= %r' ], [ 'pair', 'pair', '%l = %r' ], [ 'ints', 'int', '%r = ANY (%l)' ], [ 'date', 'ts', '%l = %r' ], [ 'range', 'int', '%l @> %r' ]);

sub odd_comparison
{
	my ($left, $right) = @_;

	foreach (1 .. 3)
	{
		my ($l_type, $r_type, $condition) = @{ pick(@ODD_COMPARISONS) };
		my $l = column_of($left, $l_type) // next;
		my $r = column_of($right, $r_type) // next;

		$condition =~ s/%l/$l->{ref}/g;
		$condition =~ s/%r/$r->{ref}/g;
		return $condition;
	}
	return undef;
}

sub join_condition
{
	my ($left, $right) = @_;

	my $odd = chance(0.15) ? odd_comparison($left, $right) : undef;
	return $odd if defined $odd;
	foreach my $type (pick(qw(int int int int text date num2 num bool ci)), qw(int text bool))
	{
		my $l = column_of($left, $type) // next;
		my $r = column_of($right, $type) // next;
		my $condition = "$l->{ref} = $r->{ref}";

		$condition .= ' AND ' . simple_condition({ columns => [ @{ $left->{columns} }, @{ $right->{columns} } ] }, 1) if chance(0.2);
		return $condition;
	}
	return 'true';
}

# A function or a subquery that sees what stands before it.
sub lateral
{
	my ($context, $scope) = @_;

	my $alias = alias($context);
	my @functions;
	foreach my $c (@{ $scope->{columns} })
	{
		push @functions, [ "generate_series(1, least($c->{ref}, 3)) $alias (v)", 'int' ] if $c->{type} eq 'int';
		push @functions, [ "unnest($c->{ref}) $alias (v)", 'int' ] if $c->{type} eq 'ints';
		push @functions, [ "string_to_table($c->{ref}, 'l') $alias (v)", 'text' ] if $c->{type} eq 'text';
		push @functions, [ "jsonb_each_text(CASE WHEN jsonb_typeof($c->{ref}) = 'object' THEN $c->{ref} END) $alias (w, v)", 'text' ] if $c->{type} eq 'jsonb';
		push @functions, [ "regexp_matches($c->{ref}, '[a-z]', 'g') WITH ORDINALITY $alias (w, v)", 'big' ] if $c->{type} eq 'text';
	}
	if (@functions && chance(0.4))
	{
		uses($context, 'LATERAL function');
		my ($text, $type) = @{ pick(@functions) };
		return ($text, columns_as($alias, { name => 'v', type => $type }));
	}
	uses($context, 'LATERAL subquery');
	my ($from, @columns) = relation($context, 0);
	my $inner = { columns => \@columns };
	my $where = correlation($inner, $scope);
	my ($call, $type) = aggregate($inner);
	return ("LATERAL (SELECT $call AS v FROM $from WHERE $where) $alias", columns_as($alias, { name => 'v', type => $type })) if chance(0.5);
	my ($e, $t) = any_expression(shown_scope($inner, $scope), exact => 1);
	# no constant, see grouped_level
	my $tail = $e =~ /\ba\d+\./ && chance(0.4) ? " ORDER BY 1 LIMIT " . pick(1, 2) : '';
	return ("LATERAL (SELECT $e AS v FROM $from WHERE $where$tail) $alias", columns_as($alias, { name => 'v', type => $t }));
}

sub correlation
{
	my ($inner, $outer) = @_;

	my $odd = chance(0.15) ? chance(0.5) ? odd_comparison($inner, $outer) : odd_comparison($outer, $inner) : undef;
	return $odd if defined $odd;
	foreach my $type (pick(qw(int int int text date)), qw(int text))
	{
		my $i = column_of($inner, $type) // next;
		my $o = column_of($outer, $type) // next;
		my $operator = chance(0.8) ? '=' : pick('<', '<>', '>', 'IS DISTINCT FROM', 'IS NOT DISTINCT FROM');
		my $condition = "$i->{ref} $operator $o->{ref}" . (chance(0.3) ? ' AND ' . simple_condition($inner, 1) : '');
		# about both levels at once
		$condition .= ' AND ' . simple_condition({ columns => [ @{ $inner->{columns} }, @{ $outer->{columns} } ] }, 2) if chance(0.12);
		return $condition;
	}
	return simple_condition($inner, 1);
}

# FROM and the scope after it.
sub from_clause
{
	my ($context, $depth) = @_;

	my ($text, @columns) = relation($context, $depth);
	my @where;
	foreach my $i (2 .. pick(1, 1, 1, 2, 2, 2, 2, 3, 3, 4))
	{
		my $scope = { columns => [@columns] };
		if ($depth > 0 && chance(0.15))
		{
			my ($lateral, @more) = lateral($context, $scope);
			$text .= chance(0.3) ? " LEFT JOIN $lateral ON true" : ", $lateral";
			# a comma ends what a JOIN after it can see
			return ($text, { columns => [ @columns, @more ] }, @where) if $text =~ /, \S/;
			push @columns, @more;
			next;
		}
		my $kind = pick('JOIN', 'JOIN', 'JOIN', 'LEFT JOIN', 'LEFT JOIN', 'LEFT JOIN', 'RIGHT JOIN', 'FULL JOIN', 'CROSS JOIN');
		my ($right, @more) = relation($context, $depth - 1);
		uses($context, $kind);
		if ($kind eq 'CROSS JOIN')
		{
			$text .= " CROSS JOIN $right";
			push @where, join_condition($scope, { columns => \@more });
		}
		else
		{
			$text .= " $kind $right ON " . join_condition($scope, { columns => \@more });
		}
		push @columns, @more;
	}
	return ($text, { columns => \@columns }, @where);
}

# ---- conditions with subqueries ----

sub subquery_from
{
	my ($context, $scope) = @_;

	my ($from, @columns) = relation($context, 0);
	my $inner = { columns => \@columns };
	return ($from, $inner, chance(0.75) ? correlation($inner, $scope) : simple_condition($inner, 1));
}

# What a subquery shows may be made of columns of the level around it, too.
sub shown_scope
{
	my ($inner, $outer) = @_;

	return chance(0.2) ? { columns => [ @{ $inner->{columns} }, @{ $outer->{columns} } ] } : $inner;
}

sub sublink
{
	my ($context, $scope) = @_;

	my ($from, $inner, $where) = subquery_from($context, $scope);
	my $type = pick(qw(int int text));
	my $left = column_of($scope, $type);
	my $right = column_of($inner, $type);
	my $kind = $left && $right ? pick(qw(exists exists not_exists not_exists in in not_in not_in any all row scalar scalar having row_compared array)) : 'exists';

	uses($context, "sublink $kind");
	return "EXISTS (SELECT 1 FROM $from WHERE $where)" if $kind eq 'exists';
	return "NOT EXISTS (SELECT * FROM $from WHERE $where)" if $kind eq 'not_exists';
	return "$left->{ref} IN (SELECT $right->{ref} FROM $from WHERE $where)" if $kind eq 'in';
	return "$left->{ref} NOT IN (SELECT $right->{ref} FROM $from WHERE $where)" if $kind eq 'not_in';
	return "$left->{ref} " . pick('=', '>', '<') . " ANY (SELECT $right->{ref} FROM $from WHERE $where)" if $kind eq 'any';
	return "$left->{ref} " . pick('<>', '>=', '<') . " ALL (SELECT $right->{ref} FROM $from WHERE $where)" if $kind eq 'all';
	my ($left_more, $right_more) = map { my $c = column_of($_, 'int'); $c ? $c->{ref} : 1 } $scope, $inner;
	return "($left->{ref}, $left_more) " . pick('IN', 'IN', 'NOT IN') . " (SELECT $right->{ref}, $right_more FROM $from WHERE $where)" if $kind eq 'row';
	return "($left->{ref}, $left_more) " . pick('=', '<', '<>') . " (SELECT min($right->{ref}), max($right_more) FROM $from WHERE $where)" if $kind eq 'row_compared';
	return "$left->{ref} = ANY (ARRAY(SELECT $right->{ref} FROM $from WHERE $where" . pick('', ' ORDER BY 1 LIMIT 2') . '))' if $kind eq 'array';
	return "$left->{ref} IN (SELECT $right->{ref} FROM $from GROUP BY $right->{ref} HAVING count(*) > 1)" if $kind eq 'having';
	return "$left->{ref} " . pick('=', '<', '>=') . ' (SELECT ' . pick('max', 'min') . "($right->{ref}) FROM $from WHERE $where)";
}

sub condition
{
	my ($context, $scope, $depth) = @_;

	return simple_condition($scope, 2) if $depth <= 0 || chance(0.6);
	my $link = sublink($context, $scope);
	$link = "NOT ($link)" if chance(0.08);
	$link = "($link OR " . simple_condition($scope, 1) . ')' if chance(0.15);
	$link .= ' AND ' . simple_condition($scope, 1) if chance(0.2);
	return $link;
}

# A value from a subquery: (text, type).
sub scalar_subquery
{
	my ($context, $scope) = @_;

	my ($from, $inner, $where) = subquery_from($context, $scope);
	uses($context, 'scalar subquery');
	if (chance(0.15))
	{
		my $c = column_of($inner, 'int');
		return ('ARRAY(SELECT ' . pick('', '', 'DISTINCT ') . "$c->{ref} FROM $from WHERE $where" . pick(' ORDER BY 1', ' ORDER BY 1 DESC', '', ' ORDER BY 1 LIMIT 3') . ')', 'ints') if $c;
	}
	return ("EXISTS (SELECT 1 FROM $from WHERE $where)", 'bool') if chance(0.2);
	if (chance(0.15))
	{
		my ($e, $type) = any_expression(shown_scope($inner, $scope), exact => 1);
		my $order = $e =~ /\ba\d+\./ ? ' ORDER BY 1' : '';
		return ("(SELECT $e FROM $from WHERE $where$order LIMIT 1)", $type);
	}
	my ($call, $type) = aggregate($inner);
	my $outer = column_of($scope, 'int');
	# an aggregate's arguments must not be of the outer level alone, or it would be that level's
	return ("(SELECT coalesce($outer->{ref}, 0) + count(*) FROM $from WHERE $where)", 'big') if $outer && chance(0.1);
	return ("(SELECT $call FROM $from WHERE $where)", $type);
}

sub where_clause
{
	my ($context, $scope, $depth, @conditions) = @_;

	push @conditions, condition($context, $scope, $depth) if chance(0.55);
	return @conditions ? ' WHERE ' . join(' AND ', map { "($_)" } @conditions) : '';
}

# ---- levels ----

sub output
{
	my (@expressions) = @_;

	my $i = 0;
	my @columns = map { { name => 'o' . ++$i, type => $_->[1] } } @expressions;
	$i = 0;
	return (join(', ', map { "$_->[0] AS o" . ++$i } @expressions), \@columns);
}

sub plain_level
{
	my ($context, $depth) = @_;

	my ($from, $scope, @where) = from_clause($context, $depth);
	my $where = where_clause($context, $scope, $depth, @where);
	my @expressions = map {
		[ $depth > 0 && chance(0.08) ? scalar_subquery($context, $scope) : chance(0.6) ? do { my $c = column_of($scope); ($c->{ref}, $c->{type}) } : any_expression($scope) ]
	} 1 .. 1 + int rand 5;
	if (chance(0.06))
	{
		my $c = column_of($scope, 'ints');
		push @expressions, [ "unnest($c->{ref})", 'int' ] if $c;
		uses($context, 'SRF in SELECT') if $c;
	}
	my ($list, $columns) = output(@expressions);
	return { sql => "SELECT $list FROM $from$where", columns => $columns };
}

sub distinct_level
{
	my ($context, $depth) = @_;

	my ($from, $scope, @where) = from_clause($context, $depth);
	my $where = where_clause($context, $scope, $depth, @where);
	my ($list, $columns) = output(map { [ any_expression($scope, exact => 1) ] } 1 .. 1 + int rand 3);
	uses($context, 'DISTINCT');
	return { sql => "SELECT DISTINCT $list FROM $from$where", columns => $columns };
}

sub distinct_on_level
{
	my ($context, $depth) = @_;

	my ($from, $scope, @where) = from_clause($context, $depth);
	my $where = where_clause($context, $scope, $depth, @where);
	my ($list, $columns) = output(map { [ any_expression($scope, exact => $_ < 3) ] } 1 .. 3);
	my $order = pick('', ' ORDER BY 1', ' ORDER BY 1, 2 DESC', ' ORDER BY 1 DESC, 2 NULLS FIRST');
	uses($context, 'DISTINCT ON');
	# by the expression itself: DISTINCT ON takes output columns by number
	return { sql => "SELECT DISTINCT ON (o1) * FROM (SELECT $list FROM $from$where) " . alias($context) . $order, columns => $columns };
}

sub grouped_level
{
	my ($context, $depth) = @_;

	my ($from, $scope, @where) = from_clause($context, $depth);
	my $where = where_clause($context, $scope, $depth, @where);
	my @aggregates = map { [ aggregate($scope) ] } 1 .. 1 + int rand 3;
	# The server itself writes a constant like -(2) so that it reads as a position in the list: no constants as keys.
	my @keys = grep { $_->[0] =~ /\ba\d+\./ } map { [ any_expression($scope, exact => 1, depth => chance(0.3) ? 1 : 0) ] } 1 .. pick(0, 1, 1, 1, 1, 2, 2);
	my ($list, $columns) = output(@keys, @aggregates);
	my $group = join ', ', 1 .. @keys;
	$group = '' if !@keys;
	if (@keys > 1 && chance(0.3))
	{
		uses($context, 'grouping sets');
		$group = pick("ROLLUP (1, 2)", "CUBE (1, 2)", "GROUPING SETS ((1), (2), ())", "GROUPING SETS ((1, 2), (1))");
		# numbers are not taken in grouping sets' parentheses as positions by everybody: name the expressions
		$group =~ s/\b([12])\b/$keys[$1 - 1][0]/g;
	}
	my $sql = "SELECT $list FROM $from$where" . ($group ne '' ? " GROUP BY $group" : '');
	if (chance(0.25))
	{
		uses($context, 'HAVING');
		my $having = pick('count(*) > 1', 'count(*) > 2', 'count(*) < 4');
		if ($depth > 0 && chance(0.2))
		{
			my ($other, @columns) = relation($context, 0);
			uses($context, 'HAVING sublink');
			$having = "count(*) >= (SELECT count(*) / 4 FROM $other)";
		}
		$sql .= " HAVING $having";
	}
	uses($context, @keys ? 'GROUP BY' : 'aggregate without GROUP BY');
	return { sql => $sql, columns => $columns };
}

sub window_level
{
	my ($context, $depth) = @_;

	my ($from, $scope, @where) = from_clause($context, $depth);
	my $where = where_clause($context, $scope, $depth, @where);
	my @windows = map { [ window_function($scope) ] } 1 .. pick(1, 1, 2);
	if ($windows[0][1] eq 'big' && $depth > 0 && chance(0.15))
	{
		my ($other, @columns) = relation($context, 0);
		my $c = column_of({ columns => \@columns }, 'int', 'big');
		$windows[0] = [ "$windows[0][0] " . pick('IN', 'NOT IN', '< ALL') . " (SELECT $c->{ref} FROM $other)", 'bool' ] if $c;
		uses($context, 'sublink over window') if $c;
	}
	my ($list, $columns) = output((map { [ any_expression($scope, depth => 0) ] } 1 .. 1 + int rand 3), @windows);
	uses($context, 'window');
	return { sql => "SELECT $list FROM $from$where", columns => $columns };
}

sub limit_level
{
	my ($context, $depth) = @_;

	my $query = level($context, $depth - 1, 'no limit');
	my @ordered = grep { is_ordered($query->{columns}[ $_ - 1 ]{type}) } 1 .. @{ $query->{columns} };
	my $order = @ordered && chance(0.85) ? ' ORDER BY ' . join(', ', map { 'o' . pick(@ordered) . pick('', ' DESC', ' NULLS FIRST') } 1 .. pick(1, 1, 2)) : '';
	my $tail = $order ne '' && chance(0.2) ? ' FETCH FIRST ' . pick(1, 3) . ' ROWS WITH TIES' : ' LIMIT ' . pick(1, 3, 5, 10) . pick('', '', ' OFFSET 2');
	if (chance(0.1))
	{
		my ($from) = relation($context, 0);
		$tail =~ s/(LIMIT|FIRST) \d+/$1 (SELECT count(*) \/ 4 FROM $from)/;
		uses($context, 'LIMIT sublink');
	}
	uses($context, $tail =~ /TIES/ ? 'WITH TIES' : 'LIMIT');
	return { sql => "SELECT * FROM ($query->{sql}) " . alias($context) . "$order$tail", columns => $query->{columns} };
}

# A level with columns of these types.
sub level_of_types
{
	my ($context, $depth, @types) = @_;

	my ($from, $scope, @where) = from_clause($context, $depth);
	my $where = where_clause($context, $scope, $depth, @where);
	my ($list, $columns) = output(map { [ expression($scope, $_, 1), $_ ] } @types);
	return { sql => "SELECT $list FROM $from$where", columns => $columns };
}

sub set_level
{
	my ($context, $depth) = @_;

	my @types = map { pick(qw(int int text date bool num2)) } 1 .. pick(1, 2, 2);
	my $query = level_of_types($context, $depth - 1, @types);
	my $sql = "($query->{sql})";
	foreach (1 .. pick(1, 1, 2))
	{
		my $operator = pick('UNION ALL', 'UNION', 'INTERSECT', 'INTERSECT ALL', 'EXCEPT', 'EXCEPT ALL');
		uses($context, $operator);
		$sql = "($sql $operator (" . level_of_types($context, $depth - 1, @types)->{sql} . '))';
	}
	$sql =~ s/^\((.*)\)$/$1/s;
	return { sql => $sql, columns => $query->{columns} };
}

sub with_level
{
	my ($context, $depth) = @_;

	my $name = 'w' . ++$context->{number};
	my $query = level($context, $depth - 1);
	uses($context, 'WITH');
	my $inside = { %$context, with => [ { name => $name, columns => $query->{columns} } ] };
	my $outer = level($inside, $depth - 1);
	$context->{number} = $inside->{number};
	my $materialized = pick('', '', 'MATERIALIZED ', 'NOT MATERIALIZED ');
	return { sql => "WITH $name AS $materialized($query->{sql}) $outer->{sql}", columns => $outer->{columns} };
}

sub recursive_level
{
	my ($context) = @_;

	my ($t, $u) = map { $_->{name} } pick(@{ $context->{tables} }), pick(@{ $context->{tables} });
	my $union = pick('UNION', 'UNION', 'UNION ALL');
	uses($context, "WITH RECURSIVE $union");
	my $bounded = $union eq 'UNION ALL' || chance(0.4);
	my $name = 'w' . ++$context->{number};
	return {
		sql => $bounded
		? "WITH RECURSIVE $name (o1, o2) AS (SELECT id, 0 FROM $t WHERE k = 1 $union SELECT e.k, $name.o2 + 1 FROM $name JOIN $u e ON e.id = $name.o1 WHERE $name.o2 < 3) SELECT o1, o2 FROM $name"
		: "WITH RECURSIVE $name (o1, o2) AS (SELECT id, k FROM $t UNION SELECT $name.o1, e.k FROM $name JOIN $u e ON e.id = $name.o2) SELECT o1, o2 FROM $name",
		columns => [ { name => 'o1', type => 'int' }, { name => 'o2', type => 'int' } ]
	};
}

sub level
{
	my ($context, $depth, $not) = @_;

	my @kinds = ((\&plain_level) x 4, (\&grouped_level) x 3, \&distinct_level, \&window_level, \&set_level);
	push @kinds, \&distinct_on_level if $depth > 0;
	push @kinds, \&limit_level if $depth > 0 && !$not;
	push @kinds, \&with_level if $depth > 0 && !@{ $context->{with} };
	push @kinds, \&recursive_level if $depth > 1 && chance(0.5);
	return pick(@kinds)->($context, $depth);
}

# A query over the tables and stream tables; { sql, columns, features }.
sub random_query
{
	my ($tables, $upstream) = @_;

	my $context = { tables => $tables, upstream => $upstream, with => [], number => 0, features => {} };
	my $query = level($context, pick(0, 1, 1, 2, 2));
	return { %$query, features => $context->{features} };
}

1;
