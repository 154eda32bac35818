# t/lib/StreamTables/Fuzz/Immediate.pm
#
# The fuzzer's life for IMMEDIATE stream tables: random tables and queries as in World.pm, but compared after every statement, inside the transaction
# that ran it; and with several transactions at once.
#
# The comparison is with the query as it runs, with all orders completed that it leaves open, and reads the rows as text, both ways, so that types without equality are compared as well; what depends on the order of float additions is rounded.
# A statement that fails because of maintenance is a finding, unless it is an error that the query may have by itself (division by zero and the like).
#
# A finding is tried again with one transaction and a stream table that is made just before it, with fewer and fewer of its statements.
package StreamTables::Fuzz::Immediate;

use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster       qw(sql_literal);
use StreamTables::Fuzz::Changes qw(insert_rows random_changes);
use StreamTables::Fuzz::Query   qw(random_query);
use StreamTables::Fuzz::Schema  qw(pick chance random_schema);
use StreamTables::Session;

my $ROWS_MAX = 600;
my $QUERY_MS = 150;

# Errors that queries have by themselves, on some rows: overflow, division by zero, two rows from a scalar subquery, keys too long for an index.
my $OWN_ERRORS = qr/^(22...|21000|54000|42804|42883)$/;
# What concurrent transactions may end with.
my $OF_CONCURRENCY = qr/^(40001|40P01)$/;

sub new
{
	my ($class, $node, %opt) = @_;

	return bless { node => $node, stream_tables => [], findings => [], comparisons => 0, statements => 0, refused => {}, errors => {}, features => {}, %opt }, $class;
}

sub session
{
	my ($self, $level) = @_;

	my $session = StreamTables::Session->new($self->{node});
	$session->run("SET client_min_messages = error; SET jit = off; SET statement_timeout = '20s'");
	$session->run("SET default_transaction_isolation = '$level'") if $level;
	return $session;
}

sub finding
{
	my ($self, $what) = @_;

	push @{ $self->{findings} }, "seed $self->{seed}: $what";
	return;
}

# ---- tables and stream tables ----

sub create
{
	my ($self, $count) = @_;

	$self->{tables} = [ random_schema(3) ];
	$self->{node}->sql(join '', map { StreamTables::Fuzz::Schema::table_sql($_) . insert_rows($_, 8 + int rand 10) . ";\n" } @{ $self->{tables} });
	$self->{main} = $self->session;
	foreach my $i (1 .. 4 * $count)
	{
		last if @{ $self->{stream_tables} } >= $count;
		$self->create_stream_table(random_query($self->{tables}, [ map { { name => $_->{name}, columns => $_->{columns} } } @{ $self->{stream_tables} } ]));
	}
	return;
}

sub create_statement
{
	my ($stream_table) = @_;

	return "SELECT pgtrickle.create_stream_table('$stream_table->{name}', " . sql_literal($stream_table->{sql}) . ", refresh_mode => 'IMMEDIATE')";
}

sub create_stream_table
{
	my ($self, $query) = @_;

	my $main = $self->{main};
	# only queries that the server can run, and quickly
	my $runs = $main->run("SET statement_timeout = $QUERY_MS; SELECT count(*) FROM ($query->{sql}) q");
	$main->run("SET statement_timeout = '20s'");
	return if $runs->{state} ne '00000' || $runs->{rows} > $ROWS_MAX;
	my $stream_table = { %$query, name => 'st' . ++$self->{number} };
	my $answer = $main->run(create_statement($stream_table));
	if ($answer->{state} eq '0A000')
	{
		my ($detail) = $answer->{text} =~ /^DETAIL:\s+(.*)/m;
		($detail //= $answer->{message}) =~ s/"[^"]*"/"..."/g;
		$self->{refused}{$detail}++;
		return;
	}
	if ($answer->{state} ne '00000')
	{
		$self->finding("cannot be created: $answer->{text}\n$query->{sql}") if $answer->{state} !~ $OWN_ERRORS;
		return;
	}
	$self->read_definition($stream_table);
	push @{ $self->{stream_tables} }, $stream_table;
	$self->{features}{$_}++ foreach keys %{ $query->{features} };
	return;
}

sub read_definition
{
	my ($self, $stream_table) = @_;

	# the last one: runs_as, if there is one
	$stream_table->{defining_query} = $self->{main}->run("SELECT value FROM pgtrickle.explain_st('$stream_table->{name}') WHERE property IN ('defining_query', 'runs_as')
		ORDER BY property DESC LIMIT 1")->{rows};
	$stream_table->{defining_query} =~ s/[;\s]+\z//;
	return;
}

# The rows that differ, of all stream tables given, as one query with one snapshot: name|surplus or missing|row.
sub difference_sql
{
	my (@stream_tables) = @_;

	return join ' UNION ALL ', map {
		my $columns = join ', ', map { $_->{type} eq 'approx' || $_->{type} eq 'float' ? "round($_->{name}::numeric, 6)" : $_->{name} } @{ $_->{columns} };
		my ($have, $want) = ("SELECT ROW($columns)::text FROM $_->{name}", "SELECT ROW($columns)::text FROM ($_->{defining_query}) q");
		"(SELECT '$_->{name}', 'surplus', d FROM (($have) EXCEPT ALL ($want)) d (d) LIMIT 3) UNION ALL "
		  . "(SELECT '$_->{name}', 'missing', d FROM (($want) EXCEPT ALL ($have)) d (d) LIMIT 3)"
	} @stream_tables;
}

# The stream tables that differ, name => rows; undef when the comparison itself was not possible.
sub wrong
{
	my ($self, $answer) = @_;

	$self->{comparisons} += @{ $self->{stream_tables} };
	if ($answer->{state} ne '00000')
	{
		$self->{errors}{"comparison: $answer->{state}"}++;
		return undef;
	}
	my %wrong;
	foreach my $line (split /\n/, $answer->{rows})
	{
		my ($name, $rest) = split /\|/, $line, 2;
		$wrong{$name} .= "$rest\n";
	}
	return \%wrong;
}

sub drop
{
	my ($self, $session, @names) = @_;

	my %gone = map { $_ => 1 } @names;
	foreach my $stream_table (@{ $self->{stream_tables} })
	{
		$gone{ $stream_table->{name} } = 1 if grep { $gone{$_} } $stream_table->{sql} =~ /\b(st\d+)\b/g;
	}
	$session->run("SELECT pgtrickle.drop_stream_table('$_', true)") foreach reverse grep { $gone{$_} } map { $_->{name} } @{ $self->{stream_tables} };
	$self->{stream_tables} = [ grep { !$gone{ $_->{name} } } @{ $self->{stream_tables} } ];
	return;
}

# Is the error one of maintenance?
sub is_of_maintenance
{
	my ($answer) = @_;

	return $answer->{text} =~ /stream table/ || $answer->{state} =~ /^XX/;
}

# ---- one transaction after the other ----

# Runs a transaction, comparing after each statement.  Returns what was wrong and the number of the statement, or nothing.  Statements that fail are rolled back
# one by one, which is a case as well.
sub transaction
{
	my ($self, $statements, @stream_tables) = @_;

	my $main = $self->{main};
	my $comparison = difference_sql(@stream_tables);
	my ($what, $at, %wrong);
	$main->run('BEGIN');
	foreach my $i (0 .. $#$statements)
	{
		my $statement = $statements->[$i];
		my $own = $statement =~ /^(SAVEPOINT|ROLLBACK|RELEASE)/;
		$main->run("SAVEPOINT before_$i") if !$own;
		my $answer = $main->run($statement);
		$self->{statements}++;
		if ($answer->{state} ne '00000')
		{
			$main->run("ROLLBACK TO before_$i") if !$own;
			$self->{errors}{ $answer->{state} }++;
			next if !is_of_maintenance($answer) || $answer->{state} =~ $OWN_ERRORS;
			my ($name) = $answer->{text} =~ /stream table "?(?:public\.)?(st\d+)/;
			($what, $at, %wrong) = ($answer->{text}, $i, $name ? ($name => $answer->{text}) : ());
			last;
		}
		my $compared = $self->wrong($main->run("SAVEPOINT comparison; $comparison"));
		$main->run('ROLLBACK TO comparison') if !$compared;
		next if !$compared || !%$compared;
		($what, $at, %wrong) = ('differs', $i, %$compared);
		last;
	}
	if (!$what)
	{
		my $end = chance(0.8) ? 'COMMIT' : 'ROLLBACK';
		my $answer = $main->run($end);
		# deferred foreign keys
		$main->run('ROLLBACK') if $answer->{state} ne '00000';
		my $compared = $self->wrong($main->run($comparison));
		($what, $at, %wrong) = ("differs after $end", scalar @$statements, %$compared) if $compared && %$compared;
		return if !$what;
	}
	$main->run('ROLLBACK');
	return { what => $what, at => $at, wrong => \%wrong };
}

sub one_after_the_other
{
	my ($self, $transactions, $until) = @_;

	foreach (1 .. $transactions)
	{
		last if !@{ $self->{stream_tables} } || time > $until;
		my $statements = random_changes(@{ $self->{tables} });
		my $found = $self->transaction($statements, @{ $self->{stream_tables} });
		next if !$found;
		if (!%{ $found->{wrong} })
		{
			$self->finding("$found->{what}\n" . join ";\n", @$statements);
			last;
		}
		$self->report($found, $statements);
		$self->drop($self->{main}, keys %{ $found->{wrong} });
	}
	return;
}

# Tries a finding alone, and with fewer statements.
sub report
{
	my ($self, $found, $statements) = @_;

	# the first one; others may read it
	my ($name) = sort { substr($a, 2) <=> substr($b, 2) } keys %{ $found->{wrong} };
	my ($stream_table) = grep { $_->{name} eq $name } @{ $self->{stream_tables} };
	my @left = @$statements[ 0 .. ($found->{at} < @$statements ? $found->{at} : $#$statements) ];
	my $text = "does not come again with a fresh stream table; all statements of the transaction:\n" . join ";\n", @left;
	if ($stream_table->{sql} !~ /\bst\d/ && $self->comes_again($stream_table, @left))
	{
		foreach my $i (reverse 0 .. $#left)
		{
			next if @left == 1 || $left[$i] =~ /^(SAVEPOINT|ROLLBACK|RELEASE)/;
			my @fewer = @left;
			splice @fewer, $i, 1;
			@left = @fewer if $self->comes_again($stream_table, @fewer);
		}
		$text = "tables:\n" . join('', map { $self->table_text($_) } grep { $stream_table->{sql} =~ /\b$_->{name}\b/ } @{ $self->{tables} })
		  . "statements:\n" . join ";\n", @left;
	}
	$self->finding("$name: $found->{what}\n$found->{wrong}{$name}query: $stream_table->{sql}\n$text");
	return;
}

sub comes_again
{
	my ($self, $stream_table, @statements) = @_;

	my $main = $self->{main};
	my $copy = { %$stream_table, name => 'again' };
	return 0 if $main->run(create_statement($copy))->{state} ne '00000';
	$self->read_definition($copy);
	my $comparison = difference_sql($copy);
	my $wrong = 0;
	$main->run('BEGIN');
	foreach my $i (0 .. $#statements)
	{
		$main->run("SAVEPOINT before_$i") if $statements[$i] !~ /^(SAVEPOINT|ROLLBACK|RELEASE)/;
		my $answer = $main->run($statements[$i]);
		$wrong ||= $answer->{state} ne '00000' && $answer->{state} !~ $OWN_ERRORS && $answer->{text} =~ /again/;
		if ($answer->{state} ne '00000')
		{
			$main->run("ROLLBACK TO before_$i") if $statements[$i] !~ /^(SAVEPOINT|ROLLBACK|RELEASE)/;
			next;
		}
		$answer = $main->run($comparison);
		$wrong ||= $answer->{state} eq '00000' && $answer->{rows} ne '';
		last if $wrong;
	}
	$main->run('ROLLBACK');
	$main->run("SELECT pgtrickle.drop_stream_table('again', true)");
	return $wrong;
}

sub table_text
{
	my ($self, $table) = @_;

	my $rows = $self->{main}->run("SELECT '  ' || regexp_replace(t::text, '[a-z0-9 ]{40,}', '<long>', 'g') FROM $table->{name} t")->{rows};
	return StreamTables::Fuzz::Schema::table_sql($table) . $rows;
}

# ---- several transactions at once ----

# Each session runs transactions of its own and compares inside them; at the end everything is compared once more.
sub at_once
{
	my ($self, $sessions, $transactions, $until) = @_;

	return if !@{ $self->{stream_tables} };
	my @levels = map { pick('read committed', 'read committed', 'read committed', 'repeatable read', 'serializable') } 1 .. $sessions;
	my $snapshots = grep { $_ ne 'read committed' } @levels;
	my $comparison = difference_sql(@{ $self->{stream_tables} });
	my @running = map { { session => $self->session($_), level => $_, left => $transactions, queue => [] } } @levels;
	my @log;
	foreach my $one (@running)
	{
		$one->{number} = scalar grep { defined $_->{number} } @running;
		$self->next_step($one, $snapshots, $comparison, \@log);
	}
	while (grep { $_->{sent} } @running)
	{
		foreach my $one (grep { $_->{sent} } @running)
		{
			my $answer = $one->{session}->poll(0.002) // next;
			$self->stepped($one, $answer, \@log);
			$one->{left} = 0 if time > $until;
			$self->next_step($one, $snapshots, $comparison, \@log);
		}
	}
	my $wrong = $self->wrong($self->{main}->run($comparison));
	if ($wrong && %$wrong)
	{
		foreach my $name (sort keys %$wrong)
		{
			my ($stream_table) = grep { $_->{name} eq $name } @{ $self->{stream_tables} };
			$self->finding("$name differs after transactions at once\n$wrong->{$name}query: $stream_table->{sql}\n" . join "\n", @log);
		}
		$self->drop($self->{main}, keys %$wrong);
	}
	$_->{session}->quit foreach @running;
	return;
}

sub next_step
{
	my ($self, $one, $snapshots, $comparison, $log) = @_;

	if (!@{ $one->{queue} })
	{
		$one->{sent} = undef;
		return if $one->{left}-- <= 0;
		my $statements = random_changes(@{ $self->{tables} });
		# to a snapshot of before, a truncated table is empty
		@$statements = grep { !/^TRUNCATE/ } @$statements if $snapshots;
		$one->{queue} = [ 'BEGIN', (map { ($_, /^(SAVEPOINT|RELEASE)/ ? () : $comparison) } @$statements), chance(0.85) ? 'COMMIT' : 'ROLLBACK' ];
	}
	$one->{sent} = shift @{ $one->{queue} };
	$one->{is_comparison} = $one->{sent} eq $comparison;
	push @$log, "$one->{number}: $one->{sent}" if !$one->{is_comparison};
	$one->{session}->send($one->{sent});
	return;
}

sub stepped
{
	my ($self, $one, $answer, $log) = @_;

	if ($answer->{state} ne '00000')
	{
		push @$log, "$one->{number}: $answer->{state} $answer->{message}";
		$self->{errors}{ $answer->{state} }++;
		$self->finding("at once, $one->{level}: $answer->{text}\n" . join "\n", @$log)
		  if is_of_maintenance($answer) && $answer->{state} !~ $OWN_ERRORS && $answer->{state} !~ $OF_CONCURRENCY;
		$one->{queue} = ['ROLLBACK'];
		return;
	}
	$self->{statements}++;
	return if !$one->{is_comparison};
	my $wrong = $self->wrong($answer);
	return if !%$wrong;
	foreach my $name (sort keys %$wrong)
	{
		my ($stream_table) = grep { $_->{name} eq $name } @{ $self->{stream_tables} };
		$self->finding("$name differs inside a transaction ($one->{level}) among others\n$wrong->{$name}query: $stream_table->{sql}\n" . join "\n", @$log)
		  if !$self->{seen}{$name}++;
	}
	$one->{queue} = ['ROLLBACK'];
	return;
}

# ---- all of it ----

sub run
{
	my ($self, %opt) = @_;

	$self->create($opt{stream_tables});
	$self->one_after_the_other($opt{transactions}, $opt{until});
	$self->at_once(3, $opt{at_once}, $opt{until});
	$self->{main}->run('ROLLBACK');
	$self->drop($self->{main}, map { $_->{name} } @{ $self->{stream_tables} });
	$self->{main}->quit;
	$self->{node}->sql(join ' ', 'SET client_min_messages = error;', map { "DROP TABLE IF EXISTS $_->{name} CASCADE;" } @{ $self->{tables} });
	return @{ $self->{findings} };
}

1;
