# t/091_constructs.pl
#
# Goal: docs/reference/constructs.md says of each construct of SQL how it is maintained, as explain_st() shows it.
# Method: a stream table for an example of each construct; after changes to all tables in one transaction they equal their queries; the strategies are read
#         from the steps of their programs, and the page made from them is compared with the one that is there.
# More: `make constructs` writes the page (PGTRICKLE_CONSTRUCTS names the file to write).
use strict;
use warnings FATAL => 'all';

use File::Basename qw(dirname);
use PostgreSQL::Test::Utils ();
use StreamTables::Cluster;
use StreamTables::Constructs qw(constructs);
use Test::More;

# From the cheapest to the dearest; a program's strategies are those of its steps, and the dearest says what a refresh costs.
my @STRATEGIES = (
	[ 'linear', 'the changed rows, and a probe of every other input of a join for each' ],
	[ 'algebraic', 'that, and one row of a state table for each touched group or value' ],
	[ 'affected keys', 'that, and all rows of the touched groups, partitions or keys' ],
	[ 'delete and rederive', 'the rows that are reached from the changed ones, and a look for other ways to those that may be lost' ],
	[ 'reserve', 'the changed rows, against the first rows and a reserve that are kept; that part of the query again when the reserve is used up' ],
	[ 'recompute', 'that part of the query again, compared with what it was' ],
	[ 'full', 'the whole query, compared with the stream table' ]);

# The strategy of a step, by what explain_st() calls it.
sub strategy_of_step
{
	my ($step) = map { s/ -> .*//r } @_;

	return 2 if $step =~ /affected/;
	return 3 if $step =~ /rederive/;
	return 4 if $step =~ /reserve/;
	return 5 if $step =~ /recompute/;
	return 1 if $step =~ /algebraic|counts|derivations|state/;
	return 0;
}

my $node = StreamTables::Cluster->new('constructs')->boot;
$node->sql(q{
	CREATE TABLE customers (id int PRIMARY KEY, name text, city text);
	CREATE TABLE orders (id int PRIMARY KEY, customer int, day date, amount numeric(10,2), items int, note text, tags text[], status text);
	CREATE TABLE parts (id int PRIMARY KEY, parent int, name text);
	INSERT INTO customers SELECT i, 'customer ' || i, 'city ' || i % 3 FROM generate_series(1, 12) i;
	INSERT INTO orders SELECT i, nullif(i % 10, 0), current_date - i, i * 1.5, i % 4, '{"a": ' || i || '}', ARRAY['t' || i % 3, 'u'], CASE i % 3 WHEN 0 THEN 'new' ELSE 'paid' END
		FROM generate_series(1, 40) i;
	INSERT INTO parts SELECT i, nullif(i / 2, 0), 'part ' || i FROM generate_series(1, 12) i});
$node->start_applier;

my @constructs = constructs();
foreach my $i (0 .. $#constructs)
{
	$node->create_stream_table("c$i", $constructs[$i][1], schedule => 'manual');
}
$node->sql(q{BEGIN;
	DELETE FROM customers WHERE id IN (2, 5); INSERT INTO customers VALUES (20, 'new', 'city 1');
	UPDATE orders SET customer = 20, amount = amount + 100 WHERE id % 9 = 0; DELETE FROM orders WHERE customer = 3; INSERT INTO orders SELECT id + 100, 5, day, amount, items, note, tags, status FROM orders WHERE id < 4;
	UPDATE parts SET parent = 3 WHERE id = 8; DELETE FROM parts WHERE id = 4; COMMIT});

my %used;
my $table = "| construct | example | strategy |\n|---|---|---|\n";
foreach my $i (0 .. $#constructs)
{
	my ($construct, $query) = @{ $constructs[$i] };

	$node->refresh("c$i");
	$node->verify("c$i", "$construct equals its query");
	my $reason = $node->sql("SELECT downgrade_reason FROM pgtrickle.explain_refresh_mode('c$i')");
	my @steps = grep { / -> / } split /\n/, $node->sql("SELECT value FROM pgtrickle.explain_st('c$i') WHERE property ~ '^step [0-9]+\$'");
	cmp_ok(scalar @steps, '>', 0, "$construct has steps") if $reason eq '';
	my %found = $reason eq '' ? map { strategy_of_step($_) => 1 } @steps : (6 => 1);
	$table .= "| $construct | `" . ($query =~ s/\|/\\|/gr) . '` | ' . join(', ', map { $STRATEGIES[$_][0] } grep { $_ > 0 || keys %found == 1 } sort keys %found)
	  . ($reason ne '' ? ": $reason" : '') . " |\n";
}

my $page = <<"EOP";
# Reference: how each construct is maintained

Made by `make constructs` from an example of each construct and what `explain_st()` says of it; `t/091_constructs.pl` checks that it promises nothing that is not so, and that the
examples equal their queries. How the strategies work is explained in [delta rules](../explanation/delta-rules.md). In `AUTO` the server may still choose a full refresh when it
is cheaper.

| strategy | a refresh costs |
|---|---|
${\ join '', map { "| $_->[0] | $_->[1] |\n" } @STRATEGIES }
Over all of the examples: tables `customers (id, name, city)`, `orders (id, customer, day, amount, items, note, tags, status)` and `parts (id, parent, name)`.

$table
EOP
$page =~ s/\n+\z/\n/;

if (my $file = $ENV{PGTRICKLE_CONSTRUCTS})
{
	PostgreSQL::Test::Utils::append_to_file($file, $page);
	diag("written to $file");
}
else
{
	my $there = PostgreSQL::Test::Utils::slurp_file(dirname(__FILE__) . '/../docs/reference/constructs.md');
	# it may promise less than is true by now, never more
	foreach my $line ($there =~ /^(.* \| )full: .* no delta rule yet \|$/mg)
	{
		my ($true) = $page =~ /^(\Q$line\E.*)$/m;
		$there =~ s/^\Q$line\E.*$/$true/m if defined $true;
	}
	is($there, $page, 'docs/reference/constructs.md is up to date');
}

$node->stop_applier;
done_testing();
