# t/189_immediate_switchers.pl
#
# Goal: several sessions at a time switch, pause and resume stream tables that read each other, while others write; none of them is ever wrong.
# Method: first the two orders in which one becomes IMMEDIATE and another below it gets a schedule. Then, from a printed seed, random steps of three sessions on a diamond,
#         and between them comparisons of those that are IMMEDIATE and active by the same snapshot. PGTRICKLE_LONG=1 takes longer.
use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Utils;
use StreamTables::Cluster qw(random_seed pick mode_sql);
use StreamTables::Session;
use Test::More;

my $seed = random_seed();
my $node = StreamTables::Cluster->new('immediate_switchers')->boot(conf => 'deadlock_timeout = 200ms');
$node->sql(
	q{CREATE TABLE sales (id int PRIMARY KEY, shop int NOT NULL, amount int NOT NULL); CREATE TABLE shops (shop int PRIMARY KEY, city text NOT NULL);
	INSERT INTO shops SELECT g, 'city ' || g % 3 FROM generate_series(1, 6) g; INSERT INTO sales SELECT g, g % 6 + 1, g FROM generate_series(1, 300) g});
$node->start_applier;
my %queries = (
	a => 'SELECT shop, count(*) AS n, sum(amount) AS total FROM sales GROUP BY shop',
	b => 'SELECT n, count(*) AS k, sum(total) AS total FROM a GROUP BY n',
	c => 'SELECT s.city, a.n, x.id FROM a JOIN shops s USING (shop) LEFT JOIN sales x ON x.shop = s.shop AND x.amount % 7 = 0',
	d => 'SELECT b.k, c.city, count(*) AS n FROM b RIGHT JOIN c ON b.n = c.n GROUP BY 1, 2');
my @names = sort keys %queries;
$node->create_stream_table($_, $queries{$_}, schedule => 'continuous') foreach @names;

# --- above and below at the same time ---
my @sessions = map { StreamTables::Session->new($node) } 1 .. 3;
$node->sql(mode_sql('a', 'IMMEDIATE'));
$sessions[0]->run('BEGIN; ' . mode_sql('b', 'IMMEDIATE'));
$sessions[1]->send(mode_sql('a', 'AUTO'));
$node->poll_query_until('postgres', 'SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)');
$sessions[0]->run('COMMIT');
is($sessions[1]->wait->{state}, '55000', 'one below cannot get a schedule when another has become IMMEDIATE over it');
$node->sql(mode_sql('b', 'AUTO'));
$sessions[0]->run('BEGIN; ' . mode_sql('a', 'AUTO'));
$sessions[1]->send(mode_sql('b', 'IMMEDIATE'));
is($sessions[1]->poll(0.3), undef, 'while one below gets a schedule, another cannot become IMMEDIATE over it');
$sessions[0]->run('COMMIT');
is($sessions[1]->wait->{state}, '0A000', '... nor afterwards');

# --- all at once ---
my $script = $node->basedir . '/load.sql';
append_to_file($script, <<'SQL');
\set id random(1, 300)
\set shop random(1, 6)
\set new random(10000, 10000000)
BEGIN;
UPDATE sales SET amount = amount + 1, shop = :shop WHERE id = :id;
INSERT INTO sales VALUES (:new, :shop, :id) ON CONFLICT DO NOTHING;
SAVEPOINT s;
DELETE FROM sales WHERE id > 10000 AND shop = :shop;
ROLLBACK TO s;
DELETE FROM sales WHERE id > 10000 AND amount % 20 < 2 AND shop = :shop;
COMMIT;
SQL
my ($load_out, $load_err) = ('', '');
my $load = IPC::Run::start(
	[ 'pgbench', '-n', '-c', 2, '-T', $ENV{PGTRICKLE_LONG} ? 180 : 6, '-R', 60, '-f', $script, '--max-tries', 1000, $node->connstr ],
	'<', \undef, '>', \$load_out, '2>', \$load_err);

# Rows only if it is, by the same snapshot, one that has to be right.
sub comparison
{
	my ($name) = @_;

	my $difference = $node->difference_query($name) =~ s/LIMIT 20\s*\z//r;
	return "SELECT '$name', d.* FROM ($difference) d WHERE EXISTS (SELECT FROM pgtrickle.pgt_stream_tables
		WHERE pgt_name = '$name' AND refresh_mode = 'IMMEDIATE' AND status = 'ACTIVE' AND NOT pgtrickle.stands_still(pgt_id))";
}
my %busy;
my %done;
my @wrong;

sub take_answer
{
	my ($session, $answer) = @_;

	my $step = delete $busy{$session};
	$done{ $answer->{state} }++;
	push @wrong, "$step: $answer->{state} $answer->{message}" if $answer->{state} !~ /^(00000|0A000|55000|40P01)$/;
	push @wrong, $answer->{rows} if $step =~ /surplus/ && $answer->{rows} ne '';
	return;
}
while ($load->pumpable)
{
	foreach my $session (@sessions)
	{
		if ($busy{$session})
		{
			my $answer = $session->poll(0.01) // next;
			take_answer($session, $answer);
		}
		my $name = pick(@names);
		$busy{$session} = pick(
			mode_sql($name, 'IMMEDIATE'), mode_sql($name, 'IMMEDIATE'), mode_sql($name, 'AUTO'), "SELECT pgtrickle.pause_stream_table('$name')",
			"SELECT pgtrickle.resume_stream_table('$name')", 'SELECT pgtrickle.resume_all()', comparison($name), comparison($name));
		$session->send($busy{$session});
	}
	$load->pump_nb;
}
$load->finish;
take_answer($_, $_->wait) foreach grep { $busy{$_} } @sessions;
is(join("\n", @wrong), '', 'no switch fails but for a stated reason, and no comparison finds a row') or diag "seed $seed";
cmp_ok($done{'00000'} // 0, '>', 0, 'steps were taken: ' . join(', ', map { "$_ $done{$_} times" } sort keys %done));
unlike($load_err, qr/error|aborted/i, 'writers notice nothing') or diag "seed $seed: $load_err";
$node->sql('SELECT pgtrickle.resume_all()');
is($node->sql("SELECT * FROM pgtrickle.verify('$_')"), '', "$_ at the end") foreach @names;

done_testing();
