/*
 * applier/sql/copy_session.sql
 *     Both ends of a copy speak the same text: values are written by one server and read by another.
 *
 * Rows that a policy hides would be missing from the copy without a word: off makes that an error.
 */
SELECT pg_catalog.set_config(name, value, false)
FROM (VALUES
	('search_path', 'pg_catalog, pg_temp'),
	('client_min_messages', 'warning'),
	('datestyle', 'ISO'),
	('intervalstyle', 'postgres'),
	('timezone', 'UTC'),
	('extra_float_digits', '3'),
	('bytea_output', 'hex'),
	('lc_monetary', 'C'),
	('xmloption', 'content'),
	('row_security', 'off'),
	('statement_timeout', '0'),
	('idle_in_transaction_session_timeout', '0'),
	('client_encoding', $1)) setting (name, value);
