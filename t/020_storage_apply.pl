# t/020_storage_apply.pl
#
# Goal: a delta written into a table leaves exactly the rows that it says, however rows are found and
# whatever they look like; and a delta that does not fit the table is refused.
# Method: random deltas against a bag of rows kept here, for each way of finding rows: duplicates, NULL keys, keys that
# are equal but not identical, values out of line, types without equality, dropped columns.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster qw(random_seed pick);
use StreamTables::Storage qw(install_storage_test rows_as_query differing_rows);
use Test::More;

my $node = StreamTables::Cluster->new('storage_apply')->boot(setup => 'none');
install_storage_test($node);
random_seed();

$node->sql(
	q{CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false)}
);

# Incompressible text that is stored out of line; the compressible one stays in the row, compressed.
my $noise = q{(SELECT string_agg(md5(g::text || '%s'), '') FROM generate_series(1, 200) g)};
my @texts = (
	'NULL', q{''}, q{'a'}, q{'A'}, q{'it''s'},
	q{repeat('long ', 1000)},
	sprintf($noise, 'a'),
	sprintf($noise, 'b'));
my @columns = (
	[ k1 => 'integer', qw(NULL 1 2 3 4 5 6 7) ],
	[ k2 => 'text COLLATE caseless', q{NULL}, q{'a'}, q{'A'}, q{'b'} ],
	[ v => 'text', @texts ],
	[ n => 'numeric', qw(NULL 1 1.0 1.00 -7.25 'NaN') ],
	[ j => 'json', q{NULL}, q{'{"a": 1}'}, q{'{"a":1}'} ],
	[ x => 'xml', q{NULL}, q{'<a/>'}, q{'<a></a>'} ],
	[ p => 'point', q{NULL}, q{'(0,0)'}, q{'(0,-0)'} ],
	[ f => 'float8', q{NULL}, q{0}, q{'-0'}, q{'NaN'} ]);
my @types = map { $_->[1] =~ s{ COLLATE.*}{}r } @columns;

sub random_row
{
	my @row;
	foreach my $column (@columns)
	{
		my ($name, $type, @values) = @$column;
		push @row, pick(@values);
	}
	return @row;
}

# Rows with equal keys share this.
sub key_of
{
	return lc join '|', @_[ 0, 1 ];
}

# Changes the bag (row text => [copies, row]) at random and returns the delta's rows, with weights split up and with
# noise that cancels.
sub random_delta
{
	my ($bag, $unique_key, $changes) = @_;
	my @delta;
	my %keys = map { key_of(@{ $bag->{$_}[1] }) => $_ } grep { $bag->{$_}[0] > 0 } keys %$bag;

	my $change = sub {
		my ($weight, @row) = @_;
		my $entry = $bag->{ join '|', @row } //= [ 0, \@row ];
		$entry->[0] += $weight;
		push @delta, [ $weight, @row ];
	};
	for (1 .. $changes)
	{
		my @present = sort grep { $bag->{$_}[0] > 0 } keys %$bag;
		my $what = rand;
		my @new = random_row();
		if (@present && $what < 0.35)    # update: most columns stay
		{
			my @old = @{ $bag->{ pick(@present) }[1] };
			my @changed = @old;
			my $column = 2 + int rand(@columns - 2);
			$changed[$column] = $new[$column];
			$change->(-1, @old);
			$change->(1, @changed);
		}
		elsif (@present && $what < (@present < 60 ? 0.6 : 0.95))    # not ever larger
		{
			my $entry = $bag->{ pick(@present) };
			my $copies = 1 + int rand $entry->[0];
			$change->(-$copies, @{ $entry->[1] });
			delete $keys{ key_of(@{ $entry->[1] }) };
		}
		elsif ($unique_key && exists $keys{ key_of(@new) })    # replaces the row of an equal key
		{
			my $old = (
				grep { $bag->{$_}[0] > 0 && key_of(@{ $bag->{$_}[1] }) eq key_of(@new) }
				sort keys %$bag)[0];
			next if !defined $old;
			$change->(-1, @{ $bag->{$old}[1] });
			$change->(1, @new);
		}
		else
		{
			$change->($unique_key ? 1 : 1 + int rand 3, @new);
			$keys{ key_of(@new) } = join '|', @new;
		}
		if (rand() < 0.2)
		{
			my @noise = random_row();
			push @delta, [ 2, @noise ], [ -2, @noise ];
		}
	}
	# any order will do
	for my $i (reverse 1 .. $#delta)
	{
		my $j = int rand($i + 1);
		@delta[ $i, $j ] = @delta[ $j, $i ];
	}
	return @delta;
}

sub bag_as_query
{
	my ($bag) = @_;

	return
		'SELECT '
	  . join(', ', map { $_->[0] } @columns)
	  . ' FROM ('
	  . rows_as_query(\@types, map { [ $_->[0], @{ $_->[1] } ] } grep { $_->[0] > 0 } values %$bag)
	  . ') r('
	  . join(', ', (map { $_->[0] } @columns), '__w')
	  . '), generate_series(1, __w)';
}

my $columns_sql = join ', ', map { "$_->[0] $_->[1]" } @columns;
my $names = join ', ', map { $_->[0] } @columns;

foreach my $case (
	[ 'unique key', 1, 'UNIQUE INDEX target_index ON target (k1, k2) NULLS NOT DISTINCT', '' ],
	[
		'unique key, another unique index',
		1,
		'UNIQUE INDEX target_index ON target (k1, k2) NULLS NOT DISTINCT',
		'CREATE UNIQUE INDEX ON target (md5(target_text(k1, k2))) WHERE k1 > 3'
	],
	[
		'key with several rows, descending', 0,
		'INDEX target_index ON target (k1 DESC NULLS LAST, k2)', ''
	],
	[ 'row hash', 0, "INDEX target_index ON target (storage_test.row_hash(ROW($names)))", '' ],
	[
		'row hash, dropped columns',
		0,
		"INDEX target_index ON target (storage_test.row_hash(ROW($names)))",
		'ALTER TABLE target DROP COLUMN gone1, DROP COLUMN gone2, ALTER k1 SET DEFAULT 1, ADD CHECK (k1 < 100)'
	],
	[
		'unique key, dropped columns',
		1,
		'UNIQUE INDEX target_index ON target (k1, k2) NULLS NOT DISTINCT',
		'ALTER TABLE target DROP COLUMN gone1, DROP COLUMN gone2, ADD CHECK (k1 < 100)'
	])
{
	my ($name, $unique_key, $index, $more) = @$case;
	my %bag;
	my $different = '';

	$node->sql(<<"SQL");
DROP TABLE IF EXISTS target, seen;
CREATE TABLE seen ($columns_sql, w integer);
CREATE OR REPLACE FUNCTION target_text(integer, text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT \$1 || lower(\$2)';
CREATE TABLE target (gone1 integer, @{[ $columns_sql =~ s/, v text/, gone2 text, v text/r ]});
@{[ $more =~ /DROP/ ? '' : 'ALTER TABLE target DROP COLUMN gone1; ALTER TABLE target DROP COLUMN gone2;' ]}
$more;
CREATE $index;
SQL
	for my $round (1 .. ($ENV{PGTRICKLE_LONG} ? 100 : 15))
	{
		my @delta = random_delta(\%bag, $unique_key, pick(1, 1, 2, 5, 20, 60));
		my $query = rows_as_query(\@types, @delta);
		my $memory = pick('64kB', '4MB');
		my $hidden = pick('true', 'false');
		$different =
		  differing_rows($node, "SELECT $names FROM target", bag_as_query(\%bag), <<"SQL");
SET work_mem = '$memory';
DO \$do\$ BEGIN PERFORM storage_test.apply('target', 'target_index', $hidden, \$query\$$query\$query\$,
	'INSERT INTO seen SELECT $names, __w FROM __pgt_delta_' || 'target'::regclass::oid); END \$do\$;
SQL
		last if $different ne '';
	}
	is($different, '', "$name: the table follows the deltas");
	is($node->sql(<<"SQL"), '', "$name: what consumers see adds up to the table");
SELECT row, sum(w) FROM (SELECT ROW($names)::text COLLATE "C" AS row, w FROM seen
	UNION ALL SELECT ROW($names)::text, -1 FROM target) r GROUP BY row HAVING sum(w) <> 0
SQL
}

# What does not fit is refused, and leaves the table alone.
$node->sql(
	q{
	CREATE TABLE accounts (id integer, name text NOT NULL, amount numeric CHECK (amount < 1000));
	CREATE UNIQUE INDEX accounts_id ON accounts (id);
	INSERT INTO accounts VALUES (1, 'one', 1), (2, 'two', 2)});

sub apply_error
{
	my ($query) = @_;

	return $node->psql_error(
		"SELECT storage_test.apply('accounts', 'accounts_id', true, \$\$$query\$\$)");
}

is( apply_error(q{SELECT 3, 'three', 3::numeric, -1}),
	qq{XX001: multiplicity of a row in stream table "accounts" would become -1\nDETAIL:  Key (id)=(3), row (3, three, 3).},
	'a row to be deleted that is not there');
is( apply_error(q{SELECT 1, 'one', 1.0, -1 UNION ALL SELECT 1, 'one', 2, 1}),
	qq{XX001: multiplicity of a row in stream table "accounts" would become -1\nDETAIL:  Key (id)=(1), row (1, one, 1.0).},
	'a row to be changed that looks different');
is( apply_error(q{SELECT 1, 'one', 1::numeric, -3}),
	qq{XX001: multiplicity of a row in stream table "accounts" would become -2\nDETAIL:  Key (id)=(1), row (1, one, 1).},
	'a row that is there once, to be deleted three times');
like(
	apply_error(q{SELECT 4, 'four', 4::numeric, 0}),
	qr/row without a weight/,
	'a row without a weight');
like(
	apply_error(q{SELECT 2, 'zwei', 2::numeric, 1}),
	qr/^23505: .*accounts_id/,
	'a key that exists');
like(apply_error(q{SELECT 4, NULL::text, 4::numeric, 1}),
	qr/^23502: /, 'a NULL where there must be none');
like(apply_error(q{SELECT 2, 'two', 2::numeric, -1 UNION ALL SELECT 2, 'two', 2000, 1}),
	qr/^23514: /, 'a constraint that is violated by an update');
like(
	apply_error(q{SELECT 4, 4::numeric, 1}),
	qr/^XX000: rowset "delta" has 2 columns/,
	'a delta with other columns');
is($node->sql('SELECT count(*), sum(amount) FROM accounts'), '2|3', 'nothing was written');

# Indexes come and go: REINDEX CONCURRENTLY puts one with another OID in the place of the one that is remembered.  Here
# a twin table's index stands for that one.
$node->sql(
	q{CREATE TABLE pairs (gone integer, a integer, b text);
	ALTER TABLE pairs DROP COLUMN gone;
	INSERT INTO pairs VALUES (1, 'x'), (1, 'x'), (2, NULL);
	CREATE TABLE twin_accounts (LIKE accounts);
	CREATE INDEX twin_accounts_id ON twin_accounts (id);
	CREATE TABLE twin_pairs (a integer, b text);
	CREATE INDEX twin_pairs_hash ON twin_pairs (storage_test.row_hash(ROW(a, b)))});
foreach my $case (
	[
		'accounts', 'twin_accounts_id',
		'id', 'storage_test.row_hash(ROW(id))',
		q{SELECT 1, 'one', 1::numeric, -1}
	],
	[
		'pairs',
		'twin_pairs_hash',
		'storage_test.row_hash(ROW(a, b))',
		'storage_test.row_hash(ROW(b, a))',
		q{SELECT 1, 'x', -1}
	])
{
	my ($table, $index, $right, $wrong, $query) = @$case;

	$node->sql(
		"DROP INDEX IF EXISTS accounts_id;
		CREATE INDEX ON $table ($wrong); CREATE INDEX ON $table ($right) WHERE 1 < 0");
	like(
		$node->psql_error("SELECT storage_test.apply('$table', '$index', true, \$\$$query\$\$)"),
		qr/^42704: table "$table" has lost the index .*\nHINT:  Run CREATE INDEX ON public.$table \((id|pgtrickle.row_hash\(ROW\(a, b\)\))\)\./,
		"$table: without its index the error says how to make one");
	$node->sql("CREATE INDEX ON $table ($right)");
	is( $node->sql(
			"SELECT storage_test.apply('$table', '$index', true, \$\$$query\$\$)->>'deleted'"),
		'1',
		"$table: another index on the same will do");
}

# Marked writes do not reach a consumer of the stream that asks for local changes only, others do.
$node->sql(
	q{CREATE UNIQUE INDEX accounts_id ON accounts (id);
	SELECT pg_create_logical_replication_slot('watch', 'test_decoding');
	SELECT storage_test.apply('accounts', 'accounts_id', true, $$SELECT 5, 'five', 5::numeric, 1$$);
	SELECT storage_test.apply('accounts', 'accounts_id', false, $$SELECT 6, 'six', 6::numeric, 1$$)});
apply_error(q{SELECT 7, 'seven', 7000::numeric, 1});
$node->sql(q{INSERT INTO accounts VALUES (8, 'eight', 8)});
is( $node->sql(
		q{SELECT string_agg(substring(data from 'id.integer.:(\d+)'), ' ') FROM pg_logical_slot_get_changes('watch', NULL, NULL, 'only-local', 'on') WHERE data LIKE 'table%'}
	),
	'6 8',
	'hidden writes are marked, and nothing else is, also after an error');

done_testing();
