#!/usr/bin/env python3
# bench/tpch.py
#     The 22 queries of TPC-H as stream tables at once: a refresh by delta beside running the query again.
#
#   bench/tpch.py [--cycles N] [--measured N] [--loads N] [--only q1,q3] [SCALE...]     default: scale 0.1; or TPCH_SCALES="0.1 1"
#
# The data is in build/tpch/sf<scale>/, made by tools/fetch-tpch.  Every cycle is one tick of all 22, after one transaction
# (tpch/changes.sql) that inserts and deletes orders with their lineitems, updates both, and changes customer, part, supplier and
# partsupp.  A refresh's time is what the history of refreshes says; the figure beside it is REFRESH MATERIALIZED VIEW of the same
# query on the same data, which is what a user without stream tables runs.
#
# First the answers are proved: ten cycles, `verify` of all 22 after each.  Then times are taken, in refresh mode DIFFERENTIAL, so that
# the delta is measured even where AUTO would not choose it, and in AUTO.  Both are done twice: with no index beyond the primary keys, and with
# the indexes that our own advice names.  (While stream tables are filled and verified there is an index on lineitem (l_partkey, l_suppkey), since
# without it the queries 17 and 20 themselves take hours at scale 1.  It is dropped before times are taken.)
import math
import os
import re
import statistics
import subprocess
import sys

import cluster
import stream_tables

HERE = os.path.dirname(os.path.abspath(__file__))
FILES = os.path.join(HERE, "tpch")
SHORTEST_MS = 0.05  # the history of refreshes keeps a tenth of a millisecond
DATA = os.path.join(os.path.dirname(HERE), "build", "tpch")
TABLES = ("region", "nation", "part", "supplier", "partsupp", "customer", "orders", "lineitem")
HELPING_INDEX = "CREATE INDEX helping ON lineitem (l_partkey, l_suppkey)"
# (title, one row in so many, other tables too)
LOADS = (("0.1 %", 1000, 1), ("0.1 % of orders and lineitem only", 1000, 0), ("0.01 %", 10000, 1), ("1 %", 100, 1))
QUERY_TIMEOUT_S = 120
SETTINGS = {"shared_buffers": "2GB", "work_mem": "256MB", "maintenance_work_mem": "512MB", "jit": "off",
            "max_parallel_workers_per_gather": 0, "random_page_cost": 1.1, "effective_cache_size": "12GB"}


def read(name):
    with open(os.path.join(FILES, name)) as text:
        return text.read()


def queries():
    """What must be run before, and a list of (name, text)."""
    before, *rest = re.split(r"^-- (Q\d+)\n", read("queries.sql"), flags=re.M)
    return before, [(name.lower(), text.strip()) for name, text in zip(rest[::2], rest[1::2])]


class Tpch:
    def __init__(self, server, scale, only):
        self.server = server
        self.scale = scale
        self.round = 0
        before, self.queries = queries()
        self.queries = [query for query in self.queries if not only or query[0] in only]
        self.names = [name for name, _ in self.queries]
        self._load(before)

    def _load(self, before):
        server = self.server
        server.sql(read("schema.sql"))
        for table in TABLES:
            file = os.path.join(DATA, "sf%s" % self.scale, table + ".csv")
            server.sql("\\copy %s FROM '%s' WITH (FORMAT csv, HEADER)" % (table, file))
        server.sql(read("keys.sql"))
        server.sql(before)

    def create_all(self):
        """Fills 22 stream tables, and as many materialized views beside them (empty ones)."""
        self.server.sql(HELPING_INDEX)
        self.why_full = {}
        for name, query in self.queries:
            self.server.create(name, query, "manual", "AUTO")
            self.server.sql("CREATE MATERIALIZED VIEW mv_%s AS %s WITH NO DATA" % (name, query))
            reason = self.server.sql("SELECT downgrade_reason FROM pgtrickle.explain_refresh_mode('%s')" % name)
            if reason:
                self.why_full[name] = reason
        self.server.create("all_of_them", " UNION ALL ".join("SELECT '%s' AS name FROM %s" % (name, name) for name in self.names),
                           "manual", "AUTO")
        self.server.sql("DROP INDEX helping")

    def set_mode(self, mode):
        for name in self.names:
            if name not in self.why_full:
                self.server.sql("SELECT pgtrickle.alter_stream_table('%s', refresh_mode => '%s')" % (name, mode))

    def change(self, every, dimensions):
        self.round += 1
        self.server.sql(read("changes.sql"), every=every, round=self.round, dimensions=dimensions)

    def refresh(self):
        """One tick of all; returns name -> (milliseconds, action)."""
        before = self._history()
        self.server.sql("SET pgtrickle.refresh_timeout = 0; SELECT pgtrickle.refresh_stream_table('all_of_them')")
        after = self._history()
        return {name: (after[name][0] - before[name][0], after[name][1]) for name in self.names}

    def _history(self):
        rows = self.server.sql("""
            SELECT pgt_name, sum(duration_ms), (array_agg(action ORDER BY refresh_id DESC))[1]
            FROM pgtrickle.pgt_refresh_history h JOIN pgtrickle.pgt_stream_tables USING (pgt_id) GROUP BY pgt_name""")
        return {name: (float(ms), action) for name, ms, action in (row.split("|") for row in rows.splitlines())}

    def verify(self):
        self.server.sql(HELPING_INDEX)
        for name in self.names:
            different = self.server.sql("SET pgtrickle.refresh_timeout = 0; SELECT * FROM pgtrickle.verify('%s')" % name)
            if different:
                raise SystemExit("%s differs from its query after round %d:\n%s" % (name, self.round, different[:2000]))
        self.server.sql("DROP INDEX helping")

    def measure(self, every, dimensions, cycles):
        """name -> (median milliseconds, the last action); the first cycle only makes plans."""
        times = {name: [] for name in self.names}
        actions = {}
        # so that neither figure pays for the visibility map and the statistics of earlier changes
        self.server.sql("VACUUM (ANALYZE) orders; VACUUM (ANALYZE) lineitem; VACUUM customer, supplier, part, partsupp")
        for cycle in range(cycles + 1):
            self.change(every, dimensions)
            for name, (ms, action) in self.refresh().items():
                actions[name] = action
                if cycle > 0:
                    times[name].append(ms)
        return {name: (max(statistics.median(times[name]), SHORTEST_MS), actions[name]) for name in self.names}

    def full_times(self):
        """name -> milliseconds of REFRESH MATERIALIZED VIEW, the better of two; infinite above the time limit."""
        found = {}
        for name in self.names:
            best = math.inf
            for _ in range(2):
                done = subprocess.run([self.server.program("psql"), "-XAtq", "-d", self.server.conninfo, "-c",
                                       "SET statement_timeout = '%ds'" % QUERY_TIMEOUT_S, "-c", "\\timing on",
                                       "-c", "REFRESH MATERIALIZED VIEW mv_" + name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
                if done.returncode != 0:
                    break
                best = min(best, float(re.search(r"Time: ([0-9.]+) ms", done.stdout).group(1)))
            found[name] = best
        return found

    def advised_indexes(self):
        """Creates what the stream tables' advice names; returns the statements."""
        statements = sorted({statement for name in self.names
                             for statement in self.server.sql("SELECT statement FROM pgtrickle.index_advice('%s')" % name).splitlines()})
        for statement in statements:
            self.server.sql(statement)
        return statements


def show_ms(ms):
    return "> %d s" % QUERY_TIMEOUT_S if ms == math.inf else "%.1f" % ms


def table(names, full, delta, auto):
    lines = ["%-5s %10s %10s %9s   %10s %9s  %s" % ("query", "full ms", "delta ms", "ratio", "AUTO ms", "ratio", "AUTO chose")]
    for name in names:
        full_ms = min(full[name], 1000 * QUERY_TIMEOUT_S)
        lines.append("%-5s %10s %10.1f %8s%.1f   %10.1f %8s%.1f  %s" % (
            name, show_ms(full[name]), delta[name][0], ">" if full[name] == math.inf else "", full_ms / delta[name][0],
            auto[name][0], ">" if full[name] == math.inf else "", full_ms / auto[name][0], auto[name][1].lower()))
    return lines


def summary(names, full, measured):
    ratios = [min(full[name], 1000 * QUERY_TIMEOUT_S) / measured[name][0] for name in names]
    return "geometric mean %.1f, faster than full %d of %d, worst %.2f" % (
        math.exp(statistics.mean(math.log(ratio) for ratio in ratios)), sum(ratio > 1 for ratio in ratios), len(ratios), min(ratios))


def run_scale(server, scale, cycles, measured, loads, only):
    tpch = Tpch(server, scale, only)
    tpch.create_all()
    lines = ["scale %s" % scale]
    lines += ["%s has no delta: %s" % item for item in tpch.why_full.items()]
    tpch.set_mode("DIFFERENTIAL")
    for cycle in range(cycles):
        tpch.change((100, 1000, 10000)[cycle % 3], 1)
        tpch.refresh()
        tpch.verify()
    lines.append("verified after each of %d cycles: all %d equal their queries" % (cycles, len(tpch.names)))
    print("\n".join(lines), flush=True)
    for with_advice in (False, True):
        statements = tpch.advised_indexes() if with_advice else []
        if with_advice and not statements:
            break
        lines += ["", "indexes: " + ("; ".join(statements) if with_advice else "primary keys only")]
        full = tpch.full_times()
        for title, every, dimensions in LOADS[:loads]:
            found = {}
            for mode in ("DIFFERENTIAL", "AUTO"):
                tpch.set_mode(mode)
                found[mode] = tpch.measure(every, dimensions, measured)
            part = ["", "changes: %s" % title] + table(tpch.names, full, found["DIFFERENTIAL"], found["AUTO"])
            part += ["%-12s %s" % (mode, summary(tpch.names, full, found[mode])) for mode in found]
            print("\n".join(part), flush=True)
            lines += part
    tpch.verify()
    lines.append("verified at the end: all %d equal their queries" % len(tpch.names))
    return lines


def option(arguments, name, default):
    """Takes an option and its value out of the arguments."""
    if name not in arguments:
        return default
    at = arguments.index(name)
    value = arguments[at + 1]
    del arguments[at:at + 2]
    return value


def main(arguments):
    cycles = int(option(arguments, "--cycles", "10"))
    measured = int(option(arguments, "--measured", "5"))
    loads = int(option(arguments, "--loads", str(len(LOADS))))
    only = option(arguments, "--only", "").split(",") if "--only" in arguments else []
    scales = arguments or os.environ.get("TPCH_SCALES", "0.1").split()
    for scale in scales:
        if not os.path.isdir(os.path.join(DATA, "sf%s" % scale)):
            raise SystemExit("there is no data for scale %s: run tools/fetch-tpch %s" % (scale, scale))
    for scale in scales:
        with stream_tables.StreamTables(SETTINGS) as server:
            stream_tables.report("tpch-sf%s" % scale, server, run_scale(server, scale, cycles, measured, loads, only))


if __name__ == "__main__":
    main(sys.argv[1:])
