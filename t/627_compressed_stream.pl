# t/627_compressed_stream.pl
#
# Goal: the stream of a remote may be compressed, for a slow link: the same copies, exactly, from fewer bytes; also for single rows, of which none would be
#       worth compressing alone.
# Method: compare lengths in the decoder. Then writers while compression is switched on and off, the walsender is killed and huge rows come; the applier says what its
#         option was refused for.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster qw(random_seed sql_literal);
use StreamTables::Replica;
use Test::More;

random_seed();
my $replica = StreamTables::Replica->new('compressed');
my ($source, $target) = ($replica->source, $replica->target);
$source->sql(
	q{CREATE SCHEMA app; CREATE TABLE app.orders (id serial PRIMARY KEY, customer int, amount numeric, note text);
	ALTER TABLE app.orders ALTER note SET STORAGE EXTERNAL;
	INSERT INTO app.orders (customer, amount, note) SELECT i % 9, i, 'order ' || i FROM generate_series(1, 300) i});

# --- bytes ---------------------------------------------------------------------------------------------------

sub bytes_of_stream
{
	my (%options) = @_;

	return $source->sql("SELECT sum(length(data)) FROM pg_logical_slot_peek_binary_changes('bytes', NULL, NULL, 'proto_version', '1', 'interest', '*'"
		  . join('', map { ', ' . sql_literal($_) } %options) . ')');
}

$source->sql(q{SELECT pg_create_logical_replication_slot('bytes', 'pgtrickle_decoder')});
$source->sql(qq{INSERT INTO app.orders (customer, amount, note) VALUES ($_ % 7, $_, 'single row')}) foreach 1 .. 30;
my ($plain, $compressed) = (bytes_of_stream(), bytes_of_stream(compression => 'zstd'));
cmp_ok($compressed, '<', 0.7 * $plain, 'single rows refer to those before them') or diag("$compressed of $plain bytes");
is(bytes_of_stream(compression => 'none'), $plain, 'none is none');
$source->sql(q{INSERT INTO app.orders (customer, amount, note) SELECT i % 9, i, 'order ' || i FROM generate_series(1, 3000) i});
($plain, $compressed) = (bytes_of_stream(), bytes_of_stream(compression => 'zstd'));
cmp_ok($compressed, '<', 0.5 * $plain, 'many rows, too') or diag("$compressed of $plain bytes");
my $huge = q{SELECT string_agg(md5(i::text), '') FROM generate_series(1, 100000) i};
$source->sql(qq{BEGIN; INSERT INTO app.orders (note) VALUES (($huge)), (repeat('x', 5000000)); COMMIT});
cmp_ok(bytes_of_stream(compression => 'zstd', batch_bytes => 1), '>', 1_000_000, 'a batch for each record, a long one among them');
$source->sql(q{SELECT pg_drop_replication_slot('bytes')});

# --- what cannot be ------------------------------------------------------------------------------------------

is($target->psql_error(q{SELECT pgtrickle.alter_remote('shop', options => '{"compression": "lz4"}')}) =~ s/\n(?!HINT).*//sr, <<'END' =~ s/\n\z//r, 'another method');
22023: unknown compression: "lz4"
HINT:  Use zstd or none.
END
like($target->psql_error(q{SELECT pgtrickle.alter_remote('shop', options => '{"colour": "red"}')}), qr/^22023: unknown option of a remote: "colour"/, 'another option');
like(
	$target->psql_error(q{SELECT pgtrickle.add_remote('published', 'dbname=x', output_plugin => 'pgoutput', publication => 'p', options => '{"compression": "zstd"}')}),
	qr/^0A000: the stream of pgoutput cannot be compressed/,
	'another plugin');

# --- copies --------------------------------------------------------------------------------------------------

sub use_compression
{
	my ($method) = @_;

	$target->sql(qq{SELECT pgtrickle.alter_remote('shop', options => '{"compression": "$method"}')});
	return;
}

sub write_something
{
	my $n = 1 + int rand 9;

	$source->sql(
		qq{INSERT INTO app.orders (customer, amount, note) SELECT i % 9, i, CASE i WHEN 3 THEN ($huge) END FROM generate_series(1, $n) i;
		UPDATE app.orders SET amount = amount + 1 WHERE customer = $n % 9;
		UPDATE app.orders SET note = 'noted' WHERE id % 17 = $n;
		DELETE FROM app.orders WHERE id % 41 = $n});
	return;
}

sub walsender_is_asked_for
{
	my ($wanted, $what) = @_;

	# the command stands in the statistics until the next one
	return ok($source->wait_until("SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'walsender' AND query LIKE 'START_REPLICATION%'
		AND (query LIKE '%\"compression\" ''zstd''%') = $wanted", $what), $what);
}

use_compression('zstd');
$target->start_applier;
$replica->copy('app.orders');
$target->create_stream_table('totals', 'SELECT customer, count(*) AS n, sum(amount) AS total, sum(length(note)) AS letters FROM app.orders GROUP BY customer');
walsender_is_asked_for('true', 'the stream is compressed');
foreach my $round (1 .. 3)
{
	write_something() foreach 1 .. 3;
	$source->sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'walsender'}) if $round == 2;
	write_something();
	$replica->settle('totals');
	$replica->is_equal('app.orders', "round $round: the copy");
	is($target->sql(q{SELECT * FROM pgtrickle.verify('totals')}), '', 'and what is above it');
}
use_compression('none');
write_something();
walsender_is_asked_for('false', 'switched off, the stream starts again without');
write_something();
$replica->settle('totals');
$replica->is_equal('app.orders', 'and goes on where it was');
use_compression('zstd');
write_something();
walsender_is_asked_for('true', 'switched on again');
$replica->settle('totals');
$replica->is_equal('app.orders', 'nothing is lost on the way');
$replica->were_copied_once;
$target->stop_applier;

done_testing();
