# t/lib/StreamTables/Stream.pm
#
# A replication slot and what the decoder says on it, as text: for tests of decoder/ and proto/.
#
# Every batch is read twice, by protobuf-c and by the project's own reader, and must come out the same; the
# text is that of proto/build/pgtrickle-dump, with names in place of OIDs.
#
#   my $stream = StreamTables::Stream->new($node, interest => ['orders']);
#   $node->sql('INSERT INTO orders VALUES (1)');
#   $stream->says(<<'END', 'the insert comes');
#   begin
#   relation orders public.orders as orders identity d: id@1:23*
#   insert orders new: id=1
#   commit rows 1
#   END

package StreamTables::Stream;

use strict;
use warnings FATAL => 'all';

use Carp;
use File::Basename          qw(dirname);
use PostgreSQL::Test::Utils ();
use StreamTables::Cluster   qw(sql_literal);
use Test::More;

my $DUMP = dirname(__FILE__) . '/../../../proto/build/pgtrickle-dump';
my $slots = 0;

# Makes a slot on a node.
#
#   interest => [names]    relations to ask for; '*' (default) for all
#   options => {...}       more options of the plugin
sub new
{
	my ($class, $node, %opt) = @_;

	croak "$DUMP has not been built" if !-x $DUMP;
	my $self = bless {
		node => $node,
		slot => 'stream_' . ++$slots,
		interest => $opt{interest} // '*',
		options => $opt{options} // {},
		names => {},
	}, $class;
	$node->sql("SELECT pg_create_logical_replication_slot('$self->{slot}', 'pgtrickle_decoder')");
	return $self;
}

sub slot
{
	my ($self) = @_;

	return $self->{slot};
}

# Everything since the last call, as batches in hex, one a line.
sub batches
{
	my ($self) = @_;

	# A commit with an xid flushes the WAL, also what a non-transactional message left unflushed.
	$self->{node}->sql('SELECT txid_current()');
	return $self->{node}->sql($self->statement);
}

sub statement
{
	my ($self) = @_;

	my $interest = $self->{interest};
	$interest =
	  $self->{node}->sql('SELECT string_agg(r::regclass::oid::text, \',\') FROM unnest(ARRAY['
		  . join(', ', map { sql_literal($_) } @$interest)
		  . ']::text[]) r')
	  if ref $interest;
	my %options = (proto_version => 1, interest => $interest, %{ $self->{options} });
	my $list = join ', ',
	  map { sql_literal($_) . ', ' . sql_literal($options{$_}) } sort keys %options;
	return "SELECT encode(data, 'hex') FROM pg_logical_slot_get_binary_changes("
	  . "'$self->{slot}', NULL, NULL, $list)";
}

# Everything since the last call, as text.
#
#   arguments => [...]    of pgtrickle-dump, instead of --stable
sub text
{
	my ($self, %opt) = @_;

	return $self->dump($self->batches, %opt);
}

sub dump
{
	my ($self, $batches, %opt) = @_;

	my $file = PostgreSQL::Test::Utils::tempdir() . "/$self->{slot}.hex";
	open my $handle, '>', $file or croak "could not write $file: $!";
	print $handle $batches eq '' ? '' : "$batches\n";
	close $handle or croak "could not write $file: $!";

	my @arguments = (@{ $opt{arguments} // ['--stable'] }, $self->_name_arguments);
	my $text = _run_dump($file, @arguments);
	my $ours = _run_dump($file, @arguments, '--ours');
	confess "the two readers differ; protobuf-c:\n$text\nours:\n$ours" if $ours ne $text;
	return $text;
}

sub _run_dump
{
	my ($file, @arguments) = @_;

	my ($out, $err) = ('', '');
	IPC::Run::run([ $DUMP, @arguments ], '<', $file, '>', \$out, '2>', \$err)
	  or confess "pgtrickle-dump failed: $out$err";
	return $out;
}

# Relations by the names they have now; those that are gone keep the last name that we saw.
sub _name_arguments
{
	my ($self) = @_;

	my $rows = $self->{node}->sql(
		q{SELECT oid || '=' || relname FROM pg_class
		WHERE oid >= 16384 AND relkind IN ('r', 'p', 'm')});
	foreach my $row (split /\n/, $rows)
	{
		my ($oid, $name) = split /=/, $row, 2;
		$self->{names}{$oid} = $name;
	}
	return map { ('--name', "$_=$self->{names}{$_}") } sort { $a <=> $b } keys %{ $self->{names} };
}

# Compares what has come since the last call with the text expected.
sub says
{
	my ($self, $expected, $test_name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($self->text, $expected, $test_name);
}

# Forgets what has come since the last call.
sub forget
{
	my ($self) = @_;

	$self->batches;
	return;
}

1;
