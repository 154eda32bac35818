/*
 * sql/30_core.sql
 *     What the library's delta half offers to SQL: the aggregates behind states, the tick, creation and reports.
 *
 * The functions of the tick are for the applier (docs/explanation/tick.md, section 5); the others are called by the
 * files after this one.
 */

/* ---- weighted aggregates: the statements of delta programs use them, so everybody may ---- */

CREATE FUNCTION pgtrickle.row_hash(image record) RETURNS bigint
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_row_hash';
COMMENT ON FUNCTION pgtrickle.row_hash(record) IS
	'hash of a row''s image; stream tables without a key find their rows by an index on it';

CREATE FUNCTION pgtrickle.weighted_sum_step(sum bigint, value bigint, weight integer) RETURNS bigint
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_weighted_sum_step';
COMMENT ON FUNCTION pgtrickle.weighted_sum_step(bigint, bigint, integer) IS
	'transition function of weighted_sum';
CREATE AGGREGATE pgtrickle.weighted_sum(bigint, integer) (
	SFUNC = pgtrickle.weighted_sum_step, STYPE = bigint, INITCOND = '0', PARALLEL = SAFE);
COMMENT ON AGGREGATE pgtrickle.weighted_sum(bigint, integer) IS
	'sum of value times weight over rows whose value is not null; 0 over none';

CREATE FUNCTION pgtrickle.numeric_state_step(state internal, value numeric, weight integer) RETURNS internal
	LANGUAGE c IMMUTABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_numeric_state_step';
COMMENT ON FUNCTION pgtrickle.numeric_state_step(internal, numeric, integer) IS
	'transition function of numeric_state';
CREATE FUNCTION pgtrickle.numeric_state_end(state internal) RETURNS bytea
	LANGUAGE c IMMUTABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_numeric_state_end';
COMMENT ON FUNCTION pgtrickle.numeric_state_end(internal) IS
	'final function of numeric_state';
CREATE AGGREGATE pgtrickle.numeric_state(numeric, integer) (
	SFUNC = pgtrickle.numeric_state_step, STYPE = internal, FINALFUNC = pgtrickle.numeric_state_end, PARALLEL = SAFE);
COMMENT ON AGGREGATE pgtrickle.numeric_state(numeric, integer) IS
	'mergeable state of a weighted numeric sum; null when no row has a value';

CREATE FUNCTION pgtrickle.numeric_state_merge(state bytea, delta bytea) RETURNS bytea
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_numeric_state_merge';
COMMENT ON FUNCTION pgtrickle.numeric_state_merge(bytea, bytea) IS
	'state of two bags of rows taken together';
CREATE FUNCTION pgtrickle.numeric_state_sum(state bytea) RETURNS numeric
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_numeric_state_sum';
COMMENT ON FUNCTION pgtrickle.numeric_state_sum(bytea) IS
	'what sum() shows for a numeric state, with the scale that it would show';
CREATE FUNCTION pgtrickle.numeric_state_avg(state bytea) RETURNS numeric
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_numeric_state_avg';
COMMENT ON FUNCTION pgtrickle.numeric_state_avg(bytea) IS
	'what avg() shows for a numeric state';

/*
 * One of several equal values, see delta/exact_image.c.
 */
CREATE FUNCTION pgtrickle.lesser_image(a anyelement, b anyelement) RETURNS anyelement
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_lesser_image';
COMMENT ON FUNCTION pgtrickle.lesser_image(anyelement, anyelement) IS
	'the one of two values whose bytes come first';
CREATE AGGREGATE pgtrickle.least_image(anyelement) (
	SFUNC = pgtrickle.lesser_image, STYPE = anyelement, COMBINEFUNC = pgtrickle.lesser_image, PARALLEL = SAFE);
COMMENT ON AGGREGATE pgtrickle.least_image(anyelement) IS
	'of values that are equal, the one whose bytes come first';

CREATE FUNCTION pgtrickle.compare_exact(a anyelement, b anyelement) RETURNS integer
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_compare_exact';
COMMENT ON FUNCTION pgtrickle.compare_exact(anyelement, anyelement) IS
	'order of two values, and of their bytes when they are equal: -1, 0 or 1';
CREATE FUNCTION pgtrickle.lesser_exact(a anyelement, b anyelement) RETURNS anyelement
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_lesser_exact';
COMMENT ON FUNCTION pgtrickle.lesser_exact(anyelement, anyelement) IS
	'the lower one of two values by compare_exact';
CREATE FUNCTION pgtrickle.greater_exact(a anyelement, b anyelement) RETURNS anyelement
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_greater_exact';
COMMENT ON FUNCTION pgtrickle.greater_exact(anyelement, anyelement) IS
	'the higher one of two values by compare_exact';
CREATE AGGREGATE pgtrickle.min_exact(anyelement) (
	SFUNC = pgtrickle.lesser_exact, STYPE = anyelement, COMBINEFUNC = pgtrickle.lesser_exact, PARALLEL = SAFE);
COMMENT ON AGGREGATE pgtrickle.min_exact(anyelement) IS
	'min(), and among equal values the one whose bytes come first';
CREATE AGGREGATE pgtrickle.max_exact(anyelement) (
	SFUNC = pgtrickle.greater_exact, STYPE = anyelement, COMBINEFUNC = pgtrickle.greater_exact, PARALLEL = SAFE);
COMMENT ON AGGREGATE pgtrickle.max_exact(anyelement) IS
	'max(), and among equal values the one whose bytes come last';

CREATE FUNCTION pgtrickle.image_counts_step(state internal, value anyelement, weight integer) RETURNS internal
	LANGUAGE c IMMUTABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_image_counts_step';
COMMENT ON FUNCTION pgtrickle.image_counts_step(internal, anyelement, integer) IS
	'transition function of image_counts';
CREATE FUNCTION pgtrickle.image_counts_end(state internal) RETURNS bytea
	LANGUAGE c IMMUTABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_image_counts_end';
COMMENT ON FUNCTION pgtrickle.image_counts_end(internal) IS
	'final function of image_counts';
CREATE AGGREGATE pgtrickle.image_counts(anyelement, integer) (
	SFUNC = pgtrickle.image_counts_step, STYPE = internal, FINALFUNC = pgtrickle.image_counts_end, PARALLEL = SAFE);
COMMENT ON AGGREGATE pgtrickle.image_counts(anyelement, integer) IS
	'mergeable state: how often each image of a value occurs, by weight; null when no row has a value';
CREATE FUNCTION pgtrickle.image_counts_merge(state bytea, delta bytea) RETURNS bytea
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_image_counts_merge';
COMMENT ON FUNCTION pgtrickle.image_counts_merge(bytea, bytea) IS
	'state of two bags of values taken together';
CREATE FUNCTION pgtrickle.image_counts_least(state bytea, of_type anyelement) RETURNS anyelement
	LANGUAGE c IMMUTABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_image_counts_least';
COMMENT ON FUNCTION pgtrickle.image_counts_least(bytea, anyelement) IS
	'what least_image() shows for a state of images';

/*
 * Variances, see delta/variance.c.
 */
CREATE FUNCTION pgtrickle.numeric_state_var_pop(state bytea, squares bytea) RETURNS numeric
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_numeric_state_var_pop';
COMMENT ON FUNCTION pgtrickle.numeric_state_var_pop(bytea, bytea) IS
	'what var_pop() shows for the states of a sum and of the sum of squares';
CREATE FUNCTION pgtrickle.numeric_state_var_samp(state bytea, squares bytea) RETURNS numeric
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_numeric_state_var_samp';
COMMENT ON FUNCTION pgtrickle.numeric_state_var_samp(bytea, bytea) IS
	'what var_samp() and variance() shows for the states of a sum and of the sum of squares';
CREATE FUNCTION pgtrickle.numeric_state_stddev_pop(state bytea, squares bytea) RETURNS numeric
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_numeric_state_stddev_pop';
COMMENT ON FUNCTION pgtrickle.numeric_state_stddev_pop(bytea, bytea) IS
	'what stddev_pop() shows for the states of a sum and of the sum of squares';
CREATE FUNCTION pgtrickle.numeric_state_stddev_samp(state bytea, squares bytea) RETURNS numeric
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_numeric_state_stddev_samp';
COMMENT ON FUNCTION pgtrickle.numeric_state_stddev_samp(bytea, bytea) IS
	'what stddev_samp() and stddev() shows for the states of a sum and of the sum of squares';

CREATE FUNCTION pgtrickle.interval_state_step(state internal, value interval, weight integer) RETURNS internal
	LANGUAGE c IMMUTABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_interval_state_step';
COMMENT ON FUNCTION pgtrickle.interval_state_step(internal, interval, integer) IS
	'transition function of interval_state';
CREATE FUNCTION pgtrickle.interval_state_end(state internal) RETURNS bytea
	LANGUAGE c IMMUTABLE PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_interval_state_end';
COMMENT ON FUNCTION pgtrickle.interval_state_end(internal) IS
	'final function of interval_state';
CREATE AGGREGATE pgtrickle.interval_state(interval, integer) (
	SFUNC = pgtrickle.interval_state_step, STYPE = internal, FINALFUNC = pgtrickle.interval_state_end, PARALLEL = SAFE);
COMMENT ON AGGREGATE pgtrickle.interval_state(interval, integer) IS
	'mergeable state of a weighted sum of intervals; null when no row has a value';
CREATE FUNCTION pgtrickle.interval_state_merge(state bytea, delta bytea) RETURNS bytea
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_interval_state_merge';
COMMENT ON FUNCTION pgtrickle.interval_state_merge(bytea, bytea) IS
	'state of two bags of intervals taken together';
CREATE FUNCTION pgtrickle.interval_state_sum(state bytea) RETURNS interval
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_interval_state_sum';
COMMENT ON FUNCTION pgtrickle.interval_state_sum(bytea) IS
	'what sum() shows for a state of intervals';
CREATE FUNCTION pgtrickle.interval_state_avg(state bytea) RETURNS interval
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_interval_state_avg';
COMMENT ON FUNCTION pgtrickle.interval_state_avg(bytea) IS
	'what avg() shows for a state of intervals';

CREATE FUNCTION pgtrickle.bool_and_of(trues bigint, falses bigint) RETURNS boolean
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_bool_and_of';
COMMENT ON FUNCTION pgtrickle.bool_and_of(bigint, bigint) IS
	'what bool_and() shows for so many true and false values';
CREATE FUNCTION pgtrickle.bool_or_of(trues bigint, falses bigint) RETURNS boolean
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_bool_or_of';
COMMENT ON FUNCTION pgtrickle.bool_or_of(bigint, bigint) IS
	'what bool_or() shows for so many true and false values';

-- money is a bigint to all of these
CREATE FUNCTION pgtrickle.weighted_sum_step(sum money, value money, weight integer) RETURNS money
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_weighted_sum_step';
COMMENT ON FUNCTION pgtrickle.weighted_sum_step(money, money, integer) IS
	'transition function of weighted_sum';
CREATE AGGREGATE pgtrickle.weighted_sum(money, integer) (
	SFUNC = pgtrickle.weighted_sum_step, STYPE = money, INITCOND = '0', PARALLEL = SAFE);
COMMENT ON AGGREGATE pgtrickle.weighted_sum(money, integer) IS
	'sum of value times weight over rows whose value is not null; 0 over none';
CREATE FUNCTION pgtrickle.sum_or_null(sum money, row_count bigint) RETURNS money
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_sum_or_null_bigint';
COMMENT ON FUNCTION pgtrickle.sum_or_null(money, bigint) IS
	'the sum, or null when no row has a value';

CREATE FUNCTION pgtrickle.sum_or_null(sum bigint, row_count bigint) RETURNS bigint
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_sum_or_null_bigint';
COMMENT ON FUNCTION pgtrickle.sum_or_null(bigint, bigint) IS
	'the sum, or null when no row has a value';
CREATE FUNCTION pgtrickle.sum_or_null(sum numeric, row_count bigint) RETURNS numeric
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_sum_or_null_numeric';
COMMENT ON FUNCTION pgtrickle.sum_or_null(numeric, bigint) IS
	'the sum, or null when no row has a value';
CREATE FUNCTION pgtrickle.avg_or_null(sum bigint, row_count bigint) RETURNS numeric
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_avg_or_null_bigint';
COMMENT ON FUNCTION pgtrickle.avg_or_null(bigint, bigint) IS
	'the average as avg() computes it, or null when no row has a value';
CREATE FUNCTION pgtrickle.avg_or_null(sum numeric, row_count bigint) RETURNS numeric
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_avg_or_null_numeric';
COMMENT ON FUNCTION pgtrickle.avg_or_null(numeric, bigint) IS
	'the average as avg() computes it, or null when no row has a value';

/* ---- the tick ---- */

CREATE FUNCTION pgtrickle.tick_begin(OUT snapshot text, OUT insert_lsn pg_lsn, OUT taken_at timestamptz)
	LANGUAGE sql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn(), clock_timestamp()
$$;
COMMENT ON FUNCTION pgtrickle.tick_begin() IS
	'for the applier: the snapshot that a tick has just taken';
REVOKE ALL ON FUNCTION pgtrickle.tick_begin() FROM PUBLIC;

CREATE FUNCTION pgtrickle.tick_remote(
	set integer, remote_id integer, expected pg_lsn, "position" pg_lsn, position_at timestamptz) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'pgtrickle_tick_remote';
COMMENT ON FUNCTION pgtrickle.tick_remote(integer, integer, pg_lsn, pg_lsn, timestamptz) IS
	'for the applier, before tick_plan(): a change set has what a remote committed after the expected position up to another, and that will be its position';
REVOKE ALL ON FUNCTION pgtrickle.tick_remote(integer, integer, pg_lsn, pg_lsn, timestamptz) FROM PUBLIC;

CREATE FUNCTION pgtrickle.tick_plan(pgt_ids bigint[], sets integer[], actions text[]) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'pgtrickle_tick_plan';
COMMENT ON FUNCTION pgtrickle.tick_plan(bigint[], integer[], text[]) IS
	'for the applier: the stream tables of a tick in topological order, their change sets, and what to do';
REVOKE ALL ON FUNCTION pgtrickle.tick_plan(bigint[], integer[], text[]) FROM PUBLIC;

CREATE FUNCTION pgtrickle.tick_stage(set integer, data bytea) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'pgtrickle_tick_stage';
COMMENT ON FUNCTION pgtrickle.tick_stage(integer, bytea) IS
	'for the applier: records of a change set';
REVOKE ALL ON FUNCTION pgtrickle.tick_stage(integer, bytea) FROM PUBLIC;

CREATE FUNCTION pgtrickle.tick_execute(ack_lsn pg_lsn, stream_lsn pg_lsn)
	RETURNS TABLE (pgt_id bigint, action text, rows_inserted bigint, rows_deleted bigint, duration_ms double precision, reason text)
	LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'pgtrickle_tick_execute';
COMMENT ON FUNCTION pgtrickle.tick_execute(pg_lsn, pg_lsn) IS
	'for the applier: runs the delta programs of a tick and moves the frontiers';
REVOKE ALL ON FUNCTION pgtrickle.tick_execute(pg_lsn, pg_lsn) FROM PUBLIC;

CREATE FUNCTION pgtrickle.tick_failed_id() RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_tick_failed_id';
COMMENT ON FUNCTION pgtrickle.tick_failed_id() IS
	'for the applier: the stream table at work when this session''s last tick failed, 0 for none';
REVOKE ALL ON FUNCTION pgtrickle.tick_failed_id() FROM PUBLIC;

-- Runs inside the programs, with the rights of the stream tables' owners.
CREATE FUNCTION pgtrickle.previous_now() RETURNS timestamptz
	LANGUAGE c STABLE PARALLEL RESTRICTED
	AS 'MODULE_PATHNAME', 'pgtrickle_previous_now';
COMMENT ON FUNCTION pgtrickle.previous_now() IS
	'inside a refresh by delta: what now() was in the refresh before; else null';

/* ---- creation and reports ---- */

CREATE FUNCTION pgtrickle.create_stream_table_core(
	name text, query text, schedule text, refresh_mode text, initialize boolean, options jsonb) RETURNS bigint
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_create_stream_table';
COMMENT ON FUNCTION pgtrickle.create_stream_table_core(text, text, text, text, boolean, jsonb) IS
	'creates and fills a stream table; its arguments have been checked by create_stream_table';

CREATE FUNCTION pgtrickle.analyze_query(query text)
	RETURNS TABLE (check_name text, result text, severity text)
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_analyze_query';
COMMENT ON FUNCTION pgtrickle.analyze_query(text) IS
	'what create_stream_table would say about a query';

CREATE FUNCTION pgtrickle.normalize_query(query text) RETURNS text
	LANGUAGE c STABLE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_normalize_query';
COMMENT ON FUNCTION pgtrickle.normalize_query(text) IS
	'a query as the server understands it, every name qualified: equal texts are equal definitions';

CREATE FUNCTION pgtrickle.program_report(pgt_id bigint, with_analyze boolean DEFAULT false)
	RETURNS TABLE (property text, value text)
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'pgtrickle_program_report';
COMMENT ON FUNCTION pgtrickle.program_report(bigint, boolean) IS
	'the delta program of a stream table, step by step';
REVOKE ALL ON FUNCTION pgtrickle.program_report(bigint, boolean) FROM PUBLIC;
