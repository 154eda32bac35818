/*
 * sql/10_catalog.sql
 *     The catalog of stream tables: what is defined, how far each one is, what it reads.
 *
 * Base tables only; what users may read are the views in 50_views.sql.  A stream table's identity is its OID;
 * that of a source is its name, so nothing here refers to a source by a foreign key.  The tables that change with every
 * tick (pgt_frontiers, pgt_progress) are narrow and separate, with room on the page for HOT updates.
 */

CREATE TABLE pgtrickle.pgt_definitions (
	pgt_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	-- by name in a dump, so that it means the right table where it is restored
	relid regclass NOT NULL UNIQUE,
	-- as given, and as printed from the analysed query with every name qualified
	original_query text NOT NULL,
	defining_query text NOT NULL,
	query_fingerprint text NOT NULL,
	schedule text NOT NULL DEFAULT 'calculated',
	refresh_mode text NOT NULL DEFAULT 'AUTO'
		CHECK (refresh_mode IN ('AUTO', 'DIFFERENTIAL', 'FULL', 'IMMEDIATE')),
	-- what AUTO came to: DIFFERENTIAL, or FULL for the reason given
	effective_refresh_mode text NOT NULL
		CHECK (effective_refresh_mode IN ('DIFFERENTIAL', 'FULL', 'IMMEDIATE')),
	downgrade_reason text,
	-- why its answer changes without any change in the WAL, so that its schedule refreshes it even if nothing has arrived
	clock_reason text,
	status text NOT NULL DEFAULT 'INITIALIZING'
		CHECK (status IN ('INITIALIZING', 'ACTIVE', 'PAUSED', 'SUSPENDED', 'ERROR')),
	-- how rows of the stream table are found: a btree on key_attnos, or on the hash of the whole row
	key_index oid,
	key_attnos smallint[] NOT NULL DEFAULT '{}',
	key_is_row_hash boolean NOT NULL DEFAULT false,
	-- the users' functions that the query calls, itself or through views
	functions_used oid[] NOT NULL DEFAULT '{}',
	-- what the names in the query mean, views taken apart; null: not known (delta/sources.c)
	meaning text,
	-- settings that the meaning of a query depends on, as they were at creation: {"TimeZone": "UTC", ...}
	settings jsonb NOT NULL DEFAULT '{}',
	-- other arguments of create_stream_table that were accepted
	options jsonb NOT NULL DEFAULT '{}',
	created_xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
	filled_xid xid8,
	created_at timestamptz NOT NULL DEFAULT now(),
	updated_at timestamptz NOT NULL DEFAULT now()
);

-- Everything that a refresh moves.  One row per stream table, made with it.
CREATE TABLE pgtrickle.pgt_frontiers (
	pgt_id bigint PRIMARY KEY REFERENCES pgtrickle.pgt_definitions ON DELETE CASCADE,
	-- the rows equal the defining query at exactly this snapshot; NULL: never filled
	snapshot pg_snapshot,
	-- how far the stream had been read for it (a fill: the insert position at its snapshot)
	lsn pg_lsn,
	own_xid xid8,
	-- the moment of the snapshot
	data_timestamp timestamptz,
	-- what of the changes that the stream table needs is in the spool: all that this snapshot sees and the other does not; the oldest of
	-- them; and why they are not there, but a full refresh has to follow
	spool_snapshot pg_snapshot,
	spooled_since timestamptz,
	spool_reason text,
	-- what now() was in the query that the rows equal
	query_now timestamptz,
	last_refresh_at timestamptz,
	is_populated boolean NOT NULL DEFAULT false,
	needs_refill boolean NOT NULL DEFAULT false,
	refill_reason text,
	total_refreshes bigint NOT NULL DEFAULT 0,
	failed_refreshes bigint NOT NULL DEFAULT 0,
	total_rows_inserted bigint NOT NULL DEFAULT 0,
	total_rows_deleted bigint NOT NULL DEFAULT 0,
	total_duration_ms double precision NOT NULL DEFAULT 0,
	last_action text,
	last_status text,
	consecutive_errors integer NOT NULL DEFAULT 0,
	last_error_sqlstate text,
	last_error_message text,
	last_error_at timestamptz,
	retry_at timestamptz,
	-- what refreshes took, divided by what was estimated: the mean of the last ones, NULL: none was weighed (delta/cost.c)
	delta_cost_factor double precision,
	full_cost_factor double precision,
	-- how far the retained history reaches back (56_retained_history.sql)
	history_since timestamptz,
	history_pruned_id bigint
) WITH (fillfactor = 40, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);

-- What a stream table reads, views expanded.  Sources are bound by name each time the query is compiled;
-- source_relid is what the name meant the last time.
CREATE TABLE pgtrickle.pgt_sources (
	pgt_id bigint NOT NULL REFERENCES pgtrickle.pgt_definitions ON DELETE CASCADE,
	source_relid oid NOT NULL,
	source_schema text NOT NULL,
	source_name text NOT NULL,
	source_type text NOT NULL
		CHECK (source_type IN ('TABLE', 'STREAM_TABLE', 'VIEW', 'MATVIEW', 'FOREIGN_TABLE', 'PARTITIONED_TABLE')),
	columns_used text[] NOT NULL DEFAULT '{}',
	PRIMARY KEY (pgt_id, source_relid)
);
CREATE INDEX pgt_sources_source_relid ON pgtrickle.pgt_sources (source_relid);

-- Internal tables that hold what the visible columns cannot tell (counts behind an average, rows of an aggregate inside a join).
CREATE TABLE pgtrickle.pgt_state_tables (
	pgt_id bigint NOT NULL REFERENCES pgtrickle.pgt_definitions ON DELETE CASCADE,
	node_no integer NOT NULL,
	relid oid NOT NULL UNIQUE,
	key_index oid,
	fingerprint text NOT NULL,
	PRIMARY KEY (pgt_id, node_no)
);

CREATE TABLE pgtrickle.pgt_history (
	refresh_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	pgt_id bigint NOT NULL,
	data_timestamp timestamptz,
	start_time timestamptz NOT NULL,
	end_time timestamptz,
	action text NOT NULL CHECK (action IN ('NO_DATA', 'FULL', 'DIFFERENTIAL', 'REINITIALIZE', 'SKIP')),
	status text NOT NULL CHECK (status IN ('RUNNING', 'COMPLETED', 'FAILED', 'SKIPPED')),
	initiated_by text NOT NULL CHECK (initiated_by IN ('SCHEDULER', 'MANUAL', 'INITIAL')),
	-- how many refreshes this row sums up: a continuous stream table writes at most one row a second
	refreshes bigint NOT NULL DEFAULT 1,
	rows_inserted bigint NOT NULL DEFAULT 0,
	rows_deleted bigint NOT NULL DEFAULT 0,
	delta_row_count bigint NOT NULL DEFAULT 0,
	was_full_fallback boolean NOT NULL DEFAULT false,
	-- why it was a full refresh
	reason text,
	duration_ms double precision,
	error_sqlstate text,
	error_message text,
	tick_lsn pg_lsn,
	-- in refresh mode AUTO: which way was chosen by cost, and what was expected of both
	decision text CHECK (decision IN ('DELTA', 'FULL')),
	estimated_delta_ms double precision,
	estimated_full_ms double precision
);
CREATE INDEX pgt_history_pgt_id ON pgtrickle.pgt_history (pgt_id, refresh_id);
CREATE INDEX pgt_history_start_time ON pgtrickle.pgt_history USING brin (start_time);

-- What each step of a delta program did in a recent refresh: [{"step": 1, "rows_in": 3, "rows_out": 2, "ms": 0.051}, ...]
CREATE TABLE pgtrickle.pgt_last_steps (
	pgt_id bigint PRIMARY KEY REFERENCES pgtrickle.pgt_definitions ON DELETE CASCADE,
	refreshed_at timestamptz NOT NULL,
	steps jsonb NOT NULL
);

-- What the applier persisted last; exactly one row.
CREATE TABLE pgtrickle.pgt_progress (
	singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
	slot_name text,
	system_identifier text,
	timeline integer,
	-- the slot has not been told anything beyond this
	ack_lsn pg_lsn,
	-- the stream had been read up to here, at that moment
	stream_lsn pg_lsn,
	persisted_at timestamptz,
	-- a transaction id taken after the slot was made: fills whose snapshot has a lower xmin may miss changes
	valid_xid xid8,
	settled_snapshot pg_snapshot,
	started_at timestamptz,
	-- a position of the WAL and when it was the end: once ack_lsn has passed it, everything committed before that moment is in
	-- every stream table that follows its sources (applier_heartbeat)
	probe_lsn pg_lsn,
	probed_at timestamptz,
	-- the moment of the last probe that was passed
	fresh_at timestamptz
) WITH (fillfactor = 10);
INSERT INTO pgtrickle.pgt_progress DEFAULT VALUES;

-- Records of change sets that wait for slow schedules (delta/spool.c), and for whom.
CREATE TABLE pgtrickle.pgt_spool (
	spool_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	data bytea NOT NULL
);
CREATE TABLE pgtrickle.pgt_spool_readers (
	pgt_id bigint NOT NULL REFERENCES pgtrickle.pgt_definitions ON DELETE CASCADE,
	spool_id bigint NOT NULL,
	PRIMARY KEY (pgt_id, spool_id)
);
CREATE INDEX pgt_spool_readers_spool_id ON pgtrickle.pgt_spool_readers (spool_id);

-- Answers to verify(): the differing rows found inside a tick.
CREATE TABLE pgtrickle.pgt_verifications (
	nonce text NOT NULL,
	pgt_id bigint NOT NULL,
	verified_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	snapshot pg_snapshot NOT NULL,
	row_count bigint NOT NULL,
	-- [{"kind": "missing" | "surplus", "copies": 1, "row": {...}}, ...], at most 100 of them
	difference_count bigint NOT NULL,
	differences jsonb NOT NULL,
	PRIMARY KEY (nonce, pgt_id)
);

-- Definitions are user data: pg_dump takes them along, and restore_stream_tables() makes them work again.
SELECT pg_catalog.pg_extension_config_dump('pgtrickle.pgt_definitions', '');

-- Nobody but the extension reads or writes these directly; the views and functions do.
REVOKE ALL ON ALL TABLES IN SCHEMA pgtrickle FROM PUBLIC;
