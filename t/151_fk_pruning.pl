# t/151_fk_pruning.pl
#
# Goal: deltas of referenced tables that join with nothing new are left out, and only where the foreign key can be trusted.
# Method: what was left out is seen in the estimates of the history: a new row of a dimension costs no more than nothing, though the fact
#         table has no index on its foreign key.  Every kind of change to either side, alone and together, is compared with the query.
#         Then foreign keys that have been broken: the results must be right all the same.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('foreign_keys')->boot(conf => "autovacuum = off\n");
$node->sql(
	q{CREATE TABLE regions (id int PRIMARY KEY, name text);
	CREATE TABLE owners (id bigint PRIMARY KEY, region int NOT NULL REFERENCES regions, name text);
	CREATE TABLE items (id int PRIMARY KEY, owner int REFERENCES owners DEFERRABLE INITIALLY DEFERRED, buyer bigint REFERENCES owners, amount int);
	CREATE TABLE people (id int PRIMARY KEY, boss int REFERENCES people, name text);
	INSERT INTO regions SELECT g, 'region ' || g FROM generate_series(1, 5) g;
	INSERT INTO owners SELECT g, 1 + g % 5, 'owner ' || g FROM generate_series(1, 500) g;
	INSERT INTO items SELECT g, nullif(1 + g % 400, 7), 1 + g % 300, g % 97 FROM generate_series(1, 30000) g;
	INSERT INTO people SELECT g, nullif(g / 2, 0), 'p' || g FROM generate_series(1, 50) g;
	ALTER TABLE regions REPLICA IDENTITY FULL; ALTER TABLE owners REPLICA IDENTITY FULL;
	ALTER TABLE items REPLICA IDENTITY FULL; ALTER TABLE people REPLICA IDENTITY FULL;
	ANALYZE});
$node->start_applier;

my %query = (
	totals => 'SELECT r.name, o.name AS owner, count(*) AS n, sum(i.amount) AS total
		FROM items i JOIN owners o ON i.owner = o.id JOIN regions r ON r.id = o.region GROUP BY 1, 2',
	flat => 'SELECT i.id, o.name FROM owners o, items i WHERE o.id = i.owner AND i.amount > 3',
	keys => q{SELECT o.region, string_agg(o.name, ',' ORDER BY i.id) AS names FROM items i JOIN owners o ON o.id = i.owner WHERE i.id < 900 GROUP BY 1},
	joined_twice => 'SELECT i.id, o.name AS owner, b.name AS buyer FROM items i JOIN owners o ON o.id = i.owner JOIN owners b ON b.id = i.buyer',
	other => 'SELECT i.id, o.name FROM items i JOIN owners o ON o.id = i.amount',
	bosses => 'SELECT p.id, b.name FROM people p JOIN people b ON b.id = p.boss',
	outer_join => 'SELECT o.id, count(i.id) AS n FROM owners o LEFT JOIN items i ON i.owner = o.id GROUP BY 1');
$node->create_stream_table($_, $query{$_}) foreach sort keys %query;

sub all_current
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	my @wrong;
	foreach my $name (sort keys %query)
	{
		$node->refresh($name);
		push @wrong, "$name: " . $node->difference($name) if $node->difference($name) ne '';
	}
	return is(join("\n", @wrong), '', $what);
}

# What the refreshes of a stream table since the last change were expected to take, the dearest of them: a slow machine may make one that has nothing to do.
my $before_change = 0;

sub estimate
{
	my ($name) = @_;

	return $node->sql("SELECT max(estimated_delta_ms / refreshes) FROM pgtrickle.pgt_refresh_history JOIN pgtrickle.pgt_stream_tables USING (pgt_id)
		WHERE pgt_name = '$name' AND refresh_id > $before_change");
}

# A row of history for itself: the applier loads the stream tables again.
sub next_change
{
	my ($what, $sql) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->sql('COMMENT ON TABLE owners IS NULL; ALTER TABLE items ALTER amount SET STATISTICS 100; ALTER TABLE owners ALTER name SET STATISTICS 100;
		ALTER TABLE people ALTER name SET STATISTICS 100');
	$before_change = $node->sql('SELECT coalesce(max(refresh_id), 0) FROM pgtrickle.pgt_refresh_history');
	$node->sql($sql);
	return all_current($what);
}

next_change('a first change', "INSERT INTO items VALUES (100001, 1, 1, 10)");
next_change('new owners', "INSERT INTO owners VALUES (1001, 1, 'new'), (1002, 2, 'newer')");
cmp_ok(estimate('flat'), '<', 0.01, 'cost nothing where they are joined by the foreign key');
cmp_ok(estimate('totals'), '<', 0.01, 'nor in a join of three');
cmp_ok(estimate('joined_twice'), '<', 0.01, 'nor where they are joined twice by foreign keys');
cmp_ok(estimate('other'), '>', 0.5, 'but a scan where they are not');

next_change('new owners with items', "INSERT INTO owners VALUES (1003, 1, 'x'), (1004, 3, 'y'); INSERT INTO items VALUES (100002, 1003, 1004, 50), (100003, 1001, 1, 60)");
next_change('items before their owners, in one transaction', "BEGIN; INSERT INTO items VALUES (100004, 1005, 1, 9); INSERT INTO owners VALUES (1005, 2, 'late'); COMMIT");
next_change('a new region with owners and items', "INSERT INTO regions VALUES (6, 'six'); INSERT INTO owners VALUES (1006, 6, 'z'); INSERT INTO items VALUES (100005, 1006, 1006, 1), (100006, 1, 1006, 5)");
next_change('owners without items go', 'DELETE FROM owners WHERE id IN (1002, 450)');
cmp_ok(estimate('flat'), '<', 0.01, 'which costs nothing');
next_change('owners go with their items', 'DELETE FROM items WHERE owner = 1005 OR buyer = 1005; DELETE FROM owners WHERE id = 1005');
next_change('an owner changes', "UPDATE owners SET name = 'renamed' WHERE id = 3");
cmp_ok(estimate('flat'), '>', 0.5, 'which has to look for its items');
next_change('all of it', "UPDATE owners SET name = 'again', region = 6 WHERE id IN (4, 5); INSERT INTO owners VALUES (1007, 1, 'q'); DELETE FROM owners WHERE id = 460;
	UPDATE items SET owner = 1007 WHERE id = 3; UPDATE items SET owner = NULL WHERE id = 4; DELETE FROM items WHERE id = 5;
	INSERT INTO people VALUES (51, 3, 'n'), (52, 51, 'm'); UPDATE people SET boss = 52 WHERE id = 7");
next_change('people who reference each other', "INSERT INTO people VALUES (61, NULL, 'a'), (62, 61, 'b'); DELETE FROM people WHERE id IN (50, 49)");
next_change('a key changes and is taken by another', "INSERT INTO owners VALUES (2001, 1, 'one'); DELETE FROM owners WHERE id = 470; INSERT INTO owners VALUES (470, 2, 'other')");

# --- foreign keys that do not hold ---------------------------------------------------------------------

# Broken while its triggers were off; then somebody makes the missing owner.
$node->sql(q{ALTER TABLE items DISABLE TRIGGER ALL; INSERT INTO items VALUES (200001, 5001, 1, 10); ALTER TABLE items ENABLE TRIGGER ALL});
next_change('an item without owner, made with triggers off', 'UPDATE items SET amount = 11 WHERE id = 200001');
next_change('its owner comes', "INSERT INTO owners VALUES (5001, 1, 'at last')");
cmp_ok(estimate('flat'), '>', 0.5, 'which has to look for items, now that the foreign key is not trusted any more');

# Made again, but not for rows that are there.
$node->sql(q{ALTER TABLE items DROP CONSTRAINT items_owner_fkey; INSERT INTO items VALUES (200002, 5002, 1, 10);
	ALTER TABLE items ADD CONSTRAINT items_owner_fkey FOREIGN KEY (owner) REFERENCES owners NOT VALID});
next_change('an item without owner, from before a foreign key that is not valid', "INSERT INTO owners VALUES (5003, 1, 'somebody')");
next_change('its owner comes, too', "INSERT INTO owners VALUES (5002, 1, 'at last')");

# Dropped, broken, mended and made again between two refreshes: it holds now, but did not at the frontier.
$node->sql(q{ALTER TABLE items DROP CONSTRAINT items_owner_fkey});
$node->sql(q{INSERT INTO items VALUES (200003, 5004, 1, 10)});
all_current('an item without owner');
$node->sql(q{BEGIN; INSERT INTO owners VALUES (5004, 1, 'mended'); ALTER TABLE items ADD CONSTRAINT items_owner_fkey FOREIGN KEY (owner) REFERENCES owners; COMMIT});
all_current('its owner comes with the foreign key');
next_change('a foreign key made since then', "INSERT INTO owners VALUES (5005, 1, 'free')");
cmp_ok(estimate('flat'), '<', 0.01, 'counts again');

is($node->sql("SELECT s.pgt_name, h.reason FROM pgtrickle.pgt_refresh_history h JOIN pgtrickle.pgt_stream_tables s USING (pgt_id) WHERE was_full_fallback AND initiated_by <> 'INITIAL'
	AND h.reason !~ 'changed|altered|^cheaper'"), '', 'all of it by delta');

$node->append_conf('postgresql.conf', 'pgtrickle.trust_foreign_keys = off');
$node->reload;
$node->stop_applier;
$node->start_applier;
next_change('no trust', "INSERT INTO owners VALUES (5006, 1, 'free')");
cmp_ok(estimate('flat'), '>', 0.5, 'with pgtrickle.trust_foreign_keys = off nothing is left out');

done_testing();
