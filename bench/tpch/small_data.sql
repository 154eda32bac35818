-- bench/tpch/small_data.sql
--     A few thousand rows that look like those of TPC-H, for the test of all 22 queries: no generator and no network needed.
--
-- What the queries' parameters ask for is more frequent than in the specification's data, so that none of them has an empty answer.  All values come
-- from hashes of the keys; `pick` takes one of some words.

CREATE FUNCTION dice(key bigint, purpose integer) RETURNS integer LANGUAGE sql IMMUTABLE
RETURN hashint8extended(key, purpose) & 1073741823;

CREATE FUNCTION pick(key bigint, purpose integer, words text[]) RETURNS text LANGUAGE sql IMMUTABLE
RETURN words[1 + dice(key, purpose) % cardinality(words)];

INSERT INTO region SELECT i, (ARRAY['AFRICA', 'AMERICA', 'ASIA', 'EUROPE', 'MIDDLE EAST'])[i + 1], 'region' FROM generate_series(0, 4) i;
INSERT INTO nation
SELECT i, (ARRAY['ALGERIA', 'ARGENTINA', 'BRAZIL', 'CANADA', 'EGYPT', 'ETHIOPIA', 'FRANCE', 'GERMANY', 'INDIA', 'INDONESIA', 'IRAN', 'IRAQ', 'JAPAN',
	'JORDAN', 'KENYA', 'MOROCCO', 'MOZAMBIQUE', 'PERU', 'CHINA', 'ROMANIA', 'SAUDI ARABIA', 'VIETNAM', 'RUSSIA', 'UNITED KINGDOM', 'UNITED STATES'])[i + 1],
	(ARRAY[0, 1, 1, 1, 4, 0, 3, 3, 2, 2, 4, 4, 2, 4, 0, 0, 0, 1, 2, 3, 4, 2, 3, 3, 1])[i + 1], 'nation'
FROM generate_series(0, 24) i;

-- nations that the queries name come up more often
CREATE FUNCTION some_nation(key bigint, purpose integer) RETURNS integer LANGUAGE sql IMMUTABLE
RETURN (ARRAY[2, 3, 6, 7, 8, 20, dice(key, purpose + 1) % 25])[1 + dice(key, purpose) % 7];

INSERT INTO supplier
SELECT i, 'Supplier#' || i, 'street ' || i, some_nation(i, 10), 10 + i % 25 || '-555-' || i, dice(i, 12) % 1000000 / 100.0 - 999,
	CASE WHEN i % 13 = 0 THEN 'what Customer after Complaints' ELSE 'quiet ' || i END
FROM generate_series(1, 40) i;
INSERT INTO customer
SELECT i, 'Customer#' || i, 'avenue ' || i, some_nation(i, 20), pick(i, 22, ARRAY['13', '31', '23', '29', '30', '18', '17', '10', '11']) || '-555-' || i,
	dice(i, 23) % 1000000 / 100.0 - 999, pick(i, 24, ARRAY['BUILDING', 'MACHINERY', 'FURNITURE']), 'comment ' || i
FROM generate_series(1, 150) i;
INSERT INTO part
SELECT i, pick(i, 30, ARRAY['forest', 'green', 'ivory']) || ' ' || pick(i, 31, ARRAY['green', 'tan', 'navy']), 'Manufacturer#' || i % 5,
	pick(i, 32, ARRAY['Brand#12', 'Brand#23', 'Brand#34', 'Brand#45']),
	pick(i, 33, ARRAY['ECONOMY ANODIZED STEEL', 'PROMO BURNISHED BRASS', 'MEDIUM POLISHED TIN', 'SMALL PLATED BRASS']),
	(ARRAY[15, 3, 9, 14, 23, 49, 5])[1 + dice(i, 34) % 7],
	pick(i, 35, ARRAY['SM CASE', 'SM BOX', 'MED BOX', 'MED BAG', 'LG CASE', 'LG BOX']), 900 + i, 'part ' || i
FROM generate_series(1, 120) i;
INSERT INTO partsupp
SELECT DISTINCT ON (p, s) p, s, 1 + dice(p * 10 + n, 40) % 60, 1 + dice(p * 10 + n, 41) % 100000 / 100.0, 'partsupp'
FROM generate_series(1, 120) p, generate_series(0, 3) n, LATERAL (SELECT 1 + (p + n * 11 + p / 40) % 40 AS s) chosen;
INSERT INTO orders
SELECT i, 1 + dice(i, 50) % 120, pick(i, 51, ARRAY['F', 'O', 'P']), 1000 + dice(i, 52) % 40000000 / 100.0, date '1992-01-01' + dice(i, 53) % 2400,
	pick(i, 54, ARRAY['1-URGENT', '2-HIGH', '3-MEDIUM', '5-LOW']), 'Clerk#' || i % 7, 0,
	CASE WHEN i % 9 = 0 THEN 'the special packages requests' ELSE 'order ' || i END
FROM generate_series(1, 1500) i;
INSERT INTO lineitem
SELECT o_orderkey, ps_partkey, ps_suppkey, n, quantity, (900 + ps_partkey) * quantity, dice(line, 62) % 11 / 100.0, dice(line, 63) % 9 / 100.0,
	CASE WHEN o_orderstatus = 'F' THEN pick(line, 64, ARRAY['A', 'R']) ELSE 'N' END, CASE WHEN o_orderstatus = 'F' THEN 'F' ELSE 'O' END,
	shipped, shipped + dice(line, 65) % 30 - 10, shipped + 1 + dice(line, 66) % 30,
	pick(line, 67, ARRAY['DELIVER IN PERSON', 'COLLECT COD']), pick(line, 68, ARRAY['AIR', 'AIR REG', 'MAIL', 'SHIP', 'RAIL']), 'line ' || line
FROM orders, generate_series(1, 7) n,
	LATERAL (SELECT o_orderkey * 10 + n AS line) l,
	LATERAL (SELECT (CASE WHEN o_orderkey % 50 = 0 THEN 44 ELSE 1 END) + dice(line, 60) % 50 % (CASE WHEN o_orderkey % 50 = 0 THEN 7 ELSE 50 END) AS quantity,
		o_orderdate + 1 + dice(line, 61) % 120 AS shipped) q,
	LATERAL (SELECT 1 + dice(line, 69) % 120 AS p) wanted, LATERAL (SELECT * FROM partsupp WHERE ps_partkey = p
		ORDER BY ps_suppkey OFFSET dice(line, 70) % 4 LIMIT 1) s
WHERE n <= (CASE WHEN o_orderkey % 50 = 0 THEN 7 ELSE 1 + dice(o_orderkey, 71) % 5 END);
