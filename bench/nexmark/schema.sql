-- bench/nexmark/schema.sql
--     The tables of Nexmark, an online auction: persons, auctions and bids, and the side input of query 13.

CREATE TABLE person (id bigint PRIMARY KEY, name text, email_address text, credit_card text, city text, state text, date_time timestamp, extra text);
CREATE TABLE auction (id bigint PRIMARY KEY, item_name text, description text, initial_bid bigint, reserve bigint, date_time timestamp, expires timestamp,
	seller bigint, category bigint, extra text);
CREATE TABLE bid (auction bigint, bidder bigint, price bigint, channel text, url text, date_time timestamp, extra text);
CREATE INDEX ON auction (seller);
CREATE INDEX ON bid (auction);
CREATE INDEX ON bid (bidder);
CREATE TABLE side_input (key bigint PRIMARY KEY, value text);
INSERT INTO side_input SELECT i, 'side ' || i FROM generate_series(0, 9999) i;

-- A whole number for an event: different for each purpose, never negative.
CREATE FUNCTION dice(event bigint, purpose integer) RETURNS bigint LANGUAGE sql IMMUTABLE
RETURN hashint8extended(event, purpose) & 1073741823;
