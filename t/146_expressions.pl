# t/146_expressions.pl
#
# Goal: every kind of expression and of FROM item that PostgreSQL has, apart from subqueries over tables, is maintained by delta.
# Method: one table with a column of many types each, one with few, and stream tables that show a construct each: rows as values, functions
#         in FROM in all writings, arrays, composites, JSON, XML, ranges, enums, domains, collations, comparisons of rows; rounds of
#         random changes with NULLs in every column.  verify() compares images, so a wrong scale or case would show.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster qw(random_seed pick);
use StreamTables::Rounds qw(run_rounds);
use Test::More;

random_seed();
my $node = StreamTables::Cluster->new('expressions')->boot;
$node->start_applier;
$node->sql(q{
	CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
	CREATE TYPE pair AS (x int, y text);
	CREATE DOMAIN positive AS int CHECK (VALUE > 0);
	CREATE DOMAIN short AS text CHECK (length(VALUE) < 20);
	CREATE FUNCTION add(a int, b int DEFAULT 10) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT a + b';
	CREATE FUNCTION largest(VARIADIC v int[]) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT max(e) FROM unnest(v) e';
	CREATE FUNCTION halves(v int, OUT half int, OUT twice int) RETURNS SETOF record IMMUTABLE LANGUAGE sql
		AS 'SELECT v / 2, v * 2 UNION ALL SELECT v, v';
	CREATE FUNCTION as_pair(v int) RETURNS pair IMMUTABLE LANGUAGE sql AS $$SELECT (v, 'p' || v)::public.pair$$;
	CREATE TABLE t (id int PRIMARY KEY, gone int, k int, s text, n numeric, d date, ts timestamptz, iv interval, f float8, b boolean,
		ints int[], texts text[], grid int[], j jsonb, js json, x xml, p pair, m mood, dom positive, r int4range, mr int4multirange,
		pt point, ip inet, bits varbit, u uuid, by bytea);
	ALTER TABLE t DROP COLUMN gone;
	CREATE TABLE o (k int, label text);
	INSERT INTO o VALUES (1, 'one'), (2, 'two'), (2, NULL), (NULL, 'none');
	-- rows that are stored without a column that they have, and with one that is gone
	ALTER TABLE o ADD COLUMN later int DEFAULT 7, ADD COLUMN brief int DEFAULT 8;
	UPDATE o SET brief = 9 WHERE k = 1;
	ALTER TABLE o DROP COLUMN brief});

# One row of t, as values without the id.
sub row_values
{
	my $i = int rand 9;
	my @values = (
		$i % 4, "'s$i'", "$i.50", "date '2024-01-0" . (1 + $i) . "'", "timestamptz '2024-03-0" . (1 + $i) . " 12:30:00+02'",
		"interval '$i hours'", "$i * 0.1", $i % 2 ? 'true' : 'false',
		"ARRAY[$i, NULL, @{[$i + 1]}]", "ARRAY['a$i', 'b']", "ARRAY[[1, $i], [3, 4]]",
		qq('{"a": $i, "b": {"c": [1, 2, "z$i"]}, "list": [{"x": $i, "y": "q"}, {"x": 2}]}'), qq('{"a": $i, "a": 2}'),
		"xmlelement(name e, xmlattributes($i AS v), 'text')", "ROW($i, 'p$i')::pair", "'" . pick(qw(sad ok happy)) . "'",
		$i + 1, "int4range($i, @{[$i + 5]})", "int4multirange(int4range($i, @{[$i + 2]}), int4range(20, 30))", "point($i, 1)",
		"inet '10.0.0.$i/24'", "B'10$i'::text::varbit", "md5('$i')::uuid", "'\\x0$i'::bytea");
	$values[20] = 'inet \'10.0.0.' . $i . '\'';
	$values[21] = $i % 2 ? "B'101'" : "B'01'";
	# NULLs in every column, and now and then everywhere
	my $rate = rand() < 0.1 ? 0.9 : 0.15;
	return map { rand() < $rate ? 'NULL' : $_ } @values;
}

my @COLUMNS = qw(k s n d ts iv f b ints texts grid j js x p m dom r mr pt ip bits u by);
my $next_id = 1;

sub insert
{
	return 'INSERT INTO t (id, ' . join(', ', @COLUMNS) . ') VALUES (' . join(', ', $next_id++, row_values()) . ')';
}
$node->sql(join ';', map { insert() } 1 .. 12);

my @stories = (
	# whole rows
	row_as_json => 'SELECT id, to_jsonb(t) AS j, row_to_json(t) AS r, row_to_json(t, true) AS pretty FROM t',
	row_as_text => 'SELECT id, t::text AS a, t.*::text AS b FROM t',
	row_is_null => 'SELECT id, o IS NULL AS o_null, o IS NOT NULL AS o_full, t IS NOT NULL AS t_full FROM t JOIN o ON o.k = t.k OR o.k IS NULL',
	row_as_value => 'SELECT o AS row, k FROM o',
	rows_counted => 'SELECT t.k, count(t) AS rows, count(o) AS o_rows, count(DISTINCT o) AS different FROM t JOIN o USING (k) GROUP BY t.k',
	rows_collected => 'SELECT k, jsonb_agg(o ORDER BY label, later) AS all FROM o GROUP BY k',
	composites_collected => 'SELECT k, array_agg(p ORDER BY id) AS pairs FROM t GROUP BY k',
	row_of_subquery => q{SELECT to_jsonb(q) AS j FROM (SELECT o.label AS "The Label", t.id * 2 AS twice FROM t JOIN o USING (k)) q},
	row_of_join => 'SELECT to_jsonb(j) AS j FROM (t JOIN o USING (k)) AS j (one, two)',
	row_distinct_from => 'SELECT t.id FROM t JOIN o ON o.k = t.k WHERE o IS DISTINCT FROM NULL AND o IS DISTINCT FROM ROW(2, NULL, 7)::o',
	row_may_be_missing => 'SELECT t.id, to_jsonb(o) AS j, o IS NULL AS none, o IS NOT NULL AS some, o IS DISTINCT FROM NULL AS is_there FROM t LEFT JOIN o USING (k)',
	both_may_be_missing => 'SELECT to_jsonb(a) AS a, b AS b FROM (SELECT k, s FROM t) a FULL JOIN o b ON b.k = a.k',
	subquery_may_be_missing => 'SELECT t.id, row_to_json(q) AS q FROM t LEFT JOIN (SELECT k, label AS "The Label" FROM o WHERE label IS NOT NULL) q USING (k)',
	missing_rows_counted => 'SELECT t.k, count(o) AS o_rows, count(*) AS rows FROM t LEFT JOIN o ON o.k = t.k AND o.later = 7 GROUP BY t.k',
	row_field => 'SELECT (o).label, (t).p, (t.p).x, (as_pair(t.k)).y FROM t JOIN o USING (k)',
	rows_compared => 'SELECT a.k, b.label FROM o a JOIN o b ON a = b',
	# FROM
	of_values => q{SELECT t.id, v.name FROM t JOIN (VALUES (1, 'eins'), (2, 'zwei'), (NULL, 'nichts')) AS v (k, name) ON v.k = t.k},
	of_lateral_values => 'SELECT t.id, v.which, v.what FROM t CROSS JOIN LATERAL (VALUES (1, t.s), (2, t.m::text)) AS v (which, what)',
	of_lateral_query => 'SELECT t.id, q.up, q.e FROM t, LATERAL (SELECT upper(t.s) AS up, e FROM unnest(t.ints) e WHERE e > t.k ORDER BY e DESC LIMIT 1) q',
	of_series => 'SELECT t.id, g FROM t, generate_series(1, t.k) g',
	of_unnest => 'SELECT t.id, u.a, u.b, u.n FROM t CROSS JOIN unnest(t.ints, t.texts) WITH ORDINALITY AS u (a, b, n)',
	of_rows_from => q{SELECT t.id, z.* FROM t CROSS JOIN ROWS FROM (unnest(t.ints), generate_series(1, 2), halves(t.k)) WITH ORDINALITY AS z (i, g, half, twice, n)},
	of_scalar_function => 'SELECT t.id, h FROM t, abs(t.k) AS h',
	of_record_function => 'SELECT t.id, bo.half, bo.twice, to_jsonb(bo) AS row FROM t CROSS JOIN halves(t.k) bo',
	of_jsonb_each => 'SELECT t.id, e.key, e.value FROM t, jsonb_each(t.j) e',
	of_jsonb_elements => q{SELECT t.id, e ->> 'x' AS x, nth FROM t, jsonb_array_elements(t.j -> 'list') WITH ORDINALITY AS l (e, nth)},
	of_recordset => q{SELECT t.id, r.x, r.y FROM t, jsonb_to_recordset(t.j -> 'list') AS r (x int, y text)},
	of_matches => q{SELECT t.id, found[1] AS letter, found[2] AS digit FROM t, regexp_matches(t.s, '(.)(\d)') found},
	of_split => q{SELECT t.id, w FROM t, regexp_split_to_table(t.s || ' x y', '\s') w},
	of_xmltable => q{SELECT t.id, x.v, x.body FROM t, XMLTABLE('/e' PASSING t.x COLUMNS v int PATH '@v', body text PATH '.') x},
	of_series_grouped => 'SELECT u.e, count(*) AS c, sum(t.k) AS k FROM t, unnest(t.ints) u (e) GROUP BY u.e',
	of_no_table_with => 'WITH n AS (SELECT g FROM generate_series(1, 3) g) SELECT t.id, n.g FROM t JOIN n ON n.g = t.k',
	of_recursive_numbers => 'WITH w AS (WITH RECURSIVE r (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM r WHERE i < 3) SELECT i FROM r)
		SELECT t.id, w.i FROM t JOIN w ON w.i = t.k',
	in_target => 'SELECT id, unnest(ints) AS e, generate_series(1, 2) AS g FROM t',
	# expressions
	choices => q{SELECT id, CASE k WHEN 1 THEN 'one' WHEN 2 THEN 'two' ELSE s END AS simple, CASE WHEN b THEN n WHEN k > 1 THEN -n END AS searched,
		COALESCE(s, m::text, 'neither') AS first, NULLIF(k, 2) AS not_two, GREATEST(k, dom, 3) AS hi, LEAST(d, '2024-01-03') AS lo FROM t},
	comparisons => q{SELECT id, (k, s) < (2, 's5') AS less, (k, s) = (1, 's1') AS same, (k, dom) IN ((1, 2), (2, 3)) AS among,
		ROW(k, s) IS DISTINCT FROM ROW(1, s) AS differs, k BETWEEN SYMMETRIC 3 AND 1 AS between, k = ANY (ints) AS any, k <> ALL (ints) AS all,
		s IN ('s1', 's2', NULL) AS listed, k IS NOT DISTINCT FROM dom AS alike FROM t},
	truths => 'SELECT id, b IS TRUE AS t, b IS NOT TRUE AS nt, b IS UNKNOWN AS u, NOT b AS n, b AND k > 1 AS a, b OR k > 1 AS o, k IS NULL AS kn FROM t',
	arrays => q{SELECT id, ints[1] AS first, ints[2:3] AS slice, grid[1][2] AS cell, grid[1:2][1:1] AS col, ARRAY[k, dom] AS built, ARRAY[ARRAY[k], ARRAY[dom]] AS nested,
		ints || k AS appended, array_position(ints, k) AS at, texts::varchar[] AS cast, ints::text[] AS texts, cardinality(grid) AS size FROM t},
	composites => 'SELECT id, p, (p).y, ROW(k, s)::pair AS made, (ROW(k, s)::pair).x, p = ROW(1, \'p1\')::pair AS same FROM t',
	jsons => q{SELECT id, j -> 'b' -> 'c' ->> 2 AS z, j #>> '{b,c,0}' AS first, j @> '{"a": 1}' AS has, j['b']['c'][1] AS subscripted, j - 'a' AS less,
		jsonb_path_query_array(j, '$.list[*].x') AS xs, js, js ->> 'a' AS a, jsonb_build_object('k', k, 's', s) AS built FROM t},
	xmls => q{SELECT id, x, xmlelement(name wrapped, xmlattributes(k AS a), s) AS made, xmlforest(k, s AS word) AS forest, xmlconcat(x, x) AS twice,
		x IS DOCUMENT AS document, xmlserialize(CONTENT x AS text) AS t, xpath('/e/@v', x)::text AS path FROM t},
	ranges => q{SELECT id, r, mr, r @> 3 AS has, lower(r) AS lo, r * int4range(2, 6) AS common, mr + int4multirange(int4range(1, 3)) AS more, r -|- int4range(1, 2) AS next FROM t},
	enums => q{SELECT id, m, m > 'sad' AS better, enum_range(m, 'happy') AS rest FROM t WHERE m <> 'ok' OR k > 0},
	domains => q{SELECT id, dom, dom + 1 AS next, (abs(coalesce(k, 0)) + 1)::positive AS made, left(s, 5)::short AS short FROM t},
	moments => q{SELECT id, extract(year FROM d) AS y, date_part('dow', d) AS dow, date_trunc('hour', ts) AS hour, ts AT TIME ZONE 'UTC' AS utc, d + iv AS later, d - date '2024-01-01' AS days,
		(d, iv) OVERLAPS (date '2024-01-02', interval '1 day') AS overlaps, to_char(ts, 'YYYY-MM-DD') AS c, ts::date AS day, justify_hours(iv) AS j FROM t},
	texts_story => q{SELECT id, s LIKE 's%' AS l, s ILIKE 'S1' AS i, s SIMILAR TO 's[0-4]' AS si, s ~ '^s\d$' AS re, substring(s FROM 2 FOR 1) AS sub, position('1' IN s) AS pos,
		trim(BOTH 's' FROM s) AS tr, overlay(s PLACING 'X' FROM 1) AS ov, s COLLATE "C" < 's5' AS c, s || k AS cat, format('%s-%s', k, s) AS f, to_tsvector('simple', s) AS tv FROM t},
	collated => 'SELECT s COLLATE "C" AS s, count(*) AS c, max(s COLLATE "C") AS hi FROM t GROUP BY s COLLATE "C"',
	calls => 'SELECT id, add(b => k, a => 1) AS named, add(k) AS defaulted, largest(k, dom) AS many, largest(VARIADIC ints) AS spread FROM t',
	images => 'SELECT id, n, f, pt, ip, bits, u, by, iv, x, js FROM t WHERE k > 0',
	bag_of_images => 'SELECT k, n, pt, x, js FROM t',
	with_conditions => q{SELECT t.id, o.label FROM t JOIN o ON (t.k, true) = (o.k, t.b IS NOT FALSE) WHERE t.j ? 'a' AND t.ints && ARRAY[1, 2, 3] AND NOT t.r << int4range(2, 3)},
	constants_only => q{SELECT DISTINCT true AS any FROM t WHERE k = 3},
	joined_using => 'SELECT k, a.id, b.s FROM (t a JOIN o USING (k)) JOIN t b USING (k)',
	joined_alias => 'SELECT j.k, j.label, b.id FROM (t a JOIN o USING (k)) j JOIN t b USING (k)',
	naturally => 'SELECT * FROM (SELECT k, s FROM t) a NATURAL JOIN o');

sub change
{
	my $column = int rand @COLUMNS;
	my $value = (row_values())[$column];
	my $k = pick('NULL', 0 .. 3);

	return pick(
		sub { insert() },
		sub { "UPDATE t SET $COLUMNS[$column] = $value WHERE id % 5 = " . int rand 5 },
		sub { "UPDATE t SET $COLUMNS[$column] = $value WHERE id % 5 = " . int rand 5 },
		sub { "UPDATE t SET k = $k WHERE id % 3 = " . int rand 3 },
		sub { 'DELETE FROM t WHERE id % 7 = ' . int rand 7 },
		sub { "INSERT INTO o VALUES ($k, " . pick('NULL', "'x'", "'one'") . ', ' . pick('NULL', 1, 7) . ')' },
		sub { "DELETE FROM o WHERE k IS NOT DISTINCT FROM $k" },
		sub { "UPDATE o SET label = label || '!' WHERE k = $k" })->();
}

run_rounds($node,
	stories => \@stories,
	changes => \&change,
	rounds => 8,
	fixed => [
		'one side empties' => 'DELETE FROM o',
		'and is filled again while the other changes' => q{INSERT INTO o VALUES (1, 'a'), (2, 'b'), (3, NULL); UPDATE t SET k = k % 3 + 1}]);

like(
	$node->sql(q{SELECT string_agg(r::text, E'\n') FROM pgtrickle.validate_query('SELECT count(*) FROM (SELECT k, label FROM o) q GROUP BY q') r}),
	qr/a value of type record cannot be kept in a state table/,
	'a row without a type as a key says why it has no rule');

$node->stop_applier;
done_testing();
