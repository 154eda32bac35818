#!/usr/bin/env python3
# bench/writers.py
#     What do writers of the sources notice?
#
# pgbench's own transactions and bulk statements, in turn on two clusters: one without stream tables, one with a stream table
# (join with GROUP BY) over the tables that are written.  Goal: >= 0.95 of the speed without.
#
#     bench/writers.py [--seconds N] [--rounds N]
import argparse
import re
import statistics

import cluster
from stream_tables import StreamTables, report, timed

parser = argparse.ArgumentParser()
parser.add_argument("--seconds", type=int, default=6)
parser.add_argument("--rounds", type=int, default=3)
arguments = parser.parse_args()

SETTINGS = {"fsync": "on", "autovacuum": "on"}
BULK = [
    ("bulk INSERT", "INSERT INTO pgbench_history SELECT 1, 1, g, 1, now() FROM generate_series(1, 100000) g"),
    ("bulk UPDATE", "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid <= 100000"),
    ("bulk DELETE", "DELETE FROM pgbench_history WHERE tid = 1 AND bid = 1"),
]


def pgbench(server, seconds, *options):
    output = cluster.run(server.program("pgbench"), "-n", "-c", "4", "-T", str(seconds), *options, server.conninfo)
    return float(re.search(r"tps = ([0-9.]+)", output).group(1))


def prepare(server):
    cluster.run(server.program("pgbench"), "-i", "-q", "-s", "10", server.conninfo)


with cluster.Cluster(SETTINGS) as plain, StreamTables(SETTINGS) as streaming:
    prepare(plain)
    prepare(streaming)
    streaming.create("by_branch", """SELECT b.bid, count(*) AS n, sum(a.abalance) AS total
        FROM pgbench_accounts a JOIN pgbench_branches b USING (bid) GROUP BY b.bid""")
    streaming.create("per_teller", "SELECT tid, count(*) AS n, sum(delta) AS total FROM pgbench_history GROUP BY tid")
    lines = ["%-20s %14s %14s %8s" % ("", "without", "with", "ratio")]
    for name, options in (("pgbench, flat out", ()), ("pgbench, 300/s", ("-R", "300"))):
        rates = {plain: [], streaming: []}
        for _ in range(arguments.rounds):
            for server in (plain, streaming):
                rates[server].append(pgbench(server, arguments.seconds, *options))
        without, with_them = (statistics.median(rates[server]) for server in (plain, streaming))
        lines.append("%-20s %10.0f tps %10.0f tps %8.2f" % (name, without, with_them, with_them / without))
    for name, statement in BULK:
        times = {plain: [], streaming: []}
        for _ in range(1 if "DELETE" in name else arguments.rounds):
            for server in (plain, streaming):
                times[server].append(timed(server.sql, statement))
        without, with_them = (statistics.median(times[server]) for server in (plain, streaming))
        lines.append("%-20s %11.2f s  %11.2f s  %8.2f" % (name, without, with_them, without / with_them))
    streaming.sql("SELECT pgtrickle.refresh_stream_table('by_branch'), pgtrickle.refresh_stream_table('per_teller')")
    streaming.check("by_branch", "per_teller")
    lines.append("goal: ratios >= 0.95; flat out, decoding and refreshing compete with pgbench for the same cores")
    report("writers", streaming, lines)
