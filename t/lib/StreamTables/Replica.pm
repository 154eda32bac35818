# t/lib/StreamTables/Replica.pm
#
# A target cluster that follows remotes: the source clusters, what the target knows of them, and a checker that compares copies with
# the tables that they are copies of.
#
# The checker compares what is in a copy with what the source's table held at the same position: with writers stopped that is "now", on both
# sides, after the target has reached the source's position.
#
#   my $replica = StreamTables::Replica->new('pair');
#   my ($source, $target) = ($replica->source, $replica->target);
#   $source->sql('CREATE TABLE app.orders ...');
#   $target->start_applier;
#   $replica->copy('app.orders');
#   $replica->settle;
#   $replica->is_equal('app.orders');

package StreamTables::Replica;

use strict;
use warnings FATAL => 'all';

use Carp;
use StreamTables::Cluster qw(sql_literal);
use Test::More;
use Time::HiRes qw(time usleep);

# A target, and one remote unless `remotes` names others.  `target` and `source` are arguments of boot(), and `install_path` of another server.
sub new
{
	my ($class, $name, %opt) = @_;

	my $self = bless { name => $name, sources => {} }, $class;
	$self->{target} = _boot("${name}_target", %{ $opt{target} // {} });
	foreach my $remote (@{ $opt{remotes} // ['shop'] })
	{
		$self->add_source($remote, %{ $opt{source} // {} });
		$self->add_remote($remote);
	}
	return $self;
}

sub _boot
{
	my ($name, %opt) = @_;

	my $path = delete $opt{install_path};
	return StreamTables::Cluster->new($name, defined $path ? (install_path => $path) : ())->boot(%opt);
}

sub target { return $_[0]->{target} }

sub source
{
	my ($self, $remote) = @_;

	return $self->{sources}{ $self->_remote($remote) } // croak 'no such source';
}

# The only one, if none is named.
sub _remote
{
	my ($self, $remote) = @_;

	return $remote if defined $remote;
	my @all = keys %{ $self->{sources} };
	croak 'which remote?' if @all != 1;
	return $all[0];
}

# A cluster without the extension: all it needs is the plugin's library.
sub add_source
{
	my ($self, $remote, %opt) = @_;

	$self->{sources}{$remote} = _boot("$self->{name}_$remote", setup => 'none', %opt);
	return $self->{sources}{$remote};
}

# Further named arguments are those of the SQL function.
sub add_remote
{
	my ($self, $remote, %opt) = @_;

	$opt{conninfo} //= $self->source($remote)->connstr($self->source($remote)->dbname);
	$self->target->sql('SELECT pgtrickle.add_remote(' . sql_literal($remote) . _arguments(%opt) . ')');
	return;
}

sub _arguments
{
	my (%opt) = @_;

	return join '', map { ", $_ => " . sql_literal($opt{$_}) } sort keys %opt;
}

# Follow it no more, for a while.
sub pause
{
	my ($self, $remote) = @_;

	$self->target->sql('SELECT pgtrickle.pause_remote(' . sql_literal($remote) . ')');
	return;
}

sub resume
{
	my ($self, $remote) = @_;

	$self->target->sql('SELECT pgtrickle.resume_remote(' . sql_literal($remote) . ')');
	return;
}

# Asks for copies of tables of a remote and waits until they are there.
sub copy
{
	my ($self, @tables) = @_;

	$self->request($_) foreach @tables;
	$self->wait_copied;
	return;
}

# 'schema.table' of the only remote, or ['remote', 'schema.table', more named arguments of copy_table()].
sub request
{
	my ($self, $table) = @_;

	my ($remote, $name, %opt) = ref $table ? @$table : ($self->_remote, $table);
	$self->target->sql(
		'SELECT pgtrickle.copy_table(' . sql_literal($remote) . ', ' . sql_literal($name) . _arguments(%opt) . ')');
	return;
}

sub wait_copied
{
	my ($self) = @_;

	$self->target->wait_until(
		q{SELECT count(*) > 0 AND bool_and(status = 'ACTIVE' AND is_populated) FROM pgtrickle.copy_catalog()},
		'all copies are there');
	return;
}

# Returns when everything that the sources have committed is in the copies.  (The end of what is on disk: nothing else is sent, and
# what a reader leaves in the WAL may not get there for long.)
sub wait_positions
{
	my ($self, @remotes) = @_;

	foreach my $remote (@remotes ? @remotes : sort keys %{ $self->{sources} })
	{
		my $lsn = $self->source($remote)->sql('SELECT pg_current_wal_flush_lsn()');
		$self->target->wait_until(
			"SELECT position >= '$lsn' FROM pgtrickle.remote_catalog() WHERE remote_name = '$remote'",
			"remote $remote has been followed up to $lsn");
	}
	return;
}

# The same, and then in the stream tables.
sub settle
{
	my ($self, @stream_tables) = @_;

	$self->wait_positions;
	$self->target->wait_fresh(@stream_tables);
	return;
}

# What distinguishes a copy from its table, as rows in order; to be equal, both are given as text.
sub _rows
{
	my ($node, $table, $columns) = @_;

	return $node->sql("SELECT t::text FROM (SELECT $columns FROM $table) t ORDER BY 1");
}

sub is_equal
{
	my ($self, $table, $test_name, %opt) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $columns = $opt{columns} // '*';
	my $have = _rows($self->target, $opt{target} // $table, $columns);
	my $want = _rows($self->source($opt{remote}), $table, $columns);
	my $equal = ok($have eq $want, $test_name // "$table equals its source");
	diag(_first_differences($have, $want)) if !$equal;
	return $equal;
}

sub _first_differences
{
	my ($have, $want) = @_;

	my (%count, @said);
	$count{$_}++ foreach split /\n/, $have;
	$count{$_}-- foreach split /\n/, $want;
	foreach my $row (grep { $count{$_} } sort keys %count)
	{
		push @said, ($count{$row} > 0 ? 'surplus ' : 'missing ') . abs($count{$row}) . " x $row";
		last if @said == 10;
	}
	return join("\n", @said);
}

# A tick that a copy made fail, or a copy made anew, would hide mistakes of the ordinary path.
sub were_copied_once
{
	my ($self, $test_name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(
		$self->target->sql(
			q{SELECT relid::regclass, times_copied, last_error_sqlstate, last_error_message FROM pgtrickle.pgt_copies JOIN pgtrickle.pgt_copy_states USING (copy_id)
			WHERE times_copied <> 1 OR last_error_message IS NOT NULL}),
		'',
		$test_name // 'every copy was made once, and no tick failed at one');
}

1;
