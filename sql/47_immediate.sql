/*
 * sql/47_immediate.sql
 *     IMMEDIATE stream tables: the function behind the triggers on their sources, and changing the mode.
 *
 * The triggers themselves are made in C (delta/immediate_install.c); apply_change() (25_stream_table.sql) calls the others.
 */

CREATE FUNCTION pgtrickle.immediate_trigger() RETURNS trigger
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_immediate_trigger';
COMMENT ON FUNCTION pgtrickle.immediate_trigger() IS
	'trigger on sources of IMMEDIATE stream tables: maintains them';
REVOKE ALL ON FUNCTION pgtrickle.immediate_trigger() FROM PUBLIC;

CREATE FUNCTION pgtrickle.immediate_sync_triggers() RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_immediate_sync_triggers';
COMMENT ON FUNCTION pgtrickle.immediate_sync_triggers() IS
	'makes and drops triggers on sources of IMMEDIATE stream tables, as the definitions say';
REVOKE ALL ON FUNCTION pgtrickle.immediate_sync_triggers() FROM PUBLIC;

CREATE FUNCTION pgtrickle.immediate_catch_up(pgt_id bigint) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_immediate_catch_up';
COMMENT ON FUNCTION pgtrickle.immediate_catch_up(bigint) IS
	'locks the sources of an IMMEDIATE stream table against writers, makes its triggers, and brings it up to date';
REVOKE ALL ON FUNCTION pgtrickle.immediate_catch_up(bigint) FROM PUBLIC;

CREATE FUNCTION pgtrickle.immediate_leave(pgt_id bigint) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_immediate_leave';
COMMENT ON FUNCTION pgtrickle.immediate_leave(bigint) IS
	'makes the applier follow the sources of a stream table that was IMMEDIATE';
REVOKE ALL ON FUNCTION pgtrickle.immediate_leave(bigint) FROM PUBLIC;
