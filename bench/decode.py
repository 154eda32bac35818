#!/usr/bin/env python3
# bench/decode.py
#     How fast does the decoder turn WAL into a stream, beside other output plugins and beside none?
#
# Every plugin has a slot made before the workload and decodes the same WAL, through pg_recvlogical to
# /dev/null over a Unix socket, several times from copies of that slot, in changing order; the median
# counts.  "empty" emits nothing: what the server itself needs to read WAL and collect transactions.
# Before the clock runs, each plugin's output is read once through SQL, where its changes are counted
# and must be all there, and its bytes summed.
#
#     bench/decode.py [--scale F] [--rounds N]
#
# Writes to standard output and, where it may, to bench/results/decode.txt.
import argparse
import collections
import os
import statistics
import subprocess
import sys
import time

import cluster

HERE = os.path.dirname(os.path.abspath(__file__))
DUMP = os.path.join(HERE, "..", "proto", "build", "pgtrickle-dump")

# A CopyData message: five bytes of its own and 25 of WAL positions and time.
MESSAGE_HEADER_BYTES = 30


# Medians of several runs, and the extremes.
Result = collections.namedtuple("Result", "seconds cpu fastest slowest")


class Plugin:
    def __init__(self, name, library, options, function, count_changes):
        self.name = name
        self.library = library
        self.slot = "bench_" + library
        self.options = options
        self.function = function            # of SQL, that reads its kind of output
        self.count_changes = count_changes  # SQL expression over data; None: counted otherwise

    def recvlogical_options(self):
        return [item for name, value in self.options.items() for item in ("-o", "%s=%s" % (name, value))]

    def sql_options(self):
        return "".join(", '%s', '%s'" % item for item in self.options.items())


OURS = Plugin("pgtrickle", "pgtrickle_decoder", {"proto_version": "1", "interest": "*"},
              "pg_logical_slot_peek_binary_changes", None)
PGOUTPUT = Plugin("pgoutput", "pgoutput",
                  {"proto_version": "2", "publication_names": "bench", "binary": "true"},
                  "pg_logical_slot_peek_binary_changes", "chr(get_byte(data, 0)) IN ('I', 'U', 'D')")
EMPTY = Plugin("empty", "empty_plugin", {}, "pg_logical_slot_peek_binary_changes", "true")
PLUGINS = [
    OURS,
    EMPTY,
    PGOUTPUT,
    Plugin("wal2json", "wal2json", {"format-version": "2"}, "pg_logical_slot_peek_changes",
           "data LIKE '{\"action\":\"_\",\"schema%'"),
    Plugin("test_decoding", "test_decoding", {}, "pg_logical_slot_peek_changes", "data LIKE 'table %'"),
]

TABLE = """
CREATE TABLE orders (
    id          bigint PRIMARY KEY,
    customer_id integer NOT NULL,
    amount      numeric(12,2) NOT NULL,
    status      text NOT NULL,
    note        text,
    created_at  timestamptz NOT NULL,
    is_paid     boolean NOT NULL);
CREATE PUBLICATION bench FOR TABLE orders;
"""

INSERT = """
INSERT INTO orders
SELECT i, i % 10000, (i % 100000) / 100.0, (ARRAY['new', 'paid', 'sent', 'done'])[1 + i % 4],
       CASE WHEN i % 3 > 0 THEN 'note number ' || i END, timestamptz '2024-01-01' + i * interval '1 s', i % 2 = 0
FROM generate_series(:first, :last) i;
"""


def write_large(server, scale):
    """1,000,000 inserts, 250,000 updates and 50,000 deletes in three transactions."""
    rows = int(1000000 * scale)
    server.sql(INSERT, first=1, last=rows)
    server.sql("UPDATE orders SET status = 'done', amount = amount + 1 WHERE id % 4 = 0")
    server.sql("DELETE FROM orders WHERE id % 20 = 1")
    return rows + rows // 4 + rows // 20


def write_small(server, scale):
    """200,000 transactions of one row."""
    rows = int(200000 * scale)
    server.sql("""
        SET synchronous_commit = off;
        CREATE PROCEDURE one_by_one(first int, last int) LANGUAGE plpgsql AS $$
        BEGIN
            FOR i IN first .. last LOOP
                INSERT INTO orders VALUES (i, i % 10000, (i % 100000) / 100.0, 'new', 'note number ' || i, now(), true);
                COMMIT;
            END LOOP;
        END $$;
        CALL one_by_one(:first, :last);
        DROP PROCEDURE one_by_one;""", first=10000001, last=10000000 + rows)
    return rows


def build_empty_plugin(directory):
    """Compiles the plugin that emits nothing into a directory; the server finds it by dynamic_library_path."""
    pg_config = os.environ.get("PG_CONFIG", "pg_config")
    cluster.run("cc", "-O2", "-fPIC", "-shared", "-I" + cluster.run(pg_config, "--includedir-server"),
                "-o", os.path.join(directory, "empty_plugin.so"), os.path.join(HERE, "empty_plugin", "empty_plugin.c"))


def count_ours(server):
    """Our changes, as pgtrickle-dump reads them through protobuf-c."""
    psql = subprocess.Popen(
        [server.program("psql"), "-XAtq", "-d", server.conninfo, "-c",
         "SELECT data FROM %s('%s', NULL, NULL%s)" % (OURS.function, OURS.slot, OURS.sql_options())],
        stdout=subprocess.PIPE)
    dump = subprocess.Popen([DUMP, "--stable"], stdin=psql.stdout, stdout=subprocess.PIPE)
    changes = sum(line.startswith((b"insert", b"update", b"delete")) for line in dump.stdout)
    if psql.wait() != 0 or dump.wait() != 0:
        raise SystemExit("could not read our own stream")
    return changes


def check_output(server, plugin, expected):
    """Counts a plugin's changes and returns (messages, payload bytes)."""
    length = "length(data)" if "binary" in plugin.function else "octet_length(data)"
    messages, payload, changes = server.sql(
        "SELECT count(*), coalesce(sum(%s), 0), count(*) FILTER (WHERE %s) FROM %s('%s', NULL, NULL%s)"
        % (length, plugin.count_changes or "false", plugin.function, plugin.slot, plugin.sql_options())).split("|")
    if plugin is OURS:
        changes = count_ours(server)
    if plugin is not EMPTY and int(changes) != expected:
        raise SystemExit("%s: %s changes instead of %d" % (plugin.name, changes, expected))
    return int(messages), int(payload)


def decode_once(server, plugin, end_lsn, work_mem):
    """Seconds until a client has everything up to end_lsn, and the walsender's CPU seconds."""
    slot = plugin.slot + "_copy"
    server.sql("SELECT pg_copy_logical_replication_slot('%s', '%s')" % (plugin.slot, slot))
    start = time.monotonic()
    client = subprocess.Popen(
        [server.program("pg_recvlogical"), "--start", "--slot", slot, "--endpos", end_lsn, "--no-loop", "-f",
         "/dev/null", "-d", "%s options='-c logical_decoding_work_mem=%s'" % (server.conninfo, work_mem),
         *plugin.recvlogical_options()])
    walsender = None
    cpu = 0.0
    while client.poll() is None:
        if walsender is None:
            walsender = find_walsender(server)
        else:
            cpu = cluster.cpu_seconds(walsender) or cpu
        time.sleep(0.01)
    seconds = time.monotonic() - start
    if client.returncode != 0:
        raise SystemExit("pg_recvlogical failed with plugin %s" % plugin.name)
    server.sql("SELECT pg_drop_replication_slot('%s')" % slot)
    return seconds, cpu


def find_walsender(server):
    """By its title, since asking the server would disturb the measurement."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid) as title:
                command = title.read()
            with open("/proc/%s/stat" % pid) as stat:
                parent = int(stat.read().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if "walsender" in command and parent == server.pid:
            return int(pid)
    return None


def measure(server, plugins, end_lsn, rounds, work_mem):
    """A Result per plugin; the order changes from round to round."""
    runs = {plugin.name: [] for plugin in plugins}
    for number in range(rounds):
        for plugin in plugins[number % len(plugins):] + plugins[:number % len(plugins)]:
            runs[plugin.name].append(decode_once(server, plugin, end_lsn, work_mem))
    return {name: Result(statistics.median(run[0] for run in results), statistics.median(run[1] for run in results),
                         min(run[0] for run in results), max(run[0] for run in results))
            for name, results in runs.items()}


def report(title, changes, sizes, results):
    """One table.  Ratios say how many times as fast: by the clock, and by the walsender's CPU time."""
    lines = ["", title,
             "  %-14s %9s %8s %10s %7s %7s | %6s %7s %7s | %8s %8s" % (
                 "plugin", "changes/s", "seconds", "(range)", "/pgout.", "/empty", "CPU s", "/pgout.", "/empty",
                 "messages", "B/change")]
    pgoutput, empty = results["pgoutput"], results["empty"]
    for plugin in PLUGINS:
        if plugin.name not in results:
            continue
        run = results[plugin.name]
        messages, payload = sizes[plugin.name]
        wire = payload + messages * MESSAGE_HEADER_BYTES
        lines.append("  %-14s %9.0f %8.2f %10s %7.2f %7.2f | %6.2f %7.2f %7.2f | %8d %8.1f" % (
            plugin.name, changes / run.seconds, run.seconds, "%.1f-%.1f" % (run.fastest, run.slowest),
            pgoutput.seconds / run.seconds, empty.seconds / run.seconds,
            run.cpu, pgoutput.cpu / run.cpu, empty.cpu / run.cpu, messages, wire / changes))
    return lines


def run_case(server, plugins, title, write, arguments, work_mems):
    for plugin in plugins:
        server.sql("SELECT pg_create_logical_replication_slot('%s', '%s')" % (plugin.slot, plugin.library))
    changes = write(server, arguments.scale)
    end_lsn = server.sql("CHECKPOINT; SELECT pg_current_wal_flush_lsn()")
    sizes = {plugin.name: check_output(server, plugin, changes) for plugin in plugins}
    lines = []
    for work_mem in work_mems:
        results = measure(server, plugins, end_lsn, arguments.rounds, work_mem)
        lines += report("%s: %d changes; logical_decoding_work_mem %s" % (title, changes, work_mem), changes, sizes, results)
    server.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    return lines


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=float, default=1.0, help="size of the workloads (default 1)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each plugin (default 3)")
    arguments = parser.parse_args()

    with cluster.Cluster(output_plugins=["wal2json", "empty_plugin"]) as server:
        build_empty_plugin(server.directory)
        server.sql("ALTER SYSTEM SET dynamic_library_path = '$libdir:%s'" % server.directory)
        server.sql("SELECT pg_reload_conf()")
        server.sql(TABLE)
        plugins = [plugin for plugin in PLUGINS if is_available(server, plugin)]
        lines = ["# bench/decode.py: changes per second from WAL to client, median of %d runs" % arguments.rounds,
                 *cluster.describe_machine(server)]
        lines += run_case(server, plugins, "large: inserts, updates, deletes in 3 transactions",
                          write_large, arguments, ["64MB", "2GB"])
        lines += run_case(server, plugins, "small: transactions of one row", write_small, arguments, ["64MB"])
    lines += ["", "/pgout., /empty: times as fast as that plugin.  CPU s: of the walsender, which other work on the machine",
              "disturbs less than the clock.  B/change: bytes on the wire, with 30 for each message's header.",
              "Every plugin's changes were counted and are complete."]
    print("\n".join(lines))
    save(lines)


def is_available(server, plugin):
    """wal2json is a package of its own."""
    path = os.path.join(cluster.run(os.environ.get("PG_CONFIG", "pg_config"), "--pkglibdir"), plugin.library + ".so")
    if plugin is EMPTY or os.path.exists(path):
        return True
    print("%s is not installed: left out" % plugin.library, file=sys.stderr)
    return False


def save(lines):
    path = os.path.join(HERE, "results", "decode.txt")
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as result:
            result.write("\n".join(lines) + "\n")
    except OSError:
        print("(not saved: %s cannot be written by this user)" % path, file=sys.stderr)


if __name__ == "__main__":
    main()
