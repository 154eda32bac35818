/*
 * sql/20_library.sql
 *     Functions of the library that the rest of the extension is built upon: settings, schedules, messages, the guard.
 *
 * Written in C because SQL cannot do it, or because C needs the same code.  What users call is in the files after this one.
 * They look nothing up by name, hence no search_path of their own.
 */

CREATE FUNCTION pgtrickle.setting(name text) RETURNS text
	LANGUAGE c STABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_setting';
COMMENT ON FUNCTION pgtrickle.setting(text) IS
	'value of the setting pgtrickle.<name>; unlike current_setting() it loads the library first';

CREATE FUNCTION pgtrickle.check_schedule(schedule text) RETURNS text
	LANGUAGE c IMMUTABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_check_schedule';
COMMENT ON FUNCTION pgtrickle.check_schedule(text) IS
	'the schedule in its normal form; an error if it is none';

CREATE FUNCTION pgtrickle.schedule_kind(schedule text) RETURNS text
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_schedule_kind';
COMMENT ON FUNCTION pgtrickle.schedule_kind(text) IS
	'continuous, interval, calculated, manual or cron';

CREATE FUNCTION pgtrickle.schedule_ms(schedule text) RETURNS bigint
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_schedule_ms';
COMMENT ON FUNCTION pgtrickle.schedule_ms(text) IS
	'duration of a schedule in milliseconds, 0 for continuous, null for the others';

CREATE FUNCTION pgtrickle.next_cron_time(schedule text, after timestamptz, time_zone text DEFAULT current_setting('TimeZone'))
	RETURNS timestamptz
	LANGUAGE c STABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_next_cron_time';
COMMENT ON FUNCTION pgtrickle.next_cron_time(text, timestamptz, text) IS
	'the first time of a cron expression after a moment; null for other schedules';

CREATE FUNCTION pgtrickle.parse_duration_seconds(duration text) RETURNS bigint
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_parse_duration_seconds';
COMMENT ON FUNCTION pgtrickle.parse_duration_seconds(text) IS
	'a duration such as 1h30m in seconds, rounded down';

/*
 * An owner may write these two columns through functions that everybody may call.  What cannot be read would stop the applier, and
 * the views, for everybody.
 */
ALTER TABLE pgtrickle.pgt_definitions
	ADD CHECK (schedule = pgtrickle.check_schedule(schedule)),
	ADD CHECK (jsonb_typeof(options) = 'object'
		AND (options->>'fuse_ceiling')::bigint > 0
		AND (options->>'fuse_sensitivity')::integer > 0);

-- Whoever may write messages can make the applier refresh, refill and verify.
CREATE FUNCTION pgtrickle.emit_message(payload text, transactional boolean, flush boolean) RETURNS pg_lsn
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_emit_message';
COMMENT ON FUNCTION pgtrickle.emit_message(text, boolean, boolean) IS
	'writes a message to the applier into the WAL and returns the end of its record';
REVOKE ALL ON FUNCTION pgtrickle.emit_message(text, boolean, boolean) FROM PUBLIC;

CREATE FUNCTION pgtrickle.consumed_lsn(slot_name text) RETURNS pg_lsn
	LANGUAGE c VOLATILE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_consumed_lsn';
COMMENT ON FUNCTION pgtrickle.consumed_lsn(text) IS
	'the position below which no stream table needs anything, as the connected applier has reported it last';

CREATE FUNCTION pgtrickle.guard() RETURNS trigger
	LANGUAGE c VOLATILE
	AS 'MODULE_PATHNAME', 'pgtrickle_guard';
COMMENT ON FUNCTION pgtrickle.guard() IS
	'trigger of stream tables: refuses INSERT, UPDATE, DELETE and TRUNCATE by anybody but a refresh';

CREATE FUNCTION pgtrickle.guard_copies() RETURNS trigger
	LANGUAGE c VOLATILE
	AS 'MODULE_PATHNAME', 'pgtrickle_guard_copies';
COMMENT ON FUNCTION pgtrickle.guard_copies() IS
	'trigger of copies: refuses INSERT, UPDATE, DELETE and TRUNCATE by anybody but a tick';
