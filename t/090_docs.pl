# t/090_docs.pl
#
# Goal: what README and docs tell people to type works and shows what they say.
# Method: in every document marked as tested, run the blocks marked `sql` in order, each document in a database of its
# own, and compare with the block marked `output` that follows, if one does.
use strict;
use warnings FATAL => 'all';

use File::Basename qw(dirname);
use File::Find;
use PostgreSQL::Test::Utils;
use StreamTables::Cluster;
use Test::More;

my $top = dirname(__FILE__) . '/..';
my $MARK = '<!-- tested by t/090_docs.pl -->';

my @documents = grep { slurp_file($_) =~ /\Q$MARK\E/ } find_documents();
ok(scalar @documents, 'there are tested documents');

foreach my $document (@documents)
{
	(my $name = $document) =~ s{^\Q$top\E/}{};
	subtest $name => sub { run_document($document, $name) };
}
done_testing();

sub find_documents
{
	my @found = ("$top/README.md");

	find({ wanted => sub { push @found, $File::Find::name if /\.md$/ }, no_chdir => 1 },
		"$top/docs");
	return @found;
}

# An applier serves one database, so a cluster per document is the simplest.
sub run_document
{
	my ($document, $name) = @_;

	(my $node_name = $name) =~ s/\W+/_/g;
	my $node = StreamTables::Cluster->new($node_name)->boot;
	$node->start_applier;
	foreach my $step (steps_of($document))
	{
		my $output = run_block($node, $step->{sql});
		my $where = "$name line $step->{line}";
		if (defined $step->{output})
		{
			is(trimmed($output), trimmed($step->{output}), "$where: shows what it says");
		}
		else
		{
			unlike($output, qr/ERROR|FATAL/, "$where: runs");
		}
	}
	$node->stop_applier;
	$node->stop;
	done_testing();
	return;
}

# ({sql, output, line}, ...) in the order of the document.
sub steps_of
{
	my ($document) = @_;
	my (@steps, $kind, @block);
	my $line_no = 0;

	foreach my $line (split /\n/, slurp_file($document))
	{
		$line_no++;
		if (defined $kind && $line =~ /^\s*```\s*$/)
		{
			my $text = join("\n", @block) . "\n";
			push @steps, { sql => $text, line => $line_no - @block } if $kind eq 'sql';
			$steps[-1]{output} = $text if $kind eq 'output';
			undef $kind;
		}
		elsif (defined $kind)
		{
			push @block, $line;
		}
		elsif ($line =~ /^\s*```(\w*)/)
		{
			($kind, @block) = ($1);
		}
	}
	return @steps;
}

# As psql shows it to a person, answers and errors in the order in which they come.
sub run_block
{
	my ($node, $sql) = @_;
	my $output = '';

	IPC::Run::run(
		[ $node->installed_command('psql'), '--no-psqlrc', '--dbname', $node->connstr('postgres') ],
		'<', \$sql, '>', \$output, '2>&1');
	return $output;
}

# Without blanks at line ends, empty lines, and the tags of statements without rows.
sub trimmed
{
	my ($text) = @_;

	return join "\n",
	  grep { /\S/ && !/^(CREATE|INSERT|UPDATE|DELETE|ALTER|DROP|BEGIN|COMMIT|SET)\b[A-Z 0-9]*$/ }
	  map { s/\s+$//r } split /\n/, $text;
}
