-- bench/tpch/changes.sql
--     What changes between two refreshes: one transaction that touches seven of the eight tables.
--
-- Variables: `every` (one row in so many is touched: 1000 is 0.1 %, the share of the specification's refresh functions),
-- `round` (which rows), `dimensions` (1: customer, part, supplier and partsupp change, too).  Which rows, and what becomes of
-- them, comes from hashes of their keys and the round, so that a run can be repeated.  Values rotate or come from another row: the
-- distributions stay what they were, and so does the work of the queries.
--
--   RF1   new orders with their lineitems: copies of others, with other customers and dates
--   RF2   orders go, with their lineitems
--   then  updates of orders and lineitem, each row in one of several ways; prices, quantities, dates, and keys too

BEGIN;

-- A whole number for a key: different for each purpose, never negative.
CREATE FUNCTION pg_temp.dice(key bigint, purpose integer, round integer) RETURNS integer
LANGUAGE sql IMMUTABLE
RETURN hashint8extended(key, purpose + 100 * round) & 1073741823;

-- RF2
CREATE TEMPORARY TABLE gone ON COMMIT DROP AS
SELECT o_orderkey FROM orders WHERE pg_temp.dice(o_orderkey, 1, :round) % :every = 0;
DELETE FROM lineitem WHERE l_orderkey IN (SELECT o_orderkey FROM gone);
DELETE FROM orders WHERE o_orderkey IN (SELECT o_orderkey FROM gone);

-- RF1
CREATE TEMPORARY TABLE copies ON COMMIT DROP AS
SELECT o_orderkey AS old_key, (SELECT max(o_orderkey) FROM orders) + row_number() OVER () AS new_key,
	pg_temp.dice(o_orderkey, 3, :round) % 31 - 15 AS days
FROM orders WHERE pg_temp.dice(o_orderkey, 2, :round) % :every = 0;
INSERT INTO orders
SELECT new_key, 1 + pg_temp.dice(new_key, 4, :round) % (SELECT count(*)::int FROM customer), o_orderstatus, o_totalprice, o_orderdate + days,
	o_orderpriority, o_clerk, o_shippriority, o_comment
FROM orders JOIN copies ON o_orderkey = old_key;
INSERT INTO lineitem
SELECT new_key, l_partkey, l_suppkey, l_linenumber, l_quantity, l_extendedprice, l_discount, l_tax, l_returnflag, l_linestatus,
	l_shipdate + days, l_commitdate + days, l_receiptdate + days, l_shipinstruct, l_shipmode, l_comment
FROM lineitem JOIN copies ON l_orderkey = old_key;

-- updates of the facts
UPDATE orders SET
	o_custkey = CASE WHEN way = 0 THEN 1 + pg_temp.dice(o_orderkey, 6, :round) % (SELECT count(*)::int FROM customer) ELSE o_custkey END,
	o_totalprice = CASE WHEN way < 3 THEN o_totalprice + 100 ELSE o_totalprice END,
	o_orderdate = CASE WHEN way = 2 THEN o_orderdate + 9 ELSE o_orderdate END,
	o_orderstatus = CASE WHEN way = 3 THEN translate(o_orderstatus, 'FOP', 'OFF') ELSE o_orderstatus END,
	o_orderpriority = CASE WHEN way = 4 THEN other_priority ELSE o_orderpriority END,
	o_comment = CASE WHEN way = 5 THEN other_comment ELSE o_comment END
FROM (SELECT o_orderkey AS key, pg_temp.dice(o_orderkey, 7, :round) % 6 AS way,
		lag(o_orderpriority, 1, o_orderpriority) OVER w AS other_priority, lag(o_comment, 1, o_comment) OVER w AS other_comment
	FROM orders WHERE pg_temp.dice(o_orderkey, 5, :round) % :every = 0
	WINDOW w AS (ORDER BY o_orderkey)) chosen
WHERE o_orderkey = key;
UPDATE lineitem SET
	l_quantity = CASE WHEN way < 2 THEN 1 + (l_quantity + 11) % 50 ELSE l_quantity END,
	l_extendedprice = CASE WHEN way < 2 THEN l_extendedprice / l_quantity * (1 + (l_quantity + 11) % 50) ELSE l_extendedprice END,
	l_discount = CASE WHEN way = 2 THEN (l_discount + 0.01) % 0.11 ELSE l_discount END,
	l_shipdate = CASE WHEN way = 3 THEN l_shipdate + 5 ELSE l_shipdate END,
	l_receiptdate = CASE WHEN way IN (3, 4) THEN l_commitdate + 3 ELSE l_receiptdate END,
	l_returnflag = CASE WHEN way = 5 THEN translate(l_returnflag, 'ARN', 'RAN') ELSE l_returnflag END,
	l_shipmode = CASE WHEN way = 6 THEN other_mode ELSE l_shipmode END,
	-- another supplier of the same part
	l_suppkey = CASE WHEN way = 7 THEN (SELECT max(ps_suppkey) FROM partsupp WHERE ps_partkey = l_partkey) ELSE l_suppkey END
FROM (SELECT l_orderkey AS key, l_linenumber AS number, pg_temp.dice(l_orderkey * 8 + l_linenumber, 9, :round) % 8 AS way,
		lag(l_shipmode, 1, l_shipmode) OVER (ORDER BY l_orderkey, l_linenumber) AS other_mode
	FROM lineitem WHERE pg_temp.dice(l_orderkey * 8 + l_linenumber, 8, :round) % :every = 0) chosen
WHERE l_orderkey = key AND l_linenumber = number;

-- and of what they refer to: the same share, and at least one row or so
UPDATE customer SET
	c_acctbal = c_acctbal + 10.5,
	c_mktsegment = CASE WHEN way = 1 THEN other_segment ELSE c_mktsegment END,
	c_nationkey = CASE WHEN way = 2 THEN (c_nationkey + 1) % 25 ELSE c_nationkey END,
	c_phone = CASE WHEN way = 3 THEN other_phone ELSE c_phone END
FROM (SELECT c_custkey AS key, pg_temp.dice(c_custkey, 11, :round) % 4 AS way,
		lead(c_mktsegment) OVER w AS other_segment, lead(c_phone) OVER w AS other_phone
	FROM customer WINDOW w AS (ORDER BY c_custkey)) chosen
WHERE c_custkey = key AND other_phone IS NOT NULL AND :dimensions = 1
  AND pg_temp.dice(key, 10, :round) % least(:every, (SELECT count(*) FROM customer)) = 0;
UPDATE supplier SET
	s_acctbal = s_acctbal - 3.25,
	s_nationkey = CASE WHEN way = 1 THEN (s_nationkey + 7) % 25 ELSE s_nationkey END,
	s_comment = CASE WHEN way = 2 THEN other_comment ELSE s_comment END
FROM (SELECT s_suppkey AS key, pg_temp.dice(s_suppkey, 13, :round) % 3 AS way,
		lead(s_comment) OVER (ORDER BY s_suppkey) AS other_comment FROM supplier) chosen
WHERE s_suppkey = key AND other_comment IS NOT NULL AND :dimensions = 1
  AND pg_temp.dice(key, 12, :round) % least(:every, (SELECT count(*) FROM supplier)) = 0;
UPDATE part SET
	p_size = CASE WHEN way = 0 THEN other_size ELSE p_size END,
	p_type = CASE WHEN way = 1 THEN other_type ELSE p_type END,
	p_brand = CASE WHEN way = 2 THEN other_brand ELSE p_brand END,
	p_container = CASE WHEN way = 2 THEN other_container ELSE p_container END,
	p_name = CASE WHEN way = 3 THEN other_name ELSE p_name END
FROM (SELECT p_partkey AS key, pg_temp.dice(p_partkey, 15, :round) % 4 AS way, lead(p_size) OVER w AS other_size, lead(p_type) OVER w AS other_type,
		lead(p_brand) OVER w AS other_brand, lead(p_container) OVER w AS other_container, lead(p_name) OVER w AS other_name
	FROM part WINDOW w AS (ORDER BY p_partkey)) chosen
WHERE p_partkey = key AND other_size IS NOT NULL AND :dimensions = 1
  AND pg_temp.dice(key, 14, :round) % least(:every, (SELECT count(*) FROM part)) = 0;
UPDATE partsupp SET
	ps_supplycost = CASE WHEN way = 0 THEN 1 + (ps_supplycost + 333) % 1000 ELSE ps_supplycost END,
	ps_availqty = CASE WHEN way = 1 THEN 1 + (ps_availqty + 3333) % 9999 ELSE ps_availqty END
FROM (SELECT ps_partkey AS part, ps_suppkey AS supp, pg_temp.dice(ps_partkey * 100000::bigint + ps_suppkey, 17, :round) % 2 AS way FROM partsupp
	WHERE pg_temp.dice(ps_partkey * 100000::bigint + ps_suppkey, 16, :round) % least(:every, (SELECT count(*) FROM partsupp)) = 0) chosen
WHERE ps_partkey = part AND ps_suppkey = supp AND :dimensions = 1;

COMMIT;
