#!/usr/bin/env python3
# bench/dag.py
#     How long after a commit is the last stream table of a DAG fresh: a chain of 10, a fan of 60 in three levels, a diamond?
#
# Goal: <= 10 ms, <= 30 ms, <= 6 ms.  All stream tables are continuous.  fsync is on.
#
#     bench/dag.py [--rounds N]
import argparse

from stream_tables import StreamTables, describe, probe, report

parser = argparse.ArgumentParser()
parser.add_argument("--rounds", type=int, default=100)
arguments = parser.parse_args()


def make_source(server, name):
    server.sql("CREATE TABLE %s (id int PRIMARY KEY, grp int NOT NULL, v bigint NOT NULL);"
               "INSERT INTO %s SELECT g, g %% 100, 0 FROM generate_series(1, 10000) g; ANALYZE %s" % (name, name, name))


def chain(server):
    make_source(server, "chain_source")
    upstream = "chain_source"
    for level in range(1, 11):
        server.create("chain%d" % level, "SELECT id, grp, v + 1 AS v FROM %s" % upstream)
        upstream = "chain%d" % level
    return "UPDATE chain_source SET v = %s WHERE id = 1", "SELECT v = %s + 10 FROM chain10 WHERE id = 1", ["chain10"]


def fan(server):
    make_source(server, "fan_source")
    last = []
    for branch in range(1, 21):
        server.create("fan%d_a" % branch, "SELECT grp, max(v) AS v FROM fan_source GROUP BY grp")
        server.create("fan%d_b" % branch, "SELECT grp, v + %d AS v FROM fan%d_a" % (branch, branch))
        server.create("fan%d_c" % branch, "SELECT max(v) - %d AS v FROM fan%d_b" % (branch, branch))
        last.append("fan%d_c" % branch)
    everyone = " UNION ALL ".join("SELECT v FROM " + name for name in last)
    return "UPDATE fan_source SET v = %s WHERE id = 1", "SELECT min(v) = %%s FROM (%s) f" % everyone, last


def diamond(server):
    make_source(server, "diamond_source")
    server.create("left_side", "SELECT grp, sum(v) AS v FROM diamond_source GROUP BY grp")
    server.create("right_side", "SELECT grp, count(*) AS n FROM diamond_source GROUP BY grp")
    server.create("bottom", "SELECT l.grp, l.v, r.n FROM left_side l JOIN right_side r USING (grp)")
    return "UPDATE diamond_source SET v = %s WHERE id = 1", "SELECT v = %s FROM bottom WHERE grp = 1", ["bottom"]


lines = []
for name, build, goal in (("chain of 10", chain, 10), ("fan of 60", fan, 30), ("diamond", diamond, 6)):
    with StreamTables({"fsync": "on", "autovacuum": "on"}) as server:
        change, arrived, last = build(server)
        probe(server, 5, 0.01, change, arrived)     # plans are made
        latencies = probe(server, arguments.rounds, 0.01, change, arrived)
        server.check(*last)
        lines.append("%-12s %s   goal p50 <= %d ms" % (name, describe(latencies), goal))
        if build is diamond:
            report("dag", server, lines)
