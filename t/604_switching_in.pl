# t/604_switching_in.pl
#
# Goal: what was loaded for a first copy becomes the copy without being written again, and no snapshot, whenever it was taken, sees
#       anything but an empty table or what the remote's table was at the position that the same snapshot shows.
# Method: ticks by hand, with sessions that hold old snapshots or locks; files are told apart by their numbers; amcheck.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use StreamTables::Remote;
use StreamTables::Session;
use Test::More;

my $node = StreamTables::Cluster->new('switching')->boot(setup => 'extension');
my $remote = StreamTables::Remote->new($node);
my $number = 0;
$node->sql('CREATE EXTENSION amcheck');

# A table with what a table may have, filled, defined and being followed; an index with a condition is of the copy alone.
sub make
{
	my ($rows) = @_;

	my $table = 'items' . ++$number;
	$remote->create_both(
		"CREATE TABLE $table (id int PRIMARY KEY, code text NOT NULL UNIQUE, grp int, big text, price numeric(10,2) DEFAULT 0, UNIQUE (grp, id) INCLUDE (price));
		ALTER TABLE $table ALTER big SET STORAGE EXTERNAL");
	$node->sql("CREATE INDEX ON $table (grp DESC) WITH (fillfactor = 70); CREATE INDEX ON $table (upper(code)) WHERE grp = 1;
		CREATE VIEW view$number AS SELECT grp, count(*) AS n, sum(length(big)) AS size FROM $table GROUP BY grp");
	$remote->source("INSERT INTO $table SELECT i, 'c' || i, i % 5, repeat(md5(i::text), 100), i FROM generate_series(1, $rows) i");
	$remote->tick;
	$remote->define($table, key => "${table}_pkey");
	$remote->streams($table);
	return $table;
}

sub session
{
	my $session = StreamTables::Session->new($node);
	$session->run('BEGIN ISOLATION LEVEL ' . shift . '; SELECT 1');
	return $session;
}

sub ask
{
	my ($session, $sql) = @_;

	my $answer = $session->run($sql);
	chomp(my $rows = $answer->{rows});
	return $answer->{state} eq '00000' ? $rows : $answer->{message};
}

sub files
{
	my ($table) = @_;

	return $node->sql("SELECT pg_relation_filenode('$table'), (SELECT string_agg(pg_relation_filenode(indexrelid)::text, ',' ORDER BY indexrelid)
		FROM pg_index WHERE indrelid = '$table'::regclass AND indpred IS NULL), pg_relation_filenode(reltoastrelid) FROM pg_class WHERE oid = '$table'::regclass");
}

# Of the load table, in the order of the copy's indexes.
sub load_files
{
	my ($table) = @_;

	my $load = $remote->state($table, 'load_table::regclass');
	return $node->sql("SELECT pg_relation_filenode('$load'), (SELECT string_agg(pg_relation_filenode(('pgtrickle.pgt_load_index_' || indexrelid)::regclass)::text, ',' ORDER BY indexrelid)
		FROM pg_index WHERE indrelid = '$table'::regclass AND indpred IS NULL), pg_relation_filenode(reltoastrelid) FROM pg_class WHERE oid = '$load'::regclass");
}

sub is_sound
{
	my ($table, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($remote->differences("SELECT * FROM $table"), '', "$name: rows");
	is($node->sql("SELECT count(*) FROM pg_index WHERE indrelid = '$table'::regclass AND (bt_index_check(indexrelid, true) IS NULL OR true)"), '5', "$name: indexes");
	is($node->sql("SELECT count(*) FROM verify_heapam('$table', check_toast => true)"), '0', "$name: table");
	is( $node->sql("SELECT t.relname = 'pg_toast_' || c.oid, t.relowner = c.relowner, i.relname = t.relname || '_index', i.relowner = c.relowner,
			(SELECT count(*) FROM pg_depend d WHERE d.objid = t.oid AND d.refobjid = c.oid AND d.deptype = 'i')
		FROM pg_class c JOIN pg_class t ON t.oid = c.reltoastrelid JOIN pg_index x ON x.indrelid = t.oid JOIN pg_class i ON i.oid = x.indexrelid WHERE c.oid = '$table'::regclass"),
		't|t|t|t|1', "$name: the TOAST table is the copy's own");
	is($node->sql(q{SELECT count(*) FROM pg_class WHERE relname LIKE 'pgt\_load\_%'}), '0', "$name: nothing is left behind");
	return;
}

# --- a quiet table -----------------------------------------------------------------------------------------------

my $table = make(300);
$remote->copy_rows($table, parts => [ 'id < 100', 'id >= 100' ]);
my $loaded = load_files($table);
like($remote->tick(once => 1), qr/^$table SWITCH \+300 -0$/, 'a table to which nothing was committed meanwhile is switched in at once');
is(files($table), $loaded, 'the copy has the files that were loaded');
is_sound($table, 'a quiet table');
is($node->sql("SELECT sum(n), sum(size) FROM view$number"), '300|960000', 'a view over it shows them');
cmp_ok($node->sql("SELECT count(*) FROM pg_stats WHERE tablename = '$table'"), '>=', 4, 'statistics came along');
is($node->sql("SET enable_seqscan = off; SELECT id FROM $table WHERE grp = 1 AND upper(code) = 'C6'"), '6', 'an index with a condition was built');
$remote->source("UPDATE $table SET grp = 7, big = repeat('x', 5000) WHERE id < 20; DELETE FROM $table WHERE id > 290; INSERT INTO $table VALUES (1000, 'c1000', 1, repeat('y', 9000))");
like($remote->tick, qr/^$table COPY/, 'and then it follows');
is_sound($table, 'changed');

# --- what a snapshot sees ------------------------------------------------------------------------------------------

$table = make(50);
my $early = session('REPEATABLE READ');
my $between;
$remote->copy_rows($table, parts => [ 'id < 25', 'id >= 25' ], between => sub {
	$between //= session('REPEATABLE READ');
	$remote->source("UPDATE $table SET price = price + 1, big = 'short' WHERE id IN (3, 30); DELETE FROM $table WHERE id = 40");
	$remote->tick(once => 1);
});
$loaded = load_files($table);
like($remote->tick(once => 1), qr/^$table KEEP/, 'a table that was changed meanwhile is caught up first');
is($node->sql("SELECT count(*) FROM $table"), '0', 'and not shown');
my $state = $remote->source("SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM $table t");
my $late = session('REPEATABLE READ');
$remote->source("DELETE FROM $table WHERE id < 5; UPDATE $table SET code = code || 'x', big = repeat('z', 4000) WHERE id > 45; INSERT INTO $table VALUES (60, 'c60', 2, NULL)");
like($remote->tick(once => 1), qr/^$table KEEP/, 'the old snapshots are waited for');
is(ask($early, "SELECT count(*) FROM $table"), '0', 'one from before the copying sees an empty table');
is(ask($between, "SELECT count(*) FROM $table"), '0', 'as does one from within');
$early->run('COMMIT');
like($remote->tick(once => 1), qr/^$table KEEP/, 'the other is still there');
$between->run('COMMIT');
$remote->source("INSERT INTO $table VALUES (61, 'c61', 2, repeat('w', 3000))");
like($remote->tick(once => 1), qr/^$table SWITCH \+47 -0$/, 'when it is gone, the copy is switched in');
is(files($table), $loaded, 'by its files');
is(ask($late, "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM $table t"), $state, 'a snapshot from after the catching up sees the state of its position');
$late->run('COMMIT');
is_sound($table, 'a table that was changed while it was copied');

# --- readers --------------------------------------------------------------------------------------------------------

$table = make(20);
$remote->copy_rows($table);
my $reader = session('READ COMMITTED');
$reader->run("SELECT count(*) FROM $table");
like($remote->tick(once => 1), qr/^$table KEEP/, 'who reads the empty copy is waited for');
is($node->sql("SELECT count(*) FROM $table"), '0', 'and others can read it meanwhile');
$reader->run('COMMIT');
like($remote->tick(once => 1), qr/^$table SWITCH/, 'then the switch comes');
is_sound($table, 'after a reader');

$table = make(20);
my $old = session('REPEATABLE READ');
$remote->copy_rows($table);
my $files = files($table);
like($remote->tick(once => 1), qr/^$table KEEP/, 'an old snapshot is waited for');
$node->sql("UPDATE pgtrickle.pgt_copy_states SET exact_at = exact_at - interval '1 hour' WHERE exact_at IS NOT NULL");
like($remote->tick(once => 1), qr/^$table SWITCH \+20 -0$/, 'but not for ever');
is(files($table), $files, 'then the rows are written');
is(ask($old, "SELECT count(*) FROM $table"), '0', 'and the old snapshot still sees none');
$old->run('COMMIT');
is_sound($table, 'written');

$table = make(20);
$remote->copy_rows($table);
$node->sql("ALTER TABLE $table ADD CHECK (id > 0)");
$files = files($table);
like($remote->tick(once => 1), qr/^$table SWITCH \+20 -0$/, 'so they are when something has to be checked');
is(files($table), $files, 'into the files of the copy');
is_sound($table, 'checked');

# a query of the table that it is a partition of leaves it out for values that it must not have
$remote->create_both('CREATE TABLE part (id int PRIMARY KEY, region text NOT NULL)');
$node->sql("CREATE TABLE regions (id int, region text NOT NULL) PARTITION BY LIST (region); ALTER TABLE regions ATTACH PARTITION part FOR VALUES IN ('eu')");
$remote->source("INSERT INTO part VALUES (1, 'eu'), (2, 'eu')");
$remote->tick;
$remote->define('part', key => 'part_pkey');
$remote->streams('part');
$remote->copy_rows('part');
like($remote->tick(once => 1), qr/^part SWITCH \+2 -0$/, 'a copy can be a partition');
is($node->sql("SELECT count(*) FROM regions WHERE region = 'eu'"), '2', 'which shows its rows');
$remote->source("INSERT INTO part VALUES (3, 'us')");
like($remote->tick_fails, qr/^23514: new row for relation "part" violates partition constraint/, 'and gets no others');
$node->sql('ALTER TABLE regions DETACH PARTITION part');
$remote->again;
is($remote->differences('SELECT * FROM part'), '', 'while it is one');

# --- indexes that are not those of the load table -------------------------------------------------------------------

# rows that are updated in place, for an index that the load table does not have
$remote->create_both('CREATE TABLE hot (id int PRIMARY KEY, v int)');
$node->sql('CREATE INDEX ON hot ((v + 0))');
$remote->source('INSERT INTO hot SELECT i, i FROM generate_series(1, 20) i');
$remote->tick;
$remote->define('hot', key => 'hot_pkey');
$remote->streams('hot');
$early = session('REPEATABLE READ');
$remote->copy_rows('hot', between => sub { $remote->source('DELETE FROM hot WHERE id = 20'); $remote->tick(once => 1) });
like($remote->tick(once => 1), qr/^hot KEEP/, 'a copy is caught up');
$late = session('REPEATABLE READ');
$remote->source('UPDATE hot SET v = 1000 + v WHERE id <= 3');
$early->run('COMMIT');
like($remote->tick(once => 1), qr/^hot SWITCH/, 'and follows until it is switched in');
$late->run('SET enable_seqscan = off');
is(ask($late, 'SELECT id FROM hot WHERE v + 0 = 2'), '2', 'an index that is built then hides nothing from a snapshot from before');
$late->run('COMMIT');
is($node->sql('SET enable_seqscan = off; SELECT id FROM hot WHERE v + 0 = 1002'), '2', 'and shows the rest to later ones');

# two parts, by two snapshots, have the same value of a unique column
$remote->create_both('CREATE TABLE mails (id int PRIMARY KEY, mail text)');
$node->sql('CREATE UNIQUE INDEX ON mails (mail)');
$remote->source(q{INSERT INTO mails SELECT i, 'm' || i FROM generate_series(1, 20) i});
$remote->tick;
$remote->define('mails', key => 'mails_pkey');
$remote->streams('mails');
$remote->copy_rows('mails', parts => [ 'id < 10', 'id >= 10' ], between => sub {
	$remote->source(q{UPDATE mails SET mail = 'other' WHERE id = 1; UPDATE mails SET mail = 'm1' WHERE id = 15})
});
like($remote->tick, qr/^mails SWITCH \+20 -0$/, 'what only parts break that were read at different times is no obstacle');
is($remote->differences('SELECT * FROM mails'), '', 'to copying');
is($node->sql(q{SELECT indisvalid, pg_relation_size(indexrelid) > 8192 FROM pg_index WHERE indexrelid = 'mails_mail_idx'::regclass}), 't|t', 'and the index is there');

# values of a unique column that rows exchange, while a table is copied and later
sub exchange
{
	my ($id, $other) = @_;

	$remote->source(qq{BEGIN; UPDATE posts SET mail = 'none' WHERE id = $id; UPDATE posts SET mail = 'n$id' WHERE id = $other; UPDATE posts SET mail = 'n$other' WHERE id = $id; COMMIT});
	return;
}

$remote->create_both('CREATE TABLE posts (id int PRIMARY KEY, mail text UNIQUE, long text); ALTER TABLE posts ALTER long SET STORAGE EXTERNAL');
$remote->source(q{INSERT INTO posts SELECT i, 'n' || i, repeat(md5(i::text), 300) FROM generate_series(1, 9) i});
$remote->tick;
$remote->define('posts', key => 'posts_pkey');
$remote->streams('posts');
$remote->copy_rows('posts', between => sub { exchange(1, 2) });
$remote->tick;
is($remote->differences('SELECT * FROM posts'), '', 'rows exchange unique values while they are copied');
exchange(4, 3);
$remote->source(q{DELETE FROM posts WHERE id = 9; INSERT INTO posts VALUES (0, 'n9', NULL); UPDATE posts SET mail = 'n8x' WHERE id = 8; INSERT INTO posts VALUES (7000, 'n8', 'short')});
$remote->tick;
is($remote->differences('SELECT * FROM posts'), '', 'and later, with what is stored out of line');

# with the rights of the owner
$node->sql(q{CREATE ROLE owner LOGIN; GRANT CREATE ON SCHEMA public TO owner; SET SESSION AUTHORIZATION owner;
	CREATE FUNCTION span(float8, float8) RETURNS float8 LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RAISE LOG $$span as %$$, current_user; RETURN $1 - $2; END';
	CREATE TYPE spans AS RANGE (subtype = float8, subtype_diff = span);
	CREATE TABLE periods (id int PRIMARY KEY, p spans); CREATE INDEX ON periods USING gist (p)});
$remote->source('CREATE TYPE spans AS RANGE (subtype = float8); CREATE TABLE periods (id int PRIMARY KEY, p spans); INSERT INTO periods SELECT i, spans(i, i + 1) FROM generate_series(1, 500) i');
$remote->tick;
$remote->define('periods', key => 'periods_pkey');
$remote->copy('periods');
my %roles = map { $_ => 1 } slurp_file($node->logfile) =~ /span as (\w+)/g;
is(join(',', sort keys %roles), 'owner', 'functions of ranges are called with the rights of the owner');
is($remote->differences('SELECT id, lower(p), upper(p) FROM periods'), '', 'and the rows are there');

# an index with another OID
$node->sql('REINDEX TABLE CONCURRENTLY periods');
$node->sql(q{SELECT pgtrickle.recopy('periods')});
$remote->source('UPDATE periods SET p = spans(0, 1) WHERE id = 7');
$remote->streams('periods');
$remote->copy_rows('periods', between => sub { $remote->source('DELETE FROM periods WHERE id = 8') });
like($remote->tick, qr/^periods SWITCH/, 'a copy whose index was built anew can be copied again');
is($remote->differences('SELECT id, lower(p), upper(p) FROM periods'), '', 'with all rows');

# --- a switch that fails --------------------------------------------------------------------------------------------

$table = make(40);
$remote->copy_rows($table, between => sub { $remote->source("UPDATE $table SET grp = 0 WHERE id = 1"); $remote->tick(once => 1) });
$remote->tick(once => 1);
$loaded = load_files($table);
my ($script, $position) = $remote->tick_script;
# the source lives in the same cluster: what its slot has handed over must not come again
$node->sql('CHECKPOINT');
(my $undone = $script) =~ s/COMMIT;/ROLLBACK;/;
like($node->sql($undone), qr/\|SWITCH\|40\|0/, 'a switch that is rolled back');
is(load_files($table), $loaded, 'has changed no file');
is($node->sql("SELECT count(*) FROM $table"), '0', 'and shown nothing');
my $killed = StreamTables::Session->new($node);
(my $open = $script) =~ s/COMMIT;//;
like(ask($killed, $open), qr/\|SWITCH\|40\|0/, 'a switch in which the server dies');
$node->stop('immediate');
$killed->quit;
$node->start;
is(load_files($table), $loaded, 'neither');
$remote->source("UPDATE $table SET grp = 3 WHERE id = 2");
like($node->sql($script), qr/\|SWITCH\|40\|0/, 'the same tick once more');
$remote->{position} = $position;
is(files($table), $loaded, 'is the switch');
like($remote->tick, qr/^$table COPY/, 'which lasts');
is_sound($table, 'after a crash');

# --- no key, and nothing but rows --------------------------------------------------------------------------------------

$remote->create_both('CREATE TABLE bag (a int, b text)');
$remote->source(q{ALTER TABLE bag REPLICA IDENTITY FULL; INSERT INTO bag SELECT i % 10, 'b' FROM generate_series(1, 100) i});
$remote->tick;
$remote->define('bag');
$remote->streams('bag');
$remote->copy_rows('bag', between => sub { $remote->source('UPDATE bag SET a = 77 WHERE a = 3') });
$loaded = load_files('bag');
like($remote->tick, qr/^bag SWITCH \+100 -0$/, 'a bag is switched in, too');
is(files('bag'), $loaded, 'by its files');
$remote->source('DELETE FROM bag WHERE a > 5; INSERT INTO bag VALUES (4, NULL)');
$remote->tick;
is($remote->differences('SELECT * FROM bag'), '', 'and found by its index from then on');

# --- loading is nobody's change -----------------------------------------------------------------------------------------

$node->sql('CREATE TABLE notes (note text)');
$node->sql(q{SELECT pg_create_logical_replication_slot('here', 'pgtrickle_decoder')});
$node->sql(q{BEGIN; SELECT pgtrickle.copy_hide_rows(); INSERT INTO notes VALUES ('is hidden'); COMMIT; INSERT INTO notes VALUES ('after it');
	BEGIN; SELECT pgtrickle.copy_hide_rows(); ROLLBACK; INSERT INTO notes VALUES ('after rollback')});
is( $node->sql(q{SELECT string_agg(m[1], ', ') FROM pg_logical_slot_get_binary_changes('here', NULL, NULL, 'proto_version', '1', 'interest', (SELECT 'notes'::regclass::oid::text)),
		regexp_matches(encode(data, 'escape'), '(is hidden|after it|after rollback)', 'g') m}),
	'after it, after rollback', 'rows that are loaded are not in the stream, what comes after them is');

$node->stop;
done_testing();
