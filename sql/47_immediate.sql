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

CREATE FUNCTION pgtrickle.immediate_renew_triggers(relid oid) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_immediate_renew_triggers';
COMMENT ON FUNCTION pgtrickle.immediate_renew_triggers(oid) IS
	'makes the triggers of a source of IMMEDIATE stream tables anew';
REVOKE ALL ON FUNCTION pgtrickle.immediate_renew_triggers(oid) FROM PUBLIC;

-- ALTER TABLE ... DISABLE TRIGGER ALL would let stream tables fall behind without anybody noticing: what stops maintenance is pausing them.
CREATE FUNCTION pgtrickle.immediate_keep_triggers(altered oid[]) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	disturbed regclass;
BEGIN
	FOR disturbed IN
		SELECT DISTINCT t.tgrelid FROM pg_trigger t
		WHERE t.tgrelid = ANY (altered) AND t.tgfoid = 'pgtrickle.immediate_trigger'::regproc AND t.tgisinternal
			AND t.tgenabled <> CASE WHEN t.tgtype & 1 = 1 THEN 'R' ELSE 'A' END
	LOOP
		PERFORM pgtrickle.immediate_renew_triggers(disturbed);
		RAISE NOTICE 'triggers of IMMEDIATE stream tables on table "%" stay enabled', disturbed
			USING HINT = 'Pause the stream tables to stop their maintenance.';
	END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle.immediate_keep_triggers(oid[]) IS
	'enables triggers of IMMEDIATE stream tables again that ALTER TABLE has disabled';
REVOKE ALL ON FUNCTION pgtrickle.immediate_keep_triggers(oid[]) FROM PUBLIC;

CREATE FUNCTION pgtrickle.immediate_prepare(pgt_id bigint) RETURNS boolean
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_immediate_prepare';
COMMENT ON FUNCTION pgtrickle.immediate_prepare(bigint) IS
	'has the applier refresh a stream table that is to become IMMEDIATE; false if that does not work';
REVOKE ALL ON FUNCTION pgtrickle.immediate_prepare(bigint) FROM PUBLIC;

CREATE FUNCTION pgtrickle.immediate_lock(pgt_id bigint) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_immediate_lock';
COMMENT ON FUNCTION pgtrickle.immediate_lock(bigint) IS
	'locks the sources of a stream table that becomes IMMEDIATE against writers';
REVOKE ALL ON FUNCTION pgtrickle.immediate_lock(bigint) FROM PUBLIC;

CREATE FUNCTION pgtrickle.immediate_catch_up(pgt_id bigint, frontier text, own_xid text) RETURNS void
	LANGUAGE c VOLATILE PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_immediate_catch_up';
COMMENT ON FUNCTION pgtrickle.immediate_catch_up(bigint, text, text) IS
	'brings an IMMEDIATE stream table up to date, from a frontier or by its query, locks its sources against writers, and makes its triggers';
REVOKE ALL ON FUNCTION pgtrickle.immediate_catch_up(bigint, text, text) FROM PUBLIC;

CREATE FUNCTION pgtrickle.immediate_leave(pgt_id bigint, is_current boolean) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_immediate_leave';
COMMENT ON FUNCTION pgtrickle.immediate_leave(bigint, boolean) IS
	'makes the applier follow the sources of a stream table that was IMMEDIATE';
REVOKE ALL ON FUNCTION pgtrickle.immediate_leave(bigint, boolean) FROM PUBLIC;

CREATE FUNCTION pgtrickle.immediate_wait(pgt_id bigint) RETURNS void
	LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
	AS 'MODULE_PATHNAME', 'pgtrickle_immediate_wait';
COMMENT ON FUNCTION pgtrickle.immediate_wait(bigint) IS
	'waits for the transactions that have maintained an IMMEDIATE stream table, and has others wait that want to';
REVOKE ALL ON FUNCTION pgtrickle.immediate_wait(bigint) FROM PUBLIC;

/*
 * Sets a stream table going whose definition says that it is IMMEDIATE.  Its row in pgt_frontiers is changed first: a tick that still refreshes it
 * by an older snapshot then fails, and is tried again without it.  `prepared`: the applier has just refreshed it (immediate_prepare).
 */
CREATE FUNCTION pgtrickle.immediate_start(started_id bigint, prepared boolean DEFAULT false) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	reached pgtrickle.pgt_frontiers;
BEGIN
	IF prepared THEN
		PERFORM pgtrickle.immediate_lock(started_id);
	END IF;
	UPDATE pgtrickle.pgt_definitions SET status = 'ACTIVE', updated_at = clock_timestamp()
	WHERE pgt_id = started_id AND status <> 'ACTIVE';
	SELECT * INTO reached FROM pgtrickle.pgt_frontiers WHERE pgt_id = started_id FOR UPDATE;
	UPDATE pgtrickle.pgt_frontiers SET is_populated = true, needs_refill = false, refill_reason = NULL, retry_at = NULL,
		consecutive_errors = 0, last_refresh_at = clock_timestamp(), data_timestamp = clock_timestamp(),
		spool_snapshot = NULL, spooled_since = NULL, spool_reason = NULL
	WHERE pgt_id = started_id;
	DELETE FROM pgtrickle.pgt_spool_readers WHERE pgt_id = started_id;
	PERFORM pgtrickle.definitions_changed();
	PERFORM pgtrickle.immediate_catch_up(started_id, CASE WHEN prepared AND reached.is_populated AND NOT reached.needs_refill
		AND reached.spool_snapshot IS NULL THEN reached.snapshot::text END, reached.own_xid::text);
END
$$;
COMMENT ON FUNCTION pgtrickle.immediate_start(bigint, boolean) IS
	'has writers maintain a stream table from now on, and brings it up to date';
REVOKE ALL ON FUNCTION pgtrickle.immediate_start(bigint, boolean) FROM PUBLIC;

/*
 * Sources have changed shape, rows (a partition came or went) or meaning: IMMEDIATE stream tables over them are compiled and filled again at once, in
 * the transaction that did it.  One that cannot be is suspended with its last rows, since it must not get into the way.
 */
CREATE FUNCTION pgtrickle.immediate_follow(changed oid[], functions oid[] DEFAULT '{}') RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	affected record;
BEGIN
	FOR affected IN
		WITH RECURSIVE family (relid) AS (
			SELECT unnest(changed)
			UNION
			SELECT i.inhparent FROM family f JOIN pg_inherits i ON i.inhrelid = f.relid
		)
		SELECT d.pgt_id, d.relid, d.status FROM pgtrickle.pgt_definitions d
		WHERE d.effective_refresh_mode = 'IMMEDIATE' AND d.status IN ('ACTIVE', 'SUSPENDED', 'ERROR')
			-- not one that is just being made
			AND EXISTS (SELECT FROM pgtrickle.pgt_frontiers f WHERE f.pgt_id = d.pgt_id AND f.is_populated)
			AND (d.functions_used && functions
				OR EXISTS (SELECT FROM pgtrickle.pgt_sources s JOIN family f ON f.relid = s.source_relid WHERE s.pgt_id = d.pgt_id))
		ORDER BY d.pgt_id
	LOOP
		BEGIN
			PERFORM pgtrickle.immediate_start(affected.pgt_id);
		EXCEPTION WHEN OTHERS THEN
			UPDATE pgtrickle.pgt_definitions SET status = 'SUSPENDED', updated_at = clock_timestamp() WHERE pgt_id = affected.pgt_id;
			UPDATE pgtrickle.pgt_frontiers SET last_error_sqlstate = sqlstate, last_error_message = sqlerrm, last_error_at = clock_timestamp()
			WHERE pgt_id = affected.pgt_id;
			PERFORM pgtrickle.definitions_changed();
			CONTINUE WHEN affected.status = 'SUSPENDED';
			RAISE WARNING 'IMMEDIATE stream table "%" is suspended: %', affected.relid, sqlerrm
				USING HINT = 'It keeps its last rows. Change the sources back, or give it another query.';
		END;
	END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle.immediate_follow(oid[], oid[]) IS
	'fills IMMEDIATE stream tables again over changed relations, or which call changed functions';
REVOKE ALL ON FUNCTION pgtrickle.immediate_follow(oid[], oid[]) FROM PUBLIC;

-- After a stream table has got another query: triggers on what it reads now, and what reads it.
CREATE FUNCTION pgtrickle.immediate_redefined(redefined_id bigint) RETURNS void
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	redefined pgtrickle.pgt_definitions;
	consumer record;
BEGIN
	SELECT * INTO STRICT redefined FROM pgtrickle.pgt_definitions WHERE pgt_id = redefined_id;
	IF redefined.refresh_mode <> 'IMMEDIATE' THEN
		PERFORM pgtrickle.refuse_scheduled_source(redefined.relid);
	END IF;
	PERFORM pgtrickle.immediate_sync_triggers();
	FOR consumer IN
		SELECT d.pgt_id FROM pgtrickle.pgt_sources s JOIN pgtrickle.pgt_definitions d USING (pgt_id)
		WHERE s.source_relid = redefined.relid AND d.effective_refresh_mode = 'IMMEDIATE' AND d.status = 'ACTIVE'
	LOOP
		PERFORM pgtrickle.immediate_start(consumer.pgt_id);
	END LOOP;
END
$$;
COMMENT ON FUNCTION pgtrickle.immediate_redefined(bigint) IS
	'triggers and IMMEDIATE consumers of a stream table that has got another query';
REVOKE ALL ON FUNCTION pgtrickle.immediate_redefined(bigint) FROM PUBLIC;
