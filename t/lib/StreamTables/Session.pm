# t/lib/StreamTables/Session.pm
#
# A connection that answers later: statements are sent, and the answer is asked for with a time limit, so that several sessions can wait for each other.
#
# One psql per session, spoken to through pipes; each answer ends with a marker that carries the SQLSTATE of the last statement.
#
#   my $session = StreamTables::Session->new($node);
#   $session->send('LOCK TABLE t');
#   my $answer = $session->poll(0.1);        # undef: not yet
#   my $answer = $session->run('SELECT 1');  # { state => '00000', message => '', rows => "1\n" }
package StreamTables::Session;

use strict;
use warnings FATAL => 'all';

use Carp;
use IPC::Open3 qw(open3);
use PostgreSQL::Test::Utils ();
use Time::HiRes qw(time);

sub new
{
	my ($class, $node, %opt) = @_;

	my $self = bless { buffer => '' }, $class;
	my @command = ($node->installed_command('psql'), '-XAtq', '-d', $node->connstr($opt{dbname} // $node->dbname), '-f', '-');
	$self->{process} = open3($self->{in}, $self->{out}, undef, @command);
	$self->{in}->autoflush(1);
	$self->{pid} = $self->run('SELECT pg_backend_pid()')->{rows} + 0;
	return $self;
}

# Sends statements; a rest without an answer yet is a mistake of the test.
sub send
{
	my ($self, $sql) = @_;

	croak 'the session is not done yet' if $self->{busy};
	$self->{busy} = 1;
	# an empty statement at the end would have an SQLSTATE of its own
	$sql =~ s/[;\s]+\z//;
	print { $self->{in} } "$sql\n;\n\\echo \@\@done :SQLSTATE :LAST_ERROR_MESSAGE\n\\echo \@\@end\n";
	return;
}

# The answer, or undef when there is none within so many seconds.
sub poll
{
	my ($self, $seconds) = @_;

	my $until = time + $seconds;
	while ($self->{buffer} !~ /^\@\@end\n/m)
	{
		my $left = $until - time;
		my $ready = '';
		vec($ready, fileno($self->{out}), 1) = 1;
		return undef if !select($ready, undef, undef, $left > 0 ? $left : 0);
		my $got = sysread($self->{out}, $self->{buffer}, 65536, length $self->{buffer});
		next if !defined $got && $!{EINTR}; # some other child has ended
		confess 'a session has ended: ' . ($got // $!) . " $self->{buffer}" if !$got;
	}
	$self->{busy} = 0;
	my $text = $self->{buffer};
	$self->{buffer} = '';
	my ($rows, $state, $message) = $text =~ /\A(.*?)^\@\@done (\w{5}) ?(.*?)\n\@\@end\n\z/ms or croak "unexpected: $text";
	# notices and errors come along with the rows
	$rows =~ s/^(psql:.*|(ERROR|DETAIL|HINT|CONTEXT|NOTICE|WARNING|LINE \d+|PL\/pgSQL).*|\s+\^)\n//mg;
	return { state => $state, message => $state eq '00000' ? '' : $message, rows => $rows, text => $text };
}

# The answer, however long it takes (within the time limit of tests).
sub wait
{
	my ($self) = @_;

	return $self->poll($PostgreSQL::Test::Utils::timeout_default) // confess 'no answer from a session';
}

sub run
{
	my ($self, $sql) = @_;

	$self->send($sql);
	return $self->wait;
}

sub quit
{
	my ($self) = @_;

	close $self->{in};
	close $self->{out};
	waitpid $self->{process}, 0;
	return;
}

1;
