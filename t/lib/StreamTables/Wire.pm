# t/lib/StreamTables/Wire.pm
#
# A network between a cluster and those who connect to it, that can be told to fail: a process that passes bytes on between two Unix sockets.
#
#   my $wire = StreamTables::Wire->new($node);
#   connect to $wire->conninfo ...
#   $wire->set('nothing comes');    # what the node sends does not arrive
#   $wire->set('nothing goes');     # what is sent to the node does not arrive
#   $wire->set('nothing comes or goes');
#   $wire->set('hung up');          # connections end, and new ones are refused
#   $wire->set('all is well');
package StreamTables::Wire;

use strict;
use warnings FATAL => 'all';

use Carp;
use IO::Select;
use IO::Socket::UNIX;
use PostgreSQL::Test::Utils ();
use POSIX ();
use Socket;
use Time::HiRes qw(usleep);

my %modes = (
	'all is well' => { comes => 1, goes => 1 },
	'nothing comes' => { goes => 1 },
	'nothing goes' => { comes => 1 },
	'nothing comes or goes' => {},
	'hung up' => { refuses => 1 });

# Bytes that wait to be passed on; more are not taken from the sender.
my $WAITING_MAX = 65536;
my $LOOK_INTERVAL = 0.02;

sub new
{
	my ($class, $node) = @_;

	my $folder = PostgreSQL::Test::Utils::tempdir_short();
	my $self = bless {
		folder => $folder,
		port => $node->port,
		dbname => $node->dbname,
		mode_file => "$folder/mode",
		done_file => "$folder/done",
		number => 0,
	  }, $class;
	my $listener = IO::Socket::UNIX->new(Local => "$folder/.s.PGSQL.$self->{port}", Listen => 20, Type => SOCK_STREAM)
	  or croak "could not listen: $!";

	$self->{pid} = fork() // croak "could not fork: $!";
	if ($self->{pid} == 0)
	{
		eval { $self->_pass_on($listener, $node->host . '/.s.PGSQL.' . $node->port) };
		POSIX::_exit(1);
	}
	close $listener;
	$self->set('all is well');
	return $self;
}

sub conninfo
{
	my ($self) = @_;

	return "host=$self->{folder} port=$self->{port} dbname=$self->{dbname}";
}

# Returns when the other process has heard of it.
sub set
{
	my ($self, $mode) = @_;

	croak "unknown mode: $mode" if !exists $modes{$mode};
	$self->{number}++;
	_write_file($self->{mode_file}, "$self->{number} $mode");
	usleep(10_000) while (_read_file($self->{done_file}) // '') ne $self->{number};
	return;
}

sub stop
{
	my ($self) = @_;

	return if !$self->{pid};
	kill 'KILL', $self->{pid};
	waitpid($self->{pid}, 0);
	delete $self->{pid};
	return;
}

sub DESTROY
{
	my ($self) = @_;

	local $?;
	$self->stop;
	return;
}

# Whole or not at all, for the one that reads it.
sub _write_file
{
	my ($name, $text) = @_;

	open my $file, '>', "$name.new" or croak "could not write $name: $!";
	print $file $text;
	close $file;
	rename "$name.new", $name or croak "could not rename $name: $!";
	return;
}

sub _read_file
{
	my ($name) = @_;

	open my $file, '<', $name or return undef;
	my $text = <$file>;
	return $text;
}

# --- the other process -------------------------------------------------------------------------------

# Each connection is two sockets and what waits to be sent to each: near is the one who connected.
sub _pass_on
{
	my ($self, $listener, $far_path) = @_;

	my ($mode, $number, @connections) = ($modes{'all is well'}, 0);
	local $SIG{PIPE} = 'IGNORE';
	while (getppid() != 1)
	{
		my ($said, $name) = split / /, _read_file($self->{mode_file}) // '0 all is well', 2;
		$mode = $modes{$name};
		_hang_up(\@connections) if $mode->{refuses};
		_write_file($self->{done_file}, $number = $said) if $said != $number;

		my $readable = IO::Select->new($listener);
		foreach my $connection (@connections)
		{
			$readable->add($connection->{far}) if $mode->{comes} && length $connection->{to_near} < $WAITING_MAX;
			$readable->add($connection->{near}) if $mode->{goes} && length $connection->{to_far} < $WAITING_MAX;
		}
		my %ready = map { $_ => 1 } $readable->can_read($LOOK_INTERVAL);
		_accept($listener, $far_path, $mode, \@connections) if $ready{$listener};
		@connections = grep { _serve($_, \%ready) } @connections;
	}
	return;
}

sub _hang_up
{
	my ($connections) = @_;

	foreach my $connection (@$connections)
	{
		close $connection->{near};
		close $connection->{far};
	}
	@$connections = ();
	return;
}

sub _accept
{
	my ($listener, $far_path, $mode, $connections) = @_;

	my $near = $listener->accept or return;
	my $far = $mode->{refuses} ? undef : IO::Socket::UNIX->new(Peer => $far_path, Type => SOCK_STREAM);
	return if !$far;    # closed, as it goes out of scope
	$_->blocking(0) foreach $near, $far;
	push @$connections, { near => $near, far => $far, to_near => '', to_far => '' };
	return;
}

# False when one side has hung up: then both do.
sub _serve
{
	my ($connection, $ready) = @_;

	my ($near, $far) = @{$connection}{qw(near far)};
	my $open = 1;
	$open &&= _read($far, \$connection->{to_near}) if $ready->{$far};
	$open &&= _read($near, \$connection->{to_far}) if $ready->{$near};
	$open &&= _send($near, \$connection->{to_near}) && _send($far, \$connection->{to_far});
	_hang_up([$connection]) if !$open;
	return $open;
}

sub _read
{
	my ($socket, $waiting) = @_;

	my $got = sysread $socket, $$waiting, $WAITING_MAX, length $$waiting;
	return defined $got ? $got > 0 : $!{EAGAIN};
}

sub _send
{
	my ($socket, $waiting) = @_;

	return 1 if $$waiting eq '';
	my $sent = syswrite $socket, $$waiting;
	return $!{EAGAIN} if !defined $sent;
	substr($$waiting, 0, $sent) = '';
	return 1;
}

1;
