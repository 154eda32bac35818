/*
 * sql/00_schema.sql
 *     The schema that holds everything of the extension.
 *
 * Made here, and not by CREATE EXTENSION (which would leave it behind), it belongs to the extension; and a schema of this name that somebody
 * else has made is an error instead of a trap.
 *
 * Everybody may look into it: what a role may do is decided function by function and view by view.
 */

CREATE SCHEMA pgtrickle;
COMMENT ON SCHEMA pgtrickle IS 'stream tables: functions, views and bookkeeping';
GRANT USAGE ON SCHEMA pgtrickle TO PUBLIC;
