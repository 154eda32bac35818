# t/624_replica_how_to.pl
#
# Goal: what docs/how-to/replica.md tells people to type leads from two bare clusters to a stream table over copies, and shows what it says.
# Method: run its blocks in order from the mark on: `remote` and `target` in psql there, `sh` as commands; compare with the blocks `output`.  The
#         chapter about pgoutput describes another set-up and is left out.
use strict;
use warnings FATAL => 'all';

use File::Basename qw(dirname);
use IPC::Run;
use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;

my $MARK = '<!-- tested by t/624_replica_how_to.pl -->';
my $text = slurp_file(dirname(__FILE__) . '/../docs/how-to/replica.md');

my $remote = StreamTables::Cluster->new('shop')->boot(setup => 'none', dbname => 'shop');
my $target = StreamTables::Cluster->new('analytics')->boot(setup => 'none', dbname => 'analytics');
$remote->sql(
	q{CREATE SCHEMA app;
	CREATE TABLE app.customers (id int PRIMARY KEY, country text);
	INSERT INTO app.customers VALUES (1, 'NO'), (2, 'FI');
	CREATE TABLE app.orders (id int PRIMARY KEY, customer int, amount int);
	INSERT INTO app.orders SELECT i, 1 + i % 2, CASE WHEN i % 2 = 0 THEN 50 ELSE 51 END FROM generate_series(1, 100) i;
	CREATE TABLE app.visits (customer int, page text);
	INSERT INTO app.visits VALUES (1, '/')});
local $ENV{TARGET} = $target->connstr('analytics');
local $ENV{REMOTE} = $remote->connstr('shop') . ' user=analytics';
local $ENV{PATH} = dirname($target->installed_command('pgtrickle')) . ":$ENV{PATH}";
my %variables;

(my $tested) = $text =~ /\Q$MARK\E(.*)/s;
ok($tested =~ s/^## Without our library.*?(?=^## )//ms, 'the chapter about pgoutput is left out');

my $output = '';
while ($tested =~ /^```(\w+)\n(.*?)^```$/msg)
{
	my ($kind, $block) = ($1, $2);

	(my $name = $block) =~ s/\n.*//s;
	if ($kind eq 'output')
	{
		is(trimmed($output), trimmed($block), 'shows what it says');
		next;
	}
	$target->stop_applier if $block =~ /^pgtrickle drop/;
	$output = $kind eq 'sh' ? run_shell($block) : run_psql($kind eq 'remote' ? $remote : $target, $block);
	unlike($output, qr/ERROR|FATAL|FAILED|error:/, "$kind: $name") or diag($output);
}
is($remote->sql('SELECT count(*) FROM pg_replication_slots'), '0', 'in the end nothing is left on the remote');

done_testing();

# The applier stays, so it is started as the other tests do.
sub run_shell
{
	my ($block) = @_;
	my $said = '';

	if ($block =~ /^pgtrickle run/)
	{
		$target->start_applier;
		return '';
	}
	IPC::Run::run([ 'sh', '-c', $block ], '<', \undef, '>', \$said, '2>&1');
	return $said;
}

# A variable that one block has set is known to the later ones, as in a psql that stays open.
sub run_psql
{
	my ($node, $block) = @_;
	my $said = '';

	my @known = map { ('--set', "$_=$variables{$_}") } sort keys %variables;
	$block .= "\\echo written=:written\n" if $block =~ /AS written \\gset/;
	IPC::Run::run([ $node->installed_command('psql'), '--no-psqlrc', @known, '--dbname', $node->connstr($node->dbname) ],
		'<', \$block, '>', \$said, '2>&1');
	$variables{written} = $1 if $said =~ /^written=(.*)$/m;
	return last_answer($said);
}

# Of several statements the last one's answer is what is shown.
sub last_answer
{
	my ($said) = @_;

	my @answers = split /^\(\d+ rows?\)\n\n?/m, $said;
	my @ends = $said =~ /^(\(\d+ rows?\))$/mg;
	return $said if @answers < 2;
	return "$answers[-1]$ends[-1]\n";
}

# Without blanks at line ends, empty lines, and the tags of statements without rows.
sub trimmed
{
	my ($lines) = @_;

	return join "\n",
	  grep { /\S/ && !/^(CREATE|INSERT|ALTER|GRANT)\b[A-Z 0-9]*$/ } map { s/\s+$//r } split /\n/, $lines;
}
