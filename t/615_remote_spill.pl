# t/615_remote_spill.pl
#
# Goal: a transaction of a remote that is larger than the disk which it may take is not kept; what it touched is copied again, with that reason,
#       and nothing else is. What comes before and behind it counts once.
# Method: small limits, a transaction between small ones that touches two of three tables, a table with a key and one without; kill the applier
#         before the tick behind it; compare.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use StreamTables::Replica;
use Test::More;

my $replica = StreamTables::Replica->new('spill');
my ($source, $target) = ($replica->source, $replica->target);
my @limits = ('--buffer-mb', 1, '--spill-mb', 4);

$source->sql(
	q{CREATE SCHEMA app; CREATE TABLE app.items (id int PRIMARY KEY, v text); CREATE TABLE app.bag (i int, v text); ALTER TABLE app.bag REPLICA IDENTITY FULL;
	CREATE TABLE app.other (id int PRIMARY KEY, v text);
	INSERT INTO app.items SELECT i, 'v' FROM generate_series(1, 1000) i; INSERT INTO app.bag SELECT i % 10, 'v' FROM generate_series(1, 100) i;
	INSERT INTO app.other SELECT i, 'v' FROM generate_series(1, 100) i});
$target->start_applier(args => \@limits);
$replica->copy(qw(app.items app.bag app.other));
$target->create_stream_table('kinds', 'SELECT left(v, 1) AS kind, count(*) AS n, sum(id) AS total FROM app.items GROUP BY 1');
$target->create_stream_table('others', 'SELECT count(*) AS n FROM app.other');
$target->wait_fresh(qw(kinds others));

sub times_copied
{
	return $target->sql(q{SELECT string_agg(times_copied::text, ' ' ORDER BY remote_table) FROM pgtrickle.pgt_copies JOIN pgtrickle.pgt_copy_states USING (copy_id)});
}

sub small
{
	my ($n) = @_;

	return "UPDATE app.items SET v = 's$n' WHERE id = $n; DELETE FROM app.items WHERE id = 500 + $n; INSERT INTO app.bag VALUES ($n, 's'); UPDATE app.other SET v = 's$n' WHERE id = $n;
		DELETE FROM app.bag WHERE ctid = (SELECT min(ctid) FROM app.bag);";
}

my $large = q{BEGIN; DELETE FROM app.items WHERE id % 5 = 0; INSERT INTO app.items SELECT i, repeat('x', 1000) FROM generate_series(2001, 12000) i;
	UPDATE app.items SET v = 'large' WHERE id < 5; INSERT INTO app.bag SELECT i % 3, repeat('y', 10) FROM generate_series(1, 1000) i; COMMIT;};

sub all_equal
{
	my ($when) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$replica->wait_positions;
	$replica->wait_copied;
	$target->wait_fresh(qw(kinds others));
	$replica->is_equal("app.$_", "$when: $_") foreach qw(items bag other);
	$target->is_current($_, "$when: $_") foreach qw(kinds others);
	return;
}

is(times_copied(), '1 1 1', 'every copy was made once');
my $log_end = -s $target->applier_log;
$source->sql(small(1) . $large . small(2));
$target->wait_until(q{SELECT min(times_copied) FILTER (WHERE relid <> 'app.other'::regclass) = 2 FROM pgtrickle.pgt_copies JOIN pgtrickle.pgt_copy_states USING (copy_id)},
	'what it touched was copied again');
all_equal('after a transaction that was too large');
is(times_copied(), '2 2 1', 'and nothing else was');
my $log = substr(slurp_file($target->applier_log), $log_end);
like($log, qr/WARNING:  .*transaction \d+ of a remote is larger than --spill-mb allows: its changes will not be kept/, 'the log says so');

# Small ones on top go on, and so does a large one that fits.
$source->sql(small(3) . q{UPDATE app.items SET v = v || 'z' WHERE id < 1000});
all_equal('afterwards');
is(times_copied(), '2 2 1', 'nothing was copied again for it');

# While nobody is there, and with somebody killed in between.
$target->stop_applier;
$source->sql(small(4) . $large =~ s/2001, 12000/22001, 32000/r . small(5) . $large =~ s/2001, 12000/42001, 52000/r . small(6));
$target->start_applier(args => \@limits);
$target->wait_until(q{SELECT max(times_copied) > 2 OR bool_or(status = 'COPYING') FROM pgtrickle.pgt_copy_states}, 'the first is known to be too large');
$target->kill9_applier;
$target->start_applier(args => \@limits);
$target->wait_until(q{SELECT min(times_copied) FILTER (WHERE relid <> 'app.other'::regclass) > 2 AND bool_and(status = 'ACTIVE') FROM pgtrickle.pgt_copies JOIN pgtrickle.pgt_copy_states USING (copy_id)},
	'they were copied again');
all_equal('after two of them, and a crash');
like(times_copied(), qr/ 1$/, 'the table that they did not touch was not copied');
$target->stop_applier;
done_testing();
