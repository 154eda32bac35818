/*
 * sql/56_retained_history.sql
 *     Retained history: what each refresh changed in a stream table, kept as rows for as long as its option retain_history says.
 *
 * The library (delta/retain.c) writes the net change of a refresh in the refresh's own transaction: so the history and the rows cannot
 * contradict each other, and a change that nobody could ever see is not in it.  Rows are kept as jsonb, because they have to outlive changes of the
 * stream table's columns; as_of() turns them back into rows of its type.
 *
 * One stream table is written by one transaction at a time, so its change_ids are in the order of the commits: who has read up to one of them
 * finds all that came later behind it.  That does not hold in IMMEDIATE mode, where many writers change the stream table at a time, which is
 * why that mode has no history.
 *
 * pgt_frontiers says how far back it reaches: history_since is the moment from which on no change is missing, history_pruned_id the
 * last change_id that is not there any more (or never was).
 */

-- Each row is written by a refresh that has the stream table locked, so there is one: a foreign key would look it up again for every row.
CREATE TABLE pgtrickle.pgt_changes (
	change_id bigint GENERATED ALWAYS AS IDENTITY,
	pgt_id bigint NOT NULL,
	-- the moment of the snapshot that the stream table equals since this change
	data_timestamp timestamptz NOT NULL,
	-- n: so many of these rows came, -n: went
	weight integer NOT NULL,
	row_data jsonb NOT NULL,
	PRIMARY KEY (pgt_id, change_id)
);
CREATE INDEX pgt_changes_data_timestamp ON pgtrickle.pgt_changes (pgt_id, data_timestamp);
SELECT pg_catalog.pg_extension_config_dump('pgtrickle.pgt_changes', '');
SELECT pg_catalog.pg_extension_config_dump('pgtrickle.pgt_changes_change_id_seq', '');
REVOKE ALL ON pgtrickle.pgt_changes FROM PUBLIC;

CREATE FUNCTION pgtrickle.forget_changes() RETURNS trigger
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	DELETE FROM pgtrickle.pgt_changes c USING gone WHERE c.pgt_id = gone.pgt_id;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgtrickle.forget_changes() IS
	'trigger: the history of stream tables goes with them';
REVOKE ALL ON FUNCTION pgtrickle.forget_changes() FROM PUBLIC;

CREATE TRIGGER pgt_definitions_gone AFTER DELETE ON pgtrickle.pgt_definitions
	REFERENCING OLD TABLE AS gone FOR EACH STATEMENT
	EXECUTE FUNCTION pgtrickle.forget_changes();

/* ---- switching it on and off ---- */

-- In one place for all ways in which a definition comes about.
CREATE FUNCTION pgtrickle.refuse_history_of_immediate() RETURNS trigger
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RAISE EXCEPTION 'stream table "%" cannot be IMMEDIATE and retain its history', NEW.relid
		USING ERRCODE = 'feature_not_supported',
			DETAIL = 'Several writers may change an IMMEDIATE stream table at a time, so that its changes have no order.',
			HINT = format('Retain the history of a stream table with a schedule that reads it: SELECT * FROM %s.', NEW.relid);
END
$$;
COMMENT ON FUNCTION pgtrickle.refuse_history_of_immediate() IS
	'trigger: IMMEDIATE stream tables have no history';
REVOKE ALL ON FUNCTION pgtrickle.refuse_history_of_immediate() FROM PUBLIC;

CREATE TRIGGER pgt_definitions_history BEFORE INSERT OR UPDATE ON pgtrickle.pgt_definitions
	FOR EACH ROW WHEN (NEW.refresh_mode = 'IMMEDIATE' AND NEW.options->>'retain_history' <> '00:00:00')
	EXECUTE FUNCTION pgtrickle.refuse_history_of_immediate();

-- In the form that is stored, '00:00:00' for none.
CREATE FUNCTION pgtrickle.check_retain_history(retention text) RETURNS text
	LANGUAGE plpgsql STABLE STRICT
	SET search_path = pg_catalog, pg_temp
	SET IntervalStyle = 'postgres'
AS $$
DECLARE
	checked interval;
BEGIN
	BEGIN
		checked := retention::interval;
	EXCEPTION WHEN invalid_datetime_format OR datetime_field_overflow OR interval_field_overflow THEN
		checked := interval '-1 second';
	END;
	IF checked < interval '0' THEN
		RAISE EXCEPTION 'invalid value for argument "retain_history": "%"', retention
			USING ERRCODE = 'invalid_parameter_value', HINT = 'Use an interval like ''1 hour'', or ''0'' for no history.';
	END IF;
	RETURN checked::text;
END
$$;
COMMENT ON FUNCTION pgtrickle.check_retain_history(text) IS
	'how long a history is to be kept, in its normal form; an error if it is no interval';

/*
 * After a change of the options.  Moves the frontier's row, so that a refresh that runs just now, and does not know of the change, is
 * tried again: no refresh falls between the option and the history.
 */
CREATE FUNCTION pgtrickle.note_retention(changed_id bigint, old_options jsonb, new_options jsonb) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	old_retention CONSTANT interval := old_options->>'retain_history';
	new_retention CONSTANT interval := new_options->>'retain_history';
BEGIN
	IF old_retention IS NOT DISTINCT FROM new_retention THEN
		RETURN;
	END IF;
	UPDATE pgtrickle.pgt_frontiers SET
		history_since = CASE
			WHEN NOT is_populated THEN NULL
			WHEN old_retention IS NULL THEN clock_timestamp()
			-- what the shorter time has let go does not come back
			ELSE greatest(history_since, clock_timestamp() - old_retention) END,
		history_pruned_id = CASE WHEN old_retention IS NULL THEN nextval('pgtrickle.pgt_changes_change_id_seq') ELSE history_pruned_id END
	WHERE pgt_id = changed_id;
	IF new_retention IS NULL THEN
		DELETE FROM pgtrickle.pgt_changes WHERE pgt_id = changed_id;
	END IF;
END
$$;
COMMENT ON FUNCTION pgtrickle.note_retention(bigint, jsonb, jsonb) IS
	'what a change of the option retain_history means for the history there is';
REVOKE ALL ON FUNCTION pgtrickle.note_retention(bigint, jsonb, jsonb) FROM PUBLIC;

/* ---- writing and pruning ---- */

-- From now on; what there is before does not lead here.
CREATE FUNCTION pgtrickle.begin_history(begun_id bigint, begun_at timestamptz) RETURNS void
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
	UPDATE pgtrickle.pgt_frontiers
	SET history_since = begun_at, history_pruned_id = nextval('pgtrickle.pgt_changes_change_id_seq')
	WHERE pgt_id = begun_id
$$;
COMMENT ON FUNCTION pgtrickle.begin_history(bigint, timestamptz) IS
	'lets the retained history of a stream table begin anew';
REVOKE ALL ON FUNCTION pgtrickle.begin_history(bigint, timestamptz) FROM PUBLIC;

CREATE FUNCTION pgtrickle.prune_changes(pruned_id bigint, rows_max bigint) RETURNS bigint
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	retention CONSTANT interval := (SELECT d.options->>'retain_history' FROM pgtrickle.pgt_definitions d WHERE d.pgt_id = pruned_id);
	pruned bigint;
	last_id bigint;
BEGIN
	WITH gone AS (
		DELETE FROM pgtrickle.pgt_changes c
		USING (SELECT o.change_id FROM pgtrickle.pgt_changes o
			WHERE o.pgt_id = pruned_id AND o.data_timestamp < clock_timestamp() - retention
			ORDER BY o.change_id LIMIT rows_max) old
		WHERE c.pgt_id = pruned_id AND c.change_id = old.change_id
		RETURNING c.change_id
	)
	SELECT count(*), max(g.change_id) INTO pruned, last_id FROM gone g;
	IF pruned > 0 THEN
		UPDATE pgtrickle.pgt_frontiers SET history_pruned_id = greatest(history_pruned_id, last_id) WHERE pgt_id = pruned_id;
	END IF;
	RETURN pruned;
END
$$;
COMMENT ON FUNCTION pgtrickle.prune_changes(bigint, bigint) IS
	'deletes changes of a stream table that are older than its retain_history, at most so many';
REVOKE ALL ON FUNCTION pgtrickle.prune_changes(bigint, bigint) FROM PUBLIC;

/*
 * Called by the refresh that has written changes: those who listen are told when it commits, and for each row that was written two old ones may
 * go, so that pruning keeps up with any rate.
 */
CREATE FUNCTION pgtrickle.changes_retained(retained_id bigint, rows_written bigint) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	stream_table record;
BEGIN
	SELECT n.nspname, c.relname INTO STRICT stream_table
	FROM pgtrickle.pgt_definitions d JOIN pg_class c ON c.oid = d.relid JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE d.pgt_id = retained_id;
	PERFORM pg_notify('pgtrickle_history', json_build_object('schema', stream_table.nspname, 'name', stream_table.relname,
		'change_id', (SELECT max(c.change_id) FROM pgtrickle.pgt_changes c WHERE c.pgt_id = retained_id))::text);
	PERFORM pgtrickle.prune_changes(retained_id, 2 * rows_written + 10);
END
$$;
COMMENT ON FUNCTION pgtrickle.changes_retained(bigint, bigint) IS
	'tells listeners about retained changes, and prunes old ones';
REVOKE ALL ON FUNCTION pgtrickle.changes_retained(bigint, bigint) FROM PUBLIC;

/* ---- reading ---- */

/*
 * For those who may read all rows of the stream table.  Whose rows a policy would have hidden cannot be told of a row that is gone, so with
 * row-level security in force there is nothing to see.
 */
CREATE VIEW pgtrickle.pgt_stream_table_changes WITH (security_barrier) AS
	SELECT c.change_id, c.pgt_id, c.data_timestamp, c.weight, c.row_data
	FROM pgtrickle.pgt_changes c
	JOIN pgtrickle.pgt_definitions d USING (pgt_id)
	WHERE pg_catalog.has_table_privilege(d.relid, 'SELECT') AND NOT pg_catalog.row_security_active(d.relid::oid);
COMMENT ON VIEW pgtrickle.pgt_stream_table_changes IS
	'retained changes of the stream tables that the reader may read: weight n for rows that came, -n for rows that went';
GRANT SELECT ON pgtrickle.pgt_stream_table_changes TO PUBLIC;

CREATE VIEW pgtrickle.pgt_retained_histories WITH (security_barrier) AS
	SELECT s.pgt_id, s.pgt_relid, s.pgt_schema, s.pgt_name, (d.options->>'retain_history')::interval AS retention,
		greatest(f.history_since, pg_catalog.clock_timestamp() - (d.options->>'retain_history')::interval) AS history_since,
		coalesce(f.history_pruned_id, 0) AS pruned_id
	FROM pgtrickle.pgt_stream_tables s
	JOIN pgtrickle.pgt_definitions d USING (pgt_id)
	JOIN pgtrickle.pgt_frontiers f USING (pgt_id)
	WHERE d.options ? 'retain_history';
COMMENT ON VIEW pgtrickle.pgt_retained_histories IS
	'which stream tables retain their history: how long, since when nothing is missing, and the last change_id that is not there any more';
GRANT SELECT ON pgtrickle.pgt_retained_histories TO PUBLIC;

-- The history of a stream table that the caller may read, or an error.
CREATE FUNCTION pgtrickle.retained_history(asked_id bigint) RETURNS pgtrickle.pgt_retained_histories
	LANGUAGE plpgsql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	history pgtrickle.pgt_retained_histories;
	relid CONSTANT oid := (SELECT s.pgt_relid FROM pgtrickle.pgt_stream_tables s WHERE s.pgt_id = asked_id);
BEGIN
	IF row_security_active(relid) THEN
		RAISE EXCEPTION 'the history of stream table "%" cannot be read with row-level security', relid::regclass
			USING ERRCODE = 'insufficient_privilege', DETAIL = 'Its policies cannot be applied to rows that are gone.';
	END IF;
	SELECT * INTO history FROM pgtrickle.pgt_retained_histories h WHERE h.pgt_id = asked_id;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'stream table "%" does not retain its history', relid::regclass
			USING ERRCODE = 'object_not_in_prerequisite_state',
				HINT = format('Call SELECT pgtrickle.alter_stream_table(%L, retain_history => ''1 hour'').', relid::regclass);
	END IF;
	RETURN history;
END
$$;
COMMENT ON FUNCTION pgtrickle.retained_history(bigint) IS
	'how far the history of a stream table reaches back; an error if it retains none';

CREATE FUNCTION pgtrickle.changes_by_id(asked_id bigint, after_change bigint, since timestamptz)
	RETURNS TABLE (change_id bigint, data_timestamp timestamptz, weight integer, row_data jsonb)
	LANGUAGE plpgsql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	history CONSTANT pgtrickle.pgt_retained_histories := pgtrickle.retained_history(asked_id);
BEGIN
	IF after_change < history.pruned_id THEN
		RAISE EXCEPTION 'the history of stream table "%" has a gap after change %', history.pgt_relid::regclass, after_change
			USING ERRCODE = 'object_not_in_prerequisite_state',
				DETAIL = 'It was pruned or begun anew since.',
				HINT = 'In one REPEATABLE READ transaction read the stream table and pgtrickle.history_position(), and go on from there.';
	ELSIF history.history_since IS NULL OR since < history.history_since THEN
		RAISE EXCEPTION 'the history of stream table "%" does not reach back to %', history.pgt_relid::regclass, coalesce(since::text, 'any moment')
			USING ERRCODE = 'object_not_in_prerequisite_state',
				DETAIL = coalesce(format('It begins at %s.', history.history_since), 'The stream table has not been filled yet.');
	END IF;
	RETURN QUERY
		SELECT c.change_id, c.data_timestamp, c.weight, c.row_data
		FROM pgtrickle.pgt_stream_table_changes c
		WHERE c.pgt_id = asked_id AND c.change_id > coalesce(after_change, 0) AND c.data_timestamp > coalesce(since, '-infinity')
		ORDER BY c.change_id;
END
$$;
COMMENT ON FUNCTION pgtrickle.changes_by_id(bigint, bigint, timestamptz) IS 'what history() returns';

CREATE FUNCTION pgtrickle.history(name text, after_change bigint DEFAULT NULL, since timestamptz DEFAULT NULL)
	RETURNS TABLE (change_id bigint, data_timestamp timestamptz, weight integer, row_data jsonb)
	LANGUAGE sql STABLE
AS $$
	SELECT * FROM pgtrickle.changes_by_id(pgtrickle.stream_table_id_to_see(name), after_change, since)
$$;
COMMENT ON FUNCTION pgtrickle.history(text, bigint, timestamptz) IS
	'retained changes of a stream table in their order: all, or those after a change or a moment; an error if some of these are gone';

CREATE FUNCTION pgtrickle.position_by_id(asked_id bigint) RETURNS bigint
	LANGUAGE sql STABLE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT greatest(h.pruned_id, (SELECT max(c.change_id) FROM pgtrickle.pgt_stream_table_changes c WHERE c.pgt_id = asked_id))
	FROM pgtrickle.retained_history(asked_id) h
$$;
COMMENT ON FUNCTION pgtrickle.position_by_id(bigint) IS 'what history_position() returns';

CREATE FUNCTION pgtrickle.history_position(name text) RETURNS bigint
	LANGUAGE sql STABLE STRICT
AS $$
	SELECT pgtrickle.position_by_id(pgtrickle.stream_table_id_to_see(name))
$$;
COMMENT ON FUNCTION pgtrickle.history_position(text) IS
	'the last change of a stream table that its rows contain: where history(after_change => ...) goes on';

/*
 * The rows there are now, less what came since, and what went since again.  All as jsonb that this session has made, so that equal rows look
 * alike whatever settings were in force when a change was written, and whatever columns the stream table had.
 */
CREATE FUNCTION pgtrickle.as_of(stream_table anyelement, moment timestamptz) RETURNS SETOF anyelement
	LANGUAGE plpgsql STABLE
	SET search_path = pg_catalog, pg_temp
	SET extra_float_digits = 1
AS $$
DECLARE
	relid CONSTANT regclass := (SELECT t.typrelid FROM pg_type t WHERE t.oid = pg_typeof(stream_table));
	asked_id CONSTANT bigint := (SELECT s.pgt_id FROM pgtrickle.pgt_stream_tables s WHERE s.pgt_relid = relid);
BEGIN
	IF asked_id IS NULL THEN
		RAISE EXCEPTION 'type % is not that of a stream table''s rows', pg_typeof(stream_table)
			USING ERRCODE = 'wrong_object_type', HINT = 'Call SELECT * FROM pgtrickle.as_of(NULL::my_stream_table, moment).';
	ELSIF moment IS NULL THEN
		RAISE EXCEPTION 'moment must not be null' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	RETURN QUERY EXECUTE format('
		SELECT (jsonb_populate_record(NULL::%1$s, net.image)).*
		FROM (
			SELECT changed.image, sum(changed.weight) AS copies
			FROM (
				SELECT to_jsonb(t.*) AS image, 1 AS weight FROM %1$s t
				UNION ALL
				SELECT to_jsonb(jsonb_populate_record(NULL::%1$s, h.row_data)), -h.weight
				FROM pgtrickle.changes_by_id($1, NULL, $2) h
			) changed
			GROUP BY changed.image
		) net, generate_series(1, net.copies)', relid)
		USING asked_id, moment;
END
$$;
COMMENT ON FUNCTION pgtrickle.as_of(anyelement, timestamptz) IS
	'the rows that a stream table had at a moment of its retained history: SELECT * FROM pgtrickle.as_of(NULL::my_stream_table, moment)';
