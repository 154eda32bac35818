-- The shop's own tables, and a role for dbt that may read them; as a superuser.
CREATE ROLE shop LOGIN;
GRANT CREATE ON DATABASE analytics TO shop;
CREATE SCHEMA app;
CREATE TABLE app.customers (id integer PRIMARY KEY, region text NOT NULL, tier text NOT NULL);
CREATE TABLE app.orders (id integer PRIMARY KEY, customer_id integer NOT NULL, amount numeric NOT NULL, status text NOT NULL, created_at timestamptz NOT NULL);
CREATE TABLE app.payments (id integer PRIMARY KEY, order_id integer NOT NULL, amount numeric NOT NULL);
-- Updates and deletes say which row they were about; who owns the tables has to say so.
ALTER TABLE app.customers REPLICA IDENTITY FULL;
ALTER TABLE app.orders REPLICA IDENTITY FULL;
ALTER TABLE app.payments REPLICA IDENTITY FULL;
GRANT USAGE ON SCHEMA app TO shop;
GRANT SELECT ON ALL TABLES IN SCHEMA app TO shop;
INSERT INTO app.customers SELECT i, (ARRAY['north', 'south', 'east', 'west'])[1 + i % 4], (ARRAY['gold', 'silver'])[1 + i % 2] FROM generate_series(1, 200) i;
INSERT INTO app.orders SELECT i, 1 + i * 7 % 200, 5 + i % 90, (ARRAY['Placed', 'Shipped', 'Completed', 'Returned'])[1 + i % 4],
	timestamptz '2026-01-01' + i * interval '37 minutes' FROM generate_series(1, 3000) i;
INSERT INTO app.payments SELECT i, i, 5 + i % 90 FROM generate_series(1, 3000) i WHERE i % 10 <> 0;
