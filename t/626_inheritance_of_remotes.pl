# t/626_inheritance_of_remotes.pl
#
# Goal: the copy of a table from which others inherit has its own rows, as SELECT ... FROM ONLY shows them, whatever is done to the others: after the first copy
#       as in it, with our decoder and with pgoutput.
# Method: a table with one that inherits from it and has the same columns, and one with a column more; rows, updates and truncations of each.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use StreamTables::Replica;
use Test::More;

my $replica = StreamTables::Replica->new('inheritance');
my ($source, $target) = ($replica->source, $replica->target);
foreach my $schema (qw(own sold))
{
	$source->sql(
		qq{CREATE SCHEMA $schema; CREATE TABLE $schema.parent (id int PRIMARY KEY, v text);
		CREATE TABLE $schema.same (PRIMARY KEY (id)) INHERITS ($schema.parent); CREATE TABLE $schema.wider (more int, PRIMARY KEY (id)) INHERITS ($schema.parent);
		ALTER TABLE $schema.wider REPLICA IDENTITY FULL;
		INSERT INTO $schema.parent SELECT i, 'p' FROM generate_series(1, 10) i; INSERT INTO $schema.same SELECT i, 's' FROM generate_series(101, 110) i;
		INSERT INTO $schema.wider SELECT i, 'w', i FROM generate_series(201, 210) i});
}
$source->sql('CREATE PUBLICATION sales FOR TABLE ONLY sold.parent, ONLY sold.same, ONLY sold.wider WITH (publish_via_partition_root = true)');
$replica->add_remote('published', output_plugin => 'pgoutput', publication => 'sales', conninfo => $source->connstr('postgres'));
$target->start_applier;
$replica->copy([ shop => 'own.parent' ], [ published => 'sold.parent' ], [ published => 'sold.same' ]);

sub rows
{
	my ($node, $table) = @_;

	return $node->sql("SELECT string_agg(id || v, ' ' ORDER BY id) FROM ONLY $table");
}

sub follows
{
	my ($deed, $test_name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$source->sql($deed =~ s/SCHEMA/$_/gr) foreach qw(own sold);
	my $lsn = $source->sql('SELECT pg_current_wal_flush_lsn()');
	$target->wait_until("SELECT bool_and(position >= '$lsn') FROM pgtrickle.remote_catalog()", 'both remotes have been followed');
	is(rows($target, $_), rows($source, $_), "$test_name: $_") foreach qw(own.parent sold.parent sold.same);
	return;
}

follows('INSERT INTO SCHEMA.same VALUES (1, $$s$$), (111, $$s$$); INSERT INTO SCHEMA.parent VALUES (11, $$p$$)', 'rows of another table of the same columns');
follows('UPDATE SCHEMA.parent SET v = v || $$x$$ WHERE id % 2 = 0; DELETE FROM SCHEMA.parent WHERE id % 5 = 1', 'what is done to all of them');
follows('INSERT INTO SCHEMA.wider VALUES (2, $$w$$, 2); DELETE FROM SCHEMA.wider WHERE id > 205', 'rows of one with more columns');
follows('TRUNCATE SCHEMA.wider', 'one is truncated');
follows('TRUNCATE SCHEMA.same; INSERT INTO SCHEMA.same VALUES (3, $$again$$)', 'another one, which is copied from one remote');
follows('TRUNCATE ONLY SCHEMA.parent; INSERT INTO SCHEMA.parent VALUES (5, $$new$$), (6, $$new$$)', 'the table alone is truncated');
follows('INSERT INTO SCHEMA.same VALUES (7, $$s$$); TRUNCATE SCHEMA.parent; INSERT INTO SCHEMA.parent VALUES (8, $$last$$)', 'all of them');
is($target->sql('SELECT max(times_copied) FROM pgtrickle.pgt_copy_states'), '1', 'nothing was copied again for it');
$target->stop_applier;
done_testing();
