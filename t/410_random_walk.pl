# t/410_random_walk.pl
#
# Goal: whatever order of DDL, changes, replaced queries, changed modes, restarts and crashes comes, every stream table equals its query or says what is wrong.
# Method: from a printed seed, a random walk over one small DAG; after some steps all stream tables that say that they are well are verified, and at the
#         end, when the sources are what the queries need, all of them.  IMMEDIATE ones are verified by each writer, too, in its transaction.  PGTRICKLE_LONG=1 walks further.
use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use StreamTables::Cluster qw(random_seed pick);
use Test::More;

my $seed = random_seed();
my $steps = $ENV{PGTRICKLE_LONG} ? 600 : 70;
my $node = StreamTables::Cluster->new('walk')->boot;
$node->start_applier;

my $columns = 'id int, k int, v int, note text';
$node->sql(
	qq{CREATE TABLE src ($columns); INSERT INTO src SELECT i, i % 6, i, 'n' || i % 3 FROM generate_series(1, 60) i;
	CREATE TABLE dim (k int PRIMARY KEY, name text); INSERT INTO dim SELECT i, 'd' || i FROM generate_series(0, 5) i;
	CREATE TABLE parts (id int, k int) PARTITION BY LIST (k); CREATE TABLE parts_0 PARTITION OF parts FOR VALUES IN (0);
	CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1); INSERT INTO parts SELECT i, i % 2 FROM generate_series(1, 20) i;
	CREATE FUNCTION f(x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN x; END';
	CREATE VIEW staged AS SELECT id, k, f(v) AS v FROM src WHERE v IS NOT NULL});
my %queries = (
	one => [
		'SELECT k, count(*) AS n, sum(v) AS s FROM staged GROUP BY k',
		'SELECT k, count(*) AS n, max(v)::bigint AS s FROM staged WHERE id % 3 <> 0 GROUP BY k',
		'SELECT id AS k, 1::bigint AS n, v::bigint AS s FROM staged WHERE k < 4',
		'SELECT k, count(*) AS n, sum(v) AS s, min(v) AS m FROM staged GROUP BY k',
		'SELECT s.k, sum(v) AS s, count(*) AS n FROM staged s JOIN dim USING (k) GROUP BY s.k'
	],
	two => [
		'SELECT name, sum(n) AS n FROM one JOIN dim USING (k) GROUP BY name',
		'SELECT name, max(s)::numeric AS n FROM one RIGHT JOIN dim USING (k) GROUP BY name',
		'SELECT DISTINCT n::text AS name, count(*) OVER ()::numeric AS n FROM one'
	],
	three => [ 'SELECT k, count(*) AS n FROM parts GROUP BY k', 'SELECT id AS k, 1::bigint AS n FROM parts WHERE k = 1' ]);

sub define
{
	my ($name, $which) = @_;

	my $query = $queries{$name}[ $which // int rand @{ $queries{$name} } ];
	my $mode = !defined $which && rand() < 0.4 ? 'IMMEDIATE' : 'AUTO';
	return "SELECT pgtrickle.create_or_replace_stream_table('$name', "
	  . StreamTables::Cluster::sql_literal($query)
	  . qq{, 'continuous', '$mode')};
}

sub switch
{
	my ($mode) = @_;

	return "SELECT pgtrickle.alter_stream_table('" . pick(qw(one two three)) . "', refresh_mode => '" . ($mode // pick(qw(IMMEDIATE IMMEDIATE AUTO))) . "')";
}
$node->sql(define($_, 0)) foreach qw(one two three);

my $id = 1000;

sub change
{
	$id++;
	return pick(
		"INSERT INTO src (id, k, v) VALUES ($id, $id % 8, $id)",
		'UPDATE src SET k = (k + 1) % 6, v = v + 1 WHERE id % 5 = ' . int rand 5,
		'DELETE FROM src WHERE id % 11 = ' . int rand 11,
		"INSERT INTO src (id, k, v) SELECT $id, i % 6, i FROM generate_series(1, 10) i",
		"BEGIN; DELETE FROM src; SAVEPOINT a; INSERT INTO src (id, k, v) VALUES ($id, 1, 1); ROLLBACK TO a; ROLLBACK",
		"INSERT INTO parts VALUES ($id, 0), ($id, 1)",
		'UPDATE parts SET k = 1 - k WHERE id % 3 = 0',
		"UPDATE dim SET name = 'x' || k WHERE k = " . int rand 6);
}

my $rebuild = "CREATE TABLE src__tmp AS SELECT * FROM src; ALTER TABLE src RENAME TO src__backup; ALTER TABLE src__tmp RENAME TO src;
	DROP TABLE src__backup CASCADE";
my $view = 'CREATE OR REPLACE VIEW staged AS SELECT id, k, f(v) AS v FROM src WHERE v IS NOT NULL';

sub alteration
{
	return pick(
		"BEGIN; $rebuild; $view; COMMIT",
		"$rebuild; " . change() . "; $view",
		'TRUNCATE src',
		"BEGIN; TRUNCATE src; INSERT INTO src (id, k, v) SELECT i, i % 6, i FROM generate_series(1, 30) i; COMMIT",
		"$view AND k <> " . int rand 6,
		$view,
		'CREATE OR REPLACE FUNCTION f(x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN x + ' . int(rand 9) . '; END$$',
		"ALTER TABLE src ADD COLUMN c$id int DEFAULT 7",
		'ALTER TABLE src DROP COLUMN IF EXISTS note',
		'ALTER TABLE src REPLICA IDENTITY ' . pick('FULL', 'DEFAULT', 'NOTHING'),
		'ALTER TABLE src SET ' . pick('LOGGED', 'UNLOGGED'),
		'VACUUM FULL src',
		'ALTER TABLE dim RENAME TO dim2; ' . change() . '; ALTER TABLE dim2 RENAME TO dim',
		'BEGIN; ALTER TABLE parts DETACH PARTITION parts_1; DELETE FROM parts_1 WHERE id % 4 = 0; ALTER TABLE parts ATTACH PARTITION parts_1 FOR VALUES IN (1); COMMIT',
		'TRUNCATE parts_0',
		'CLUSTER dim USING dim_pkey',
		'ALTER TABLE one RENAME TO one_moved; ALTER TABLE one_moved RENAME TO one',
		'DROP TABLE two; ' . define('two'),
		q{SELECT pgtrickle.pause_stream_table('one'); } . change() . q{; SELECT pgtrickle.resume_stream_table('one')},
		q{SELECT pgtrickle.gate_source('parts'); } . change() . q{; SELECT pgtrickle.ungate_source('parts')},
		define('one'), define('one'), define('two'), define('three'),
		(map { switch() } 1 .. 5),
		switch() . '; ' . change() . '; ' . switch(),
		'BEGIN; ' . change() . '; ' . switch() . '; ' . change() . '; COMMIT',
		'BEGIN; ' . switch('IMMEDIATE') . '; ' . change() . '; ' . switch('AUTO') . '; ' . change() . '; COMMIT',
		'BEGIN; ' . switch() . '; ' . change() . '; ROLLBACK',
		'BEGIN; ' . change() . '; ' . define('one') . '; ' . change() . '; COMMIT',
		'BEGIN; ' . define('one') . '; ' . change() . '; ROLLBACK',
		"BEGIN; $rebuild; $view; " . define('one') . '; COMMIT',
		mend());
}

# A step of several statements may have stopped half-way: sooner or later somebody goes on from there.
sub mend
{
	my ($closed) = $node->sql('SELECT count(*) FROM pgtrickle.source_gates() WHERE gated') > 0;

	return q{SELECT pgtrickle.ungate_source('parts')} if $closed;
	return 'ALTER TABLE dim2 RENAME TO dim' if $node->sql(q{SELECT to_regclass('dim2') IS NOT NULL}) eq 't';
	return $view                            if $node->sql(q{SELECT to_regclass('staged') IS NULL}) eq 't';
	return 'SELECT pgtrickle.resume_all()';
}

sub run_step
{
	my ($statement) = @_;

	my ($rc, $stdout, $stderr) = $node->psql('postgres', $statement, on_error_stop => 1);
	return "$statement\n" if $rc == 0;
	# what a step may run into: a view or a stream table that cannot live with it, a deadlock; what is refused
	return "$statement -- $stderr\n"
	  if $stderr =~ /depends on it|deadlock|cannot change|does not exist|already exists|cannot be IMMEDIATE|must stay IMMEDIATE/;
	die "$statement: $stderr";
}

# A change, seen by the transaction that makes it in all stream tables that writers maintain.
my $walked = '';
my $compared = 0;

sub run_change
{
	my $change = change();
	my @immediate = split /\n/, $node->sql(q{SELECT pgt_name FROM pgtrickle.pgt_stream_tables WHERE refresh_mode = 'IMMEDIATE' AND status = 'ACTIVE' ORDER BY pgt_id});
	return run_step($change) if !@immediate || $change =~ /^BEGIN/;
	my ($rc, $stdout, $stderr) = $node->psql('postgres',
		"BEGIN; $change; " . join(' ', map { "SELECT '$_', * FROM pgtrickle.verify('$_');" } @immediate) . ' COMMIT', on_error_stop => 1);
	$compared += @immediate;
	is($stdout, '', 'seen by its writer') or diag "seed $seed, so far:\n$walked$change" if $stdout ne '';
	return "$change\n" if $rc == 0;
	return "$change -- $stderr\n" if $stderr =~ /deadlock|does not exist|cannot be up to date/;
	die "seed $seed: $walked$change: $stderr";
}

# Every one that says that it is well must be right.
sub verify_all
{
	my ($what, $must_be_well) = @_;

	my @wrong;
	foreach my $name (split /\n/, $node->sql('SELECT pgt_name FROM pgtrickle.pgt_stream_tables ORDER BY pgt_id'))
	{
		my ($rc, $stdout, $stderr) = $node->psql('postgres', "SELECT * FROM pgtrickle.verify('$name')");
		push @wrong, "$name: $stdout$stderr" if $stdout ne '' || $rc != 0 && $must_be_well;
		push @wrong, "$name: $stderr" if $rc != 0 && $stderr !~ /could not refresh|is suspended|is paused|cannot be up to date|gate of a source|timed out/;
	}
	is(join("\n", @wrong), '', $what) or diag "seed $seed, so far:\n$walked";
	$walked = '' if !@wrong;
	return;
}

for my $step (1 .. $steps)
{
	my $chance = rand;
	if ($chance < 0.45)
	{
		$walked .= run_change() foreach 1 .. 1 + int rand 4;
	}
	elsif ($chance < 0.92)
	{
		$walked .= run_step(alteration());
	}
	elsif ($chance < 0.97)
	{
		$walked .= "-- applier killed\n";
		$node->kill9_applier;
		$walked .= run_step(pick(change(), alteration()));
		$node->start_applier;
	}
	else
	{
		$walked .= "-- server restarted\n";
		$node->stop_applier;
		$node->stop(pick('fast', 'immediate'));
		$node->start;
		$node->start_applier;
	}
	verify_all("step $step") if $step % 7 == 0;
}

# Put right whatever the walk left, then all of them must be well.
$node->psql('postgres', $_)
  foreach ('ALTER TABLE dim2 RENAME TO dim', 'ALTER TABLE one_moved RENAME TO one', 'DROP VIEW staged', $view, q{SELECT pgtrickle.ungate_source('parts')}, define('one', 0), define('two', 0), define('three', 0),
	'SELECT pgtrickle.resume_all()');
$node->sql(change());
cmp_ok($compared, '>', 0, 'writers have compared, too');
verify_all('at the end', 1);
is($node->sql(q{SELECT count(*) FROM pg_class c WHERE (relname LIKE '\_\_pgt%' OR relname ~ '^pgt_state_[0-9]+_[0-9]+$')
	AND NOT EXISTS (SELECT FROM pgtrickle.pgt_state_tables s WHERE s.relid = c.oid)}), 0, 'nothing is left over');

done_testing();
