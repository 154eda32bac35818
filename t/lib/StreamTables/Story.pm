# t/lib/StreamTables/Story.pm
#
# A story of the life cycle, told while writers write and with an applier that dies in the middle.
#
# A story is a list of statements.  Before some of them the applier is killed, and started again after it, so that whatever the statement does happens
# without one; in between all stream tables that say that they are well are verified.  At the end all of them must be well.  With PGTRICKLE_LONG
# the applier is killed at every statement, without it at one, which a printed seed decides.
#
#   my $story = StreamTables::Story->new($node, writes => [ 'UPDATE src SET v = v + 1 WHERE id % 10 = :n % 10', ... ]);
#   $story->tell('sources change', 'ALTER TABLE ...', sub { ... }, ...);
#   $story->end;

package StreamTables::Story;

use strict;
use warnings FATAL => 'all';

use IPC::Run ();
use Test::More;

sub new
{
	my ($class, $node, %opt) = @_;

	return bless { node => $node, writes => $opt{writes}, told => 0 }, $class;
}

# Statements for half a minute, each in a transaction of its own; what a story has just taken away fails, and the next one is tried.
sub start_writer
{
	my ($self) = @_;

	my $node = $self->{node};
	my $file = $node->basedir . '/story.sql';
	open my $out, '>', $file or die "could not write $file: $!";
	foreach my $n (1 .. 3000)
	{
		my $at = $self->{told} * 100_000 + $n;
		my $write = $self->{writes}[ $n % @{ $self->{writes} } ];
		$write =~ s/:n/$at/g;
		print $out "$write;\nSELECT pg_sleep(0.01);\n";
	}
	close $out or die $!;
	$self->{told}++;
	$self->{writer} = IPC::Run::start([ 'psql', '-X', '-q', '-At', '-d', $node->connstr($node->dbname), '-f', $file ],
		'<', \undef, '>', \$self->{writer_out}, '2>', \$self->{writer_err});
	return;
}

sub stop_writer
{
	my ($self) = @_;

	my $writer = delete $self->{writer} // return;
	$writer->kill_kill(grace => 5);
	unlike($self->{writer_err}, qr/deadlock detected|lock timeout|PANIC|could not serialize/, 'nobody was in the way of the writers');
	return;
}

sub names
{
	my ($self) = @_;

	return split /\n/,
	  $self->{node}->sql(q{SELECT format('%I.%I', pgt_schema, pgt_name) FROM pgtrickle.pgt_stream_tables ORDER BY pgt_id});
}

# The stream tables that are wrong; with `well`, also those that cannot be verified.
sub wrong_ones
{
	my ($self, %opt) = @_;

	my @wrong;
	foreach my $name ($self->names)
	{
		my ($rc, $stdout, $stderr) = $self->{node}->psql($self->{node}->dbname, "SELECT * FROM pgtrickle.verify('$name')");
		push @wrong, "$name: $stdout$stderr" if $stdout ne '' || $opt{well} && $rc != 0;
	}
	return join("\n", @wrong);
}

sub run_step
{
	my ($self, $step) = @_;

	return $step->() if ref $step;
	my ($rc, $stdout, $stderr) = $self->{node}->psql($self->{node}->dbname, $step, on_error_stop => 1);
	# writers and DDL of one table may run into each other, as without stream tables
	($rc, $stdout, $stderr) = $self->{node}->psql($self->{node}->dbname, $step, on_error_stop => 1) if $rc != 0 && $stderr =~ /deadlock detected/;
	is($rc, 0, "no error: $step") or diag $stderr;
	return;
}

sub tell
{
	my ($self, $title, @steps) = @_;

	my $node = $self->{node};
	my $fatal = int rand @steps;
	$self->start_writer;
	foreach my $i (0 .. $#steps)
	{
		my $is_killed = $ENV{PGTRICKLE_LONG} || $i == $fatal;
		$node->kill9_applier if $is_killed;
		$self->run_step($steps[$i]);
		$node->start_applier if $is_killed;
		is($self->wrong_ones, '', "$title: step $i" . ($is_killed ? ', applier killed' : '')) if $is_killed || $ENV{PGTRICKLE_LONG};
	}
	is($self->wrong_ones(well => 1), '', "$title: all is right while writers write");
	$self->stop_writer;
	is($self->wrong_ones(well => 1), '', "$title: and afterwards");
	return;
}

1;
