# t/152_explain.pl
#
# Goal: one can see what a refresh does, and which index would help it.
# Method: a join without an index on its foreign key; the advice must name exactly that index, and must be gone once it is there.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('explain')->boot(conf => "autovacuum = off\n");
$node->sql(
	q{CREATE TABLE parts (id int PRIMARY KEY, name text, color int NOT NULL);
	CREATE TABLE "Lines" (id int PRIMARY KEY, part int NOT NULL, "Color" bigint NOT NULL, amount int NOT NULL);
	CREATE TABLE tiny (id int PRIMARY KEY, part int);
	INSERT INTO parts SELECT g, 'part ' || g, g % 7 FROM generate_series(1, 20000) g;
	INSERT INTO "Lines" SELECT g, 1 + g % 20000, g % 7, g % 97 FROM generate_series(1, 60000) g;
	INSERT INTO tiny SELECT g, g FROM generate_series(1, 20) g;
	ALTER TABLE parts REPLICA IDENTITY FULL; ALTER TABLE "Lines" REPLICA IDENTITY FULL; ALTER TABLE tiny REPLICA IDENTITY FULL;
	ANALYZE});
$node->start_applier;
$node->create_stream_table('joined', 'SELECT p.name, count(*) AS n, sum(l.amount) AS total FROM "Lines" l JOIN parts p ON p.id = l.part GROUP BY p.name');
$node->create_stream_table('small', 'SELECT t.id, p.name FROM tiny t JOIN parts p ON p.id = t.part');
$node->create_stream_table('listed', 'SELECT "Color", string_agg(amount::text, $$,$$ ORDER BY id) AS amounts FROM "Lines" WHERE part < 4000 GROUP BY part, "Color"');
$node->create_stream_table('by_expression', 'SELECT l.id, p.name FROM "Lines" l JOIN parts p ON p.id = l.part + 1');

sub advice
{
	my ($name) = @_;

	return $node->sql("SELECT advice FROM pgtrickle.index_advice('$name') ORDER BY 1");
}

like(advice('joined'), qr/^step \d+ scans public\."Lines" when public\.parts changes; an index on \(part\) would make it an index probe$/,
	'the term that scans the lines for a changed part is found');
is($node->sql(q{SELECT statement FROM pgtrickle.index_advice('joined')}), 'CREATE INDEX ON public."Lines" (part)', 'and the index that would help it');
is($node->sql(q{SELECT bool_and(probe_cost * 2 <= scan_cost) FROM pgtrickle.index_advice('joined')}), 't', 'it would cost less than half');
like($node->sql("SELECT pgtrickle.explain_stream_table('joined', with_analyze => true)"), qr/^index_advice: step \d+ scans/m, 'explain shows the advice');
is(advice('small'), '', 'no advice on a small table, nor on one that is probed by its key');
like(advice('listed'), qr/scans public\."Lines" when public\."Lines" changes; an index on \(part, "Color"\)/,
	'recomputing groups wants an index on the grouping columns');
is(advice('by_expression'), '', 'no advice where the join compares an expression');

$node->sql($node->sql(q{SELECT statement FROM pgtrickle.index_advice('joined')}));
$node->sql('ANALYZE "Lines"');
is(advice('joined'), '', 'with the index there is nothing to advise');
$node->sql(q{BEGIN; UPDATE parts SET name = 'new ' || name WHERE id % 1000 = 0; UPDATE "Lines" SET amount = 0 WHERE id % 1000 = 1; COMMIT});
foreach my $name (qw(joined small listed by_expression))
{
	$node->refresh($name);
	$node->is_current($name);
}

# 20 changed parts and 59 changed lines (one had no amount before), as -old and +new
is($node->sql("SELECT rows_in FROM pgtrickle.pgt_step_runs JOIN pgtrickle.pgt_stream_tables USING (pgt_id)
	WHERE pgt_name = 'joined' ORDER BY step LIMIT 1"), '158', 'the first step of the last refresh read the changes of both tables');
like($node->sql("SELECT pgtrickle.explain_stream_table('joined', with_analyze => true)"),
	qr/^step \d+ run: 158 rows in, \d+ rows out, [\d.]+ ms$/m, 'explain shows it');
unlike($node->sql("SELECT pgtrickle.explain_stream_table('joined')"), qr/ run:| plan when /, 'but only when asked');
like($node->sql("SELECT pgtrickle.explain_stream_table('joined', with_analyze => true)"),
	qr/^step 1 plan when public\.parts changes: .*Named Tuplestore Scan/ms, 'and the plans of the steps');
is($node->sql(q{SELECT count(*) > 0 AND bool_and(plan ~ 'cost=') FROM pgtrickle.step_plans('listed')}), 't', 'also of what is computed again');

done_testing();
