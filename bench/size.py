#!/usr/bin/env python3
# bench/size.py
#     Does the refresh time of a one-row change depend on the size of the sources?
#
# A join with GROUP BY over 10^4 rows and more: one-row updates, the time of a refresh by delta in the server, beside REFRESH
# MATERIALIZED VIEW of the same query.  The goal is a flat curve.
#
#     bench/size.py [--largest POWER_OF_TEN]
import argparse
import statistics

from stream_tables import StreamTables, report, timed

parser = argparse.ArgumentParser()
parser.add_argument("--largest", type=int, default=6)
arguments = parser.parse_args()

QUERY = """SELECT c.region, count(*) AS n, sum(o.amount) AS total
    FROM orders o JOIN customers c ON c.id = o.customer_id GROUP BY c.region"""

lines = ["%10s %18s %18s %10s" % ("rows", "delta refresh", "full refresh", "ratio")]
for power in range(4, arguments.largest + 1):
    rows = 10 ** power
    with StreamTables() as server:
        server.sql("""
            CREATE TABLE customers (id int PRIMARY KEY, region int NOT NULL);
            INSERT INTO customers SELECT g, g %% 1000 FROM generate_series(1, %d) g;
            CREATE TABLE orders (id int PRIMARY KEY, customer_id int NOT NULL, amount int NOT NULL);
            INSERT INTO orders SELECT g, 1 + g %% %d, g %% 1000 FROM generate_series(1, %d) g;
            ANALYZE;
            CREATE MATERIALIZED VIEW in_full AS %s;""" % (rows // 100, rows // 100, rows, QUERY))
        server.create("by_region", QUERY)
        for change in range(60):
            server.sql("UPDATE orders SET amount = amount + 1 WHERE id = %d; SELECT pgtrickle.refresh_stream_table('by_region')"
                       % (1 + change * 131 % rows))
        in_full = statistics.median(timed(server.sql, "REFRESH MATERIALIZED VIEW in_full") * 1000 for _ in range(3))
        delta = float(server.sql("""SELECT sum(duration_ms) / sum(refreshes) FROM (SELECT * FROM pgtrickle.pgt_history
            WHERE action = 'DIFFERENTIAL' ORDER BY refresh_id OFFSET 1) h""")
                      or server.sql("SELECT sum(duration_ms) / sum(refreshes) FROM pgtrickle.pgt_history WHERE action = 'DIFFERENTIAL'"))
        server.check("by_region")
        lines.append("%10d %15.3f ms %15.1f ms %9.0fx" % (rows, delta, in_full, in_full / delta))
        if power == arguments.largest:
            report("size", server, lines)
