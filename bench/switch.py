#!/usr/bin/env python3
# bench/switch.py
#     What do writers of a large source notice while a stream table over it becomes IMMEDIATE, is paused and resumed, and gets its schedule back?
#
# pgbench at a fixed rate changes single rows of a table of three million; the latencies of its transactions are taken from its own log, counted from
# when each was due.  Two stream tables: groups over the whole table, and a join with a row for each of its rows.  The query by itself is timed as
# well: writers waited that long when the lock came before the query.  Goal: no writer waits longer than for a short lock.  After each step the stream table must
# equal its query.
#
#     bench/switch.py [--rows N] [--rate N]
import argparse
import time

from paced import PacedWriters, describe
from stream_tables import StreamTables, report, timed

parser = argparse.ArgumentParser()
parser.add_argument("--rows", type=int, default=3_000_000)
parser.add_argument("--rate", type=int, default=100)
arguments = parser.parse_args()

SETTINGS = {"fsync": "on", "autovacuum": "on", "max_wal_size": "'8GB'", "shared_buffers": "'512MB'"}
SCRIPT = r"""
\set id random(1, %(rows)d)
\set k random(1, 1000)
UPDATE big SET v = v + 1, k = :k WHERE id = :id;
"""
TABLES = [
    ("groups", "SELECT k, count(*) AS n, sum(v) AS total FROM big GROUP BY k"),
    ("joined", "SELECT b.id, b.v, s.name FROM big b JOIN small s USING (k)"),
]


def alter(name, change):
    return "SELECT pgtrickle.alter_stream_table('%s', %s)" % (name, change)


STEPS = [
    ("becomes IMMEDIATE", "refresh_mode => 'IMMEDIATE'"),
    ("paused", "status => 'PAUSED'"),
    ("resumed", "status => 'ACTIVE'"),
    ("back to a schedule", "refresh_mode => 'AUTO'"),
]


def check(server, name):
    answer = server.sql("SET pgtrickle.refresh_timeout = 0; SELECT count(*) FROM pgtrickle.verify('%s')" % name)
    if answer.split()[-1] != "0":
        raise SystemExit("stream table %s differs from its query" % name)


with StreamTables(SETTINGS) as server:
    server.sql("""CREATE TABLE big (id bigint PRIMARY KEY, k integer, v bigint); CREATE TABLE small (k integer PRIMARY KEY, name text);
        INSERT INTO big SELECT i, i %% 1000 + 1, i FROM generate_series(1, %d) i; INSERT INTO small SELECT g, 'name ' || g FROM generate_series(1, 1000) g;
        VACUUM ANALYZE big; VACUUM ANALYZE small; CHECKPOINT""" % arguments.rows)
    for name, query in TABLES:
        server.create(name, query)
    lines = ["%d rows, %d transactions/s" % (arguments.rows, arguments.rate), ""]
    writers = PacedWriters(server, SCRIPT % {"rows": arguments.rows}, arguments.rate)
    time.sleep(10)
    moments = []
    for name, query in TABLES:
        alone = timed(server.sql, "SELECT count(*) FROM (%s OFFSET 0) q" % query)
        for step, change in STEPS:
            time.sleep(2)
            started = time.time()
            server.sql(alter(name, change))
            moments.append((name, step, alone, started, time.time()))
            if step != "paused":
                time.sleep(1)
                check(server, name)
    writers.stop()
    first = moments[0][3]
    lines.append("before                       " + describe(writers.latencies(first - 8, first)))
    for name, step, alone, started, ended in moments:
        # those that waited end a moment later
        lines.append("%-7s %-19s %6.2f s (its query %5.2f s)   %s" % (name, step, ended - started, alone, describe(writers.latencies(started, ended + 0.5))))
    lines.append("")
    lines.append("each equalled its query after each step")
    report("switch", server, lines)
