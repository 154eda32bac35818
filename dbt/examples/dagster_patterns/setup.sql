-- Events of an application, made up.
CREATE SCHEMA app;
CREATE TABLE app.events (event_id integer PRIMARY KEY, event_time timestamptz NOT NULL, user_id integer NOT NULL, event_type text NOT NULL);
INSERT INTO app.events SELECT i, timestamptz '2026-01-01' + i * interval '7 minutes', i % 50, (ARRAY['view', 'click', 'buy'])[1 + i % 3] FROM generate_series(1, 1000) i;
