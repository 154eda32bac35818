/*
 * demo/sources.sql
 *     The source tables: plain tables that know nothing about stream tables.
 *
 * airlines and airports are loaded before the replay starts; flights and weather are what it writes.
 */

CREATE TABLE airlines (
	carrier text PRIMARY KEY,
	name text NOT NULL
);

CREATE TABLE airports (
	faa text PRIMARY KEY,
	name text NOT NULL,
	lat double precision,
	lon double precision
);

CREATE TABLE weather (
	origin text NOT NULL,
	time_hour timestamptz NOT NULL,
	temp numeric,				-- degrees Fahrenheit
	wind_speed numeric,			-- miles per hour
	precip numeric,				-- inches
	visib numeric,				-- miles
	PRIMARY KEY (origin, time_hour)
);

CREATE TABLE flights (
	flight_id bigint PRIMARY KEY,
	carrier text NOT NULL,
	flight_no integer NOT NULL,
	tailnum text,
	origin text NOT NULL,
	dest text NOT NULL,
	distance integer NOT NULL,
	sched_dep timestamptz NOT NULL,
	time_hour timestamptz NOT NULL,	-- sched_dep, cut to the hour: the key to weather
	status text NOT NULL,			-- scheduled, departed, landed, diverted, cancelled
	dep_delay integer,				-- minutes; negative: early
	arr_delay integer,
	air_time integer
);

-- When the weather of an hour is known, the hour's flights are looked up.
CREATE INDEX flights_origin_time_hour ON flights (origin, time_hour);
