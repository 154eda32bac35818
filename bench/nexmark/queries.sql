-- bench/nexmark/queries.sql
--     Queries 0 to 22 of Nexmark, over tables: windows of time are ordinary grouping, and an answer covers all events so far.
--
-- A line "-- Qn" starts a query.  Query 12 counts by the clock of the machine that runs it, so it has no answer that could be compared, and query 6 is
-- the original one, which most stream processors leave out.  Hopping windows are a join with generate_series, sessions a running sum over gaps.

-- Q0
SELECT auction, bidder, price, date_time, extra FROM bid

-- Q1
SELECT auction, bidder, 0.908 * price AS price, date_time, extra FROM bid

-- Q2
SELECT auction, price FROM bid WHERE auction % 123 = 0

-- Q3
SELECT p.name, p.city, p.state, a.id
FROM auction a JOIN person p ON a.seller = p.id
WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA')

-- Q4
SELECT q.category, avg(q.final) AS average
FROM (
	SELECT max(b.price) AS final, a.category
	FROM auction a, bid b
	WHERE a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires
	GROUP BY a.id, a.category) q
GROUP BY q.category

-- Q5
WITH counted AS (
	SELECT b.auction, hop.starts, count(*) AS num
	FROM bid b, LATERAL (
		SELECT date_bin('2 seconds', b.date_time, timestamp '2024-01-01') - i * interval '2 seconds' AS starts
		FROM generate_series(0, 4) i) hop
	GROUP BY b.auction, hop.starts)
SELECT c.auction, c.num, c.starts
FROM counted c JOIN (SELECT starts, max(num) AS most FROM counted GROUP BY starts) m ON m.starts = c.starts AND c.num >= m.most

-- Q6
SELECT seller, avg(final) OVER (PARTITION BY seller ORDER BY date_time, id ROWS BETWEEN 10 PRECEDING AND CURRENT ROW) AS average, id
FROM (
	SELECT DISTINCT ON (a.id) a.id, a.seller, b.price AS final, b.date_time
	FROM auction a JOIN bid b ON a.id = b.auction
	WHERE b.date_time BETWEEN a.date_time AND a.expires
	ORDER BY a.id, b.price DESC, b.date_time) q

-- Q7
SELECT b.auction, b.price, b.bidder, b.date_time
FROM bid b JOIN (
	SELECT max(price) AS maxprice, date_bin('10 seconds', date_time, timestamp '2024-01-01') AS starts
	FROM bid
	GROUP BY date_bin('10 seconds', date_time, timestamp '2024-01-01')) m
  ON b.price = m.maxprice AND date_bin('10 seconds', b.date_time, timestamp '2024-01-01') = m.starts

-- Q8
SELECT p.id, p.name, p.starts
FROM (
	SELECT id, name, date_bin('10 seconds', date_time, timestamp '2024-01-01') AS starts
	FROM person
	GROUP BY id, name, date_bin('10 seconds', date_time, timestamp '2024-01-01')) p
JOIN (
	SELECT seller, date_bin('10 seconds', date_time, timestamp '2024-01-01') AS starts
	FROM auction
	GROUP BY seller, date_bin('10 seconds', date_time, timestamp '2024-01-01')) a
  ON p.id = a.seller AND p.starts = a.starts

-- Q9
SELECT id, item_name, seller, category, auction, bidder, price, bid_date_time
FROM (
	SELECT a.*, b.auction, b.bidder, b.price, b.date_time AS bid_date_time,
		row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b.date_time) AS rownum
	FROM auction a, bid b
	WHERE a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires) q
WHERE rownum <= 1

-- Q10
SELECT auction, bidder, price, date_time, extra, to_char(date_time, 'YYYY-MM-DD') AS dt, to_char(date_time, 'HH24:MI') AS hm FROM bid

-- Q11
WITH gaps AS (
	SELECT bidder, date_time,
		CASE WHEN date_time - lag(date_time) OVER (PARTITION BY bidder ORDER BY date_time) < interval '10 seconds' THEN 0 ELSE 1 END AS starts
	FROM bid),
sessions AS (
	SELECT bidder, date_time, sum(starts) OVER (PARTITION BY bidder ORDER BY date_time) AS session
	FROM gaps)
SELECT bidder, count(*) AS bid_count, min(date_time) AS starttime, max(date_time) AS endtime
FROM sessions
GROUP BY bidder, session

-- Q13
SELECT b.auction, b.bidder, b.price, b.date_time, s.value
FROM bid b JOIN side_input s ON b.auction % 10000 = s.key

-- Q14
SELECT auction, bidder, 0.908 * price AS price,
	CASE WHEN extract(hour FROM date_time) BETWEEN 8 AND 18 THEN 'dayTime'
		WHEN extract(hour FROM date_time) <= 6 OR extract(hour FROM date_time) >= 20 THEN 'nightTime'
		ELSE 'otherTime' END AS bid_time_type,
	date_time, extra, length(extra) - length(replace(extra, 'c', '')) AS c_counts
FROM bid
WHERE 0.908 * price > 1000 AND 0.908 * price < 50000000

-- Q15
SELECT to_char(date_time, 'YYYY-MM-DD') AS day,
	count(*) AS total_bids,
	count(*) FILTER (WHERE price < 10000) AS rank1_bids,
	count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids,
	count(DISTINCT bidder) AS total_bidders,
	count(DISTINCT bidder) FILTER (WHERE price < 10000) AS rank1_bidders,
	count(DISTINCT auction) AS total_auctions,
	count(DISTINCT auction) FILTER (WHERE price < 10000) AS rank1_auctions
FROM bid
GROUP BY to_char(date_time, 'YYYY-MM-DD')

-- Q16
SELECT channel, to_char(date_time, 'YYYY-MM-DD') AS day, max(to_char(date_time, 'HH24:MI')) AS minute,
	count(*) AS total_bids,
	count(*) FILTER (WHERE price < 10000) AS rank1_bids,
	count(DISTINCT bidder) AS total_bidders,
	count(DISTINCT bidder) FILTER (WHERE price < 10000) AS rank1_bidders,
	count(DISTINCT auction) AS total_auctions
FROM bid
GROUP BY channel, to_char(date_time, 'YYYY-MM-DD')

-- Q17
SELECT auction, to_char(date_time, 'YYYY-MM-DD') AS day,
	count(*) AS total_bids,
	count(*) FILTER (WHERE price < 10000) AS rank1_bids,
	min(price) AS min_price, max(price) AS max_price, avg(price) AS avg_price, sum(price) AS sum_price
FROM bid
GROUP BY auction, to_char(date_time, 'YYYY-MM-DD')

-- Q18
SELECT auction, bidder, price, channel, url, date_time, extra
FROM (
	SELECT *, row_number() OVER (PARTITION BY bidder, auction ORDER BY date_time DESC) AS rank_number
	FROM bid) q
WHERE rank_number <= 1

-- Q19
SELECT *
FROM (
	SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS rank_number
	FROM bid) q
WHERE rank_number <= 10

-- Q20
SELECT b.auction, b.bidder, b.price, b.channel, b.url, b.date_time AS bid_time, a.item_name, a.description, a.initial_bid, a.reserve,
	a.date_time AS auction_time, a.expires, a.seller, a.category
FROM bid b JOIN auction a ON b.auction = a.id
WHERE a.category = 10

-- Q21
SELECT auction, bidder, price, channel,
	CASE WHEN lower(channel) = 'apple' THEN '0'
		WHEN lower(channel) = 'google' THEN '1'
		WHEN lower(channel) = 'facebook' THEN '2'
		WHEN lower(channel) = 'baidu' THEN '3'
		ELSE substring(url FROM '[&?]channel_id=([^&]*)') END AS channel_id
FROM bid
WHERE substring(url FROM '[&?]channel_id=([^&]*)') IS NOT NULL OR lower(channel) IN ('apple', 'google', 'facebook', 'baidu')

-- Q22
SELECT auction, bidder, price, channel, split_part(url, '/', 4) AS dir1, split_part(url, '/', 5) AS dir2, split_part(url, '/', 6) AS dir3
FROM bid
