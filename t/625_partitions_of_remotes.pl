# t/625_partitions_of_remotes.pl
#
# Goal: the copy of a partitioned table follows what is done to its partitions, most of which no stream tells: what comes or goes with a partition
#       is copied again, with its reason, and what only looks like it is not. The same for rows that were written anew without a trace.
# Method: the same partitioned table followed by our decoder and by pgoutput; one deed after the other on the source, between writes.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use StreamTables::Replica;
use Test::More;
use Time::HiRes qw(usleep);

my $replica = StreamTables::Replica->new('partitions');
my ($source, $target) = ($replica->source, $replica->target);
my @tables = qw(own.parts sold.parts);

foreach my $schema (qw(own sold))
{
	$source->sql(
		qq{CREATE SCHEMA $schema;
		CREATE TABLE $schema.parts (id int, k int NOT NULL, v text NOT NULL, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
		CREATE TABLE $schema.parts_1 PARTITION OF $schema.parts FOR VALUES FROM (0) TO (100);
		CREATE TABLE $schema.parts_2 PARTITION OF $schema.parts FOR VALUES FROM (100) TO (200);
		INSERT INTO $schema.parts SELECT i, i % 200, 'v' FROM generate_series(1, 400) i;
		CREATE TABLE $schema.plain (id int PRIMARY KEY, v text);
		INSERT INTO $schema.plain SELECT i, 'v' FROM generate_series(1, 100) i});
}
$source->sql('CREATE PUBLICATION sales FOR TABLE sold.parts, sold.plain WITH (publish_via_partition_root = true)');
$replica->add_remote('published', output_plugin => 'pgoutput', publication => 'sales', conninfo => $source->connstr('postgres'));
$target->start_applier;
$replica->copy(map { [ shop => "own.$_" ], [ published => "sold.$_" ] } qw(parts plain));
$target->create_stream_table('sums', 'SELECT k / 100 AS c, count(*) AS n, sum(id) AS total FROM own.parts GROUP BY 1');

my $next_id = 1000;
my $said;

sub write_rows
{
	foreach my $schema (qw(own sold))
	{
		$next_id++;
		$source->sql("INSERT INTO $schema.parts VALUES ($next_id, 5, 'new'), ($next_id, 105, 'new'); UPDATE $schema.parts SET v = v || 'x' WHERE id % 40 = 5;
			DELETE FROM $schema.parts WHERE id = $next_id - 990; UPDATE $schema.plain SET v = v || 'x' WHERE id % 7 = 0");
	}
	return;
}

sub times_copied
{
	return $target->sql(
		q{SELECT string_agg(times_copied::text, ' ' ORDER BY remote_table, remote_schema) FROM pgtrickle.pgt_copies JOIN pgtrickle.pgt_copy_states USING (copy_id)});
}

# The daemon compares once a minute.  (Its own worker may be at work: then ours does nothing.)
sub look
{
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	while (time < $deadline)
	{
		my ($ok, $stdout, $stderr) = $target->try_program('copy');
		$said .= $stderr;
		return if $stderr !~ /another worker/;
		usleep(50_000);
	}
	die 'timed out waiting for another worker';
}

sub settle
{
	$replica->wait_positions('shop');
	my $lsn = $source->sql('SELECT pg_current_wal_flush_lsn()');
	$target->wait_until("SELECT bool_and(position >= '$lsn') FROM pgtrickle.remote_catalog()", 'both remotes have been followed');
	$replica->wait_copied;
	return;
}

# Does the same to the tables of both schemas; says which of them were copied again: own.parts, sold.parts, own.plain, sold.plain.
sub follows
{
	my ($deed, $test_name, $again, %opt) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @before = split / /, times_copied();
	my $log_end = -s $target->applier_log;
	$said = '';
	write_rows() if !$opt{quiet};
	$source->sql($deed =~ s/SCHEMA/$_/gr) foreach qw(own sold);
	write_rows() if !$opt{quiet};
	settle();
	look();
	settle();
	like($said . substr(slurp_file($target->applier_log), $log_end), qr/will be copied again: $opt{reason}/, '... which is said') if $opt{reason};
	my @after = split / /, times_copied();
	$replica->is_equal($_, "$test_name: $_", remote => 'shop') foreach @tables, qw(own.plain sold.plain);
	is(join(' ', map { $after[$_] > $before[$_] ? 1 : 0 } 0 .. $#after), $again, "... and copied again was what had to be");
	$target->wait_fresh('sums');
	$target->is_current('sums', "... with what reads it");
	return;
}


$replica->{sources}{published} = $source;
follows('CREATE TABLE SCHEMA.parts_3 PARTITION OF SCHEMA.parts FOR VALUES FROM (200) TO (300); INSERT INTO SCHEMA.parts SELECT i, 250, $$n$$ FROM generate_series(2001, 2010) i',
	'a partition is made', '0 0 0 0');
follows('CREATE TABLE SCHEMA.parts_4 (id int NOT NULL, k int NOT NULL, v text NOT NULL, PRIMARY KEY (id, k)); INSERT INTO SCHEMA.parts_4 SELECT i, 350, $$a$$ FROM generate_series(3001, 3010) i;
	ALTER TABLE SCHEMA.parts ATTACH PARTITION SCHEMA.parts_4 FOR VALUES FROM (300) TO (400); UPDATE SCHEMA.parts SET v = $$b$$ WHERE id = 3001',
	'one with rows is attached', '1 1 0 0', reason => 'partition sold.parts_4 has been attached');
follows('BEGIN; CREATE TABLE SCHEMA.parts_5 (id int NOT NULL, k int NOT NULL, v text NOT NULL, PRIMARY KEY (id, k)); INSERT INTO SCHEMA.parts_5 VALUES (4001, 450, $$a$$);
	ALTER TABLE SCHEMA.parts ATTACH PARTITION SCHEMA.parts_5 FOR VALUES FROM (400) TO (500); COMMIT', 'made and attached by one transaction', '1 1 0 0');
follows('UPDATE SCHEMA.parts SET v = $$gone$$ WHERE k = 250; ALTER TABLE SCHEMA.parts DETACH PARTITION SCHEMA.parts_3', 'one is detached', '1 1 0 0', reason => 'partition sold.parts_3 has been detached or dropped');
follows('DROP TABLE SCHEMA.parts_5', 'one is dropped', '1 1 0 0');
$source->sql($_) foreach map { "CREATE TABLE $_.parts_7 PARTITION OF $_.parts FOR VALUES FROM (600) TO (700); INSERT INTO $_.parts SELECT i, 650, 'n' FROM generate_series(7001, 7010) i" } 'own', 'sold';
$target->wait_until('SELECT count(*) = 20 FROM (SELECT FROM own.parts WHERE k = 650 UNION ALL SELECT FROM sold.parts WHERE k = 650) r', 'rows of one that nobody has looked at yet');
$source->sql("DROP TABLE $_.parts_7") foreach 'own', 'sold';
settle();
look();
settle();
$replica->is_equal('own.parts', 'a partition is made, filled and dropped between two looks', remote => 'shop');
$target->sql(q{SELECT pgtrickle.recopy('sold.parts')});
$replica->wait_copied;
$replica->is_equal('sold.parts', 'what pgoutput does not tell is made good by hand', remote => 'shop');
follows('ALTER TABLE SCHEMA.parts DETACH PARTITION SCHEMA.parts_4; DELETE FROM SCHEMA.parts_4 WHERE id > 3005;
	ALTER TABLE SCHEMA.parts ATTACH PARTITION SCHEMA.parts_4 FOR VALUES FROM (300) TO (400)', 'one was away for a while', '1 1 0 0', reason => 'partition sold.parts_4 has been detached and attached');
follows('TRUNCATE SCHEMA.parts_2; INSERT INTO SCHEMA.parts VALUES (5001, 150, $$after$$)', 'one is truncated', '1 1 0 0', reason => 'partition sold.parts_2 has been truncated or written anew');
follows('TRUNCATE SCHEMA.parts; INSERT INTO SCHEMA.parts SELECT i, i % 200, $$again$$ FROM generate_series(1, 300) i', 'all of it is truncated', '0 1 0 0');
follows('VACUUM FULL SCHEMA.parts_1', 'one is rewritten: pgoutput cannot tell that from a truncation', '0 1 0 0', quiet => 1);
follows('ALTER TABLE SCHEMA.plain ADD COLUMN c int DEFAULT (random() * 1000)::int; ALTER TABLE SCHEMA.plain ALTER COLUMN c DROP DEFAULT',
	'a column had a volatile default for a moment', '0 0 1 1', quiet => 1);
follows('ALTER TABLE SCHEMA.plain ALTER COLUMN v TYPE text USING v || id', 'a column has the same type and other values', '0 0 1 1', quiet => 1,
	reason => 'all rows of sold.plain were written anew, and its columns altered');
follows('VACUUM FULL SCHEMA.plain', 'a table is rewritten', '0 0 0 0', quiet => 1);
follows('ALTER TABLE SCHEMA.plain ADD COLUMN d int; UPDATE SCHEMA.plain SET d = id WHERE id < 10', 'a column had none', '0 0 0 0');
$target->stop_applier;
done_testing();
