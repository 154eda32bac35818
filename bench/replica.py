#!/usr/bin/env python3
# bench/replica.py
#     Stream tables on another server: what the source pays, how many changes a second arrive, and how late.
#
# Three clusters.  The source is followed by a database of pgtrickle with copies of two tables and a join with GROUP BY over them, and by one with
# a subscription of the server's own logical replication to the same two tables alone.  The two are apart, since what one writes would
# be decoded by the other's server.  Rounds are short and take turns, since machines change their mind; ratios are of medians.
#
#   throughput  changes are committed while nobody is attached; then the time from attaching until everything has arrived
#   latency     commit on the source until the target shows it, by a session on the target that commits there by dblink and polls here
#   cost        pgbench on the source at a fixed rate, with nobody, the subscription or the applier attached: its latency, CPU of the walsender
#   peak        the same without a rate: transactions a second that the source does, and how long the rest takes to arrive
#
#     bench/replica.py [--rounds N] [--changes N] [--probes N] [--seconds N] [--parts throughput,latency,cost,peak]
import argparse
import statistics
import time

import cluster
from stream_tables import StreamTables, describe, report

parser = argparse.ArgumentParser()
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--changes", type=int, default=300000)
parser.add_argument("--probes", type=int, default=300)
parser.add_argument("--seconds", type=int, default=5)
parser.add_argument("--parts", default="throughput,latency,cost,peak")
arguments = parser.parse_args()

TABLES = """
    CREATE SCHEMA app;
    CREATE TABLE app.customers (id int PRIMARY KEY, region int NOT NULL);
    CREATE TABLE app.orders (id bigint PRIMARY KEY, customer_id int NOT NULL, amount int NOT NULL, note text);"""

DATA = """
    INSERT INTO app.customers SELECT g, g % 100 FROM generate_series(1, 10000) g;
    INSERT INTO app.customers VALUES (20000, 1000), (30000, 0);
    INSERT INTO app.orders SELECT g, 1 + g % 10000, g, md5(g::text) FROM generate_series(1, 100000) g;
    CREATE INDEX ON app.orders (customer_id);
    CREATE SEQUENCE app.next START 1000000;
    CREATE PROCEDURE app.write(transactions int) LANGUAGE plpgsql AS $$
    DECLARE
        first bigint;
    BEGIN
        FOR i IN 1 .. transactions LOOP
            first := nextval('app.next') * 100;
            INSERT INTO app.orders SELECT first + g, 1 + (first + g) % 10000, g, md5(g::text) FROM generate_series(1, 40) g;
            UPDATE app.orders SET amount = amount + 1 WHERE id BETWEEN 1 + first / 100 * 977 % 99900 AND 39 + first / 100 * 977 % 99900;
            UPDATE app.customers SET region = (region + 1) % 100 WHERE id = 1 + first / 100 % 10000;
            DELETE FROM app.orders WHERE id BETWEEN first + 1 AND first + 20;
            COMMIT;
        END LOOP;
    END $$;
    ANALYZE;"""
CHANGES_PER_TRANSACTION = 100

QUERY = """SELECT c.region, count(*) AS n, sum(o.amount) AS total
    FROM app.orders o JOIN app.customers c ON c.id = o.customer_id GROUP BY c.region"""

PROBE = """
    CREATE EXTENSION dblink;
    CREATE TABLE bench_latencies (ms double precision);
    CREATE PROCEDURE bench_probe(source text, rounds int, arrived text) LANGUAGE plpgsql AS $$
    DECLARE
        started timestamptz;
        wanted int;
        is_there boolean;
    BEGIN
        PERFORM dblink_connect('source', source);
        FOR round IN 1 .. rounds LOOP
            SELECT n INTO wanted FROM dblink('source', 'INSERT INTO app.orders VALUES (nextval(''app.next'') * 100, 20000, 1)
                RETURNING (SELECT 1 + count(*) FROM app.orders WHERE customer_id = 20000)') AS answer (n int);
            started := clock_timestamp();
            LOOP
                EXECUTE arrived INTO is_there USING wanted;
                EXIT WHEN is_there;
                COMMIT;
                PERFORM pg_sleep(0.0002);
            END LOOP;
            INSERT INTO bench_latencies VALUES (1000 * extract(epoch FROM clock_timestamp() - started));
            COMMIT;
            PERFORM pg_sleep(0.01);
        END LOOP;
        PERFORM dblink_disconnect('source');
    END $$;"""


def wait(server, query, what):
    deadline = time.monotonic() + 300
    while server.sql(query) != "t":
        if time.monotonic() > deadline:
            raise SystemExit("waited in vain for " + what)
        time.sleep(0.02)


def mark(source):
    """The last change: whoever has it has everything before."""
    return source.sql("UPDATE app.customers SET region = region - 1 WHERE id = 30000 RETURNING region")


def same(source, target, what):
    """The target's tables are the source's."""
    for table in ("app.orders", "app.customers"):
        query = "SELECT count(*), sum(hashtext(t::text)::bigint) FROM %s t" % table
        if source.sql(query) != target.sql(query):
            raise SystemExit("%s: %s differs from the source" % (what, table))


class Arm:
    """One way to follow the source: attached or not."""

    def __init__(self, source, target, slot):
        self.source, self.target, self.slot = source, target, slot

    def wait_arrived(self):
        self.wait_for(mark(self.source))

    def wait_for(self, marked):
        deadline = time.monotonic() + 300
        while self.target.sql("SELECT region = %s FROM app.customers WHERE id = 30000" % marked) != "t":
            if time.monotonic() > deadline:
                raise SystemExit("%s did not follow" % self.name)
            time.sleep(0.01)

    def walsender(self):
        pid = self.source.sql("SELECT active_pid FROM pg_replication_slots WHERE slot_name = '%s'" % self.slot)
        return int(pid) if pid else None


class Ours(Arm):
    name = "pgtrickle, two copies and the join"

    def attach(self):
        self.target.sql("SELECT pgtrickle.resume_remote('shop')")

    def detach(self):
        self.target.sql("SELECT pgtrickle.pause_remote('shop')")
        wait(self.source, "SELECT NOT active FROM pg_replication_slots WHERE slot_name = '%s'" % self.slot, "the slot")

    def wait_for(self, marked):
        super().wait_for(marked)
        if self.target.sql("SELECT pgtrickle.wait_fresh('by_region', '5min')") != "t":
            raise SystemExit("the stream table did not follow")

    def check(self):
        same(self.source, self.target, self.name)
        differences = self.target.sql("SELECT count(*) FROM ((TABLE by_region EXCEPT ALL %s) UNION ALL (%s EXCEPT ALL TABLE by_region)) d"
                                      % (QUERY, QUERY))
        if differences != "0":
            raise SystemExit("the stream table differs from its query")


class Builtin(Arm):
    name = "built-in, the two tables alone"

    def attach(self):
        self.target.sql("ALTER SUBSCRIPTION bench ENABLE")

    def detach(self):
        self.target.sql("ALTER SUBSCRIPTION bench DISABLE")
        wait(self.source, "SELECT NOT active FROM pg_replication_slots WHERE slot_name = '%s'" % self.slot, "the slot")

    def check(self):
        same(self.source, self.target, self.name)


def set_up_ours(source, target):
    cluster.run(target.program("pgtrickle"), "setup", "--target", target.conninfo, "--source", source.conninfo, "--name", "shop",
                "--table", "app.orders", "--table", "app.customers")
    wait(target, "SELECT count(*) = 2 AND bool_and(is_populated) FROM pgtrickle.copy_catalog()", "the first copies")
    target.create("by_region", QUERY)
    target.sql("CREATE INDEX ON app.orders (customer_id)")
    return Ours(source, target, source.sql("SELECT slot_name FROM pg_replication_slots WHERE plugin = 'pgtrickle_decoder'"))


def set_up_builtin(source, target):
    target.sql(TABLES + "CREATE INDEX ON app.orders (customer_id)")
    target.sql("CREATE SUBSCRIPTION bench CONNECTION '%s' PUBLICATION bench" % source.conninfo)
    wait(source, "SELECT count(*) = 1 FROM pg_replication_slots WHERE slot_name = 'bench' AND active", "the subscription")
    wait(target, "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel", "the subscription's first copies")
    return Builtin(source, target, "bench")


def set_up(source, target, subscriber):
    source.sql(TABLES + DATA)
    source.sql("CREATE PUBLICATION bench FOR TABLE app.orders, app.customers")
    arms = [set_up_builtin(source, subscriber), set_up_ours(source, target)]
    for arm in arms:
        arm.target.sql(PROBE)
        arm.wait_arrived()
        arm.check()
        arm.detach()
    return arms


def cpu_of(server):
    """CPU seconds of all processes of a cluster that are there, and of the applier."""
    pids = [server.pid] + [int(pid) for pid in cluster.run("ps", "-o", "pid=", "--ppid", str(server.pid)).split()]
    if getattr(server, "_applier", None) is not None:
        pids.append(server._applier.pid)
    return sum(cluster.cpu_seconds(pid) or 0 for pid in pids)


def throughput(source, arms):
    """Per arm and round: changes a second; and CPU of both servers and the applier in ms per 1000 changes."""
    transactions = max(1, arguments.changes // CHANGES_PER_TRANSACTION)
    changes = transactions * CHANGES_PER_TRANSACTION
    rates = {arm.name: [] for arm in arms}
    cpus = {arm.name: [] for arm in arms}
    for number in range(arguments.rounds):
        source.sql("CALL app.write(%d)" % transactions)
        marked = mark(source)
        for arm in arms if number % 2 == 0 else reversed(arms):
            before = cpu_of(source) + cpu_of(arm.target)
            started = time.monotonic()
            arm.attach()
            arm.wait_for(marked)
            rates[arm.name].append(changes / (time.monotonic() - started))
            cpus[arm.name].append(1000 * 1000 * (cpu_of(source) + cpu_of(arm.target) - before) / changes)
            arm.check()
            arm.detach()
    ticks = arms[1].target.sql("""SELECT sum(refreshes) || ' refreshes, ' || round(sum(duration_ms)::numeric) || ' ms'
        FROM pgtrickle.pgt_history WHERE action = 'DIFFERENTIAL'""")
    lines = ["throughput: %d changes in transactions of %d, from attaching to arrived" % (changes, CHANGES_PER_TRANSACTION)]
    lines += ["  " + median_line(name, values, "changes/s") for name, values in rates.items()]
    return lines + ["  ratio %.2f (goal: >= 1.0)" % (statistics.median(rates[Ours.name]) / statistics.median(rates[Builtin.name])),
                    "  CPU of both servers and the applier, ms per 1000 changes: "
                    + ", ".join("%s %.1f" % (short(name), statistics.median(values)) for name, values in cpus.items()),
                    "  the join meanwhile: %s" % ticks]


def write_at(source, arms, *rate):
    """pgbench rounds, with nobody (None) and each arm attached: per arm [(TPS, ms of a transaction, walsender's ms per 1000, seconds to arrive)]."""
    script = source.directory + "/write.sql"
    with open(script, "w") as text:
        text.write("\\set o random(1, 99000)\n\\set c random(1, 10000)\nUPDATE app.orders SET amount = amount + 1 WHERE id = :o;\n"
                   "INSERT INTO app.orders VALUES (nextval('app.next') * 100, :c, 1);\n")
    figures = {(arm.name if arm else "nobody"): [] for arm in [None, *arms]}
    turns = [None, *arms]
    for _ in range(arguments.rounds):
        turns = turns[1:] + turns[:1]
        for arm in turns:
            if arm:
                arm.attach()
                arm.wait_arrived()
            walsender = arm.walsender() if arm else None
            before = cluster.cpu_seconds(walsender) if walsender else 0
            said = cluster.run(source.program("pgbench"), "-n", "-f", script, *rate, "-c", "2", "-T", str(arguments.seconds),
                               source.conninfo)
            ended = time.monotonic()
            if arm:
                arm.wait_arrived()
            arrived_s = time.monotonic() - ended
            after = cluster.cpu_seconds(walsender) if walsender else 0
            done = int(said.split("number of transactions actually processed: ")[1].split()[0].split("/")[0])
            figures[arm.name if arm else "nobody"].append(
                (float(said.split("tps = ")[1].split()[0]), float(said.split("latency average = ")[1].split()[0]),
                 1000 * 1000 * (after - before) / done, arrived_s))
            if arm:
                arm.detach()
    return {name: [statistics.median(column) for column in zip(*rows)] for name, rows in figures.items()}


def cost(source, arms):
    lines = ["cost: pgbench at 500 transactions a second, an update and an insert each"]
    for name, (_, latency_ms, walsender_ms, _) in write_at(source, arms, "-R", "500").items():
        lines.append("  %-38s latency %.2f ms, walsender %.0f ms CPU per 1000 transactions" % (name, latency_ms, walsender_ms))
    return lines


def peak(source, arms):
    lines = ["peak: the same as fast as two clients can"]
    figures = write_at(source, arms)
    for name, (tps, _, walsender_ms, arrived_s) in figures.items():
        lines.append("  %-38s %6.0f transactions/s (%.2f), walsender %.0f ms CPU per 1000 transactions, the rest arrived after %.1f s"
                     % (name, tps, tps / figures["nobody"][0], walsender_ms, arrived_s))
    return lines


def latency(source, arms):
    """Milliseconds from commit to visible."""
    arrived = {Ours.name: "SELECT EXISTS (SELECT FROM by_region WHERE region = 1000 AND n >= $1)",
               Builtin.name: "SELECT count(*) >= $1 FROM app.orders WHERE customer_id = 20000"}
    values = {arm.name: [] for arm in arms}
    part = max(1, arguments.probes // arguments.rounds)
    for _ in range(arguments.rounds):
        for arm in arms:
            arm.attach()
            arm.wait_arrived()
            arm.target.sql("TRUNCATE bench_latencies; CALL bench_probe($$%s$$, %d, $$%s$$)" % (source.conninfo, part, arrived[arm.name]))
            values[arm.name] += [float(line) for line in arm.target.sql("SELECT ms FROM bench_latencies").split()]
            arm.detach()
    lines = ["latency: commit on the source to visible on the target, both on this machine"]
    lines += ["  %-38s %s" % (name, describe(values)) for name, values in values.items()]
    return lines + ["  goal: p50 <= 8 ms for pgtrickle"]


def short(name):
    return name.split(",")[0]


def median_line(label, values, unit):
    return "%-38s median %9.1f %s   (%s)" % (label, statistics.median(values), unit, " ".join("%.0f" % value for value in values))


# A subscription that is switched on again would else wait for up to 5 s until its worker may start.
SETTINGS = {"max_logical_replication_workers": 8, "max_worker_processes": 16, "shared_buffers": "128MB",
            "wal_retrieve_retry_interval": "20ms"}

with cluster.Cluster(SETTINGS) as source, StreamTables(SETTINGS) as target, cluster.Cluster(SETTINGS) as subscriber:
    builtin_and_ours = set_up(source, target, subscriber)
    lines = []
    for part in (throughput, latency, cost, peak):
        if part.__name__ in arguments.parts.split(","):
            lines += part(source, builtin_and_ours) + [""]
    for arm in builtin_and_ours:
        arm.attach()
        arm.wait_arrived()
        arm.check()
    report("replica", target, lines[:-1])
