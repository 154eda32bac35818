#!/usr/bin/env python3
# bench/throughput.py
#     How many changes a second go from WAL into a stream table, beside only decoding them?
#
# A backlog of transactions of 5,000 inserts each is written while the applier is stopped; then the applier starts, and the clock runs until
# the stream table is fresh.  The same WAL is decoded by pg_recvlogical to /dev/null, from a copy of the slot, in the same run.
# (a) a filter and projection that lets every tenth row through, (b) a join with GROUP BY.  Goal: >= 0.9 and >= 0.7 of decoding.
#
#     bench/throughput.py [--transactions N]
import argparse
import time

import cluster
from stream_tables import StreamTables, report, timed

parser = argparse.ArgumentParser()
parser.add_argument("--transactions", type=int, default=100)
arguments = parser.parse_args()

ROWS = 5000
CASES = [
    ("filter and projection", "SELECT id, kind, amount FROM events WHERE id % 10 = 0", 0.9),
    ("join with GROUP BY", """SELECT k.name, count(*) AS n, sum(e.amount) AS total
        FROM events e JOIN kinds k ON k.id = e.kind GROUP BY k.name""", 0.7),
]


def decode_only(server, end):
    relid = server.sql("SELECT 'events'::regclass::oid")
    seconds = timed(cluster.run, server.program("pg_recvlogical"), "-d", server.conninfo, "--slot", "only_decode", "--start",
                    "-f", "/dev/null", "--endpos", end, "-o", "proto_version=1", "-o", "interest=" + relid)
    server.sql("SELECT pg_drop_replication_slot('only_decode')")
    return seconds


lines = ["%-24s %16s %16s %8s   goal" % ("", "decode only", "into the table", "ratio")]
for name, query, goal in CASES:
    with StreamTables({"synchronous_commit": "off"}) as server:
        server.sql("""
            CREATE TABLE kinds (id int PRIMARY KEY, name text NOT NULL);
            INSERT INTO kinds SELECT g, 'kind ' || g FROM generate_series(0, 199) g;
            CREATE TABLE events (id bigint PRIMARY KEY, kind int NOT NULL, amount int NOT NULL, at timestamptz NOT NULL,
                note text NOT NULL, flag boolean NOT NULL, ratio float8 NOT NULL);
            ANALYZE;""")
        server.create("st", query)
        slot = server.sql("SELECT slot_name FROM pg_replication_slots")
        server.stop_applier()
        server.sql("SELECT pg_copy_logical_replication_slot('%s', 'only_decode')" % slot)
        server.sql("".join("INSERT INTO events SELECT g, g %% 200, g %% 1000, now(), 'note ' || g, g %% 2 = 0, g / 7.0"
                           " FROM generate_series(%d, %d) g;\n" % (t * ROWS + 1, (t + 1) * ROWS)
                           for t in range(arguments.transactions)))
        # one commit behind the end, so that pg_recvlogical sees at once that it is there
        end = server.sql("SELECT pg_current_wal_insert_lsn()")
        server.sql("INSERT INTO events VALUES (0, 0, 0, now(), '', false, 0); SELECT pg_switch_wal()")
        changes = arguments.transactions * ROWS
        decode_seconds = decode_only(server, end)
        started = time.monotonic()
        server.start_applier()
        if server.sql("SELECT pgtrickle.wait_fresh('st', '5 minutes')") != "t":
            raise SystemExit("the stream table did not become fresh")
        applied_seconds = time.monotonic() - started
        server.check("st")
        lines.append("%-24s %12.0f /s %12.0f /s %8.2f   >= %.1f" % (
            name, changes / decode_seconds, changes / applied_seconds, decode_seconds / applied_seconds, goal))
        if name == CASES[-1][0]:
            report("throughput", server, lines)
