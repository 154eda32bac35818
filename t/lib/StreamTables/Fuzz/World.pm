# t/lib/StreamTables/Fuzz/World.pm
#
# One round of the fuzzer's life: random tables, stream tables over them, transactions, and the comparison after each of them.
#
# The oracle is verify(): the server compares the stream table with its query, by image, inside a tick.  A stream table that differs, or whose refresh
# fails although its query runs, is a finding.  A finding is made smaller before it is reported: alone with what it reads, then with all transactions
# but the last one done before it is created, then with one statement less as long as it still goes wrong.
#
# Many statements go through one psql, each followed by a marker with its SQLSTATE, because starting psql would take most of the time.
package StreamTables::Fuzz::World;

use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster          qw(sql_literal);
use StreamTables::Fuzz::Changes    qw(insert_rows random_changes transaction_sql);
use StreamTables::Fuzz::Query      qw(random_query);
use StreamTables::Fuzz::Schema     qw(pick chance random_schema);

my $ROWS_MAX = 1500;
my $REPLAYS_MAX = 40;

# Why a query may need full refreshes; a reason that is not on this list is a finding.
our @LISTED;

# Why a single refresh may be a full one.
my $FULL_REFRESHES = join '|', 'truncated', 'an upstream stream table was refreshed while it was filled';

# As after types_sql() in the database of the node.
sub new
{
	my ($class, $node, %opt) = @_;

	my $self = bless { node => $node, stream_tables => [], transactions => [], findings => [], queries => 0, ticks => 0, comparisons => 0, skipped => 0, listed => 0, slow => 0,
		features => {}, reasons => {}, %opt }, $class;
	$self->{tables} = [ random_schema(4) ];
	$self->{setup} = join '', map { StreamTables::Fuzz::Schema::table_sql($_) . insert_rows($_, 12 + int rand 14) . ";\n" } @{ $self->{tables} };
	$self->{schedule} = pick('manual', 'manual', 'continuous');
	return $self;
}

# Runs named statements; returns name => { state, message, rows }.
sub run_statements
{
	my ($self, @statements) = @_;

	my $patience_ms = $self->{patience_ms} // 30_000;
	my $script = "SET statement_timeout = '${patience_ms}ms';\nSET client_min_messages = error;\n";
	foreach my $statement (@statements)
	{
		my ($name, $sql) = @$statement;
		$script .= "$sql;\n\\echo \@\@$name :SQLSTATE :LAST_ERROR_MESSAGE\n";
	}
	my ($rc, $stdout, $stderr) = $self->{node}->psql($self->{node}->dbname, $script, on_error_stop => 0);
	my %answers;
	my $rows = '';
	my $open;
	foreach my $line (split /\n/, $stdout)
	{
		if ($line =~ /^\@\@(\S+) (\w{5}) ?(.*)$/)
		{
			$answers{$1} = { state => $2, message => $2 eq '00000' ? '' : $3, rows => $rows };
			$rows = '';
		}
		else
		{
			$rows .= "$line\n";
		}
	}
	$self->{crashed} = $stderr if $rc != 0;
	return \%answers;
}

sub create_tables
{
	my ($self) = @_;

	$self->{node}->sql($self->{setup});
	return;
}

sub create_statement
{
	my ($stream_table) = @_;

	return 'SELECT pgtrickle.create_stream_table(' . sql_literal($stream_table->{name}) . ', ' . sql_literal($stream_table->{sql})
	  . ", '$stream_table->{schedule}', '$stream_table->{mode}')";
}

# Which of some queries the server can run at all, on so few rows that it is quick; and why they would need full refreshes.
sub check_queries
{
	my ($self, @queries) = @_;

	my @statements;
	foreach my $i (0 .. $#queries)
	{
		push @statements, [ "rows$i", "SELECT count(*) FROM ($queries[$i]{sql}) q" ],
		  [ "why$i", 'SELECT result FROM pgtrickle.validate_query(' . sql_literal($queries[$i]{sql}) . ") WHERE check_name = 'full_refresh_reason'" ];
	}
	# a query that takes long on a few rows is of no use here
	local $self->{patience_ms} = 300;
	my $answers = $self->run_statements(@statements);
	my @good;
	foreach my $i (0 .. $#queries)
	{
		my ($rows, $why) = @{$answers}{ "rows$i", "why$i" };
		my $query = $queries[$i];

		if (!$rows || $rows->{state} ne '00000' || $rows->{rows} > $ROWS_MAX)
		{
			$self->{skipped}++;
			$self->{debug}->("skipped: $rows->{state} $rows->{message}\n$query->{sql}") if $self->{debug} && $rows;
			next;
		}
		if (!$why || $why->{state} ne '00000')
		{
			$self->finding("the query runs, but is refused: $why->{message}", $query) if $why;
			next;
		}
		chomp($query->{reason} = $why->{rows});
		push @good, $query;
	}
	return @good;
}

sub is_listed
{
	my ($reason) = @_;

	return scalar grep { $reason =~ $_ } @LISTED;
}

sub create_stream_tables
{
	my ($self, $count) = @_;

	my @upstream = map { { name => $_->{name}, columns => $_->{columns} } } @{ $self->{stream_tables} };
	my @queries = $self->check_queries(map { random_query($self->{tables}, \@upstream) } 1 .. $count);
	my @created;
	foreach my $query (@queries)
	{
		if ($query->{reason} ne '' && !is_listed($query->{reason}))
		{
			$self->finding("needs full refreshes: $query->{reason}", $query);
			next;
		}
		if ($query->{reason} ne '')
		{
			$self->{listed}++;
			$self->{reasons}{ $query->{reason} }++;
			$self->{debug}->("in full: $query->{reason}\n$query->{sql}") if $self->{debug};
		}
		next if $query->{reason} ne '' && chance(0.8);
		push @created, { %$query, name => 'st' . ++$self->{number}, schedule => $self->{schedule},
			mode => $query->{reason} ne '' || chance(0.15) ? 'AUTO' : 'DIFFERENTIAL' };
	}
	my $answers = $self->run_statements(map { [ $_->{name}, create_statement($_) ] } @created);
	foreach my $stream_table (@created)
	{
		my $answer = $answers->{ $stream_table->{name} };

		if ($answer && $answer->{message} =~ /^index row size/)
		{
			# a known limit: keys above 2.7 kB
			$self->{skipped}++;
			next;
		}
		if (!$answer || $answer->{state} ne '00000')
		{
			$self->finding('cannot be created: ' . ($answer ? "$answer->{state} $answer->{message}" : 'the server crashed'), $stream_table);
			next;
		}
		push @{ $self->{stream_tables} }, $stream_table;
		$self->{queries}++;
		$self->{features}{$_}++ foreach keys %{ $stream_table->{features} };
	}
	return;
}

# What is wrong with stream tables, as name => text.
sub compare
{
	my ($self, @stream_tables) = @_;

	my $answers = $self->run_statements(map { [ $_->{name}, "SELECT * FROM pgtrickle.verify('$_->{name}')" ] } @stream_tables);
	my %wrong;
	foreach my $stream_table (@stream_tables)
	{
		my $name = $stream_table->{name};
		my $answer = $answers->{$name};

		if (!$answer)
		{
			$wrong{$name} = "no answer\n$self->{crashed}";
		}
		elsif ($answer->{state} eq '57014')
		{
			# some deltas of joins of joins are huge, and forced here; counted, since nothing may hang either
			$self->{slow}++;
			$self->{debug}->("slow: $stream_table->{sql}") if $self->{debug};
			$wrong{$name} = '';
		}
		elsif ($answer->{state} ne '00000')
		{
			# a query that fails by itself now is no finding, but the end of this stream table
			my $alone = $self->run_statements([ query => "SELECT count(*) FROM ($stream_table->{sql}) q" ])->{query};
			my $detail = $answer->{detail} ? " ($answer->{detail})" : '';
			$wrong{$name} = $alone && $alone->{state} eq $answer->{state} ? '' : "$answer->{state} $answer->{message}$detail";
		}
		elsif ($answer->{rows} ne '')
		{
			$wrong{$name} = "differs from its query:\n" . substr $answer->{rows}, 0, 700;
		}
	}
	return %wrong;
}

# One round: some transactions, then the comparison.
sub round
{
	my ($self) = @_;

	my @transactions = map { random_changes(@{ $self->{tables} }) } 1 .. pick(1, 1, 2, 3);
	push @{ $self->{transactions} }, [@transactions];
	my $answers = $self->run_statements(map { [ "t$_", transaction_sql($transactions[ $_ - 1 ]) ] } 1 .. @transactions);
	my %wrong = $self->compare(@{ $self->{stream_tables} });
	$self->{ticks}++;
	$self->{comparisons} += @{ $self->{stream_tables} };
	foreach my $stream_table (grep { defined $wrong{ $_->{name} } } @{ $self->{stream_tables} })
	{
		next if $wrong{ $stream_table->{name} } eq '';
		# what reads a wrong one is wrong as well
		next if grep { defined $wrong{$_} } $stream_table->{sql} =~ /\b(st\d+)\b/g;
		push @{ $self->{to_shrink} }, [ $wrong{ $stream_table->{name} }, $stream_table ];
	}
	$self->drop(grep { defined $wrong{ $_->{name} } } @{ $self->{stream_tables} });
	return;
}

# Drops stream tables and what reads them.
sub drop
{
	my ($self, @stream_tables) = @_;

	my %gone = map { $_->{name} => 1 } @stream_tables;
	foreach my $stream_table (@{ $self->{stream_tables} })
	{
		$gone{ $stream_table->{name} } = 1 if grep { $gone{$_} } $stream_table->{sql} =~ /\b(st\d+)\b/g;
	}
	$self->run_statements(map { [ $_->{name}, "SELECT pgtrickle.drop_stream_table('$_->{name}', true)" ] } reverse grep { $gone{ $_->{name} } } @{ $self->{stream_tables} });
	push @{ $self->{dropped} }, grep { $gone{ $_->{name} } } @{ $self->{stream_tables} };
	$self->{stream_tables} = [ grep { !$gone{ $_->{name} } } @{ $self->{stream_tables} } ];
	return;
}

# Full refreshes that nothing explains.
sub check_history
{
	my ($self) = @_;

	my $names = join ', ', map { "'$_->{name}'" } grep { $_->{mode} eq 'DIFFERENTIAL' } @{ $self->{stream_tables} };
	return if $names eq '';
	my $full = $self->{node}->sql(qq{
		SELECT pgt_name || '|' || string_agg(DISTINCT h.reason, '; ') FROM pgtrickle.pgt_refresh_history h JOIN pgtrickle.pgt_stream_tables USING (pgt_id)
		WHERE pgt_name IN ($names) AND h.action IN ('FULL', 'REINITIALIZE') AND h.initiated_by <> 'INITIAL' AND h.reason !~ '$FULL_REFRESHES'
		GROUP BY pgt_name});
	foreach my $line (split /\n/, $full)
	{
		my ($name, $reason) = split /\|/, $line, 2;
		my ($stream_table) = grep { $_->{name} eq $name } @{ $self->{stream_tables} };
		$self->finding("was refreshed in full: $reason", $stream_table);
	}
	return;
}

sub tear_down
{
	my ($self) = @_;

	$self->drop(@{ $self->{stream_tables} });
	$self->{node}->sql(join ' ', 'SET client_min_messages = error;', map { "DROP TABLE IF EXISTS $_->{name} CASCADE;" } @{ $self->{tables} });
	return;
}

# ---- findings ----

sub finding
{
	my ($self, $what, $stream_table, %more) = @_;

	push @{ $self->{findings} }, join "\n", "seed $self->{seed}: $what", 'query: ' . $stream_table->{sql},
	  $more{text} ? $more{text} : ();
	return;
}

# What a stream table reads of others, first ones first, and itself.
sub with_upstream
{
	my ($self, $stream_table) = @_;

	my %all = map { $_->{name} => $_ } @{ $self->{stream_tables} }, @{ $self->{dropped} // [] };
	my (@found, %seen);
	my $visit;
	$visit = sub {
		my ($one) = @_;
		return if $seen{ $one->{name} }++;
		$visit->($all{$_}) foreach grep { $all{$_} } $one->{sql} =~ /\b(st\d+)\b/g;
		push @found, $one;
	};
	$visit->($stream_table);
	return @found;
}

# Does a finding come again?  `before` are transactions done before the stream tables are created, `after` the others, each group a tick.
sub comes_again
{
	my ($self, $chain, $before, $after) = @_;

	return '' if $self->{replays}++ > $REPLAYS_MAX;
	$self->tear_down;
	$self->create_tables;
	$self->run_statements(map { [ 'before', transaction_sql($_) ] } @$before);
	$self->{stream_tables} = [ map { { %$_, schedule => 'manual' } } @$chain ];
	$self->run_statements(map { [ $_->{name}, create_statement($_) ] } @{ $self->{stream_tables} });
	foreach my $group (@$after)
	{
		$self->run_statements(map { [ 'after', transaction_sql($_) ] } @$group);
		my %wrong = $self->compare($chain->[-1]);
		return $wrong{ $chain->[-1]{name} } if %wrong;
	}
	return '';
}

# Makes a finding smaller, and reports it.  Ends the world, since tables are made again.
sub shrink
{
	my ($self, $what, $stream_table) = @_;

	my @chain = $self->with_upstream($stream_table);
	my @groups = @{ $self->{transactions} };
	$self->{replays} = 0;
	my $text = "not repeated alone; all transactions:\n" . join "", map { "-- tick\n" . join '', map { transaction_sql($_) } @$_ } @groups;
	my $found = 0;
	my (@before, @last);
	foreach my $length (1 .. @groups)
	{
		# with everything but the last group done before
		@before = map { @$_ } @groups[ 0 .. $length - 2 ];
		@last = @{ $groups[ $length - 1 ] };
		next if $self->comes_again(\@chain, \@before, [ \@last ]) eq '';
		$found = 1;
		last;
	}
	if (!$found)
	{
		my $again = $self->comes_again(\@chain, [], \@groups);
		$text = "comes again alone, over all ticks ($again)\n$text" if $again ne '';
	}
	else
	{
		@last = $self->fewer_statements(\@chain, \@before, @last);
		my $again = $self->comes_again(\@chain, \@before, [ \@last ]);
		$what = $again if $again ne '';
		$text = "tables at that moment:\n" . $self->tables_text(\@chain, \@before) . "then the stream tables, and then in one tick:\n" . join '', map { transaction_sql($_) } @last;
	}
	$self->finding($what, $stream_table, text => join("\n", (map { "reads $_->{name}: $_->{sql}" } @chain[ 0 .. $#chain - 1 ]), $text));
	return;
}

# Drops statement after statement while the finding comes again.
sub fewer_statements
{
	my ($self, $chain, $before, @transactions) = @_;

	foreach my $t (reverse 0 .. $#transactions)
	{
		foreach my $s (reverse 0 .. $#{ $transactions[$t] })
		{
			my @fewer = map { [@$_] } @transactions;
			splice @{ $fewer[$t] }, $s, 1;
			@transactions = @fewer if $self->comes_again($chain, $before, [ \@fewer ]) ne '';
		}
	}
	return grep { @$_ } @transactions;
}

# The rows of the tables that the query reads, as statements.
sub tables_text
{
	my ($self, $chain, $before) = @_;

	my $text = '';
	$self->tear_down;
	$self->create_tables;
	$self->run_statements(map { [ 'before', transaction_sql($_) ] } @$before);
	foreach my $table (@{ $self->{tables} })
	{
		next if !grep { $_->{sql} =~ /\b$table->{name}\b/ } @$chain;
		my $rows = $self->{node}->sql("SELECT string_agg(regexp_replace(t::text, '[a-z0-9 ]{40,}', '<long>', 'g'), ' ') FROM $table->{name} t");
		$text .= StreamTables::Fuzz::Schema::table_sql($table) . "-- $rows\n";
	}
	return $text;
}

sub run
{
	my ($self, %opt) = @_;

	$self->create_tables;
	$self->create_stream_tables($opt{batch} // 15) foreach 1 .. $opt{batches} // 2;
	foreach (1 .. $opt{rounds} // 6)
	{
		last if !@{ $self->{stream_tables} } || $self->{crashed} || ($opt{until} && time > $opt{until});
		$self->round;
	}
	$self->check_history if !$self->{crashed};
	my @to_shrink = @{ $self->{to_shrink} // [] };
	if ($self->{crashed})
	{
		$self->finding("a session ended: $self->{crashed}", { sql => 'see the end of the log of the server' });
		delete $self->{crashed};
		$self->{node}->poll_query_until($self->{node}->dbname, 'SELECT true');
	}
	foreach my $i (0 .. $#to_shrink)
	{
		# a few are enough to see what is wrong
		$i < 4 ? $self->shrink(@{ $to_shrink[$i] }) : $self->finding(@{ $to_shrink[$i] });
	}
	$self->tear_down;
	return @{ $self->{findings} };
}

1;
