/*
 * applier/sql/remote_move_wal.sql
 *     Writes a record behind the position that was read before, so that the stream of an idle remote gets there.
 */
SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_xact_id() END;
