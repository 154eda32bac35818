# t/016_decoder_limits.pl
#
# Goal: options are checked with clear errors, and what is large, long, old or tagged is handled.
# Method: bad options; many subtransactions with little memory; xids in the second epoch; our own origin.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster qw(sql_literal);
use StreamTables::Stream;
use Test::More;

my $node = StreamTables::Cluster->new('limits')
  ->boot(setup => 'none', conf => 'logical_decoding_work_mem = 64kB');
$node->sql(q{CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t REPLICA IDENTITY FULL});
my $stream = StreamTables::Stream->new($node);

# --- options ------------------------------------------------------------------------------------------------

sub option_error
{
	my ($options) = @_;

	return $node->psql_error('SELECT count(*) FROM pg_logical_slot_peek_binary_changes('
		  . join(', ', "'" . $stream->slot . "'", 'NULL', 'NULL', map { sql_literal($_) } @$options)
		  . ')');
}

is(option_error([]), <<'END' =~ s/\n\z//r, 'the version must be given');
22023: output plugin option "proto_version" is missing
HINT:  Give "proto_version" '1'.
END
is(option_error([ proto_version => 2 ]), <<'END' =~ s/\n\z//r, 'and be one we speak');
0A000: stream version "2" is not supported
DETAIL:  This pgtrickle_decoder speaks version 1.
HINT:  Install the same release of pgtrickle on the source server and where the applier runs.
END
is( option_error([ proto_version => 1, colour => 'red' ]),
	<<'END' =~ s/\n\z//r, 'unknown options are refused');
42704: unrecognized output plugin option "colour"
HINT:  Valid options are "proto_version", "interest", "text_types", "encoding", "compression", "batch_bytes" and "value_bytes_max".
END
is( option_error([ proto_version => 1, batch_bytes => 1, batch_bytes => 2 ]),
	'42601: output plugin option "batch_bytes" is given twice',
	'so are options given twice');
is(option_error([ proto_version => 1, compression => 'lz4' ]), <<'END' =~ s/\n\z//r, 'compression is one we have');
22023: invalid value for output plugin option "compression": "lz4"
HINT:  Give "zstd" or "none".
END
foreach my $value ('', '0', '-1', 'x', '64kB', '16777217', '99999999999999999999', ' 5', '5 ')
{
	is( option_error([ proto_version => 1, batch_bytes => $value ]),
		<<"END" =~ s/\n\z//r, "batch_bytes \"$value\" is refused");
22023: invalid value for output plugin option "batch_bytes": "$value"
HINT:  Give a number of bytes between 1 and 16777216.
END
}
foreach my $value ('x', '1,', ',1', '1,,2', '0', '1 2', '4294967296', '**', '1;2')
{
	is( option_error([ proto_version => 1, interest => $value ]),
		<<"END" =~ s/\n\z//r, "interest \"$value\" is refused");
22023: invalid value for output plugin option "interest": "$value"
HINT:  Give relation OIDs separated by commas, or * for all relations.
END
}
is( option_error(
		[ proto_version => 1, interest => '1,4294967295', batch_bytes => 1, value_bytes_max => 1 ]),
	'',
	'the smallest and largest values are accepted');
like(
	$node->psql_error(
			"SELECT pg_logical_slot_peek_changes('"
		  . $stream->slot
		  . "', NULL, NULL, 'proto_version', '1')"),
	qr/^0A000: logical decoding output plugin "pgtrickle_decoder" produces binary output/,
	'there is no text form');

# --- text is sent as it is stored ----------------------------------------------------------------------------

$node->sql(q{INSERT INTO t VALUES (1, E'\u4e2d')});
$node->sql(q{CREATE TABLE mark (x xml, j jsonb)});
$node->sql(q{INSERT INTO mark VALUES (E'<a>\u4e2d</a>', E'"\u4e2d"')});
my $hex =
  $node->sql("SET client_encoding = LATIN1; " . $stream->statement . "; SHOW client_encoding");
like($hex, qr/\nLATIN1\z/, 'the client\'s encoding is put back');
$hex =~ s/\nLATIN1\z//;
is(() = $hex =~ /e4b8ad/g, 3, 'and does not matter to the stream');

# --- large and long ------------------------------------------------------------------------------------------

$node->sql(
	q{
	BEGIN;
	DO $$
	BEGIN
		FOR i IN 1000 .. 2999 LOOP
			BEGIN
				INSERT INTO t VALUES (i, 'sub');
				IF i % 4 = 0 THEN
					RAISE 'undo';
				END IF;
			EXCEPTION WHEN raise_exception THEN
				NULL;
			END;
		END LOOP;
	END
	$$;
	INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(10001, 30000) i;
	UPDATE t SET v = 'y' WHERE id > 29000;
	DELETE FROM t WHERE id BETWEEN 10001 AND 10500;
	COMMIT;
});
my $text = $stream->text;
is(() = $text =~ /^insert t new: id=[12]\d{3} v='sub'$/mg,
	1500, 'all subtransactions that were kept');
is(() = $text =~ /^insert t new: id=\d{5} v='x/mg,
	20000, 'all rows of a transaction that was spilled');
is(() = $text =~ /^update t old: id=(\d+) v='x+'\.{3}\(100 bytes\) new: id=\g1 v='y'$/mg,
	1000, 'its updates');
like($text, qr/\Abegin\nrelation .*\n(?s:.*)commit rows 23000\n\z/, 'and the count at the end');
cmp_ok(
	$node->sql(
		"SELECT spill_count FROM pg_stat_replication_slots WHERE slot_name = '"
		  . $stream->slot . "'"),
	'>', 0,
	'it was spilled indeed');

# --- our own writes ---------------------------------------------------------------------------------------------

$node->sql(q{SELECT pg_replication_origin_create('neighbour')});
$node->sql(
	q{
	SELECT pg_replication_origin_session_setup('neighbour');
	INSERT INTO t VALUES (100, 'replicated');
	SELECT pg_replication_origin_session_reset();
});
$stream->says(<<'END', 'changes replicated from elsewhere come');
begin
relation t public.t as t identity f: id@1:23* v@2:25*
insert t new: id=100 v='replicated'
commit rows 1
END

# The origin that our own refreshes use, which no function hands out: 65535.
$node->sql(
	q{
	SET allow_system_table_mods = on;
	INSERT INTO pg_replication_origin VALUES (65535, 'hidden');
});
$node->sql(
	q{
	SELECT pg_replication_origin_session_setup('hidden');
	INSERT INTO t VALUES (101, 'hidden, all of it');
	BEGIN;
	UPDATE t SET v = 'hidden' WHERE id = 100;
	SELECT pg_replication_origin_session_reset();
	INSERT INTO t VALUES (102, 'seen');
	SELECT pg_replication_origin_session_setup('hidden');
	DELETE FROM t WHERE id = 101;
	SELECT pg_replication_origin_session_reset();
	COMMIT;
});
$stream->says(<<'END', 'changes tagged as nobody\'s news do not, one by one');
begin
relation t public.t as t identity f: id@1:23* v@2:25*
insert t new: id=102 v='seen'
commit rows 1
END

# --- memory ----------------------------------------------------------------------------------------------------

# All memory contexts of the walsender, from the server's log.
my $walsender;

sub walsender_bytes
{
	my $start = -s $node->logfile;

	$node->sql("SELECT pg_log_backend_memory_contexts($walsender)");
	$node->wait_for_log(qr/Grand total: \d+ bytes/, $start);
	my ($bytes) = slurp_file($node->logfile, $start) =~
	  /Grand total: \d+ bytes in \d+ blocks; \d+ free \(\d+ chunks\); (\d+) used/;
	return $bytes;
}

# Many small transactions, with new shapes and subtransactions among them; returns when they have been sent.
sub churn
{
	my ($rounds) = @_;

	$node->sql(
		qq{
		DO \$\$
		BEGIN
			FOR i IN 1 .. $rounds LOOP
				INSERT INTO many VALUES (i, repeat('v', i % 100), i, ARRAY[i]);
				INSERT INTO unwanted VALUES (i);
				BEGIN
					UPDATE many SET n = n + 1 WHERE id = i;
				EXCEPTION WHEN division_by_zero THEN
					NULL;
				END;
				IF i % 100 = 0 THEN
					ALTER TABLE many ALTER n TYPE numeric, ADD COLUMN x int;
					ALTER TABLE many DROP COLUMN x;
					TRUNCATE unwanted, many;
				END IF;
				PERFORM pg_logical_emit_message(i % 2 = 0, 'pgtrickle', 'some message');
				COMMIT;
			END LOOP;
		END
		\$\$});
	my $lsn = $node->sql('SELECT pg_current_wal_flush_lsn()');
	$node->poll_query_until('postgres', "SELECT sent_lsn >= '$lsn' FROM pg_stat_replication")
	  or die 'the walsender did not catch up';
	return;
}

$node->sql(
	q{CREATE TABLE many (id int, v text, n numeric, a int[]); CREATE TABLE unwanted (id int)});
my $many = $node->sql(q{SELECT 'many'::regclass::oid});
$node->append_conf('postgresql.conf', 'checkpoint_timeout = 1h');
my $consumer = IPC::Run::start(
	[
		'pg_recvlogical', '--dbname', $node->connstr('postgres'), '--slot',
		$stream->slot, '--start', '--no-loop', '--file',
		'/dev/null', '--option', 'proto_version=1', '--option',
		"interest=$many"
	]);
$node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM pg_stat_replication')
  or die 'nothing streams';
$walsender = $node->sql('SELECT pid FROM pg_stat_replication');
churn(1000);
my $before = walsender_bytes();
churn(4000);
my $growth = walsender_bytes() - $before;
cmp_ok($growth, '<', 16384, "4000 more transactions need no more memory (grew by $growth bytes)");
$consumer->signal('INT');
$consumer->finish;

# --- xids in the second epoch ---------------------------------------------------------------------------------------

$node->stop;
my $data = $node->data_dir;
command_ok([ 'pg_resetwal', '--epoch', '3', '--pgdata', $data ], 'the epoch is moved');
$node->start;
$stream->{node}->sql(q{SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots});
$stream = StreamTables::Stream->new($node);
$node->sql(
	q{BEGIN; SELECT pg_current_xact_id(); INSERT INTO t VALUES (200, 'third epoch'); COMMIT});
my $xid = $node->sql('SELECT xmin::text::bigint + (3::bigint << 32) FROM t WHERE id = 200');
like($stream->text(arguments => []), qr/^begin xid $xid commit_lsn/, 'xids carry their epoch');

done_testing();
