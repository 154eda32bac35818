/*
 * demo/stream_tables.sql
 *     The stream tables: one of silver, three of gold, and one on top of gold.
 *
 *     airlines  airports  flights  weather
 *         └────────┴──┬──────┴────────┘
 *               silver_flights
 *        ┌────────────┼────────────┐
 *   carrier_days    routes    weather_hours
 *                                  │
 *                            weather_impact
 */

-- Silver: every flight with the names it stands for and the weather of its hour.
SELECT pgtrickle.create_stream_table('silver_flights', $$
	SELECT f.flight_id, f.carrier, a.name AS airline, f.flight_no, f.sched_dep, f.time_hour,
		   f.origin, o.name AS origin_name, f.dest, d.name AS dest_name, f.distance,
		   f.status, f.dep_delay, f.arr_delay,
		   w.temp, w.wind_speed, w.precip, w.visib
	  FROM flights f
	  JOIN airlines a ON a.carrier = f.carrier
	  JOIN airports o ON o.faa = f.origin
	  JOIN airports d ON d.faa = f.dest
	  JOIN weather w ON w.origin = f.origin AND w.time_hour = f.time_hour
$$, schedule => 'continuous', refresh_mode => 'DIFFERENTIAL');

-- A stream table may be indexed like any table.  This one is for carrier_days: when the row with the largest delay of a
-- group goes, max() has to look at the others of the group.
CREATE INDEX ON silver_flights (airline, ((sched_dep AT TIME ZONE 'America/New_York')::date));

-- Gold: delays and cancellations by carrier and day.
SELECT pgtrickle.create_stream_table('carrier_days', $$
	SELECT airline, (sched_dep AT TIME ZONE 'America/New_York')::date AS day,
		   count(*) AS flights,
		   count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
		   count(*) FILTER (WHERE dep_delay >= 15) AS late,
		   avg(dep_delay) AS avg_dep_delay,
		   max(dep_delay) AS max_dep_delay
	  FROM silver_flights
	 GROUP BY airline, (sched_dep AT TIME ZONE 'America/New_York')::date
$$, schedule => 'continuous', refresh_mode => 'DIFFERENTIAL');

-- Gold: routes.  Who reads it sorts it: the busiest ones are its first rows by number of flights.
SELECT pgtrickle.create_stream_table('routes', $$
	SELECT origin, dest, dest_name, distance,
		   count(*) AS flights,
		   count(*) FILTER (WHERE status = 'landed') AS landed,
		   avg(arr_delay) AS avg_arr_delay
	  FROM silver_flights
	 GROUP BY origin, dest, dest_name, distance
$$, schedule => 'continuous', refresh_mode => 'DIFFERENTIAL');

-- Gold: each hour at each airport, its weather and what became of its flights.
SELECT pgtrickle.create_stream_table('weather_hours', $$
	SELECT origin, time_hour,
		   CASE WHEN precip > 0 AND temp <= 32 THEN 'snow'
				WHEN precip > 0 THEN 'rain'
				WHEN visib < 3 THEN 'fog'
				WHEN wind_speed >= 25 THEN 'storm'
				ELSE 'fair' END AS conditions,
		   count(*) AS flights,
		   count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
		   count(dep_delay) AS departed,
		   sum(dep_delay) AS minutes_late
	  FROM silver_flights
	 GROUP BY 1, 2, 3
$$, schedule => 'continuous', refresh_mode => 'DIFFERENTIAL');

-- On top of gold: what each kind of weather does to flights.
SELECT pgtrickle.create_stream_table('weather_impact', $$
	SELECT conditions,
		   count(*) AS hours,
		   sum(flights) AS flights,
		   sum(cancelled) AS cancelled,
		   sum(departed) AS departed,
		   sum(minutes_late) AS minutes_late
	  FROM weather_hours
	 GROUP BY conditions
$$, schedule => 'continuous', refresh_mode => 'DIFFERENTIAL');
