-- The warehouse, as a superuser: role, schemas, and the lake as foreign tables.  :directory is where the files are.
CREATE USER dbt WITH PASSWORD 'secret';
GRANT ALL PRIVILEGES ON DATABASE analytics TO dbt;
CREATE SCHEMA bronze AUTHORIZATION dbt;
CREATE SCHEMA silver AUTHORIZATION dbt;
CREATE SCHEMA gold AUTHORIZATION dbt;

-- trips: a file, as parquet_s3_fdw would show one in a bucket
CREATE EXTENSION file_fdw;
CREATE SERVER lake FOREIGN DATA WRAPPER file_fdw;
\set trips :directory '/trips.csv'
CREATE FOREIGN TABLE bronze.nyc_yellow_trips (
  vendor_id integer,
  pickup_at timestamp,
  dropoff_at timestamp,
  passenger_count integer,
  trip_distance double precision,
  rate_code_id integer,
  store_and_fwd_flag text,
  pu_location_id integer,
  do_location_id integer,
  payment_type integer,
  fare_amount double precision,
  tip_amount double precision,
  total_amount double precision,
  dt text -- partition key
) SERVER lake OPTIONS (filename :'trips', format 'csv', header 'true');
GRANT SELECT ON bronze.nyc_yellow_trips TO dbt;

-- zones: a table of another database
CREATE DATABASE lookups;
\connect lookups
CREATE TABLE zone_lookup (zone_id integer PRIMARY KEY, borough text, zone_name text, service_zone text);
\set zones :directory '/zones.csv'
COPY zone_lookup FROM :'zones' (FORMAT csv, HEADER);
GRANT SELECT ON zone_lookup TO dbt;
\connect analytics
CREATE EXTENSION postgres_fdw;
SELECT current_setting('unix_socket_directories') AS socket \gset
CREATE SERVER lookups FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host :'socket', dbname 'lookups');
-- mapped for dbt: stream tables are refreshed with their owner's rights
CREATE USER MAPPING FOR dbt SERVER lookups OPTIONS (user 'dbt', password_required 'false');
GRANT USAGE ON FOREIGN SERVER lookups TO dbt;
SET ROLE dbt;
IMPORT FOREIGN SCHEMA public LIMIT TO (zone_lookup) FROM SERVER lookups INTO bronze;

-- trips that are still arriving: a table of this database, which pgtrickle follows change by change
CREATE TABLE bronze.live_trips (LIKE bronze.nyc_yellow_trips, trip_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
