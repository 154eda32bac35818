# t/lib/StreamTables/Isolation.pm
#
# All interleavings of a few transactions, each checked at every moment: does a stream table equal its query, and who waits for whom?
#
# PostgreSQL's isolationtester compares what sessions print with a file of expected text, and waits until its time-out where an interleaving cannot
# happen because a session still waits for a lock.  Here the oracle is a query, and which interleavings can happen is found out by trying:
# a depth-first search over the order of steps, in which a session that waits has no next step.  Each interleaving starts again from the set-up.
#
#   my $spec = StreamTables::Isolation->new($node,
#       setup => 'TRUNCATE t; INSERT INTO t VALUES (1, 1)',      # before each interleaving
#       sessions => [ [ 'BEGIN; UPDATE t SET n = 2', 'COMMIT' ], [ 'BEGIN; DELETE FROM t', 'COMMIT' ] ],
#       checks => [ $node->difference_query('st') ]);            # rows of these are findings
#   $spec->run;
#   is($spec->findings, '', ...);  $spec->{interleavings}; $spec->{waits}; $spec->{errors}{'40001'}
#
# A step is one statement or several, and counts as done when the last of them is.  The checks are run by the session itself after each of its steps, so inside
# its transaction, with its snapshot; and by another session, which sees what is committed.  A step that fails rolls its session back and ends it: the SQLSTATE must be one
# of `may_fail`.  A session `waits` when pg_blocking_pids() says so.  Where sessions wait for each other only, the server has to end that; the cluster should have a short
# deadlock_timeout.  `at_end` are checks that make sense at the end only.  With `only_committed`, sessions do not check themselves.  With `limit`, no more interleavings than that are run: those of the search if they are not more, else random ones.
package StreamTables::Isolation;

use strict;
use warnings FATAL => 'all';

use Carp;
use PostgreSQL::Test::Utils ();
use StreamTables::Session;
use Time::HiRes qw(time);

my $POLL_S = 0.004;
my $FOUND_MAX = 5;

sub new
{
	my ($class, $node, %opt) = @_;

	return bless {
		node => $node, setup => '', checks => [], may_fail => ['40P01'], %opt,
		interleavings => 0, waits => 0, waited => {}, errors => {}, found => [] }, $class;
}

# Runs the interleavings; returns the object.
sub run
{
	my ($self) = @_;

	$self->_connect;
	my $most = $self->_count;
	$self->{random} = 1 if defined $self->{limit} && $most > $self->{limit};
	$most = $self->{limit} if $self->{random};
	my @choices;    # per step of the interleaving: { session, others => [sessions to be tried later] }
	while ($self->{interleavings} < $most)
	{
		$self->_interleave(\@choices);
		$self->{interleavings}++;
		next if $self->{random};
		pop @choices while @choices && !@{ $choices[-1]{others} };
		last if !@choices;
		$choices[-1]{session} = shift @{ $choices[-1]{others} };
	}
	$self->_disconnect;
	return $self;
}

# In how many orders the steps could run, if nobody waited.
sub _count
{
	my ($self) = @_;

	my ($count, $steps) = (1, 0);
	foreach my $session (@{ $self->{sessions} })
	{
		$count = $count * ++$steps / $_ foreach 1 .. @$session;
	}
	return $count;
}

# What was wrong, as text.
sub findings
{
	my ($self) = @_;

	return join "\n", @{ $self->{found} };
}

# One line that says what has been tried.
sub summary
{
	my ($self) = @_;

	return join ', ', "$self->{interleavings} interleavings", "$self->{waits} waits", map { "$self->{errors}{$_} times $_" } sort keys %{ $self->{errors} };
}

sub _connect
{
	my ($self) = @_;

	my @settings = @{ $self->{settings} // [] };
	$self->{control} = StreamTables::Session->new($self->{node});
	$self->{control}->run("SET jit = off; SET client_min_messages = warning");
	foreach my $i (0 .. $#{ $self->{sessions} })
	{
		my $connection = StreamTables::Session->new($self->{node});
		$connection->run($_) foreach 'SET jit = off; SET client_min_messages = warning', @settings;
		$self->{connections}[$i] = $connection;
	}
	return;
}

sub _disconnect
{
	my ($self) = @_;

	$_->quit foreach @{ $self->{connections} }, $self->{control};
	return;
}

# One interleaving: as \@choices says, and where they end the first session that can go on (or a random one).  Writes down what else could have been chosen.
sub _interleave
{
	my ($self, $choices) = @_;

	$self->{trace} = [];
	$self->{has_finding} = 0;
	$self->{state} = [ map { { next => 0, waits => 0 } } @{ $self->{sessions} } ];
	my $answer = $self->{control}->run($self->{setup});
	croak "the set-up failed: $answer->{message}" if $answer->{state} ne '00000';
	my $depth = 0;
	while (1)
	{
		my @able = grep { !$self->{state}[$_]{waits} && $self->{state}[$_]{next} < @{ $self->{sessions}[$_] } } 0 .. $#{ $self->{sessions} };
		if (!@able)
		{
			last if !grep { $_->{waits} } @{ $self->{state} };
			$self->_settle(1);
			next;
		}
		if ($self->{random})
		{
			$self->_step($able[ int rand @able ]);
			next;
		}
		$choices->[$depth] //= { session => $able[0], others => [ @able[ 1 .. $#able ] ] };
		my $session = $choices->[$depth]{session};
		if (!grep { $_ == $session } @able)
		{
			# It waits this time, though it did not before: a matter of moments, and of no further use.
			splice @$choices, $depth;
			next;
		}
		$depth++;
		$self->_step($session);
	}
	local $self->{checks} = [ @{ $self->{checks} }, @{ $self->{at_end} // [] } ];
	$self->_check($self->{control}, 'at the end');
	return;
}

sub _step
{
	my ($self, $i) = @_;

	my $state = $self->{state}[$i];
	my $statement = $self->{sessions}[$i][ $state->{next}++ ];
	push @{ $self->{trace} }, "session $i: $statement";
	$self->{connections}[$i]->send($statement);
	$state->{waits} = 1;
	$state->{statement} = $statement;
	$state->{new} = 1;
	$self->_settle(0);
	if ($state->{waits})
	{
		push @{ $self->{trace} }, "    session $i waits";
		$self->{waits}++;
		$self->{waited}{$i}++;
	}
	$state->{new} = 0;
	$self->_check($self->{control}, 'what is committed, after the step');
	return;
}

# Reads answers until every session that has none waits for a lock of one that goes on.  With $until_one, until one has an answer.
sub _settle
{
	my ($self, $until_one) = @_;

	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	while (1)
	{
		my @waiting = grep { $self->{state}[$_]{waits} } 0 .. $#{ $self->{state} };
		my $answered = 0;
		foreach my $i (@waiting)
		{
			my $answer = $self->{connections}[$i]->poll($self->{state}[$i]{new} ? $POLL_S : 0) // next;
			$answered = 1;
			$self->_done($i, $answer);
		}
		next if $answered && !$until_one;
		return if $answered || !@waiting;
		return if !$until_one && $self->_all_blocked(@waiting);
		croak "no answer\n" . join "\n", @{ $self->{trace} } if time > $deadline;
		select undef, undef, undef, $POLL_S if $until_one;
	}
}

# Do these wait for locks, and in the end for a session that does not wait itself?
sub _all_blocked
{
	my ($self, @waiting) = @_;

	my %pid = map { $_ => $self->{connections}[$_]{pid} } @waiting;
	my %waits = map { $_ => 1 } values %pid;
	my $answer = $self->{control}->run('SELECT pid, pg_blocking_pids(pid) FROM unnest(ARRAY[' . join(',', values %pid) . ']) pid');
	my %blockers;
	foreach my $line (split /\n/, $answer->{rows})
	{
		my ($pid, $blockers) = $line =~ /^(\d+)\|\{(.*)\}$/ or croak "unexpected: $line";
		$blockers{$pid} = [ split /,/, $blockers ];
	}
	return 0 if grep { !@$_ } values %blockers;
	my %free;
	foreach (1 .. @waiting)
	{
		foreach my $pid (keys %blockers)
		{
			$free{$pid} = 1 if grep { !$waits{$_} || $free{$_} } @{ $blockers{$pid} };
		}
	}
	return keys %free == @waiting;
}

# A step has its answer.
sub _done
{
	my ($self, $i, $answer) = @_;

	my $state = $self->{state}[$i];
	my $waited = !$state->{new};
	$state->{waits} = 0;
	push @{ $self->{trace} }, "    session $i goes on" if $waited;
	if ($answer->{state} ne '00000')
	{
		push @{ $self->{trace} }, "    session $i: $answer->{state} $answer->{message}";
		$self->{errors}{ $answer->{state} }++;
		$self->_finding("unexpected $answer->{state} $answer->{message}") if !grep { $_ eq $answer->{state} } @{ $self->{may_fail} };
		$self->_end_session($i);
		return;
	}
	# A check may meet the end of a transaction that SERIALIZABLE does not allow.
	my $failed = $self->_check($self->{connections}[$i], "session $i, after: $state->{statement}");
	$self->_end_session($i) if $failed;
	return;
}

sub _end_session
{
	my ($self, $i) = @_;

	$self->{state}[$i]{next} = @{ $self->{sessions}[$i] };
	$self->{connections}[$i]->run('ROLLBACK');
	return;
}

# Would a reader wait for somebody else's TRUNCATE?
sub _is_locked_away
{
	my ($self, $connection) = @_;

	return 0 if !grep { /\b(TRUNCATE|LOCK|ALTER|DROP)\b/ } map { @$_ } @{ $self->{sessions} };
	return $self->{control}->run("SELECT 1 FROM pg_locks WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock' AND pid <> $connection->{pid} LIMIT 1")->{rows} ne '';
}

# Returns whether a check has failed in a way that ends the transaction, and may.
sub _check
{
	my ($self, $connection, $where) = @_;

	return 0 if $self->{only_committed} && $connection != $self->{control};
	return 0 if $self->_is_locked_away($connection);
	foreach my $check (@{ $self->{checks} })
	{
		my $answer = $connection->run($check);
		next if $answer->{state} eq '00000' && $answer->{rows} eq '';
		if (grep { $_ eq $answer->{state} } @{ $self->{may_fail} })
		{
			push @{ $self->{trace} }, "    $where: $answer->{state}";
			$self->{errors}{ $answer->{state} }++;
			return 1;
		}
		$self->_finding("$where: $answer->{message}\n" . substr $answer->{rows}, 0, 600);
	}
	return 0;
}

sub _finding
{
	my ($self, $what) = @_;

	# What follows a first mistake says nothing more.
	return if $self->{has_finding};
	$self->{has_finding} = 1;
	push @{ $self->{found} }, join "\n", $what, @{ $self->{trace} }, '' if @{ $self->{found} } < $FOUND_MAX;
	return;
}

1;
