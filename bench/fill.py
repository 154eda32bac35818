#!/usr/bin/env python3
# bench/fill.py
#     What do writers of a large source notice while a stream table over it is filled for the first time?
#
# pgbench at a fixed rate inserts, updates and deletes single rows of a table of ten million; the latencies of its transactions are taken from its own
# log, counted from when each was due, before the fill and during it.  Two stream tables, one after the other: groups over the whole table, and a
# million of its rows.  The source logs no old rows before the first, so that fill ends by taking its lock.  Goal: no writer waits longer than
# for a short lock.  Afterwards the stream tables must equal their queries.
#
#     bench/fill.py [--rows N] [--rate N] [--before SECONDS]
import argparse
import time

from paced import PacedWriters, describe
from stream_tables import StreamTables, percentile, report, timed

parser = argparse.ArgumentParser()
parser.add_argument("--rows", type=int, default=10_000_000)
parser.add_argument("--rate", type=int, default=200)
parser.add_argument("--before", type=int, default=15)
arguments = parser.parse_args()

SETTINGS = {"fsync": "on", "autovacuum": "on", "max_wal_size": "'8GB'", "shared_buffers": "'512MB'"}
SCRIPT = r"""
\set id random(1, %(rows)d)
\set new random(1, 2000000000)
UPDATE big SET v = v + 1 WHERE id = :id;
INSERT INTO big SELECT :new::bigint + %(rows)d, :id %% 1000, 1 ON CONFLICT DO NOTHING;
DELETE FROM big WHERE id = :id + 7;
"""
FILLS = [
    ("groups", "SELECT k, count(*) AS n, sum(v) AS total FROM big GROUP BY k"),
    ("rows", "SELECT id, k, v FROM big WHERE k < 100"),
]


with StreamTables(SETTINGS) as server:
    server.sql("""CREATE TABLE big (id bigint PRIMARY KEY, k integer, v bigint);
        INSERT INTO big SELECT i, i %% 1000, i FROM generate_series(1, %d) i; VACUUM ANALYZE big; CHECKPOINT""" % arguments.rows)
    writers = PacedWriters(server, SCRIPT % {"rows": arguments.rows}, arguments.rate)
    lines = ["%d rows, %d transactions/s of three statements each" % (arguments.rows, arguments.rate), ""]
    time.sleep(5)
    moments = {}
    for name, query in FILLS:
        started = time.time()
        time.sleep(arguments.before)
        filled_from = time.time()
        server.create(name, query)
        filled_to = time.time()
        caught_up = timed(server.sql, "SELECT pgtrickle.wait_fresh('%s', '10 minutes')" % name)
        time.sleep(2)
        moments[name] = (started, filled_from, filled_to, caught_up)
    writers.stop()
    for name, (started, filled_from, filled_to, caught_up) in moments.items():
        before = writers.latencies(started, filled_from)
        during = writers.latencies(filled_from, filled_to)
        lines.append("%-7s fill %6.1f s, fresh %5.1f s later" % (name, filled_to - filled_from, caught_up))
        lines.append("    before  " + describe(before))
        lines.append("    during  " + describe(during))
        lines.append("    p99 during / before  %.2f" % (percentile(during, 0.99) / percentile(before, 0.99)))
    for name, _ in FILLS:
        server.sql("SET pgtrickle.refresh_timeout = 0; SELECT pgtrickle.refresh_stream_table('%s')" % name)
        if server.sql("SET pgtrickle.refresh_timeout = 0; SELECT count(*) FROM pgtrickle.verify('%s')" % name).split()[-1] != "0":
            raise SystemExit("stream table %s differs from its query" % name)
    lines.append("")
    lines.append("both equal their queries afterwards")
    report("fill", server, lines)
