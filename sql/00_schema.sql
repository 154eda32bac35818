/*
 * sql/00_schema.sql
 *     The schema that holds everything of the extension; CREATE EXTENSION has made it.
 *
 * Everybody may look into it: what a role may do is decided function by function and view by view.
 */

COMMENT ON SCHEMA pgtrickle IS 'stream tables: functions, views and bookkeeping';
GRANT USAGE ON SCHEMA pgtrickle TO PUBLIC;
