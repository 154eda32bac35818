#!/usr/bin/env python3
# bench/immediate.py
#     What does it cost the writers when the stream table is maintained in their own transaction?
#
# One join with GROUP BY (count and sum of pgbench_accounts by branch), maintained by nobody, by an IMMEDIATE stream table, by a statement trigger written
# by hand for just this query, and by pg_ivm where the server has it; in turn, each in a database of its own made from one template.
# REFRESH MATERIALIZED VIEW is what a reader would pay instead.  Goals: >= 0.75 of the transactions without, at 8 clients; >= 7 times pg_ivm; a million updated
# rows <= 1.2 times the update plus the full query; nine IMMEDIATE tables cost <= 5 times one.
#
#     bench/immediate.py [--seconds N] [--rounds N] [--bulk-rounds N] [--scale N] [--fsync] [--patience N]
import argparse
import contextlib
import os
import re
import statistics
import sys
import tempfile

import cluster
from stream_tables import report

parser = argparse.ArgumentParser()
parser.add_argument("--seconds", type=int, default=6)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--scale", type=int, default=20)
parser.add_argument("--bulk-rounds", type=int, default=1)
parser.add_argument("--fsync", action="store_true", help="flush for real")
parser.add_argument("--patience", type=int, default=300, help="seconds after which a bulk statement is given up")
parser.add_argument("--only", help="comma-separated parts: tps, tables, insert, bulk")
parser.add_argument("--contenders", help="comma-separated, default all: none, IMMEDIATE, trigger, pg_ivm")
arguments = parser.parse_args()
PARTS = (arguments.only or "tps,tables,insert,bulk").split(",")

BY_BRANCH = """SELECT b.bid, count(*) AS n, sum(a.abalance) AS total
    FROM pgbench_accounts a JOIN pgbench_branches b ON a.bid = b.bid GROUP BY b.bid"""
# One row per account, as in the complaint that pg_ivm takes minutes for a bulk update.
PER_ACCOUNT = """SELECT a.aid, a.abalance, b.bid, b.bbalance
    FROM pgbench_accounts a JOIN pgbench_branches b ON a.bid = b.bid"""

# The best that can be written by hand for BY_BRANCH: cached plans, one row lock per branch, in order.  Changes of pgbench_branches are not looked after.
TRIGGER = """
CREATE TABLE by_branch AS %s;
ALTER TABLE by_branch ADD PRIMARY KEY (bid);
ALTER TABLE by_branch SET (fillfactor = 50);
VACUUM FULL by_branch;
CREATE FUNCTION follow_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO by_branch AS t
    SELECT b.bid, sum(d.n), sum(d.balance)
    FROM (SELECT bid, 1 AS n, abalance AS balance FROM new_rows UNION ALL SELECT bid, -1, -abalance FROM old_rows) d
    JOIN pgbench_branches b ON b.bid = d.bid
    GROUP BY b.bid HAVING sum(d.n) <> 0 OR sum(d.balance) <> 0 ORDER BY b.bid
    ON CONFLICT (bid) DO UPDATE SET n = t.n + excluded.n, total = t.total + excluded.total;
    RETURN NULL;
END $$;
CREATE FUNCTION follow_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO by_branch AS t
    SELECT b.bid, count(*), sum(d.abalance) FROM new_rows d JOIN pgbench_branches b ON b.bid = d.bid GROUP BY b.bid ORDER BY b.bid
    ON CONFLICT (bid) DO UPDATE SET n = t.n + excluded.n, total = t.total + excluded.total;
    RETURN NULL;
END $$;
CREATE TRIGGER follow_update AFTER UPDATE ON pgbench_accounts
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION follow_update();
CREATE TRIGGER follow_insert AFTER INSERT ON pgbench_accounts
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION follow_insert();
""" % BY_BRANCH

# The same for PER_ACCOUNT and updates of balances, as one statement over all rows.
ACCOUNT_TRIGGER = """
CREATE TABLE per_account AS %s;
CREATE INDEX ON per_account (aid);
CREATE FUNCTION follow_accounts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE per_account p SET abalance = d.abalance, bid = b.bid, bbalance = b.bbalance
    FROM new_rows d JOIN pgbench_branches b ON b.bid = d.bid WHERE p.aid = d.aid;
    RETURN NULL;
END $$;
CREATE TRIGGER follow_accounts AFTER UPDATE ON pgbench_accounts
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION follow_accounts();
""" % PER_ACCOUNT

# Nine tables that one update of an account's balance changes.
NINE = ["SELECT b.bid %% %d AS part, count(*) AS n, sum(a.abalance) AS total "
        "FROM pgbench_accounts a JOIN pgbench_branches b ON a.bid = b.bid GROUP BY 1" % (part + 2) for part in range(9)]


class Database:
    """One database of the cluster, and what maintains the query in it."""

    def __init__(self, server, name):
        self.server = server
        self.name = name
        self.conninfo = server.conninfo.replace("dbname=postgres", "dbname=" + name)

    def sql(self, statements):
        return cluster.run(self.server.program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.conninfo, stdin=statements)

    def patiently(self, statement):
        """Seconds of a statement and of its session's CPU time, or None when it takes longer than we want to wait."""
        clocks = "SELECT extract(epoch FROM clock_timestamp()), pg_read_file('/proc/self/stat')"
        try:
            lines = self.sql("SET statement_timeout = '%ds';\n%s;\n%s;\n%s" % (arguments.patience, clocks, statement, clocks)).split("\n")
            before, after = [line.split("|") for line in lines if "|" in line]
            ticks = [sum(int(field) for field in stat.rsplit(")", 1)[1].split()[11:13]) for _, stat in (before, after)]
            return float(after[0]) - float(before[0]), (ticks[1] - ticks[0]) / os.sysconf("SC_CLK_TCK")
        except SystemExit as failure:
            if "statement timeout" in str(failure):
                return None
            raise

    def pgbench(self, *options):
        return cluster.run(self.server.program("pgbench"), "-n", "-T", str(arguments.seconds), *options, self.conninfo)

    def tps(self, *options):
        return float(re.search(r"tps = ([0-9.]+)", self.pgbench(*options)).group(1))

    def update_cpu_us(self):
        """CPU time of an UPDATE of one row with its transaction, in a loop inside the server: what waiting and waking up do not show in."""
        loop = ("DO $$ BEGIN FOR i IN 1..%d LOOP UPDATE pgbench_accounts SET abalance = abalance + 1 "
                "WHERE aid = 1 + (i * 7919::bigint) %% (100000 * " + str(arguments.scale) + "); COMMIT; END LOOP; END $$")
        self.sql(loop % 200)
        return 1e6 * self.patiently(loop % 5000)[1] / 5000

    def latency_ms(self, *options):
        return float(re.search(r"latency average = ([0-9.]+)", self.pgbench(*options)).group(1))

    def maintain(self, how, query, table):
        if how == "IMMEDIATE":
            self.sql("CREATE EXTENSION IF NOT EXISTS pgtrickle; "
                     "SELECT pgtrickle.create_stream_table('%s', $q$%s$q$, refresh_mode => 'IMMEDIATE')" % (table, query))
        elif how == "pg_ivm":
            self.sql("CREATE EXTENSION IF NOT EXISTS pg_ivm; SELECT pgivm.create_immv('%s', $q$%s$q$)" % (table, query))
        elif how == "trigger":
            self.sql(TRIGGER if query is BY_BRANCH else ACCOUNT_TRIGGER)

    def check(self, how, query, table):
        """Every result is checked against the query."""
        if how == "none":
            return
        # pg_ivm adds columns of its own
        columns = self.sql("SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute "
                           "WHERE attrelid = '%s'::regclass AND attnum > 0 AND attname NOT LIKE '\\_\\_ivm%%'" % table)
        have = "SELECT %s FROM %s" % (columns, table)
        wrong = self.sql("SELECT count(*) FROM (({0} EXCEPT ALL ({1})) UNION ALL (({1}) EXCEPT ALL {0})) d".format(have, query))
        if wrong != "0":
            raise SystemExit("%s: %s differs from its query in %s rows" % (how, table, wrong))


class Lines(list):
    """Shows what is measured as soon as it is: all of it takes many minutes."""

    def append(self, line):
        print("...", line, file=sys.stderr, flush=True)
        super().append(line)


def contenders(server):
    available = server.sql("SELECT string_agg(name, ' ') FROM pg_available_extensions").split()
    names = [name for name in ("none", "IMMEDIATE", "trigger", "pg_ivm") if name != "pg_ivm" or "pg_ivm" in available]
    if arguments.contenders:
        names = [name for name in names if name in arguments.contenders.split(",")]
    return names


def make(server, name, template="template_bench"):
    server.sql('DROP DATABASE IF EXISTS "%s"; CREATE DATABASE "%s" TEMPLATE %s STRATEGY = FILE_COPY' % (name, name, template))
    database = Database(server, name)
    return database


def ratio(value, other):
    return "%8.2f" % (value / other) if value and other else "%8s" % "-"


def measure_tps(server, names, lines):
    """pgbench -N with 8 clients and with one."""
    databases = {name: make(server, "tps_" + name.lower()) for name in names}
    for name, database in databases.items():
        database.maintain(name, BY_BRANCH, "by_branch")
        database.sql("VACUUM ANALYZE")
    for clients in (8, 1):
        rates = {name: [] for name in names}
        for _ in range(arguments.rounds):
            for name, database in databases.items():
                server.sql("CHECKPOINT")
                rates[name].append(database.tps("-N", "-M", "prepared", "-c", str(clients)))
        medians = {name: statistics.median(values) for name, values in rates.items()}
        lines.append("pgbench -N, %d client%s %27s %8s %8s" % (clients, "s" if clients > 1 else " ", "", "of none", "pg_ivm"))
        for name in names:
            lines.append("    %-30s %10.0f tps %s %s" % (name, medians[name], ratio(medians[name], medians.get("none")),
                                                         ratio(medians[name], medians.get("pg_ivm"))))
    refresh_s = databases[names[0]].patiently("CREATE MATERIALIZED VIEW refreshed AS %s; REFRESH MATERIALIZED VIEW refreshed" % BY_BRANCH)[0] / 2
    lines.append("    %-30s %10.1f ms each time a reader wants to see a write" % ("REFRESH MATERIALIZED VIEW", 1000 * refresh_s))
    for name, database in databases.items():
        database.check(name, BY_BRANCH, "by_branch")
        database.server.sql('DROP DATABASE "%s"' % database.name)


def measure_single_rows(server, names, lines, directory):
    """Latency of a statement that inserts one row, one client."""
    script = os.path.join(directory, "insert.sql")
    with open(script, "w") as text:
        text.write("\\set bid random(1, %d)\n"
                   "INSERT INTO pgbench_accounts (aid, bid, abalance, filler) VALUES (nextval('new_aid'), :bid, 7, '');\n" % arguments.scale)
    lines.append("INSERT of one row, 1 client %24s %8s" % ("", "of none"))
    none_ms = None
    for name in names:
        database = make(server, "insert_" + name.lower())
        database.sql("CREATE SEQUENCE new_aid START 100000001")
        database.maintain(name, BY_BRANCH, "by_branch")
        database.sql("VACUUM ANALYZE")
        ms = statistics.median(database.latency_ms("-M", "prepared", "-f", script) for _ in range(arguments.rounds))
        none_ms = ms if name == "none" else none_ms
        lines.append("    %-30s %10.3f ms  %s" % (name, ms, ratio(ms, none_ms)))
        database.check(name, BY_BRANCH, "by_branch")
        server.sql('DROP DATABASE "%s"' % database.name)


def measure_many_tables(server, names, lines, directory):
    """One client updates one account; 0, 1, 3, 9 tables follow, each number in a database of its own, in turn."""
    script = os.path.join(directory, "update.sql")
    with open(script, "w") as text:
        text.write("\\set aid random(1, 100000 * %d)\nUPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;\n" % arguments.scale)
    lines.append("UPDATE of one row, 1 client, n tables on its source %9s %8s %20s %8s" % ("added", "of one's", "CPU in the server", "of one's"))
    for how in (name for name in names if name in ("IMMEDIATE", "pg_ivm")):
        databases = {count: make(server, "many_%d" % count) for count in (0, 1, 3, 9)}
        for count, database in databases.items():
            for number in range(count):
                database.maintain(how, NINE[number], "part_%d" % number)
            database.sql("VACUUM ANALYZE")
            database.pgbench("-M", "prepared", "-f", script)    # into the caches
        waits = {count: [] for count in databases}
        works = {count: [] for count in databases}
        for _ in range(arguments.rounds):
            for count, database in databases.items():
                waits[count].append(database.latency_ms("-M", "prepared", "-f", script))
                works[count].append(database.update_cpu_us())
        wait = {count: statistics.median(values) for count, values in waits.items()}
        work = {count: statistics.median(values) for count, values in works.items()}
        for count, database in databases.items():
            lines.append("    %-10s %d tables %19s %10.3f ms %8.3f %s %17.0f us %s" % (
                how, count, "", wait[count], wait[count] - wait[0], ratio(wait[count] - wait[0], wait[1] - wait[0]),
                work[count], ratio(work[count] - work[0], work[1] - work[0])))
            for number in range(count):
                database.check(how, NINE[number], "part_%d" % number)
            server.sql('DROP DATABASE "%s"' % database.name)


def measure_bulk(server, names, lines):
    """Updates of many rows under a join: with GROUP BY, and with a row for each; each contender in turn."""
    for title, query, table in (("by branch", BY_BRANCH, "by_branch"), ("a row per account", PER_ACCOUNT, "per_account")):
        lines.append("bulk UPDATE under the join, %-18s %6s %8s %14s %8s" % (title, "", "of both", "CPU", "of both"))
        took = {}
        for _ in range(arguments.bulk_rounds):
            for name in names:
                database = make(server, "bulk_" + name.lower())
                database.maintain(name, query, table)
                database.sql("VACUUM ANALYZE")
                if name == "none":
                    database.sql("CREATE MATERIALIZED VIEW refreshed AS %s" % query)
                    took.setdefault(("refresh", 0), []).append(database.patiently("REFRESH MATERIALIZED VIEW refreshed"))
                for rows in (100000, 1000000):
                    server.sql("CHECKPOINT")
                    one = database.patiently("UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid <= %d" % rows)
                    took.setdefault((name, rows), []).append(one)
                    if one is None:
                        break
                    database.sql("VACUUM pgbench_accounts")
                database.check(name, query, table)
                server.sql('DROP DATABASE "%s"' % database.name)
        medians = {key: None if None in values else [statistics.median(column) for column in zip(*values)] for key, values in took.items()}
        for (name, rows), seconds in medians.items():
            plain = medians.get(("none", rows))
            if seconds is None:
                lines.append("    %-20s %9d > %d s" % (name, rows, arguments.patience))
                continue
            both = [plain[i] + medians["refresh", 0][i] if plain else None for i in range(2)]
            lines.append("    %-20s %9s %10.2f s %s %12.2f s %s" % (
                "REFRESH MATERIALIZED VIEW" if name == "refresh" else name, rows or "", seconds[0], ratio(seconds[0], both[0]),
                seconds[1], ratio(seconds[1], both[1])))


settings = {"autovacuum": "on", "fsync": "on" if arguments.fsync else "off", "shared_buffers": "1GB", "jit": "off"}
if os.path.exists(os.path.join(cluster.run(os.environ.get("PG_CONFIG", "pg_config"), "--pkglibdir"), "pg_ivm.so")):
    settings["shared_preload_libraries"] = "pg_ivm"
with contextlib.ExitStack() as stack:
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    server = stack.enter_context(cluster.Cluster(settings))
    server.sql("CREATE DATABASE template_bench")
    cluster.run(server.program("pgbench"), "-i", "-q", "-s", str(arguments.scale), server.conninfo.replace("dbname=postgres", "dbname=template_bench"))
    names = contenders(server)
    lines = Lines()
    if "tps" in PARTS:
        measure_tps(server, names, lines)
    if "insert" in PARTS:
        measure_single_rows(server, names, lines, directory)
    if "tables" in PARTS:
        measure_many_tables(server, names, lines, directory)
    if "bulk" in PARTS:
        measure_bulk(server, names, lines)
    lines.append("goals: IMMEDIATE at 8 clients >= 0.75 of none and >= 7 of pg_ivm; 1,000,000 rows <= 1.2 of update plus full query; nine tables add <= 5 of what one adds")
    report("immediate" + ("-fsync" if arguments.fsync else ""), server, lines)
