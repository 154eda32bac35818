#!/usr/bin/env python3
# bench/replica_copy.py
#     How fast is a table copied to another server for the first time?
#
# Two clusters.  The same two tables are brought from one to the other in three ways, one after the other: pg_dump through a pipe into psql, with the
# primary keys as pg_dump makes them; built-in logical replication's initial synchronization; and copies, by setup and the applier, until they are
# active, which includes everything: making the tables, waiting for old transactions, loading, keys, the switch.  Each result is compared with
# its source by a hash over all rows.  Ratios above 1 mean that copying is faster.  Goal: 1.0 and more against both.
#
#     bench/replica_copy.py [--rows N]
import argparse
import subprocess
import time

from cluster import Cluster
from stream_tables import StreamTables, report

parser = argparse.ArgumentParser()
parser.add_argument("--rows", type=int, default=2_000_000)
parser.add_argument("--runs", type=int, default=3)
arguments = parser.parse_args()

TABLES = ("orders", "lines")
SETTINGS = {"max_wal_size": "'8GB'", "max_logical_replication_workers": 8, "max_sync_workers_per_subscription": 2, "max_worker_processes": 16}


def fill(source):
    source.sql("""CREATE SCHEMA app;
        CREATE TABLE app.orders (id bigint PRIMARY KEY, customer int NOT NULL, placed_at timestamptz, amount numeric(12, 2), note text);
        CREATE TABLE app.lines (order_id bigint, line_no int, article text, quantity int, price numeric(12, 2), PRIMARY KEY (order_id, line_no));
        INSERT INTO app.orders SELECT i, i %% 100000, now(), i %% 10000 / 7.0, 'note about order ' || i FROM generate_series(1, %d) i;
        INSERT INTO app.lines SELECT i / 3, i %% 3, 'article ' || i %% 5000, i %% 10, i %% 1000 / 3.0 FROM generate_series(1, %d) i;
        VACUUM ANALYZE; CHECKPOINT""" % (arguments.rows // 2, arguments.rows // 2))


def contents(server):
    return [server.sql("SELECT count(*), sum(hashtextextended(t::text, 0)) FROM app.%s t" % table) for table in TABLES]


def wait_until(server, query):
    while server.sql(query).strip() != "t":
        time.sleep(0.05)


def by_dump(source, target):
    commands = "%s --schema=app '%s' | %s -Xq -d '%s' >/dev/null" % (
        source.program("pg_dump"), source.conninfo, target.program("psql"), target.conninfo)
    subprocess.run(["sh", "-c", commands], check=True)


def by_subscription(source, target):
    schema = subprocess.run([source.program("pg_dump"), "--schema=app", "--schema-only", source.conninfo], check=True,
                            capture_output=True, text=True).stdout
    target.sql(schema)
    source.sql("CREATE PUBLICATION bench FOR TABLES IN SCHEMA app")
    target.sql("CREATE SUBSCRIPTION bench CONNECTION '%s' PUBLICATION bench" % source.conninfo)
    wait_until(target, "SELECT count(*) = 2 AND bool_and(srsubstate IN ('r', 's')) FROM pg_subscription_rel")


def by_copies(source, target):
    subprocess.run([target.program("pgtrickle"), "setup", "--target", target.conninfo, "--source", source.conninfo,
                    "--name", "bench", "--table", "app.orders", "--table", "app.lines"],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(target, "SELECT count(*) = 2 AND bool_and(status = 'ACTIVE') FROM pgtrickle.copy_catalog()")


def clean(way, source, target):
    if way == "logical replication":
        target.sql("DROP SUBSCRIPTION bench")
        source.sql("DROP PUBLICATION bench")
    if way == "copies":
        target.sql("SELECT pgtrickle.drop_remote('bench', true)")
        wait_until(source, "SELECT bool_and(NOT active) IS NOT FALSE FROM pg_replication_slots")
        source.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    target.sql("DROP SCHEMA app CASCADE")
    target.sql("CHECKPOINT")


WAYS = (("pg_dump | psql", by_dump), ("logical replication", by_subscription), ("copies", by_copies))

with Cluster(SETTINGS) as source, StreamTables(SETTINGS) as target:
    fill(source)
    wanted = contents(source)
    bytes_copied = int(source.sql("SELECT sum(pg_table_size(c.oid)) FROM pg_class c WHERE relnamespace = 'app'::regnamespace AND relkind = 'r'"))
    seconds = {way: [] for way, _ in WAYS}
    for _ in range(arguments.runs):
        for way, bring in WAYS:
            began = time.time()
            bring(source, target)
            seconds[way].append(time.time() - began)
            if contents(target) != wanted:
                raise SystemExit("%s: the target differs from the source" % way)
            clean(way, source, target)
    best = {way: min(values) for way, values in seconds.items()}
    lines = ["%d rows in two tables, %.0f MB; best of %d runs; all results equal their source" % (arguments.rows, bytes_copied / 1e6, arguments.runs), ""]
    for way, _ in WAYS:
        lines.append("%-20s %6.1f s  %5.1f MB/s  %8.0f rows/s" % (way, best[way], bytes_copied / 1e6 / best[way], arguments.rows / best[way]))
    lines.append("")
    for way, _ in WAYS[:2]:
        lines.append("copies against %-20s %.2f" % (way, best[way] / best["copies"]))
    report("replica_copy", target, lines)
