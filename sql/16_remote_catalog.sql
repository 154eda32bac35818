/*
 * sql/16_remote_catalog.sql
 *     The catalog of remotes and copies: which other databases are followed, and which of their tables are kept here.
 *
 * A remote is a database of another cluster (or of this one) whose change stream the applier follows.  A copy is a read-only table here that
 * holds what a table there holds.  Positions are LSNs in the remote's WAL.  To everything else a copy is an upstream like a stream table, so
 * its id comes from the same numbers.
 *
 * What was defined (pgt_remotes, pgt_copies, pgt_copy_patterns) is separate from how far it is (pgt_remote_states, pgt_copy_states): pg_dump takes
 * along the former; the latter would say nothing true elsewhere.  The states change with every tick, hence the room on their pages.
 *
 *     REQUESTED -> DECLARED -> WANTED -> COPYING -> COPIED -> ACTIVE      a copy; durable, every step
 *     anything but REQUESTED -> REDEFINE -> WANTED                        when the table of the remote has another shape
 *     ACTIVE -> WANTED                                                    copied again: a gap in the stream, or rows that do not fit
 */

CREATE TABLE pgtrickle.pgt_remotes (
	remote_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	remote_name text NOT NULL UNIQUE CHECK (remote_name ~ '^[a-z0-9_]{1,40}$'),
	conninfo text NOT NULL,
	-- how the program reaches this database, for a program that was started for the remote alone
	target_conninfo text,
	output_plugin text NOT NULL DEFAULT 'pgtrickle_decoder' CHECK (output_plugin IN ('pgtrickle_decoder', 'pgoutput')),
	publication text CHECK (output_plugin <> 'pgoutput' OR publication IS NOT NULL),
	slot_name text NOT NULL CHECK (slot_name ~ '^[a-z0-9_]{1,63}$'),
	-- {"schema there": "schema here"}; a schema that is not named keeps its name
	schema_map jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(schema_map) = 'object'),
	options jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(options) = 'object'),
	created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE pgtrickle.pgt_remote_states (
	remote_id integer PRIMARY KEY REFERENCES pgtrickle.pgt_remotes ON DELETE CASCADE,
	system_identifier text,
	timeline integer,
	database_name text,
	-- everything that was committed there up to here is in the copies, and nothing that was committed later
	position pg_lsn,
	-- the remote's time of it, by its own clock
	position_at timestamptz,
	own_xid xid8,
	-- the last transaction that was applied, there: a server whose history lacks it is not the one that was followed
	last_xid xid8,
	last_commit_lsn pg_lsn,
	status text NOT NULL DEFAULT 'ACTIVE' CHECK (status IN ('ACTIVE', 'PAUSED', 'LOST')),
	status_reason text,
	last_error_sqlstate text,
	last_error_message text,
	last_error_at timestamptz
) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);

CREATE TABLE pgtrickle.pgt_copies (
	copy_id bigint PRIMARY KEY DEFAULT nextval('pgtrickle.pgt_definitions_pgt_id_seq'),
	remote_id integer NOT NULL REFERENCES pgtrickle.pgt_remotes,
	remote_schema text NOT NULL,
	remote_table text NOT NULL,
	-- the table here, by the name that was asked for and, once it is there, itself
	target_schema text NOT NULL,
	target_table text NOT NULL,
	relid regclass UNIQUE,
	-- NULL: all
	columns_wanted text[],
	-- a condition on the copy's columns; rows that do not satisfy it are not kept
	row_filter text,
	demand text NOT NULL DEFAULT 'always' CHECK (demand IN ('always', 'on_demand')),
	storage text NOT NULL DEFAULT 'table' CHECK (storage IN ('table', 'none')),
	created_at timestamptz NOT NULL DEFAULT now(),
	UNIQUE (target_schema, target_table)
);
CREATE INDEX pgt_copies_remote_id ON pgtrickle.pgt_copies (remote_id);

CREATE TABLE pgtrickle.pgt_copy_states (
	copy_id bigint PRIMARY KEY REFERENCES pgtrickle.pgt_copies ON DELETE CASCADE,
	status text NOT NULL DEFAULT 'REQUESTED'
		CHECK (status IN ('REQUESTED', 'DECLARED', 'WANTED', 'COPYING', 'COPIED', 'ACTIVE', 'REDEFINE', 'SUSPENDED', 'ERROR')),
	status_reason text,
	remote_relid oid,
	is_partitioned boolean NOT NULL DEFAULT false,
	-- what the remote's table consisted of when it was looked at last (applier/sql/remote_members.sql)
	members jsonb,
	-- the highest attribute number that the remote's table has ever been seen with: a higher one is a new column
	remote_natts smallint NOT NULL DEFAULT 0,
	-- how rows are found: by the key's index, or by the hash of the whole row
	key_index oid,
	key_attnos smallint[] NOT NULL DEFAULT '{}',
	has_key boolean NOT NULL DEFAULT false,
	is_populated boolean NOT NULL DEFAULT false,
	-- while it is copied again: its rows still follow the stream; false: they stand still until the switch
	live_follows boolean NOT NULL DEFAULT false,
	-- the stream has carried its changes from here on
	stream_from pg_lsn,
	-- what was committed before it is in every row that was copied, and where the remote's WAL ended after the last one
	copied_from pg_lsn,
	copied_lsn pg_lsn,
	-- without a key: the remote's snapshot by which everything was copied
	copied_snapshot pg_snapshot,
	load_table oid,
	-- the transaction after which all of it was loaded
	loaded_xid xid8,
	-- a first copy: since this transaction the load table is what the remote's is, and follows the stream until it is switched in
	exact_xid xid8,
	exact_at timestamptz,
	-- as in pgt_frontiers: the tick that changed the rows last
	snapshot pg_snapshot,
	own_xid xid8,
	data_timestamp timestamptz,
	created_xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
	filled_xid xid8,
	rows_copied bigint NOT NULL DEFAULT 0,
	bytes_copied bigint NOT NULL DEFAULT 0,
	rows_expected bigint,
	started_at timestamptz,
	ended_at timestamptz,
	total_rows_inserted bigint NOT NULL DEFAULT 0,
	total_rows_deleted bigint NOT NULL DEFAULT 0,
	times_copied integer NOT NULL DEFAULT 0,
	consecutive_errors integer NOT NULL DEFAULT 0,
	last_error_sqlstate text,
	last_error_message text,
	last_error_at timestamptz,
	retry_at timestamptz
) WITH (fillfactor = 30, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);

-- The columns of a copy, and what the remote's table said of each when it was defined: another type there is another shape.
CREATE TABLE pgtrickle.pgt_copy_columns (
	copy_id bigint NOT NULL REFERENCES pgtrickle.pgt_copies ON DELETE CASCADE,
	attnum smallint NOT NULL,
	remote_attnum smallint NOT NULL,
	remote_column text NOT NULL,
	remote_type text NOT NULL,
	remote_type_oid oid NOT NULL,
	remote_typmod integer NOT NULL DEFAULT -1,
	remote_collation text,
	PRIMARY KEY (copy_id, attnum)
);

-- Parts of a table with a key that are copied one by one: low <= key < high; NULL: no bound.
CREATE TABLE pgtrickle.pgt_copy_chunks (
	copy_id bigint NOT NULL REFERENCES pgtrickle.pgt_copies ON DELETE CASCADE,
	chunk_no integer NOT NULL,
	low text[],
	high text[],
	status text NOT NULL DEFAULT 'PENDING' CHECK (status IN ('PENDING', 'DONE')),
	row_count bigint,
	PRIMARY KEY (copy_id, chunk_no)
);

-- Changes that arrived while a table was being copied, in the order of the stream (delta/copy_spool.c).
CREATE TABLE pgtrickle.pgt_copy_spool (
	copy_id bigint NOT NULL REFERENCES pgtrickle.pgt_copies ON DELETE CASCADE,
	spool_id bigint GENERATED ALWAYS AS IDENTITY,
	position pg_lsn NOT NULL,
	data bytea NOT NULL,
	PRIMARY KEY (copy_id, spool_id)
);

-- Whole schemas of a remote.
CREATE TABLE pgtrickle.pgt_copy_patterns (
	pattern_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	remote_id integer NOT NULL REFERENCES pgtrickle.pgt_remotes ON DELETE CASCADE,
	remote_schema text NOT NULL,
	demand text NOT NULL DEFAULT 'on_demand' CHECK (demand IN ('always', 'on_demand')),
	UNIQUE (remote_id, remote_schema)
);

SELECT pg_catalog.pg_extension_config_dump('pgtrickle.pgt_remotes', '');
SELECT pg_catalog.pg_extension_config_dump('pgtrickle.pgt_copies', '');
SELECT pg_catalog.pg_extension_config_dump('pgtrickle.pgt_copy_patterns', '');

REVOKE ALL ON pgtrickle.pgt_remotes, pgtrickle.pgt_remote_states, pgtrickle.pgt_copies, pgtrickle.pgt_copy_states, pgtrickle.pgt_copy_columns,
	pgtrickle.pgt_copy_chunks, pgtrickle.pgt_copy_spool, pgtrickle.pgt_copy_patterns FROM PUBLIC;
