#!/usr/bin/env python3
# bench/cost.py
#     What the constants of delta/cost.c stand for, on this machine.
#
# One unit of the planner in milliseconds, by queries of the kinds that refreshes are made of; and in such units what is not SQL in a refresh: starting
# a step, a row merged into a state table, a row applied to a stream table, a row compared in a full refresh.  Of several rounds the shortest
# counts, since everything else that runs can only add to it.  The constants need not be exact (what is observed corrects them); they should be of the right
# order.
#
#     bench/cost.py [--rows N] [--rounds N]
import argparse
import re
import statistics
import time

from stream_tables import StreamTables, report

parser = argparse.ArgumentParser()
parser.add_argument("--rows", type=int, default=200000)
parser.add_argument("--rounds", type=int, default=4)
arguments = parser.parse_args()
ROWS = arguments.rows
CHANGED = ROWS // 10

KINDS = {
    "scan": "SELECT sum(amount) FROM facts",
    "scan and group": "SELECT k, sum(amount), count(*) FROM facts GROUP BY k",
    "hash join": "SELECT count(*) FROM facts f JOIN facts g ON g.id = f.k",
    "index probes": "SELECT count(*) FROM generate_series(1, 20000) s (i), LATERAL (SELECT amount FROM facts WHERE id = s.i OFFSET 0) f",
    "sort": "SELECT id FROM facts ORDER BY amount, k OFFSET 1000000",
}


def explained(server, query):
    """Cost and milliseconds of a query."""
    best = None
    for _ in range(arguments.rounds):
        text = server.sql("SET jit = off; SET max_parallel_workers_per_gather = 0; SET work_mem = '64MB';"
                          "EXPLAIN (ANALYZE, TIMING OFF) " + query)
        cost = float(re.search(r"cost=[\d.]+\.\.([\d.]+)", text).group(1))
        spent = float(re.search(r"Execution Time: ([\d.]+)", text).group(1))
        best = spent if best is None else min(best, spent)
    return cost, best


def steps(server, name):
    """Of the last refresh that was written down: [(rows in, ms), ...]."""
    rows = server.sql("SELECT rows_in, duration_ms FROM pgtrickle.pgt_step_runs JOIN pgtrickle.pgt_stream_tables USING (pgt_id) "
                      "WHERE pgt_name = '%s' ORDER BY step" % name)
    return [tuple(float(field) for field in row.split("|")) for row in rows.splitlines()]


def duration(server, name):
    return float(server.sql("SELECT duration_ms FROM pgtrickle.pgt_refresh_history JOIN pgtrickle.pgt_stream_tables USING (pgt_id) "
                            "WHERE pgt_name = '%s' ORDER BY refresh_id DESC LIMIT 1" % name))


def refreshed(server, name, change):
    server.sql(change)
    # steps are written down once a second
    time.sleep(1.1)
    server.sql("SELECT pgtrickle.refresh_stream_table('%s')" % name)
    return steps(server, name), duration(server, name)


with StreamTables() as server:
    server.sql("""CREATE TABLE facts (id int PRIMARY KEY, k int NOT NULL, amount int NOT NULL);
        INSERT INTO facts SELECT g, 1 + g %% %d, g %% 1000 FROM generate_series(1, %d) g; ALTER TABLE facts REPLICA IDENTITY FULL; ANALYZE;"""
               % (CHANGED * 2, ROWS))
    server.create("applied", "SELECT id, k, amount * 2 AS twice FROM facts", "manual")
    server.create("merged", "SELECT k, sum(amount) AS total, count(*) AS n FROM facts GROUP BY k", "manual")
    server.create("compared", "SELECT id, k, amount FROM facts", "manual", "FULL")

    lines = ["%-34s %10s %10s" % ("", "ms", "units")]
    units = []
    for kind, query in KINDS.items():
        cost, spent = explained(server, query)
        units.append(spent / cost)
        lines.append("%-34s %10.5f" % ("one unit, by " + kind, spent / cost))
    unit = statistics.median(units)
    lines.append("%-34s %10.5f %10.2f" % ("one unit, the median", unit, 1))

    started, merged, applied, compared = [], [], [], []
    for round_no in range(arguments.rounds):
        runs, _ = refreshed(server, "merged", "UPDATE facts SET amount = amount + 1 WHERE id = %d" % (round_no + 1))
        started.append(min(ms for _, ms in runs))
        runs, _ = refreshed(server, "merged", "UPDATE facts SET amount = amount + 1 WHERE id <= %d" % CHANGED)
        # the merge is the step that follows the group delta
        merged.append(runs[1][1] / runs[1][0])
        runs, spent = refreshed(server, "applied", "SELECT 1")
        applied.append((spent - sum(ms for _, ms in runs)) / CHANGED)
        runs, spent = refreshed(server, "compared", "UPDATE facts SET amount = amount - 1 WHERE id = %d" % (round_no + 1))
        _, alone = explained(server, "SELECT id, k, amount FROM facts")
        compared.append((spent - alone) / (2 * ROWS))
    for what, figures in (("starting a step", started), ("a row merged", merged), ("a row applied", applied), ("a row compared", compared)):
        lines.append("%-34s %10.5f %10.2f" % (what, min(figures), min(figures) / unit))
    differences = server.sql("SELECT count(*) FROM pgtrickle.verify('applied')") + server.sql("SELECT count(*) FROM pgtrickle.verify('merged')")
    if differences != "00":
        raise SystemExit("a stream table differs from its query")
    report("cost", server, lines)
