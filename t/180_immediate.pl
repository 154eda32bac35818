# t/180_immediate.pl
#
# Goal: an IMMEDIATE stream table equals its query after every statement, in the transaction that ran it.
# Method: one session runs statements of every kind; after each of them all stream tables are compared with their queries, in that session.
#         No applier: nothing here may need one.
use strict;
use warnings FATAL => 'all';

use StreamTables::Cluster;
use Test::More;

my $node = StreamTables::Cluster->new('immediate')->boot(setup => 'extension', conf => "max_prepared_transactions = 2\n");
$node->sql(
	q{CREATE TABLE branches (id int PRIMARY KEY, name text, region int);
	CREATE TABLE accounts (id int PRIMARY KEY, branch int, balance numeric, note text);
	CREATE TABLE events (at int, account int, kind text) PARTITION BY RANGE (at);
	CREATE TABLE events_low PARTITION OF events FOR VALUES FROM (0) TO (100);
	CREATE TABLE events_high (kind text, dropped int, account int, at int);
	ALTER TABLE events_high DROP COLUMN dropped;
	ALTER TABLE events ATTACH PARTITION events_high FOR VALUES FROM (100) TO (1000);
	INSERT INTO branches SELECT g, 'branch ' || g, g % 3 FROM generate_series(1, 8) g;
	INSERT INTO accounts SELECT g, nullif(g % 9, 0), g * 1.5, 'note' FROM generate_series(1, 200) g;
	INSERT INTO events SELECT g * 5, g % 50, chr(97 + g % 4) FROM generate_series(0, 150) g});

my %query = (
	by_branch => 'SELECT b.id, b.name, count(*) AS n, sum(a.balance) AS total, max(a.balance) AS top
		FROM accounts a JOIN branches b ON b.id = a.branch GROUP BY b.id, b.name',
	rich => 'SELECT a.id, a.branch, a.balance FROM accounts a WHERE a.balance > 100',
	pairs => 'SELECT a.branch, b.name FROM accounts a JOIN branches b ON b.id = a.branch',
	left_over => 'SELECT b.id, b.name, a.id AS account FROM branches b LEFT JOIN accounts a ON a.branch = b.id',
	per_kind => 'SELECT e.kind, count(*) AS n, count(DISTINCT e.account) AS accounts FROM events e GROUP BY e.kind',
	ranked => 'SELECT id, branch, rank() OVER (PARTITION BY branch ORDER BY balance, id) AS place FROM accounts',
	everything => 'SELECT count(*) AS n, sum(balance) AS total FROM accounts',
	first_ones => 'SELECT id, balance FROM accounts ORDER BY balance DESC, id LIMIT 5',
	kinds_of_regions => 'SELECT b.region, e.kind, count(*) AS n FROM events e JOIN accounts a ON a.id = e.account
		JOIN branches b ON b.id = a.branch GROUP BY 1, 2',
	neighbours => 'SELECT x.id, y.id AS other FROM accounts x JOIN accounts y ON x.branch = y.branch AND x.id < y.id AND x.id < 20',
	busy => 'SELECT id FROM accounts a WHERE EXISTS (SELECT FROM events e WHERE e.account = a.id)');
$node->create_stream_table($_, $query{$_}, refresh_mode => 'IMMEDIATE') foreach sort keys %query;
# over other IMMEDIATE ones: a chain, and a diamond
$query{large} = 'SELECT id, total FROM by_branch WHERE n > 20';
$query{diamond} = 'SELECT l.id, count(*) AS n FROM large l JOIN rich r ON r.branch = l.id GROUP BY l.id';
$node->create_stream_table($_, $query{$_}, refresh_mode => 'IMMEDIATE') foreach qw(large diamond);

# The base tables only: expanded by hand for the two above.
my %expanded = %query;
$expanded{large} =~ s/by_branch/($query{by_branch}) by_branch/;
$expanded{diamond} =~ s/large l/($expanded{large}) l/;
$expanded{diamond} =~ s/rich r/($query{rich}) r/;

my $check = join(' UNION ALL ', map {
	"(SELECT '$_' AS name, 'missing' AS kind, d::text FROM (($expanded{$_}) EXCEPT ALL SELECT * FROM $_) d LIMIT 3)
	 UNION ALL (SELECT '$_', 'surplus', d::text FROM (SELECT * FROM $_ EXCEPT ALL ($expanded{$_})) d LIMIT 3)" } sort keys %query);
$check = "SELECT 'differs', c.* FROM ($check) c;\n";

# Runs statements in one session, and compares after each one.
sub follows
{
	my ($what, @statements) = @_;

	my $script = "SET jit = off;\n" . join('', map { ($_ =~ /;$/ ? $_ : "$_;") . "\n" . $check } @statements);
	my ($rc, $out, $err) = $node->psql($node->dbname, $script, on_error_stop => 1);

	is($rc, 0, "$what: runs") or diag($err);
	unlike($out, qr/^differs/m, "$what: equal after every statement") or diag(join("\n", grep { /^differs/ } split(/\n/, $out)));
	return;
}

follows('nothing', 'SELECT 1');
follows('single rows',
	q{INSERT INTO accounts VALUES (1000, 3, 77.25, 'new')},
	q{UPDATE accounts SET balance = balance + 1000 WHERE id = 1000},
	q{UPDATE accounts SET branch = 4 WHERE id = 1000},
	q{UPDATE accounts SET branch = NULL WHERE id = 1000},
	q{UPDATE accounts SET note = 'nobody reads this' WHERE id = 1000},
	q{DELETE FROM accounts WHERE id = 1000},
	q{UPDATE branches SET name = 'renamed' WHERE id = 2},
	q{DELETE FROM branches WHERE id = 3},
	q{INSERT INTO branches VALUES (3, 'again', 1)});
follows('many rows',
	'UPDATE accounts SET balance = balance + 1',
	'UPDATE accounts SET branch = branch % 8 + 1',
	'DELETE FROM accounts WHERE id % 5 = 0',
	q{INSERT INTO accounts SELECT g, g % 8 + 1, g, 'bulk' FROM generate_series(2000, 2300) g},
	'UPDATE branches SET region = region + 1');
follows('savepoints',
	'BEGIN', 'UPDATE accounts SET balance = 0 WHERE branch = 1', 'SAVEPOINT one',
	'DELETE FROM branches WHERE id = 1', 'ROLLBACK TO one', 'UPDATE accounts SET balance = 5 WHERE branch = 2', 'RELEASE one', 'SAVEPOINT two',
	'DELETE FROM accounts WHERE branch = 2', 'ROLLBACK TO two', 'COMMIT',
	'BEGIN', 'DELETE FROM accounts', 'ROLLBACK');
follows('several modifying WITH queries',
	q{WITH b AS (INSERT INTO branches VALUES (20, 'twenty', 1), (21, 'twenty-one', 1)),
		a AS (INSERT INTO accounts VALUES (5000, 20, 1, ''), (5001, 21, 200, ''), (5002, 22, 3, '')),
		u AS (UPDATE accounts SET branch = 20 WHERE id < 10),
		d AS (DELETE FROM events WHERE account < 5) SELECT 1},
	q{WITH d AS (DELETE FROM accounts WHERE branch = 20 RETURNING *), b AS (DELETE FROM branches WHERE id = 20)
		INSERT INTO accounts SELECT id + 10000, 21, balance, note FROM d});
follows('INSERT ... ON CONFLICT, MERGE, COPY',
	q{INSERT INTO accounts VALUES (11, 1, 500, ''), (7001, 2, 7, '') ON CONFLICT (id) DO UPDATE SET balance = EXCLUDED.balance, branch = 5},
	q{INSERT INTO accounts VALUES (11, 1, 500, '') ON CONFLICT DO NOTHING},
	q{MERGE INTO accounts a USING (VALUES (11, 1), (12, 2), (8001, 3)) v (id, k) ON v.id = a.id
		WHEN MATCHED AND k = 1 THEN DELETE WHEN MATCHED THEN UPDATE SET balance = 1, branch = 7 WHEN NOT MATCHED THEN INSERT VALUES (v.id, 7, 9, '')},
	"COPY accounts FROM stdin;\n9001\t1\t12\tx\n9002\t\\N\t13\tx\n9003\t4\t\\N\tx\n\\.\n;");
follows('partitions',
	q{INSERT INTO events VALUES (50, 12, 'z'), (500, 13, 'z')},
	q{UPDATE events SET at = 700 WHERE at = 50},
	q{UPDATE events SET kind = 'y', account = account + 1 WHERE at IN (500, 700)},
	q{INSERT INTO events_high (at, account, kind) VALUES (150, 14, 'x')},
	q{UPDATE events_high SET account = 15 WHERE at = 150},
	q{DELETE FROM events_high WHERE at > 600},
	q{DELETE FROM events WHERE at < 20},
	q{MERGE INTO events e USING (VALUES (150), (151)) v (at) ON e.at = v.at WHEN MATCHED THEN UPDATE SET kind = 'v' WHEN NOT MATCHED THEN INSERT VALUES (v.at, 3, 'w')},
	# rows that MERGE moves are shown to no statement-level trigger
	q{MERGE INTO events e USING (VALUES (150), (151), (152)) v (at) ON e.at = v.at WHEN MATCHED THEN UPDATE SET at = 10 WHEN NOT MATCHED THEN INSERT VALUES (v.at, 3, 'w')},
	q{DO $$ BEGIN MERGE INTO events e USING (VALUES (10)) v (at) ON e.at = v.at WHEN MATCHED THEN UPDATE SET at = 155, kind = 'u'; END $$});
follows('MERGE as the first statement of a session',
	q{MERGE INTO events e USING (VALUES (155)) v (at) ON e.at = v.at WHEN MATCHED THEN UPDATE SET at = 11, kind = 't'});
follows('TRUNCATE',
	'BEGIN', 'TRUNCATE events_low', 'TRUNCATE accounts, branches', 'ROLLBACK',
	'TRUNCATE events', q{INSERT INTO events VALUES (1, 12, 'a'), (200, 12, 'b'), (201, 30, 'b')}, 'TRUNCATE branches',
	q{INSERT INTO branches SELECT g, 'branch ' || g, g % 3 FROM generate_series(1, 8) g});

# Foreign keys and triggers write further sources in the middle of a statement.
$node->sql(
	q{DELETE FROM accounts WHERE branch NOT IN (SELECT id FROM branches);
	ALTER TABLE accounts ADD CONSTRAINT branch_fk FOREIGN KEY (branch) REFERENCES branches ON DELETE CASCADE ON UPDATE CASCADE;
	CREATE FUNCTION note_event() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			INSERT INTO events VALUES (300, coalesce(new.id, old.id), lower(left(tg_op, 1)));
			IF tg_op = 'INSERT' THEN UPDATE branches SET region = region + 1 WHERE id = new.branch; END IF;
			RETURN NULL;
		END $$;
	CREATE FUNCTION refuse_kind() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			BEGIN
				INSERT INTO events VALUES (301, new.id, 'rolled back');
				RAISE EXCEPTION 'no';
			EXCEPTION WHEN raise_exception THEN NULL;
			END;
			RETURN new;
		END $$;
	CREATE TRIGGER note_row AFTER INSERT OR DELETE ON accounts FOR EACH ROW EXECUTE FUNCTION note_event();
	CREATE TRIGGER "A first" BEFORE UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION refuse_kind()});
follows('foreign keys and triggers',
	q{INSERT INTO accounts VALUES (6001, 1, 60, ''), (6002, 2, 61, '')},
	q{UPDATE accounts SET balance = balance * 2 WHERE id IN (6001, 6002)},
	q{UPDATE branches SET id = 30 WHERE id = 1},
	q{DELETE FROM branches WHERE id IN (30, 2)},
	q{DO $$ BEGIN INSERT INTO accounts VALUES (6003, 3, 1, ''); BEGIN DELETE FROM branches; RAISE EXCEPTION 'x'; EXCEPTION WHEN raise_exception THEN NULL; END; END $$});

$node->sql(
	q{CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF (SELECT total FROM everything) IS DISTINCT FROM (SELECT sum(balance) FROM accounts) THEN RAISE EXCEPTION 'not up to date'; END IF;
			RETURN NULL;
		END $$;
	CREATE TRIGGER a_look AFTER UPDATE ON accounts FOR EACH STATEMENT EXECUTE FUNCTION look()});
follows('an AFTER STATEMENT trigger of the user finds it up to date', 'UPDATE accounts SET balance = balance + 1 WHERE id > 100');

follows('session_replication_role = replica', 'SET session_replication_role = replica',
	q{INSERT INTO accounts VALUES (6100, 4, 60, '')}, 'UPDATE accounts SET balance = 7 WHERE id = 6100', 'DELETE FROM accounts WHERE branch = 5');
follows('prepared transactions', 'BEGIN', q{UPDATE accounts SET balance = balance + 3 WHERE branch = 4}, q{PREPARE TRANSACTION 'p'},
	q{COMMIT PREPARED 'p'});

# Deltas that spill to files, in a subtransaction that is rolled back, too.
$node->sql('CREATE TABLE many (id int, k int, note text)');
my %many = (many_sums => 'SELECT k, count(*) AS n, sum(id) AS ids FROM many GROUP BY k', many_rows => 'SELECT id, note FROM many WHERE k = 1');
$node->create_stream_table($_, $many{$_}, refresh_mode => 'IMMEDIATE') foreach sort keys %many;
my $differences = join(' UNION ALL ', map { "SELECT d::text FROM ((($many{$_}) EXCEPT ALL TABLE $_) UNION ALL (TABLE $_ EXCEPT ALL ($many{$_}))) d" } sort keys %many);
$node->sql(qq{SET work_mem = '64kB'; INSERT INTO many SELECT g, g % 3, repeat('long ', 20) FROM generate_series(1, 4000) g;
	BEGIN; UPDATE many SET id = id + 1; SAVEPOINT s; UPDATE many SET k = 1; ROLLBACK TO s; COMMIT; DELETE FROM many WHERE id > 3000});
is($node->sql($differences), '', 'deltas that do not fit into memory');

done_testing();
