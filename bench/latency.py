#!/usr/bin/env python3
# bench/latency.py
#     How long after its commit is a row visible in a continuous stream table over a join with GROUP BY?
#
# 500 one-row transactions a second run all the time (pgbench); beside them a session commits a row, and polls the stream table
# until it is in.  Goal: p50 <= 3 ms, p99 <= 15 ms.  fsync is on.
#
#     bench/latency.py [--rounds N]
import argparse
import subprocess

from stream_tables import StreamTables, describe, probe, report

parser = argparse.ArgumentParser()
parser.add_argument("--rounds", type=int, default=500)
arguments = parser.parse_args()

with StreamTables({"fsync": "on", "autovacuum": "on"}) as server:
    server.sql("""
        CREATE TABLE customers (id int PRIMARY KEY, region int NOT NULL);
        INSERT INTO customers SELECT g, g % 100 FROM generate_series(1, 10000) g;
        CREATE TABLE orders (id bigserial PRIMARY KEY, customer_id int NOT NULL, amount int NOT NULL);
        CREATE INDEX ON orders (customer_id);
        INSERT INTO orders (customer_id, amount) SELECT 1 + g % 10000, g FROM generate_series(1, 100000) g;
        ANALYZE;""")
    server.create("by_region", """SELECT c.region, count(*) AS n, sum(o.amount) AS total, max(o.id) AS newest
        FROM orders o JOIN customers c ON c.id = o.customer_id GROUP BY c.region""")
    server.sql("INSERT INTO customers VALUES (20000, 1000)")
    script = server.directory + "/insert.sql"
    with open(script, "w") as text:
        text.write("\\set c random(1, 10000)\nINSERT INTO orders (customer_id, amount) VALUES (:c, 1);\n")
    load = subprocess.Popen([server.program("pgbench"), "-n", "-f", script, "-R", "500", "-c", "2", "-T",
                             str(10 + arguments.rounds // 15), server.conninfo],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    latencies = probe(server, arguments.rounds, 0.02, "INSERT INTO orders (customer_id, amount) VALUES (20000, %s)",
                      "SELECT EXISTS (SELECT FROM by_region WHERE region = 1000 AND n >= %s)")
    output = load.communicate()[0]
    tps = [line for line in output.splitlines() if line.startswith("tps")]
    server.check("by_region")
    ticks = server.sql("""SELECT sum(refreshes), round((sum(duration_ms) / sum(refreshes))::numeric, 3)
        FROM pgtrickle.pgt_history WHERE action = 'DIFFERENTIAL'""").split("|")
    report("latency", server, [
        "load       %s" % (tps[0] if tps else "?"),
        "commit to visible   " + describe(latencies),
        "refreshes  %s, on average %s ms in the server" % tuple(ticks),
        "goal       p50 <= 3 ms, p99 <= 15 ms",
    ])
