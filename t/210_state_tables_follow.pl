# t/210_state_tables_follow.pl
#
# Goal: a stream table whose hidden state depends on a source's types survives a change of them.
# Method: group by a column that the output does not show, change its type and the type of what is summed up and of what
#         min and max look at; after each change write more rows, refresh, and compare with the defining query.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('primary')->boot;
$node->sql(q{
	CREATE TABLE readings (id int PRIMARY KEY, sensor int, amount numeric(10,2), label varchar(10));
	INSERT INTO readings SELECT g, g % 7, g / 4.0, 'l' || g FROM generate_series(1, 200) g;
});
$node->start_applier;
$node->create_stream_table('per_sensor',
	'SELECT count(*) AS n, sum(amount) AS total, max(label)::text AS last FROM readings GROUP BY sensor');

sub write_and_compare
{
	my ($what, $first_id) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->sql(qq{
		INSERT INTO readings SELECT g, g % 9, g / 8.0, 'm' || g FROM generate_series($first_id, $first_id + 20) g;
		DELETE FROM readings WHERE id % 50 = 3;
		UPDATE readings SET sensor = NULL WHERE id = $first_id;
	});
	$node->refresh('per_sensor');
	$node->is_current('per_sensor', $what);
}

write_and_compare('the stream table follows its source', 1000);
$node->sql('ALTER TABLE readings ALTER COLUMN sensor TYPE bigint');
write_and_compare('the type of the hidden group key changed', 2000);
$node->sql('ALTER TABLE readings ALTER COLUMN label TYPE varchar(40)');
write_and_compare('the type of what max() looks at changed', 3000);
$node->sql('ALTER TABLE readings ALTER COLUMN amount TYPE numeric(14,5)');
write_and_compare('the scale of what is summed up changed', 4000);

my $full = $node->sql(
	q{SELECT count(*) FROM pgtrickle.pgt_history WHERE action = 'FULL' AND initiated_by <> 'INITIAL'});
is($full, 3, 'one full refresh for each change of a type, none else');

# States are made anew in a tick that fails because of another stream table: the session must forget them.
$node->sql('CREATE TABLE gone (id int PRIMARY KEY); INSERT INTO gone VALUES (1)');
$node->create_stream_table('over_gone', 'SELECT count(*) AS n FROM gone');
$node->sql('BEGIN; ALTER TABLE readings ALTER COLUMN sensor TYPE numeric; DROP TABLE gone; INSERT INTO readings VALUES (9000, 1.5, 1, $$x$$); COMMIT');
$node->refresh('per_sensor');
$node->is_current('per_sensor', 'the type changed together with a source that another stream table misses');

done_testing();
