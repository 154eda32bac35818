# t/lib/StreamTables/Fuzz/Expression.pm
#
# Random expressions, conditions, aggregates and window functions over the columns in scope.
#
# A scope is { columns => [{ ref, type }], outer => [the same] }: `outer` are columns of surrounding queries.  Every function here returns text,
# those that choose the type themselves return (text, type).  Nothing divides by zero, overflows, or returns two rows where one must be, so
# that a query fails only if the server cannot run it at all.
package StreamTables::Fuzz::Expression;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use StreamTables::Fuzz::Schema qw(pick chance literal is_exact is_ordered);

our @EXPORT_OK = qw(column_of expression any_expression simple_condition aggregate window_function);

# A column of one of the types, or undef.
sub column_of
{
	my ($scope, @types) = @_;

	my %wanted = map { $_ => 1 } @types;
	my @found = grep { !@types || $wanted{ $_->{type} } } @{ $scope->{columns} };
	return @found ? pick(@found) : undef;
}

# Expressions of a type from others: %type stands for an expression of that type, %% for a per cent sign.
my %MADE_OF = (
	int => [ '%int + 1', '-%int', 'length(%text)', 'abs(%int)', 'coalesce(%int, %int)', 'CASE WHEN %cond THEN %int ELSE %int END', 'nullif(%int, 2)',
		'extract(day FROM %date)::int', 'cardinality(%ints)', '(%ints)[1]', '(%pair).a', 'least(%int, %int)', '%int %% 3', 'lower(%range)', '(%cond)::int',
		'array_position(%ints, %int)' ],
	big => [ '%big + %int', 'CASE %int WHEN 1 THEN %big WHEN 2 THEN 0 END', '%int::bigint * %int' ],
	num0 => [ '%int::numeric', 'round(%num2)' ],
	num2 => [ '%num2 + %num2', '-%num2', '%num2 * %int', 'round(%num, 2)', 'coalesce(%num2, 0.00)' ],
	num => [ '%num2 * %num2', '%num + %int', '%num2 / nullif(%int, 0)', 'greatest(%num, %num)', 'abs(%num)' ],
	float => [ '%float + 0.5', '%int / 4.0::float8', 'greatest(%float, 0.25)' ],
	text => [ 'upper(%text)', q{%text || '-' || %int}, 'coalesce(%text, %text)', '%int::text', 'CASE WHEN %cond THEN %text END', 'substr(%text, 1, 2)',
		q{%jsonb->>'a'}, 'to_char(%date, \'YYYY-MM\')', '(%pair).b', '%mood::text', 'md5(%text)', q{concat_ws('/', %text, %int, %bool)}, 'btrim(%text, \'x\')', '%ci::text COLLATE "default"' ],
	date => [ '%date + 1', 'greatest(%date, %date)', '%ts::date', q{date_trunc('month', %date)::date} ],
	ts => [ q{%ts + interval '1 hour'}, '%date::timestamp' ],
	bool => [ '%cond', '%bool IS TRUE', 'NOT %bool', '%int > %int', '%bool IS NOT DISTINCT FROM %bool' ],
	ints => [ 'ARRAY[%int, %int]', '%ints || %int', 'array_remove(%ints, 2)', 'coalesce(%ints, ARRAY[]::int[])', '(%ints)[1:2]' ],
	range => [ 'int4range(%int, NULL)', '%range * int4range(0, 4)' ],
	jsonb => [ q{jsonb_build_object('k', %int, 't', %text)}, 'to_jsonb(%ints)', q{%jsonb->'a'}, q{%jsonb || '{"z": 1}'} ],
	json => [ 'json_build_array(%int, %text)' ],
	pair => [ 'ROW(%int, %text)::pair' ],
	mood => [ 'greatest(%mood, %mood)', 'coalesce(%mood, \'ok\')' ]);

sub fill
{
	my ($scope, $pattern, $depth) = @_;

	$pattern =~ s{%(%|\w+)}{
		$1 eq '%' ? '%' : $1 eq 'cond' ? simple_condition($scope, $depth - 1) : operand(expression($scope, $1, $depth - 1)) }ge;
	return $pattern;
}

sub operand
{
	my ($text) = @_;

	return $text =~ /^[\w.]+$/ || $text =~ /^\w+\([^()]*\)$/ ? $text : "($text)";
}

sub expression
{
	my ($scope, $type, $depth) = @_;

	my $column = column_of($scope, $type);
	if ($depth > 0 && $MADE_OF{$type} && chance($column ? 0.3 : 0.7))
	{
		return fill($scope, pick(@{ $MADE_OF{$type} }), $depth);
	}
	return $column->{ref} if $column && chance(0.9);
	return literal($type);
}

# An expression of a type of its own choice: (text, type).
sub any_expression
{
	my ($scope, %opt) = @_;

	my @types = grep { !$opt{exact} || is_exact($_) } map { $_->{type} } @{ $scope->{columns} };
	my $type = !@types || chance(0.25) ? pick(qw(int text num2 bool date)) : pick(@types);
	return (expression($scope, $type, $opt{depth} // 1), $type);
}

# A condition without subqueries.
sub simple_condition
{
	my ($scope, $depth) = @_;

	return simple_condition($scope, $depth - 1) . ' AND ' . simple_condition($scope, $depth - 1) if $depth > 1 && chance(0.12);
	return '(' . simple_condition($scope, $depth - 1) . ' OR ' . simple_condition($scope, $depth - 1) . ')' if $depth > 1 && chance(0.15);
	return 'NOT (' . simple_condition($scope, $depth - 1) . ')' if $depth > 1 && chance(0.06);
	return pick(
		sub { my $c = column_of($scope, qw(int big)) // return literal('bool'); "$c->{ref} " . pick(qw(> < = <> >= <=)) . ' ' . int rand 5 },
		sub { my $c = column_of($scope) // return literal('bool'); "$c->{ref} IS " . pick('NULL', 'NOT NULL', 'NOT NULL') },
		sub { my $c = column_of($scope, 'text') // return literal('bool'); "$c->{ref} " . pick(q{LIKE '%l%'}, q{IN ('x', 'y')}, q{<> ''}, q{> 'b'}, q{~ '^[A-Z]'}) },
		sub { my $c = column_of($scope, qw(date)) // return 'true'; "$c->{ref} BETWEEN '2024-01-02' AND '2024-01-03'" },
		sub { my $c = column_of($scope, qw(num num2 num0 float)) // return 'true'; "$c->{ref} " . pick('>', '<=', '=') . ' ' . pick(0, 1, 2.5) },
		sub { my $c = column_of($scope, 'ints') // return 'true'; pick("1 = ANY ($c->{ref})", "$c->{ref} \@> ARRAY[2]", "cardinality($c->{ref}) > 1") },
		sub { my $c = column_of($scope, 'jsonb') // return 'true'; pick("$c->{ref} ? 'a'", "$c->{ref} \@> '{\"a\": 1}'") },
		sub { my $c = column_of($scope, 'ci') // return 'true'; "$c->{ref} = 'A'" },
		sub { my $c = column_of($scope, 'range') // return 'true'; "$c->{ref} && int4range(1, 3)" },
		sub { my $c = column_of($scope, 'mood') // return 'true'; "$c->{ref} > 'sad'" },
		sub { my ($e, $type) = any_expression($scope, depth => 0); is_ordered($type) ? "$e IS DISTINCT FROM " . expression($scope, $type, 0) : 'true' },
		sub { my $c = column_of($scope, 'bool') // return 'true'; $c->{ref} })->();
}

# ---- aggregates ----

# (pattern, type of the result); %x.type is an expression of a type, %exact one of any exact type.
my @AGGREGATES = (
	[ 'count(*)', 'big' ], [ 'count(%num)', 'big' ], [ 'count(DISTINCT %exact)', 'big' ], [ 'count(DISTINCT %num)', 'big' ], [ 'sum(%int)', 'big' ], [ 'sum(%int)', 'big' ],
	[ 'sum(%num2)', 'num2' ], [ 'sum(%num)', 'num' ], [ 'avg(%num)', 'num' ], [ 'avg(%int)', 'num' ], [ 'avg(%big)', 'num' ], [ 'sum(%big)', 'num0' ],
	[ 'sum(%float)', 'float' ], [ 'avg(%float)', 'approx' ], [ 'min(%int)', 'int' ], [ 'max(%date)', 'date' ], [ 'min(%text)', 'text' ], [ 'max(%num2)', 'num2' ],
	[ 'max(%mood)', 'mood' ], [ 'min(%ts)', 'ts' ], [ 'max(%float)', 'float' ], [ 'min(%ints)', 'ints' ],
	[ 'bool_and(%bool)', 'bool' ], [ 'bool_or(%cond)', 'bool' ], [ 'every(%bool)', 'bool' ], [ 'bit_or(%int)', 'int' ], [ 'bit_and(%int)', 'int' ],
	[ q{string_agg(%text, ',' ORDER BY %text, %int)}, 'text' ], [ q{string_agg(%text, ',')}, 'text' ], [ q{string_agg(DISTINCT %text, ',')}, 'text' ],
	[ 'array_agg(%int ORDER BY %int)', 'ints' ], [ 'array_agg(%int)', 'ints' ], [ 'array_agg(DISTINCT %int)', 'ints' ],
	[ 'jsonb_agg(%int ORDER BY %int DESC)', 'jsonb' ], [ 'json_agg(%text)', 'json' ], [ 'jsonb_agg(%jsonb)', 'jsonb' ], [ q{jsonb_object_agg(coalesce(%text, '-'), 1)}, 'jsonb' ],
	[ 'variance(%int)', 'num' ], [ 'stddev_pop(%num2)', 'num' ], [ 'var_pop(%big)', 'num' ],
	[ 'percentile_disc(0.5) WITHIN GROUP (ORDER BY %int)', 'int' ], [ 'percentile_cont(0.5) WITHIN GROUP (ORDER BY %float)', 'float' ], [ 'mode() WITHIN GROUP (ORDER BY %text)', 'text' ],
	[ 'rank(2) WITHIN GROUP (ORDER BY %int)', 'big' ], [ 'percent_rank(2) WITHIN GROUP (ORDER BY %int)', 'approx' ],
	[ 'round(corr(%float, %int)::numeric, 6)', 'num' ], [ 'round(stddev(%float)::numeric, 6)', 'num' ], [ 'range_agg(%range)::text', 'text' ],
	[ 'sum(CASE WHEN %cond THEN %int ELSE 0 END)', 'big' ], [ '100 * sum(%int) / nullif(count(%int), 0)', 'big' ], [ q{coalesce(max(%text), '?') || min(%int)}, 'text' ],
	[ 'max(%int) - min(%int)', 'int' ], [ 'sum(DISTINCT %int)', 'big' ], [ 'avg(DISTINCT %int)', 'num' ], [ 'array_agg(%pair)::text', 'text' ]);

sub aggregate
{
	my ($scope) = @_;

	my ($pattern, $type) = @{ pick(@AGGREGATES) };
	$pattern =~ s/%exact/(any_expression($scope, exact => 1, depth => 0))[0]/ge;
	my $call = fill($scope, $pattern, 2);
	$call .= ' FILTER (WHERE ' . simple_condition($scope, 1) . ')' if $pattern =~ /^\w+\([^()]*\)$/ && chance(0.15);
	return ($call, $type);
}

# ---- window functions ----

my @WINDOW_FUNCTIONS = (
	[ 'row_number()', 'big' ], [ 'rank()', 'big' ], [ 'dense_rank()', 'big' ], [ 'percent_rank()', 'approx' ], [ 'cume_dist()', 'approx' ], [ 'ntile(3)', 'int' ],
	[ 'lag(%int)', 'int' ], [ 'lead(%text, 1, %text)', 'text' ], [ 'lag(%num2, 2)', 'num2' ], [ 'first_value(%int)', 'int' ], [ 'last_value(%date)', 'date' ], [ 'nth_value(%int, 2)', 'int' ],
	[ 'sum(%int)', 'big' ], [ 'count(*)', 'big' ], [ 'avg(%num2)', 'num' ], [ 'max(%date)', 'date' ], [ 'array_agg(%int)', 'ints' ], [ 'sum(%num2)', 'num2' ], [ 'count(%int) FILTER (WHERE %cond)', 'big' ]);
my @FRAMES = ('', '', '', 'ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING', 'ROWS UNBOUNDED PRECEDING', 'GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW',
	'RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING', 'ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE CURRENT ROW');

sub window_function
{
	my ($scope) = @_;

	my ($pattern, $type) = @{ pick(@WINDOW_FUNCTIONS) };
	my $function = fill($scope, $pattern, 1);
	my @partition = map { (any_expression($scope, depth => 0, exact => 1))[0] } 1 .. pick(0, 1, 1, 1, 2);
	my @order = map { (any_expression($scope, depth => 0, exact => 1))[0] . pick('', '', ' DESC', ' NULLS FIRST') } 1 .. pick(0, 1, 1, 2);
	my $frame = @order ? pick(@FRAMES) : '';
	return ("$function OVER (" . join(' ', @partition ? 'PARTITION BY ' . join(', ', @partition) : (), @order ? 'ORDER BY ' . join(', ', @order) : (), $frame) . ')', $type);
}

1;
