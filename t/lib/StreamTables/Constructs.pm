# t/lib/StreamTables/Constructs.pm
#
# One example for each construct of SQL, for the generated table in docs/reference/constructs.md.
#
# The tables are those of 091: orders (id, customer, day, amount, items, note, tags, status), customers (id, name, city), and parts (id, parent, name).
package StreamTables::Constructs;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';

our @EXPORT_OK = qw(constructs);

my @CONSTRUCTS = (
	'projection, expressions' => 'SELECT id, upper(note) AS note, amount * 2 AS twice FROM orders',
	'`WHERE`' => q{SELECT id FROM orders WHERE amount > 10 AND status IN ('new', 'paid')},
	'`CASE`, arrays, JSON' => q{SELECT id, CASE WHEN amount > 5 THEN tags[1] END AS tag, note::jsonb->>'a' AS a FROM orders},
	'inner join' => 'SELECT o.id, c.name FROM orders o JOIN customers c ON c.id = o.customer',
	'join by inequality, self join' => 'SELECT a.id, b.id AS later FROM orders a JOIN orders b ON b.customer = a.customer AND b.day > a.day',
	'`LEFT JOIN`' => 'SELECT o.id, c.name FROM orders o LEFT JOIN customers c ON c.id = o.customer',
	'`RIGHT JOIN`' => 'SELECT o.id, c.name FROM orders o RIGHT JOIN customers c ON c.id = o.customer',
	'`FULL JOIN`' => 'SELECT o.id, c.name FROM orders o FULL JOIN customers c ON c.id = o.customer',
	'anti join by `LEFT JOIN`' => 'SELECT c.id FROM customers c LEFT JOIN orders o ON o.customer = c.id WHERE o.id IS NULL',
	'`EXISTS`' => 'SELECT id FROM customers c WHERE EXISTS (SELECT 1 FROM orders o WHERE o.customer = c.id AND o.amount > 10)',
	'`NOT EXISTS`' => 'SELECT id FROM customers c WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.customer = c.id)',
	'`IN`' => 'SELECT id FROM customers WHERE id IN (SELECT customer FROM orders)',
	'`NOT IN`' => 'SELECT id FROM customers WHERE id NOT IN (SELECT customer FROM orders)',
	'`ANY`, `ALL`' => 'SELECT id FROM orders WHERE amount >= ALL (SELECT amount FROM orders)',
	'scalar subquery' => 'SELECT id, amount FROM orders WHERE amount = (SELECT max(amount) FROM orders)',
	'correlated scalar subquery' => 'SELECT id, (SELECT sum(o.amount) FROM orders o WHERE o.customer = c.id) AS spent FROM customers c',
	'subquery in `HAVING`' => 'SELECT customer, count(*) AS c FROM orders GROUP BY customer HAVING count(*) > (SELECT avg(id) FROM customers)',
	'comparison of rows, `NOT IN` with NULLs' => 'SELECT id FROM orders WHERE (customer, items) NOT IN (SELECT id, parent FROM parts)',
	'subquery correlated by inequality' => 'SELECT id, (SELECT count(*) FROM orders x WHERE x.amount > o.amount) AS dearer FROM orders o',
	'`ARRAY(SELECT ...)`' => 'SELECT id, ARRAY(SELECT o.day FROM orders o WHERE o.customer = c.id ORDER BY o.day) AS days FROM customers c',
	'subquery in `ON` of an outer join' => 'SELECT o.id, c.name FROM orders o LEFT JOIN customers c ON c.id = o.customer AND c.id IN (SELECT parent FROM parts)',
	'`LATERAL` subquery' => 'SELECT c.id, l.day FROM customers c, LATERAL (SELECT max(o.day) AS day FROM orders o WHERE o.customer = c.id) l',
	'`LATERAL` subquery by inequality' => 'SELECT c.id, l.amount FROM customers c LEFT JOIN LATERAL (SELECT o.amount FROM orders o WHERE o.items > c.id ORDER BY o.id LIMIT 1) l ON true',
	'`LATERAL` function' => 'SELECT o.id, t.tag FROM orders o, unnest(o.tags) t (tag)',
	'set-returning function in `SELECT`' => 'SELECT id, generate_series(1, items) AS n FROM orders',
	'`VALUES`' => q{SELECT o.id, v.label FROM orders o JOIN (VALUES ('new', 1), ('paid', 2)) v (status, label) ON v.status = o.status},
	'`GROUP BY`: `count`, `sum`, `avg`' => 'SELECT customer, count(*) AS c, sum(amount) AS s, avg(items) AS a FROM orders GROUP BY customer',
	'`FILTER`, `HAVING`' => q{SELECT customer, count(*) FILTER (WHERE status = 'new') AS c FROM orders GROUP BY customer HAVING sum(amount) > 10},
	'aggregate without `GROUP BY`' => 'SELECT count(*) AS c, sum(amount) AS s FROM orders',
	'`min`, `max`' => 'SELECT customer, min(day) AS first, max(day) AS last FROM orders GROUP BY customer',
	'variance of exact types' => 'SELECT customer, variance(items) AS v, stddev(amount) AS s FROM orders GROUP BY customer',
	'aggregates of booleans, intervals' => q{SELECT customer, bool_and(items > 1) AS every, sum(day - date '2024-01-01') AS days FROM orders GROUP BY customer},
	'sum of floats' => 'SELECT customer, sum(amount::float8) AS s FROM orders GROUP BY customer',
	'`DISTINCT` in an aggregate' => 'SELECT customer, count(DISTINCT status) AS c FROM orders GROUP BY customer',
	'`string_agg`, `array_agg`, `jsonb_agg`' => q{SELECT customer, string_agg(note, ',' ORDER BY id) AS notes, array_agg(id) AS ids, jsonb_agg(status) AS j FROM orders GROUP BY customer},
	'ordered-set aggregate' => 'SELECT customer, percentile_disc(0.5) WITHIN GROUP (ORDER BY items) AS median FROM orders GROUP BY customer',
	'`GROUPING SETS`, `CUBE`, `ROLLUP`' => 'SELECT customer, status, count(*) AS c, grouping(customer) AS g FROM orders GROUP BY ROLLUP (customer, status)',
	'aggregate over an aggregate' => 'SELECT c, count(*) AS customers FROM (SELECT customer, count(*) AS c FROM orders GROUP BY customer) t GROUP BY c',
	'join with an aggregate' => 'SELECT c.name, t.s FROM customers c JOIN (SELECT customer, sum(amount) AS s FROM orders GROUP BY customer) t ON t.customer = c.id',
	'`DISTINCT`' => 'SELECT DISTINCT customer, status FROM orders',
	'`DISTINCT ON`' => 'SELECT DISTINCT ON (customer) customer, id, day FROM orders ORDER BY customer, day DESC',
	'`UNION ALL`' => 'SELECT id FROM orders UNION ALL SELECT id FROM customers',
	'`UNION`' => 'SELECT customer FROM orders UNION SELECT id FROM customers',
	'`INTERSECT`, `EXCEPT`' => 'SELECT customer FROM orders INTERSECT SELECT id FROM customers EXCEPT SELECT parent FROM parts',
	'`INTERSECT ALL`, `EXCEPT ALL`' => 'SELECT customer FROM orders EXCEPT ALL SELECT id FROM customers',
	'window function with `PARTITION BY`' => 'SELECT id, rank() OVER (PARTITION BY customer ORDER BY amount DESC) AS r, lag(amount) OVER (PARTITION BY customer ORDER BY id) AS before FROM orders',
	'window function over all rows' => 'SELECT id, sum(amount) OVER (ORDER BY id) AS running FROM orders',
	'`ORDER BY ... LIMIT`' => 'SELECT id, amount FROM orders ORDER BY amount DESC LIMIT 3',
	'`LIMIT` by a subquery' => 'SELECT id, amount FROM orders ORDER BY amount DESC LIMIT (SELECT count(*) FROM parts)',
	'`FETCH FIRST ... WITH TIES`' => 'SELECT id, amount FROM orders ORDER BY amount DESC FETCH FIRST 3 ROWS WITH TIES',
	'`WITH`' => 'WITH t AS (SELECT customer, sum(amount) AS s FROM orders GROUP BY customer) SELECT a.customer, b.customer AS richer FROM t a JOIN t b ON b.s > a.s',
	'`WITH RECURSIVE`, `UNION`' => 'WITH RECURSIVE up (id, above) AS (SELECT id, parent FROM parts UNION SELECT up.id, p.parent FROM up JOIN parts p ON p.id = up.above) SELECT id, above FROM up',
	'`WITH RECURSIVE`, `UNION ALL`' => q{WITH RECURSIVE path (id, way) AS (SELECT id, name FROM parts WHERE parent IS NULL UNION ALL SELECT p.id, path.way || '/' || p.name FROM path JOIN parts p ON p.parent = path.id) SELECT id, way FROM path},
	'condition on the moment' => q{SELECT id FROM orders WHERE day > current_date - 30},
	'the moment in the output' => 'SELECT id, current_date - day AS age FROM orders',
	'whole row' => 'SELECT id, to_jsonb(o) AS j FROM orders o');

# ([construct, query], ...)
sub constructs
{
	my @list;
	for (my $i = 0; $i < @CONSTRUCTS; $i += 2)
	{
		push @list, [ @CONSTRUCTS[ $i, $i + 1 ] ];
	}
	return @list;
}

1;
