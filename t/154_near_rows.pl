# t/154_near_rows.pl
#
# Goal: joins of many inputs stay right when the rows near a change are looked up in one scan, and in every sum of terms: with few
#       changed inputs, with so many that it telescopes, and when there are no rows near a change at all.
# Method: a star and a snowflake without indexes on the facts, all tables counted as large; rounds in which any set of tables changes, keys that facts
#         refer to included.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils ();
use StreamTables::Cluster qw(random_seed pick);
use StreamTables::Rounds qw(run_rounds);
use Test::More;

random_seed();
my $node = StreamTables::Cluster->new('near_rows')->boot;
$node->append_conf('postgresql.conf', 'pgtrickle.near_rows_min_pages = 0');
$node->reload;
$node->start_applier;
$node->sql(q{
	CREATE TABLE regions (r int PRIMARY KEY, title text);
	CREATE TABLE shops (s int PRIMARY KEY, r int, shop text, open boolean);
	CREATE TABLE goods (g int PRIMARY KEY, kind text, price numeric);
	CREATE TABLE people (p int PRIMARY KEY, name text, r int);
	CREATE TABLE days (day date PRIMARY KEY, week int);
	CREATE TABLE sales (id int PRIMARY KEY, s int, g int, p int, day date, n int);
	CREATE TABLE prices (s int, g int, discount numeric, PRIMARY KEY (s, g));
	INSERT INTO regions SELECT i, 'r' || i FROM generate_series(1, 3) i;
	INSERT INTO shops SELECT i, nullif(i % 4, 0), 'shop' || i, i % 2 = 0 FROM generate_series(1, 6) i;
	INSERT INTO goods SELECT i, 'kind' || i % 3, i * 1.5 FROM generate_series(1, 8) i;
	INSERT INTO people SELECT i, 'p' || i, i % 4 FROM generate_series(1, 10) i;
	INSERT INTO days SELECT date '2024-01-01' + i, i / 3 FROM generate_series(0, 8) i;
	INSERT INTO sales SELECT i, nullif(i % 7, 0), i % 9, i % 11, date '2024-01-01' + i % 10, i % 5 FROM generate_series(1, 60) i;
	INSERT INTO prices SELECT s, g, (s + g) / 10.0 FROM generate_series(1, 6) s, generate_series(1, 8, 2) g});

my @stories = (
	star => q{SELECT sales.id, shop, kind, name, week, n FROM sales JOIN shops USING (s) JOIN goods USING (g) JOIN people USING (p) JOIN days USING (day)},
	fact_in_the_middle => 'SELECT sales.id, shop, kind, name, week, n FROM shops JOIN sales USING (s) JOIN goods USING (g) JOIN people USING (p) JOIN days USING (day)',
	star_of_three => q{SELECT sales.id, shop, kind FROM sales JOIN shops USING (s) JOIN goods USING (g)},
	filtered => q{SELECT sales.id, shop, kind, name FROM sales JOIN shops USING (s) JOIN goods USING (g) JOIN people USING (p)
		WHERE open AND kind <> 'kind1' AND n > 1 AND name < 'p8'},
	snowflake => q{SELECT sales.id, title, kind, price - discount AS paid FROM sales JOIN shops USING (s) JOIN regions ON regions.r = shops.r
		JOIN goods USING (g) JOIN prices ON prices.s = sales.s AND prices.g = sales.g},
	grouped => q{SELECT title, kind, count(*) AS c, sum(n * price) AS s, max(n) AS m FROM sales JOIN shops USING (s) JOIN regions ON regions.r = shops.r
		JOIN goods USING (g) JOIN people ON people.p = sales.p AND people.r = shops.r GROUP BY title, kind},
	recomputed => q{SELECT kind, string_agg(name, ',' ORDER BY name, sales.id) AS names FROM sales JOIN goods USING (g) JOIN people USING (p)
		JOIN shops USING (s) GROUP BY kind},
	two_facts => q{SELECT a.id, b.id AS other, shop FROM sales a JOIN sales b ON b.p = a.p AND b.id > a.id JOIN shops ON shops.s = a.s
		JOIN people ON people.p = b.p},
	over_groups => q{SELECT shops.shop, t.total, goods.kind FROM (SELECT s, g, sum(n) AS total FROM sales GROUP BY s, g) t
		JOIN shops ON shops.s = t.s JOIN goods ON goods.g = t.g JOIN prices ON prices.s = t.s AND prices.g = t.g JOIN regions ON regions.r = shops.r},
	outer_after => q{SELECT sales.id, shop, kind, name FROM sales JOIN shops USING (s) JOIN goods USING (g) LEFT JOIN people ON people.p = sales.p},
	unused => q{SELECT count(*) AS c FROM sales, shops, goods WHERE sales.s = shops.s AND sales.g = goods.g},
	expression => q{SELECT sales.id, shop, kind FROM sales, shops, goods WHERE sales.s + 1 = shops.s AND abs(sales.g) = goods.g});

my $next_id = 100;

sub change
{
	my $s = pick(1, 2, 3, 4, 5, 6);
	my $id = $next_id++;

	return pick(
		"INSERT INTO sales VALUES ($id, $s, " . pick(1, 2, 3, 'NULL') . ', ' . pick(1, 2, 3) . ", '2024-01-03', " . pick(1, 2, 3) . ')',
		'DELETE FROM sales WHERE id % 9 = ' . int(rand 9),
		"UPDATE sales SET s = $s WHERE id % 8 = " . int(rand 8),
		"UPDATE sales SET n = n + 1, day = day + 1 WHERE id % 7 = " . int(rand 7),
		"UPDATE shops SET shop = shop || '+', open = NOT open WHERE s = $s",
		'UPDATE shops SET r = ' . pick(1, 2, 3, 'NULL') . " WHERE s = $s",
		"DELETE FROM shops WHERE s = $s",
		"INSERT INTO shops VALUES ($s, 1, 'new', true) ON CONFLICT DO NOTHING",
		"UPDATE goods SET kind = 'kind' || " . pick(1, 2, 3) . ' WHERE g % 4 = ' . int(rand 4),
		'UPDATE goods SET price = price + 0.25 WHERE g % 4 = ' . int(rand 4),
		'UPDATE goods SET g = g + 20 WHERE g = ' . pick(1, 2, 3),
		'UPDATE goods SET g = g - 20 WHERE g > 20',
		"UPDATE people SET name = name || 'x' WHERE p % 3 = " . int(rand 3),
		'DELETE FROM people WHERE p = ' . pick(1, 2, 3),
		'INSERT INTO people VALUES (' . pick(1, 2, 3) . ", 'back', 2) ON CONFLICT DO NOTHING",
		"UPDATE prices SET discount = discount + 0.1 WHERE s = $s",
		'UPDATE days SET week = week + 1 WHERE week = ' . int(rand 3),
		"UPDATE regions SET title = title || '!' WHERE r = " . pick(1, 2, 3));
}

run_rounds($node, stories => \@stories, changes => \&change, rounds => 10,
	fixed => [
		'a dimension that no fact refers to' => q{INSERT INTO shops VALUES (99, 1, 'far', true); UPDATE goods SET kind = 'none' WHERE g = 8},
		'five inputs change, and no fact is near four of them' => q{INSERT INTO shops VALUES (98, 1, 'far', true); INSERT INTO goods VALUES (98, 'none', 1);
			INSERT INTO people VALUES (98, 'far', 1); INSERT INTO days VALUES ('2031-01-01', 1); INSERT INTO prices VALUES (98, 98, 1); UPDATE regions SET title = title || '!' WHERE r = 3;
			UPDATE sales SET n = n + 1 WHERE id % 3 = 0; DELETE FROM sales WHERE id = 7},
		'all tables at once' => q{
			UPDATE sales SET n = n + 1; UPDATE shops SET shop = shop || '.'; UPDATE goods SET kind = kind || '.'; UPDATE people SET name = name || '.';
			UPDATE days SET week = week + 1; UPDATE regions SET title = title || '.'; UPDATE prices SET discount = discount + 1},
		'dimensions change places' => q{UPDATE sales SET s = 7 - s, g = 9 - g; UPDATE shops SET open = NOT open; UPDATE goods SET kind = 'kind' || g % 2; UPDATE people SET r = r + 1},
		'facts go, dimensions change' => q{DELETE FROM sales WHERE id % 2 = 0; UPDATE shops SET shop = upper(shop); UPDATE goods SET price = price * 2; UPDATE people SET name = upper(name);
			UPDATE days SET week = -week}]);

like($node->sql(q{SELECT pgtrickle.explain_stream_table('star')}), qr/rows near a change/, 'rows near a change are looked up');

# Stream tables of one tick that look for the same rows do so once: of three that join sales with goods at least two use the lookup of another one.
my %joins = (
	by_shop => 'SELECT shop, kind, sum(n) AS n FROM sales JOIN shops USING (s) JOIN goods USING (g) GROUP BY 1, 2',
	by_person => q{SELECT name, kind, n FROM goods JOIN sales AS sold USING (g) JOIN people USING (p) WHERE n > 1},
	two_only => 'SELECT sales.id, kind, price * n AS paid FROM sales JOIN goods ON goods.g = sales.g');
$node->create_stream_table($_, $joins{$_}, schedule => 'manual', refresh_mode => 'DIFFERENTIAL') foreach sort keys %joins;
$node->create_stream_table('all_of_them', 'SELECT (SELECT count(*) FROM by_shop) + (SELECT count(*) FROM by_person) + (SELECT count(*) FROM two_only) AS n',
	schedule => 'manual', refresh_mode => 'DIFFERENTIAL');
$node->append_conf('postgresql.conf', 'log_min_messages = debug1');
$node->reload;
$node->stop_applier;
$node->start_applier;
$node->sql('UPDATE sales SET n = n + 1 WHERE id % 5 = 0');
$node->refresh('all_of_them'); # from now on they have one frontier
my $from = -s $node->logfile;
$node->sql(q{BEGIN; INSERT INTO goods SELECT g, 'new', 1 FROM generate_series(1, 3) g ON CONFLICT (g) DO UPDATE SET kind = goods.kind || '!', price = goods.price + 1;
	INSERT INTO sales VALUES (9001, 1, 1, 1, '2024-01-03', 1), (9002, 2, 2, 2, '2024-01-03', 2); COMMIT});
$node->refresh('all_of_them');
my @lookups = PostgreSQL::Test::Utils::slurp_file($node->logfile, $from) =~ /(using the lookup of another.*?)CONTEXT/gs;
cmp_ok(scalar @lookups, '>=', 2, 'one lookup serves several stream tables');
$node->is_current($_) foreach sort keys %joins;
$node->stop_applier;
done_testing();
