-- bench/nexmark/events.sql
--     The events :first to :last: of each fifty, one is a person, three are auctions, the others bids.
--
-- A person, auction or bid comes from the hash of its number, so that a run can be repeated.  Ten milliseconds pass from event to event.  Half of the bids go to one of
-- the last few auctions, and a quarter comes from one of the last few persons, as in the original generator.

BEGIN;
INSERT INTO person
SELECT e / 50, 'Person ' || e / 50, 'p' || e / 50 || '@example.com', dice(e, 1)::text, (ARRAY['Phoenix', 'Boise', 'Salem', 'Cheyenne'])[1 + dice(e, 2) % 4],
	(ARRAY['AZ', 'CA', 'ID', 'OR', 'WA', 'WY'])[1 + dice(e, 3) % 6], timestamp '2024-01-01' + e * interval '10 milliseconds', 'extra ' || dice(e, 4)
FROM generate_series(:first::bigint, :last::bigint) e WHERE e % 50 = 0;
INSERT INTO auction
SELECT e / 50 * 3 + e % 50 - 1, 'item ' || dice(e, 1) % 1000, 'description', 1 + dice(e, 2) % 1000, 100 + dice(e, 3) % 5000, timestamp '2024-01-01' + e * interval '10 milliseconds',
	timestamp '2024-01-01' + (e + 200 + dice(e, 4) % 4000) * interval '10 milliseconds', greatest(e / 50 - dice(e, 5) % 40, 0), 10 + dice(e, 6) % 5, 'extra ' || dice(e, 7)
FROM generate_series(:first::bigint, :last::bigint) e WHERE e % 50 BETWEEN 1 AND 3;
INSERT INTO bid
SELECT greatest(e / 50 * 3 - dice(e, 1) % (CASE WHEN dice(e, 2) % 2 = 0 THEN 4 ELSE 300 END), 0), greatest(e / 50 - dice(e, 3) % (CASE WHEN dice(e, 4) % 4 = 0 THEN 3 ELSE 100 END), 0),
	1 + dice(e, 5) % 10000, (ARRAY['apple', 'google', 'facebook', 'baidu', 'channel-' || dice(e, 6) % 1000])[1 + dice(e, 7) % 5],
	'https://www.nexmark.com/' || dice(e, 8) % 100 || '/' || dice(e, 9) % 100 || '/item.htm?query=1&channel_id=' || dice(e, 10) % 1000,
	timestamp '2024-01-01' + e * interval '10 milliseconds', 'extra cc ' || dice(e, 11)
FROM generate_series(:first::bigint, :last::bigint) e WHERE e % 50 > 3;
COMMIT;
