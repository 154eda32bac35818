# t/lib/StreamTables/Cluster.pm
#
# A throwaway cluster with stream tables: PostgreSQL::Test::Cluster plus our program and extension.
#
# Everything a test says about stream tables goes through here, so that a test file tells only its own
# story.  Nothing here sleeps for a fixed time in place of waiting for something, and every wait ends early when
# the applier has died.  How decoder output is read lives in the tests of the decoder.
#
#   my $node = StreamTables::Cluster->new('primary')->boot;
#   $node->safe_psql('postgres', 'CREATE TABLE ...');
#   $node->start_applier;
#   $node->create_stream_table('totals', 'SELECT ...');
#   $node->wait_fresh('totals');
#   $node->is_current('totals', 'the totals follow');

package StreamTables::Cluster;

use strict;
use warnings FATAL => 'all';

use parent 'PostgreSQL::Test::Cluster';

use Carp;
use Exporter 'import';
use PostgreSQL::Test::Utils ();
use POSIX                   qw(WNOHANG);
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT_OK = qw(random_seed pick sql_literal mode_sql status_sql);

my $DEFAULT_DB = 'postgres';
my $POLL_INTERVAL_US = 20_000;

# --- the cluster -------------------------------------------------------------------------------------

# Makes a cluster fit for stream tables, starts it, and sets up the database.  Returns the node.
#
#   dbname => name        the database (default postgres; another one is created)
#   fsync => 1            flush for real; default off, which is faster and enough without power cuts
#   conf => text          more lines for postgresql.conf
#   setup => 'program'    run `pgtrickle setup` (default)
#            'extension'  only CREATE EXTENSION: for tests of the server part without an applier
#            'none'
sub boot
{
	my ($self, %opt) = @_;

	$self->{st_dbname} = $opt{dbname} // $DEFAULT_DB;
	$self->init(
		allows_streaming => 'logical',
		extra => [ '--encoding=UTF8', '--locale=C' ]);
	$self->append_conf('postgresql.conf', $self->_settings(%opt));
	# The base class of 18 and later writes it for servers of any version.
	$self->adjust_conf('postgresql.conf', 'autovacuum_worker_slots', undef) if $self->pg_version < 18;
	$self->start;

	$self->safe_psql($DEFAULT_DB, qq{CREATE DATABASE "$self->{st_dbname}"})
	  if $self->{st_dbname} ne $DEFAULT_DB;
	$self->set_up($opt{setup} // 'program');
	return $self;
}

sub set_up
{
	my ($self, $how) = @_;

	if ($how eq 'program')
	{
		$self->run_program('setup');
	}
	elsif ($how eq 'extension')
	{
		$self->safe_psql($self->dbname, 'CREATE EXTENSION pgtrickle');
	}
	elsif ($how ne 'none')
	{
		croak "unknown kind of set-up: $how";
	}
	return;
}

sub _settings
{
	my ($self, %opt) = @_;

	my $conf = "max_prepared_transactions = 20\n";
	$conf .= "fsync = on\n" if $opt{fsync};
	$conf .= "output_plugin_libraries = 'pgoutput, test_decoding, pgtrickle_decoder'\n"
	  if server_has_setting('output_plugin_libraries');
	$conf .= $opt{conf} . "\n" if defined $opt{conf};
	return $conf;
}

# Does the installed server know this setting?
my %server_settings;

sub server_has_setting
{
	my ($name) = @_;

	if (!%server_settings)
	{
		my ($out, $err) = PostgreSQL::Test::Utils::run_command([ 'postgres', '--describe-config' ]);
		%server_settings = map { (split /\t/)[0] => 1 } split /\n/, $out;
	}
	return exists $server_settings{$name};
}

sub dbname
{
	my ($self) = @_;

	return $self->{st_dbname} // $DEFAULT_DB;
}

# One statement or several in the node's database; like safe_psql, dies on errors.
sub sql
{
	my ($self, $sql, %params) = @_;

	return $self->safe_psql($self->dbname, $sql, %params);
}

# Runs a statement that must fail, and returns what the server said as
#   "42601: message\nDETAIL:  ...\nHINT:  ..."
# or the empty string when it did not fail.
sub psql_error
{
	my ($self, $sql, %params) = @_;

	my ($rc, $stdout, $stderr) = $self->psql(
		$self->dbname, "\\set VERBOSITY verbose\n$sql",
		on_error_stop => 1,
		%params);

	return '' if $rc == 0;
	my @said;
	foreach my $line (split /\n/, $stderr)
	{
		push @said, $1 if !@said && $line =~ /ERROR:\s+(\w{5}: .*)/;
		push @said, "$1:  $2" if @said && $line =~ /^(DETAIL|HINT):\s+(.*)/;
	}
	return @said ? join("\n", @said) : $stderr;
}

# --- the program -------------------------------------------------------------------------------------

# Runs a subcommand of the program to its end; dies when it fails.  Returns its output.
sub run_program
{
	my ($self, $subcommand, @arguments) = @_;

	my ($ok, $stdout, $stderr) = $self->try_program($subcommand, @arguments);
	croak "\"pgtrickle $subcommand\" failed:\n$stdout$stderr" if !$ok;
	return $stdout;
}

# The same, returning (succeeded, output, errors).
sub try_program
{
	my ($self, $subcommand, @arguments) = @_;

	my ($stdout, $stderr) = ('', '');
	my $ok = IPC::Run::run([ $self->_program($subcommand, @arguments) ],
		'<', \undef, '>', \$stdout, '2>', \$stderr);
	return ($ok, $stdout, $stderr);
}

sub _program
{
	my ($self, $subcommand, @arguments) = @_;

	return ($self->installed_command('pgtrickle'),
		$subcommand, '--dbname', $self->connstr($self->dbname), @arguments);
}

# Starts the applier in the background and waits until it streams.
#
#   args => [...]   more arguments of `pgtrickle run`
#   wait => 0       do not wait
#   env => {...}    environment, for named stop points
sub start_applier
{
	my ($self, %opt) = @_;

	croak 'the applier is running already' if $self->{st_applier_pid};
	my @command = $self->_program('run', @{ $opt{args} // [] });
	my $started_at = $self->sql('SELECT clock_timestamp()');
	my $log = $self->applier_log;
	local @ENV{ keys %{ $opt{env} // {} } } = values %{ $opt{env} // {} };

	my $pid = fork() // croak "could not fork: $!";
	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null'  or POSIX::_exit(126);
		open STDOUT, '>>', $log       or POSIX::_exit(126);
		open STDERR, '>&', \*STDOUT   or POSIX::_exit(126);
		exec { $command[0] } @command or POSIX::_exit(127);
	}
	$self->{st_applier_pid} = $pid;
	$self->wait_for_streaming($started_at) if $opt{wait} // 1;
	return $pid;
}

# The log of all appliers of this node, beside the server's.
sub applier_log
{
	my ($self) = @_;

	(my $log = $self->logfile) =~ s/\.log$/_applier.log/;
	return $log;
}

sub applier_pid
{
	my ($self) = @_;

	return $self->{st_applier_pid};
}

# Waits until a connection made after the given moment streams from our slot.  (A walsender whose client was
# killed may live on for a while, hence the moment.)
sub wait_for_streaming
{
	my ($self, $since) = @_;

	$since //= '-infinity';
	return $self->wait_until(
		qq{SELECT count(*) > 0 FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid
		   WHERE s.plugin = 'pgtrickle_decoder' AND s.database = current_database()
		     AND r.backend_start >= '$since' AND r.state IN ('catchup', 'streaming')},
		'the applier streams');
}

# Dies when the applier was started and has ended by itself.
sub check_applier
{
	my ($self) = @_;

	my $pid = $self->{st_applier_pid} // return;
	if (waitpid($pid, WNOHANG) == $pid)
	{
		my $status = $?;
		delete $self->{st_applier_pid};
		confess "the applier has ended with wait status $status; the end of its log:\n"
		  . $self->applier_log_tail;
	}
	return;
}

sub applier_log_tail
{
	my ($self, $lines) = @_;

	return '' if !-e $self->applier_log;
	my @lines = split /\n/, PostgreSQL::Test::Utils::slurp_file($self->applier_log);
	splice @lines, 0, @lines - ($lines // 30) if @lines > ($lines // 30);
	return join("\n", @lines) . "\n";
}

# SIGTERM and wait; the applier must leave with status 0.
sub stop_applier
{
	my ($self) = @_;

	my $status = $self->signal_applier('TERM');
	croak "the applier ended with wait status $status; the end of its log:\n"
	  . $self->applier_log_tail
	  if $status != 0;
	return;
}

sub kill9_applier
{
	my ($self) = @_;

	$self->signal_applier('KILL');
	return;
}

# Sends a signal and waits for the applier's end; returns its wait status.
sub signal_applier
{
	my ($self, $signal) = @_;

	my $pid = $self->{st_applier_pid} // croak 'no applier is running';
	kill $signal, $pid;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	while (waitpid($pid, WNOHANG) != $pid)
	{
		if (time > $deadline)
		{
			kill 'KILL', $pid;
			waitpid($pid, 0);
			delete $self->{st_applier_pid};
			confess "the applier did not end on SIG$signal; the end of its log:\n"
			  . $self->applier_log_tail;
		}
		usleep($POLL_INTERVAL_US);
	}
	delete $self->{st_applier_pid};
	return $?;
}

# Has the applier ended by itself, as one does that was started with a stop point?  Its wait status, or undef.
sub applier_ended
{
	my ($self) = @_;

	my $pid = $self->{st_applier_pid} // croak 'no applier is running';
	return undef if waitpid($pid, WNOHANG) != $pid;
	delete $self->{st_applier_pid};
	return $?;
}

# The base class calls this at the end of the test: no applier outlives it.
sub teardown_node
{
	my ($self, @arguments) = @_;

	$self->kill9_applier if $self->{st_applier_pid};
	return $self->SUPER::teardown_node(@arguments);
}

# --- waiting -----------------------------------------------------------------------------------------

# Polls a query of one boolean until it is true; dies after the usual test time-out or when the applier dies.
sub wait_until
{
	my ($self, $query, $what) = @_;

	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my ($rc, $stdout, $stderr);
	while (1)
	{
		($rc, $stdout, $stderr) = $self->psql($self->dbname, $query);
		return 1 if $rc == 0 && $stdout eq 't';
		$self->check_applier;
		last if time > $deadline;
		usleep($POLL_INTERVAL_US);
	}
	confess 'timed out waiting until '
	  . ($what // $query)
	  . "; last answer \"$stdout\" $stderr\n"
	  . "the end of the applier's log:\n"
	  . $self->applier_log_tail;
}

# Returns when everything committed before the call is in the stream tables.
sub wait_fresh
{
	my ($self, @names) = @_;

	my $timeout = $PostgreSQL::Test::Utils::timeout_default;
	foreach my $name (@names)
	{
		my ($rc, $stdout, $stderr) = $self->psql($self->dbname,
			'SELECT pgtrickle.wait_fresh(' . sql_literal($name) . ", '${timeout}s')");
		next if $rc == 0 && $stdout eq 't';
		$self->check_applier;
		confess "stream table \"$name\" did not get fresh: $stdout$stderr\n"
		  . "the end of the applier's log:\n"
		  . $self->applier_log_tail;
	}
	return;
}

# Returns when the stream table's frontier has passed an LSN that lies in the past.  A stream table whose sources
# did not change does not move its frontier, hence the second way.
sub wait_for_frontier
{
	my ($self, $name, $lsn) = @_;

	my $passed = $self->sql(
		'SELECT lsn >= ' . sql_literal($lsn) . '
		FROM pgtrickle.pgt_frontiers JOIN pgtrickle.pgt_definitions USING (pgt_id)
		WHERE relid = ' . sql_literal($name) . '::regclass');
	$self->wait_fresh($name) if $passed ne 't';
	return;
}

# --- stream tables -----------------------------------------------------------------------------------

# Creates a stream table; further named arguments are those of the SQL function, in SQL syntax of strings:
#   $node->create_stream_table('totals', $query, schedule => 'continuous', refresh_mode => 'FULL');
sub create_stream_table
{
	my ($self, $name, $query, %arguments) = @_;

	$arguments{schedule} //= 'continuous';
	my $list = join ', ', map { "$_ => " . sql_literal($arguments{$_}) } sort keys %arguments;
	$self->sql('SELECT pgtrickle.create_stream_table('
		  . sql_literal($name) . ', '
		  . sql_literal($query)
		  . ", $list)");
	return;
}

sub drop_stream_table
{
	my ($self, $name) = @_;

	$self->sql('SELECT pgtrickle.drop_stream_table(' . sql_literal($name) . ')');
	return;
}

# Refreshes now, as a barrier: afterwards everything committed before the call is in.
sub refresh
{
	my ($self, $name) = @_;

	$self->sql('SELECT pgtrickle.refresh_stream_table(' . sql_literal($name) . ')');
	return;
}

sub defining_query
{
	my ($self, $name) = @_;

	return $self->sql('SELECT defining_query FROM pgtrickle.pgt_definitions WHERE relid = '
		  . sql_literal($name)
		  . '::regclass');
}

# The promise, checked by the server at the frontier's own snapshot: writers may go on.
sub verify
{
	my ($self, $name, $test_name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($rc, $stdout, $stderr) =
	  $self->psql($self->dbname, 'SELECT * FROM pgtrickle.verify(' . sql_literal($name) . ')');
	$self->check_applier if $rc != 0;
	return is($rc == 0 ? $stdout : $stderr,
		'', $test_name // "$name equals its defining query at its frontier");
}

# The promise, checked from outside, with writers stopped and after a wait: the stream table's rows are
# those of its defining query now, as bags.
sub is_current
{
	my ($self, $name, $test_name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($self->difference($name), '', $test_name // "$name equals its defining query");
}

# The rows in which a stream table and its query differ ("surplus" or "missing", at most 20), as text.
sub difference
{
	my ($self, $name) = @_;

	my $query = $self->defining_query($name);
	my $answer = $self->_difference_of("SELECT * FROM $name", $query);
	# Types such as json and point have no equality; their text images must do.
	$answer = $self->_difference_of("SELECT s::text FROM $name s", "SELECT q::text FROM ($query) q")
	  if !defined $answer;
	return $answer;
}

# The same as a query of one snapshot, for sessions that check their own transaction.
sub difference_query
{
	my ($self, $name) = @_;

	return _difference_sql("SELECT * FROM $name", $self->defining_query($name));
}

sub _difference_sql
{
	my ($have, $want) = @_;

	$want =~ s/;\s*\z//;
	return <<"SQL";
SELECT 'surplus', d::text FROM (($have) EXCEPT ALL ($want)) d
UNION ALL
SELECT 'missing', d::text FROM (($want) EXCEPT ALL ($have)) d
LIMIT 20
SQL
}

sub _difference_of
{
	my ($self, $have, $want) = @_;

	my ($rc, $stdout, $stderr) = $self->psql($self->dbname, _difference_sql($have, $want));
	return $stdout if $rc == 0;
	return undef if $stderr =~ /could not identify an equality operator|could not implement/;
	croak "could not compare: $stderr";
}

# Since its first fill the stream table has been refreshed by delta only.  (In mode AUTO also a refresh in full that is cheaper counts against it, which on small
# tables and a busy machine may be any: with pgtrickle.cost_based = off nothing is weighed.)
sub assert_no_fallback
{
	my ($self, $name, $test_name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $full = $self->sql(
		'SELECT start_time, action, initiated_by, reason FROM pgtrickle.pgt_history
		JOIN pgtrickle.pgt_definitions USING (pgt_id)
		WHERE relid = ' . sql_literal($name) . q{::regclass
		  AND action IN ('FULL', 'REINITIALIZE') AND initiated_by <> 'INITIAL' ORDER BY refresh_id});
	return is($full, '', $test_name // "$name was never refreshed in full");
}

# --- statements for sessions that a test sends them to ------------------------------------------------

sub mode_sql
{
	my ($name, $mode) = @_;

	return "SELECT pgtrickle.alter_stream_table('$name', refresh_mode => '$mode')";
}

sub status_sql
{
	my ($name, $status) = @_;

	return "SELECT pgtrickle.alter_stream_table('$name', status => '$status')";
}

# --- randomness --------------------------------------------------------------------------------------

# Seeds Perl's random numbers from PGTRICKLE_SEED or the clock, and prints the seed so that a failure can be repeated.
sub random_seed
{
	my $seed = $ENV{PGTRICKLE_SEED} // (time ^ ($$ << 8)) & 0x7fffffff;

	srand($seed);
	diag("random seed: repeat with PGTRICKLE_SEED=$seed");
	return $seed;
}

# One of the arguments, at random.
sub pick
{
	my (@choices) = @_;

	return $choices[ int rand @choices ];
}

sub sql_literal
{
	my ($value) = @_;

	return 'NULL' if !defined $value;
	return $value if $value =~ /^(true|false)$/;
	(my $quoted = $value)   =~ s/'/''/g;
	$quoted                 =~ s/\\/\\\\/g && return "E'$quoted'";
	return "'$quoted'";
}

1;
