# t/lib/StreamTables/Remote.pm
#
# A remote without the program: a database whose changes a slot with our decoder hands over, another one with the extension, and ticks
# by hand.  For tests of the server's part of copies.
#
#   my $remote = StreamTables::Remote->new($node, source => 'app', target => 'analytics');
#   $remote->create_both('CREATE TABLE orders (id int PRIMARY KEY, total numeric)');
#   $remote->define('orders');                        # a copy, which wants to be copied
#   $remote->copy('orders');                          # in one piece
#   $remote->source('INSERT INTO orders ...');
#   $remote->tick;                                    # everything up to now; dies when it fails
package StreamTables::Remote;

use strict;
use warnings FATAL => 'all';

use Carp;
use StreamTables::Cluster qw(sql_literal);

sub new
{
	my ($class, $node, %opt) = @_;

	my $self = bless {
		node => $node,
		source => $opt{source} // 'app',
		target => $opt{target} // 'postgres',
		slot => 'remote',
		copies => {},
	}, $class;
	$node->safe_psql('postgres', "CREATE DATABASE $self->{source}");
	$self->source("SELECT pg_create_logical_replication_slot('$self->{slot}', 'pgtrickle_decoder')");
	$self->target(
		"INSERT INTO pgtrickle.pgt_remotes (remote_name, conninfo, slot_name) VALUES ('app', 'dbname=app', '$self->{slot}');
		INSERT INTO pgtrickle.pgt_remote_states (remote_id) SELECT remote_id FROM pgtrickle.pgt_remotes");
	$self->{position} = $self->source('SELECT pg_current_wal_insert_lsn()');
	$self->target(
		"SELECT pgtrickle.remote_started(1, '1', 1, '$self->{source}', '$self->{position}', NULL)");
	return $self;
}

sub source
{
	my ($self, $sql) = @_;

	return $self->{node}->safe_psql($self->{source}, $sql);
}

sub target
{
	my ($self, $sql) = @_;

	return $self->{node}->safe_psql($self->{target}, $sql);
}

sub create_both
{
	my ($self, $sql) = @_;

	$self->source($sql);
	$self->target($sql);
	return;
}

# What the program would find out and say about a table that is there on both sides.
#
#   key => index name      else it is a bag
#   columns => [names]     of those that are copied
#   filter, demand, storage   as in copy_table()
#   partitioned => 1       the source's is
#   recopy => reason       its rows have to be copied again
sub define
{
	my ($self, $table, %opt) = @_;

	my $list = $opt{columns} ? join(',', @{ $opt{columns} }) : undef;
	my $only = $opt{columns} ? " AND attname = ANY ('{$list}')" : '';
	my ($relid, $columns) = split /\|/, $self->source(
		qq{SELECT '$table'::regclass::oid, jsonb_agg(jsonb_build_object('attnum', attnum, 'remote_attnum', attnum, 'remote_column', attname,
			'remote_type', format_type(atttypid, atttypmod), 'remote_type_oid', atttypid, 'remote_typmod', atttypmod) ORDER BY attnum)
		FROM pg_attribute WHERE attrelid = '$table'::regclass AND attnum > 0 AND NOT attisdropped$only}), 2;
	my $filter = defined $opt{filter} ? sql_literal($opt{filter}) : 'NULL';
	$self->{copies}{$table}{id} //= $self->target(
		qq{WITH c AS (INSERT INTO pgtrickle.pgt_copies (remote_id, remote_schema, remote_table, target_schema, target_table, row_filter, columns_wanted, demand, storage)
			VALUES (1, 'public', '$table', 'public', '$table', $filter, } . ($list ? "'{$list}'" : 'NULL') . qq{, '} . ($opt{demand} // 'always') . qq{', '} . ($opt{storage} // 'table') . qq{') RETURNING copy_id)
		INSERT INTO pgtrickle.pgt_copy_states (copy_id) SELECT copy_id FROM c RETURNING copy_id});
	my $key = $opt{key} ? "'$opt{key}'::regclass" : 'NULL';
	my $recopy = defined $opt{recopy} ? sql_literal($opt{recopy}) : 'NULL';
	$self->{copies}{$table} = { %{ $self->{copies}{$table} }, relid => $relid, is_bag => !$opt{key}, filter => $opt{filter}, list => $list };
	$self->target(
		"SELECT pgtrickle.copy_defined($self->{copies}{$table}{id}, $relid, '$table'::regclass, "
		  . sql_literal($columns)
		  . ", $key, $recopy, "
		  . ($opt{partitioned} ? 'true' : 'false')
		  . ')');
	return $self->{copies}{$table}{id};
}

sub id
{
	my ($self, $table) = @_;

	return $self->{copies}{$table}{id};
}

sub state
{
	my ($self, $table, $what) = @_;

	return $self->target('SELECT '
		  . ($what // 'status')
		  . " FROM pgtrickle.pgt_copy_states WHERE copy_id = $self->{copies}{$table}{id}");
}

# The stream carries the table from here on.
sub streams
{
	my ($self, @tables) = @_;

	$self->target("SELECT pgtrickle.remote_streams(1, '{"
		  . join(',', map { $self->{copies}{$_}{relid} } @tables)
		  . "}', '$self->{position}')");
	return;
}

# Copies a table in parts, each of them by a snapshot of its own; `between` is called after each.  A bag: in one piece.
sub copy_rows
{
	my ($self, $table, %opt) = @_;

	my $copy = $self->{copies}{$table};
	my $from = $self->source('SELECT pg_current_wal_insert_lsn()');
	my $load = $self->target("SELECT pgtrickle.copy_begin($copy->{id}, '$from')");
	my $snapshot = 'NULL';
	my $filter = $copy->{filter} // 'true';
	my $list = $copy->{list} // '*';
	foreach my $part (@{ $opt{parts} // ['true'] })
	{
		my $said = $self->source(
			"BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_snapshot(); COPY (SELECT $list FROM $table WHERE ($part) AND ($filter)) TO STDOUT; COMMIT");
		my ($seen, $rows) = split /\n/, $said, 2;
		$snapshot = "'$seen'" if $copy->{is_bag};
		$self->target("COPY $load FROM STDIN;\n$rows\n\\.\nSELECT pgtrickle.copy_progress($copy->{id}, (SELECT count(*) FROM $load), 0)") if defined $rows;
		$opt{between}->() if $opt{between};
	}
	$self->target("SELECT pgtrickle.copy_done($copy->{id}, '"
		  . $self->source('SELECT pg_current_wal_insert_lsn()')
		  . "', $snapshot)");
	return;
}

sub copy
{
	my ($self, $table) = @_;

	$self->streams($table);
	$self->copy_rows($table);
	$self->tick;
	return;
}

# Everything that the source has committed since, as a script; with what it calls.
sub tick_script
{
	my ($self, %opt) = @_;

	my $position = $self->source('SELECT txid_current(); SELECT pg_current_wal_insert_lsn()');
	$position =~ s/.*\n//s;
	my $interest = join ',', map { $_->{relid} } grep { $_->{relid} } values %{ $self->{copies} };
	my $batches = $self->source(
		"SELECT encode(data, 'hex') FROM pg_logical_slot_get_binary_changes('$self->{slot}', NULL, NULL,
			'proto_version', '1', 'interest', '$interest'"
		  . ($opt{options} // '') . ')');
	my @copies = map { $_->{id} } values %{ $self->{copies} };
	my @tables = $opt{without} ? () : split /\n/,
	  $self->target(
		"SELECT pgt_id, CASE WHEN needs_refill THEN 'full:' || refill_reason ELSE 'delta' END
		FROM pgtrickle.pgt_definitions JOIN pgtrickle.pgt_frontiers USING (pgt_id) WHERE status IN ('ACTIVE', 'INITIALIZING') ORDER BY 1");
	my @stage = map { "SELECT pgtrickle.tick_stage(1, '\\x$_');" } split /\n/, $batches;
	my %wanted = map { split /\|/, $_, 2 } @tables;
	@tables = sort { $a <=> $b } keys %wanted;
	my @ids = (@copies, @tables);
	my @sets = ((1) x @copies, (0) x @tables);
	my @actions = (('copy') x @copies, map { "\"$wanted{$_}\"" } @tables);
	my $script = join "\n",
	  'BEGIN ISOLATION LEVEL REPEATABLE READ;',
	  "SELECT pgtrickle.tick_remote(1, 1, '$self->{position}', '$position', clock_timestamp());",
	  "SELECT pgtrickle.tick_plan('{" . join(',', @ids) . "}', '{" . join(',', @sets) . "}', '{" . join(',', @actions) . "}');",
	  @stage,
	  'SELECT pgt_id, action, rows_inserted, rows_deleted FROM pgtrickle.tick_execute(NULL, pg_current_wal_insert_lsn());', 'COMMIT;';
	return ($script, $position);
}

# A tick; returns "name action +inserted -deleted" of each table that was changed, sorted.  A first copy that has been caught up by it is switched in by
# another one, which is made here as well unless `once` is given.
sub tick
{
	my ($self, %opt) = @_;

	my $said = $self->_tick(%opt);
	return $said if $opt{once} || $self->target('SELECT count(*) FROM pgtrickle.pgt_copy_states WHERE exact_xid IS NOT NULL') == 0;
	my @then = split /, /, $self->_tick(%opt);
	my %again = map { /^(\S+)/ => 1 } @then;
	return join ', ', sort @then, grep { /^(\S+)/ && !$again{$1} } split /, /, $said;
}

sub _tick
{
	my ($self, %opt) = @_;

	my ($script, $position) = $self->tick_script(%opt);
	my $said = $self->target(($opt{before} // '') . $script);
	$self->{position} = $position;
	my %names = reverse map { $_ => $self->{copies}{$_}{id} } keys %{ $self->{copies} };
	return join ', ', sort map {
		my ($id, $action, $inserted, $deleted) = split /\|/;
		$id && $action !~ /NO_DATA/ ? ($names{$id} // $id) . " $action +$inserted -$deleted" : ();
	} grep { /^\d+\|/ } split /\n/, $said;
}

# A tick that must fail, and what the server said; again() does the same once more.
sub tick_fails
{
	my ($self, %opt) = @_;

	my ($script) = $self->tick_script(%opt);
	$self->{again} = $script;
	my ($rc, $stdout, $stderr) = $self->{node}->psql($self->{target}, "\\set VERBOSITY verbose\n$script", on_error_stop => 1);
	croak 'the tick did not fail' if $rc == 0;
	return $stderr =~ /ERROR:\s+(.*)/ ? $1 : $stderr;
}

sub again
{
	my ($self) = @_;

	$self->target($self->{again});
	$self->{position} = $self->target('SELECT position FROM pgtrickle.pgt_remote_states');
	return;
}

# Rows by which a copy, or a stream table and its query, differ from the source, as bags of texts.
sub differences
{
	my ($self, $query, $copy_query) = @_;

	my $text = sub { 'SELECT r::text FROM (' . $_[0] . ') r ORDER BY r::text' };
	my $want = $self->source($text->($query));
	my $have = $self->target($text->($copy_query // $query));
	return '' if $want eq $have;
	my (%count);
	$count{$_}++ foreach split /\n/, $want;
	$count{$_}-- foreach split /\n/, $have;
	return join "\n", map { ($count{$_} > 0 ? 'missing ' : 'surplus ') . substr($_, 0, 70) } grep { $count{$_} } sort keys %count;
}

1;
